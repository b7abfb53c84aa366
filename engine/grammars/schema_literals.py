"""Values that a schema names: made such that the grammar library writes them as they are."""

from decimal import Decimal
from typing import Any

from engine.checks import is_number
from engine.grammars.schema_walk import unenforceable
from engine.types import JsonObject

# Digits as an integer; with some bounds, larger ones exhaust the library in the midst of a number, from 9,000 on.
MAX_MULTIPLE_OF = 5_000
LARGEST_INTEGER = 9 * 10**18  # that is written; integers are often ids of 64 bits
MAX_EXACT = 2**53  # numbers are read as float64: integers beyond it would become their neighbours

# JSON can write these as \uXXXX only, or (DEL) the grammar library takes them for such.
NEVER_WRITTEN = frozenset(map(chr, [*range(0x20), 0x7F])) - frozenset("\n\r\t\b\f")


def literal(value: Any, path: str, *, largest: int = LARGEST_INTEGER) -> Any:
    """The value, whole numbers in it as integers. Raises SchemaError for what the library would not write as it is.

    largest: integer that is no member of another value; of one that is, the grammar of any value knows no larger ones.
    """
    if isinstance(value, list):
        return [literal(each, path, largest=MAX_EXACT) for each in value]
    if isinstance(value, dict):
        return {name: literal(each, path, largest=MAX_EXACT) for name, each in value.items()}
    if isinstance(value, str) and NEVER_WRITTEN & set(value):
        raise unenforceable(path, f"{value!r} has a control character that is never written")
    if not is_number(value):
        return value
    if value % 1 != 0:
        exponent = Decimal(repr(value)).normalize().as_tuple().exponent
        if _digits(value) <= MAX_EXACT and int(exponent) >= -22:  # such decimals are read and written without rounding
            return value
    elif abs(value) <= MAX_EXACT or (isinstance(value, int) and abs(value) <= largest):
        return int(value)
    raise unenforceable(path, f"the number {value} cannot be held exactly: it may have 15 digits, an integer {largest}")


def is_exact(value: Any) -> bool:
    """Whether the grammar library writes a literal as it is; the veto holds a larger integer."""
    return not is_number(value) or abs(value) <= MAX_EXACT


def kind_of(value: Any) -> str:
    """The type of a JSON value; integers are numbers."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if is_number(value):
        return "number"
    if isinstance(value, str):
        return "string"
    return "array" if isinstance(value, list) else "object"


def values_of(schema: JsonObject, keyword: str) -> list[Any]:
    """The values that `const` or `enum` lists."""
    return [schema["const"]] if keyword == "const" else list(schema["enum"])


def is_whole(value: Any) -> bool:
    return bool(value % 1 == 0)


def is_too_large(multiple: float) -> bool:
    """Whether multiples of this need too large a grammar."""
    return max(_digits(multiple), multiple) > MAX_MULTIPLE_OF


def _digits(value: float) -> int:
    """The number's decimal digits as an integer, without zeros around them."""
    return int("".join(map(str, Decimal(repr(value)).normalize().as_tuple().digits)))
