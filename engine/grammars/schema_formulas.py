"""What a schema asks of the values of one type, as a formula.

`not`, `if`, `oneOf` and the like are resolved here: a negation is pushed inward until it stands at a keyword whose
opposite can be said. What cannot be said becomes a veto.
"""

import itertools
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from engine.grammars.schema_keywords import ITEMS, MEMBERS, OPPOSITES, TYPE_OF
from engine.grammars.schema_literals import is_exact, kind_of, values_of
from engine.grammars.schema_logic import And, Atom, Formula, Literal, all_of, any_of, are_apart, replace_blame, veto
from engine.grammars.schema_references import pointer_of
from engine.grammars.schema_walk import child_pointer, refusal, words
from engine.types import JsonObject

MAX_BRANCHES = 64  # of a oneOf that are compared with each other
MAX_FOLLOWED = 60  # references from one to the next, without a step into the value
MAX_NEGATED_ONE_OF = 8  # branches of a oneOf whose opposite is written out
MAX_EVALUATED_TOGETHER = 4  # branches of an anyOf of which every combination is written out


@dataclass(frozen=True, slots=True)
class _Asked:
    """Of what is asked: values of one type, by the schema at a pointer."""

    pointer: str
    kind: str
    blame: str | None = None
    scopes: tuple[str, ...] = ()

    def blame_for(self, keyword: str) -> str:
        return child_pointer(self.pointer, keyword) if self.blame is None else self.blame

    def atom(self, keyword: str, kind: str, value: Hashable) -> Atom:
        return Atom(kind, value, self.blame_for(keyword), self.scopes)

    def inside(self, *keys: str | int) -> "_Asked":
        pointer = self.pointer
        for key in keys:
            pointer = child_pointer(pointer, key)
        return replace(self, pointer=pointer)

    def opposed(self, keyword: str) -> "_Asked":
        """The same, as seen from inside a negation: its annotations do not count."""
        return replace(self, blame=self.blame_for(keyword), scopes=())


