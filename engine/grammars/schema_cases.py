"""Cases: what the values of one type may be, all that is asked of them put together.

A case is a schema that the grammar library holds, with states in place of the schemas inside it.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from engine.events import Enforcement, ReceiptEntry
from engine.grammars.llguidance_backend import is_satisfiable, is_too_complex
from engine.grammars.schema_formats import LIBRARY_FORMATS, OWN_FORMATS
from engine.grammars.schema_limits import SchemaLimits
from engine.grammars.schema_literals import is_whole, kind_of, values_of
from engine.grammars.schema_logic import Alternative, Atom, Literal
from engine.grammars.schema_members import contains_in_scope, items_of
from engine.grammars.schema_numbers import MAX_EXCLUDED as MAX_EXCLUDED_NUMBERS
from engine.grammars.schema_numbers import decimal_step, is_multiple_too_large, range_schemas
from engine.grammars.schema_patterns import all_but
from engine.grammars.schema_states import NEVER, State, state_of

MAX_EXCLUDED = 2_000  # characters of the strings that one string must not be


class Wish(NamedTuple):
    """Values that are worth to know where a keyword is left to the veto."""

    keyword: str  # its pointer
    num_values: int
    state: State = State()  # of items
    names: str | None = None  # a schema of an object's names, as JSON text; None: they are items


@dataclass(slots=True)
class Case:
    """schema: states stand where it holds schemas. needs: what each value of it has inside."""

    schema: dict[str, Any]
    needs: tuple[State, ...] = ()
    vetoed: tuple[str, ...] = ()  # pointers of the keywords that it does not hold
    entries: tuple[ReceiptEntry, ...] = ()
    wishes: tuple[Wish, ...] = ()


@dataclass(slots=True)
class CaseOf:
    """All that is known where one case is built."""

    source: Mapping[str, Any]
    atoms: Alternative
    path: str  # the caller's, of the value
    path_of: Callable[[str], str]
    accepts: Callable[[Any], bool]  # whether a value satisfies all that is asked here, as a validator says
    limits: SchemaLimits
    string_cases: Callable[[str], list["Case"]]  # what the strings may be that satisfy the schema at a pointer
    is_valid: Callable[[str, Any], bool]  # whether the schema at a pointer takes a value
    vetoed: list[str] = field(default_factory=list)
    entries: list[ReceiptEntry] = field(default_factory=list)
    wishes: list[Wish] = field(default_factory=list)

    def all(self, kind: str) -> list[Any]:
        return [atom.value for atom in self.atoms if atom.kind == kind]

    def atoms_of(self, *kinds: str) -> list[Atom]:
        return [atom for atom in self.atoms if atom.kind in kinds]

    def narrowed(self, path: str, detail: str) -> None:
        self.entries.append(ReceiptEntry(path, Enforcement.NARROWED, detail))

    def least(self, kind: str) -> int | None:
        return min(self.all(kind), default=None)

    def most(self, kind: str) -> int:
        return max(self.all(kind), default=0)

    def case(self, schema: dict[str, Any], needs: Sequence[State] = ()) -> Case:
        vetoed = [atom.blame for atom in self.atoms_of("veto")]
        return Case(
            schema, tuple(needs), tuple(dict.fromkeys(vetoed + self.vetoed)), tuple(self.entries), tuple(self.wishes)
        )

    def values_at(self, atom: Atom) -> list[Any]:
        holder, _, keyword = str(atom.value).rpartition("/")
        return values_of(self.source[holder], keyword)

    def listed(self, kind: str) -> list[Any] | None:
        """The values of this type, where they are listed."""
        lists = self.atoms_of("values")
        if not lists:
            return None
        shortest = min((self.values_at(atom) for atom in lists), key=len)
        return [value for value in shortest if kind_of(value) == kind and self.accepts(value)]

    def excluded(self) -> list[Any]:
        return [value for atom in self.atoms_of("not values") for value in self.values_at(atom)]


def null_cases(given: CaseOf) -> list[Case]:
    return [given.case({"type": "null"})]


def boolean_cases(given: CaseOf) -> list[Case]:
    left = [value for value in (True, False) if all(value is not other for other in given.excluded())]
    if len(left) == 1:
        return [given.case({"enum": left})]
    return [given.case({"type": "boolean"})] if left else []


def number_cases(given: CaseOf) -> list[Case]:
    excluded = [value for value in given.excluded() if kind_of(value) == "number"]
    if given.all("integer") and given.all("not integer"):
        return []
    given.vetoed += [atom.blame for atom in given.atoms_of("not integer")]
    if len({*excluded}) > MAX_EXCLUDED_NUMBERS:
        given.vetoed += [atom.blame for atom in given.atoms_of("not values")]
    atoms = given.atoms
    if is_multiple_too_large(atoms):
        multiples = given.atoms_of("multipleOf")
        given.vetoed += [atom.blame for atom in multiples]
        atoms = tuple(atom for atom in atoms if atom.kind != "multipleOf")
        atoms += tuple(Atom("integer", None, atom.blame) for atom in multiples if is_whole(atom.value))
        fractions = [atom for atom in multiples if not is_whole(atom.value)]
        finer = tuple(Atom("multipleOf", decimal_step(atom.value), atom.blame) for atom in fractions)
        atoms += () if is_multiple_too_large(atoms + finer) else finer
    schemas = range_schemas(atoms, excluded, given.path, given.path_of, given.entries.append)
    return [given.case({**schema}) for schema in schemas]


def string_cases(given: CaseOf) -> list[Case]:
    low, high = given.most("minLength"), given.least("maxLength")
    rules: list[dict[str, Any]] = [{"pattern": each} for each in dict.fromkeys(given.all("pattern"))]
    rules += _exclusions(given)
    formats, longest = _formats(given, is_alone=not rules)
    rules = formats + rules
    if high is not None and high > given.limits.max_length:
        given.vetoed += [atom.blame for atom in given.atoms_of("maxLength")]
        high = None
    if longest is not None:
        high = longest if high is None else min(high, longest)
    if high is not None and low > high:
        return []
    rules = [rule for position, rule in enumerate(rules) if rule not in rules[:position]]
    schema = _string_schema(rules, low, high)
    if len(rules) > 1 and is_too_complex(json.dumps(schema)):
        schema = _simpler(given, rules)
    if len(rules) > 1 and not is_satisfiable(json.dumps(schema)):
        return []
    return [given.case(schema)]


def _formats(given: CaseOf, *, is_alone: bool) -> tuple[list[dict[str, Any]], int | None]:
    """The formats' rules, and how long they let the string be. is_alone: whether no patterns stand beside them."""
    rules: list[dict[str, Any]] = []
    longest: list[int] = []
    is_alone &= len({*given.all("format")}) < 2
    for atom in given.atoms_of("format"):
        if atom.value in LIBRARY_FORMATS:
            rules.append({"format": atom.value})
            continue
        own = OWN_FORMATS[str(atom.value)]
        given.narrowed(given.path_of(atom.blame), own.narrowing)
        if own.uncounted is not None and not is_alone:
            rules.append({"pattern": own.uncounted})
            given.vetoed.append(atom.blame)
            continue
        rules.append({"pattern": own.pattern})
        longest += [own.max_length] if own.max_length else []
    return rules, min(longest, default=None)


