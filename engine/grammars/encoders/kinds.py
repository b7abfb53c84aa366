"""Which types of JSON values a schema admits, as far as an encoder must know."""

import copy
from typing import Any

from engine.grammars.schema_walk import child_path, refusal, subschemas
from engine.types import JsonObject

ALL = frozenset({"string", "number", "boolean", "null", "array", "object"})
MAX_REFERENCES = 100
ROOT_NAME = "arguments"


def resolve(schema: Any, root: JsonObject, path: str) -> Any:
    """The schema that a chain of references leads to."""
    for _ in range(MAX_REFERENCES):
        if not isinstance(schema, dict) or "$ref" not in schema:
            return schema
        if schema.keys() != {"$ref"}:
            raise refusal(path, "in this model's format a $ref stands alone")
        schema = follow(schema["$ref"], root, child_path(path, "$ref"))
    raise refusal(path, "its references never end")


def follow(reference: str, root: JsonObject, path: str) -> Any:
    """What a reference within the schema points to."""
    found: Any = root
    for step in reference.removeprefix("#").split("/")[1:]:
        key = step.replace("~1", "/").replace("~0", "~")
        try:
            found = found[int(key)] if isinstance(found, list) else found[key]
        except (LookupError, ValueError, TypeError):
            raise refusal(path, f"{reference!r} cannot be followed in this model's format") from None
    return found


def under_definitions(schema: JsonObject, root: JsonObject) -> JsonObject:
    """A part of the root as a whole schema: what refers to the root finds it among the definitions."""
    if not _refers_to_root(schema):
        return schema
    name = ROOT_NAME
    while name in schema.get("$defs", {}):
        name += "_"
    others = {keyword: value for keyword, value in root.items() if keyword not in ("$defs", "definitions")}
    whole = {**schema, "$defs": {**schema.get("$defs", {}), name: others}}
    redirected: JsonObject = _redirected(whole, f"#/$defs/{name}")
    return redirected


def _refers_to_root(schema: Any) -> bool:
    if not isinstance(schema, dict):
        return False
    return schema.get("$ref") == "#" or any(_refers_to_root(each) for _, each in subschemas(schema))


def _redirected(schema: Any, target: str) -> Any:
    """A copy in which all that referred to the root refers to the target."""
    if not isinstance(schema, dict):
        return schema
    if schema.get("$ref") == "#":
        return {**schema, "$ref": target}
    copied = copy.deepcopy(schema)
    for keys, each in subschemas(schema):
        place = copied
        for key in keys[:-1]:
            place = place[key]
        place[keys[-1]] = _redirected(each, target)
    return copied


def kinds(schema: Any, root: JsonObject, path: str) -> frozenset[str]:
    """Types of the values that may satisfy the schema; integers are numbers."""
    schema = resolve(schema, root, path)
    if schema is True or schema == {}:
        return ALL
    if schema is False:
        return frozenset()
    found = ALL
    if "type" in schema:
        types = schema["type"]
        found &= {_kind(name) for name in ([types] if isinstance(types, str) else types)}
    values = schema.get("enum", [schema["const"]] if "const" in schema else None)
    if values is not None:
        found &= {kind_of(value) for value in values}
    for keyword in ("anyOf", "oneOf"):
        if keyword in schema:
            branches = (kinds(each, root, child_path(path, keyword)) for each in schema[keyword])
            found &= frozenset().union(*branches)
    for each in schema.get("allOf", ()):
        found &= kinds(each, root, child_path(path, "allOf"))
    return found


def kind_of(value: Any) -> str:
    """The type of one value."""
    for python_type, kind in ((bool, "boolean"), (str, "string"), ((int, float), "number"), (list, "array")):
        if isinstance(value, python_type):
            return kind
    return "null" if value is None else "object"


def _kind(name: str) -> str:
    return "number" if name == "integer" else name
