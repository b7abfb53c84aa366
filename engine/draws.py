"""From the logits of a step's rows to tokens and logprobs: masks on the host, one sampler for all, one wait."""

from collections.abc import Sequence as Rows
from dataclasses import dataclass, field, replace
from typing import cast

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from engine.cache import Cache
from engine.errors import GenerationError, MatcherError
from engine.events import TokenLogprob
from engine.grammars.matcher import Bitmask, GrammarCompiler, Matcher
from engine.model import LoadedModel
from engine.optional_places import OptionalPlaces
from engine.sampling.bitmask import WORD_BITS, allow_all, num_words
from engine.sampling.sampler import PositionLogprobs, SamplingRow, sample, top_logprobs
from engine.sequence import Sequence
from engine.types import SamplingParams
from engine.work import Work

MAX_BIAS = 100.0  # in natural log-odds: as good as never, or always
MAX_REDRAWS = 8  # at one position; then the turn goes the way that is known to complete it


@dataclass(slots=True)
class StepRow:
    """One sequence within one step."""

    sequence: Sequence
    tokens: list[int]  # of its forward pass; drafted ones stand last
    num_logits: int  # at the last of them; 0 inside a prompt
    draws: bool  # whether a token is to be sampled, at the last position, and at each before a drafted token
    drafts: list[int] = field(default_factory=list)
    scored: tuple[int, ...] = ()  # run behind them, where call or text is open, and taken back at once
    draft_cost: float = 0.0  # of making them, in positions
    is_guessable: bool = False  # whether there is, or in the next step may be, something to draft
    reads: bool = False  # whether tokens of a prompt are among them

    # Set as the step goes on. They stay until the tokens are accepted: one may have to be sampled again.
    logits: mx.array | None = None  # (num_logits, V)
    open_logits: mx.array | None = None  # (len(scored) + 1, V), where call or text is open
    marker: mx.array | None = None  # logprobs of what opens a call there
    bitmask: Bitmask | None = None  # (num_draws, W)
    drawn: list[int] = field(default_factory=list)  # per position: before the first drafted token, ..., after the last
    errors: dict[int, GenerationError] = field(default_factory=dict)  # by position

    @property
    def cache(self) -> Cache:
        """Of the sequence, which has begun."""
        assert self.sequence.cache is not None
        return self.sequence.cache

    @property
    def num_draws(self) -> int:
        return len(self.drafts) + 1 if self.draws else 0

    def drop_drafts(self, num_kept: int) -> None:
        """Take back the drafted tokens but the first few, whose forward pass has been launched."""
        num_dropped = len(self.drafts) - num_kept
        assert self.logits is not None
        assert self.sequence.cache is not None
        self.sequence.cache.trim(num_dropped)
        self.drafts = self.drafts[:num_kept]
        self.tokens = self.tokens[: len(self.tokens) - num_dropped]
        self.num_logits -= num_dropped
        self.logits = self.logits[: self.num_logits]


