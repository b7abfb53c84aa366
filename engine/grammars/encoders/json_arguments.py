"""Arguments as one JSON object: what is written is what is meant."""

from dataclasses import dataclass, replace
from typing import Self

from engine.grammars.closing_bounds import longest_closing
from engine.grammars.encoders.arguments import ArgumentsGrammar, Read, Terminals
from engine.grammars.encoders.json_objects import json_rules
from engine.grammars.json_schema import CheckedSchema
from engine.types import JsonObject


@dataclass(frozen=True, slots=True)
class JsonArguments:
    """Most families' way. They end where their JSON ends, never where a marker is seen."""

    @property
    def text_ends(self) -> tuple[str, ...]:
        return ()

    @property
    def quotes(self) -> str:
        return ""

    def grammar(self, checked: CheckedSchema, *, name: str, path: str, terminals: Terminals) -> ArgumentsGrammar:
        del name, path, terminals
        bound = longest_closing(checked.schema)
        found = json_rules(checked.schema)
        return ArgumentsGrammar(checked.lark(), bound=bound) if found is None else replace(found, bound=bound)

    def reader(self, schema: JsonObject) -> "JsonReader":
        del schema
        return JsonReader()

    def write(self, arguments: str) -> str:
        return arguments


@dataclass(slots=True)
class JsonReader:
    """Finds the end of one JSON object or array in text that comes in pieces."""

    depth: int = 0
    in_string: bool = False
    escaped: bool = False

    def feed(self, text: str) -> Read:
        end = self.end(text)
        return Read(text) if end is None else Read(text[:end], text[end:])

    def copy(self) -> Self:
        return type(self)(self.depth, self.in_string, self.escaped)

    def end(self, text: str) -> int | None:
        """The position after the value's last character; None where it does not end in this piece."""
        if self.in_string and not self.escaped and '"' not in text and "\\" not in text:
            return None  # as of most pieces of a long string
        for position, character in enumerate(text):
            if self.in_string:
                self._inside_string(character)
            elif character == '"':
                self.in_string = True
            elif character in "{[":
                self.depth += 1
            elif character in "}]":
                self.depth -= 1
                if self.depth == 0:
                    return position + 1
        return None

    def _inside_string(self, character: str) -> None:
        if self.escaped:
            self.escaped = False
        elif character == "\\":
            self.escaped = True
        elif character == '"':
            self.in_string = False
