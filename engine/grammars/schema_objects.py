"""Objects: all that is asked of one, as schemas that the grammar library holds."""

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engine.grammars.llguidance_backend import is_satisfiable
from engine.grammars.schema_cases import Case, CaseOf, Wish
from engine.grammars.schema_formats import NAME_FORMATS
from engine.grammars.schema_lengths import with_lengths
from engine.grammars.schema_logic import Literal
from engine.grammars.schema_members import Members, members_of
from engine.grammars.schema_patterns import either, of_length
from engine.grammars.schema_states import ANY, NEVER, State, state_of

MAX_PATTERNS = 40  # of one object that are compared with each other


@dataclass(slots=True)
class _Shape:
    """An object's properties: by name, by pattern, and the others."""

    named: dict[str, State]
    patterns: dict[str, State]
    other: State
    required: list[str]
    groups: dict[str, list[str]]  # of patterns that are put together: the single ones
    has_wishes: bool = False  # for names that the grammar does not show

    def parts(self, pattern: str) -> list[str]:
        return self.groups.get(pattern, [pattern])

    @property
    def has_others(self) -> bool:
        return self.other != NEVER or any(state != NEVER for state in self.patterns.values())


def object_cases(given: CaseOf) -> list[Case]:
    views = [members_of(given.source, atom, given.atoms) for atom in given.atoms_of("members", "unevaluatedProperties")]
    required = list(dict.fromkeys(given.all("required")))
    if {*required} & {*given.all("absent")}:
        return []
    shape = _shape(given, views, required)
    if shape is None or any(shape.named[name] == NEVER for name in required):
        return []
    return _counted(given, shape)


def _shape(given: CaseOf, views: Sequence[Members], required: list[str]) -> _Shape | None:
    names = dict.fromkeys([name for view in views for name in view.named])
    rules = [_NameRule(given, pointer) for pointer in dict.fromkeys(given.all("names"))]
    for rule in rules:
        names |= dict.fromkeys(rule.listed or ())
    names |= dict.fromkeys([*required, *given.all("absent")])
    absent = {*given.all("absent")}
    named = {
        name: NEVER
        if name in absent or not all(rule.accepts(name) for rule in rules)
        else _state(given, [*(each for view in views for each in view.of_name(name)), *_wrong(given, name)])
        for name in names
    }
    groups: dict[str, list[str]] = {}
    shape = _Shape(named, *_unnamed(given, views, groups), required, groups)
    for rule in rules:
        rule.restrict(shape)
    return shape


def _state(given: CaseOf, literals: Sequence[Literal]) -> State:
    return state_of(given.source, literals)


def _wrong(given: CaseOf, name: str) -> list[Literal]:
    return [literal for wanted, literal in given.all("member") if wanted == name]


def _unnamed(
    given: CaseOf, views: Sequence[Members], together_as: dict[str, list[str]]
) -> tuple[dict[str, State], State]:
    """The properties that no name is given for: by pattern, and those that no pattern matches.

    together_as: takes what patterns that overlap are put together as.
    """
    other = _state(given, [each for view in views for each in view.of_class(())])
    patterns = dict.fromkeys(pattern for view in views for pattern in view.patterns)
    groups = _overlapping([each for each in patterns if _asks(given, views, each)])
    found: dict[str, State] = {}
    for group in groups:
        together = dict.fromkeys(
            _state(given, [one for view in views for one in view.of_class(some)])
            for size in range(1, min(len(group), 4) + 1)
            for some in itertools.combinations(group, size)
        )
        if len(together) > 1:
            _hold_by_veto(given, group)
        together.pop(NEVER, None)
        state = State(union=tuple(together)) if len(together) > 1 else next(iter(together), NEVER)
        name = either(group) if len(group) > 1 else group[0]
        found[name], together_as[name] = state, group
    return found, other


def _asks(given: CaseOf, views: Sequence[Members], pattern: str) -> bool:
    """Whether a name is asked something else because it matches the pattern."""
    return any(
        any(_state(given, [each]) != ANY for each in (view.patterns[pattern], view.other) if each is not None)
        for view in views
        if pattern in view.patterns
    )


