"""Where drafted tokens come from: guesses at what a row will write, which one forward pass checks all at once.

A draft is right as far as it equals what is sampled at its positions. So it changes no answer, only what it costs, and
a row whose guesses do not pay stops guessing.
"""

from collections.abc import Sequence
from typing import Protocol

from engine.sequence import Sequence as Row

MAX_DRAFT = 8  # tokens
NGRAMS = (4, 3, 2)  # tokens that must have stood there before, the longest first


class DraftSource(Protocol):
    """Makes guesses. Used by the decoding thread only."""

    @property
    def cost_share(self) -> float:
        """What the guess of one token costs, in positions of the model itself."""

    def draft(self, row: Row, max_tokens: int) -> list[int]:
        """What may come after all that the row has, at most so many tokens; [] where there is no guess."""

    def forget(self, row: Row) -> None:
        """A row has ended."""


class PromptLookup:
    """What followed the last few tokens when they stood in the prompt, its tool definitions too, or in the answer.

    Saxena, "Prompt lookup decoding", github.com/apoorvumang/prompt-lookup-decoding.
    """

    cost_share = 0.0

    def __init__(self) -> None:
        self._rows: dict[Row, _Index] = {}

    def draft(self, row: Row, max_tokens: int) -> list[int]:
        index = self._rows.setdefault(row, _Index(list(row.prompt)))
        index.extend(row.output)
        return index.after_last(max_tokens)

    def forget(self, row: Row) -> None:
        self._rows.pop(row, None)


class _Index:
    """Where each n-gram of a text ended last, its very end left out."""

    def __init__(self, prompt: list[int]) -> None:
        self._text = prompt
        self._num_prompt = len(prompt)
        self._ends: dict[tuple[int, ...], int] = {}
        self._num_indexed = 0
        self._index()

    def extend(self, output: Sequence[int]) -> None:
        """output: all of it; it only grows."""
        self._text += output[len(self._text) - self._num_prompt :]
        self._index()

    def _index(self) -> None:
        for end in range(self._num_indexed + 1, len(self._text)):
            for length in NGRAMS:
                if length <= end:
                    self._ends[tuple(self._text[end - length : end])] = end
        self._num_indexed = max(self._num_indexed, len(self._text) - 1)

    def after_last(self, max_tokens: int) -> list[int]:
        for length in NGRAMS:
            end = self._ends.get(tuple(self._text[-length:]))
            if end is not None:
                return self._text[end : end + max_tokens]
        return []
