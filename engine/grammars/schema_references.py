"""Schemas that depend on each other: references and where they lead, and branches that exclude each other."""

import itertools
import json
from typing import Any
from urllib.parse import unquote

from engine.checks import is_number
from engine.grammars.schema_walk import IN_PLACE, STAYS_AS_IS, all_schemas, child_path, depth_of, refusal
from engine.types import JsonObject

MAX_DEPTH_OF_ALL = 2000  # the same with every definition below another: more can overflow the grammar library's stack
MAX_BRANCHES = 50  # of a oneOf that are compared with each other


def check_references(root: Any, path: str) -> None:
    """Every $ref leads to a schema inside, none of them leads on without end, and all together not too deep."""
    schemas = dict(all_schemas(root, path))
    references = {child_path(where, "$ref"): schema["$ref"] for where, schema in schemas.items() if "$ref" in schema}
    targets = {reference: _follow(root, reference) for reference in references.values()}
    known = {id(schema) for schema in schemas.values()}
    for where, reference in references.items():
        if not isinstance(targets[reference], bool) and id(targets[reference]) not in known:
            raise refusal(where, f"{reference!r} leads to no schema in here")
    if sum(map(depth_of, (root, *targets.values()))) > MAX_DEPTH_OF_ALL:
        raise refusal(path, f"its definitions are nested more than {MAX_DEPTH_OF_ALL} levels deep in all")
    finite: set[str] = set()
    while more := {each for each in targets.keys() - finite if _can_end(targets[each], finite)}:
        finite |= more
    for where, reference in references.items():
        if reference not in finite:
            raise refusal(where, f"{reference!r} leads on without end: no value satisfies it")


def _follow(root: Any, reference: str) -> Any:
    """What a JSON pointer points at; None where there is nothing, and for references of other kinds."""
    start, *parts = unquote(reference).split("/")
    node = root if start == "#" else None
    for part in parts:
        key = part.replace("~1", "/").replace("~0", "~")
        if isinstance(node, list):
            node = node[int(key)] if key.isdecimal() and int(key) < len(node) else None
        else:
            node = node.get(key) if isinstance(node, dict) else None
    return node


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
    types = _types(schema)
    if not types or types - {"object", "array"} or {"const", "enum"} & schema.keys():
        return True
    return any(all(_can_end(each, finite) for each in _necessary(schema, kind)) for kind in types)


def _necessary(schema: JsonObject, kind: str) -> list[Any]:
    """The schemas of the members that a value of this kind must have."""
    if kind == "object":
        properties = schema.get("properties", {})
        return [properties[name] for name in schema.get("required", ()) if name in properties]
    num_items, first = schema.get("minItems", 0), schema.get("prefixItems", [])
    return [*first[:num_items], *([schema.get("items", True)] if num_items > len(first) else [])]


def is_ambiguous(schema: JsonObject, root: Any) -> bool:
    """Whether some value may satisfy two branches of a oneOf, for all that is seen at a glance."""
    pairs = itertools.combinations(schema.get("oneOf", [])[:MAX_BRANCHES], 2)
    return len(schema.get("oneOf", [])) > MAX_BRANCHES or not all(_exclude_each_other(*pair, root) for pair in pairs)


def _exclude_each_other(one: Any, other: Any, root: Any) -> bool:
    if _lacks_name_of(one, other) and _lacks_name_of(other, one):
        return True
    one, other = _target(one, root), _target(other, root)
    for kinds in (_scalars(one), _scalars(other)), (_types(one), _types(other)):
        if all(kinds) and kinds[0].isdisjoint(kinds[1]):
            return True
    if not _types(one) == _types(other) == {"object"}:
        return False
    tags = {*one.get("required", ())} & {*other.get("required", ())}
    values = [[_scalars(_target(each.get("properties", {}).get(tag), root)) for each in (one, other)] for tag in tags]
    return any(all(pair) and pair[0].isdisjoint(pair[1]) for pair in values)


def _lacks_name_of(one: Any, other: Any) -> bool:
    """Whether the one schema is of objects that, once they are closed, never have all that the other requires."""
    if not _types(one) == _types(other) == {"object"} or (STAYS_AS_IS | IN_PLACE) & one.keys():
        return False
    names = {*one.get("properties", {}), *one.get("required", ())}
    return "properties" in one and not names.issuperset(other.get("required", ()))


def _target(schema: Any, root: Any) -> Any:
    return _follow(root, schema["$ref"]) if isinstance(schema, dict) and "$ref" in schema else schema


def _types(schema: Any) -> set[str]:
    """The types that are named; empty where none is."""
    types = schema.get("type", []) if isinstance(schema, dict) else []
    found = {types} if isinstance(types, str) else set(types)
    return found | ({"integer"} if "number" in found else set())


def _scalars(schema: Any) -> set[str]:
    """The values, as text, where a schema lists them and all are scalars; else empty."""
    if not isinstance(schema, dict):
        return set()
    values = [schema["const"]] if "const" in schema else schema.get("enum", [])
    if any(isinstance(value, (dict, list)) for value in values):
        return set()
    return {json.dumps(int(value) if is_number(value) and value % 1 == 0 else value) for value in values}
