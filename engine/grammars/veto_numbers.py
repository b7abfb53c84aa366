"""Numbers that must be multiples of what no grammar holds: how such a number can go on.

All are counted in units of the last decimal that a multiple may have, so that nothing is rounded.
"""

import math
import re
from collections.abc import Iterator
from decimal import Decimal
from fractions import Fraction
from typing import Any

from engine.checks import is_number
from engine.grammars.schema_places import Place

_BEGUN = re.compile(r"-?(?:[0-9]+(?:\.[0-9]*)?)?")
_PER_RANGE = 2  # multiples that are named: the first may be whole, where a decimal point stands already


def next_multiples(place: Place, begun: str) -> Iterator[float]:
    """Numbers that may stand at a place, of which this text is the beginning; none where the place asks for none."""
    if not any("multipleOf" in place.schemas.get(pointer, ()) for pointer in place.judged):
        return
    if _BEGUN.fullmatch(begun) is None:
        return
    exact = _step(place)
    scale = 10 ** _num_decimals(exact)
    step = int(exact * scale)
    low, high = _bounds(place, scale)
    for number in _of_begun(begun, step, scale, low, high) if begun.strip("-") else _of_none(low, high, step):
        value = number // scale if number % scale == 0 else float(Fraction(number, scale))
        if low <= number <= high and str(value).startswith(begun) and "e" not in str(value):
            yield value


def _step(place: Place) -> Fraction:
    steps = [_exact(schema["multipleOf"]) for schema in place.schemas.values() if "multipleOf" in schema]
    scale = math.lcm(*(step.denominator for step in steps))
    return Fraction(math.lcm(*(int(step * scale) for step in steps)), scale)


def _num_decimals(step: Fraction) -> int:
    """step: a decimal, so that its denominator divides a power of ten."""
    return next(count for count in range(step.denominator.bit_length()) if 10**count % step.denominator == 0)


def _exact(number: float) -> Fraction:
    return Fraction(Decimal(repr(number)))


def _bounds(place: Place, scale: int) -> tuple[float, float]:
    low, high = -math.inf, math.inf
    for schema in place.schemas.values():
        numbers: dict[str, Any] = {key: _exact(value) * scale for key, value in schema.items() if is_number(value)}
        low = max(low, math.ceil(numbers["minimum"])) if "minimum" in numbers else low
        low = max(low, math.floor(numbers["exclusiveMinimum"]) + 1) if "exclusiveMinimum" in numbers else low
        high = min(high, math.floor(numbers["maximum"])) if "maximum" in numbers else high
        high = min(high, math.ceil(numbers["exclusiveMaximum"]) - 1) if "exclusiveMaximum" in numbers else high
    return low, high


def _of_none(low: float, high: float, step: int) -> Iterator[int]:
    """Multiples near zero, and near the bounds."""
    yield from (0, step, -step)
    if not math.isinf(low):
        yield -(-math.ceil(low) // step) * step
    if not math.isinf(high):
        yield math.floor(high) // step * step


def _of_begun(begun: str, step: int, scale: int, low: float, high: float) -> Iterator[int]:
    """The number with as few more digits as make it a multiple."""
    sign = -1 if begun.startswith("-") else 1
    nearest = max(low, 0) if sign > 0 else max(-high, 0)  # from zero, that the bounds allow
    for first, size in _ranges(begun.removeprefix("-"), step, scale):
        start = max(first, math.ceil(nearest))
        multiple = start + -start % step
        for number in range(multiple, min(first + size, multiple + _PER_RANGE * step), step):
            yield sign * number


def _ranges(digits: str, step: int, scale: int) -> Iterator[tuple[int, int]]:
    """Where the numbers lie that begin with these digits: the first of them, and how many there are."""
    whole, point, decimals = digits.partition(".")
    if point:
        size = Fraction(scale, 10 ** len(decimals))
        if size >= 1:
            yield int(whole + decimals) * int(size), int(size)
        return
    for num_more in range(len(str(step)) + 1):
        size_of_all = scale * 10**num_more
        yield int(whole) * size_of_all, size_of_all