def _string_schema(rules: Sequence[Mapping[str, Any]], low: int, high: int | None) -> dict[str, Any]:
    first, *others = rules or [{}]
    schema: dict[str, Any] = {"type": "string"}
    schema |= ({"minLength": low} if low else {}) | ({} if high is None else {"maxLength": high}) | dict(first)
    return {"allOf": [schema, *({"type": "string", **rule} for rule in others)]} if others else schema


def _simpler(given: CaseOf, rules: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The grammar of strings whose rules are too complex together: the veto holds lengths, then all but one rule."""
    given.vetoed += [atom.blame for atom in given.atoms_of("minLength", "maxLength")]
    schema = _string_schema(rules, 0, None)
    if not is_too_complex(json.dumps(schema)):
        return schema
    given.vetoed += [atom.blame for atom in given.atoms_of("format", "pattern", "not values")]
    return _string_schema(rules[:1], 0, None)


def _exclusions(given: CaseOf) -> list[dict[str, Any]]:
    excluded = frozenset(value for value in given.excluded() if isinstance(value, str))
    if sum(map(len, excluded)) > MAX_EXCLUDED:
        given.vetoed += [atom.blame for atom in given.atoms_of("not values")]
        return []
    return [{"pattern": all_but(excluded)}] if excluded else []


def array_cases(given: CaseOf) -> list[Case]:
    views = []
    for atom in given.atoms_of("items", "every item", "item", "unevaluatedItems"):
        if atom.kind == "unevaluatedItems" and contains_in_scope(atom, given.atoms):
            given.vetoed.append(atom.blame)
            continue
        views.append(items_of(given.source, atom, given.atoms))
    low, high = given.most("minItems"), given.least("maxItems")
    if high is not None and high > given.limits.max_items:
        high = given.limits.max_items
        given.narrowed(given.path, f"maxItems moved to {high}")
    num_first = max((len(view.first) for view in views), default=0)
    places = [
        state_of(given.source, (each for view in views if (each := view.at(position)) is not None))
        for position in range(num_first + 1)
    ]
    high = _unique(given, places, high)
    _wish_items(given, places if high is None else places[: max(high, 1)], low)
    return _array_of(given, places, low, high)


def _unique(given: CaseOf, places: list[State], high: int | None) -> int | None:
    """The greatest number of items; leaves it to the veto that they differ, where there may be two."""
    if not given.all("uniqueItems") or (high is not None and high <= 1):
        return high
    given.vetoed += [atom.blame for atom in given.atoms_of("uniqueItems")]
    if len(places) > 1 or len(places[0].literals) != 1 or places[0].literals[0].negated:
        return high
    schema = given.source[places[0].literals[0].pointer] if places[0] != NEVER else {}
    num_values = len(schema["enum"]) if isinstance(schema, dict) and "enum" in schema else None
    return high if num_values is None else min(num_values, num_values if high is None else high)


def _wish_items(given: CaseOf, places: list[State], low: int) -> None:
    """Items that a `contains` finds, and such as differ from each other."""
    items = [place for place in dict.fromkeys(places) if place != NEVER]
    for atom in given.atoms_of("contains"):
        assert isinstance(atom.value, tuple)
        pointer, num_values = atom.value
        for item in items if num_values else ():
            wanted = state_of(given.source, [*item.literals, Literal(pointer, blame=atom.blame)])
            given.wishes.append(Wish(pointer, num_values, wanted))
    for atom in given.atoms_of("uniqueItems") if low > 1 else ():
        given.wishes += [Wish(atom.blame, low, item) for item in items]


def _array_of(given: CaseOf, places: list[State], low: int, high: int | None) -> list[Case]:
    *first, rest = places
    ends = [position for position, place in enumerate(places) if place == NEVER]
    if ends:
        high = min([*ends, *([] if high is None else [high])])
    if high is not None and low > high:
        return []
    first = first if high is None else first[:high]
    schema: dict[str, Any] = {"type": "array"} | ({"prefixItems": first} if first else {})
    if rest == NEVER or (high is not None and high <= len(first)):
        schema["items"] = NEVER
    elif rest != State():
        schema["items"] = rest
    else:
        schema["items"] = State()
    schema |= ({"minItems": low} if low else {}) | ({} if high is None else {"maxItems": high})
    needs = [*first, *[rest] * (low - len(first))][:low] if low else []
    return [given.case(schema, list(dict.fromkeys(needs)))]
