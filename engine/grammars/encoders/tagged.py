"""Arguments between tags, one after the other: strings as they are, other values as JSON or as literals.

The family's own close tag cannot occur in a string. A text that may be a string and something else reads as the latter:
such unions are refused, but for null, true and false, which a string then cannot be.
"""

import copy
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Self

from engine.events import Enforcement, ReceiptEntry
from engine.grammars.encoders.arguments import ArgumentsGrammar, Read, Terminals
from engine.grammars.encoders.kinds import kind_of, kinds, resolve, under_definitions
from engine.grammars.encoders.literal_grammar import LiteralGrammar
from engine.grammars.encoders.literal_reader import LiteralReader
from engine.grammars.encoders.literal_style import JSON, LiteralStyle
from engine.grammars.encoders.raw_strings import ended, escaped, one_of, raw_string
from engine.grammars.json_schema import CheckedSchema
from engine.grammars.literals import string_literal
from engine.grammars.marks import held_back
from engine.grammars.schema_walk import child_path, refusal
from engine.types import JsonObject

DEFINITIONS = ("$defs", "definitions")
OBJECT_KEYWORDS = frozenset({"type", "properties", "required", "additionalProperties", "$defs", "definitions"})
LITERAL_KINDS = frozenset({"null", "boolean"})


