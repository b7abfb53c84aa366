"""Where drafted tokens come from: guesses at what a row will write, which one forward pass checks all at once.

A draft is right as far as it equals what is sampled at its positions. So it changes no answer, only what it costs, and
a row whose guesses do not pay stops guessing.
"""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, cast

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from engine.cache import Cache
from engine.errors import ConfigError
from engine.model import Chunk, LoadedModel
from engine.sequence import Sequence as Row

MAX_DRAFT = 8  # tokens
MAX_CHUNK = 512  # tokens of a prompt in one forward pass of the drafting model
MIN_NGRAM, MAX_NGRAM = 2, 4  # tokens that must have stood there before


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
        self._texts: dict[Row, array[int]] = {}

    def draft(self, row: Row, max_tokens: int) -> Draft:
        text = self._texts.setdefault(row, array("i", row.prompt))
        text.extend(row.output[len(text) - len(row.prompt) :])
        tokens = np.frombuffer(text, dtype=np.intc)
        end = _last_recurrence(tokens)
        return Draft([] if end is None else tokens[end : end + max_tokens].tolist())

    def forget(self, row: Row) -> None:
        self._texts.pop(row, None)


def _last_recurrence(tokens: NDArray[np.intc]) -> int | None:
    """Where the tokens at the end stood before: the index behind them, of the longest match, of equals the latest."""
    ends = np.flatnonzero(tokens[:-1] == tokens[-1]) + 1
    found = None
    for length in range(MIN_NGRAM, MAX_NGRAM + 1):
        ends = ends[ends >= length]
        ends = ends[tokens[ends - length] == tokens[-min(length, len(tokens))]]
        if not ends.size:
            break
        found = int(ends[-1])
    return found


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
