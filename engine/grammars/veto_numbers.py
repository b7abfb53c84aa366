"""Integers that must be multiples of what is too large for a grammar: how such a number can go on."""

import math
from collections.abc import Iterator
from typing import Any

from engine.checks import is_number
from engine.grammars.schema_places import Place


def next_multiples(place: Place, begun: str) -> Iterator[int]:
    """Integers that may stand at a place, of which this text is the beginning; none where the place asks for none."""
    if not any("multipleOf" in place.schemas.get(pointer, ()) for pointer in place.judged):
        return
    step = _step(place)
    if step is None or not (begun.removeprefix("-").isdecimal() or begun in ("", "-")):
        return
    low, high = _bounds(place)
    found = _of_begun(int(begun), step) if begun.strip("-") else _of_none(low, high, step)
    for number in found:
        if low <= number <= high and str(number).startswith(begun):
            yield number


def _step(place: Place) -> int | None:
    steps = [schema["multipleOf"] for schema in place.schemas.values() if "multipleOf" in schema]
    return math.lcm(*map(int, steps)) if all(step % 1 == 0 for step in steps) else None


def _bounds(place: Place) -> tuple[float, float]:
    low, high = -math.inf, math.inf
    for schema in place.schemas.values():
        numbers: dict[str, Any] = {keyword: value for keyword, value in schema.items() if is_number(value)}
        low = max(low, numbers.get("minimum", low), _beyond(numbers.get("exclusiveMinimum", -math.inf), 1))
        high = min(high, numbers.get("maximum", high), _beyond(numbers.get("exclusiveMaximum", math.inf), -1))
    return low, high


def _beyond(bound: float, direction: int) -> float:
    """The first integer past an exclusive bound."""
    if math.isinf(bound):
        return bound
    return math.floor(bound) + 1 if direction > 0 else math.ceil(bound) - 1


def _of_none(low: float, high: float, step: int) -> Iterator[int]:
    """Multiples near zero, and near the bounds."""
    yield from (0, step, -step)
    if not math.isinf(low):
        yield -(-math.ceil(low) // step) * step
    if not math.isinf(high):
        yield math.floor(high) // step * step


def _of_begun(number: int, step: int) -> Iterator[int]:
    """The number with as few more digits as make it a multiple."""
    sign, digits = (-1 if number < 0 else 1), abs(number)
    for num_more in range(len(str(step)) + 1):
        shifted = digits * 10**num_more
        rest = -shifted % step
        if rest < 10**num_more:
            yield sign * (shifted + rest)
