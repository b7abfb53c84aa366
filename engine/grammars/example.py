"""An example of a tool's arguments, made from its schema: shown to models that were never trained for tools."""

import json
from typing import Any

from engine.types import JsonObject

MAX_DEPTH = 4  # deeper values are left out; an example must be short, and a schema may refer to itself

PLACEHOLDERS = {
    "string": "...",
    "integer": 1,
    "number": 1.5,
    "boolean": True,
    "null": None,
    "array": [],
    "object": {},
}


def example_arguments(parameters: JsonObject | None) -> str:
    """JSON text of arguments with every required property. It shows the shape and need not satisfy every keyword."""
    return json.dumps(_object(parameters or {}, MAX_DEPTH), ensure_ascii=False)


def _value(schema: Any, depth: int) -> Any:
    if not isinstance(schema, dict) or depth == 0:
        return PLACEHOLDERS["string"]
    for keyword in ("examples", "enum"):
        if schema.get(keyword):
            return schema[keyword][0]
    if "const" in schema:
        return schema["const"]
    for keyword in ("anyOf", "oneOf", "allOf"):
        if schema.get(keyword):
            return _value(schema[keyword][0], depth - 1)
    return _of_type(schema, depth)


def _of_type(schema: JsonObject, depth: int) -> Any:
    types = schema.get("type", "object" if "properties" in schema else "string")
    first = types if isinstance(types, str) else types[0]
    if first == "object":
        return _object(schema, depth - 1)
    if first == "array":
        return [_value(schema.get("items", {}), depth - 1)]
    return PLACEHOLDERS[first]


def _object(schema: JsonObject, depth: int) -> dict[str, Any]:
    properties = schema.get("properties", {})
    required = schema.get("required", [])
    return {name: _value(each, depth) for name, each in properties.items() if name in required}
