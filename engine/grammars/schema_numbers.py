"""Numbers: all that is asked of one, as schemas whose bounds the grammar library holds exactly.

Numbers without a bound on some side get one; with both, they have no exponent and few digits.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Any

from engine.events import Enforcement, ReceiptEntry
from engine.grammars.schema_literals import LARGEST_INTEGER, MAX_EXACT, is_too_large
from engine.grammars.schema_logic import Atom

# Of a number without a bound on that side. Readers hold all whole numbers up to 2**53 exactly as floats.
LARGEST_NUMBER = 2**53
MAX_DIGITS = 15  # of a decimal that is surely read as what is written; a longer one may be read as no multiple
STEP = Decimal("1e-6")  # that an exclusive bound moves inward, at most
MAX_FOR_STEP = 10**6  # a larger bound moves further: float64 holds no sum of it and the step in a short decimal
LOWER, UPPER = ("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")
MAX_LISTED = 100  # multiples that are listed one by one
MAX_EXCLUDED = 50  # numbers that one number must not be

Note = Callable[[ReceiptEntry], None]


def range_schemas(
    atoms: Sequence[Atom], excluded: Sequence[float], path: str, path_of: Callable[[str], str], note: Note
) -> list[dict[str, Any]]:
    """One schema for each range in which the number may lie."""
    multiple = _multiple(atoms)
    is_integer = any(atom.kind == "integer" for atom in atoms) or (multiple is not None and multiple % 1 == 0)
    bounds = _bounds(atoms)
    if multiple == 1:
        multiple = None
    largest = LARGEST_INTEGER if is_integer else LARGEST_NUMBER if multiple is None else _largest_of(multiple)
    found = []
    for each in _around(sorted(set(excluded))[:MAX_EXCLUDED], bounds):
        schema: dict[str, Any] = {"type": "integer" if is_integer else "number", **each}
        if multiple is not None and not is_integer:
            schema = _at_multiples(schema, multiple)
        schema = _whole(schema) if is_integer else _moved(schema, atoms, path_of, note)
        missing = _missing(schema, largest)
        if missing:
            text = " and ".join(f"{keyword} {bound}" for keyword, bound in missing.items())
            note(ReceiptEntry(path, Enforcement.NARROWED, f"numbers have {text}, and no exponent"))
        schema |= missing | ({} if multiple is None else {"multipleOf": multiple})
        if not _is_empty(schema):
            found.append(_few_multiples(schema) or schema)
    return found


def _at_multiples(schema: dict[str, Any], multiple: Any) -> dict[str, Any]:
    """The same numbers, with bounds that are multiples themselves: the library finds none between finer ones."""
    step, moved = _exact(multiple), dict(schema)
    for (plain, exclusive), sign in ((LOWER, 1), (UPPER, -1)):
        for keyword in {plain, exclusive} & schema.keys():
            steps = sign * _exact(schema[keyword]) / step
            first = math.floor(steps) + 1 if keyword == exclusive else math.ceil(steps)
            del moved[keyword]
            moved[plain] = _as_number(float(sign * first * step))
    return moved


def _largest_of(multiple: float) -> float:
    """The largest multiple of a fraction that is written."""
    num_decimals = -int(Decimal(repr(multiple)).normalize().as_tuple().exponent)
    step = _exact(multiple)
    found = Fraction(10) ** (MAX_DIGITS - num_decimals) // step * step
    return int(found) if found.denominator == 1 else float(found)


def _few_multiples(schema: dict[str, Any]) -> dict[str, Any] | None:
    """The numbers themselves, where they are few multiples of a fraction: the library rounds such bounds."""
    step = _exact(schema.get("multipleOf", 1))
    if step.denominator == 1 or not {"minimum", "maximum"} <= schema.keys():
        return None
    first, last = (round(_exact(schema[keyword]) / step) for keyword in ("minimum", "maximum"))
    if last - first >= MAX_LISTED:
        return None
    return {"enum": [_as_number(float(number * step)) for number in range(first, last + 1)]}


def _exact(number: float) -> Fraction:
    return Fraction(Decimal(repr(number)))


def _multiple(atoms: Sequence[Atom]) -> Any:
    values = [Fraction(Decimal(repr(atom.value))) for atom in atoms if atom.kind == "multipleOf"]
    if not values:
        return None
    scale = math.lcm(*(value.denominator for value in values))
    common = Fraction(math.lcm(*(int(value * scale) for value in values)), scale)
    return int(common) if common.denominator == 1 else float(common)


def is_multiple_too_large(atoms: Sequence[Atom]) -> bool:
    """Whether no grammar can hold the least common multiple of what is asked.

    It makes too large a one, or all numbers lie too far out, or the library would not read the multiple as it is.
    """
    multiple = _multiple(atoms)
    if multiple is None or is_too_large(multiple):
        return multiple is not None
    if not _is_read_exactly(multiple) and not _are_few(multiple, _bounds(atoms)):
        return True
    nearest = min((abs(bound) for bound in _bounds(atoms).values()), default=0)
    return multiple % 1 != 0 and nearest > _largest_of(multiple) and not _holds(0, _bounds(atoms))


def decimal_step(multiple: Any) -> float:
    """The last decimal that multiples of this may have: a power of ten."""
    return float(f"1e{Decimal(repr(multiple)).normalize().as_tuple().exponent}")


def _is_read_exactly(multiple: float) -> bool:
    """Whether the library gets the digits of a fraction: it multiplies by ten, as a float, until nothing is left."""
    if multiple % 1 == 0:
        return True
    scaled = float(multiple)
    while scaled % 1 != 0:
        scaled *= 10
    return scaled == _exact(multiple) / _exact(decimal_step(multiple))


def _are_few(multiple: float, bounds: dict[str, float]) -> bool:
    """Whether the multiples can be listed."""
    low = [bound for keyword, bound in bounds.items() if keyword in LOWER]
    high = [bound for keyword, bound in bounds.items() if keyword in UPPER]
    return bool(low and high) and (_exact(high[0]) - _exact(low[0])) / _exact(multiple) < MAX_LISTED - 1


def _bounds(atoms: Sequence[Atom]) -> dict[str, float]:
    """The tightest bound on each side; at the same number, the exclusive one."""
    found: dict[str, float] = {}
    for (plain, exclusive), sign in ((LOWER, 1), (UPPER, -1)):
        sides = [
            (sign * _as_number(atom.value), atom.kind == exclusive) for atom in atoms if atom.kind in (plain, exclusive)
        ]
        if sides:
            bound, is_exclusive = max(sides)
            found[exclusive if is_exclusive else plain] = sign * bound
    return found


def _as_number(value: Any) -> Any:
    return int(value) if value % 1 == 0 else value


def _around(excluded: Sequence[float], bounds: dict[str, float]) -> Iterator[dict[str, float]]:
    """The ranges between the numbers that are excluded."""
    inside = [value for value in excluded if _holds(value, bounds)]
    lower = {keyword: bound for keyword, bound in bounds.items() if keyword in LOWER}
    upper = {keyword: bound for keyword, bound in bounds.items() if keyword in UPPER}
    for value in inside:
        yield {**lower, "exclusiveMaximum": value}
        lower = {"exclusiveMinimum": value}
    yield {**lower, **upper}


def _holds(value: float, bounds: dict[str, float]) -> bool:
    return all(
        {"minimum": value >= bound, "maximum": value <= bound, "exclusiveMinimum": value > bound}.get(
            keyword, value < bound
        )
        for keyword, bound in bounds.items()
    )


def _whole(schema: dict[str, Any]) -> dict[str, Any]:
    """An integer's bounds, inclusive and whole."""
    bounds: dict[str, int] = {}
    if "minimum" in schema or "exclusiveMinimum" in schema:
        bounds["minimum"] = (
            math.ceil(schema["minimum"]) if "minimum" in schema else math.floor(schema["exclusiveMinimum"]) + 1
        )
    if "maximum" in schema or "exclusiveMaximum" in schema:
        bounds["maximum"] = (
            math.floor(schema["maximum"]) if "maximum" in schema else math.ceil(schema["exclusiveMaximum"]) - 1
        )
    largest = {
        keyword: LARGEST_INTEGER if abs(bound) == LARGEST_INTEGER else MAX_EXACT for keyword, bound in bounds.items()
    }
    if "minimum" in bounds:
        bounds["minimum"] = max(bounds["minimum"], -largest["minimum"])
    if "maximum" in bounds:
        bounds["maximum"] = min(bounds["maximum"], largest["maximum"])
    return {"type": "integer", **bounds}


