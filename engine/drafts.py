"""Where drafted tokens come from: guesses at what a row will write, which one forward pass checks all at once.

A draft is right as far as it equals what is sampled at its positions. So it changes no answer, only what it costs, and
a row whose guesses do not pay stops guessing.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, cast

import mlx.core as mx

from engine.cache import Cache
from engine.errors import ConfigError
from engine.model import Chunk, LoadedModel
from engine.sequence import Sequence as Row

MAX_DRAFT = 8  # tokens
MAX_CHUNK = 512  # tokens of a prompt in one forward pass of the drafting model
NGRAMS = (4, 3, 2)  # tokens that must have stood there before, the longest first


@dataclass(frozen=True, slots=True)
class Draft:
    """A guess."""

    tokens: list[int] = field(default_factory=list)  # none: no guess
    cost_share: float = 0.0  # what it cost, in forward passes of the model itself


class DraftSource(Protocol):
    """Makes guesses. Used by the decoding thread only."""

    def draft(self, row: Row, max_tokens: int) -> Draft:
        """What may come after all that the row has, at most so many tokens."""

    def forget(self, row: Row) -> None:
        """A row has ended."""


class PromptLookup:
    """What followed the last few tokens when they stood in the prompt, its tool definitions too, or in the answer.

    Saxena, "Prompt lookup decoding", github.com/apoorvumang/prompt-lookup-decoding.
    """

    def __init__(self) -> None:
        self._rows: dict[Row, _Index] = {}

    def draft(self, row: Row, max_tokens: int) -> Draft:
        index = self._rows.setdefault(row, _Index(list(row.prompt)))
        index.extend(row.output)
        return Draft(index.after_last(max_tokens))

    def forget(self, row: Row) -> None:
        self._rows.pop(row, None)


class ModelDrafts:
    """What a smaller model with the same vocabulary writes, greedily.

    Leviathan et al., "Fast inference from transformers via speculative decoding", arXiv:2211.17192; here a guess is
    right where it equals the token that is sampled, which keeps a seed's answer and not only its distribution.
    """

    def __init__(self, drafter: LoadedModel, model: LoadedModel) -> None:
        """Raises ConfigError where the two do not have the same tokens, or the drafter's cache cannot be trimmed."""
        self._model = drafter.model
        self._num_tokens = drafter.tokenizer.num_tokens
        self._memory = drafter.model.make_memory()
        self._cost_share = drafter.model.num_weights / model.model.num_weights
        self._rows: dict[Row, tuple[Cache, list[int]]] = {}  # and what it has seen
        own, others = drafter.tokenizer, model.tokenizer
        if own.num_tokens != others.num_tokens or any(
            own.token_bytes(token) != others.token_bytes(token) for token in range(own.num_tokens)
        ):
            raise ConfigError(f"draft_model is {drafter.name}; its vocabulary is not that of {model.name}")
        if not self._memory.can_cut:
            raise ConfigError(f"draft_model is {drafter.name}; its architecture's cache cannot take guesses back")

    def draft(self, row: Row, max_tokens: int) -> Draft:
        if row not in self._rows:
            self._rows[row] = self._memory.make_cache(), []
        cache, seen = self._rows[row]
        text = [*row.prompt, *row.output]
        num_known = min(num_equal(seen, text), len(text) - 1)  # the last token's logits are wanted
        cache.trim(len(seen) - num_known)
        del seen[num_known:]
        tokens: list[int] = []
        while len(tokens) < max_tokens and _is_legal(row, tokens):
            pending = [*text, *tokens][len(seen) :]
            for start in range(0, len(pending), MAX_CHUNK):
                logits = self._model.forward([Chunk(pending[start : start + MAX_CHUNK], cache, num_logits=1)])
            seen += pending
            tokens.append(cast("int", mx.argmax(logits[-1, : self._num_tokens]).item()))
        return Draft(tokens, self._cost_share * len(tokens))

    def forget(self, row: Row) -> None:
        if row in self._rows:
            self._rows.pop(row)[0].release()


class FirstGuess:
    """The first guess that any of several sources has."""

    def __init__(self, sources: Sequence[DraftSource]) -> None:
        self._sources = sources

    def draft(self, row: Row, max_tokens: int) -> Draft:
        drafts = (source.draft(row, max_tokens) for source in self._sources)
        return next((draft for draft in drafts if draft.tokens), Draft())

    def forget(self, row: Row) -> None:
        for source in self._sources:
            source.forget(row)


def _is_legal(row: Row, tokens: list[int]) -> bool:
    return row.matcher is None or row.matcher.validate(tokens) == len(tokens)


def num_equal(one: Sequence[int], other: Sequence[int]) -> int:
    """The length of the longest common beginning."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((index for index, (a, b) in pairs if a != b), min(len(one), len(other)))


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