def _hold_by_veto(given: CaseOf, group: Sequence[str]) -> None:
    for atom in given.atoms_of("members"):
        if not {*group} & given.source[str(atom.value)].get("patternProperties", {}).keys():
            continue
        given.vetoed.append(atom.blame.rpartition("/")[0] + "/patternProperties" if _is_own(atom) else atom.blame)


def _is_own(atom: Any) -> bool:
    return bool(atom.blame.rpartition("/")[0] == atom.value)


def _overlapping(patterns: list[str]) -> list[list[str]]:
    """The patterns in groups; no name matches patterns of two groups."""
    if len(patterns) > MAX_PATTERNS:
        return [patterns]
    groups: list[list[str]] = []
    for pattern in patterns:
        near = [group for group in groups if any(may_both_match(pattern, each) for each in group)]
        groups = [group for group in groups if group not in near]
        groups.append([each for group in near for each in group] + [pattern])
    return groups


def may_both_match(one: str, other: str) -> bool:
    """Whether some string matches both patterns, for all that the grammar library knows."""
    strings = [{"type": "string", "pattern": pattern} for pattern in (one, other)]
    return is_satisfiable(json.dumps({"allOf": strings}))


class _NameRule:
    """What a propertyNames asks of an object's names."""

    def __init__(self, given: CaseOf, pointer: str) -> None:
        self._given = given
        self._atom = next(atom for atom in given.atoms if atom.kind == "names" and atom.value == pointer)
        self.cases = given.string_cases(pointer)
        self.listed = self.cases[0].schema["enum"] if len(self.cases) == 1 and "enum" in self.cases[0].schema else None

    def accepts(self, name: str) -> bool:
        return self._given.is_valid(str(self._atom.value), name)

    def restrict(self, shape: _Shape) -> None:
        """Let properties that are not named have such names only; by veto, where no single pattern says it."""
        if not self.cases or self.listed is not None:
            shape.patterns, shape.other = {}, NEVER
            return
        pattern = self._pattern()
        is_held = pattern is not None and (pattern == "" or not shape.patterns)
        pattern = self._wider_pattern() if pattern is None else pattern
        if pattern and not shape.patterns and shape.other != NEVER:
            shape.patterns, shape.other = {pattern: shape.other}, NEVER
            self._note(pattern)
        vetoed = [pointer for case in self.cases for pointer in case.vetoed]
        if vetoed or not is_held:
            self._given.vetoed += [*([] if is_held else [self._atom.blame]), *vetoed]
            self._wish(shape)

    def _note(self, pattern: str) -> None:
        """Say what of a format cannot be a name."""
        for own in NAME_FORMATS.values():
            if own.pattern == pattern:
                self._given.narrowed(self._given.path_of(self._atom.blame), own.narrowing)

    def _wish(self, shape: _Shape) -> None:
        """Names that this takes, where the grammar does not show them."""
        schemas = [case.schema for case in self.cases]
        names = json.dumps(schemas[0] if len(schemas) == 1 else {"anyOf": schemas})
        self._given.wishes.append(Wish(self._atom.blame, max(self._given.most("minProperties"), 1), names=names))
        shape.has_wishes = True

    def _pattern(self) -> str | None:
        """All that the grammar is to hold; "" where any name will do; None where no single pattern says it."""
        if len(self.cases) != 1 or self.cases[0].schema.keys() - {
            "type",
            "pattern",
            "format",
            "minLength",
            "maxLength",
        }:
            return None
        schema = self.cases[0].schema
        low, high = schema.get("minLength", 0), schema.get("maxLength")
        is_bounded = low > 0 or high is not None
        if "pattern" not in schema and "format" not in schema:
            return of_length(low, high) if is_bounded else ""
        pattern = _name_pattern(schema)
        return with_lengths(pattern, low, high) if pattern and is_bounded else pattern

    def _wider_pattern(self) -> str | None:
        """One of several things that are asked; of a format's pattern, which admits less, only where it is alone."""
        if len(self.cases) != 1:
            return None
        rules = self.cases[0].schema.get("allOf", [self.cases[0].schema])
        rules = [rule for rule in rules if len(rules) == 1 or "format" not in rule]
        return next(filter(None, map(_name_pattern, rules)), None)


