"""Values that a schema names: made such that the grammar library writes them as they are."""

from decimal import Decimal
from typing import Any

from engine.checks import is_number
from engine.grammars.schema_walk import unenforceable
from engine.types import JsonObject

MAX_MULTIPLE_OF = 10_000  # digits as an integer, without zeros at the end; larger ones take seconds to compile
MAX_EXACT = 2**53  # numbers are read as float64: integers beyond it would become their neighbours

# JSON can write these as \uXXXX only, or (DEL) the grammar library takes them for such.
NEVER_WRITTEN = frozenset(map(chr, [*range(0x20), 0x7F])) - frozenset("\n\r\t\b\f")


def literal(value: Any, path: str) -> Any:
    """The value, whole numbers in it as integers. Raises SchemaError for what the library would not write as it is."""
    if isinstance(value, list):
        return [literal(each, path) for each in value]
    if isinstance(value, dict):
        return {name: literal(each, path) for name, each in value.items()}
    if isinstance(value, str) and NEVER_WRITTEN & set(value):
        raise unenforceable(path, f"{value!r} has a control character that is never written")
    if not is_number(value):
        return value
    if value % 1 != 0:
        exponent = Decimal(repr(value)).normalize().as_tuple().exponent
        if _digits(value) <= MAX_EXACT and int(exponent) >= -22:  # such decimals are read and written without rounding
            return value
    elif abs(value) <= MAX_EXACT:
        return int(value)
    raise unenforceable(path, f"the number {value} cannot be held exactly")


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


def check_multiple(value: float, path: str) -> None:
    """Raises SchemaError where a multiple of the value needs too large a grammar."""
    if _digits(value) * (10 if value > MAX_MULTIPLE_OF else 1) > MAX_MULTIPLE_OF:
        raise unenforceable(path, f"a multiple of {value} needs too large a grammar")


def _digits(value: float) -> int:
    """The number's decimal digits as an integer, without zeros around them."""
    return int("".join(map(str, Decimal(repr(value)).normalize().as_tuple().digits)))
