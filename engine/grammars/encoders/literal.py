"""Arguments as literals of a language that is not JSON: Python's keyword arguments, Gemma's notation.

Rules of our own from the normalised schema. Every value shows its type, so that unions read back in one way.
"""

import json
from dataclasses import dataclass
from typing import Any

from engine.grammars.encoders.arguments import ArgumentsGrammar, Terminals
from engine.grammars.encoders.kinds import ALL, follow, kind_of, kinds
from engine.grammars.encoders.literal_reader import LiteralReader
from engine.grammars.encoders.raw_strings import ended, one_of, raw_string
from engine.grammars.json_schema import CheckedSchema
from engine.grammars.literals import string_literal
from engine.grammars.schema_walk import child_path, refusal
from engine.types import JsonObject

DEFINITIONS = frozenset({"$defs", "definitions"})
KEYWORDS = {
    "string": frozenset({"minLength", "maxLength", "pattern", "format"}),
    "number": frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"}),
    "boolean": frozenset[str](),
    "null": frozenset[str](),
    "array": frozenset({"items", "prefixItems", "minItems", "maxItems"}),
    "object": frozenset({"properties", "required", "additionalProperties"}),
}


@dataclass(frozen=True, slots=True)
class LiteralArguments:
    """key, equals, value, separator, and so on; nested objects have their own way of keys. All are literal text."""

    equals: str  # between an argument's name and its value
    separator: str
    nested_equals: str
    true: str
    false: str
    null: str
    quote: str = ""  # around strings, which are then written as they are; none: JSON's strings
    close: str = ")"  # what follows the arguments; it cannot begin anything inside

    @property
    def text_ends(self) -> tuple[str, ...]:
        return ()

    def grammar(self, checked: CheckedSchema, *, name: str, path: str, terminals: Terminals) -> ArgumentsGrammar:
        schema = checked.schema
        assert isinstance(schema, dict)
        return _Grammar(self, schema, name, terminals).arguments(path)

    def reader(self, schema: JsonObject) -> LiteralReader:
        del schema
        words = {self.true: "true", self.false: "false", self.null: "null"}
        return LiteralReader(
            equals=self.equals, nested_equals=self.nested_equals, quote=self.quote, close=self.close, words=words
        )

    def write(self, arguments: str) -> str:
        values: dict[str, Any] = json.loads(arguments)
        return self.separator.join(f"{key}{self.equals}{self.written(value)}" for key, value in values.items())

    def written(self, value: Any) -> str:
        """One value."""
        kind = kind_of(value)
        if kind == "string":
            return f"{self.quote}{value}{self.quote}" if self.quote else json.dumps(value, ensure_ascii=False)
        if kind == "array":
            return f"[{self.separator.join(map(self.written, value))}]"
        if kind == "object":
            pairs = (f"{self.key(key)}{self.nested_equals}{self.written(each)}" for key, each in value.items())
            return f"{{{self.separator.join(pairs)}}}"
        if kind == "number":
            return json.dumps(value)
        return self.null if value is None else self.true if value else self.false

    def key(self, key: str) -> str:
        """A nested object's key."""
        return key if self.quote else json.dumps(key, ensure_ascii=False)


