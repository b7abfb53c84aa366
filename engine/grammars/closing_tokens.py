"""A vocabulary's tokens in the order in which the search for a closing path tries them.

A token's order depends on where it begins: a quote inside a string closes it, outside it opens one. So there are two
lists of tokens that close something, and for all other text an order by length.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

QUOTE, BACKSLASH, NEWLINE = b'"\\\n'
OPENERS, CLOSERS = b"{[", b"}]"
WHOLE_WORDS = (b"null", b"true", b"false")
# What can stand outside JSON's strings, and what the families write around it.
OUTSIDE = frozenset(b'"{}[],:-+.0123456789eEtfn \n<')

# What stands before the quote that begins a string, and what follows the one that ends it.
BEFORE_STRING = frozenset(b" [{")
AFTER_STRING = frozenset(b",}]: \n")
CHUNK = 64
BROAD = 90  # first bytes; where so many may come, text is hardly bound

# Costs of what a token leaves behind; less than nothing for what it closes.
OPEN_BRACKET, OPEN_STRING, MORE_TO_COME, CLOSED_BRACKET = 8, 4, 3, -4

TokenIds = NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Choices:
    """The tokens that may come next at one place."""

    special: tuple[int, ...]  # allowed special tokens; those that end the turn are left out
    first_bytes: frozenset[int]  # with which the allowed tokens begin
    longest: tuple[int, ...]  # for each first byte the longest token, longest first
    closers: tuple[int, ...]  # that close something or are whole values, by what they leave behind
    openers: tuple[int, ...]  # that open a bracket and leave it open, likewise
    is_allowed: NDArray[np.bool_]  # by token id
    text: TokenIds  # all tokens that are text, allowed or not, longest first

    def shortest_first(self) -> Iterator[int]:
        """All that are text."""
        tokens = self.text[self.is_allowed[self.text]]
        for end in range(len(tokens), 0, -CHUNK):  # most often the first few are enough
            yield from tokens[max(0, end - CHUNK) : end][::-1].tolist()

    @property
    def is_broad(self) -> bool:
        return len(self.first_bytes) >= BROAD

    @property
    def is_stuck(self) -> bool:
        """Whether almost any text may come, and nothing shows what would end it.

        Where line breaks stand for themselves no JSON string is open, and a quote ends nothing.
        """
        return self.is_broad and (NEWLINE in self.first_bytes or not self.closers)


class TokenOrder:
    """The order of one vocabulary's tokens. Immutable; any thread may use it."""

    def __init__(
        self, token_bytes: Sequence[bytes | None], *, eos_ids: Collection[int], special_ids: Collection[int]
    ) -> None:
        """token_bytes: by id, what each token adds to the output; None or empty where an id is not in use.

        Takes about 0.2 s at 128k tokens.
        """
        self.token_bytes = tuple(each or b"" for each in token_bytes)
        self.num_words = (len(self.token_bytes) + 31) // 32
        never = set(eos_ids) | set(special_ids)
        text = [token for token, each in enumerate(self.token_bytes) if each and token not in never]
        self._special = np.array(sorted(set(special_ids) - set(eos_ids)), dtype=np.int64)
        # Of as many characters whole ones come before their first bytes.
        text.sort(key=lambda token: (-_num_characters(self.token_bytes[token]), -len(self.token_bytes[token]), token))
        self._text = np.array(text, dtype=np.int32)
        self._by_bytes = {self.token_bytes[token]: token for token in reversed(text)}
        self._longest = max(map(len, self._by_bytes), default=0)
        first = np.array([each[0] if each else 0 for each in self.token_bytes], dtype=np.uint8)[self._text]
        self._by_first = np.argsort(first, kind="stable").astype(np.int32)  # places in the text's order
        self._text_by_first = self._text[self._by_first]
        self._first_bytes, self._starts = np.unique(first[self._by_first], return_index=True)
        self._opening = self._opening_quotes(text)
        self._inside, self._openers_inside = self._by_cost(text, inside=True)
        self._outside, self._openers_outside = self._by_cost(text, inside=False)

    def _by_cost(self, text: Sequence[int], *, inside: bool) -> tuple[TokenIds, TokenIds]:
        """Closers and openers."""
        found = []
        for token in text:
            each = self.token_bytes[token]
            if (cost := cost_after(each, inside=inside)) is not None:
                # Of equals, those with the least inside strings; of these, those that say most.
                found.append((cost, _num_in_strings(each, inside=inside), -len(each), token))
        found.sort()
        closers: list[int] = []
        openers: list[int] = []
        for cost, *_, token in found:
            (openers if cost >= OPEN_BRACKET else closers).append(token)
        return np.array(closers, dtype=np.int32), np.array(openers, dtype=np.int32)

    def _opening_quotes(self, text: Sequence[int]) -> TokenIds:
        """Tokens that begin with a quote which must be a string's first: something of the string follows."""
        begun = [(token, self.token_bytes[token]) for token in text]
        return np.array(
            [t for t, each in begun if each[0] == QUOTE and len(each) > 1 and each[1] not in AFTER_STRING], np.int32
        )

    def choices(self, mask: NDArray[np.int32], last_byte: int | None) -> Choices:
        """mask: a row of a bitmask, of all the tokens' bits. last_byte: what stands before, if that is known."""
        allowed = np.unpackbits(mask.view(np.uint8), bitorder="little").view(bool)
        first_bytes, longest = self._by_first_byte(allowed)
        is_outside = OUTSIDE.issuperset(first_bytes.tolist()) and (
            QUOTE not in first_bytes or last_byte in BEFORE_STRING or bool(allowed[self._opening].any())
        )
        closers = self._outside if is_outside else self._inside
        openers = self._openers_outside if is_outside else self._openers_inside
        return Choices(
            special=tuple(self._special[allowed[self._special]].tolist()),
            first_bytes=frozenset(first_bytes.tolist()),
            longest=tuple(longest.tolist()),
            closers=tuple(closers[allowed[closers]].tolist()),
            openers=tuple(openers[allowed[openers]].tolist()),
            is_allowed=allowed,
            text=self._text,
        )

    def _by_first_byte(self, allowed: NDArray[np.bool_]) -> tuple[NDArray[np.uint8], TokenIds]:
        """The bytes with which the allowed tokens begin, and the longest token of each, longest first."""
        if not len(self._starts):
            return self._first_bytes, self._text
        never = len(self._text)
        places = np.where(allowed[self._text_by_first], self._by_first, never)
        best = np.minimum.reduceat(places, self._starts)
        is_there = best < never
        return self._first_bytes[is_there], self._text[np.sort(best[is_there])]

    def prefixes(self, text: bytes) -> list[int]:
        """The tokens with which the text begins, the longest first."""
        ends = range(min(len(text), self._longest), 0, -1)
        return [self._by_bytes[text[:end]] for end in ends if text[:end] in self._by_bytes]


