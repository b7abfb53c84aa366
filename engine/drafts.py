"""Where drafted tokens come from: guesses at what a row will write, which one forward pass checks all at once.

A draft is right as far as it equals what is sampled at its positions. So it changes no answer, only what it costs, and
a row whose guesses do not pay stops guessing.
"""

import logging
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, cast

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from engine.errors import ConfigError, MatcherError
from engine.model import Chunk, LoadedModel
from engine.sequence import MAX_NARROW, DraftMemory
from engine.sequence import Sequence as Row

logger = logging.getLogger(__name__)

MAX_DRAFT = 8  # tokens
MIN_NGRAM, MAX_NGRAM = 2, 4  # tokens that must have stood there before


@dataclass(frozen=True, slots=True)
class Draft:
    """A guess."""

    tokens: list[int] = field(default_factory=list)  # none: no guess
    cost_share: float = 0.0  # what it cost, in forward passes of the model itself

    # What a drafting model did, for it or for later ones.
    num_passes: int = 0
    num_positions: int = 0
    num_waits: int = 0


class DraftSource(Protocol):
    """Makes guesses. Used by the decoding thread only."""

    @property
    def bytes_per_token(self) -> int:
        """Of keys and values, what it may keep of each token of a row; the row's own release gives them back."""

    def begin_step(self, max_chunk: int, *, others_wait: bool) -> None:
        """So many tokens of what rows have may be read by a model in one pass; where others wait, in one step.

        For a row with more to read nothing is guessed until it is read, in this step and the next ones.
        """

    def may_guess(self, row: Row) -> bool:
        """Whether `draft` is worth being asked. Asks no model."""

    def draft(self, row: Row, max_tokens: int) -> Draft:
        """What may come after all that the row has, at most so many tokens. May raise MatcherError."""

    def forget(self, row: Row) -> None:
        """A row has ended."""


class PromptLookup:
    """What followed the last few tokens when they stood in the prompt, its tool definitions too, or in the answer.

    Saxena, "Prompt lookup decoding", github.com/apoorvumang/prompt-lookup-decoding.
    """

    bytes_per_token = 0

    def __init__(self) -> None:
        self._texts: dict[Row, array[int]] = {}

    def begin_step(self, max_chunk: int, *, others_wait: bool) -> None:
        """It asks no model."""

    def may_guess(self, row: Row) -> bool:
        return _last_recurrence(self._text(row)) is not None

    def draft(self, row: Row, max_tokens: int) -> Draft:
        tokens = self._text(row)
        end = _last_recurrence(tokens)
        return Draft([] if end is None else tokens[end : end + max_tokens].tolist())

    def _text(self, row: Row) -> NDArray[np.intc]:
        """All that the row has. Not to be kept: it is a view of what grows."""
        text = self._texts.setdefault(row, array("i", row.prompt))
        text.extend(row.output[len(text) - len(row.prompt) :])
        return np.frombuffer(text, dtype=np.intc)

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
        self._failed: set[Row] = set()  # rows that it is asked about no more
        self._max_read, self._others_wait = 0, True  # tokens in one pass; where others wait, what is left of the step's
        own, others = drafter.tokenizer, model.tokenizer
        if own.num_tokens != others.num_tokens or any(
            own.token_bytes(token) != others.token_bytes(token) for token in range(own.num_tokens)
        ):
            raise ConfigError(f"draft_model is {drafter.name}; its vocabulary is not that of {model.name}")
        if not self._memory.can_cut:
            raise ConfigError(f"draft_model is {drafter.name}; its architecture's cache cannot take guesses back")

    @property
    def bytes_per_token(self) -> int:
        return self._memory.bytes_per_token

    def begin_step(self, max_chunk: int, *, others_wait: bool) -> None:
        self._max_read, self._others_wait = max_chunk, others_wait

    def may_guess(self, row: Row) -> bool:
        return row not in self._failed and self._room(row) > 0

    def _room(self, row: Row) -> int:
        """Tokens that it can guess behind what the row has: it need not read the last one of them."""
        return self._model.context_length + 1 - len(row.prompt) - len(row.output)

    def draft(self, row: Row, max_tokens: int) -> Draft:
        if not self.may_guess(row):
            return Draft()
        max_tokens = min(max_tokens, self._room(row))
        try:
            draft = self._draft(row, max_tokens)
            if self._others_wait:
                self._max_read = max(0, self._max_read - draft.num_positions)
            return draft
        except MatcherError:  # the row's own
            raise
        except Exception:  # whatever the device raised: the row needs no guesses, nor do those beside it
            logger.exception("the drafting model failed; a row goes on without its guesses")
            self._failed.add(row)
            row.release_drafts()
            return Draft()

    def _draft(self, row: Row, max_tokens: int) -> Draft:
        memory = row.draft_memory = row.draft_memory or DraftMemory(self._memory.make_cache())
        text = [*row.prompt, *row.output]
        memory.cut(min(num_equal(memory.tokens, text), len(text) - 1))  # the last token's logits are wanted
        num_known, num_read = len(memory.tokens), 0
        while len(text) - len(memory.tokens) > max(self._max_read, MAX_NARROW):
            if self._max_read:
                self._read(memory, text[len(memory.tokens) :][: self._max_read])
                num_read += 1
            if self._others_wait:
                return Draft(num_passes=num_read, num_positions=len(memory.tokens) - num_known)
        tokens: list[int] = []
        while len(tokens) < max_tokens and _is_legal(row, tokens):
            logits = self._forward(memory, [*text, *tokens][len(memory.tokens) :], num_logits=1)
            tokens.append(cast("int", mx.argmax(logits[-1, : self._num_tokens]).item()))
        num_guessed, num_positions = len(tokens), len(memory.tokens) - num_known
        return Draft(
            tokens, self._cost_share * num_guessed, num_read + num_guessed, num_positions, num_waits=num_guessed
        )

    def _read(self, memory: DraftMemory, tokens: list[int]) -> None:
        """A chunk of a prompt; the device is not waited for."""
        logits = self._forward(memory, tokens, num_logits=0)
        mx.async_eval(logits, *memory.cache.arrays())

    def _forward(self, memory: DraftMemory, tokens: list[int], num_logits: int) -> mx.array:
        logits = self._model.forward([Chunk(tokens, memory.cache, num_logits)])
        memory.tokens += tokens
        return logits

    def forget(self, row: Row) -> None:
        self._failed.discard(row)


class FirstGuess:
    """The first guess that any of several sources has. One that asks a model stands last: its work is told in full."""

    def __init__(self, sources: Sequence[DraftSource]) -> None:
        self._sources = sources

    @property
    def bytes_per_token(self) -> int:
        return sum(source.bytes_per_token for source in self._sources)

    def begin_step(self, max_chunk: int, *, others_wait: bool) -> None:
        for source in self._sources:
            source.begin_step(max_chunk, others_wait=others_wait)

    def may_guess(self, row: Row) -> bool:
        return any(source.may_guess(row) for source in self._sources)

    def draft(self, row: Row, max_tokens: int) -> Draft:
        draft = Draft()
        for source in self._sources:
            draft = source.draft(row, max_tokens)
            if draft.tokens:
                break
        return draft

    def forget(self, row: Row) -> None:
        for source in self._sources:
            source.forget(row)


def _is_legal(row: Row, tokens: list[int]) -> bool:
    return row.matcher is None or row.matcher.validate(tokens) == len(tokens)


def num_equal(one: Sequence[int], other: Sequence[int]) -> int:
    """The length of the longest common beginning."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((index for index, (a, b) in pairs if a != b), min(len(one), len(other)))