class _Grammar:
    """One tool's rules."""

    def __init__(self, style: LiteralArguments, root: JsonObject, name: str, terminals: Terminals) -> None:
        self._style = style
        self._root = root
        self._name = name
        self._terminals = terminals
        self._rules: list[str] = []
        self._referred: dict[str, str] = {}  # reference -> rule

    def arguments(self, path: str) -> ArgumentsGrammar:
        body = self._members(self._root, path, is_top=True)
        return ArgumentsGrammar(body, tuple(self._rules))

    def _rule(self, *definition: str) -> str:
        """A new rule that is one of these."""
        rule = self._reserve()
        self._define(rule, f"{rule}: {' | '.join(definition)}")
        return rule

    def _reserve(self) -> str:
        """The name of a rule that is defined later: it may refer to itself."""
        self._rules.append("")
        return f"{self._name}_{len(self._rules) - 1}"

    def _define(self, rule: str, lines: str) -> None:
        self._rules[int(rule.rpartition("_")[2])] = lines

    def _value(self, schema: Any, path: str) -> str:
        """An expression for the values of the schema."""
        if schema is True or schema == {}:
            return self._any()
        if schema is False:
            raise refusal(path, "no value satisfies it")
        if "$ref" in schema:
            return self._reference(schema, path)
        if "enum" in schema or "const" in schema:
            return self._one_of(schema, path)
        for keyword in ("anyOf", "oneOf", "allOf"):
            if keyword in schema:
                return self._combined(schema, keyword, path)
        types = schema.get("type", sorted(ALL))
        types = [types] if isinstance(types, str) else types
        self._check_keywords(schema, types, path)
        return self._rule(*(self._of_type(schema, each, path) for each in types))

    def _check_keywords(self, schema: JsonObject, types: list[str], path: str) -> None:
        known = {"type"} | DEFINITIONS
        for name in types:
            known |= KEYWORDS["number" if name == "integer" else name]
        for keyword in schema.keys() - known:
            raise refusal(child_path(path, keyword), "this model's format cannot hold it")

    def _of_type(self, schema: JsonObject, name: str, path: str) -> str:
        if name in ("integer", "number"):
            return _json(schema, name)
        if name == "boolean":
            return f"({string_literal(self._style.true)} | {string_literal(self._style.false)})"
        if name == "null":
            return string_literal(self._style.null)
        made = {"string": self._string, "array": self._array, "object": self._object}
        return made[name](schema, path)

    def _string(self, schema: JsonObject, path: str) -> str:
        if not self._style.quote:
            return _json(schema, "string")
        own = {keyword: value for keyword, value in schema.items() if keyword in KEYWORDS["string"]}
        return self._quoted(raw_string(own, self._style.quote, path))

    def _quoted(self, terminal: str) -> str:
        rule = self._reserve()
        self._define(rule, "\n".join(ended(rule, terminal, self._style.quote, self._terminals)))
        return f"{self._terminals(self._style.quote)} {rule}"

    def _one_of(self, schema: JsonObject, path: str) -> str:
        values = schema.get("enum", [schema.get("const")])
        for keyword in schema.keys() - {"type", "enum", "const"} - DEFINITIONS:
            raise refusal(child_path(path, keyword), "this model's format cannot hold it beside an enum")
        allowed = kinds(schema, self._root, path)
        values = [each for each in values if kind_of(each) in allowed]
        if self._style.quote:
            strings = [each for each in values if isinstance(each, str)]
            others = [self._plain(each, path) for each in values if not isinstance(each, str)]
            quoted = [self._quoted(one_of(strings, self._style.quote, path))] if strings else []
            return self._rule(*quoted, *map(string_literal, others))
        return self._rule(*(string_literal(self._style.written(each)) for each in values))

    def _plain(self, value: Any, path: str) -> str:
        if kind_of(value) in ("array", "object"):
            raise refusal(path, "in this model's format an enum has no arrays and objects")
        return self._style.written(value)

    def _combined(self, schema: JsonObject, keyword: str, path: str) -> str:
        branches, where = schema[keyword], child_path(path, keyword)
        if schema.keys() - {keyword} - DEFINITIONS:
            raise refusal(where, "in this model's format it stands alone")
        if keyword == "allOf" and len(branches) > 1:
            raise refusal(where, "this model's format cannot hold it")
        if keyword == "oneOf":
            found = [kinds(each, self._root, where) for each in branches]
            if sum(map(len, found)) > len(frozenset().union(*found)):
                raise refusal(where, "in this model's format its branches must differ in type")
        return self._rule(*(self._value(each, child_path(where, i)) for i, each in enumerate(branches)))

    def _reference(self, schema: JsonObject, path: str) -> str:
        if schema.keys() - {"$ref"} - DEFINITIONS:
            raise refusal(path, "in this model's format a $ref stands alone")
        reference = schema["$ref"]
        if reference not in self._referred:
            rule = self._referred[reference] = self._reserve()
            inner = self._value(follow(reference, self._root, child_path(path, "$ref")), path)
            self._define(rule, f"{rule}: {inner}")
        return self._referred[reference]

    def _array(self, schema: JsonObject, path: str) -> str:
        firsts = schema.get("prefixItems", [])
        least, most = schema.get("minItems", 0), schema.get("maxItems")
        rest = schema.get("items", True)
        if rest is False:
            most = min(len(firsts), len(firsts) if most is None else most)
        items = [self._value(each, child_path(path, f"prefixItems[{i}]")) for i, each in enumerate(firsts[:most])]
        return f'"[" {self._listed(items, rest, least, most, child_path(path, "items"))} "]"'

    def _listed(self, firsts: list[str], rest: Any, least: int, most: int | None, path: str) -> str:
        separator = string_literal(self._style.separator)
        tail = ""
        if most is None or most > len(firsts):
            item = self._value(rest, path)
            low = max(least - len(firsts), 0)
            high = None if most is None else most - len(firsts)
            if not firsts:
                more = f"({separator} {item}){{{max(low - 1, 0)},{'' if high is None else high - 1}}}"
                return f"{item} {more}" if low else f"({item} {more})?"
            tail = f"({separator} {item}){{{low},{'' if high is None else high}}}"
        for number in range(len(firsts) - 1, -1, -1):
            whole = f"{separator if number else ''} {firsts[number]} {tail}"
            tail = whole if number < least else f"({whole})?"
        return tail

    def _object(self, schema: JsonObject, path: str) -> str:
        return f'"{{" {self._members(schema, path, is_top=False)} "}}"'

    def _members(self, schema: JsonObject, path: str, *, is_top: bool) -> str:
        self._check_keywords(schema, ["object"], path)
        extra = schema.get("additionalProperties", True)
        properties = {key: each for key, each in schema.get("properties", {}).items() if each is not False}
        if not properties and extra is not False and not is_top and not schema.get("required"):
            return self._open_members(extra, path)
        if extra is not False:
            raise refusal(path, "in this model's format, objects must be closed: additionalProperties must be false")
        required = frozenset(schema.get("required", ()))
        pairs = [self._pair(key, each, path, is_top=is_top) for key, each in properties.items()]
        return self._in_order(pairs, [key in required for key in properties])

    def _pair(self, key: str, schema: Any, path: str, *, is_top: bool) -> str:
        where = child_path(child_path(path, "properties"), key)
        bare = is_top or bool(self._style.quote)
        if bare and not key.isidentifier():
            raise refusal(where, "in this model's format, the name must be letters, digits and _")
        name = key if bare else self._style.key(key)
        equals = self._style.equals if is_top else self._style.nested_equals
        return f"{self._terminals(name + equals)} {self._value(schema, where)}"

    def _in_order(self, pairs: list[str], required: list[bool]) -> str:
        """Some of the pairs, the required ones among them, in their order."""
        separator = string_literal(self._style.separator)
        rest = first = ""
        for pair, is_required in zip(reversed(pairs), reversed(required), strict=True):
            begun = f"{pair} {rest}".strip()
            first = self._rule(begun) if is_required else self._rule(begun, first or '""')
            after = f"{separator} {begun}"
            rest = self._rule(after) if is_required else self._rule(after, rest or '""')
        return first

    def _open_members(self, extra: Any, path: str) -> str:
        key = "/[A-Za-z_][A-Za-z0-9_]*/" if self._style.quote else _json({}, "string")
        pair = f"{key} {string_literal(self._style.nested_equals)} {self._value(extra, path)}"
        rule = self._rule(pair)
        return f"({rule} ({string_literal(self._style.separator)} {rule})*)?"

    def _any(self) -> str:
        if "any" not in self._referred:
            rule = self._referred["any"] = self._reserve()
            inner = self._value({"type": sorted(ALL)}, "")
            self._define(rule, f"{rule}: {inner}")
        return self._referred["any"]


def _json(schema: JsonObject, name: str) -> str:
    keywords = KEYWORDS["string" if name == "string" else "number"]
    return CheckedSchema({"type": name} | {key: schema[key] for key in keywords if key in schema}).lark()
