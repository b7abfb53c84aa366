"""References between schemas: what each leads to, and that none of them leads on without end."""

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote, urldefrag, urljoin

from engine.grammars.schema_dialects import Dialect
from engine.grammars.schema_walk import (
    LIST_OF_SCHEMAS,
    MAP_OF_SCHEMAS,
    ONE_SCHEMA,
    VALUES,
    all_schemas,
    child_pointer,
    refusal,
    subschemas,
    unenforceable,
)
from engine.types import JsonObject

Keys = tuple[str | int, ...]  # from the root to a schema


class References:
    """The places in one document that references may lead to. Nothing is ever fetched."""

    def __init__(self, root: Any, dialect: Dialect) -> None:
        self._root = root
        self._dialect = dialect
        self._resources: dict[str, Keys] = {"": ()}
        self._anchors: dict[tuple[str, str], Keys] = {}
        self._dynamic: dict[str, list[Keys]] = {}
        self._bases: dict[Keys, str] = {}
        self._index(root, (), "")

    def _index(self, schema: Any, keys: Keys, base: str) -> None:
        if isinstance(schema, dict):
            base = self._base_of(schema, keys, base)
            for name in (schema.get("$anchor"), schema.get("$dynamicAnchor")):
                if isinstance(name, str):
                    self._anchors[base, name] = keys
            if "$dynamicAnchor" in schema or schema.get("$recursiveAnchor") is True:
                self._dynamic.setdefault(schema.get("$dynamicAnchor", "#"), []).append(keys)
            for inner, each in subschemas(schema):
                self._index(each, keys + inner, base)
        self._bases[keys] = base

    def _base_of(self, schema: JsonObject, keys: Keys, base: str) -> str:
        own = schema.get(self._dialect.id_keyword)
        if not isinstance(own, str) or ("$ref" in schema and self._dialect.ref_stands_alone):
            return base
        uri, fragment = urldefrag(urljoin(base, own))
        if fragment:  # an anchor, as older drafts write it
            self._anchors[uri, fragment] = keys
        if uri:
            self._resources.setdefault(uri, keys)
        return uri

    def resolve(self, reference: str, keys: Keys) -> Keys | None:
        """The keys of what a reference that stands at these keys leads to; None where it is not in this document."""
        base = next(self._bases[keys[:end]] for end in range(len(keys), -1, -1) if keys[:end] in self._bases)
        # urljoin does not know that a fragment belongs to its base where that is a URN.
        whole = base + reference if reference.startswith("#") or not reference else urljoin(base, reference)
        uri, fragment = urldefrag(whole)
        fragment = unquote(fragment)
        if fragment and not fragment.startswith("/"):
            return self._anchors.get((uri, fragment))
        resource = self._resources.get(uri)
        return None if resource is None else self._point(resource, fragment)

    def _point(self, keys: Keys, pointer: str) -> Keys | None:
        node = self.at(keys)
        for part in pointer.split("/")[1:]:
            key: str | int = part.replace("~1", "/").replace("~0", "~")
            if isinstance(node, list) and part.isdecimal() and int(part) < len(node):
                key = int(part)
            elif not (isinstance(node, dict) and key in node):
                return None
            node, keys = node[key], (*keys, key)
        return keys

    def dynamic(self, reference: str, path: str) -> str:
        """The reference, if it leads to the same place however it is reached. Raises SchemaError otherwise."""
        name = reference.rpartition("#")[2] or "#"
        if len(self._dynamic.get(name, ())) > 1:
            raise unenforceable(path, f"{name!r} is a dynamic anchor in several places: where it leads is not fixed")
        return reference

    def at(self, keys: Keys) -> Any:
        node = self._root
        for key in keys:
            node = node[key]
        return node

    def is_schema(self, keys: Keys) -> bool:
        """Whether a schema may stand here: not inside a value, and no table or list of schemas."""
        node, place = self._root, "schema"
        for key in keys:
            place = _place_after(place, key)
            node = node[key]
        return place in ("schema", "schema or schemas", "unknown") and isinstance(node, (dict, bool))


def _place_after(place: str, key: str | int) -> str:
    """What stands one key further in: a schema, several of them, a value, or what no keyword speaks of."""
    if place == "schema or schemas" and isinstance(key, int):
        return "schema"
    if place in ("value", "unknown"):
        return place
    if place == "schemas":
        return "schema"
    if key in ONE_SCHEMA:
        return "schema or schemas"
    if key in LIST_OF_SCHEMAS | MAP_OF_SCHEMAS:
        return "schemas"
    return "value" if key in VALUES else "unknown"


# --- Endless references


def check_ends(root: Any, origins: Mapping[str, str], path: str) -> None:
    """Every $ref in the source leads to a schema that some finite value may satisfy."""
    schemas = dict(all_schemas(root, ""))
    references = {where: schema["$ref"] for where, schema in schemas.items() if "$ref" in schema}
    targets = {reference: follow(root, reference) for reference in references.values()}
    finite: set[str] = set()
    while more := {each for each in targets.keys() - finite if _can_end(targets[each], finite)}:
        finite |= more
    for pointer, schema in all_pointers(root, ""):
        if isinstance(schema, dict) and schema.get("$ref", None) in targets.keys() - finite:
            where = origins.get(f"{pointer}/$ref", path)
            raise refusal(where, f"{schema['$ref']!r} leads on without end: no value satisfies it")


def all_pointers(schema: Any, pointer: str) -> Iterator[tuple[str, Any]]:
    """The schema and all inside it, by JSON pointer."""
    yield pointer, schema
    if isinstance(schema, dict):
        for keys, each in subschemas(schema):
            inner = pointer
            for key in keys:
                inner = child_pointer(inner, key)
            yield from all_pointers(each, inner)


def follow(root: Any, reference: str) -> Any:
    """What a reference by JSON pointer leads to, in a document where all lead somewhere."""
    node = root
    for part in unquote(reference.removeprefix("#")).split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        node = node[int(key)] if isinstance(node, list) else node[key]
    return node


def pointer_of(reference: str) -> str:
    """Where a reference of the source leads."""
    return unquote(reference.removeprefix("#"))


def _can_end(schema: Any, finite: set[str]) -> bool:
    """Whether a value can be finite, given the references that can. Looks at what must be there, and nothing else."""
    if isinstance(schema, bool):
        return schema
    if "$ref" in schema and schema["$ref"] not in finite:
        return False
    if not all(_can_end(each, finite) for each in schema.get("allOf", ())):
        return False
    unions = [schema[keyword] for keyword in ("anyOf", "oneOf") if keyword in schema]
    if not all(any(_can_end(each, finite) for each in union) for union in unions):
        return False
    types = types_of(schema)
    if not types or types - {"object", "array"} or {"const", "enum"} & schema.keys():
        return True
    return any(all(_can_end(each, finite) for each in _necessary(schema, kind)) for kind in types)


def _necessary(schema: JsonObject, kind: str) -> list[Any]:
    """The schemas of the members that a value of this kind must have."""
    if kind == "object":
        properties = schema.get("properties", {})
        return [properties[name] for name in schema.get("required", ()) if name in properties]
    num_items, first = schema.get("minItems", 0), schema.get("prefixItems", [])
    return [*first[: int(num_items)], *([schema.get("items", True)] if num_items > len(first) else [])]


def types_of(schema: Any) -> set[str]:
    """The types that are named; empty where none is."""
    types = schema.get("type", []) if isinstance(schema, dict) else []
    found = {types} if isinstance(types, str) else set(types)
    return found | ({"integer"} if "number" in found else set())
