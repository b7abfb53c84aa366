"""Which subschemas speak of a value, told from where the value stands; and which of them a grammar does not hold.

Only what certainly applies is followed: members' schemas, `allOf`, `$ref`. What applies only perhaps (a branch of
`anyOf`, `if`, `not`, a reference that is not followed here) is left to the schema that it stands in, which can be
judged once its own value is complete. Subschemas are named by JSON pointers (RFC 6901) from the root; "" is the root.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from engine.grammars.schema_walk import words
from engine.types import JsonObject

NEWEST_DRAFT = "https://json-schema.org/draft/2020-12/schema"
_ARRAY_FORM_DRAFTS = ("2019-09", "draft-07", "draft-06")  # `items` may be an array, and `additionalItems` follows it
_OLD_DRAFTS = ("draft-07", "draft-06")  # beside a $ref, nothing counts; no minContains, no maxContains

# Where schemas stand in a schema.
_ONE_SCHEMA = words(
    "additionalProperties additionalItems items contains propertyNames not if then else "
    "unevaluatedItems unevaluatedProperties contentSchema"
)
_LIST_OF_SCHEMAS = words("allOf anyOf oneOf prefixItems items")
_MAP_OF_SCHEMAS = words("properties patternProperties $defs definitions dependentSchemas dependencies")

_DEFINITIONS = words("$defs definitions")  # apply where something refers to them
_OF_MEMBERS = words("properties patternProperties additionalProperties prefixItems items additionalItems")
_OF_ITSELF = words("allOf anyOf oneOf if then else dependentSchemas dependencies $ref")  # all may speak of the names
_CERTAIN = words("allOf $ref") | _OF_MEMBERS
_UNFOLLOWED = words("$dynamicRef $recursiveRef")
_LIMITS_NAMES = words("patternProperties propertyNames unevaluatedProperties")

MatchesName = Callable[[str, str], bool]
"""Whether a regex, as JSON Schema reads it, is found in a name."""


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """What certainly applies to one value. The same place is the same object."""

    schemas: Mapping[str, JsonObject]  # by pointer; all keywords in them count
    judged: tuple[str, ...]  # those that the grammar does not hold: to be validated once the value is complete
    leads_to_judged: bool  # the value itself, or something that may be in it, is judged
    limits_names: bool  # an object may not have members of any name


class Places:
    """The places of one schema. Immutable but for what it remembers; any thread may use it."""

    def __init__(self, source: JsonObject | bool, vetoed: Collection[str], matches: MatchesName) -> None:
        """vetoed: pointers of keywords that the grammar does not hold."""
        self._graph = _Graph(source, vetoed)
        self.bounds_contains = not any(name in draft_of(source) for name in _OLD_DRAFTS)
        self._matches = matches
        self._places: dict[frozenset[str], Place] = {}
        self.root = self._place(frozenset({""}))

    def member(self, place: Place, name: str) -> Place:
        """The place of an object's member."""
        return self._place(
            frozenset(each for where, schema in place.schemas.items() for each in self._of_name(where, schema, name))
        )

    def item(self, place: Place, index: int) -> Place:
        """The place of an array's item."""
        return self._place(
            frozenset(each for where, schema in place.schemas.items() for each in self._of_index(where, schema, index))
        )

    def _of_name(self, where: str, schema: JsonObject, name: str) -> Iterator[str]:
        is_named = name in schema.get("properties", ())
        if is_named:
            yield child(where, "properties", name)
        for pattern in schema.get("patternProperties", ()):
            if self._matches(pattern, name):
                is_named = True
                yield child(where, "patternProperties", pattern)
        if not is_named and "additionalProperties" in schema:
            yield child(where, "additionalProperties")

    def _of_index(self, where: str, schema: JsonObject, index: int) -> Iterator[str]:
        first, rest = "prefixItems", "items"
        if self._graph.has_array_form:
            first, rest = "items", "additionalItems" if isinstance(schema.get("items"), list) else "items"
        listed = schema.get(first, ())
        if isinstance(listed, (list, tuple)) and index < len(listed):
            yield child(where, first, str(index))
        elif rest in schema:
            yield child(where, rest)

    def _place(self, pointers: frozenset[str]) -> Place:
        found = self._places.get(pointers)
        if found is None:
            found = self._places[pointers] = self._graph.place(pointers)
        return found


