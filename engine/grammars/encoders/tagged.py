"""Arguments between tags, one after the other: strings as they are, other values as JSON.

The family's own close tag cannot occur in a string. A text that may be a string and something else reads as the latter:
such unions are refused, but for null, true and false, which a string then cannot be.
"""

import copy
import json
from dataclasses import dataclass, field
from typing import Any, Self

from engine.events import Enforcement, ReceiptEntry
from engine.grammars.encoders.arguments import ArgumentsGrammar, Read, Terminals
from engine.grammars.encoders.kinds import kinds, resolve
from engine.grammars.encoders.raw_strings import ended, escaped, one_of, raw_string
from engine.grammars.json_schema import CheckedSchema
from engine.grammars.literals import string_literal
from engine.grammars.marks import held_back
from engine.grammars.schema_walk import child_path, refusal
from engine.types import JsonObject

OBJECT_KEYWORDS = frozenset({"type", "properties", "required", "additionalProperties", "$defs", "definitions"})
LITERAL_KINDS = frozenset({"null", "boolean"})


@dataclass(frozen=True, slots=True)
class TaggedArguments:
    """key_begin, the key, key_end, the value, value_end; and so on. All fields are literal text."""

    key_begin: str
    key_end: str
    value_end: str
    close_tag: str  # of a value: what no string contains
    true: str = "true"  # as a whole argument; inside of others it is JSON
    false: str = "false"

    @property
    def text_ends(self) -> tuple[str, ...]:
        return (self.value_end,)

    def grammar(self, checked: CheckedSchema, *, name: str, path: str, terminals: Terminals) -> ArgumentsGrammar:
        schema = checked.schema
        assert isinstance(schema, dict)
        self._check_object(schema, path)
        rules, body, has_strings = list[str](), list[str](), False
        for number, (key, value) in enumerate(schema.get("properties", {}).items()):
            where = child_path(child_path(path, "properties"), key)
            if value is False:
                continue
            self._check_key(key, where)
            rule = f"{name}_{number}"
            found = self._value(value, schema, rule=f"{rule}_value", path=where, terminals=terminals)
            has_strings |= "string" in kinds(value, schema, where)
            head = terminals(f"{self.key_begin}{key}{self.key_end}")
            rules += [f"{rule}: {head} {rule}_value", *found]
            body.append(rule if key in schema.get("required", ()) else f"{rule}?")
        entry = ReceiptEntry(path, Enforcement.NARROWED, f"strings cannot contain {self.close_tag}")
        return ArgumentsGrammar(" ".join(body), tuple(rules), (entry,) if has_strings else ())

    def _check_object(self, schema: JsonObject, path: str) -> None:
        for keyword in schema.keys() - OBJECT_KEYWORDS:
            raise refusal(child_path(path, keyword), "this model's format cannot hold it for the arguments as a whole")
        if schema.get("additionalProperties", True) is not False:
            raise refusal(path, "in this model's format, arguments must be closed: additionalProperties must be false")

    def _check_key(self, key: str, path: str) -> None:
        if not key or key != key.strip() or set(key) & set("<>\"'\n"):
            raise refusal(path, "in this model's format, an argument's name has no <, >, quotes and spaces around it")

    def _value(self, value: Any, root: JsonObject, *, rule: str, path: str, terminals: Terminals) -> tuple[str, ...]:
        found = kinds(value, root, path)
        if found == {"boolean"} and resolve(value, root, path).keys() == {"type"}:
            either = f"({string_literal(self.true)} | {string_literal(self.false)})"
            return (f"{rule}: {either} {terminals(self.value_end)}",)
        if "string" not in found:
            return (f"{rule}: {_json(value, root)} {terminals(self.value_end)}",)
        terminal = self._string(value, root, path, found - {"string"})
        return ended(rule, terminal, self.value_end, terminals)

    def _string(self, value: Any, root: JsonObject, path: str, others: frozenset[str]) -> str:
        if others - LITERAL_KINDS:
            reason = "as text between tags, a string and a value of another type read alike; give it one type"
            raise refusal(path, reason)
        schema = resolve(value, root, path)
        branches = [schema]
        for keyword in ("anyOf", "oneOf"):
            if keyword in schema:
                if schema.keys() - {keyword}:
                    raise refusal(path, f"in this model's format {keyword} stands alone")
                branches = [resolve(each, root, path) for each in schema[keyword]]
        texts = [self._string_branch(each, path) for each in branches if "string" in kinds(each, root, path)]
        literals = [
            string_literal(text)
            for text, meaning in self.meanings(others).items()
            if any(_may_be(each, json.loads(meaning), kinds(each, root, path)) for each in branches)
        ]
        return " | ".join([*(f"({text})" for text in texts), *literals])

    def _string_branch(self, schema: Any, path: str) -> str:
        if "allOf" in schema:
            raise refusal(child_path(path, "allOf"), "this model's format cannot hold it for a string")
        if "enum" in schema or "const" in schema:
            values = schema.get("enum", [schema.get("const")])
            for keyword in schema.keys() - {"type", "enum", "const"}:
                raise refusal(child_path(path, keyword), "this model's format cannot hold it beside an enum")
            return one_of([each for each in values if isinstance(each, str)], self.close_tag, path)
        return raw_string({**schema, "type": "string"}, self.close_tag, path)

    def meanings(self, kind: frozenset[str]) -> dict[str, str]:
        """Texts of a value that are no strings, and what they are as JSON."""
        found = {"null": "null"} if "null" in kind else {}
        return found | ({self.true: "true", self.false: "false"} if "boolean" in kind else {})

    def reader(self, schema: JsonObject) -> "TaggedReader":
        properties = schema.get("properties", {})
        return TaggedReader(self, {key: kinds(value, schema, key) for key, value in properties.items()})

    def write(self, arguments: str) -> str:
        values: dict[str, Any] = json.loads(arguments)
        return "".join(
            f"{self.key_begin}{key}{self.key_end}{self._written(value)}{self.value_end}"
            for key, value in values.items()
        )

    def _written(self, value: Any) -> str:
        if isinstance(value, bool):
            return self.true if value else self.false
        return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _may_be(schema: Any, value: bool | None, found: frozenset[str]) -> bool:
    """Whether a schema of these kinds has the value: null, true or false."""
    if ("null" if value is None else "boolean") not in found:
        return False
    listed = schema.get("enum", [schema["const"]] if "const" in schema else None) if isinstance(schema, dict) else None
    return listed is None or any(each is value for each in listed)


