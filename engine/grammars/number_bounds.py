"""Bounds of numbers: made such that the grammar library holds them exactly, and added where there are none."""

import math
from collections.abc import Iterable
from typing import Any

from engine.grammars.schema_walk import IN_PLACE, words
from engine.types import JsonObject

# Of a number without a bound on that side. Readers hold all whole numbers up to 2**53 exactly as floats; integers are
# often ids of 64 bits.
LARGEST_NUMBER = 2**53
LARGEST_INTEGER = 9 * 10**18
STEP = 1e-6  # that an exclusive bound moves inward
MAX_FOR_STEP = 10**6  # a larger bound moves by 1: float64 holds no sum of it and the step in a short decimal

LOWER, UPPER = ("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")
BOUNDS = frozenset({*LOWER, *UPPER})
VALUES = words("const enum")


def merges_numbers(schemas: Iterable[JsonObject]) -> bool:
    """Whether bounds that stand in several of the schemas may hold of one number."""
    return any(
        "allOf" in each or len(IN_PLACE & each.keys()) > 1 or (IN_PLACE & each.keys() and BOUNDS & each.keys())
        for each in schemas
    )


def exclusive_bounds_moved(schema: JsonObject, *, merged: bool) -> dict[str, float]:
    """The exclusive bounds that the library would let be written, moved away from them and from zero.

    llguidance 1.9.1 does so with a whole number where the other bound lies less than 1 further from zero.
    merged: whether further bounds may come from elsewhere.
    """
    low = max((schema[keyword] for keyword in LOWER if keyword in schema), default=-math.inf)
    high = min((schema[keyword] for keyword in UPPER if keyword in schema), default=math.inf)
    if schema.get("type") in ("integer", ["integer"]) or not (merged or high - low < 1):
        return {}
    return {
        keyword: bound + sign * (STEP if abs(bound) <= MAX_FOR_STEP else 1)
        for keyword, sign in (("exclusiveMinimum", 1), ("exclusiveMaximum", -1))
        if (bound := schema.get(keyword, -sign)) * sign >= 0 and bound % 1 == 0
    }


def missing_bounds(schema: JsonObject) -> dict[str, int]:
    """Bounds for the sides on which numbers have none; with both, they have no exponent and few digits."""
    if VALUES & schema.keys() or not (BOUNDS & schema.keys() or _names_numbers(schema.get("type", []))):
        return {}
    largest = LARGEST_INTEGER if schema.get("type") in ("integer", ["integer"]) else LARGEST_NUMBER
    sides: dict[str, int] = {}
    if not schema.keys() & {*LOWER}:
        sides["minimum"] = -largest
    if not schema.keys() & {*UPPER}:
        sides["maximum"] = largest
    return sides


def _names_numbers(types: Any) -> bool:
    return bool({"number", "integer"} & ({types} if isinstance(types, str) else set(types)))