def _name_pattern(schema: Mapping[str, Any]) -> str | None:
    own = NAME_FORMATS.get(schema.get("format", ""))
    return own.pattern if own is not None else schema.get("pattern")


def _counted(given: CaseOf, shape: _Shape) -> list[Case]:
    """One case for each way in which the object has neither too many properties nor too few."""
    low = given.most("minProperties") - len(shape.required)
    high = given.least("maxProperties")
    most = None if high is None else high - len(shape.required)
    if most is not None and (most < 0 or low > most):
        return []
    optional = [name for name, state in shape.named.items() if state != NEVER and name not in shape.required]
    if not shape.has_others:
        if low > len(optional):
            return []
        most = None if most is not None and most >= len(optional) else most
    if low <= 0 and most is None:
        return [_case(given, shape, ((), (), 0, None))]
    ways = list(itertools.islice(_ways(optional, max(low, 0), most, shape), given.limits.max_alternatives + 1))
    if len(ways) > given.limits.max_alternatives:
        given.vetoed += [atom.blame for atom in given.atoms_of("minProperties", "maxProperties")]
        return [_case(given, shape, ((), (), 0, None))]
    if low > 1 and shape.has_others:  # of two unnamed properties, the second may have the first one's name
        given.vetoed += [atom.blame for atom in given.atoms_of("minProperties")]
        if not shape.has_wishes:
            _wish_names(given, shape)
    return [_case(given, shape, way) for way in ways]


def _wish_names(given: CaseOf, shape: _Shape) -> None:
    """Names that differ from each other."""
    patterns = [each for pattern, state in shape.patterns.items() if state != NEVER for each in shape.parts(pattern)]
    count = given.most("minProperties")
    for atom in given.atoms_of("minProperties"):
        for more in [{}] if shape.other != NEVER else [{"pattern": each} for each in patterns]:
            given.wishes.append(Wish(atom.blame, count, names=json.dumps({"type": "string", **more})))


Way = tuple[tuple[str, ...], tuple[str, ...], int, int | None]


def _ways(optional: Sequence[str], low: int, most: int | None, shape: _Shape) -> Iterator[Way]:
    """Which optional names are there, which are not, and how many other properties there are."""
    if most is not None:
        for size in range(min(most, len(optional)) + 1):
            if size < low and not shape.has_others:
                continue
            for there in itertools.combinations(optional, size):
                gone = tuple(name for name in optional if name not in there)
                yield there, gone, max(0, low - size), most - size
        return
    for size in range(min(low, len(optional)) + 1):
        if size < low and not shape.has_others:
            continue
        for first in itertools.combinations(range(len(optional)), size):
            there = tuple(optional[position] for position in first)
            # The first ones that are there: none stands before or between them; where they suffice, others may follow.
            end = (first[-1] + 1 if first else 0) if size == low else len(optional)
            yield there, tuple(name for name in optional[:end] if name not in there), low - size, None


def _case(given: CaseOf, shape: _Shape, way: Way) -> Case:
    there, gone, low, most = way
    required = [*shape.required, *there]
    named = {name: NEVER if name in gone else state for name, state in shape.named.items()}
    schema: dict[str, Any] = {"type": "object"} | ({"properties": named} if named else {})
    if any(state != NEVER for state in shape.patterns.values()) or shape.other != NEVER:
        schema |= {"patternProperties": dict(shape.patterns)} if shape.patterns else {}
    schema["additionalProperties"] = shape.other
    schema |= {"required": required} if required else {}
    needs = [named[name] for name in required]
    if low:
        schema["minProperties"] = low + len(required)
        needs += [shape.other] if not shape.patterns else []
    if most is not None and shape.has_others:
        schema["maxProperties"] = most + len(required)
        optional = [name for name, state in named.items() if state != NEVER and name not in required]
        assert not optional
    return given.case(schema, list(dict.fromkeys(needs)))
