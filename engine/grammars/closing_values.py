"""Of values without members: how long their shortest text is, and how much of a begun text may be missing. In bytes."""

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from engine.checks import is_number
from engine.grammars.literals import as_json
from engine.grammars.regex_shape import OPEN_CHARACTER, json_size, shape_of
from engine.grammars.schema_walk import words

QUOTES = 2
LARGEST_CHARACTER = 4  # bytes, in UTF-8 or escaped
NUMBER_SIGNS = 5  # of a number's text, beside its bounds' digits: a sign, a point, a zero before it and one after it

STRING_KEYWORDS = words("minLength maxLength pattern format")
NUMBER_KEYWORDS = words("minimum maximum exclusiveMinimum exclusiveMaximum multipleOf")
# What the grammar library's own formats may still need, whatever was begun.
FORMAT_BYTES = {"uuid": 36, "ipv4": 15, "ipv6": 45, "duration": 16, "uri": 64}


@dataclass(frozen=True, slots=True)
class Leaf:
    """A value of which the text is bounded by itself."""

    text: float  # of the shortest; inf where that is not known
    rest: float  # from anywhere inside or before it; inf where that is not known
    is_sure: bool = True  # whether a value is known to exist


NO_VALUE = Leaf(math.inf, 0, is_sure=False)
UNKNOWN = Leaf(math.inf, math.inf, is_sure=False)
WORDS = {"null": Leaf(4, 4), "boolean": Leaf(4, 5)}
# Inside any value: an open character in a name, then `": 0`.
ANY_VALUE = Leaf(1, OPEN_CHARACTER + 1 + 3)


def num_bytes(value: Any) -> int:
    """Of a value's JSON, in our style."""
    return len(as_json(value).encode())


def literals_leaf(values: list[Any], *, is_bound_further: bool) -> Leaf:
    """One of the values; is_bound_further: whether other keywords may forbid some of them."""
    sizes = [num_bytes(value) for value in values]
    if not sizes:
        return NO_VALUE
    return Leaf(max(sizes) if is_bound_further else min(sizes), max(sizes), is_sure=not is_bound_further)


def string_leaf(schema: Mapping[str, Any]) -> Leaf:
    least, most = schema.get("minLength", 0), schema.get("maxLength")
    if not schema.keys() & {"pattern", "format"}:
        is_sure = most is None or least <= most
        return Leaf(least + QUOTES, least + QUOTES + OPEN_CHARACTER, is_sure=is_sure)
    bound = LARGEST_CHARACTER * most + QUOTES + OPEN_CHARACTER if most is not None else math.inf
    if "format" in schema:
        in_format = FORMAT_BYTES.get(schema["format"], math.inf) + QUOTES
        is_alone = not schema.keys() & (STRING_KEYWORDS - {"format"})
        return Leaf(in_format, in_format) if is_alone else Leaf(bound, bound, is_sure=False)
    shape = shape_of(schema["pattern"], json_size, anchored=False)
    if shape is None:
        return Leaf(bound, bound, is_sure=False)
    if shape.shortest is None:
        return NO_VALUE
    is_long_enough = least <= len(shape.shortest) <= (math.inf if most is None else most)
    text = shape.num_bytes + QUOTES
    rest: float = shape.longest_rest + QUOTES
    if least == 0 and most is not None:
        # Where the shortest rest does not fit below the maximum, the rest that does has fewer characters.
        rest = min(bound, LARGEST_CHARACTER * rest)
    elif least:
        rest = bound
    return Leaf(text if is_long_enough else bound, rest, is_sure=is_long_enough)


def number_leaf(schema: Mapping[str, Any], *, is_integer: bool) -> Leaf:
    numbers = [schema[keyword] for keyword in NUMBER_KEYWORDS if is_number(schema.get(keyword))]
    places = [_places(number) for number in numbers] or [(1, 0)]
    digits = max(before for before, _ in places) + max(after for _, after in places) + NUMBER_SIGNS
    low = max((schema[each] for each in ("minimum", "exclusiveMinimum") if each in schema), default=-math.inf)
    high = min((schema[each] for each in ("maximum", "exclusiveMaximum") if each in schema), default=math.inf)
    if "multipleOf" in schema and (math.isinf(low) or math.isinf(high)):
        # Any digits may have been written; the rest of a multiple is shorter than the step's own digits.
        digits += max(before + after for before, after in places)
    is_sure = "multipleOf" not in schema and high - low > 2 if is_integer else low < high
    return Leaf(1 if low <= 0 <= high and is_sure and not _excludes_zero(schema) else digits, digits, is_sure=is_sure)


def _excludes_zero(schema: Mapping[str, Any]) -> bool:
    return 0 in (schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum"))


@functools.lru_cache(maxsize=1024)
def _places(number: float) -> tuple[int, int]:
    """Digits before and after the point."""
    whole, _, fraction = f"{Decimal(repr(number)).normalize():f}".lstrip("-").partition(".")
    return len(whole), len(fraction)