def _num_characters(text: bytes) -> int:
    return sum(byte & 0xC0 != 0x80 for byte in text)


def _num_in_strings(text: bytes, *, inside: bool) -> int:
    return sum(map(len, text.split(b'"')[0 if inside else 1 :: 2]))


def cost_after(text: bytes, *, inside: bool) -> int | None:
    """What is left to be done after a token, beside what was open before it; None if it closes and holds nothing whole.

    inside: whether the token begins inside a JSON string.
    """
    if inside:
        content, quote, rest = text.partition(b'"')
        return None if not quote or b"\\" in content else cost_after(rest, inside=False) if rest else 0
    if not OUTSIDE.issuperset(text[:1]):
        return None
    if text.strip() in WHOLE_WORDS:
        return 0
    return _cost_outside(text)


def _cost_outside(text: bytes) -> int | None:
    opened = closed = 0
    for part, is_string in _parts(text):
        if is_string is None:
            return OPEN_BRACKET * opened + OPEN_STRING + CLOSED_BRACKET * closed
        for byte in b"" if is_string else part:
            if byte in OPENERS:
                opened += 1
            elif byte in CLOSERS and opened:
                opened -= 1
            elif byte in CLOSERS:
                closed += 1
    stripped = text.strip()
    if not stripped:
        return MORE_TO_COME
    last = stripped[-1]
    if last not in b'"}]{[,:':
        return None  # a number or word is begun
    left = MORE_TO_COME if last in b",:" else 0
    return OPEN_BRACKET * opened + left + CLOSED_BRACKET * closed


def _parts(text: bytes) -> Iterator[tuple[bytes, bool | None]]:
    """Text outside strings (False), whole strings (True), and a string that does not end (None)."""
    while text:
        outside, quote, rest = text.partition(b'"')
        yield outside, False
        if not quote:
            return
        string, end, text = rest.partition(b'"')
        yield string, True if end else None


def kind_of(byte: int) -> int:
    """Letters alike, digits alike, bytes beyond ASCII alike; each sign by itself."""
    char = chr(byte)
    return (
        ord("a") if char.islower() else ord("A") if char.isupper() else ord("0") if char.isdigit() else min(byte, 128)
    )
