"""JSON schemas made ready for the grammar: checked, and every keyword enforced, annotated or refused by its path.

    the caller's schema    of any draft
    -> source              the same in draft 2020-12, assertions only (schema_source)
    -> states, cases       all keywords that speak of one place put together (schema_tableau)
    -> schema              what the grammar library holds (schema_emission)

What the grammar admits is never more than the source, but for the keywords that are named as vetoed.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from engine.errors import SchemaError
from engine.events import Enforcement, ReceiptEntry
from engine.grammars.literals import as_json
from engine.grammars.schema_emission import ExampleSchema, emit, examples_for
from engine.grammars.schema_limits import DEFAULT_LIMITS, SchemaLimits
from engine.grammars.schema_plain import Plain, plain_object
from engine.grammars.schema_source import Options, Source, read_source
from engine.grammars.schema_tableau import Tableau
from engine.grammars.schema_walk import refusal
from engine.types import JsonObject

# One space after ',' and ':', as the families were trained, and no other white space. No \uXXXX: text is written as
# literal UTF-8, and broken surrogates cannot be. llguidance reads this at a schema's top level.
JSON_STYLE = {
    "whitespace_flexible": False,
    "item_separator": ", ",
    "key_separator": ": ",
    "json_allowed_escapes": 'nrbtf\\"',
}

KEY_ORDER = "properties are written in the schema's order"
NO_ARGUMENTS: dict[str, Any] = {"type": "object", "properties": {}, "additionalProperties": False}


@dataclass(frozen=True, slots=True)
class CheckedSchema:
    """A schema that the grammar holds, and what became of all that was asked."""

    schema: dict[str, Any]  # for the grammar
    entries: tuple[ReceiptEntry, ...] = ()
    patterns: Mapping[str, str] = field(default_factory=dict)  # path -> regex
    source: JsonObject | bool = True  # what a value must satisfy, in draft 2020-12, its references inside
    vetoed: frozenset[str] = frozenset()  # JSON pointers into the source: keywords that `schema` does not hold
    examples: tuple[ExampleSchema, ...] = ()  # for some of these

    def lark(self) -> str:
        """The schema as a nonterminal of a Lark grammar, in our JSON style."""
        return "%json " + as_json({**self.schema, "x-guidance": JSON_STYLE})


def check_schema(
    schema: Any,
    path: str,
    *,
    lenient: bool = False,
    strict_formats: bool = False,
    limits: SchemaLimits = DEFAULT_LIMITS,
) -> CheckedSchema:
    """A schema taken as JSON Schema writes it. Raises SchemaError that names the keyword by path.

    lenient: drop keywords that cannot be enforced, and name them in the entries. strict_formats: refuse the formats
    that no draft knows, which else are annotations.
    """
    options = Options(lenient=lenient, strict_formats=strict_formats)
    if plain := plain_object(schema, path, options, limits):
        return _checked_plain(plain, path)
    return _checked(_read(schema, path, options, limits), path, limits)


def check_arguments_schema(
    schema: JsonObject | None,
    path: str,
    *,
    open_objects: bool,
    lenient: bool = False,
    strict_formats: bool = False,
    limits: SchemaLimits = DEFAULT_LIMITS,
) -> CheckedSchema:
    """A schema of a tool's arguments: always an object, closed where it does not say otherwise.

    No schema, or one that says no more than "object", means a tool without arguments.
    Raises SchemaError that names the keyword by path.
    """
    if schema is None:
        return CheckedSchema(NO_ARGUMENTS, source=NO_ARGUMENTS)
    if not isinstance(schema, Mapping):
        raise SchemaError(f"{path} is {schema!r}; it must be a JSON schema of an object", param=path)
    options = Options(close_objects=not open_objects, lenient=lenient, strict_formats=strict_formats)
    schema = dict(schema)
    if plain := plain_object(schema, path, options, limits):
        return _checked_plain(plain, path)
    source = _read(schema, path, options, limits)
    assert isinstance(source.schema, dict)
    if _names_no_properties(source.schema):
        entry = ReceiptEntry(path, Enforcement.NARROWED, "names no properties, so the arguments are {}")
        return CheckedSchema(NO_ARGUMENTS, (*source.entries, entry), source=NO_ARGUMENTS)
    return _checked(replace(source, schema=_as_object(source.schema, path)), path, limits)


def _read(schema: Any, path: str, options: Options, limits: SchemaLimits) -> Source:
    try:
        return read_source(schema, path, options, limits)
    except RecursionError:
        raise refusal(path, "its schemas are nested too deep, or refer to each other in too long a row") from None


def _checked(source: Source, path: str, limits: SchemaLimits) -> CheckedSchema:
    try:
        tableau = Tableau(source, limits)
        emitted = emit(tableau, path)
        examples = tuple(examples_for(tableau, emitted.wishes, path))
    except RecursionError:
        raise refusal(path, "its schemas are nested too deep, or refer to each other in too long a row") from None
    order = [ReceiptEntry(path, Enforcement.NARROWED, KEY_ORDER)] if emitted.has_order else []
    entries = tuple(dict.fromkeys((*source.entries, *order, *_each_place_once(emitted.entries))))
    vetoed = frozenset(emitted.vetoed)
    return CheckedSchema(emitted.schema, entries, source.patterns, source.schema, vetoed, examples)


def _each_place_once(entries: Iterable[ReceiptEntry]) -> Iterator[ReceiptEntry]:
    """The branches of a oneOf say each for itself what became of a place that is above them."""
    details: dict[tuple[str, Enforcement], list[str]] = {}
    for entry in entries:
        details.setdefault((entry.path, entry.enforcement), []).append(entry.detail)
    for (path, enforcement), found in details.items():
        yield ReceiptEntry(path, enforcement, "; ".join(dict.fromkeys(found)))


def _checked_plain(plain: Plain, path: str) -> CheckedSchema:
    order = [ReceiptEntry(path, Enforcement.NARROWED, KEY_ORDER)] if plain.has_order else []
    entries = tuple(dict.fromkeys((*plain.entries, *order, *plain.narrowed)))
    return CheckedSchema(plain.schema, entries, source=plain.source)


def _names_no_properties(schema: JsonObject) -> bool:
    types, required = schema.get("type", "object"), schema.get("required", [])
    return (
        schema.keys() <= {"$schema", "type", "required", "additionalProperties", "$defs", "definitions"}
        and schema.get("additionalProperties", False) is False
        and types in ("object", ["object"])
        and not required
    )


def _as_object(schema: dict[str, Any], path: str) -> dict[str, Any]:
    types = schema.get("type", "object")
    if types != "object" and "object" not in types:
        raise SchemaError(f"{path}.type is {types!r}; arguments are always an object", param=f"{path}.type")
    return {**schema, "type": "object"}
