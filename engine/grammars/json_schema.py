"""JSON schemas made ready for the grammar: checked, and every keyword enforced, annotated or refused by its path.

Keywords are found by their position in the schema, never by name alone: a property may be called `format`.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jsonschema_rs

from engine.errors import SchemaError
from engine.types import Enforcement, JsonObject, ReceiptEntry

MAX_DEPTH = 128

DRAFTS = (
    "https://json-schema.org/draft/2020-12/schema",
    "https://json-schema.org/draft/2019-09/schema",
    "http://json-schema.org/draft-07/schema",
    "http://json-schema.org/draft-06/schema",
)


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# One space after ',' and ':', as the families were trained, and no other white space. No \uXXXX: text is written as
# literal UTF-8, and broken surrogates cannot be. llguidance reads this at a schema's top level.
JSON_STYLE = {
    "whitespace_flexible": False,
    "item_separator": ", ",
    "key_separator": ": ",
    "json_allowed_escapes": 'nrbtf\\"',
}

# Where a keyword's value holds further schemas.
ONE_SCHEMA = frozenset({"additionalProperties", "items"})
LIST_OF_SCHEMAS = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})
MAP_OF_SCHEMAS = frozenset({"properties", "patternProperties", "$defs", "definitions"})

ENFORCED = _words(
    """
    type enum const $ref required minProperties maxProperties minItems maxItems minLength maxLength pattern
    format minimum maximum exclusiveMinimum exclusiveMaximum multipleOf
    """
)
FORMATS = _words("date-time time date duration email hostname ipv4 ipv6 uuid uri")

# Assertions that no grammar here holds; and the values with which some of them assert nothing.
REFUSED = _words(
    """
    not if then else dependentSchemas dependentRequired dependencies contains minContains maxContains
    uniqueItems propertyNames unevaluatedItems unevaluatedProperties additionalItems $dynamicRef $recursiveRef
    """
)
ASSERTS_NOTHING: Mapping[str, object] = {"uniqueItems": False, "additionalItems": True, "unevaluatedItems": True}
REFUSED_FORMATS = _words(
    """
    idn-email idn-hostname uri-reference iri iri-reference uri-template json-pointer relative-json-pointer regex
    int32 int64 float double byte
    """
)

# Keywords that put further schemas on the same value: their branches must see the properties that they share.
IN_PLACE = frozenset({"allOf", "anyOf", "oneOf", "$ref"})


@dataclass(frozen=True, slots=True)
class CheckedSchema:
    """A schema of enforced keywords only, and what became of the others."""

    schema: dict[str, Any] | bool
    entries: tuple[ReceiptEntry, ...]

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
        return CheckedSchema(NO_ARGUMENTS, ())
    if not isinstance(schema, Mapping):
        raise SchemaError(f"{path} is {schema!r}; it must be a JSON schema of an object", param=path)
    checked = _Walk(close_objects=not open_objects).check(dict(schema), path)
    assert isinstance(checked.schema, dict)
    if set(checked.schema) <= {"type", "$defs", "definitions"} and checked.schema.get("type", "object") == "object":
        entry = ReceiptEntry(path, Enforcement.NARROWED, "names no properties, so the arguments are {}")
        return CheckedSchema(NO_ARGUMENTS, (*checked.entries, entry))
    return CheckedSchema(_as_object(checked.schema, path), checked.entries)


NO_ARGUMENTS: dict[str, Any] = {"type": "object", "properties": {}, "additionalProperties": False}


def _as_object(schema: dict[str, Any], path: str) -> dict[str, Any]:
    types = schema.get("type", "object")
    if types != "object" and "object" not in types:
        raise SchemaError(f"{path}.type is {types!r}; arguments are always an object", param=f"{path}.type")
    return {**schema, "type": "object"}


def child_path(path: str, key: str | int) -> str:
    """The path of a member: `.name` where the name is plain, else `["any name"]` or `[0]`."""
    if isinstance(key, int):
        return f"{path}[{key}]"
    if key.replace("$", "").replace("_", "").replace("-", "").isalnum():
        return f"{path}.{key}"
    return f'{path}["{key}"]'


class _Walk:
    """One pass over one schema."""

    def __init__(self, *, close_objects: bool) -> None:
        self._close_objects = close_objects
        self._entries: list[ReceiptEntry] = []

    def check(self, schema: Any, path: str) -> CheckedSchema:
        _check_depth(schema, path)
        _check_draft(schema, path)
        # A definition that is merged into something else must stay open; whether one is, only a search would tell.
        self._merges_definitions = _contains_keyword(schema, "allOf") or _contains_merged_ref(schema)
        checked = self._schema(schema, path, merged=False)
        return CheckedSchema(checked, tuple(self._entries))

    def _schema(self, schema: Any, path: str, *, merged: bool) -> Any:
        """merged: whether another schema says more about the same value."""
        if isinstance(schema, bool):
            return schema
        checked: dict[str, Any] = {}
        combines = merged or _combines(schema)
        for keyword, value in schema.items():
            self._keyword(checked, keyword, value, child_path(path, keyword), merged=combines)
        if self._close_objects and not combines and "properties" in checked and _says_nothing_of_others(checked):
            checked["additionalProperties"] = False
            self._note(path, Enforcement.NARROWED, "closed: properties that it does not name cannot be written")
        return checked

    def _keyword(self, checked: dict[str, Any], keyword: str, value: Any, path: str, *, merged: bool) -> None:
        if keyword in ONE_SCHEMA:
            if not isinstance(value, (dict, bool)):
                raise _refusal(path, "an array of schemas is an older draft's form; use prefixItems")
            checked[keyword] = self._schema(value, path, merged=False)
        elif keyword in LIST_OF_SCHEMAS:
            in_place = merged and keyword in IN_PLACE
            checked[keyword] = [
                self._schema(each, child_path(path, position), merged=in_place) for position, each in enumerate(value)
            ]
        elif keyword in MAP_OF_SCHEMAS:
            stays_open = keyword in ("$defs", "definitions") and self._merges_definitions
            checked[keyword] = {
                name: self._schema(each, child_path(path, name), merged=stays_open) for name, each in value.items()
            }
        elif keyword in ENFORCED:
            self._enforced(checked, keyword, value, path)
        elif keyword in REFUSED:
            if keyword not in ASSERTS_NOTHING or ASSERTS_NOTHING[keyword] != value:
                raise _refusal(path, "this keyword cannot be enforced")
        else:
            self._note(path, Enforcement.ANNOTATION, "not an assertion")

    def _enforced(self, checked: dict[str, Any], keyword: str, value: Any, path: str) -> None:
        if keyword == "$ref" and not value.startswith("#"):
            raise _refusal(path, f"{value!r} is not in this schema; only references that begin with '#' are followed")
        if keyword == "format" and value in REFUSED_FORMATS:
            raise _refusal(path, f"the format {value!r} cannot be enforced; allowed are {', '.join(sorted(FORMATS))}")
        if keyword == "format" and value not in FORMATS:
            self._note(path, Enforcement.ANNOTATION, f"the format {value!r} is not one of the draft's")
        else:
            checked[keyword] = value

    def _note(self, path: str, enforcement: Enforcement, detail: str) -> None:
        self._entries.append(ReceiptEntry(path, enforcement, detail))


def _refusal(path: str, reason: str) -> SchemaError:
    return SchemaError(f"{path}: {reason}", param=path)


def _combines(schema: JsonObject) -> bool:
    """Whether several schemas speak of the same value here."""
    in_place = IN_PLACE & schema.keys()
    return "allOf" in in_place or len(in_place) > 1 or (bool(in_place) and "properties" in schema)


def _says_nothing_of_others(schema: JsonObject) -> bool:
    return "additionalProperties" not in schema and "patternProperties" not in schema


def _check_depth(schema: Any, path: str) -> None:
    # Level by level, so that nesting of any depth is measured without recursion.
    level, depth = [schema], 0
    while level:
        depth += 1
        if depth > MAX_DEPTH:
            raise _refusal(path, f"the schema is nested more than {MAX_DEPTH} levels deep")
        level = [child for node in level for child in _children(node)]


def _children(node: Any) -> list[Any]:
    if isinstance(node, dict):
        return list(node.values())
    return node if isinstance(node, list) else []


def _check_draft(schema: Any, path: str) -> None:
    if not isinstance(schema, (dict, bool)):
        raise _refusal(path, f"{schema!r} is not a JSON schema; it must be an object or a boolean")
    declared = schema.get("$schema", DRAFTS[0]) if isinstance(schema, dict) else DRAFTS[0]
    if not isinstance(declared, str) or declared.rstrip("#") not in DRAFTS:
        raise _refusal(child_path(path, "$schema"), f"{declared!r} is not supported; use one of {', '.join(DRAFTS)}")
    try:
        jsonschema_rs.meta.validate(schema)
    except jsonschema_rs.ValidationError as error:
        where = path
        for key in error.instance_path:
            where = child_path(where, key)
        raise _refusal(where, error.message) from None
    except (ValueError, jsonschema_rs.ReferencingError) as error:
        raise _refusal(path, str(error).partition("\n")[0]) from None


def _any_schema(schema: Any, holds: Callable[[JsonObject], bool]) -> bool:
    if not isinstance(schema, dict):
        return False
    return holds(schema) or any(_any_schema(each, holds) for each in _subschemas(schema))


def _subschemas(schema: JsonObject) -> list[Any]:
    found: list[Any] = []
    for keyword, value in schema.items():
        if keyword in ONE_SCHEMA:
            found.append(value)
        elif keyword in LIST_OF_SCHEMAS:
            found.extend(value)
        elif keyword in MAP_OF_SCHEMAS:
            found.extend(value.values())
    return found


def _contains_keyword(schema: Any, keyword: str) -> bool:
    return _any_schema(schema, lambda each: keyword in each)


def _contains_merged_ref(schema: Any) -> bool:
    return _any_schema(schema, lambda each: "$ref" in each and _combines(each))
