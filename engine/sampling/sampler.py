"""From logits to tokens, as each sequence's SamplingParams ask.

The rule of this file: the token drawn for a row depends on that row alone, so a batch never changes an answer.
Rows that take the same steps are computed together, and a step costs nothing to the rows that do not take it.
Nothing here waits for the device but TopLogprobs.evaluate.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import mlx.core as mx
import numpy as np
from numpy.typing import ArrayLike, NDArray

from engine.errors import GenerationError
from engine.sampling.bitmask import apply_bitmask
from engine.sampling.logits import (
    add_bias,
    add_gumbel_noise,
    divide_by_temperature,
    keep_min_p,
    keep_top_k,
    keep_top_p,
    penalise_occurrences,
    penalise_repetition,
)
from engine.types import SamplingParams

_SMALLEST_NORMAL = float(np.finfo(np.float32).tiny)  # below it, devices may round to 0
_UINT64 = 2**64 - 1


@dataclass(frozen=True, slots=True)
class SamplingRow:
    """What the sampler needs to know of one sequence at one position. Token ids are columns of the logits."""

    params: SamplingParams
    key: int  # 64 bits, from choice_key
    position: int  # index of the output token to be drawn
    prompt: Sequence[int]  # read only for a repetition penalty; of a long one, an array.array is read fastest
    output: Sequence[int]


def choice_key(seed: int, choice_index: int) -> int:
    """The 64-bit key of one of a request's n choices."""
    return _derive(seed, choice_index)


def stream_key(key: int, position: int, stream: int) -> int:
    """The 64-bit key of another choice at an output position than its token; streams are independent."""
    return _derive(_derive(key, position), stream)


def uniform(key: int, position: int, stream: int) -> float:
    """A number in (0, 1), likewise."""
    return ((stream_key(key, position, stream) >> 12) + 0.5) / 2**52


def sample(logits: mx.array, bitmask: mx.array, rows: Sequence[SamplingRow]) -> mx.array:
    """The next token of each row. Lazy.

    logits: (B, V), of any float type; bitmask: (B, W), int32, with an allowed token in each row. Returns (B,), int32.
    """
    groups: dict[_Plan, list[int]] = {}
    for index, row in enumerate(rows):
        groups.setdefault(_plan(row), []).append(index)
    if len(groups) == 1:
        (plan,) = groups
        return _sample_group(plan, logits, bitmask, rows)
    tokens = []
    for plan, members in groups.items():
        at = mx.array(members)
        tokens.append(_sample_group(plan, logits[at], bitmask[at], [rows[index] for index in members]))
    order = [index for members in groups.values() for index in members]
    return mx.concatenate(tokens)[mx.array(np.argsort(order))]


@dataclass(frozen=True, slots=True)
class PositionLogprobs:
    """Natural logs of the model's own probabilities at one position, as (token id, logprob)."""

    own: tuple[int, float]  # of the token that was written
    top: list[tuple[int, float]]  # the likeliest, best first; of equals the lower id


@dataclass(frozen=True, slots=True)
class TopLogprobs:
    """Logprobs at N positions, not yet computed."""

    tokens: Sequence[int]  # N; what was written
    logprobs: mx.array  # (N,), float32; of what was written
    top_tokens: mx.array  # (N, k), in no order
    top_logprobs: mx.array  # (N, k), float32

    def evaluate(self) -> list[PositionLogprobs]:
        """Wait for the device."""
        mx.eval(self.logprobs, self.top_tokens, self.top_logprobs)
        own = zip(self.tokens, cast("list[float]", self.logprobs.tolist()), strict=True)
        tokens = cast("list[list[int]]", self.top_tokens.tolist())
        logprobs = cast("list[list[float]]", self.top_logprobs.tolist())
        return [PositionLogprobs(*position) for position in zip(own, map(_best_first, tokens, logprobs), strict=True)]


def top_logprobs(logits: mx.array, tokens: Sequence[int], k: int) -> TopLogprobs:
    """Each token's logprob and the k likeliest at its position, before mask, penalties and temperature. Lazy.

    logits: (N, V), raw; cut off padded columns, or they are among the k. tokens: N ids. k: 0 or more.
    """
    finite = mx.nan_to_num(logits.astype(mx.float32), nan=mx.finfo(mx.float32).min)
    logprobs = finite - mx.logsumexp(finite, axis=-1, keepdims=True)
    first = max(logits.shape[-1] - k, 0)
    order = mx.argpartition(finite, min(first, logits.shape[-1] - 1), axis=-1)
    likeliest = order[:, first:]
    own = mx.take_along_axis(logprobs, mx.array(list(tokens), dtype=mx.int32)[:, None], axis=-1)
    return TopLogprobs(tokens, own[:, 0], likeliest, mx.take_along_axis(logprobs, likeliest, axis=-1))


def _best_first(tokens: list[int], logprobs: list[float]) -> list[tuple[int, float]]:
    return sorted(zip(tokens, logprobs, strict=True), key=lambda pair: (-pair[1], pair[0]))


# Which steps a row takes, and taking them.


@dataclass(frozen=True, slots=True, eq=False)  # equal only to itself, which hashes fastest
class _Step:
    concerns: Callable[[SamplingRow], bool]
    take: Callable[[mx.array, Sequence[SamplingRow]], mx.array]  # (B, V), B rows -> (B, V), both float32


@dataclass(frozen=True, slots=True)
class _Plan:
    """The steps of a row, in order, around the mask. Rows with equal plans form a group."""

    before_mask: tuple[_Step, ...]
    after_mask: tuple[_Step, ...]


