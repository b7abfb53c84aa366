"""THE step function: every forward pass of the engine, for the prompt, for sampled and for forced tokens alike.

launch forward(pending tokens of every row)          the device is busy from here on
fill the bitmask of every row, on the host           meanwhile
mask, sample, launch                                 no wait between
wait for the sampled tokens                          the one wait (logprobs, where asked for, are a second)
every row: accept the token, then what the grammar forces; both become pending
"""

import time
from collections.abc import Iterator
from collections.abc import Sequence as Rows
from contextlib import contextmanager
from dataclasses import dataclass, field

import mlx.core as mx
import numpy as np

from engine.cache import Cache
from engine.errors import GenerationError, MatcherError
from engine.events import StopReason, TokenLogprob
from engine.grammars.matcher import Bitmask, GrammarCompiler
from engine.memory import Memory
from engine.model import Chunk, LanguageModel, LoadedModel
from engine.passes import PASS_COST_CPU, PASS_COST_GPU, plan_passes
from engine.prefix_cache import PrefixCache, SnapshotCache
from engine.sampling.bitmask import WORD_BITS, allow_all, num_words
from engine.sampling.sampler import PositionLogprobs, SamplingRow, sample, top_logprobs
from engine.sequence import Sequence

MAX_REDRAWS = 8  # at one position; then the turn goes the way that is known to complete it


@dataclass(slots=True)
class Progress:
    """What one step did to one sequence."""

    tokens: list[int] = field(default_factory=list)  # new output
    logprobs: list[TokenLogprob] = field(default_factory=list)  # of output tokens, in order, where asked for
    error: GenerationError | None = None


@dataclass(slots=True)
class Work:
    """What the steps of an engine did since its start, counted, and where the decoding thread's time went."""

    num_steps: int = 0
    num_passes: int = 0
    num_positions: int = 0  # of all passes, padding included
    num_padding: int = 0  # of them
    num_ahead: int = 0  # passes that were launched before their tokens were read
    num_waits: int = 0  # for the device
    forward_s: float = 0.0  # launching passes; where the device's queue is short, waiting for it too
    mask_s: float = 0.0  # filling bitmasks
    sample_s: float = 0.0  # launching the sampler, and waiting for its tokens
    step_s: float = 0.0  # all of it; what is left is Python between

    @contextmanager
    def timed(self, part: str) -> Iterator[None]:
        """Add the time of a block to one of the fields."""
        start = time.perf_counter()
        try:
            yield
        finally:
            setattr(self, part, getattr(self, part) + time.perf_counter() - start)


@dataclass(slots=True)
class _Row:
    """One sequence within one step."""

    sequence: Sequence
    tokens: list[int]  # of its forward pass
    num_logits: int  # at the last of them; 0 inside a prompt
    draws: bool  # whether a token is to be sampled, at the last
    reads: bool = False  # whether tokens of a prompt are among them

    # Set as the step goes on. They stay until the token is accepted: it may have to be sampled again.
    logits: mx.array | None = None  # (num_logits, V)
    bitmask: Bitmask | None = None  # (1, W)
    error: GenerationError | None = None


