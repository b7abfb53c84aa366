"""Plain JSON values as rules of the turn's own grammar, so that what many tools share is read by the library once.

The library reads each `%json` block for itself, and the bounds of a number take it longer than all else in a tool. So
closed objects and unbounded lists are written as rules here, as the library would write them; what stands inside of
them is a `%json` block each, or a regex where it may be any number, and equal ones are one rule. Rules are named by
what they say: equal ones of several tools have equal names.
"""

import functools
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from engine.grammars.encoders.arguments import ArgumentsGrammar
from engine.grammars.encoders.json_numbers import PATTERNS
from engine.grammars.json_schema import JSON_STYLE
from engine.grammars.literals import as_json, string_literal
from engine.grammars.schema_walk import each_schema
from engine.types import JsonObject

OBJECT_KEYWORDS = frozenset({"type", "properties", "required", "additionalProperties"})
LIST_KEYWORDS = frozenset({"type", "items"})
DEFINITIONS = "#/$defs/"
MAX_DEPTH = 300  # of rules, each read inside the one before; more than a thousand overflow the library's stack
MAX_COPIED = 64  # definitions that all blocks of one schema take along
CODE_ESCAPED = frozenset(map(chr, range(0x20))) - frozenset("\b\f\n\r\t")  # JSON writes these as \uXXXX only
RULE_NAME = re.compile(r"\b(?:object|list|members?|value)_[0-9a-f]{16}\b")
END = string_literal("}")
SEPARATOR, AFTER_NAME = str(JSON_STYLE["item_separator"]), str(JSON_STYLE["key_separator"])


def json_rules(schema: JsonObject) -> ArgumentsGrammar | None:
    """The values of a schema that json_schema has written; None where it is better left to the library as it is."""
    writer = _Writer(schema)
    try:
        body = writer.value({keyword: value for keyword, value in schema.items() if keyword != "$defs"})
    except _NotPlainError:
        return None
    if len(writer.rules) > MAX_DEPTH and _depth(body, writer.rules) > MAX_DEPTH:
        return None
    return ArgumentsGrammar(body, tuple(f"{name}: {rule}" for name, rule in writer.rules.items()))


class _NotPlainError(Exception):
    """The schema refers to itself, or to much."""


@dataclass(slots=True)
class _Writer:
    root: JsonObject
    rules: dict[str, str] = field(default_factory=dict)  # by name
    _referred: dict[str, str] = field(default_factory=dict)  # reference -> expression
    _open: set[str] = field(default_factory=set)  # references that are being written
    _num_copied: int = 0

    def value(self, schema: Any) -> str:
        """An expression for the values of a schema inside the root."""
        if isinstance(schema, dict) and schema.keys() == {"$ref"}:
            return self._reference(schema["$ref"])
        if _is_plain_object(schema):
            return self._object(schema)
        if _is_plain_list(schema):
            item = self.value(schema["items"])
            more = string_literal(SEPARATOR)
            return self._rule("list", f'"[" ({item} ({more} {item})*)? "]"')
        return self._block(schema)

    def _reference(self, reference: str) -> str:
        if reference in self._open or not reference.startswith(DEFINITIONS):
            raise _NotPlainError
        if reference not in self._referred:
            self._open.add(reference)
            self._referred[reference] = self.value(_followed(self.root, reference))
            self._open.discard(reference)
        return self._referred[reference]

    def _rule(self, kind: str, definition: str) -> str:
        name = _name(kind, definition)
        self.rules[name] = definition
        return name

    def _object(self, schema: JsonObject) -> str:
        """From the last member to the first: which one may stand here, and what follows it.

        A comma stands before the choice and not in each of its branches: so what may follow a value are two things,
        however many members there are.
        """
        members = [(name, value) for name, value in schema.get("properties", {}).items() if value is not False]
        choices: list[str] = []  # the last member first, back to a required one: all that may stand here
        rest, may_end = "", True  # the same choice as one rule; whether the object may end here instead
        for name, value in reversed(members):
            is_required = name in schema.get("required", ())
            if not is_required and rest:  # it will stand twice
                rest = self._named(rest)
                choices = [rest, *choices[1:]] if len(choices) == 1 else choices
            key = string_literal(as_json(name) + AFTER_NAME)
            # All choices stand in line behind a required member, and in the object itself. The library reads rules as
            # it meets them, one inside the other; so it meets the last member first, and never goes deep.
            after = _after(_either(choices) if is_required else rest, may_end=may_end)
            member = f"{key} {self.value(value)} {after}"
            if not is_required:
                member = self._rule("member", member)
            choices = [member] if is_required else [*choices, member]
            rest = member if is_required or not rest else self._rule("members", f"{member} | {rest}")
            may_end = may_end and not is_required
        return self._rule("object", string_literal("{") + " " + _either([*choices, *([END] if may_end else [])]))

    def _named(self, expression: str) -> str:
        return self._rule("member", expression) if " " in expression else expression

    def _block(self, schema: Any) -> str:
        """What the library reads by itself, with the definitions that it needs."""
        if not isinstance(schema, dict):
            raise _NotPlainError
        needed: dict[str, Any] = {}
        waiting = list(_references(schema))
        while waiting:
            reference = waiting.pop()
            if not reference.startswith(DEFINITIONS):
                raise _NotPlainError
            if reference not in needed:
                needed[reference] = _followed(self.root, reference)
                waiting += _references(needed[reference])
                self._num_copied += 1
                if self._num_copied > MAX_COPIED:
                    raise _NotPlainError
        definitions = {reference.removeprefix(DEFINITIONS): needed[reference] for reference in sorted(needed)}
        name, block = _named_block(as_json({**schema, "$defs": definitions} if definitions else schema))
        self.rules[name] = block
        return name


