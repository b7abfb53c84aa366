"""Rules for values in a language that is not JSON, from the schema that is written for the grammar.

Every value shows its type, so that unions read back in one way.
"""

from collections.abc import Iterator
from typing import Any

from engine.errors import SchemaError
from engine.events import Enforcement, ReceiptEntry
from engine.grammars.encoders.arguments import Terminals
from engine.grammars.encoders.kinds import follow, kind_of, kinds, resolve
from engine.grammars.encoders.literal_keys import KeyRule
from engine.grammars.encoders.literal_style import LiteralStyle
from engine.grammars.encoders.raw_strings import ended, one_of, raw_string
from engine.grammars.json_schema import CheckedSchema
from engine.grammars.literals import string_literal
from engine.grammars.schema_emission import ANY_VALUE
from engine.grammars.schema_patterns import matches
from engine.grammars.schema_walk import child_path, refusal
from engine.types import JsonObject

DEFINITIONS = frozenset({"$defs", "definitions"})
KEYWORDS = {
    "string": frozenset({"minLength", "maxLength", "pattern", "format", "allOf"}),
    "number": frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"}),
    "boolean": frozenset[str](),
    "null": frozenset[str](),
    "array": frozenset({"items", "prefixItems", "minItems", "maxItems"}),
    "object": frozenset(
        {"properties", "patternProperties", "required", "additionalProperties", "minProperties", "maxProperties"}
    ),
}
# What the schema of any value says of its own parts; the rule of any value stands for these.
ANY_INSIDE = {**ANY_VALUE, "items": True, "additionalProperties": True}
PLAIN_CHARACTER = r"[^'\\\x00-\x1f]|\\['\\nrt]"  # of a string in single quotes, as Python's repr writes it


