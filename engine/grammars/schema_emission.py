"""The states that are left, as one schema of keywords that the grammar library holds.

In it every schema is true or false, or has a `type` (or several), an `enum`, an `anyOf`, an `allOf` of strings, or a
`$ref` to `#` or into `$defs`, and nothing beside these but what the types' own keywords say. `$defs` has what is
shared, what is recursive and what would stand too deep.
"""

import itertools
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from engine.errors import SchemaError
from engine.events import Enforcement, ReceiptEntry
from engine.grammars.schema_cases import Case, Wish
from engine.grammars.schema_numbers import LARGEST_NUMBER
from engine.grammars.schema_patterns import matches
from engine.grammars.schema_states import ANY, NEVER, State
from engine.grammars.schema_tableau import Tableau
from engine.grammars.schema_walk import refusal

MAX_INLINE = 20  # schemas one inside the other; the grammar library reads 128 levels of JSON
MAX_DEPTH_OF_ALL = 600  # the same with every definition below another: more can overflow the library's stack
NO_VALUE: dict[str, Any] = {"enum": []}
MAX_WISHES = 32  # for which examples are looked for
ANY_NAME = "any"

# What the library would take for any value has numbers of any length.
ANY_VALUE = {
    "type": ["null", "boolean", "number", "string", "array", "object"],
    "minimum": -LARGEST_NUMBER,
    "maximum": LARGEST_NUMBER,
    "items": {"$ref": f"#/$defs/{ANY_NAME}"},
    "additionalProperties": {"$ref": f"#/$defs/{ANY_NAME}"},
}


@dataclass(frozen=True, slots=True)
class ExampleSchema:
    """A schema whose values may help to satisfy a keyword that is left to the veto."""

    keyword: str  # its pointer
    count: int  # how many of them are worth to know
    schema: dict[str, Any]  # of items, or of names


@dataclass(frozen=True, slots=True)
class Emitted:
    """schema: for the grammar. vetoed: pointers into the source of the keywords that it does not hold."""

    schema: dict[str, Any]
    vetoed: tuple[str, ...]
    entries: tuple[ReceiptEntry, ...]
    has_order: bool  # some object may have two properties of given names
    wishes: tuple[Wish, ...]  # for some of what is vetoed


def emit(tableau: Tableau, path: str) -> Emitted:
    """Raises SchemaError where no value satisfies the schema, or it is past a limit."""
    return _Emission(tableau, tableau.root, path).emit()


def examples_for(tableau: Tableau, wishes: Iterable[Wish], path: str) -> Iterator[ExampleSchema]:
    """The schemas of what is worth to know."""
    for wish in itertools.islice(wishes, MAX_WISHES):
        if wish.names is not None:
            yield ExampleSchema(wish.keyword, wish.num_values, json.loads(wish.names))
            continue
        try:
            schema = _Emission(tableau, wish.state, path).emit().schema
        except SchemaError:
            schema = NO_VALUE
        yield ExampleSchema(wish.keyword, wish.num_values, schema)


