"""Literals of a language that is not JSON, read as JSON, in pieces."""

import copy
import json
from dataclasses import dataclass
from typing import Self

from engine.grammars.encoders.arguments import Read
from engine.grammars.encoders.literal_style import LiteralStyle
from engine.grammars.encoders.raw_strings import escaped
from engine.grammars.marks import held_back

SIGNS = frozenset(",[]{}()")
SINGLE = "'"


@dataclass(slots=True)
class LiteralReader:
    """A word is read once what follows it is there; strings come out as they come."""

    style: LiteralStyle
    equals: str  # between an argument's name and its value
    close: str  # ends what is read, where nothing is open
    begin: str = ""  # in the JSON, before all else
    end: str = ""  # in the JSON, after all else
    buffer: str = ""
    depth: int = 0
    open_quote: str = ""  # of the string that is being read
    is_escaped: bool = False
    has_begun: bool = False

    def copy(self) -> Self:
        return copy.copy(self)

    def feed(self, text: str) -> Read:
        self.buffer += text
        written = "" if self.has_begun else self.begin
        self.has_begun = True
        while self.buffer:
            if not self.open_quote and self.depth == 0:
                if self.buffer.startswith(self.close):
                    rest, self.buffer = self.buffer, ""
                    return Read(written + self.end, rest)
                if self.close.startswith(self.buffer):
                    break
            piece = self._string() if self.open_quote else self._outside()
            if piece is None:
                break
            written += piece
        return Read(written)

    @property
    def _quotes(self) -> tuple[str, ...]:
        return (self.style.quote,) if self.style.quote else ('"', SINGLE)

    def _outside(self) -> str | None:
        """The next sign or word as JSON; None while it is not whole."""
        if self.buffer[0] == " ":
            self.buffer = self.buffer[1:]
            return ""
        for quote in self._quotes:
            if self.buffer.startswith(quote):
                self.open_quote, self.buffer = quote, self.buffer[len(quote) :]
                return '"'
            if quote.startswith(self.buffer):
                return None
        if self.buffer[0] in SIGNS:
            return self._sign()
        return self._colon() if self.buffer[0] in self._equals_signs else self._word()

    @property
    def _equals_signs(self) -> str:
        return self.equals[0] + self.style.equals[0]

    def _sign(self) -> str:
        sign, self.buffer = self.buffer[0], self.buffer[1:]
        self.depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(sign, 0)
        return ", " if sign == "," else sign

    def _colon(self) -> str:
        self.buffer = self.buffer[1:]
        return ": "

    def _word(self) -> str | None:
        """A number, a name of a value or of a key."""
        ends = SIGNS | set(self._equals_signs) | {" ", *(quote[0] for quote in self._quotes), self.close[0]}
        end = next((at for at, character in enumerate(self.buffer) if character in ends), None)
        if end is None:
            return None
        word, self.buffer = self.buffer[:end], self.buffer[end:]
        if self.buffer[0] in self._equals_signs:
            return json.dumps(word, ensure_ascii=False)
        return self.style.words.get(word, word)

    def _string(self) -> str | None:
        return self._raw() if self.style.quote else self._quoted()

    def _raw(self) -> str | None:
        text, found, rest = self.buffer.partition(self.style.quote)
        if found:
            self.open_quote = ""
        else:
            keep = held_back(text, self.style.quote)
            text, rest = text[: len(text) - keep], text[len(text) - keep :]
        self.buffer = rest
        return escaped(text) + ('"' if found else "") if text or found else None

    def _quoted(self) -> str:
        """What there is of a string in quotes; Python's escapes that the grammar lets through are JSON's, but one."""
        written = ""
        for at, character in enumerate(self.buffer):
            if self.is_escaped:
                self.is_escaped = False
                written += character if character == SINGLE else f"\\{character}"
            elif character == "\\":
                self.is_escaped = True
            elif character == self.open_quote:
                self.open_quote, self.buffer = "", self.buffer[at + 1 :]
                return written + '"'
            else:
                written += '\\"' if character == '"' else character
        self.buffer = ""
        return written
