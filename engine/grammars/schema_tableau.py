"""All states of one schema and the cases of each: how its keywords come together, wherever they stand."""

import functools
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import quote

import jsonschema_rs

from engine.grammars.schema_cases import (
    Case,
    CaseOf,
    array_cases,
    boolean_cases,
    null_cases,
    number_cases,
    string_cases,
)
from engine.grammars.schema_formulas import Formulas
from engine.grammars.schema_keywords import TYPES
from engine.grammars.schema_limits import SchemaLimits
from engine.grammars.schema_logic import Alternative, Formula, Literal, all_of, alternatives
from engine.grammars.schema_objects import object_cases
from engine.grammars.schema_references import all_pointers
from engine.grammars.schema_source import Source
from engine.grammars.schema_states import ANY, NEVER, State, state_of
from engine.grammars.schema_walk import child_pointer, words

BUILDERS: dict[str, Callable[[CaseOf], list[Case]]] = {
    "null": null_cases,
    "boolean": boolean_cases,
    "number": number_cases,
    "string": string_cases,
    "array": array_cases,
    "object": object_cases,
}
LOOK_AHEAD = 3  # levels into a value that are searched for a contradiction
CHECKED_ALONE = words(  # atoms that are keywords of their own
    "minLength maxLength pattern format minimum maximum exclusiveMinimum exclusiveMaximum multipleOf"
)
SOURCE_URI = "urn:toolmask:source"