class _Emission:
    def __init__(self, tableau: Tableau, root: State, path: str) -> None:
        self._tableau = tableau
        self._root_state = root
        self._path = path
        self._uses: Counter[State] = Counter()
        self._names: dict[State, str] = {root: "#"}
        self._taken = {ANY_NAME}  # names in $defs
        self._waiting: list[State] = []
        self._num_schemas = 0
        self._vetoed: dict[str, None] = {}
        self._wishes: dict[Wish, None] = {}
        self._entries: dict[ReceiptEntry, None] = {}
        self._alive: set[State] = set()
        self._leaves: Counter[str] = Counter()  # schemas without others inside, as text: how often they stand
        self._leaf_names: dict[str, str] = {}
        self._has_order = False
        self._is_plain = False  # nothing is shared that need not be
        self._inside_of: list[State] = []  # what is being written, the outermost first
        self._any: Any = {"$ref": f"#/$defs/{ANY_NAME}"}
        self._current = "#"  # what is being written
        self._leads: dict[str, list[tuple[str, int]]] = {}  # definition -> those that it refers to, and how deep inside

    def emit(self) -> Emitted:
        states = self._reach()
        self._alive = self._filled(states)
        self._leaves.update(filter(None, map(self._leaf, states)))
        if self._root_state not in self._alive:
            raise refusal(self._path, "no value satisfies it")
        schema = self._root()
        definitions: dict[str, Any] = {}
        while self._waiting:
            state = self._waiting.pop()
            self._current = self._names[state]
            definitions[self._current] = self._written(state, 1)
        definitions |= {name: json.loads(text) for text, name in self._leaf_names.items()}
        if self._uses[ANY]:
            definitions[ANY_NAME] = ANY_VALUE
        if _deepest(self._leads) > MAX_DEPTH_OF_ALL:
            raise refusal(self._path, f"its definitions are nested more than {MAX_DEPTH_OF_ALL} levels deep in all")
        entries = (*self._entries, *self._of_veto())
        return Emitted(
            {**schema, "$defs": definitions} if definitions else schema,
            tuple(self._vetoed),
            entries,
            self._has_order,
            tuple(self._wishes),
        )

    def _root(self) -> dict[str, Any]:
        root = self._root_state
        if root == ANY:
            self._uses[ANY] += 1
            return {"$ref": f"#/$defs/{ANY_NAME}"}
        written = self._written(root, 1)
        assert isinstance(written, dict)
        return written

    def _of_veto(self) -> Iterator[ReceiptEntry]:
        for pointer in self._vetoed:
            detail = "no grammar holds it: each value is checked as it closes"
            yield ReceiptEntry(self._tableau.source.path_of(pointer), Enforcement.VETO, detail)

    # --- Which states there are

    def _reach(self) -> list[State]:
        found, waiting = {self._root_state: None}, [self._root_state]
        while waiting:
            for each in self._inside(waiting.pop()):
                self._uses[each] += 1
                if each not in found:
                    found[each] = None
                    waiting.append(each)
            if len(found) > self._tableau.limits.max_subschemas:
                limit = self._tableau.limits.max_subschemas
                raise refusal(self._path, f"it needs more than {limit} schemas (the limit max_subschemas)")
        return list(found)

    def _inside(self, state: State) -> Iterator[State]:
        if union := self._tableau.union_of(state):
            yield from union
        elif state not in (ANY, NEVER):
            for case in self._tableau.cases(state):
                yield from _states_of(case.schema)

    def _filled(self, states: list[State]) -> set[State]:
        """The states that some finite value is in."""
        filled = {ANY}
        while more := {each for each in states if each not in filled and self._is_filled(each, filled)}:
            filled |= more
        return filled

    def _is_filled(self, state: State, filled: set[State]) -> bool:
        if union := self._tableau.union_of(state):
            return any(each in filled for each in union)
        return state != NEVER and any(filled.issuperset(case.needs) for case in self._tableau.cases(state))

    # --- How they are written

    def _use(self, state: State, depth: int) -> Any:
        if state not in self._alive:
            return False
        self._count()
        if state == ANY:
            return self._any
        if self._is_plain and state not in self._inside_of and depth <= MAX_INLINE:
            return self._written(state, depth)
        if state not in self._names:
            if depth <= MAX_INLINE and (self._uses[state] <= 1 or self._is_small(state)):
                return self._written(state, depth)
            self._names[state] = self._name(state)
            self._waiting.append(state)
        name = self._names[state]
        self._leads.setdefault(self._current, []).append((name, depth))
        return {"$ref": "#" if name == "#" else f"#/$defs/{name}"}

    def _is_small(self, state: State) -> bool:
        """Whether a reference to it would be no shorter, and its writing uses no others."""
        if self._tableau.union_of(state):
            return False
        cases = self._tableau.cases(state)
        return len(cases) == 1 and not any(_states_of(cases[0].schema)) and len(cases[0].schema.get("enum", ())) < 5

    def _leaf(self, state: State) -> str:
        """Its schema as text, where it has no others inside and the library takes long to read it; else nothing."""
        if self._tableau.union_of(state) or state in (ANY, NEVER) or state not in self._alive:
            return ""
        cases = self._tableau.cases(state)
        is_leaf = len(cases) == 1 and {"pattern", "format", "allOf", "minimum", "maximum"} & cases[0].schema.keys()
        return json.dumps(cases[0].schema) if is_leaf and not any(_states_of(cases[0].schema)) else ""

    def _name(self, state: State) -> str:
        holder, _, name = state.literals[0].pointer.rpartition("/") if len(state.literals) == 1 else ("", "", "")
        if holder not in ("/$defs", "/definitions") or not name.isidentifier() or name in self._taken:
            return self._free_name("s")
        self._taken.add(name)
        return name

    def _free_name(self, stem: str) -> str:
        name = next(
            name for number in itertools.count(len(self._taken)) if (name := f"{stem}{number}") not in self._taken
        )
        self._taken.add(name)
        return name

    def _count(self) -> None:
        self._num_schemas += 1
        if self._num_schemas > self._tableau.limits.max_compiled:
            limit = self._tableau.limits.max_compiled
            raise SchemaError(
                f"{self._path}: its grammar has more than {limit} schemas (max_compiled)", param=self._path
            )

    def _written(self, state: State, depth: int) -> Any:
        self._inside_of.append(state)
        written = self._schema_of(state, depth)
        self._inside_of.pop()
        return written

    def _schema_of(self, state: State, depth: int) -> Any:
        if union := self._tableau.union_of(state):
            return _any_of([self._use(each, depth + 1) for each in union if each in self._alive])
        cases = [case for case in self._tableau.cases(state) if self._alive.issuperset(case.needs)]
        for case in cases:
            self._vetoed |= dict.fromkeys(case.vetoed)
            self._wishes |= dict.fromkeys(case.wishes)
            self._entries |= dict.fromkeys(case.entries)
            self._has_order |= len(case.schema.get("properties", ())) > 1
        text = self._leaf(state)
        if self._leaves[text] > 1 and state != self._root_state:
            if text not in self._leaf_names:
                self._leaf_names[text] = self._free_name("leaf")
            return {"$ref": f"#/$defs/{self._leaf_names[text]}"}
        return _any_of(_together([self._filled_in(case, depth) for case in cases]))

    def _filled_in(self, case: Case, depth: int) -> dict[str, Any]:
        """The case's schema, with schemas for its states."""
        if "enum" in case.schema:
            return case.schema
        schema = {keyword: self._value(value, depth + 1) for keyword, value in case.schema.items()}
        if "patternProperties" in case.schema and "properties" in case.schema:
            self._part(schema, case.schema, depth + 1)
        return schema

    def _part(self, schema: dict[str, Any], states: dict[str, Any], depth: int) -> None:
        """Keep the grammar library from merging names with patterns, of which each name's state has its share already.

        It would merge without end where both are recursive; what is merged with `true` stays as it is.
        """
        for pattern, state in states["patternProperties"].items():
            names = [name for name in states["properties"] if matches(pattern, name)]
            for name in names:
                if states["properties"][name] == state:
                    schema["properties"][name] = True
            if names:
                self._any, self._is_plain, outer = True, True, (self._any, self._is_plain)
                schema["patternProperties"][pattern] = self._value(state, depth)
                self._any, self._is_plain = outer

    def _value(self, value: Any, depth: int) -> Any:
        if isinstance(value, State):
            return self._use(value, depth)
        if isinstance(value, dict):
            return {key: self._value(each, depth) for key, each in value.items()}
        if isinstance(value, list):
            return [self._value(each, depth) for each in value]
        return value


