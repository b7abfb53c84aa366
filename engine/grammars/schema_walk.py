"""Where in a JSON schema its subschemas stand, by path; keywords are found by their position only."""

from collections.abc import Iterator
from typing import Any

from engine.errors import SchemaError
from engine.types import JsonObject

MAX_DEPTH = 128  # levels of objects and arrays; the grammar library reads no more


def words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Where a keyword's value holds further schemas.
ONE_SCHEMA = frozenset({"additionalProperties", "items"})
LIST_OF_SCHEMAS = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})
MAP_OF_SCHEMAS = frozenset({"properties", "patternProperties", "$defs", "definitions"})

# Keywords that put further schemas on the same value: their branches must see the properties that they share.
IN_PLACE = frozenset({"allOf", "anyOf", "oneOf", "$ref"})
STAYS_AS_IS = words("additionalProperties patternProperties enum const")  # where an object has one, it is not closed


def refusal(path: str, reason: str) -> SchemaError:
    return SchemaError(f"{path}: {reason}", param=path)


def child_path(path: str, key: str | int) -> str:
    """The path of a member: `.name` where the name is plain, else `["any name"]` or `[0]`."""
    if isinstance(key, int):
        return f"{path}[{key}]"
    if key.replace("$", "").replace("_", "").replace("-", "").isalnum():
        return f"{path}.{key}"
    return f'{path}["{key}"]'


def all_schemas(schema: Any, path: str) -> Iterator[tuple[str, JsonObject]]:
    """The schema and all inside it, by path; those that are booleans are left out."""
    if not isinstance(schema, dict):
        return
    yield path, schema
    for keyword, value in schema.items():
        inner = child_path(path, keyword)
        if keyword in ONE_SCHEMA:
            yield from all_schemas(value, inner)
        elif keyword in LIST_OF_SCHEMAS | MAP_OF_SCHEMAS:
            for key, each in enumerate(value) if isinstance(value, list) else value.items():
                yield from all_schemas(each, child_path(inner, key))


def _children(node: Any) -> list[Any]:
    if isinstance(node, dict):
        return list(node.values())
    return node if isinstance(node, list) else []


def depth_of(schema: Any) -> int:
    """Levels of objects and arrays; MAX_DEPTH + 1 where there are more than that."""
    # Level by level, so that nesting of any depth is measured without recursion.
    level, depth = [schema], 0
    while level and depth <= MAX_DEPTH:
        depth += 1
        level = [child for node in level for child in _children(node)]
    return depth
