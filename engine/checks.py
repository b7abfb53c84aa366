"""What a value must be; where it is not, a RequestError says what was given and what is allowed.

Nothing here raises anything else, whatever it is given: what is checked comes from callers who are not type-checked.
"""

import json
import math
import re
import reprlib
from types import UnionType
from typing import NoReturn

from engine.errors import RequestError

_JSON_SPACE = " \t\n\r"
_JSON_TOKEN = re.compile(
    r"""[ \t\n\r]*+(?:
        (?P<mark>[{}\[\],:])
        | (?P<string>"[^"\\\x00-\x1f]*+(?:\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})[^"\\\x00-\x1f]*+)*+")
        | (?P<scalar>-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?+(?:[eE][+-]?[0-9]++)?+|true|false|null)
    )""",
    re.VERBOSE,
)
# What is read next, by what was to be read and the token found; a bracket that closes, and the comma, look further up.
_JSON_STATES = {
    **{(state, "{"): "first name" for state in ("value", "first value")},
    **{(state, "["): "first value" for state in ("value", "first value")},
    **{(state, kind): "end" for state in ("value", "first value") for kind in ("string", "scalar")},
    **{(state, "string"): "colon" for state in ("name", "first name")},
    ("colon", ":"): "value",
}
_JSON_CLOSES = {"}": (("{", "first name"), ("{", "end")), "]": (("[", "first value"), ("[", "end"))}


def check(param: str, value: object, allowed: str, *, holds: bool, error: type[RequestError] = RequestError) -> None:
    """Raise an error that names the parameter, unless it holds. allowed: how "it must be" goes on."""
    if not holds:
        raise error(f"{param} is {shown(value)}; it must be {allowed}", param=param)


def shown(value: object) -> str:
    """The value, for an error's text: on one line, and short whatever it is."""
    try:
        return reprlib.repr(value)
    except ValueError:  # Python does not print integers of thousands of digits
        return "too long a number"


def is_integer(value: object) -> bool:
    """An int; True and False are none."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: object) -> bool:
    """An int or a float, NaN among them."""
    return isinstance(value, float) or is_integer(value)


def is_finite(value: object) -> bool:
    """A number that is neither NaN nor infinite, as a float."""
    try:
        return is_number(value) and math.isfinite(value)  # type: ignore[arg-type]  # a number
    except OverflowError:
        return False


def is_text(value: object) -> bool:
    """A string that has a UTF-8 form: one without lone surrogates."""
    try:
        return isinstance(value, str) and value.encode() is not None
    except UnicodeEncodeError:
        return False


def is_tuple_of(kind: type | UnionType, value: object) -> bool:
    """A tuple, all of one kind."""
    return isinstance(value, tuple) and all(isinstance(each, kind) for each in value)


def is_tuple_of_integers(value: object) -> bool:
    """A tuple of ints, none of them True or False."""
    return isinstance(value, tuple) and all(map(is_integer, value))


def is_json_object(text: str) -> bool:
    """The text of a JSON object, however deep it is and however long its numbers: Python's json need not read it."""
    state, position = "value", 0
    open_brackets: list[str] = []
    text = text.strip(_JSON_SPACE)
    while token := _JSON_TOKEN.match(text, position):
        kind, position = token["mark"] or token.lastgroup or "", token.end()
        if kind in ("}", "]"):
            if not open_brackets or (open_brackets.pop(), state) not in _JSON_CLOSES[kind]:
                return False
            state = "end"
        elif (state, kind) == ("end", ",") and open_brackets:
            state = "name" if open_brackets[-1] == "{" else "value"
        elif (state, kind) in _JSON_STATES:
            state = _JSON_STATES[state, kind]
        else:
            return False
        if kind in ("{", "["):
            open_brackets.append(kind)
    return text.startswith("{") and position == len(text) and state == "end" and not open_brackets


def is_json_strings(text: str) -> bool:
    """The text of a JSON array of strings."""
    values = read_json(text)
    return isinstance(values, list) and all(map(is_text, values))


def read_json(text: str) -> object:
    """The value; None where the text is no JSON, or more than Python's parser takes."""
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):  # Python's parser follows the nesting by recursion
        return None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def json_text(param: str, value: object, *, error: type[RequestError] = RequestError) -> str:
    """The value as JSON. Raises an error where JSON cannot write it, or UTF-8 not that."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
        text.encode()
    except (TypeError, ValueError, RecursionError) as reason:
        raise error(f"{param} cannot be written as JSON: {reason}", param=param) from reason
    return text