def _json(value: Any, root: JsonObject) -> str:
    schema = dict(value) if isinstance(value, dict) else {"allOf": [value]}
    definitions = {keyword: root[keyword] for keyword in ("$defs", "definitions") if keyword in root}
    return CheckedSchema({**schema, **definitions}).lark()


@dataclass(slots=True)
class TaggedReader:
    """Between values it looks for the next key's beginning: where there is none, the arguments end."""

    style: TaggedArguments
    kinds: dict[str, frozenset[str]]  # of each property
    key: str | None = None  # of the value that is being read
    num_written: int = 0
    is_open: bool = False  # a string's quote was written
    buffer: str = field(default="")

    def copy(self) -> Self:
        return copy.copy(self)

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
        return f"{'{' if self.num_written == 1 else ', '}{json.dumps(self.key, ensure_ascii=False)}: ", True

    def _value(self) -> tuple[str, bool]:
        assert self.key is not None
        end, found = self.style.value_end, self.kinds.get(self.key, frozenset({"string"}))
        meanings = self.style.meanings(found)
        text, ended_here, rest = self.buffer.partition(end)
        if not ended_here:
            keep = held_back(text, end)
            text, rest = text[: len(text) - keep], text[len(text) - keep :]
            if not self.is_open and any(literal.startswith(text) for literal in meanings):
                return "", False  # it may become one of them
        self.buffer = rest
        written = self._written(text, meanings, is_string="string" in found, is_whole=bool(ended_here))
        if ended_here:
            self.key, self.is_open = None, False
        return written, bool(ended_here)

    def _written(self, text: str, meanings: dict[str, str], *, is_string: bool, is_whole: bool) -> str:
        if is_whole and not self.is_open and text in meanings:
            return meanings[text]
        if not is_string:
            return text
        begin = "" if self.is_open else '"'
        self.is_open = True
        return begin + escaped(text) + ('"' if is_whole else "")
