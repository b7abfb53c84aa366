"""A Matcher around a Matcher: the grammar says which tokens may come, the veto takes away those that it must not take.

The mask is the grammar's alone. To veto in the mask would mean to read every allowed token; so tokens are vetoed one by
one, after they were drawn. A token that raises VetoError leaves the matcher as it was: draw another.
"""

import codecs
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from engine.errors import VetoError
from engine.events import TextDelta, ToolCallDelta, ToolCallStart
from engine.grammars.matcher import Matcher
from engine.grammars.turn_parser import ParsedEvent, TurnParser
from engine.grammars.veto import Veto


class Vocabulary(Protocol):
    """What is to be known of a tokenizer."""

    def token_bytes(self, token_id: int) -> bytes: ...

    @property
    def unspellable(self) -> Mapping[str, int]: ...

    @property
    def eos_ids(self) -> frozenset[int]: ...


@dataclass(frozen=True, slots=True)
class TurnVetoes:
    """Which schemas of a turn are under veto."""

    tools: Mapping[str, Veto] = field(default_factory=dict)  # by name: the schemas of their arguments
    response: Veto | None = None


class TurnReader:
    """Finds the JSON in a turn, token by token, and keeps the value that is being written."""

    def __init__(self, parser: TurnParser, vetoes: TurnVetoes, vocabulary: Vocabulary) -> None:
        """parser: at the turn's start; the reader's own from now on."""
        self._parser = parser
        self._vetoes = vetoes
        self._token_bytes = vocabulary.token_bytes
        self._unspellable = frozenset(vocabulary.unspellable.values())
        self._eos_ids = vocabulary.eos_ids
        self._open_bytes = b""  # the beginning of a character
        self.value = vetoes.response.start() if vetoes.response is not None else None  # the latest under veto

    def copy(self) -> Self:
        """An independent reader in the same state."""
        twin = object.__new__(type(self))
        twin.__dict__ |= self.__dict__
        twin._parser = self._parser.copy()
        twin.value = None if self.value is None else self.value.copy()
        return twin

    def after(self, token: int) -> Self:
        """A reader one token further. Raises VetoError where the token completes what a schema refuses."""
        twin = self.copy()
        if token in self._eos_ids:
            twin.finish()
            return twin
        text = twin._decode(self._token_bytes(token))
        for event in twin._parser.feed(text, special=token in self._unspellable):
            twin._take(event)
        return twin

    def finish(self) -> None:
        """The turn has ended. Raises VetoError where that completes what the schema refuses."""
        if self.value is not None and self.value.is_open_number:
            self.value.finish()

    def _decode(self, more: bytes) -> str:
        """The characters that these bytes complete; U+FFFD for bytes that are in none."""
        text, num_used = codecs.utf_8_decode(self._open_bytes + more, "replace", False)
        self._open_bytes = (self._open_bytes + more)[num_used:]
        return text

    def _take(self, event: ParsedEvent) -> None:
        match event:
            case ToolCallStart(name=name, custom=custom):
                veto = None if custom else self._vetoes.tools.get(name)
                self.value = None if veto is None else veto.start()
            case ToolCallDelta(arguments=text) | TextDelta(text) if self.value is not None:
                self.value.feed(text)


class VetoMatcher:
    """One sequence's place in its grammar, and in the values that it writes."""

    def __init__(self, inner: Matcher, reader: TurnReader) -> None:
        """inner, reader: both at the same point; the matcher's own from now on."""
        self._inner = inner
        self._reader = reader

    @property
    def must_look_ahead(self) -> bool:
        """Whether every token that may come here could be vetoed, so that a way to the end must be looked for.

        Where it is false, some token leads on; where it is true after a token, take that token only if, on copies of
        this matcher, tokens are found that complete the turn.
        """
        return self._reader.value is not None and self._reader.value.must_look_ahead

    @property
    def wanted(self) -> tuple[str, ...]:
        return () if self._reader.value is None else self._reader.value.wanted

    def accept(self, tokens: Sequence[int]) -> None:
        """Advance. Raises VetoError at a token that completes what a schema refuses; those before it stay accepted.

        The token that ends the turn is to be given too: it completes a response that is a number.
        """
        for token in tokens:
            after = self._reader.after(token)
            self._check_end(after, [token])
            self._inner.accept([token])
            self._reader = after

    def validate(self, tokens: Sequence[int]) -> int:
        legal = list(tokens[: self._inner.validate(tokens)])
        reader = self._reader
        for position, token in enumerate(legal):
            try:
                reader = reader.after(token)
                self._check_end(reader, legal[: position + 1])
            except VetoError:
                return position
        return len(legal)

    def _check_end(self, reader: TurnReader, tokens: Sequence[int]) -> None:
        """Where the grammar ends a number, no token tells that it is complete. tokens: from here to the reader."""
        if reader.value is not None and reader.value.is_open_number:
            inner = self._inner.copy()
            inner.accept(tokens)
            if inner.is_terminated:
                reader.copy().finish()

    def forced_tokens(self) -> list[int]:
        """The grammar's, up to the first that is vetoed."""
        forced = self._inner.forced_tokens()
        return forced[: self.validate(forced)]

    def fill_bitmask(self, row: NDArray[np.int32]) -> None:
        """The grammar's mask: tokens in it may still be vetoed."""
        self._inner.fill_bitmask(row)

    @property
    def grammar(self) -> Matcher:
        return self._inner.grammar

    @property
    def is_accepting(self) -> bool:
        if not self._inner.is_accepting:
            return False
        try:
            self._reader.copy().finish()
        except VetoError:
            return False
        return True

    @property
    def is_terminated(self) -> bool:
        return self._inner.is_terminated

    def copy(self) -> Self:
        return type(self)(self._inner.copy(), self._reader.copy())