def _moved(schema: dict[str, Any], atoms: Sequence[Atom], path_of: Callable[[str], str], note: Note) -> dict[str, Any]:
    """Bounds that are exact, and none of the exclusive ones that the library would let be written.

    llguidance 1.9.1 does so with a whole number where the other bound lies less than 1 further from zero.
    """
    for keyword, sign in (("minimum", 1), ("exclusiveMinimum", 1), ("maximum", -1), ("exclusiveMaximum", -1)):
        if keyword in schema and schema[keyword] * sign < -MAX_EXACT:
            schema[keyword] = -MAX_EXACT * sign
    low = max((schema[keyword] for keyword in LOWER if keyword in schema), default=-math.inf)
    high = min((schema[keyword] for keyword in UPPER if keyword in schema), default=math.inf)
    if not 0 < high - low < 1:
        return schema
    for keyword, sign in (("exclusiveMinimum", 1), ("exclusiveMaximum", -1)):
        bound = schema.get(keyword, -sign)
        if bound * sign >= 0 and bound % 1 == 0:
            schema[keyword] = _inward(bound, sign, high - low)
            blame = next((atom.blame for atom in atoms if atom.value == bound), None)
            if blame is not None:
                note(ReceiptEntry(path_of(blame), Enforcement.NARROWED, f"moved to {schema[keyword]}"))
    return schema


def _inward(bound: float, sign: int, width: float) -> float:
    """An exclusive bound of a range, moved by a power of ten below half its width; width: above 0, below 1."""
    step = Decimal(10) ** math.floor(math.log10(width / 2))
    if abs(bound) <= MAX_FOR_STEP:
        step = min(step, STEP)
    return float(Decimal(repr(bound)) + sign * step)


def _missing(schema: dict[str, Any], largest: float) -> dict[str, float]:
    """Bounds for the sides on which the number has none, or one further from zero."""
    sides: dict[str, float] = {}
    if not schema.keys() & {*LOWER} or schema.get("minimum", 0) < -largest:
        sides["minimum"] = -largest
    if not schema.keys() & {*UPPER} or schema.get("maximum", 0) > largest:
        sides["maximum"] = largest
    return sides


def _is_empty(schema: dict[str, Any]) -> bool:
    low = max(schema[keyword] for keyword in LOWER if keyword in schema)
    high = min(schema[keyword] for keyword in UPPER if keyword in schema)
    if low == high:
        step = schema.get("multipleOf")
        is_off = step is not None and Fraction(repr(low)) % Fraction(repr(step)) != 0
        return bool({"exclusiveMinimum", "exclusiveMaximum"} & schema.keys()) or is_off
    return bool(low > high)