def _states_of(schema: dict[str, Any]) -> Iterator[State]:
    """The states in a case's schema."""
    for keyword in ("properties", "patternProperties"):
        yield from schema.get(keyword, {}).values()
    yield from schema.get("prefixItems", ())
    for keyword in ("additionalProperties", "items"):
        if keyword in schema:
            yield schema[keyword]


def _any_of(schemas: list[Any]) -> Any:
    flat: list[Any] = []
    for schema in schemas:
        flat += schema["anyOf"] if isinstance(schema, dict) and schema.keys() == {"anyOf"} else [schema]
    return flat[0] if len(flat) == 1 else {"anyOf": flat}


def _together(schemas: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Fewer schemas that admit the same: one of all enums, and one of all types that stand here once."""
    values = [value for schema in schemas if "enum" in schema for value in schema["enum"]]
    kinds = Counter(str(schema.get("type")) for schema in schemas)
    single = [schema for schema in schemas if "type" in schema and kinds[schema["type"]] == 1]
    if {"number", "integer"} <= kinds.keys():
        single = [schema for schema in single if schema["type"] not in ("number", "integer")]
    others = [schema for schema in schemas if "enum" not in schema and schema not in single]
    merged: dict[str, Any] = {}
    for schema in single:
        merged |= schema
    if len(single) > 1:
        merged["type"] = [schema["type"] for schema in single]
    return [*([{"enum": values}] if values else []), *([merged] if single else []), *others]


def _deepest(leads: dict[str, list[tuple[str, int]]]) -> int:
    """Levels of schemas, each reference followed the first time that it is met, as the grammar library does."""
    depths: dict[str, int] = {}
    stack = [("#", 0)]
    while stack:
        name, depth = stack.pop()
        if name not in depths:
            depths[name] = depth
            stack += [(each, depth + inside) for each, inside in reversed(leads.get(name, ()))]
    return max(depths.values())
