"""What an argument encoder is: one way of writing a call's arguments, with its grammar, its reader and its writer."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, Self

from engine.events import ReceiptEntry
from engine.grammars.closing_bounds import ClosingBound
from engine.grammars.json_schema import CheckedSchema
from engine.types import JsonObject

Terminals = Callable[[str], str]
"""A literal as a sequence of the grammar's terminals: special tokens among them by their ids."""


@dataclass(frozen=True, slots=True)
class ArgumentsGrammar:
    """How one tool's arguments stand in the turn's grammar."""

    body: str
    rules: tuple[str, ...] = ()  # that the body refers to
    entries: tuple[ReceiptEntry, ...] = ()
    bound: ClosingBound | None = None  # on what completes the arguments, from any of their states; None: not known
    sources: tuple[tuple[str, str], ...] = ()  # (path, whole grammar) of the parts, to see which is to blame


@dataclass(frozen=True, slots=True)
class Read:
    """What a piece of text adds to the arguments as JSON."""

    json: str
    rest: str | None = None  # the text after the arguments' end; None while they go on


class ArgumentsReader(Protocol):
    """Reads one call's arguments, which come in pieces, as JSON."""

    def feed(self, text: str) -> Read:
        """Take more text."""

    def copy(self) -> Self:
        """An independent reader in the same state."""


class Arguments(Protocol):
    """One way of writing arguments. A family has one; its literals are the family's."""

    @property
    def text_ends(self) -> tuple[str, ...]:
        """What ends a string that is written as it is; none where strings have quotes."""

    @property
    def quotes(self) -> str:
        """The quotes that a string may have either of, ours first; none where there is no choice."""

    def grammar(self, checked: CheckedSchema, *, name: str, path: str, terminals: Terminals) -> ArgumentsGrammar:
        """The arguments that satisfy the schema. name: for rules. SchemaError, by path, for what cannot be written."""

    def reader(self, schema: JsonObject) -> ArgumentsReader:
        """A reader at the beginning of arguments that the grammar of this schema let through."""

    def write(self, arguments: str) -> str:
        """Arguments, given as JSON text, as the model would write them."""
