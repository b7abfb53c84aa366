"""Arguments as literals of a language that is not JSON: Python's keyword arguments, Gemma's notation."""

import json
from dataclasses import dataclass
from typing import Any

from engine.grammars.encoders.arguments import ArgumentsGrammar, Terminals
from engine.grammars.encoders.literal_grammar import LiteralGrammar
from engine.grammars.encoders.literal_reader import SINGLE, LiteralReader
from engine.grammars.encoders.literal_style import LiteralStyle
from engine.grammars.json_schema import CheckedSchema
from engine.types import JsonObject


@dataclass(frozen=True, slots=True)
class LiteralArguments:
    """key, equals, value, the values' separator, and so on."""

    values: LiteralStyle
    equals: str  # between an argument's name and its value; literal text
    close: str  # what follows the arguments; it cannot begin anything inside

    @property
    def text_ends(self) -> tuple[str, ...]:
        return ()

    @property
    def quotes(self) -> str:
        return f'"{SINGLE}' if self.values.mixed else ""

    def grammar(self, checked: CheckedSchema, *, name: str, path: str, terminals: Terminals) -> ArgumentsGrammar:
        assert isinstance(checked.schema, dict)
        rules = LiteralGrammar(self.values, checked.schema, name, terminals)
        body = rules.arguments(path, self.equals)
        return ArgumentsGrammar(body, rules.rules, rules.entries)

    def reader(self, schema: JsonObject) -> LiteralReader:
        del schema
        return LiteralReader(self.values, equals=self.equals, close=self.close, begin="{", end="}")

    def write(self, arguments: str) -> str:
        values: dict[str, Any] = json.loads(arguments)
        pairs = (f"{key}{self.equals}{self.values.written(value)}" for key, value in self.values.in_order(values))
        return self.values.separator.join(pairs)
