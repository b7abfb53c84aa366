"""Literals of a language that is not JSON, read as JSON, in pieces."""

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

from engine.grammars.encoders.arguments import Read
from engine.grammars.encoders.raw_strings import escaped
from engine.grammars.marks import held_back

SIGNS = frozenset(",[]{}()")


@dataclass(slots=True)
class LiteralReader:
    """Reads `key=value` pairs. A word is read once what follows it is there; strings come out as they come."""

    equals: str
    nested_equals: str
    quote: str  # none: strings are JSON's
    close: str  # ends the arguments, where nothing is open
    words: Mapping[str, str]  # true, false, null as they are written -> as JSON
    buffer: str = field(default="")
    depth: int = 0
    in_string: bool = False
    is_escaped: bool = False
    has_begun: bool = False

    def copy(self) -> Self:
        return copy.copy(self)

    def feed(self, text: str) -> Read:
        self.buffer += text
        written = "" if self.has_begun else "{"
        self.has_begun = True
        while self.buffer:
            if not self.in_string and self.depth == 0 and self.buffer.startswith(self.close):
                rest, self.buffer = self.buffer, ""
                return Read(written + "}", rest)
            piece = self._string() if self.in_string else self._outside()
            if piece is None:
                break
            written += piece
        return Read(written)

    def _outside(self) -> str | None:
        """The next sign or word as JSON; None while it is not whole."""
        if self.buffer[0] == " ":
            self.buffer = self.buffer[1:]
            return ""
        begin = self.quote or '"'
        if self.buffer.startswith(begin):
            self.in_string = True
            self.buffer = self.buffer[len(begin) :]
            return '"'
        if self.quote and begin.startswith(self.buffer):
            return None
        if self.buffer[0] in SIGNS:
            return self._sign()
        return self._colon() if self.buffer[0] in self._equals_signs else self._word()

    @property
    def _equals_signs(self) -> str:
        return self.equals[0] + self.nested_equals[0]

    def _sign(self) -> str:
        sign, self.buffer = self.buffer[0], self.buffer[1:]
        self.depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(sign, 0)
        return ", " if sign == "," else sign

    def _colon(self) -> str:
        self.buffer = self.buffer[1:]
        return ": "

    def _word(self) -> str | None:
        """A number, a name of a value or of a key."""
        ends = SIGNS | set(self._equals_signs) | {" ", (self.quote or '"')[0]}
        end = next((at for at, character in enumerate(self.buffer) if character in ends), None)
        if end is None:
            return None
        word, self.buffer = self.buffer[:end], self.buffer[end:]
        if self.buffer[0] in self._equals_signs:
            return json.dumps(word, ensure_ascii=False)
        return self.words.get(word, word)

    def _string(self) -> str | None:
        return self._raw() if self.quote else self._quoted()

    def _raw(self) -> str | None:
        text, found, rest = self.buffer.partition(self.quote)
        if not found:
            keep = held_back(text, self.quote)
            text, rest = text[: len(text) - keep], text[len(text) - keep :]
        self.buffer, self.in_string = rest, not found
        return escaped(text) + ('"' if found else "") if text or found else None

    def _quoted(self) -> str:
        for at, character in enumerate(self.buffer):
            if self.is_escaped:
                self.is_escaped = False
            elif character == "\\":
                self.is_escaped = True
            elif character == '"':
                text, self.buffer = self.buffer[: at + 1], self.buffer[at + 1 :]
                self.in_string = False
                return text
        text, self.buffer = self.buffer, ""
        return text
