"""What several schemas say of an object's properties and an array's items, put together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engine.grammars.schema_logic import Atom, Literal
from engine.grammars.schema_patterns import matches, matches_all
from engine.grammars.schema_walk import child_pointer
from engine.types import JsonObject


@dataclass(frozen=True, slots=True)
class Members:
    """What one schema says of an object's properties."""

    named: Mapping[str, Literal | None]  # None: anything
    patterns: Mapping[str, Literal | None]
    always: tuple[Literal, ...] = ()  # of every property, whatever its name
    other: Literal | None = None  # of those that are neither named nor matched

    def of_name(self, name: str) -> list[Literal]:
        found = [self.named[name]] if name in self.named else []
        found += [literal for pattern, literal in self.patterns.items() if matches(pattern, name)]
        return [*self.always, *(each for each in found or [self.other] if each is not None)]

    def of_class(self, patterns: Sequence[str]) -> list[Literal]:
        """Of the names that match these patterns, of all that any schema here has, and are named nowhere."""
        found = [self.patterns[pattern] for pattern in patterns if pattern in self.patterns]
        return [*self.always, *(each for each in found or [self.other] if each is not None)]


def members_of(source: Mapping[str, Any], atom: Atom, around: Sequence[Atom]) -> Members:
    """atom: of kind members or unevaluatedProperties. around: the atoms of the same value."""
    schema = source[str(atom.value)]
    if atom.kind == "members":
        return _written(schema, atom)
    seen = [source[str(each.value)] for each in around if each.kind == "members" and atom.value in each.scopes]
    names = {name: None for each in seen for name in each.get("properties", {})}
    patterns = {pattern: None for each in seen for pattern in each.get("patternProperties", {})}
    if any("additionalProperties" in each for each in seen) or _inner_unevaluated(atom, around):
        return Members(names, patterns)
    if any(map(matches_all, patterns)):
        return Members(names, {})
    return Members(names, patterns, other=_literal(atom, "unevaluatedProperties"))


def _inner_unevaluated(atom: Atom, around: Sequence[Atom]) -> bool:
    """Whether a schema further inside evaluates all that is left."""
    return any(each.kind == atom.kind and each.value != atom.value and atom.value in each.scopes for each in around)


def _literal(atom: Atom, *keys: str) -> Literal:
    pointer = str(atom.value)
    for key in keys:
        pointer = child_pointer(pointer, key)
    is_own = atom.blame.rpartition("/")[0] == atom.value
    return Literal(pointer, blame=None if is_own else atom.blame)


def _written(schema: JsonObject, atom: Atom) -> Members:
    named = {name: _literal(atom, "properties", name) for name in schema.get("properties", {})}
    patterns = {each: _literal(atom, "patternProperties", each) for each in schema.get("patternProperties", {})}
    always = tuple(literal for pattern, literal in patterns.items() if matches_all(pattern))
    some = {pattern: literal for pattern, literal in patterns.items() if not matches_all(pattern)}
    has_other = "additionalProperties" in schema and not always
    return Members(named, some, always, _literal(atom, "additionalProperties") if has_other else None)


@dataclass(frozen=True, slots=True)
class Items:
    """What one schema says of an array's items."""

    first: tuple[Literal | None, ...]  # by position; None: anything
    rest: Literal | None = None

    def at(self, position: int) -> Literal | None:
        return self.first[position] if position < len(self.first) else self.rest


def items_of(source: Mapping[str, Any], atom: Atom, around: Sequence[Atom]) -> Items:
    """atom: of kind items, "every item", item or unevaluatedItems. around: the atoms of the same value."""
    if atom.kind == "every item":
        assert isinstance(atom.value, Literal)
        return Items((), atom.value)
    if atom.kind == "item":
        assert isinstance(atom.value, tuple)
        position, literal = atom.value
        return Items((*[None] * position, literal))
    schema = source[str(atom.value)]
    if atom.kind == "items":
        first = [_literal(atom, "prefixItems", str(each)) for each in range(len(schema.get("prefixItems", ())))]
        return Items(tuple(first), _literal(atom, "items") if "items" in schema else None)
    seen = [source[str(each.value)] for each in around if each.kind == "items" and atom.value in each.scopes]
    if any("items" in each for each in seen) or _inner_unevaluated(atom, around):
        return Items(())
    num_seen = max((len(each.get("prefixItems", ())) for each in seen), default=0)
    return Items((None,) * num_seen, _literal(atom, "unevaluatedItems"))


def contains_in_scope(atom: Atom, around: Sequence[Atom]) -> bool:
    """Whether items that a `contains` found are evaluated: which they are, only the value tells."""
    return any(each.kind == "contains" and atom.value in each.scopes for each in around)