@dataclass(slots=True)
class Formulas:
    """The formulas of one source."""

    source: Mapping[str, Any]
    meet: Callable[[Formula, str], bool]  # whether some value of the type may satisfy the formula
    path_of: Callable[[str], str]
    path: str
    _known: dict[tuple[Literal, str], Formula] = field(default_factory=dict)
    _active: set[tuple[str, bool]] = field(default_factory=set)  # references that are being followed

    def of(self, literal: Literal, kind: str) -> Formula:
        if (literal, kind) not in self._known:
            outer, self._active = self._active, set()
            asked = _Asked(literal.pointer, kind, literal.blame)
            self._known[literal, kind] = self.opposite(asked) if literal.negated else self.of_schema(asked)
            self._active = outer
        return self._known[literal, kind]

    def of_schema(self, asked: _Asked) -> Formula:
        schema = self.source[asked.pointer]
        if isinstance(schema, bool):
            return schema
        if "type" in schema and self.type(schema, asked) is False:
            return False
        if "unevaluatedProperties" in schema or "unevaluatedItems" in schema:
            asked = replace(asked, scopes=(*asked.scopes, asked.pointer))
        parts: dict[str, Formula] = {}
        for keyword in sorted(schema, key=lambda keyword: keyword in ("oneOf", "if")):
            parts[keyword] = self.positive(schema, keyword, asked, parts)
            if parts[keyword] is False:
                return False
        return all_of(parts[keyword] for keyword in schema)

    def opposite(self, asked: _Asked) -> Formula:
        schema = self.source[asked.pointer]
        if isinstance(schema, bool):
            return not schema
        blame = asked.blame or asked.pointer
        return any_of((self.negative(schema, keyword, asked) for keyword in schema), blame)

    def positive(self, schema: JsonObject, keyword: str, asked: _Asked, siblings: Mapping[str, Formula]) -> Formula:
        if keyword == "oneOf":
            return self.one_of(schema["oneOf"], asked, all_of(siblings.values()))
        if keyword in POSITIVE and TYPE_OF.get(keyword, asked.kind) == asked.kind:
            return POSITIVE[keyword](self, schema, asked)
        if TYPE_OF.get(keyword) != asked.kind or (keyword == "uniqueItems" and not schema[keyword]):
            return True
        return asked.atom(keyword, keyword, schema[keyword])

    def negative(self, schema: JsonObject, keyword: str, asked: _Asked) -> Formula:
        if keyword in NEGATIVE and TYPE_OF.get(keyword, asked.kind) == asked.kind:
            return NEGATIVE[keyword](self, schema, asked)
        if TYPE_OF.get(keyword) != asked.kind:
            return False
        if keyword not in OPPOSITES:
            return veto(asked.blame_for(keyword))
        kind, step = OPPOSITES[keyword]
        value = schema[keyword] + step
        return asked.atom(keyword, kind, value) if value >= 0 or not step else False

    # --- Of any type

    def type(self, schema: JsonObject, asked: _Asked) -> Formula:
        types = [schema["type"]] if isinstance(schema["type"], str) else schema["type"]
        if asked.kind in types:
            return True
        return asked.atom("type", "integer", None) if asked.kind == "number" and "integer" in types else False

    def not_type(self, schema: JsonObject, asked: _Asked) -> Formula:
        formula = self.type(schema, asked)
        return asked.atom("type", "not integer", None) if isinstance(formula, Atom) else not formula

    def values(self, schema: JsonObject, asked: _Asked) -> Formula:
        found: list[Formula] = []
        for keyword in words("const enum") & schema.keys():
            if not any(kind_of(value) == asked.kind for value in values_of(schema, keyword)):
                return False
            found.append(self.one_of_values(keyword, schema, asked))
        return all_of(found)

    def one_of_values(self, keyword: str, schema: JsonObject, asked: _Asked) -> Formula:
        same = [value for value in values_of(schema, keyword) if kind_of(value) == asked.kind]
        if all(map(is_exact, same)):
            return asked.atom(keyword, "values", child_pointer(asked.pointer, keyword))
        is_whole = asked.kind == "number" and all(value % 1 == 0 for value in same)
        return all_of([veto(asked.blame_for(keyword)), asked.atom(keyword, "integer", None) if is_whole else True])

    def not_values(self, keyword: str, schema: JsonObject, asked: _Asked) -> Formula:
        same = [value for value in values_of(schema, keyword) if kind_of(value) == asked.kind]
        if not same:
            return True
        if asked.kind == "null":
            return False
        if asked.kind in ("boolean", "number", "string") and all(map(is_exact, same)):
            return asked.atom(keyword, "not values", child_pointer(asked.pointer, keyword))
        if same in ([[]], [{}]):
            return asked.atom(keyword, "minItems" if same == [[]] else "minProperties", 1)
        return veto(asked.blame_for(keyword))

    def reference(self, schema: JsonObject, asked: _Asked) -> Formula:
        return self.followed(schema, asked, negated=False)

    def not_reference(self, schema: JsonObject, asked: _Asked) -> Formula:
        return self.followed(schema, asked, negated=True)

    def followed(self, schema: JsonObject, asked: _Asked, *, negated: bool) -> Formula:
        target = pointer_of(schema["$ref"])
        if (target, negated) in self._active or (target, not negated) in self._active:
            where = self.path_of(child_pointer(asked.pointer, "$ref"))
            raise refusal(where, f"{schema['$ref']!r} leads on without end: what it asks for is not decided")
        if len(self._active) > MAX_FOLLOWED:
            raise refusal(self.path, f"more than {MAX_FOLLOWED} references in a row speak of one value")
        self._active.add((target, negated))
        inner = replace(asked, pointer=target)
        formula = self.opposite(inner) if negated else self.of_schema(inner)
        self._active.discard((target, negated))
        return formula

    def branches(self, schema: JsonObject, keyword: str, asked: _Asked) -> list[_Asked]:
        return [asked.inside(keyword, position) for position in range(len(schema[keyword]))]

    def every(self, schema: JsonObject, asked: _Asked) -> Formula:
        return all_of(self.of_schema(each) for each in self.branches(schema, "allOf", asked))

    def not_every(self, schema: JsonObject, asked: _Asked) -> Formula:
        branches = self.branches(schema, "allOf", asked)
        return any_of((self.opposite(each) for each in branches), asked.blame_for("allOf"))

    def some(self, schema: JsonObject, asked: _Asked) -> Formula:
        branches = [self.of_schema(each) for each in self.branches(schema, "anyOf", asked)]
        if asked.scopes and len(branches) <= MAX_EVALUATED_TOGETHER:
            # What several branches evaluate, where a value satisfies several.
            sizes = range(len(branches), 0, -1)
            branches = [all_of(some) for size in sizes for some in itertools.combinations(branches, size)]
        return any_of(branches, asked.blame_for("anyOf"), evaluates=bool(asked.scopes))

    def not_some(self, schema: JsonObject, asked: _Asked) -> Formula:
        return all_of(self.opposite(each) for each in self.branches(schema, "anyOf", asked))

    def one_of(self, branches: list[Any], asked: _Asked, siblings: Formula) -> Formula:
        inner = [asked.inside("oneOf", position) for position in range(len(branches))]
        formulas = {each: formula for each in inner if (formula := self.of_schema(each)) is not False}
        blame = asked.blame_for("oneOf")
        if len(formulas) > MAX_BRANCHES:
            return all_of([any_of(formulas.values(), blame), veto(blame)])
        opposed = {each: self.opposite(replace(each, blame=blame, scopes=())) for each in formulas}
        tags = {each: self.tags(formula) for each, formula in formulas.items()}
        parts = []
        for each, formula in formulas.items():
            alone = all_of([siblings, formula])
            near = [other for other in formulas if other != each and not are_apart(tags[each], tags[other])]
            others = [opposed[other] for other in near if self.meet(all_of([alone, formulas[other]]), asked.kind)]
            parts.append(all_of([formula, *(replace_blame(other, blame) for other in others)]))
        return any_of(parts, blame)

    def tags(self, formula: Formula) -> dict[str, set[str]]:
        """The properties that must be there and may have a few values only, as text; as far as is seen at a glance."""
        atoms = [part for part in (formula.parts if isinstance(formula, And) else [formula]) if isinstance(part, Atom)]
        for part in formula.parts if isinstance(formula, And) else ():
            atoms += [each for each in part.parts if isinstance(each, Atom)] if isinstance(part, And) else []
        required = {str(atom.value) for atom in atoms if atom.kind == "required"}
        found: dict[str, set[str]] = {}
        for atom in atoms:
            properties = self.source[str(atom.value)].get("properties", {}) if atom.kind == "members" else {}
            for name in required & properties.keys():
                each = properties[name] if isinstance(properties[name], dict) else {}
                listed = [value for keyword in words("const enum") & each.keys() for value in values_of(each, keyword)]
                if listed and all(isinstance(value, str) for value in listed):
                    found[name] = set(listed)
        return found

    def not_one_of(self, schema: JsonObject, asked: _Asked) -> Formula:
        branches = self.branches(schema, "oneOf", asked)
        blame = asked.blame_for("oneOf")
        if len(branches) > MAX_NEGATED_ONE_OF:
            return veto(blame)
        none = all_of(self.opposite(each) for each in branches)
        formulas = [self.of_schema(replace(each, scopes=(), blame=blame)) for each in branches]
        pairs = [all_of([one, other]) for place, one in enumerate(formulas) for other in formulas[place + 1 :]]
        return any_of([none, *pairs], blame)

    def negation(self, _schema: JsonObject, asked: _Asked) -> Formula:
        return self.opposite(asked.opposed("not").inside("not"))

    def not_negation(self, _schema: JsonObject, asked: _Asked) -> Formula:
        return self.of_schema(asked.opposed("not").inside("not"))

    def condition(self, schema: JsonObject, asked: _Asked) -> Formula:
        return self.conditional(schema, asked, self.of_schema)

    def not_condition(self, schema: JsonObject, asked: _Asked) -> Formula:
        return self.conditional(schema, asked, self.opposite)

    def conditional(self, schema: JsonObject, asked: _Asked, sense: Callable[[_Asked], Formula]) -> Formula:
        nothing_said = sense == self.of_schema
        if not {"then", "else"} & schema.keys() and not asked.scopes:
            return nothing_said
        met = self.of_schema(replace(asked, blame=asked.blame_for("if")).inside("if"))
        unmet = self.opposite(asked.opposed("if").inside("if"))
        then = sense(asked.inside("then")) if "then" in schema else nothing_said
        other = sense(asked.inside("else")) if "else" in schema else nothing_said
        ways = [all_of([met, then]), all_of([unmet, other])]
        return any_of(ways, asked.blame_for("if"), evaluates=bool(asked.scopes))

    # --- Of arrays

    def items(self, schema: JsonObject, asked: _Asked) -> Formula:
        return asked.atom("items" if "items" in schema else "prefixItems", "items", asked.pointer)

    def not_prefix(self, schema: JsonObject, asked: _Asked) -> Formula:
        ways = []
        for position in range(len(schema["prefixItems"])):
            wrong = Literal(asked.inside("prefixItems", position).pointer, True, asked.blame_for("prefixItems"))
            there = asked.atom("prefixItems", "minItems", position + 1)
            ways.append(all_of([there, asked.atom("prefixItems", "item", (position, wrong))]))
        return any_of(ways, asked.blame_for("prefixItems"))

    def not_items(self, schema: JsonObject, asked: _Asked) -> Formula:
        if schema["items"] in (True, {}):
            return False
        more = asked.atom("items", "minItems", len(schema.get("prefixItems", ())) + 1)
        return more if schema["items"] is False else all_of([more, veto(asked.blame_for("items"))])

    def contained(self, schema: JsonObject, asked: _Asked) -> Formula:
        low, high = schema.get("minContains", 1), schema.get("maxContains")
        found: list[Formula] = [asked.atom("contains", "minItems", low)]
        if high == 0 and low == 0:
            wrong = Literal(asked.inside("contains").pointer, True, asked.blame_for("contains"))
            return asked.atom("contains", "every item", wrong)
        if high is not None and low > high:
            return False
        if schema["contains"] in (True, {}):
            return all_of([*found, True if high is None else asked.atom("contains", "maxItems", high)])
        if low or high is not None:
            found += [veto(asked.blame_for(each)) for each in ("contains", "maxContains") if each in schema]
        return all_of([*found, asked.atom("contains", "contains", (asked.inside("contains").pointer, low))])

    def not_contained(self, schema: JsonObject, asked: _Asked) -> Formula:
        low, high = schema.get("minContains", 1), schema.get("maxContains")
        if low == 0 and high is None:
            return False
        if low == 1 and high is None:
            wrong = Literal(asked.inside("contains").pointer, True, asked.blame_for("contains"))
            return asked.atom("contains", "every item", wrong)
        return veto(asked.blame_for("contains"))

    def not_unique(self, schema: JsonObject, asked: _Asked) -> Formula:
        if not schema["uniqueItems"]:
            return False
        return all_of([asked.atom("uniqueItems", "minItems", 2), veto(asked.blame_for("uniqueItems"))])

    # --- Of objects

    def members(self, schema: JsonObject, asked: _Asked) -> Formula:
        keyword = next(keyword for keyword in schema if keyword in MEMBERS)
        return asked.atom(keyword, "members", asked.pointer)

    def required(self, schema: JsonObject, asked: _Asked) -> Formula:
        return all_of(asked.atom("required", "required", name) for name in schema["required"])

    def not_required(self, schema: JsonObject, asked: _Asked) -> Formula:
        absent = (asked.atom("required", "absent", name) for name in schema["required"])
        return any_of(absent, asked.blame_for("required"))

    def not_properties(self, schema: JsonObject, asked: _Asked) -> Formula:
        ways = []
        for name, each in schema["properties"].items():
            if each not in (True, {}):
                wrong = Literal(asked.inside("properties", name).pointer, True, asked.blame_for("properties"))
                there = asked.atom("properties", "required", name)
                ways.append(all_of([there, asked.atom("properties", "member", (name, wrong))]))
        return any_of(ways, asked.blame_for("properties"))

    def not_others(self, keyword: str, schema: JsonObject, asked: _Asked) -> Formula:
        value = schema[keyword]
        if value in (True, {}) or (
            keyword == "patternProperties" and all(each in (True, {}) for each in value.values())
        ):
            return False
        return all_of([asked.atom(keyword, "minProperties", 1), veto(asked.blame_for(keyword))])

    def names(self, _schema: JsonObject, asked: _Asked) -> Formula:
        return asked.atom("propertyNames", "names", asked.inside("propertyNames").pointer)

    def unevaluated(self, _schema: JsonObject, asked: _Asked) -> Formula:
        keyword = "unevaluatedProperties" if asked.kind == "object" else "unevaluatedItems"
        return asked.atom(keyword, keyword, asked.pointer)

    def dependent_names(self, schema: JsonObject, asked: _Asked) -> Formula:
        keyword = "dependentRequired"
        parts = []
        for name, needed in schema[keyword].items():
            there = all_of(asked.atom(keyword, "required", each) for each in (name, *needed))
            parts.append(any_of([asked.atom(keyword, "absent", name), there], asked.blame_for(keyword)))
        return all_of(parts)

    def not_dependent_names(self, schema: JsonObject, asked: _Asked) -> Formula:
        keyword = "dependentRequired"
        ways = [
            all_of([asked.atom(keyword, "required", name), asked.atom(keyword, "absent", each)])
            for name, needed in schema[keyword].items()
            for each in needed
        ]
        return any_of(ways, asked.blame_for(keyword))

    def dependent_schemas(self, schema: JsonObject, asked: _Asked) -> Formula:
        keyword = "dependentSchemas"
        parts = []
        for name in schema[keyword]:
            there = all_of([asked.atom(keyword, "required", name), self.of_schema(asked.inside(keyword, name))])
            parts.append(any_of([asked.atom(keyword, "absent", name), there], asked.blame_for(keyword)))
        return all_of(parts)

    def not_dependent_schemas(self, schema: JsonObject, asked: _Asked) -> Formula:
        keyword = "dependentSchemas"
        ways = [
            all_of([asked.atom(keyword, "required", name), self.opposite(asked.inside(keyword, name))])
            for name in schema[keyword]
        ]
        return any_of(ways, asked.blame_for(keyword))