class Tableau:
    """The states of one source."""

    def __init__(self, source: Source, limits: SchemaLimits) -> None:
        self.source = source
        self.limits = limits
        self.schemas = dict(all_pointers(source.schema, ""))
        self.root = state_of(self.schemas, [Literal("")])
        self._formulas = Formulas(self.schemas, self._meet, source.path_of, source.path_of(""))
        self._registry = jsonschema_rs.Registry([(SOURCE_URI, source.schema)])
        self._validators: dict[str, Any] = {}
        self._unions: dict[State, tuple[State, ...]] = {}
        self._cases: dict[State, list[Case]] = {}
        self._under_way: set[State] = set()

    def union_of(self, state: State) -> tuple[State, ...]:
        """The states of which it is nothing but one; none where it is more. Each then stands in the grammar once."""
        if state not in self._unions:
            self._unions[state] = state.union or self._branches(state)
        return self._unions[state]

    def _branches(self, state: State) -> tuple[State, ...]:
        if len(state.literals) != 1 or state.literals[0].negated or state == NEVER:
            return ()
        pointer = state.literals[0].pointer
        schema = self.schemas[pointer]
        if [keyword for keyword in schema if keyword not in ("$defs", "definitions", "$schema")] != ["anyOf"]:
            return ()
        branches = [
            state_of(
                self.schemas, [state.literals[0]._replace(pointer=child_pointer(child_pointer(pointer, "anyOf"), each))]
            )
            for each in range(len(schema["anyOf"]))
        ]
        kept = tuple(dict.fromkeys(branch for branch in branches if branch != NEVER))
        return kept if len(kept) > 1 else ()

    def path_of(self, state: State) -> str:
        return self.source.path_of(state.literals[0].pointer if state.literals else "")

    def cases(self, state: State) -> list[Case]:
        """What the values of a state may be. Not of a union, nor of ANY or NEVER."""
        if state not in self._cases:
            self._under_way.add(state)
            found = []
            for kind in self._types_of(state):
                formula = all_of(self._formulas.of(literal, kind) for literal in state.literals)
                accepts = functools.partial(self._accepts, state.literals)
                found += self._cases_of(formula, kind, self.path_of(state), accepts)
            self._under_way.discard(state)
            self._cases[state] = found
        return self._cases[state]

    def _types_of(self, state: State) -> list[str]:
        """The types that its schemas name. Of all others there is no case, which takes longer to find otherwise."""
        left = list(TYPES)
        for literal in state.literals:
            schema = self.schemas[literal.pointer]
            if not literal.negated and isinstance(schema, dict) and "type" in schema:
                named = words(schema["type"]) if isinstance(schema["type"], str) else schema["type"]
                left = [kind for kind in left if kind in named or (kind == "number" and "integer" in named)]
        return left

    def _cases_of(
        self, formula: Formula, kind: str, path: str, accepts: Callable[[Any], bool] | None = None
    ) -> list[Case]:
        possible = functools.partial(self._is_possible, kind)
        found: list[Case] = []
        for each in alternatives(formula, self.limits.max_alternatives, possible):
            found += [case for case in self._built(each, kind, path, accepts) if self._may_be(case, LOOK_AHEAD)]
        return found

    def _built(
        self, atoms: Alternative, kind: str, path: str, accepts: Callable[[Any], bool] | None = None
    ) -> list[Case]:
        given = CaseOf(
            self.schemas,
            atoms,
            path,
            self.source.path_of,
            accepts or functools.partial(self._satisfies, atoms),
            self.limits,
            self._string_cases,
            self._is_valid,
        )
        values = given.listed(kind)
        if values is not None:
            return [Case({"enum": values})] if values else []
        return BUILDERS[kind](given)

    # --- Whether anything is left

    def _meet(self, formula: Formula, kind: str) -> bool:
        possible = functools.partial(self._is_possible, kind)
        found = alternatives(formula, self.limits.max_alternatives, possible)
        return any(self._is_possible(kind, each) for each in found)

    def _is_possible(self, kind: str, atoms: Alternative) -> bool:
        return any(self._may_be(case, LOOK_AHEAD) for case in self._built(atoms, kind, ""))

    def _may_be(self, case: Case, depth: int) -> bool:
        return all(self._may_hold(state, depth - 1) for state in case.needs)

    def _may_hold(self, state: State, depth: int) -> bool:
        """Whether some value may be in the state, as far as a few levels tell."""
        if union := self.union_of(state):
            return depth <= 0 or any(self._may_hold(each, depth - 1) for each in union)
        if state in (ANY, NEVER):
            return state == ANY
        if depth <= 0 or state in self._under_way:
            return True
        return any(self._may_be(case, depth) for case in self.cases(state))

    # --- Values

    def _accepts(self, literals: Sequence[Literal], value: Any) -> bool:
        return all(self._is_valid(each.pointer, value) is not each.negated for each in literals)

    def _is_valid(self, pointer: str, value: Any) -> bool:
        if pointer not in self._validators:
            reference = {"$ref": f"{SOURCE_URI}#{quote(pointer, safe='/~')}"}
            validator = jsonschema_rs.Draft202012Validator(reference, registry=self._registry, validate_formats=True)
            self._validators[pointer] = validator
        return bool(self._validators[pointer].is_valid(value))

    def _satisfies(self, atoms: Alternative, value: Any) -> bool:
        """Whether the value satisfies the atoms that are easily told."""
        for atom in atoms:
            if atom.kind in CHECKED_ALONE and not _holds(atom.kind, atom.value, value):
                return False
            if atom.kind in ("values", "not values"):
                holder, _, keyword = str(atom.value).rpartition("/")
                listed = _holds(keyword, self.schemas[holder][keyword], value)
                if listed is not (atom.kind == "values"):
                    return False
        return True

    def _string_cases(self, pointer: str) -> list[Case]:
        state = state_of(self.schemas, [Literal(pointer)])
        if state in (ANY, NEVER):
            return [Case({"type": "string"})] if state == ANY else []
        formula = all_of(self._formulas.of(literal, "string") for literal in state.literals)
        accepts = functools.partial(self._accepts, state.literals)
        return self._cases_of(formula, "string", self.path_of(state), accepts)


def _holds(keyword: str, wanted: Any, value: Any) -> bool:
    if keyword == "enum" and isinstance(value, str):
        return value in wanted
    return bool(jsonschema_rs.Draft202012Validator({keyword: wanted}, validate_formats=True).is_valid(value))
