"""Which objects of a tool's arguments are closed: those of which no other schema may say more.

Closing narrows, as long as it is not negated and parts no branches of a oneOf that the written ones leave together.
"""

import itertools
import json
from typing import Any
from urllib.parse import unquote

from engine.checks import is_number
from engine.grammars.schema_references import types_of
from engine.grammars.schema_walk import IN_PLACE, STAYS_AS_IS, all_schemas, words
from engine.types import JsonObject

MAX_BRANCHES = 50  # of a oneOf that are compared with each other
SPEAKS_OF_PROPERTIES = words("properties patternProperties additionalProperties required minProperties")
NEGATES = words("not if contains propertyNames")  # what is inside may be asked not to hold, or to hold of some only


def combines(schema: JsonObject) -> bool:
    """Whether several schemas speak of the same value here."""
    in_place = IN_PLACE & schema.keys()
    if "allOf" in in_place or len(in_place) > 1:
        return True
    return bool(in_place) and bool(SPEAKS_OF_PROPERTIES & schema.keys() or {"if", "dependentSchemas"} & in_place)


def may_close(root: Any) -> bool:
    """Whether closing objects keeps every oneOf as it is."""
    return not any(_is_ambiguous(each, root) for _, each in all_schemas(root, ""))


def merges_definitions(root: Any) -> bool:
    """Whether a definition may be merged into something else, or negated; whether one is, only a search would tell."""
    return any(
        "allOf" in each or ("$ref" in each and combines(each)) or NEGATES & each.keys()
        for _, each in all_schemas(root, "")
    )


def closed(schema: JsonObject) -> dict[str, Any] | None:
    """The same object with no other properties than those it names; None where it says itself what else it may have."""
    if "properties" not in schema or STAYS_AS_IS & schema.keys():
        return None
    unnamed = {name: True for name in schema.get("required", ()) if name not in schema["properties"]}
    return {**schema, "properties": {**schema["properties"], **unnamed}, "additionalProperties": False}


def _is_ambiguous(schema: JsonObject, root: Any) -> bool:
    """Whether some value may satisfy two branches of a oneOf, for all that is seen at a glance."""
    pairs = itertools.combinations(schema.get("oneOf", [])[:MAX_BRANCHES], 2)
    return len(schema.get("oneOf", [])) > MAX_BRANCHES or not all(_exclude_each_other(*pair, root) for pair in pairs)


def _exclude_each_other(one: Any, other: Any, root: Any) -> bool:
    if _lacks_name_of(one, other) and _lacks_name_of(other, one):
        return True
    one, other = _target(one, root), _target(other, root)
    for kinds in (_scalars(one), _scalars(other)), (types_of(one), types_of(other)):
        if all(kinds) and kinds[0].isdisjoint(kinds[1]):
            return True
    if not types_of(one) == types_of(other) == {"object"}:
        return False
    tags = {*one.get("required", ())} & {*other.get("required", ())}
    values = [[_scalars(_target(each.get("properties", {}).get(tag), root)) for each in (one, other)] for tag in tags]
    return any(all(pair) and pair[0].isdisjoint(pair[1]) for pair in values)


def _lacks_name_of(one: Any, other: Any) -> bool:
    """Whether the one schema is of objects that, once they are closed, never have all that the other requires."""
    if not types_of(one) == types_of(other) == {"object"} or (STAYS_AS_IS | IN_PLACE) & one.keys():
        return False
    names = {*one.get("properties", {}), *one.get("required", ())}
    return "properties" in one and not names.issuperset(other.get("required", ()))


def _target(schema: Any, root: Any) -> Any:
    reference = schema.get("$ref") if isinstance(schema, dict) else None
    return _follow(root, reference) if isinstance(reference, str) else schema


def _scalars(schema: Any) -> set[str]:
    """The values, as text, where a schema lists them and all are scalars; else empty."""
    if not isinstance(schema, dict):
        return set()
    values = [schema["const"]] if "const" in schema else schema.get("enum", [])
    if any(isinstance(value, (dict, list)) for value in values):
        return set()
    return {json.dumps(int(value) if is_number(value) and value % 1 == 0 else value) for value in values}


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