@dataclass(frozen=True, slots=True)
class TaggedArguments:
    """key_begin, the key, key_end, the value, value_end; and so on. All fields are literal text."""

    key_begin: str
    key_end: str
    value_end: str
    close_tag: str  # of a value: what no string contains
    others: LiteralStyle = JSON  # how values are written that are no strings

    @property
    def text_ends(self) -> tuple[str, ...]:
        return (self.value_end,)

    @property
    def quotes(self) -> str:
        return ""

    def grammar(self, checked: CheckedSchema, *, name: str, path: str, terminals: Terminals) -> ArgumentsGrammar:
        schema = checked.schema
        assert isinstance(schema, dict)
        branches = _branches(schema)
        self._check_kinds(branches, schema, path)
        rules, bodies = list[str](), list[str]()
        for number, branch in enumerate(branches):
            self._check_object(branch, path)
            prefix = name if len(branches) == 1 else f"{name}_way_{number}"
            body, found = self._members(branch, schema, name=prefix, path=path, terminals=terminals)
            rules += [*found, f"{prefix}_all: {body}"]
            bodies.append(f"{prefix}_all")
        return ArgumentsGrammar(f"({' | '.join(bodies)})", tuple(rules), tuple(self._entries(schema, path)))

    def _entries(self, schema: JsonObject, path: str) -> Iterator[ReceiptEntry]:
        members = _kinds_of_members(schema, path)
        if any("string" in found for found in members.values()):
            yield ReceiptEntry(path, Enforcement.NARROWED, f"strings cannot contain {self.close_tag}")
        for key, found in members.items():
            if "string" in found and (words := self.meanings(found)):
                where = child_path(child_path(path, "properties"), key)
                yield ReceiptEntry(where, Enforcement.NARROWED, f"strings cannot be {', '.join(words)}")

    def _members(
        self, schema: JsonObject, root: JsonObject, *, name: str, path: str, terminals: Terminals
    ) -> tuple[str, list[str]]:
        """A body, and the rules that it refers to."""
        rules, body = list[str](), list[str]()
        for number, (key, value) in enumerate(schema.get("properties", {}).items()):
            where = child_path(child_path(path, "properties"), key)
            if value is False:
                continue
            self._check_key(key, where)
            rule = f"{name}_{number}"
            head = terminals(f"{self.key_begin}{key}{self.key_end}")
            rules += [
                f"{rule}: {head} {rule}_value",
                *self._value(value, root, rule=f"{rule}_value", path=where, terminals=terminals),
            ]
            body.append(rule if key in schema.get("required", ()) else f"{rule}?")
        return " ".join(body) or '""', rules

    def _check_kinds(self, branches: list[JsonObject], root: JsonObject, path: str) -> None:
        """One text has one meaning: what may be a string is of the same types in all branches."""
        for key, together in _kinds_of_members(root, path).items():
            each = [kinds(branch.get("properties", {}).get(key, False), root, path) for branch in branches]
            if "string" in together and any(found and found != together for found in each):
                where = child_path(child_path(path, "properties"), key)
                raise refusal(
                    where, "in this model's format, an argument that may be a string has the same types always"
                )

    def _check_object(self, schema: JsonObject, path: str) -> None:
        for keyword in sorted(schema.keys() - OBJECT_KEYWORDS):
            reason = f"this model's format cannot hold {keyword} for the arguments as a whole"
            raise refusal(child_path(path, keyword), reason)
        if schema.get("additionalProperties", True) is not False:
            raise refusal(path, "in this model's format, arguments must be closed: additionalProperties must be false")

    def _check_key(self, key: str, path: str) -> None:
        if not key or key != key.strip() or set(key) & set("<>\"'\n"):
            raise refusal(path, "in this model's format, an argument's name has no <, >, quotes and spaces around it")

    def _value(self, value: Any, root: JsonObject, *, rule: str, path: str, terminals: Terminals) -> tuple[str, ...]:
        found = kinds(value, root, path)
        if "string" not in found:
            return self._other(value, root, rule=rule, path=path, terminals=terminals)
        terminal = self._string(value, root, path, found - {"string"})
        return ended(rule, terminal, self.value_end, terminals)

    def _other(self, value: Any, root: JsonObject, *, rule: str, path: str, terminals: Terminals) -> tuple[str, ...]:
        """Rules for values that are no strings."""
        if self.others == JSON:
            return (f"{rule}: {_json(value, root)} {terminals(self.value_end)}",)
        rules = LiteralGrammar(self.others, root, f"{rule}_part", terminals)
        return (f"{rule}: {rules.value(value, path)} {terminals(self.value_end)}", *rules.rules)

    def _string(self, value: Any, root: JsonObject, path: str, others: frozenset[str]) -> str:
        if others - LITERAL_KINDS:
            reason = "as text between tags, a string and a value of another type read alike; give it one type"
            raise refusal(path, reason)
        schema = resolve(value, root, path)
        branches = [schema]
        if "anyOf" in schema:
            branches = [resolve(each, root, path) for each in schema["anyOf"]]
        texts = [self._string_branch(each, path) for each in branches if "string" in kinds(each, root, path)]
        literals = [
            string_literal(text)
            for text, meaning in self.meanings(others).items()
            if any(_may_be(each, json.loads(meaning), kinds(each, root, path)) for each in branches)
        ]
        words = "".join(f" & ~{string_literal(word)}" for word in self.meanings(others))
        return " | ".join([*(f"(({text}){words})" for text in texts), *literals])

    def _string_branch(self, schema: Any, path: str) -> str:
        if "enum" in schema or "const" in schema:
            values = schema.get("enum", [schema.get("const")])
            return one_of([each for each in values if isinstance(each, str)], self.close_tag, path)
        return raw_string({**schema, "type": "string"}, self.close_tag, path)

    def meanings(self, kind: frozenset[str]) -> dict[str, str]:
        """Texts of a value that are no strings, and what they are as JSON."""
        return {
            text: meaning
            for text, meaning in self.others.words.items()
            if ("null" if meaning == "null" else "boolean") in kind
        }

    def reader(self, schema: JsonObject) -> "TaggedReader":
        return TaggedReader(self, _kinds_of_members(schema, "parameters"))

    def value_reader(self) -> LiteralReader:
        """A reader of one value that is no string, up to its end: a string inside of it may contain that."""
        return LiteralReader(self.others, equals=self.others.equals, close=self.value_end)

    def write(self, arguments: str) -> str:
        values: dict[str, Any] = json.loads(arguments)
        return "".join(
            f"{self.key_begin}{key}{self.key_end}{self._written(value)}{self.value_end}"
            for key, value in values.items()
        )

    def _written(self, value: Any) -> str:
        if isinstance(value, str):
            return value
        # Lists and objects as JSON: of what templates write, all readers take that.
        return self.others.written(value) if kind_of(value) in LITERAL_KINDS else json.dumps(value, ensure_ascii=False)


def _branches(schema: JsonObject) -> list[JsonObject]:
    """The ways in which the arguments as a whole may be."""
    return [resolve(each, schema, "") for each in schema["anyOf"]] if "anyOf" in schema else [schema]


