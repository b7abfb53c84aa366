"""A Matcher around the turn's: it closes the reasoning once its tokens are used up."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from engine.errors import MatcherError
from engine.grammars.matcher import Matcher
from engine.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class ReasoningTags:
    """How one model's reasoning begins and ends. Bytes are those of `token_bytes`."""

    begin: bytes  # empty where the prompt has opened it
    end: bytes
    end_tokens: tuple[int, ...]  # the end, as the tokenizer cuts it
    token_bytes: Callable[[int], bytes]  # of a special token, something that no text has


def reasoning_tags(begin: str, end: str, tokenizer: Tokenizer) -> ReasoningTags:
    """The tags of a family's reasoning in a vocabulary."""
    special = frozenset(tokenizer.unspellable.values())

    def token_bytes(token: int) -> bytes:
        return b"\xff%d\xff" % token if token in special else tokenizer.token_bytes(token)

    def cut(tag: str) -> tuple[int, ...]:
        return tuple(tokenizer.encode_parts(["", tag]))  # inside of a text: without SentencePiece's first space

    def written(tag: str) -> bytes:
        return b"".join(map(token_bytes, cut(tag)))

    return ReasoningTags(written(begin), written(end), cut(end), token_bytes)


@dataclass(slots=True)
class ReasoningBudget:
    """Once `budget` tokens of reasoning were written, only its end can follow; the rest is the inner matcher's."""

    inner: Matcher
    tags: ReasoningTags
    budget: int  # tokens between the tags
    _tokens: list[int] = field(default_factory=list)  # accepted until the reasoning was over, or was none
    _begun_at: int | None = None  # the number of them when it began
    _is_over: bool = False

    def __post_init__(self) -> None:
        if not self.tags.begin:
            self._begun_at = 0

    def accept(self, tokens: Sequence[int]) -> None:
        for token in tokens:
            if (closing := self._closing()) and token != closing[0]:
                raise MatcherError(f"token {token} is not allowed here: the reasoning's budget is used up")
            self.inner.accept([token])
            self._note(token)

    def _note(self, token: int) -> None:
        if self._is_over:
            return
        self._tokens.append(token)
        if self._begun_at is None:
            begin, written = self.tags.begin, self._written(self._tokens)
            if written == begin:
                self._begun_at = len(self._tokens)
            else:
                self._is_over = not begin.startswith(written)
        else:
            # Every token has a byte: no more tokens than these can be part of an end that the last one completes.
            last = self._tokens[self._begun_at :][-len(self.tags.end) :]
            self._is_over = self.tags.end in self._written(last)

    def _written(self, tokens: Sequence[int]) -> bytes:
        return b"".join(map(self.tags.token_bytes, tokens))

    def _closing(self) -> list[int]:
        """The tokens that must come next, where the budget is used up."""
        if self._is_over or self._begun_at is None or len(self._tokens) - self._begun_at < self.budget:
            return []
        end = list(self.tags.end_tokens)
        inside = self._tokens[self._begun_at :]
        num_written = next(n for n in range(len(end) - 1, -1, -1) if inside[len(inside) - n :] == end[:n])
        rest = end[num_written:]
        # Inside of a character nothing but its other bytes can come.
        return rest[: self.inner.validate(rest)]

    def validate(self, tokens: Sequence[int]) -> int:
        probe = self.copy()
        for number, token in enumerate(tokens):
            try:
                probe.accept([token])
            except MatcherError:
                return number
        return len(tokens)

    def forced_tokens(self) -> list[int]:
        return self._closing() or self.inner.forced_tokens()

    def fill_bitmask(self, row: NDArray[np.int32]) -> None:
        self.inner.fill_bitmask(row)
        if closing := self._closing():
            row[:] = 0
            row.view(np.uint32)[closing[0] // 32] |= np.uint32(1 << closing[0] % 32)

    @property
    def is_accepting(self) -> bool:
        return self.inner.is_accepting

    @property
    def is_terminated(self) -> bool:
        return self.inner.is_terminated

    @property
    def grammar(self) -> Matcher:
        return self.inner.grammar

    @property
    def must_look_ahead(self) -> bool:
        return self.inner.must_look_ahead

    @property
    def wanted(self) -> tuple[str, ...]:
        return self.inner.wanted

    def copy(self) -> Self:
        return replace(
            self,
            inner=self.inner.copy(),
            _tokens=list(self._tokens),
        )
