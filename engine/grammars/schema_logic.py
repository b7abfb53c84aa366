"""Formulas of what may be asked of a value, and how they become a list of alternatives.

An atom of kind "veto" asks nothing: a formula with one admits more than the schema does, and the atom's blame tells the
keyword that something else must hold.
"""

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import NamedTuple


class Literal(NamedTuple):
    """A schema of the source, or its opposite."""

    pointer: str
    negated: bool = False
    blame: str | None = None  # pointer of the outermost keyword that negates or conditions it


class Atom(NamedTuple):
    """One thing that is asked of a value."""

    kind: str
    value: Hashable
    blame: str  # pointer of the keyword that asks for it
    scopes: tuple[str, ...] = ()  # pointers of the schemas whose unevaluated keywords see it


@dataclass(frozen=True, slots=True)
class And:
    parts: tuple["Formula", ...]


@dataclass(frozen=True, slots=True)
class Or:
    parts: tuple["Formula", ...]
    blame: str  # pointer of the keyword that is given to the veto where there are too many alternatives
    evaluates: bool = False  # which alternative holds matters, even if one asks nothing: they evaluate other members


Formula = bool | Atom | And | Or
Alternative = tuple[Atom, ...]


def veto(blame: str) -> Atom:
    return Atom("veto", None, blame)


def all_of(parts: Iterable[Formula]) -> Formula:
    kept = tuple(part for part in parts if part is not True)
    if False in kept:
        return False
    if len(kept) == 1:
        return kept[0]
    return And(kept) if kept else True


def any_of(parts: Iterable[Formula], blame: str, *, evaluates: bool = False) -> Formula:
    kept = tuple(part for part in parts if part is not False)
    if evaluates and kept:
        return Or(kept, blame, evaluates)
    if True in kept:
        return True
    if not kept:
        return False
    return Or(kept, blame) if len(kept) != 1 else kept[0]


def alternatives(formula: Formula, limit: int, is_possible: Callable[[Alternative], bool]) -> list[Alternative]:
    """The formula as a list of conjunctions of which one must hold. At most `limit`, but for one anyOf of more."""
    if isinstance(formula, bool):
        return [()] if formula else []
    if isinstance(formula, Atom):
        return [(formula,)]
    if isinstance(formula, Or):
        found = [each for part in formula.parts for each in alternatives(part, limit, is_possible)]
        return list(dict.fromkeys(found)) if formula.evaluates else _without_weaker(found)
    whole: list[Alternative] = [()]
    for part in formula.parts:
        options = alternatives(part, limit, is_possible)
        if len(whole) * len(options) > limit and len(options) > 1 and len(whole) > 1:
            options = [(veto(_blame_of(part)),)]
        whole = [_joined(one, other) for one in whole for other in options]
        if len(options) > 1:
            whole = [each for each in whole if is_possible(each)]
    return whole


def _joined(one: Alternative, other: Alternative) -> Alternative:
    return tuple(dict.fromkeys((*one, *other)))


def _without_weaker(found: list[Alternative]) -> list[Alternative]:
    """Each alternative once; only one that asks nothing, where there is one."""
    found = list(dict.fromkeys(found))
    for each in found:
        if all(atom.kind == "veto" for atom in each):
            return [each]
    return found


def _blame_of(formula: Formula) -> str:
    if isinstance(formula, And):
        return next(_blame_of(part) for part in formula.parts if isinstance(part, (Or, And)))
    assert isinstance(formula, Or)
    return formula.blame


def replace_blame(formula: Formula, blame: str) -> Formula:
    """The formula, its disjunctions held by one keyword's veto where they are too many."""
    if isinstance(formula, And):
        return And(tuple(replace_blame(part, blame) for part in formula.parts))
    if isinstance(formula, Or):
        return Or(tuple(replace_blame(part, blame) for part in formula.parts), blame, formula.evaluates)
    return formula


def are_apart(one: dict[str, set[str]], other: dict[str, set[str]]) -> bool:
    """Whether two schemas give a property of one name different values; each: by name, the values that it may have."""
    return any(one[name].isdisjoint(other[name]) for name in one.keys() & other.keys())
