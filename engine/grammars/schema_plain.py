"""Schemas of the commonest kind, read and written in one pass: closed objects, lists, strings, numbers and flags.

Most tools ask for nothing else. What comes out is, entry by entry, what schema_source, schema_tableau and
schema_emission make of such a schema; whatever else a schema says is left to them.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from engine.events import Enforcement, ReceiptEntry
from engine.grammars.schema_closing import closed
from engine.grammars.schema_dialects import DRAFT_2020_12, dialect_of
from engine.grammars.schema_emission import MAX_INLINE
from engine.grammars.schema_limits import SchemaLimits
from engine.grammars.schema_literals import NEVER_WRITTEN
from engine.grammars.schema_logic import Atom
from engine.grammars.schema_numbers import range_schemas
from engine.grammars.schema_source import CLOSED, NO_ASSERTION, Options, check_size, is_annotation
from engine.grammars.schema_walk import child_path, words

ASSERTIONS = {  # by type: the keywords that are read here
    "object": words("type properties required additionalProperties"),
    "array": words("type items"),
    "string": words("type enum"),
    **dict.fromkeys(("integer", "number", "boolean", "null"), words("type")),
}


@dataclass(frozen=True, slots=True)
class Plain:
    """A schema that is plain, as json_schema.CheckedSchema has it."""

    schema: dict[str, Any]
    source: dict[str, Any]
    entries: tuple[ReceiptEntry, ...]  # on the source
    narrowed: tuple[ReceiptEntry, ...]  # on the schema, where it admits less
    has_order: bool  # some object may have two properties


def plain_object(schema: Any, path: str, options: Options, limits: SchemaLimits) -> Plain | None:
    """The schema of an object, if it is plain; None where it is anything else.

    Raises SchemaError, as read_source does, for what is not well written.
    """
    if not isinstance(schema, dict) or schema.get("type") != "object":
        return None
    reader = _Reader(options.close_objects, limits)
    try:
        source, written = reader.schema(schema, path, 1)
    except _NotPlainError:
        return None
    check_size(schema, path, limits)
    if reader.num_schemas > min(limits.max_properties, limits.max_subschemas, limits.max_compiled):
        return None
    if dialect_of(schema, path) is not DRAFT_2020_12:
        return None
    definitions = reader.definitions()
    return Plain(
        {**written, "$defs": definitions} if definitions else written,
        {"$schema": DRAFT_2020_12.metaschema, **source},
        tuple(reader.entries),
        tuple(reader.narrowed),
        reader.has_order,
    )


class _NotPlainError(Exception):
    """The schema says more than is read here."""


def _bounded(kind: str) -> tuple[dict[str, Any], str]:
    """Any number of a type, and what is said of its bounds."""
    notes: list[ReceiptEntry] = []
    atoms = [Atom("integer", None, "")] if kind == "integer" else []
    [schema] = range_schemas(atoms, [], "", str, notes.append)
    return schema, notes[0].detail


NUMBERS = {kind: _bounded(kind) for kind in ("integer", "number")}


@dataclass(slots=True)
class _Reader:
    """One pass over one schema: of each inside it, the source and what is written for the grammar library."""

    closes: bool
    limits: SchemaLimits
    entries: list[ReceiptEntry] = field(default_factory=list)  # on what was asked, in the order in which it stands
    narrowed: list[ReceiptEntry] = field(default_factory=list)  # on what is written
    has_order: bool = False
    num_schemas: int = 0
    # The library takes long to read a number's bounds. Where there are several, they are one definition: so what
    # stands in their places is filled in at the end.
    numbers: dict[str, dict[str, Any]] = field(default_factory=dict)
    num_numbers: Counter[str] = field(default_factory=Counter)

    def definitions(self) -> dict[str, Any]:
        """Of the numbers that stand more than once; to be asked for at the end."""
        found: dict[str, Any] = {}
        for kind, written in self.numbers.items():
            bounded, _ = NUMBERS[kind]
            if self.num_numbers[kind] == 1:
                written.update(bounded)
            else:
                name = f"leaf{len(found) + 1}"
                found[name] = bounded
                written["$ref"] = f"#/$defs/{name}"
        return found

    def schema(self, schema: Any, path: str, depth: int) -> tuple[dict[str, Any], dict[str, Any]]:
        """Source and written. Raises _NotPlainError."""
        kind = schema.get("type") if isinstance(schema, dict) else None
        if not isinstance(kind, str) or kind not in ASSERTIONS or depth > MAX_INLINE:
            raise _NotPlainError
        self.num_schemas += 1
        source: dict[str, Any] = {}
        inside: dict[str, Any] = {}  # what is written of the schemas inside
        for keyword, value in schema.items():
            if keyword not in ASSERTIONS[kind]:
                self.annotation(keyword, path)
            elif keyword == "properties":
                source[keyword], inside[keyword] = self.properties(value, child_path(path, keyword), depth)
            elif keyword == "items":
                source[keyword], inside[keyword] = self.schema(value, child_path(path, keyword), depth + 1)
            else:
                source[keyword] = value
        return WRITERS[kind](self, source, inside, path)

    def annotation(self, keyword: str, path: str) -> None:
        if not is_annotation(keyword):
            raise _NotPlainError
        self.entries.append(ReceiptEntry(child_path(path, keyword), Enforcement.ANNOTATION, NO_ASSERTION))

    def properties(self, schemas: Any, path: str, depth: int) -> tuple[dict[str, Any], dict[str, Any]]:
        source: dict[str, Any] = {}
        written: dict[str, Any] = {}
        if not isinstance(schemas, dict) or not schemas:
            raise _NotPlainError
        for name, each in schemas.items():
            source[name], written[name] = self.schema(each, child_path(path, name), depth + 1)
        self.has_order |= len(schemas) > 1
        return source, written

    # --- What is written: source and schema

    def object(self, source: dict[str, Any], inside: dict[str, Any], path: str) -> "_Both":
        required = source.get("required", [])
        if "properties" not in inside or not isinstance(required, list):
            raise _NotPlainError
        if not all(isinstance(name, str) and name in inside["properties"] for name in required):
            raise _NotPlainError
        if source.get("additionalProperties") is not False:
            narrow = closed(source) if self.closes else None
            if narrow is None:
                raise _NotPlainError
            self.entries.append(ReceiptEntry(path, Enforcement.NARROWED, CLOSED))
            source = narrow
        written = {"type": "object", "properties": inside["properties"], "additionalProperties": False}
        return source, written | ({"required": list(dict.fromkeys(required))} if required else {})

    def array(self, source: dict[str, Any], inside: dict[str, Any], _path: str) -> "_Both":
        if "items" not in inside:
            raise _NotPlainError
        return source, {"type": "array", "items": inside["items"]}

    def string(self, source: dict[str, Any], _inside: dict[str, Any], _path: str) -> "_Both":
        if "enum" not in source:
            return source, {"type": "string"}
        values = source["enum"]
        if not isinstance(values, list) or not 0 < len(values) <= self.limits.max_enum:
            raise _NotPlainError
        if not all(isinstance(value, str) and NEVER_WRITTEN.isdisjoint(value) for value in values):
            raise _NotPlainError
        return source, {"enum": list(values)}

    def number(self, source: dict[str, Any], _inside: dict[str, Any], path: str) -> "_Both":
        kind = source["type"]
        self.narrowed.append(ReceiptEntry(path, Enforcement.NARROWED, NUMBERS[kind][1]))
        self.num_numbers[kind] += 1
        return source, self.numbers.setdefault(kind, {})

    def word(self, source: dict[str, Any], _inside: dict[str, Any], _path: str) -> "_Both":
        return source, {"type": source["type"]}


_Both = tuple[dict[str, Any], dict[str, Any]]
WRITERS: dict[str, Callable[[_Reader, dict[str, Any], dict[str, Any], str], _Both]] = {
    "object": _Reader.object,
    "array": _Reader.array,
    "string": _Reader.string,
    "integer": _Reader.number,
    "number": _Reader.number,
    "boolean": _Reader.word,
    "null": _Reader.word,
}