class LiteralGrammar:
    """One tool's rules."""

    def __init__(self, style: LiteralStyle, root: JsonObject, name: str, terminals: Terminals) -> None:
        self._style = style
        self._root = root
        self._name = name
        self._terminals = terminals
        self._rules: list[str] = []
        self._referred: dict[str, str] = {}  # reference -> rule
        self._entries: dict[ReceiptEntry, None] = {}

    @property
    def rules(self) -> tuple[str, ...]:
        """All that were made so far; what was returned refers to them."""
        return tuple(self._rules)

    @property
    def entries(self) -> tuple[ReceiptEntry, ...]:
        return tuple(self._entries)

    def arguments(self, path: str, equals: str) -> str:
        """An expression for the root's members, as arguments: names bare, and their own sign after them."""
        branches = [resolve(each, self._root, path) for each in self._root.get("anyOf", [self._root])]
        return self._either([self._members(each, path, equals) for each in branches])

    def value(self, schema: Any, path: str) -> str:
        """An expression for the values of the schema. SchemaError, by path, for what cannot be written."""
        if schema is True or schema == {}:
            return self._any(path)
        if schema is False:
            raise refusal(path, "no value satisfies it")
        if "$ref" in schema:
            return self._reference(schema, path)
        if "enum" in schema or "const" in schema:
            return self._one_of(schema, path)
        if "anyOf" in schema:
            self._check_alone(schema, "anyOf", path)
            return self._either([self.value(each, path) for each in schema["anyOf"]])
        types = schema.get("type", "string" if "allOf" in schema else [])
        types = [types] if isinstance(types, str) else types
        self._check_keywords(schema, types, path)
        return self._either([self._of_type(schema, each, path) for each in types])

    # --- Rules

    def _rule(self, *definition: str) -> str:
        """A new rule that is one of these."""
        rule = self._reserve()
        self._define(rule, f"{rule}: {' | '.join(definition)}")
        return rule

    def _either(self, choices: list[str]) -> str:
        return self._rule(*(choice or '""' for choice in choices))

    def _reserve(self) -> str:
        """The name of a rule that is defined later: it may refer to itself."""
        self._rules.append("")
        return f"{self._name}_{len(self._rules) - 1}"

    def _define(self, rule: str, lines: str) -> None:
        self._rules[int(rule.rpartition("_")[2])] = lines

    def _check_keywords(self, schema: JsonObject, types: list[str], path: str) -> None:
        known = {"type"} | DEFINITIONS
        for name in types:
            known |= KEYWORDS["number" if name == "integer" else name]
        for keyword in sorted(schema.keys() - known):
            raise refusal(child_path(path, keyword), f"this model's format cannot hold {keyword}")

    def _check_alone(self, schema: JsonObject, keyword: str, path: str) -> None:
        for other in sorted(schema.keys() - {keyword, "type"} - DEFINITIONS):
            raise refusal(child_path(path, other), f"this model's format cannot hold {other} beside {keyword}")

    def _reference(self, schema: JsonObject, path: str) -> str:
        self._check_alone(schema, "$ref", path)
        reference = schema["$ref"]
        target = follow(reference, self._root, child_path(path, "$ref"))
        if target == ANY_VALUE:
            return self._any(path)
        if reference not in self._referred:
            rule = self._referred[reference] = self._reserve()
            self._define(rule, f"{rule}: {self.value(target, path)}")
        return self._referred[reference]

    def _any(self, path: str) -> str:
        if "any" not in self._referred:
            rule = self._referred["any"] = self._reserve()
            self._define(rule, f"{rule}: {self.value(ANY_INSIDE, path)}")
        return self._referred["any"]

    @property
    def _barred(self) -> str:
        """What no string between quotes of the style can contain: the quote, unless it is a token."""
        is_token = self._terminals(self._style.quote).startswith("<[")
        return "" if is_token else self._style.quote

    # --- Values without others inside

    def _of_type(self, schema: JsonObject, name: str, path: str) -> str:
        if name in ("integer", "number"):
            return _json(schema, name)
        if name in ("boolean", "null"):
            meant = ("null",) if name == "null" else ("true", "false")
            return self._words(meant)
        made = {"string": self._string, "array": self._array, "object": self._object}
        return made[name](schema, path)

    def _words(self, meant: tuple[str, ...]) -> str:
        return f"({' | '.join(string_literal(word) for word, json in self._style.words.items() if json in meant)})"

    def _string(self, schema: JsonObject, path: str) -> str:
        own = {keyword: value for keyword, value in schema.items() if keyword in KEYWORDS["string"]}
        if self._style.quote:
            if self._barred:
                detail = f"strings cannot contain {self._barred}"
                self._entries[ReceiptEntry(path, Enforcement.NARROWED, detail)] = None
            return self._quoted(raw_string(own, self._barred, path), self._style.quote)
        written = _json(schema, "string")
        return f"({written} | {single})" if self._style.mixed and (single := self._single(own, path)) else written

    def _single(self, schema: JsonObject, path: str) -> str:
        """A string in single quotes; nothing where they cannot hold it. One with a pattern has nothing escaped."""
        if not schema.keys() & {"pattern", "format", "allOf"}:
            most = schema.get("maxLength", "")
            return f"/'({PLAIN_CHARACTER}){{{schema.get('minLength', 0)},{most}}}'/"
        try:
            terminal = raw_string(schema, "'", path)
        except SchemaError:
            return ""
        return self._quoted(rf"{terminal} & /[^'\\\x00-\x1f]*/", "'")

    def _quoted(self, terminal: str, quote: str) -> str:
        rule = self._reserve()
        self._define(rule, "\n".join(ended(rule, terminal, quote, self._terminals)))
        return f"{self._terminals(quote)} {rule}"

    def _one_of(self, schema: JsonObject, path: str) -> str:
        self._check_alone(schema, "enum" if "enum" in schema else "const", path)
        allowed = kinds(schema, self._root, path)
        values = [each for each in schema.get("enum", [schema.get("const")]) if kind_of(each) in allowed]
        if not self._style.quote:
            return self._either([self._constant(each, path) for each in values])
        strings = [each for each in values if isinstance(each, str)]
        quoted = [self._quoted(one_of(strings, self._barred, path), self._style.quote)] if strings else []
        return self._either([*quoted, *(self._constant(each, path) for each in values if not isinstance(each, str))])

    def _constant(self, value: Any, path: str) -> str:
        """Exactly this value."""
        kind, separator = kind_of(value), f" {string_literal(self._style.separator)} "
        if kind == "string" and self._style.quote:
            return self._quoted(one_of([value], self._barred, path), self._style.quote)
        if kind == "string" and self._style.mixed:
            return f"({string_literal(self._style.written(value))} | {string_literal(repr(value))})"
        if kind in ("boolean", "null"):
            return self._words(("null" if value is None else str(value).lower(),))
        if kind == "array":
            return f'"[" {separator.join(self._constant(each, path) for each in value)} "]"'
        if kind == "object":
            pairs = (self._pair(key, self._constant(each, path), path) for key, each in self._style.in_order(value))
            return f'"{{" {separator.join(pairs)} "}}"'
        return string_literal(self._style.written(value))

    # --- Arrays

    def _array(self, schema: JsonObject, path: str) -> str:
        firsts, rest = schema.get("prefixItems", []), schema.get("items", True)
        least, most = schema.get("minItems", 0), schema.get("maxItems")
        if False in firsts:
            firsts, rest = firsts[: firsts.index(False)], False
        if rest is False:
            most = min(len(firsts), len(firsts) if most is None else most)
        items = [self.value(each, child_path(path, "prefixItems")) for each in firsts[:most]]
        if most is not None and most <= len(items):
            return f'"[" {self._in_order(items, least, "", "")} "]"'
        item, low = self.value(rest, child_path(path, "items")), max(least - len(items), 0)
        begun, more = self._many(item, low, None if most is None else most - len(items))
        return f'"[" {self._in_order(items, least, begun, more)} "]"'

    def _many(self, item: str, low: int, high: int | None) -> tuple[str, str]:
        """So many items: from the first on, and behind others."""
        if high == 0:
            return "", ""
        separator = string_literal(self._style.separator)
        end = "" if high is None else str(high)
        more = f"({separator} {item}){{{low},{end}}}"
        if high == 1:
            return (item if low else f"({item})?"), more
        end = "" if high is None else str(high - 1)
        begun = f"{item} ({separator} {item}){{{max(low - 1, 0)},{end}}}"
        return (begun if low else f"({begun})?"), more

    def _in_order(self, items: list[str], least: int, begun: str, more: str) -> str:
        """The items, of which as many as `least` must be there; then what more there is, or begun where none is."""
        separator, tail = string_literal(self._style.separator), more if items else begun
        for number in range(len(items) - 1, -1, -1):
            whole = f"{separator if number else ''} {items[number]} {tail}".strip()
            tail = whole if number < least else f"({whole})?"
        return tail

    # --- Objects

    def _object(self, schema: JsonObject, path: str) -> str:
        return f'"{{" {self._members(schema, path, "")} "}}"'

    def _members(self, schema: JsonObject, path: str, equals: str) -> str:
        """equals: of arguments; none: of an object's members."""
        if equals:
            self._check_keywords(schema, ["object"], path)
        required, named = schema.get("required", ()), schema.get("properties", {})
        pairs, is_required = list[str](), list[bool]()
        for key, each in self._style.in_order(named):
            if each is not False:
                where = child_path(child_path(path, "properties"), key)
                pairs.append(self._pair(key, self.value(_of_name(schema, key, each), where), where, equals))
                is_required.append(key in required)
        begun, more = self._others(schema, path, equals)
        return self._some(pairs, is_required, begun, more)

    def _pair(self, key: str, value: str, path: str, equals: str = "") -> str:
        return f"{self._key_rule(equals).named(key, path, self._terminals)} {value}"

    def _key_rule(self, equals: str) -> KeyRule:
        return KeyRule(bool(equals) or bool(self._style.quote), equals or self._style.equals, self._style)

    def _others(self, schema: JsonObject, path: str, equals: str) -> tuple[str, str]:
        """The members that no name is given for: from the first on, and behind others."""
        pairs = list(self._other_pairs(schema, path, equals))
        if not pairs:
            return "", ""
        given = len(schema.get("required", ()))
        most = schema.get("maxProperties")
        low = max(schema.get("minProperties", 0) - given, 0)
        return self._many(self._rule(*pairs), low, None if most is None else most - given)

    def _other_pairs(self, schema: JsonObject, path: str, equals: str) -> Iterator[str]:
        rule, names = self._key_rule(equals), list(schema.get("properties", {}))
        patterns = schema.get("patternProperties", {})
        for pattern, each in patterns.items():
            where = child_path(child_path(path, "patternProperties"), pattern)
            if each is not False:
                yield self._other_pair(rule.other(names, where, matched=[pattern]), each, where)
        extra = schema.get("additionalProperties", True)
        if extra is not False:
            where = child_path(path, "additionalProperties")
            yield self._other_pair(rule.other(names, where, not_matched=list(patterns)), extra, where)
        if extra is not False or any(each is not False for each in patterns.values()):
            self._entries[ReceiptEntry(path, Enforcement.NARROWED, rule.narrowing)] = None

    def _other_pair(self, key: str, schema: Any, path: str) -> str:
        rule = self._reserve()
        self._define(rule, f"{rule.upper()}: {key}\n{rule}: {rule.upper()} {self.value(schema, path)}")
        return rule

    def _some(self, pairs: list[str], required: list[bool], begun: str, more: str) -> str:
        """Some of the pairs, the required ones among them, in their order; then the others."""
        separator = string_literal(self._style.separator)
        first, rest = begun, more
        for pair, is_required in zip(reversed(pairs), reversed(required), strict=True):
            whole = f"{pair} {rest}".strip()
            first = self._rule(whole) if is_required else self._rule(whole, first or '""')
            after = f"{separator} {whole}"
            rest = self._rule(after) if is_required else self._rule(after, rest or '""')
        return first


def _of_name(schema: JsonObject, key: str, own: Any) -> Any:
    """A named member's schema; where that is true, a pattern that the name matches has it."""
    if own is True:
        return next(
            (each for pattern, each in schema.get("patternProperties", {}).items() if matches(pattern, key)), own
        )
    return own


def _json(schema: JsonObject, name: str) -> str:
    keywords = KEYWORDS["string" if name == "string" else "number"]
    own = {key: schema[key] for key in schema if key in keywords}
    return CheckedSchema(own if "allOf" in own else {"type": name} | own).lark()