def _plan(row: SamplingRow) -> _Plan:
    before = tuple(step for step in _BEFORE_MASK if step.concerns(row))
    after = () if row.params.is_greedy else tuple(step for step in _AFTER_MASK if step.concerns(row))
    return _Plan(before, after)


def _sample_group(plan: _Plan, logits: mx.array, bitmask: mx.array, rows: Sequence[SamplingRow]) -> mx.array:
    if plan.before_mask or plan.after_mask:
        logits = logits.astype(mx.float32)
    for step in plan.before_mask:
        logits = step.take(logits, rows)
    logits = apply_bitmask(logits, bitmask)
    for step in plan.after_mask:
        logits = step.take(logits, rows)
    return mx.argmax(logits, axis=-1).astype(mx.int32)


def _repetition(logits: mx.array, rows: Sequence[SamplingRow]) -> mx.array:
    seen = [np.concatenate([np.asarray(row.prompt, np.int64), np.asarray(row.output, np.int64)]) for row in rows]
    penalty = _column([max(row.params.repetition_penalty, _SMALLEST_NORMAL) for row in rows])
    return penalise_repetition(logits, _token_ids(seen, logits), penalty)


def _occurrences(logits: mx.array, rows: Sequence[SamplingRow]) -> mx.array:
    counters = [Counter(row.output) for row in rows]
    tokens = _token_ids([list(counter.keys()) for counter in counters], logits)
    counts = mx.array(_padded([list(counter.values()) for counter in counters]), dtype=mx.float32)
    presence = _column([row.params.presence_penalty for row in rows])
    frequency = _column([row.params.frequency_penalty for row in rows])
    return penalise_occurrences(logits, tokens, counts, presence, frequency)


def _bias(logits: mx.array, rows: Sequence[SamplingRow]) -> mx.array:
    tokens = _token_ids([list(row.params.logit_bias.keys()) for row in rows], logits)
    bias = mx.array(_padded([list(row.params.logit_bias.values()) for row in rows]), dtype=mx.float32)
    return add_bias(logits, tokens, bias)


def _temperature(logits: mx.array, rows: Sequence[SamplingRow]) -> mx.array:
    temperature = _column([max(row.params.temperature, _SMALLEST_NORMAL) for row in rows])
    return divide_by_temperature(logits, temperature)


def _top_k(logits: mx.array, rows: Sequence[SamplingRow]) -> mx.array:
    top_k = [min(row.params.top_k, logits.shape[-1]) for row in rows]
    return keep_top_k(logits, mx.array(top_k, dtype=mx.int32)[:, None], num_candidates=max(top_k))


def _top_p(logits: mx.array, rows: Sequence[SamplingRow]) -> mx.array:
    top_k = [row.params.top_k for row in rows]
    num_candidates = max(top_k) if all(top_k) else None
    return keep_top_p(logits, _column([row.params.top_p for row in rows]), num_candidates=num_candidates)


def _min_p(logits: mx.array, rows: Sequence[SamplingRow]) -> mx.array:
    return keep_min_p(logits, _column([row.params.min_p for row in rows]))


def _gumbel_noise(logits: mx.array, rows: Sequence[SamplingRow]) -> mx.array:
    return add_gumbel_noise(logits, [_derive(row.key, row.position) for row in rows])


_BEFORE_MASK = (
    _Step(lambda row: row.params.repetition_penalty != 1 and len(row.prompt) + len(row.output) > 0, _repetition),
    _Step(
        lambda row: (row.params.presence_penalty != 0 or row.params.frequency_penalty != 0) and len(row.output) > 0,
        _occurrences,
    ),
    _Step(lambda row: len(row.params.logit_bias) > 0, _bias),
)
_AFTER_MASK = (  # of rows that are not greedy
    _Step(lambda _: True, _temperature),
    _Step(lambda row: row.params.top_k > 0, _top_k),
    _Step(lambda row: row.params.top_p < 1, _top_p),
    _Step(lambda row: row.params.min_p > 0, _min_p),
    _Step(lambda _: True, _gumbel_noise),
)


# From rows to arrays.


def _column(values: list[float]) -> mx.array:
    return mx.array([[value] for value in values], dtype=mx.float32)


def _token_ids(rows: Sequence[ArrayLike], logits: mx.array) -> mx.array:
    """(B, K), int32. MLX would read and write out of bounds where an id is no column, so that is an error."""
    tokens = _padded(rows)
    if tokens.min() < 0 or tokens.max() >= logits.shape[-1]:
        raise GenerationError(f"a token id is outside [0, {logits.shape[-1]}), the logits' columns")
    return mx.array(tokens.astype(np.int32))


def _padded(rows: Sequence[ArrayLike]) -> NDArray[np.number]:
    """(B, K) of rows that are not empty; the shorter ones repeat their last value."""
    arrays = [np.asarray(row) for row in rows]
    padded = np.empty((len(arrays), max(map(len, arrays))), np.result_type(*arrays))
    for row, array in zip(padded, arrays, strict=True):
        row[: len(array)] = array
        row[len(array) :] = array[-1]
    return padded


def _derive(parent: int, index: int) -> int:
    """A 64-bit child key. Hashing the parent first keeps the children of neighbouring parents apart."""
    return _splitmix64(_splitmix64(parent) + index)


def _splitmix64(state: int) -> int:
    """One step of SplitMix64: Steele, Lea and Flood, OOPSLA 2014; constants of prng.di.unimi.it/splitmix64.c."""
    mixed = (state + 0x9E3779B97F4A7C15) & _UINT64
    mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & _UINT64
    mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & _UINT64
    return mixed ^ (mixed >> 31)