class Drawer:
    """Draws the tokens of rows whose forward passes have been launched."""

    def __init__(
        self, loaded: LoadedModel, compiler: GrammarCompiler, work: Work, marker_ids: frozenset[int] = frozenset()
    ) -> None:
        """marker_ids: tokens of the model's tool format, which free text of a conversation must not have."""
        self._tokenizer = loaded.tokenizer
        self._vocab_size = loaded.model.vocab_size
        self._compiler = compiler
        self._work = work
        forbidden = loaded.tokenizer.special_ids - loaded.tokenizer.eos_ids
        num_tokens, width = loaded.tokenizer.num_tokens, self._vocab_size
        self._optional = OptionalPlaces(loaded.tokenizer.token_bytes, num_tokens, self._vocab_size)
        self._free_row = allow_all(num_tokens, width, forbidden=forbidden | marker_ids)
        self._raw_row = allow_all(num_tokens, width, forbidden=forbidden)  # after a prompt of the caller's own tokens

    def launch(self, rows: Rows[StepRow]) -> mx.array:
        """The tokens of all positions of all rows, (N,), lazily. The device computes the logits meanwhile."""
        with self._work.timed("mask_s"):
            bitmask = self._fill_bitmasks(rows)
        with self._work.timed("sample_s"):
            positions = [(row, position) for row in rows for position in range(row.num_draws)]
            logits = [_drawn_logits(row) for row in rows]
            return _sample(logits, bitmask, [self._sampling_row(*position) for position in positions])

    def read(self, tokens: mx.array, *others: mx.array) -> list[int]:
        """Wait for the device. others: what is to be there then, too."""
        with self._work.timed("sample_s"):
            self._work.num_waits += 1
            mx.eval(tokens, *others)
            return cast("list[int]", tokens.tolist())

    def admit(self, row: StepRow, position: int) -> None:
        """Make what is drawn at a position a token that the sequence may take: it is to be taken next.

        Most often it is one. One that is not admitted leaves the mask, and the position is drawn again, from the same
        logits and the same noise. position: 0 where nothing is drafted. Raises MatcherError where no token is found.
        """
        if position in row.errors:
            raise row.errors[position]
        for _ in range(MAX_REDRAWS):
            if row.sequence.admits(row.drawn[position]):
                return
            if not self._redraw(row, position):
                break
        if (way_out := row.sequence.way_out) is None:
            raise MatcherError("no token was found after which the turn can be completed")
        row.drawn[position] = way_out
        row.sequence.admits(way_out)

    def redraw(self, row: StepRow) -> None:
        """Draw the first position again: the sequence has another bias now."""
        assert row.bitmask is not None
        self._draw_again(row, 0, row.bitmask[:1])

    def _redraw(self, row: StepRow, position: int) -> bool:
        """Draw again without what is drawn at this position. False where no other token may come."""
        assert row.bitmask is not None
        barred = row.drawn[position]
        bitmask = row.bitmask[position : position + 1]
        bitmask.view(np.uint32)[0, barred // WORD_BITS] &= ~np.uint32(1 << barred % WORD_BITS)
        if not bitmask.any():
            return False
        self._draw_again(row, position, bitmask)
        return True

    def _draw_again(self, row: StepRow, position: int, bitmask: Bitmask) -> None:
        assert row.logits is not None
        at = row.num_logits - row.num_draws + position
        # The sequence has taken all drafted tokens before this position by now.
        tokens = _sample([row.logits[at : at + 1]], bitmask, [self._sampling_row(row, 0, at=position)])
        (row.drawn[position],) = self.read(tokens)

    def _sampling_row(self, row: StepRow, position: int, *, at: int | None = None) -> SamplingRow:
        """at: the position in the row's bitmask, where the sequence has moved on since."""
        sequence = row.sequence
        output = [*sequence.output, *row.drafts[:position]] if position else sequence.output
        params = self._params(row, position if at is None else at)
        return SamplingRow(params, sequence.key, len(output), sequence.prompt, output)

    def _params(self, row: StepRow, position: int) -> SamplingParams:
        """As the request asks, with the biases that it asks for at some places only."""
        sequence, request = row.sequence, row.sequence.request
        bias = {} if sequence.point is None else sequence.point.bias
        if request.optional_bias is not None and row.bitmask is not None:
            bias = {**bias, **self._optional.bias(row.bitmask[position], request.optional_bias)}
        if not bias:
            return sequence.sampling
        asked = sequence.sampling.logit_bias
        added = {token: _within_limits(asked.get(token, 0.0) + more) for token, more in bias.items()}
        return replace(sequence.sampling, logit_bias={**asked, **added})

    def num_legal(self, sequence: Sequence, draft: Rows[int]) -> int:
        """How many tokens of a draft may be written, from the first on. May raise MatcherError."""
        if sequence.matcher is not None:
            return sequence.matcher.validate(draft)
        words = self._row_of(sequence).view(np.uint32)
        legal = [bool(words[token // WORD_BITS] >> np.uint32(token % WORD_BITS) & 1) for token in draft]
        return [*legal, False].index(False)

    def _row_of(self, sequence: Sequence) -> NDArray[np.int32]:
        """The mask of a sequence without a grammar."""
        return self._free_row if sequence.request.prompt is None else self._raw_row

    def _fill_bitmasks(self, rows: Rows[StepRow]) -> Bitmask:
        """The masks of all positions of all rows, (N, W); each row has a view of its own."""
        states = [_states(row) for row in rows]
        bitmask = np.empty((sum(row.num_draws for row in rows), num_words(self._vocab_size)), dtype=np.int32)
        places: list[tuple[StepRow, int]] = []
        constrained: list[tuple[Matcher, int]] = []
        for row, matchers in zip(rows, states, strict=True):
            first = len(places)
            row.bitmask = bitmask[first : first + row.num_draws]
            places += [(row, position) for position in range(row.num_draws)]
            if row.sequence.matcher is None:
                row.bitmask[:] = self._row_of(row.sequence)
            constrained += [(matcher, first + position) for position, matcher in enumerate(matchers)]
        for index, error in self._compiler.fill_bitmasks(constrained, bitmask).items():
            row, position = places[index]
            row.errors[position] = error
            bitmask[index] = self._free_row  # its token is thrown away
        return bitmask

    def logprobs(self, row: StepRow, token: int | None) -> list[TokenLogprob]:
        """Of the row's unscored output tokens, and of the one that was drawn, where they were asked for."""
        k = row.sequence.sampling.top_logprobs
        if k is None or row.num_logits == 0:
            return []
        assert row.logits is not None
        num_unscored = row.sequence.num_unscored
        unscored = row.sequence.output[len(row.sequence.output) - num_unscored :]
        written = unscored if token is None else [*unscored, token]
        own_vocabulary = row.logits[:, : self._tokenizer.num_tokens]
        self._work.num_waits += 1
        return [self._with_text(position) for position in top_logprobs(own_vocabulary, written, k).evaluate()]

    def _with_text(self, position: PositionLogprobs) -> TokenLogprob:
        token_bytes = self._tokenizer.token_bytes
        top = tuple(TokenLogprob(token, token_bytes(token), logprob) for token, logprob in position.top)
        token, logprob = position.own
        return TokenLogprob(token, token_bytes(token), logprob, top)


def _states(row: StepRow) -> list[Matcher]:
    """Where a row's grammar stands before each drafted token, and after the last; none where it has no grammar.

    A token that the matcher does not take after all is dropped with those behind it: its row goes on without them.
    """
    if row.sequence.matcher is None:
        return []
    states = [row.sequence.matcher]
    try:
        for token in row.drafts:
            following = states[-1].copy()
            following.accept([token])
            states.append(following)
    except MatcherError:  # it shows again if the token is drawn
        row.drop_drafts(len(states) - 1)
    return states


def _drawn_logits(row: StepRow) -> mx.array:
    """(num_draws, V). A slice of all rows would cost the host an operation."""
    assert row.logits is not None
    return row.logits if row.num_draws == row.num_logits else row.logits[row.num_logits - row.num_draws :]


def _sample(logits: list[mx.array], bitmask: Bitmask, rows: Rows[SamplingRow]) -> mx.array:
    return sample(logits[0] if len(logits) == 1 else mx.concatenate(logits), mx.array(bitmask), rows)


def _within_limits(bias: float) -> float:
    """What SamplingParams take."""
    return min(max(bias, -MAX_BIAS), MAX_BIAS)