def _name(kind: str, definition: str) -> str:
    return f"{kind}_{hashlib.sha256(definition.encode()).hexdigest()[:16]}"


@functools.lru_cache(maxsize=1024)
def _named_block(schema: str) -> tuple[str, str]:
    """The rule for a schema, given as text: its name, and what it says in our JSON style."""
    if schema in PATTERNS:
        block = f"/{PATTERNS[schema]}/"
    else:
        separator = "" if schema == "{}" else ", "
        block = f'%json {schema[:-1]}{separator}"x-guidance": {as_json(JSON_STYLE)}}}'
    return _name("value", block), block


def _depth(body: str, rules: Mapping[str, str]) -> int:
    """How deep the library goes where it reads each rule inside of the first that names it."""
    depths: dict[str, int] = {}
    stack = [(body, 1)]
    while stack:
        name, depth = stack.pop()
        if name not in depths:
            depths[name] = depth
            stack += [(each, depth + 1) for each in reversed(RULE_NAME.findall(rules[name]))]
    return max(depths.values())


def _after(choice: str, *, may_end: bool) -> str:
    """What follows a member: one of those behind it, or the object's end."""
    if not choice:
        return END
    more = f"{string_literal(SEPARATOR)} {choice}"
    return f"({more} | {END})" if may_end else more


def _either(choices: Sequence[str]) -> str:
    return choices[0] if len(choices) == 1 else f"({' | '.join(choices)})" if choices else ""


def _is_plain_object(schema: Any) -> bool:
    """Whether it is closed, and says nothing but which members it has."""
    if not isinstance(schema, dict) or schema.get("type") != "object" or not schema.keys() <= OBJECT_KEYWORDS:
        return False
    members: Mapping[str, Any] = schema.get("properties", {})
    named = set(schema.get("required", ())) <= members.keys()
    # A name with other escapes than the grammar's strings have is the library's matter.
    return schema.get("additionalProperties") is False and named and not any(map(_has_code_escape, members))


def _is_plain_list(schema: Any) -> bool:
    return isinstance(schema, dict) and schema.get("type") == "array" and schema.keys() == LIST_KEYWORDS


def _has_code_escape(name: str) -> bool:
    return not CODE_ESCAPED.isdisjoint(name)


def _followed(root: JsonObject, reference: str) -> Any:
    return root["$defs"][reference.removeprefix(DEFINITIONS)]


def _references(schema: JsonObject) -> Iterator[str]:
    """Of a schema, and of all inside it."""
    return (each["$ref"] for each in each_schema(schema) if "$ref" in each)
