"""JSON schemas made ready for the grammar: checked, and every keyword enforced, annotated or refused by its path.

Keywords are found by their position in the schema, never by name alone: a property may be called `format`.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

import jsonschema_rs

from engine.checks import is_number, json_text
from engine.errors import SchemaError
from engine.events import Enforcement, ReceiptEntry
from engine.grammars.number_bounds import exclusive_bounds_moved, merges_numbers, missing_bounds
from engine.grammars.schema_formats import OWN_FORMATS
from engine.grammars.schema_references import check_references, is_ambiguous
from engine.grammars.schema_walk import (
    IN_PLACE,
    LIST_OF_SCHEMAS,
    MAP_OF_SCHEMAS,
    MAX_DEPTH,
    ONE_SCHEMA,
    STAYS_AS_IS,
    all_schemas,
    child_path,
    depth_of,
    refusal,
    words,
)
from engine.types import JsonObject

MAX_MULTIPLE_OF = 10_000  # digits as an integer, without zeros at the end; larger ones take seconds to compile
MAX_EXACT = 2**53  # numbers are read as float64: integers beyond it would become their neighbours

DRAFTS = (
    "https://json-schema.org/draft/2020-12/schema",
    "https://json-schema.org/draft/2019-09/schema",
    "http://json-schema.org/draft-07/schema",
    "http://json-schema.org/draft-06/schema",
)


# One space after ',' and ':', as the families were trained, and no other white space. No \uXXXX: text is written as
# literal UTF-8, and broken surrogates cannot be. llguidance reads this at a schema's top level.
JSON_STYLE = {
    "whitespace_flexible": False,
    "item_separator": ", ",
    "key_separator": ": ",
    "json_allowed_escapes": 'nrbtf\\"',
}

ENFORCED = words(
    "type enum const $ref required minProperties maxProperties minItems maxItems minLength maxLength pattern "
    "format minimum maximum exclusiveMinimum exclusiveMaximum multipleOf"
)
VERBATIM = words("type $ref required pattern format")
FORMATS = words("date-time time date duration email hostname ipv4 ipv6 uuid uri")

# Assertions that no grammar here holds; and the values with which some of them assert nothing.
REFUSED = words(
    "not if then else dependentSchemas dependentRequired dependencies contains minContains maxContains "
    "uniqueItems propertyNames unevaluatedItems unevaluatedProperties additionalItems $dynamicRef $recursiveRef"
)
ASSERTS_NOTHING: Mapping[str, object] = {"uniqueItems": False, "additionalItems": True, "unevaluatedItems": True}
REFUSED_FORMATS = words(
    "idn-email idn-hostname uri-reference iri iri-reference uri-template json-pointer relative-json-pointer regex "
    "int32 int64 float double byte"
)

SPEAKS_OF_PROPERTIES = words("properties patternProperties additionalProperties required minProperties")

# A bound beyond what is exact may move to there, if that only admits less: keyword -> where it may move.
EXACT_BOUNDS = dict.fromkeys(("minimum", "exclusiveMinimum"), -MAX_EXACT)
EXACT_BOUNDS |= dict.fromkeys(("maximum", "exclusiveMaximum"), MAX_EXACT)

# JSON can write these as \uXXXX only, or (DEL) the grammar library takes them for such.
NEVER_WRITTEN = frozenset(map(chr, [*range(0x20), 0x7F])) - frozenset("\n\r\t\b\f")


@dataclass(frozen=True, slots=True)
class CheckedSchema:
    """A schema of enforced keywords only, and what became of the others."""

    schema: dict[str, Any] | bool
    entries: tuple[ReceiptEntry, ...] = ()
    patterns: Mapping[str, str] = field(default_factory=dict)  # path -> regex

    def lark(self) -> str:
        """The schema as a nonterminal of a Lark grammar, in our JSON style."""
        keywords = self.schema if isinstance(self.schema, dict) else {"allOf": [self.schema]}
        return "%json " + json.dumps({**keywords, "x-guidance": JSON_STYLE}, ensure_ascii=False)


def check_schema(schema: Any, path: str) -> CheckedSchema:
    """A schema taken as JSON Schema writes it. Raises SchemaError that names the keyword by path."""
    return _Walk(close_objects=False).check(schema, path)


def check_arguments_schema(schema: JsonObject | None, path: str, *, open_objects: bool) -> CheckedSchema:
    """A schema of a tool's arguments: always an object, closed where it does not say otherwise.

    No schema, or one that says no more than "object", means a tool without arguments.
    Raises SchemaError that names the keyword by path.
    """
    if schema is None:
        return CheckedSchema(NO_ARGUMENTS)
    if not isinstance(schema, Mapping):
        raise SchemaError(f"{path} is {schema!r}; it must be a JSON schema of an object", param=path)
    checked = _Walk(close_objects=not open_objects).check(dict(schema), path)
    assert isinstance(checked.schema, dict)
    if _names_no_properties(checked.schema):
        entry = ReceiptEntry(path, Enforcement.NARROWED, "names no properties, so the arguments are {}")
        return CheckedSchema(NO_ARGUMENTS, (*checked.entries, entry))
    return replace(checked, schema=_as_object(checked.schema, path))


NO_ARGUMENTS: dict[str, Any] = {"type": "object", "properties": {}, "additionalProperties": False}


def _names_no_properties(schema: JsonObject) -> bool:
    types, required = schema.get("type", "object"), schema.get("required", [])
    return (
        schema.keys() <= {"type", "required", "$defs", "definitions"}
        and types in ("object", ["object"])
        and not required
    )


def _as_object(schema: dict[str, Any], path: str) -> dict[str, Any]:
    types = schema.get("type", "object")
    if types != "object" and "object" not in types:
        raise SchemaError(f"{path}.type is {types!r}; arguments are always an object", param=f"{path}.type")
    return {**schema, "type": "object"}


class _Walk:
    """One pass over one schema."""

    def __init__(self, *, close_objects: bool) -> None:
        self._close_objects = close_objects
        self._entries: list[ReceiptEntry] = []
        self._patterns: dict[str, str] = {}

    def check(self, schema: Any, path: str) -> CheckedSchema:
        if depth_of(schema) > MAX_DEPTH:
            raise refusal(path, f"the schema is nested more than {MAX_DEPTH} levels deep")
        json_text(path, schema, error=SchemaError)
        _check_draft(schema, path)
        everywhere = dict(all_schemas(schema, path))
        _check_bases(everywhere, path)
        schemas = everywhere.values()
        # A definition that is merged into something else must stay open; whether one is, only a search would tell.
        self._merges_definitions = any("allOf" in each or ("$ref" in each and _combines(each)) for each in schemas)
        self._merges_numbers = merges_numbers(schemas)
        # Closed branches may exclude each other where the written ones do not: then one value would satisfy two.
        self._close_objects &= not any(is_ambiguous(each, schema) for each in schemas)
        checked = self._schema(schema, path, merged=False)
        check_references(checked, path)
        return CheckedSchema(checked, tuple(self._entries), self._patterns)

    def _schema(self, schema: Any, path: str, *, merged: bool) -> Any:
        """merged: whether another schema says more about the same value."""
        if isinstance(schema, bool):
            return schema
        checked: dict[str, Any] = {}
        combines = merged or _combines(schema)
        for keyword, value in schema.items():
            self._keyword(checked, keyword, value, child_path(path, keyword), merged=combines)
        if self._close_objects and not combines and "properties" in checked and not STAYS_AS_IS & checked.keys():
            self._close(checked, path)
        _check_num_properties(checked, path)
        self._bound_numbers(checked, path)
        if checked.get("format") in OWN_FORMATS:
            self._format_as_pattern(checked, child_path(path, "format"))
        return checked

    def _bound_numbers(self, checked: dict[str, Any], path: str) -> None:
        for keyword, bound in exclusive_bounds_moved(checked, merged=self._merges_numbers).items():
            checked[keyword] = bound
            self._note(child_path(path, keyword), Enforcement.NARROWED, f"moved to {bound}")
        if bounds := missing_bounds(checked):
            checked |= bounds
            text = " and ".join(f"{keyword} {bound}" for keyword, bound in bounds.items())
            self._note(path, Enforcement.NARROWED, f"numbers have {text}, and no exponent")

    def _close(self, checked: dict[str, Any], path: str) -> None:
        unnamed = {name: True for name in checked.get("required", ()) if name not in checked["properties"]}
        checked["properties"] = {**checked["properties"], **unnamed}
        checked["additionalProperties"] = False
        self._note(path, Enforcement.NARROWED, "closed: properties that it does not name cannot be written")

    def _keyword(self, checked: dict[str, Any], keyword: str, value: Any, path: str, *, merged: bool) -> None:
        if keyword in ONE_SCHEMA:
            if not isinstance(value, (dict, bool)):
                raise refusal(path, "an array of schemas is an older draft's form; use prefixItems")
            checked[keyword] = self._schema(value, path, merged=False)
        elif keyword in LIST_OF_SCHEMAS:
            in_place = merged and keyword in IN_PLACE
            checked[keyword] = [
                self._schema(each, child_path(path, position), merged=in_place) for position, each in enumerate(value)
            ]
        elif keyword in MAP_OF_SCHEMAS:
            if keyword == "patternProperties":
                self._patterns |= {child_path(path, pattern): pattern for pattern in value}
            stays_open = keyword in ("$defs", "definitions") and self._merges_definitions
            checked[keyword] = {
                name: self._schema(each, child_path(path, name), merged=stays_open) for name, each in value.items()
            }
        elif keyword in ENFORCED:
            self._enforced(checked, keyword, value, path)
        elif keyword in REFUSED:
            if keyword not in ASSERTS_NOTHING or ASSERTS_NOTHING[keyword] != value:
                raise refusal(path, "this keyword cannot be enforced")
        else:
            self._note(path, Enforcement.ANNOTATION, "not an assertion")

    def _enforced(self, checked: dict[str, Any], keyword: str, value: Any, path: str) -> None:
        if keyword == "$ref" and not value.startswith("#"):
            raise refusal(path, f"{value!r} is not in this schema; only references that begin with '#' are followed")
        if keyword == "format" and value in REFUSED_FORMATS:
            raise refusal(path, f"the format {value!r} cannot be enforced; allowed are {', '.join(sorted(FORMATS))}")
        if keyword == "format" and value not in FORMATS:
            self._note(path, Enforcement.ANNOTATION, f"the format {value!r} is not one of the draft's")
            return
        if keyword == "pattern":
            _check_pattern(value, path)
            self._patterns[path] = value
        if keyword == "multipleOf" and _digits(value) * (10 if value > MAX_MULTIPLE_OF else 1) > MAX_MULTIPLE_OF:
            raise refusal(path, f"a multiple of {value} needs too large a grammar")
        if keyword in EXACT_BOUNDS and abs(value) > MAX_EXACT and value * EXACT_BOUNDS[keyword] > 0:
            value = EXACT_BOUNDS[keyword]
            self._note(path, Enforcement.NARROWED, f"moved to {value}: larger numbers are not exact")
        checked[keyword] = value if keyword in VERBATIM else _literal(value, path)

    def _format_as_pattern(self, checked: dict[str, Any], path: str) -> None:
        own = OWN_FORMATS[checked.pop("format")]
        if "pattern" in checked:
            raise refusal(path, "beside a pattern, this format cannot be enforced")
        checked["pattern"] = own.pattern
        if own.max_length is not None:
            checked["maxLength"] = min(own.max_length, checked.get("maxLength", own.max_length))
        self._note(path, Enforcement.NARROWED, own.narrowing)

    def _note(self, path: str, enforcement: Enforcement, detail: str) -> None:
        self._entries.append(ReceiptEntry(path, enforcement, detail))


def _combines(schema: JsonObject) -> bool:
    """Whether several schemas speak of the same value here."""
    in_place = IN_PLACE & schema.keys()
    return "allOf" in in_place or len(in_place) > 1 or (bool(in_place) and bool(SPEAKS_OF_PROPERTIES & schema.keys()))


def _check_num_properties(schema: JsonObject, path: str) -> None:
    # Of two unnamed properties, the second may have the first one's name; readers then see one.
    is_closed = schema.get("additionalProperties") is False and "patternProperties" not in schema
    if not is_closed and schema.get("minProperties", 0) > len(schema.get("required", ())) + 1:
        raise refusal(child_path(path, "minProperties"), "it can be enforced in objects of named properties only")


def _check_bases(schemas: Mapping[str, JsonObject], path: str) -> None:
    for where, schema in schemas.items():
        is_base = where != path and not schema.get("$id", "#").startswith("#")
        if is_base and any("$ref" in each for each in schemas.values()):
            raise refusal(child_path(where, "$id"), "references that begin at an inner $id are not followed")


def _check_draft(schema: Any, path: str) -> None:
    declared = schema.get("$schema", DRAFTS[0]) if isinstance(schema, dict) else DRAFTS[0]
    if not isinstance(declared, str) or declared.rstrip("#") not in DRAFTS:
        raise refusal(child_path(path, "$schema"), f"{declared!r} is not supported; use one of {', '.join(DRAFTS)}")
    try:
        jsonschema_rs.meta.validate(schema)
    except jsonschema_rs.ValidationError as error:
        where = path
        for key in error.instance_path:
            where = child_path(where, key)
        raise refusal(where, error.message) from None
    except (ValueError, jsonschema_rs.ReferencingError) as error:
        raise refusal(path, str(error).partition("\n")[0]) from None


# --- Values


def _literal(value: Any, path: str) -> Any:
    """The value, whole numbers in it as integers. Raises SchemaError for what the library would not write as it is."""
    if isinstance(value, list):
        return [_literal(each, path) for each in value]
    if isinstance(value, dict):
        return {name: _literal(each, path) for name, each in value.items()}
    if isinstance(value, str) and NEVER_WRITTEN & set(value):
        raise refusal(path, f"{value!r} has a control character that is never written")
    if not is_number(value):
        return value
    if value % 1 != 0:
        digits, exponent = _digits(value), Decimal(repr(value)).normalize().as_tuple().exponent
        if digits <= MAX_EXACT and int(exponent) >= -22:  # such decimals are read and written without rounding
            return value
    elif abs(value) <= MAX_EXACT:
        return int(value)
    raise refusal(path, f"the number {value} cannot be held exactly")


def _digits(value: float) -> int:
    """The number's decimal digits as an integer, without zeros around them."""
    return int("".join(map(str, Decimal(repr(value)).normalize().as_tuple().digits)))


def _check_pattern(pattern: str, path: str) -> None:
    # In a character class the grammar library reads these as operations on sets; JSON Schema's regexes have none.
    without_escapes = re.sub(r"\\.", "x", pattern, flags=re.DOTALL)
    for inside in re.findall(r"\[\^?([^\]]*)\]", without_escapes):
        if not inside or re.search(r"\[|&&|--|~~", inside):
            raise refusal(path, "a character class must not be empty, nor have a bare [, &&, -- or ~~ in it")
