"""Where in a JSON schema its subschemas stand, by path; keywords are found by their position only."""

import functools
from collections.abc import Iterator
from typing import Any

from engine.errors import SchemaError, UnenforceableError
from engine.types import JsonObject


def words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Where a keyword's value holds further schemas. `items` may be an array, and values of `dependencies` names, in drafts
# before 2020-12.
ONE_SCHEMA = words(
    "additionalProperties items additionalItems contains not if then else propertyNames unevaluatedItems "
    "unevaluatedProperties"
)
LIST_OF_SCHEMAS = words("allOf anyOf oneOf prefixItems")
MAP_OF_SCHEMAS = words("properties patternProperties $defs definitions dependentSchemas dependencies")
HOLD_SCHEMAS = ONE_SCHEMA | LIST_OF_SCHEMAS | MAP_OF_SCHEMAS
VALUES = words("const enum default examples")  # hold values, never schemas

# Keywords that put further schemas on the same value: their branches must see the properties that they share.
IN_PLACE = words("allOf anyOf oneOf $ref $dynamicRef $recursiveRef if then else dependentSchemas dependencies")
STAYS_AS_IS = words(  # where an object has one, it is not closed
    "additionalProperties patternProperties unevaluatedProperties propertyNames enum const"
)


def refusal(path: str, reason: str) -> SchemaError:
    return SchemaError(f"{path}: {reason}", param=path)


def unenforceable(path: str, reason: str) -> UnenforceableError:
    return UnenforceableError(f"{path}: {reason}", param=path)


def child_path(path: str, key: str | int) -> str:
    """The path of a member: `.name` where the name is plain, else `["any name"]` or `[0]`."""
    return f"{path}[{key}]" if isinstance(key, int) else path + _step(key)


@functools.lru_cache(maxsize=4096)
def _step(name: str) -> str:
    return f".{name}" if name.replace("$", "").replace("_", "").replace("-", "").isalnum() else f'["{name}"]'


def nearest_path(path: str, schema: Any, root: str) -> str:
    """Of the places in the schema, the last one on the way to this path. root: the schema's own path."""
    if isinstance(schema, (dict, list)):
        for key, each in schema.items() if isinstance(schema, dict) else enumerate(schema):
            inner = child_path(root, key)
            if path == inner or path.startswith((f"{inner}.", f"{inner}[")):
                return nearest_path(path, each, inner)
    return root


def child_pointer(pointer: str, key: str | int) -> str:
    """The JSON pointer of a member (RFC 6901)."""
    return f"{pointer}/{str(key).replace('~', '~0').replace('/', '~1')}"


def subschemas(schema: JsonObject) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """The schemas directly inside this one, each with the keys that lead to it."""
    for keyword, value in schema.items():
        if keyword in ONE_SCHEMA and isinstance(value, (dict, bool)):
            yield (keyword,), value
        elif isinstance(value, list) and (keyword in LIST_OF_SCHEMAS or keyword in ONE_SCHEMA):
            yield from (((keyword, position), each) for position, each in enumerate(value))
        elif isinstance(value, dict) and keyword in MAP_OF_SCHEMAS:
            yield from (((keyword, name), each) for name, each in value.items() if not isinstance(each, list))


def each_schema(schema: Any) -> Iterator[JsonObject]:
    """The schema and all inside it, each before those inside it; those that are booleans are left out."""
    waiting = [schema]
    while waiting:
        each = waiting.pop()
        if isinstance(each, dict):
            yield each
            if not HOLD_SCHEMAS.isdisjoint(each):
                waiting += reversed([inner for _, inner in subschemas(each)])


def all_schemas(schema: Any, path: str) -> Iterator[tuple[str, JsonObject]]:
    """As each_schema, by path."""
    if not isinstance(schema, dict):
        return
    yield path, schema
    for keys, each in subschemas(schema):
        inner = path
        for key in keys:
            inner = child_path(inner, key)
        yield from all_schemas(each, inner)
