"""Strings written without quotes, up to a tag: as terminals of the grammar, and read back as JSON."""

import json
from collections.abc import Iterator

from engine.grammars.encoders.arguments import Terminals
from engine.grammars.encoders.whole_patterns import whole_regex
from engine.grammars.literals import ANY_TEXT, string_literal
from engine.grammars.schema_walk import child_path, refusal
from engine.types import JsonObject

BYTE = r"(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
FORMATS = {  # others come as patterns, or are refused
    "ipv4": rf"{BYTE}(\.{BYTE}){{3}}",
    "uuid": r"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}",
}
KEYWORDS = frozenset({"type", "minLength", "maxLength", "pattern", "format", "allOf"})


def raw_string(schema: JsonObject, tag: str, path: str) -> str:
    """A terminal for the strings of the schema that do not contain the tag. SchemaError, by path, for what has none.

    tag: none where a token ends the string: what spells it is not the token.
    """
    barred = [f"~({ANY_TEXT} {string_literal(tag)} {ANY_TEXT})"] if tag else []
    return " & ".join([ANY_TEXT, *barred, *_terms(schema, path)])


def _terms(schema: JsonObject, path: str) -> Iterator[str]:
    """Terminals that a string must be all of."""
    for keyword in schema.keys() - KEYWORDS:
        raise refusal(child_path(path, keyword), f"this model's format cannot hold {keyword} of a string")
    least, most = schema.get("minLength", 0), schema.get("maxLength")
    if least or most is not None:
        yield f"/(?s:.{{{least},{'' if most is None else most}}})/"
    if "pattern" in schema:
        yield whole_regex(schema["pattern"], child_path(path, "pattern"))
    if "format" in schema:
        yield _format(schema["format"], child_path(path, "format"))
    for each in schema.get("allOf", ()):
        yield from _terms(each, path)


def _format(name: str, path: str) -> str:
    if name not in FORMATS:
        known = ", ".join(sorted(FORMATS))
        raise refusal(path, f"in this model's format {name!r} cannot be enforced; allowed are {known}")
    return f"/{FORMATS[name]}/"


def one_of(values: list[str], tag: str, path: str) -> str:
    """A terminal for exactly these strings. tag: as raw_string."""
    for value in values:
        if tag and tag in value:
            raise refusal(path, f"{value!r} contains {tag}, which ends a string in this model's format")
    return " | ".join(string_literal(value) for value in dict.fromkeys(values))


def ended(name: str, terminal: str, end: str, terminals: Terminals) -> tuple[str, ...]:
    """Rules for `name`: text of the terminal, and its end as soon as that is whole."""
    ending, text = terminals(end), f"{name.upper()}: {terminal}"
    if ending.startswith("<["):
        return text, f"{name}: {name.upper()} {ending}"
    return text, f"{name}[suffix={string_literal(end)}]: {name.upper()}"


def escaped(text: str) -> str:
    """The text as it stands inside a JSON string."""
    return json.dumps(text, ensure_ascii=False)[1:-1]
