"""The places of a value, each with all that the schema's parts ask there together: states.

A state is a conjunction of literals. States are equal where they ask the same, so a recursive schema has finitely many.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from engine.grammars.schema_logic import Literal
from engine.grammars.schema_references import pointer_of
from engine.grammars.schema_walk import child_pointer

MAX_FOLLOWED = 300  # schemas in a row, each of which says nothing but where the next is


@dataclass(frozen=True, slots=True)
class State:
    """literals: all must hold. union: or else the value is in one of these."""

    literals: tuple[Literal, ...] = ()
    union: tuple["State", ...] = ()


ANY = State()
NEVER = State(literals=(Literal("never"),))


def state_of(source: Mapping[str, Any], literals: Iterable[Literal]) -> State:
    """The literals as a state: what merely leads on is followed, what asks nothing left out."""
    found: dict[Literal, None] = {}
    for literal in literals:
        for each in _flat(source, literal, MAX_FOLLOWED):
            if each is None:
                return NEVER
            found[each] = None
    return State(tuple(found))


def _flat(source: Mapping[str, Any], literal: Literal, steps: int) -> list[Literal | None]:
    """The literal as others that all must hold; None among them where nothing satisfies it."""
    schema = source[literal.pointer]
    if isinstance(schema, bool):
        return [] if schema is not literal.negated else [None]
    asserts = [keyword for keyword in schema if keyword not in ("$defs", "definitions", "$schema")]
    if not asserts:
        return [None] if literal.negated else []
    if steps and asserts == ["$ref"]:
        return _flat(source, literal._replace(pointer=pointer_of(schema["$ref"])), steps - 1)
    if steps and asserts == ["allOf"] and not literal.negated:
        inner = child_pointer(literal.pointer, "allOf")
        branches = [literal._replace(pointer=child_pointer(inner, each)) for each in range(len(schema["allOf"]))]
        return [each for branch in branches for each in _flat(source, branch, steps - 1)]
    if steps and asserts == ["not"]:
        inner = child_pointer(literal.pointer, "not")
        return _flat(source, Literal(inner, not literal.negated, literal.blame or inner), steps - 1)
    return [literal]