class _Graph:
    """All subschemas of a schema, and how they lead to each other."""

    def __init__(self, source: JsonObject | bool, vetoed: Collection[str]) -> None:
        self._schemas = dict(_subschemas(source, ""))
        draft = draft_of(source)
        self.has_array_form = any(name in draft for name in _ARRAY_FORM_DRAFTS)
        self._ref_alone = any(name in draft for name in _OLD_DRAFTS)
        # Inside a schema with an $id of its own, "#" may be that schema.
        inner = (schema.get("$id", "#") for where, schema in self._schemas.items() if where)
        self._follows_refs = all(isinstance(name, str) and name.startswith("#") for name in inner)
        edges = [(where, *edge) for where, schema in self._schemas.items() for edge in self._edges(where, schema)]
        not_held = {self._owner(pointer) for pointer in vetoed}
        # What a name's patterns ask of its value is judged at the value's end already.
        members = [pointer for pointer in vetoed if pointer.endswith("/patternProperties")]
        not_held |= {where for where in self._schemas if where.rpartition("/")[0] in members}
        if vetoed:
            not_held |= {where for where, schema in self._schemas.items() if self._leads_anywhere(schema)}
        self._leading = _leading_to(not_held, ((where, target) for where, _, target in edges))
        self._judged = not_held | {
            where for where, keyword, target in edges if keyword not in _CERTAIN and target in self._leading
        }
        limiting = {where for where, schema in self._schemas.items() if _LIMITS_NAMES & schema.keys()}
        of_itself = ((where, target) for where, keyword, target in edges if keyword in _OF_ITSELF)
        self._limiting = _leading_to(limiting, of_itself)

    def place(self, pointers: Iterable[str]) -> Place:
        """The place where these apply, and with them what they certainly lead to."""
        schemas: dict[str, JsonObject] = {}
        left = [pointer for pointer in pointers if pointer in self._schemas]  # the others are booleans
        while left:
            where = left.pop()
            schema = self._schemas[where]
            if where in schemas:
                continue
            schemas[where] = schema
            left += [target for keyword, target in self._edges(where, schema) if keyword in ("allOf", "$ref")]
        # Sorted, so that of two faults the same one is told each time.
        judged = tuple(where for where in sorted(schemas) if where in self._judged)
        speaking = {where: schema for where, schema in schemas.items() if not self._is_ref_alone(schema)}
        return Place(
            speaking,
            judged,
            leads_to_judged=not self._leading.isdisjoint(schemas),
            limits_names=not self._limiting.isdisjoint(schemas),
        )

    def _edges(self, where: str, schema: JsonObject) -> Iterator[tuple[str, str]]:
        """The keywords that apply further schemas, booleans left out, and where these are."""
        target = self._target(schema)
        if target is not None:
            yield "$ref", target
        if not self._is_ref_alone(schema):
            for keyword, pointer in _children(where, schema):
                if keyword not in _DEFINITIONS and pointer in self._schemas:
                    yield keyword, pointer

    def _is_ref_alone(self, schema: JsonObject) -> bool:
        return self._ref_alone and "$ref" in schema

    def _target(self, schema: JsonObject) -> str | None:
        reference = schema.get("$ref")
        if not self._follows_refs or not isinstance(reference, str) or not reference.startswith("#"):
            return None
        pointer = unquote(reference[1:])
        return pointer if pointer in self._schemas else None

    def _leads_anywhere(self, schema: JsonObject) -> bool:
        return bool(_UNFOLLOWED & schema.keys()) or ("$ref" in schema and self._target(schema) is None)

    def _owner(self, pointer: str) -> str:
        """The schema that has the keyword; the root for a pointer that leads to nothing."""
        while pointer:
            pointer = pointer.rpartition("/")[0]
            if pointer in self._schemas:
                return pointer
        return ""


def draft_of(source: JsonObject | bool) -> str:
    """The draft by which the schema is to be read."""
    return str(NEWEST_DRAFT if isinstance(source, bool) else source.get("$schema", NEWEST_DRAFT))


def child(pointer: str, *keys: str) -> str:
    """The pointer to what lies below."""
    return pointer + "".join("/" + key.replace("~", "~0").replace("/", "~1") for key in keys)


def _subschemas(source: Any, where: str) -> Iterator[tuple[str, JsonObject]]:
    """The schema and all inside it, by pointer; booleans are left out."""
    left = [(where, source)]
    while left:
        where, schema = left.pop()
        if isinstance(schema, Mapping):
            yield where, schema
            left += [(pointer, _at(schema, pointer[len(where) :])) for _, pointer in _children(where, schema)]


def _children(where: str, schema: JsonObject) -> Iterator[tuple[str, str]]:
    """The keywords with schemas in them, and the pointers to these."""
    for keyword, value in schema.items():
        if keyword in _ONE_SCHEMA and isinstance(value, (Mapping, bool)):
            yield keyword, child(where, keyword)
        elif keyword in _LIST_OF_SCHEMAS and isinstance(value, (list, tuple)):
            yield from ((keyword, child(where, keyword, str(index))) for index in range(len(value)))
        elif keyword in _MAP_OF_SCHEMAS and isinstance(value, Mapping):
            yield from ((keyword, child(where, keyword, name)) for name in value)


def _at(schema: Any, pointer: str) -> Any:
    node = schema
    for part in pointer.split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        node = node[int(key)] if isinstance(node, (list, tuple)) else node[key]
    return node


def _leading_to(targets: Collection[str], edges: Iterable[tuple[str, str]]) -> set[str]:
    """The targets, and all from where edges lead to one of them."""
    back: dict[str, list[str]] = {}
    for start, end in edges:
        back.setdefault(end, []).append(start)
    found, left = set(targets), list(targets)
    while left:
        new = [start for start in back.get(left.pop(), ()) if start not in found]
        found.update(new)
        left += new
    return found