Reader = Callable[[Formulas, JsonObject, _Asked], Formula]


def _first_of(keywords: frozenset[str], keyword: str, reader: Reader) -> Reader:
    """The reader, for the first of the keywords that the schema has; nothing for the others."""

    def read(formulas: Formulas, schema: JsonObject, asked: _Asked) -> Formula:
        first = next(each for each in schema if each in keywords)
        return reader(formulas, schema, asked) if keyword == first else True

    return read


POSITIVE: Mapping[str, Reader] = {
    "type": Formulas.type,
    "$ref": Formulas.reference,
    "allOf": Formulas.every,
    "anyOf": Formulas.some,
    "not": Formulas.negation,
    "if": Formulas.condition,
    "contains": Formulas.contained,
    "required": Formulas.required,
    "propertyNames": Formulas.names,
    "dependentRequired": Formulas.dependent_names,
    "dependentSchemas": Formulas.dependent_schemas,
    "unevaluatedProperties": Formulas.unevaluated,
    "unevaluatedItems": Formulas.unevaluated,
    **{each: _first_of(words("const enum"), each, Formulas.values) for each in ("const", "enum")},
    **{each: _first_of(MEMBERS, each, Formulas.members) for each in MEMBERS},
    **{each: _first_of(ITEMS, each, Formulas.items) for each in ITEMS},
}
NEGATIVE: Mapping[str, Reader] = {
    "type": Formulas.not_type,
    "$ref": Formulas.not_reference,
    "allOf": Formulas.not_every,
    "anyOf": Formulas.not_some,
    "oneOf": Formulas.not_one_of,
    "not": Formulas.not_negation,
    "if": Formulas.not_condition,
    "const": lambda formulas, schema, asked: formulas.not_values("const", schema, asked),
    "enum": lambda formulas, schema, asked: formulas.not_values("enum", schema, asked),
    "prefixItems": Formulas.not_prefix,
    "items": Formulas.not_items,
    "contains": Formulas.not_contained,
    "uniqueItems": Formulas.not_unique,
    "properties": Formulas.not_properties,
    "patternProperties": lambda formulas, schema, asked: formulas.not_others("patternProperties", schema, asked),
    "additionalProperties": lambda formulas, schema, asked: formulas.not_others("additionalProperties", schema, asked),
    "required": Formulas.not_required,
    "dependentRequired": Formulas.not_dependent_names,
    "dependentSchemas": Formulas.not_dependent_schemas,
}
