"""THE step function: every forward pass of the engine, for the prompt, for sampled and for forced tokens alike.

launch forward(pending tokens of every row)          the device is busy from here on
fill the bitmask of every row, on the host           meanwhile
mask, sample, launch                                 no wait between
wait for the sampled tokens                          the one wait (logprobs, where asked for, are a second)
every row: accept the token, then what the grammar forces; both become pending
"""

import time
from collections.abc import Sequence as Rows
from dataclasses import dataclass, field

import mlx.core as mx
import numpy as np

from engine.errors import GenerationError
from engine.events import StopReason, TokenLogprob
from engine.grammars.matcher import GrammarCompiler
from engine.model import LanguageModel, LoadedModel
from engine.sampling.bitmask import allow_all, num_words
from engine.sampling.sampler import PositionLogprobs, SamplingRow, sample, top_logprobs
from engine.sequence import Sequence


@dataclass(slots=True)
class Progress:
    """What one step did to one sequence."""

    tokens: list[int] = field(default_factory=list)  # new output
    logprobs: list[TokenLogprob] = field(default_factory=list)  # of output tokens, in order, where asked for
    error: GenerationError | None = None


@dataclass(slots=True)
class _Row:
    """One sequence within one step."""

    sequence: Sequence
    logits: mx.array  # (n, V): at the positions of the unscored tokens, then at the last; n = 0 inside a prompt
    draws: bool  # whether a token is to be sampled

    error: GenerationError | None = None


class Stepper:
    """A model with what a step needs beside it. Used by the decoding thread only."""

    def __init__(
        self,
        loaded: LoadedModel,
        compiler: GrammarCompiler,
        *,
        prefill_chunk: int,
        marker_ids: frozenset[int] = frozenset(),
    ) -> None:
        """marker_ids: tokens of the model's tool format, which free text of a conversation must not have."""
        self._model: LanguageModel = loaded.model
        self._tokenizer = loaded.tokenizer
        self._compiler = compiler
        self._prefill_chunk = prefill_chunk
        forbidden = loaded.tokenizer.special_ids - loaded.tokenizer.eos_ids
        self.mask_seconds = 0.0  # spent on the host filling masks, since the start
        num_tokens, width = loaded.tokenizer.num_tokens, loaded.model.vocab_size
        self._free_row = allow_all(num_tokens, width, forbidden=forbidden | marker_ids)
        self._raw_row = allow_all(num_tokens, width, forbidden=forbidden)  # after a prompt of the caller's own tokens

    def step(self, sequences: Rows[Sequence]) -> list[Progress]:
        """One forward pass for each sequence. Their states move on; what happened is returned in their order."""
        rows = [self._launch(sequence) for sequence in sequences]
        drawing = [row for row in rows if row.draws]
        tokens = self._draw(drawing) if drawing else []
        drawn = dict(zip(map(id, drawing), tokens, strict=True))
        return [self._move_on(row, drawn.get(id(row))) for row in rows]

    def _launch(self, sequence: Sequence) -> _Row:
        if sequence.cache is None:
            sequence.cache = self._model.make_cache()
        chunk, num_logits = self._next_chunk(sequence)
        draws = num_logits > 0 and sequence.stop_reason is None
        tokens = mx.array([sequence.pending[:chunk]], dtype=mx.int32)
        logits = self._model.forward(tokens, sequence.cache, num_logits=num_logits)[0]
        mx.async_eval([logits, *sequence.cache.arrays()] if num_logits == 0 else logits)
        sequence.num_forward_passes += 1
        sequence.pending = sequence.pending[chunk:]
        return _Row(sequence, logits, draws)

    def _next_chunk(self, sequence: Sequence) -> tuple[int, int]:
        """How many pending tokens to run, and at how many positions logits are wanted."""
        assert sequence.cache is not None
        prompt_left = len(sequence.prompt) - sequence.cache.num_tokens
        if len(sequence.pending) > self._prefill_chunk and prompt_left > 1:
            # The prompt's last token stays for the last chunk: the logits that are wanted begin with it.
            return min(self._prefill_chunk, prompt_left - 1), 0
        if sequence.stop_reason is not None:  # forced to its end; only their logprobs are owed
            return len(sequence.pending) - 1, sequence.num_unscored
        return len(sequence.pending), sequence.num_unscored + 1

    def _draw(self, rows: list[_Row]) -> list[int]:
        bitmask = self._fill_bitmask(rows)
        logits = mx.stack([row.logits[-1] for row in rows])
        tokens = sample(logits, bitmask, [_sampling_row(row.sequence) for row in rows])
        mx.eval(tokens)
        return [int(token) for token in np.array(tokens)]

    def _fill_bitmask(self, rows: list[_Row]) -> mx.array:
        """(B, W). The device computes the logits while the host fills it."""
        bitmask = np.empty((len(rows), num_words(self._model.vocab_size)), dtype=np.int32)
        constrained = []
        for index, row in enumerate(rows):
            if row.sequence.matcher is None:
                is_chat = row.sequence.request.prompt is None
                bitmask[index] = self._free_row if is_chat else self._raw_row
            else:
                constrained.append((row.sequence.matcher, index))
        start = time.perf_counter()
        failed = self._compiler.fill_bitmasks(constrained, bitmask)
        self.mask_seconds += time.perf_counter() - start
        for index, error in failed.items():
            rows[index].error = error
            bitmask[index] = self._free_row  # its token is thrown away
        return mx.array(bitmask)

    def _move_on(self, row: _Row, token: int | None) -> Progress:
        if row.error is not None:
            row.sequence.stop_reason = StopReason.FAILED
            return Progress(error=row.error)
        sequence, before = row.sequence, len(row.sequence.output)
        scores = self._score(row, token)
        try:
            if token is not None:
                sequence.take(token)
        except GenerationError as error:
            sequence.stop_reason = StopReason.FAILED
            return Progress(error=error)
        # The token that ends the turn is scored with the others, but is no output.
        logprobs = scores[: len(sequence.output) - len(sequence.logprobs)]
        sequence.logprobs += logprobs
        return Progress(sequence.output[before:], logprobs)

    def _score(self, row: _Row, token: int | None) -> list[TokenLogprob]:
        k = row.sequence.sampling.top_logprobs
        if k is None or row.logits.shape[0] == 0:
            return []
        num_unscored = row.sequence.num_unscored
        unscored = row.sequence.output[len(row.sequence.output) - num_unscored :]
        written = unscored if token is None else [*unscored, token]
        own_vocabulary = row.logits[:, : self._tokenizer.num_tokens]
        return [self._with_text(position) for position in top_logprobs(own_vocabulary, written, k).evaluate()]

    def _with_text(self, position: PositionLogprobs) -> TokenLogprob:
        token_bytes = self._tokenizer.token_bytes
        top = tuple(TokenLogprob(token, token_bytes(token), logprob) for token, logprob in position.top)
        token, logprob = position.own
        return TokenLogprob(token, token_bytes(token), logprob, top)


def _sampling_row(sequence: Sequence) -> SamplingRow:
    return SamplingRow(sequence.sampling, sequence.key, len(sequence.output), sequence.prompt, sequence.output)