def _kinds_of_members(schema: JsonObject, path: str) -> dict[str, frozenset[str]]:
    """The types that each argument may have."""
    found: dict[str, frozenset[str]] = {}
    for branch in _branches(schema):
        for key, value in branch.get("properties", {}).items():
            found[key] = found.get(key, frozenset()) | kinds(value, schema, child_path(path, key))
    return found


def _may_be(schema: Any, value: bool | None, found: frozenset[str]) -> bool:
    """Whether a schema of these kinds has the value: null, true or false."""
    if ("null" if value is None else "boolean") not in found:
        return False
    listed = schema.get("enum", [schema["const"]] if "const" in schema else None) if isinstance(schema, dict) else None
    return listed is None or any(each is value for each in listed)


def _json(value: Any, root: JsonObject) -> str:
    schema = dict(value) if isinstance(value, dict) else {"allOf": [value]}
    definitions = {keyword: root[keyword] for keyword in DEFINITIONS if keyword in root}
    return CheckedSchema(dict(under_definitions({**schema, **definitions}, root))).lark()


@dataclass(slots=True)
class TaggedReader:
    """Between values it looks for the next key's beginning: where there is none, the arguments end."""

    style: TaggedArguments
    kinds: dict[str, frozenset[str]]  # of each property
    key: str | None = None  # of the value that is being read
    num_written: int = 0
    is_open: bool = False  # a string's quote was written
    other: LiteralReader | None = None  # of the value that is being read, where that is no string
    buffer: str = field(default="")

    def copy(self) -> Self:
        other = copy.copy(self)
        other.other = None if self.other is None else self.other.copy()
        return other

    def feed(self, text: str) -> Read:
        self.buffer += text
        written = ""
        while True:
            piece, goes_on = self._key() if self.key is None else self._value()
            written += piece
            if not goes_on:
                return Read(written)
            if self.key is None and self._is_over():
                rest, self.buffer = self.buffer, ""
                return Read(written + ("}" if self.num_written else "{}"), rest)

    def _is_over(self) -> bool:
        begin = self.style.key_begin
        return bool(self.buffer) and not self.buffer.startswith(begin) and not begin.startswith(self.buffer)

    def _key(self) -> tuple[str, bool]:
        begin, end = self.style.key_begin, self.style.key_end
        if self._is_over():
            return "", True
        if not self.buffer.startswith(begin) or end not in self.buffer[len(begin) :]:
            return "", False
        self.key, _, self.buffer = self.buffer[len(begin) :].partition(end)
        self.num_written += 1
        self.other = self.style.value_reader()
        return f"{'{' if self.num_written == 1 else ', '}{json.dumps(self.key, ensure_ascii=False)}: ", True

    def _value(self) -> tuple[str, bool]:
        assert self.key is not None
        found = self.kinds.get(self.key, frozenset({"string"}))
        return self._string(self.style.meanings(found)) if "string" in found else self._other()

    def _other(self) -> tuple[str, bool]:
        assert self.other is not None
        text, self.buffer = self.buffer, ""
        read = self.other.feed(text)
        if read.rest is None:
            return read.json, False
        self.key, self.buffer = None, read.rest.removeprefix(self.style.value_end)
        return read.json, True

    def _string(self, meanings: dict[str, str]) -> tuple[str, bool]:
        end = self.style.value_end
        text, ended_here, rest = self.buffer.partition(end)
        if not ended_here:
            keep = held_back(text, end)
            text, rest = text[: len(text) - keep], text[len(text) - keep :]
            if not self.is_open and any(literal.startswith(text) for literal in meanings):
                return "", False  # it may become one of them
        self.buffer = rest
        written = self._written(text, meanings, is_whole=bool(ended_here))
        if ended_here:
            self.key, self.is_open = None, False
        return written, bool(ended_here)

    def _written(self, text: str, meanings: dict[str, str], *, is_whole: bool) -> str:
        if is_whole and not self.is_open and text in meanings:
            return meanings[text]
        begin = "" if self.is_open else '"'
        self.is_open = True
        return begin + escaped(text) + ('"' if is_whole else "")