class Stepper:
    """A model with what a step needs beside it. Used by the decoding thread only."""

    def __init__(
        self,
        loaded: LoadedModel,
        compiler: GrammarCompiler,
        *,
        kv_bits: int | None = None,
        look_ahead: bool = True,
        max_prefix_bytes: int = 0,
        marker_ids: frozenset[int] = frozenset(),
    ) -> None:
        """look_ahead: launch the next pass of free rows before their tokens are read. max_prefix_bytes: for what
        prompts that were read leave to later ones; 0 keeps none. marker_ids: tokens of the model's tool format, which
        free text of a conversation must not have.

        Raises ConfigError where the model's cache cannot be quantised to kv_bits.
        """
        self._model: LanguageModel = loaded.model
        self._tokenizer = loaded.tokenizer
        self._compiler = compiler
        self._looks_ahead = look_ahead
        self._pass_cost = PASS_COST_CPU if mx.default_device().type == mx.cpu else PASS_COST_GPU
        self.memory = loaded.model.make_memory(kv_bits=kv_bits)
        self.work = Work()
        self.prefixes = _prefix_cache(max_prefix_bytes, self.memory)
        forbidden = loaded.tokenizer.special_ids - loaded.tokenizer.eos_ids
        num_tokens, width = loaded.tokenizer.num_tokens, loaded.model.vocab_size
        self._free_row = allow_all(num_tokens, width, forbidden=forbidden | marker_ids)
        self._raw_row = allow_all(num_tokens, width, forbidden=forbidden)  # after a prompt of the caller's own tokens

    def step(self, sequences: Rows[Sequence], max_chunk: int) -> list[Progress]:
        """The next tokens of each sequence, in as few forward passes as pay. What happened, in their order.

        max_chunk: tokens of a prompt, or of what is read again, in one pass.
        """
        with self.work.timed("step_s"):
            self.work.num_steps += 1
            rows = [self._next_row(sequence, max_chunk) for sequence in sequences]
            with self.work.timed("forward_s"):
                self._launch(rows)
            drawing = [row for row in rows if row.draws]
            tokens = self._draw(drawing) if drawing else []
            drawn = dict(zip(map(id, drawing), tokens, strict=True))
            self._keep_prompts(rows)
            return [self._move_on(row, drawn.get(id(row))) for row in rows]

    def reuse(self, sequences: Rows[Sequence]) -> None:
        """Begin sequences whose prompts, but for their last token, are known by now: they need no turn of their own."""
        for sequence in sequences:
            if sequence.cache is None and self.prefixes is not None:
                known = sequence.pending[: sequence.num_to_read - 1]
                if known and self.prefixes.find(known) == len(known):
                    self._begin(sequence)

    def release(self, sequence: Sequence) -> None:
        """Give a sequence's memory back; what it has seen may serve later prompts."""
        if self.prefixes is not None and sequence.cache is not None and sequence.stop_reason is not StopReason.FAILED:
            self.prefixes.keep(sequence.tokens_seen, sequence.cache)
        sequence.release()

    # What to run.

    def _begin(self, sequence: Sequence) -> None:
        sequence.cache = self.memory.make_cache()
        if self.prefixes is None:
            return
        # The last token's logits are wanted.
        num_known = self.prefixes.restore(sequence.pending[: sequence.num_to_read - 1], sequence.cache)
        sequence.pending = sequence.pending[num_known:]
        if not sequence.num_forward_passes:  # else it begins again
            sequence.num_reused = num_known

    def _keep_prompts(self, rows: Rows[_Row]) -> None:
        """Let others have the prompts that were read in this step."""
        for row in rows:
            if row.reads and self.prefixes is not None and (row.draws or self.prefixes.keeps_chunks):
                self.prefixes.keep(row.sequence.tokens_seen, _cache(row))

    def _next_row(self, sequence: Sequence, max_chunk: int) -> _Row:
        if sequence.cache is None:
            self._begin(sequence)
        if sequence.ahead is not None:
            logits, sequence.ahead = sequence.ahead, None
            return _Row(sequence, [], 1, draws=True, logits=logits)
        reads = sequence.num_to_read > 0
        num_pending = len(sequence.pending)
        num_unread = num_pending - sequence.num_unscored - 1  # before the first position whose logits are wanted
        if num_pending > max_chunk and num_unread > 0:
            return _Row(sequence, sequence.pending[: min(max_chunk, num_unread)], 0, draws=False, reads=reads)
        if sequence.stop_reason is not None:  # forced to its end; only their logprobs are owed
            return _Row(sequence, sequence.pending[:-1], sequence.num_unscored, draws=False, reads=reads)
        return _Row(sequence, sequence.pending, sequence.num_unscored + 1, draws=True, reads=reads)

    def _launch(self, rows: Rows[_Row]) -> None:
        """Start the forward passes. What a row has run is no longer pending."""
        rows = [row for row in rows if row.logits is None]
        caches = [_cache(row) for row in rows]
        widths = [len(row.tokens) for row in rows]
        for members in plan_passes(widths, [cache.group for cache in caches], self._pass_cost):
            together = [rows[index] for index in members]
            logits = self._model.forward([Chunk(row.tokens, _cache(row), row.num_logits) for row in together])
            unread = [array for row in together if row.num_logits == 0 for array in _cache(row).arrays()]
            mx.async_eval(logits, *unread)
            self._count_pass(together, [len(row.tokens) for row in together])
            for row in together:
                row.logits, logits = logits[: row.num_logits], logits[row.num_logits :]
                row.sequence.pending = row.sequence.pending[len(row.tokens) :]

    def _look_ahead(self, rows: Rows[_Row], tokens: mx.array) -> None:
        """Where all rows are free, launch their next pass; tokens: (B,), theirs, which nobody has read yet.

        A row that then ends has run one pass too many. Prompts do not start it, so that a short answer costs none.
        """
        if not all(row.sequence.may_look_ahead and len(row.tokens) <= 1 for row in rows):
            return
        going_on = [index for index, row in enumerate(rows) if row.sequence.tokens_left > 1]
        groups = [_cache(rows[index]).group for index in going_on]
        for members in plan_passes([1] * len(going_on), groups, self._pass_cost):
            indices = [going_on[member] for member in members]
            together = [rows[index] for index in indices]
            chunks = [Chunk([0], _cache(row), num_logits=1) for row in together]
            logits = self._model.forward(chunks, tokens[mx.array(indices)])
            mx.async_eval(logits)
            self._count_pass(together, [1] * len(together))
            self.work.num_ahead += 1
            for number, row in enumerate(together):
                row.sequence.ahead = logits[number : number + 1]

    def _count_pass(self, rows: Rows[_Row], widths: Rows[int]) -> None:
        for row in rows:
            row.sequence.num_forward_passes += 1
        self.work.num_passes += 1
        self.work.num_positions += len(widths) * max(widths)
        self.work.num_padding += len(widths) * max(widths) - sum(widths)

    # Sampling.

    def _draw(self, rows: Rows[_Row]) -> list[int]:
        with self.work.timed("mask_s"):
            self._fill_bitmasks(rows)
        with self.work.timed("sample_s"):
            tokens = self._sample(rows)
        if self._looks_ahead:
            with self.work.timed("forward_s"):
                self._look_ahead(rows, tokens)
        return self._read(tokens)

    def _admitted(self, row: _Row, token: int) -> int:
        """The first token, in the order of its noise, that the sequence may take. Raises MatcherError if none is found.

        Most often that is the one that was sampled. One that is not admitted leaves the mask, and the row is sampled
        again, from the same logits and the same noise.
        """
        assert row.bitmask is not None
        for _ in range(MAX_REDRAWS):
            if row.sequence.admits(token):
                return token
            row.bitmask.view(np.uint32)[0, token // WORD_BITS] &= ~np.uint32(1 << token % WORD_BITS)
            if not row.bitmask.any():
                break
            (token,) = self._read(self._sample([row]))
        if (way_out := row.sequence.way_out) is None:
            raise MatcherError("no token was found after which the turn can be completed")
        row.sequence.admits(way_out)
        return way_out

    def _sample(self, rows: Rows[_Row]) -> mx.array:
        """(B,), lazily."""
        logits = _joined([row.logits[-1:] for row in rows if row.logits is not None])
        bitmask = mx.array(np.concatenate([row.bitmask for row in rows if row.bitmask is not None]))
        return sample(logits, bitmask, [_sampling_row(row.sequence) for row in rows])

    def _read(self, tokens: mx.array) -> list[int]:
        with self.work.timed("sample_s"):
            self.work.num_waits += 1
            mx.eval(tokens)
            return [int(token) for token in np.array(tokens)]

    def _fill_bitmasks(self, rows: Rows[_Row]) -> None:
        """The device computes the logits meanwhile."""
        bitmask = np.empty((len(rows), num_words(self._model.vocab_size)), dtype=np.int32)
        constrained = []
        for index, row in enumerate(rows):
            row.bitmask = bitmask[index : index + 1]
            if row.sequence.matcher is None:
                is_chat = row.sequence.request.prompt is None
                bitmask[index] = self._free_row if is_chat else self._raw_row
            else:
                constrained.append((row.sequence.matcher, index))
        for index, error in self._compiler.fill_bitmasks(constrained, bitmask).items():
            rows[index].error = error
            bitmask[index] = self._free_row  # its token is thrown away

    # What comes of it.

    def _move_on(self, row: _Row, token: int | None) -> Progress:
        if row.error is not None:
            row.sequence.stop_reason = StopReason.FAILED
            return Progress(error=row.error)
        sequence, before = row.sequence, len(row.sequence.output)
        try:
            token = None if token is None else self._admitted(row, token)
            scores = self._score(row, token)
            if token is not None:
                sequence.take(token)
            if sequence.ahead is not None:
                sequence.pending = []  # it has gone through the model
        except GenerationError as error:
            sequence.stop_reason = StopReason.FAILED
            return Progress(error=error)
        # The token that ends the turn is scored with the others, but is no output.
        logprobs = scores[: len(sequence.output) - len(sequence.logprobs)]
        sequence.logprobs += logprobs
        return Progress(sequence.output[before:], logprobs)

    def _score(self, row: _Row, token: int | None) -> list[TokenLogprob]:
        k = row.sequence.sampling.top_logprobs
        if k is None or row.num_logits == 0:
            return []
        assert row.logits is not None
        num_unscored = row.sequence.num_unscored
        unscored = row.sequence.output[len(row.sequence.output) - num_unscored :]
        written = unscored if token is None else [*unscored, token]
        own_vocabulary = row.logits[:, : self._tokenizer.num_tokens]
        self.work.num_waits += 1
        return [self._with_text(position) for position in top_logprobs(own_vocabulary, written, k).evaluate()]

    def _with_text(self, position: PositionLogprobs) -> TokenLogprob:
        token_bytes = self._tokenizer.token_bytes
        top = tuple(TokenLogprob(token, token_bytes(token), logprob) for token, logprob in position.top)
        token, logprob = position.own
        return TokenLogprob(token, token_bytes(token), logprob, top)


def _prefix_cache(max_bytes: int, memory: Memory) -> PrefixCache | SnapshotCache | None:
    if not max_bytes:
        return None
    return PrefixCache(max_bytes, memory.bytes_per_token) if memory.can_cut else SnapshotCache(max_bytes)


def _cache(row: _Row) -> Cache:
    assert row.sequence.cache is not None
    return row.sequence.cache


def _joined(parts: list[mx.array]) -> mx.array:
    return parts[0] if len(parts) == 1 else mx.concatenate(parts)


def _sampling_row(sequence: Sequence) -> SamplingRow:
    return SamplingRow(sequence.sampling, sequence.key, len(sequence.output), sequence.prompt, sequence.output)
