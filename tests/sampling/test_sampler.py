from array import array
from collections import Counter
from collections.abc import Sequence
from math import inf, nan

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from engine.errors import GenerationError
from engine.sampling.bitmask import allow_all, pack_bitmask
from engine.sampling.sampler import SamplingRow, choice_key, sample, top_logprobs
from engine.types import SamplingParams

VOCAB_SIZE = 40

token_ids = st.integers(0, VOCAB_SIZE - 1)
params = st.builds(
    SamplingParams,
    temperature=st.sampled_from([0.0, 1e-300, 0.5, 1.0, 100.0]),
    top_p=st.sampled_from([1e-300, 0.3, 0.9, 1.0]),
    top_k=st.sampled_from([0, 1, 5, 10_000]),
    min_p=st.sampled_from([0.0, 0.1, 1.0]),
    repetition_penalty=st.sampled_from([1e-300, 0.8, 1.0, 1.3]),
    presence_penalty=st.sampled_from([-1.0, 0.0, 0.5]),
    frequency_penalty=st.sampled_from([-0.5, 0.0, 2.0]),
    logit_bias=st.dictionaries(token_ids, st.floats(-100, 100), max_size=3),
)
sampling_rows = st.builds(
    SamplingRow,
    params=params,
    key=st.integers(0, 2**64 - 1),
    position=st.integers(0, 2**20),
    prompt=st.lists(token_ids, max_size=5),
    output=st.lists(token_ids, max_size=5),
)
row_batches = st.lists(sampling_rows, min_size=1, max_size=5)


def row_of(
    key: int = 0, position: int = 0, *, prompt: Sequence[int] = (), output: Sequence[int] = (), **options: object
) -> SamplingRow:
    return SamplingRow(SamplingParams(**options), key, position, prompt, output)


def draw(logits: object, rows: Sequence[SamplingRow], allowed: NDArray[np.bool_] | None = None) -> list[int]:
    """Tokens for logits (B, V), or (V,) for all rows; allowed likewise, everything by default."""
    columns = mx.array(logits)
    columns = mx.broadcast_to(columns, (len(rows), columns.shape[-1]))
    allowed = np.ones(columns.shape[-1], bool) if allowed is None else allowed
    bitmask = pack_bitmask(np.broadcast_to(allowed, columns.shape))
    tokens: list[int] = sample(columns, mx.array(bitmask), rows).tolist()
    return tokens


def random_batch(seed: int, batch: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Logits (B, V) on a coarse grid, for ties, and which are allowed, one at least."""
    random = np.random.default_rng(seed)
    logits = np.round(random.normal(scale=4, size=(batch, VOCAB_SIZE))).astype(np.float32) / 2
    allowed = random.random((batch, VOCAB_SIZE)) < random.choice([0.1, 0.5, 1.0])
    allowed[np.arange(batch), random.integers(0, VOCAB_SIZE, batch)] = True
    return logits, allowed


# The laws


@given(row_batches, st.integers(0, 2**32))
@settings(deadline=None)
def test_a_row_draws_the_same_token_alone_as_in_any_batch(rows: list[SamplingRow], seed: int) -> None:
    logits, allowed = random_batch(seed, len(rows))
    alone = [draw(logits[i : i + 1], [row], allowed[i : i + 1])[0] for i, row in enumerate(rows)]
    assert draw(logits, rows, allowed) == alone


@given(row_batches, st.integers(0, 2**32), st.data())
@settings(deadline=None)
def test_only_allowed_tokens_are_drawn_whatever_the_logits(
    rows: list[SamplingRow], seed: int, data: st.DataObject
) -> None:
    _, allowed = random_batch(seed, len(rows))
    extremes = st.sampled_from([-inf, inf, nan, 0.0, -3e38, 3e38, 1.0])
    logits = [data.draw(st.lists(extremes, min_size=VOCAB_SIZE, max_size=VOCAB_SIZE)) for _ in rows]
    dtype = data.draw(st.sampled_from([mx.float32, mx.float16, mx.bfloat16]))
    tokens = draw(mx.array(logits).astype(dtype), rows, allowed)
    assert all(allowed[i, token] for i, token in enumerate(tokens))


@given(sampling_rows, st.integers(0, 2**32))
@settings(deadline=None)
def test_a_row_that_is_drawn_again_gives_the_same_token(row: SamplingRow, seed: int) -> None:
    logits, allowed = random_batch(seed, 1)
    assert draw(logits, [row], allowed) == draw(logits, [row], allowed)


@given(sampling_rows, st.integers(0, 2**32))
@settings(deadline=None)
def test_half_precision_logits_draw_what_the_same_numbers_draw_in_float32(row: SamplingRow, seed: int) -> None:
    logits, allowed = random_batch(seed, 1)  # multiples of a half: exact in every type
    for dtype in (mx.float16, mx.bfloat16):
        assert draw(mx.array(logits).astype(dtype), [row], allowed) == draw(logits, [row], allowed)


# Greedy


def test_greedy_takes_the_greatest_allowed_logit() -> None:
    allowed = np.array([[True, True, False], [False, True, True]])
    assert draw([[1.0, 2.0, 3.0], [9.0, 2.0, 3.0]], [row_of(), row_of()], allowed) == [1, 2]


def test_greedy_ignores_the_filters_and_the_key() -> None:
    rows = [row_of(key, top_k=3, top_p=0.5, min_p=0.5) for key in range(5)]
    assert draw([0.0, 5.0, 5.0, 4.9], rows) == [1] * 5


def test_tokens_come_as_int32() -> None:
    rows = [row_of(), row_of(temperature=1.0)]
    bitmask = mx.array(np.stack([allow_all(40, VOCAB_SIZE, forbidden=())] * 2))
    tokens = sample(mx.zeros((2, VOCAB_SIZE)), bitmask, rows)
    assert (tokens.shape, tokens.dtype) == ((2,), mx.int32)


# The sampled distribution


def chi_square(tokens: list[int], probs: NDArray[np.float64]) -> float:
    counts = Counter(tokens)
    assert all(probs[token] > 0 for token in counts)
    expected = {token: prob * len(tokens) for token, prob in enumerate(probs) if prob > 0}
    return sum((counts[token] - count) ** 2 / count for token, count in expected.items())


@pytest.mark.parametrize("varied", ["position", "choice", "seed"])
def test_drawn_tokens_follow_the_softmax_of_the_masked_logits_over_temperature(varied: str) -> None:
    logits, temperature = np.array([2.0, 9.0, 1.0, 0.0, 3.0, 1.5, -1.0]), 1.5
    allowed = np.array([True, False, True, True, True, True, True])
    weights = np.where(allowed, np.exp(logits / temperature), 0)
    numbers = [{"seed": 0, "choice": 0, "position": 0} | {varied: number} for number in range(4000)]
    rows = [row_of(choice_key(n["seed"], n["choice"]), n["position"], temperature=temperature) for n in numbers]
    # 99.9 % of a chi-square variable with 5 degrees of freedom; the draws are fixed, so this cannot flicker.
    assert chi_square(draw(logits.astype(np.float32), rows, allowed), weights / weights.sum()) < 20.5


def test_what_top_p_keeps_is_renormalised() -> None:
    probs = np.array([0.5, 0.3, 0.15, 0.05])
    rows = [row_of(7, position, temperature=1.0, top_p=0.7) for position in range(4000)]
    tokens = draw(np.log(probs).astype(np.float32), rows)
    assert chi_square(tokens, np.array([5 / 8, 3 / 8, 0, 0])) < 10.8  # 99.9 %, 1 degree of freedom


def test_positions_and_choices_and_seeds_draw_independently_of_each_other() -> None:
    keys = [choice_key(seed, choice) for seed in (0, 1) for choice in (0, 1)]
    rows = [row_of(key, position, temperature=1.0) for key in keys for position in range(20)]
    tokens = draw([0.0] * 2**16, rows)
    assert len(set(tokens)) > len(tokens) - 3  # a birthday or two among 80 of 65536


def test_a_choices_key_has_64_bits_and_is_no_other_choices() -> None:
    keys = {choice_key(seed, choice) for seed in (0, 1, 2, 2**63 - 1) for choice in range(100)}
    assert len(keys) == 400
    assert all(0 <= key < 2**64 for key in keys)
    assert max(keys) > 2**63


def test_a_seed_means_the_same_in_every_release() -> None:
    assert choice_key(0, 0) == 0xA706DD2F4D197E6F
    rows = [row_of(choice_key(1234, 0), position, temperature=1.0) for position in range(8)]
    assert draw([0.0] * 1000, rows) == [992, 486, 852, 629, 520, 299, 48, 2]


# The order of the steps


def sampled_tokens(logits: object, allowed: NDArray[np.bool_] | None = None, **options: object) -> set[int]:
    """All tokens that 300 positions draw, at temperature 1 unless said otherwise."""
    rows = [row_of(1, position, **{"temperature": 1.0, **options}) for position in range(300)]
    return set(draw(logits, rows, allowed))


def test_top_k_counts_allowed_tokens_only() -> None:
    assert sampled_tokens([9.0, 1.0, 0.9, 0.0], np.array([False, True, True, True]), top_k=2) == {1, 2}


def test_top_p_is_a_share_of_the_allowed_tokens_mass() -> None:
    logits = np.log([0.9, 0.05, 0.04, 0.01]).astype(np.float32)
    assert sampled_tokens(logits, np.array([False, True, True, True]), top_p=0.8) == {1, 2}


def test_top_p_is_a_share_of_what_top_k_left() -> None:
    logits = np.log([0.3, 0.29, 0.21, 0.2]).astype(np.float32)
    assert sampled_tokens(logits, top_p=0.5) == {0, 1}
    assert sampled_tokens(logits, top_p=0.5, top_k=2) == {0}


def test_min_p_is_measured_against_the_likeliest_allowed_token() -> None:
    logits = np.log([0.9, 0.05, 0.04, 0.01]).astype(np.float32)
    assert sampled_tokens(logits, np.array([False, True, True, True]), min_p=0.5) == {1, 2}


def test_filters_see_the_probabilities_after_temperature() -> None:
    logits = np.log([0.6, 0.3, 0.1]).astype(np.float32)
    assert sampled_tokens(logits, min_p=0.4) == {0, 1}
    assert sampled_tokens(logits, min_p=0.4, temperature=0.5) == {0}
    assert sampled_tokens(logits, top_p=0.59) == {0}
    assert sampled_tokens(logits, top_p=0.59, temperature=4.0) == {0, 1}


def test_bias_is_added_before_the_mask_and_cannot_lift_it() -> None:
    biased = row_of(logit_bias={0: 100.0, 2: 5.0})
    assert draw([0.0, 1.0, 0.0], [biased], np.array([False, True, True])) == [2]


def test_a_ban_by_bias_yields_to_a_mask_that_allows_nothing_else() -> None:
    assert draw([0.0, 1.0], [row_of(logit_bias={0: -100.0})], np.array([True, False])) == [0]


# Penalties


def test_the_repetition_penalty_sees_prompt_and_output() -> None:
    logits = [4.0, 3.9, 3.8, 1.0]
    assert draw(logits, [row_of(prompt=[0], output=[1], repetition_penalty=1.5)]) == [2]


def test_the_other_penalties_see_the_output_only() -> None:
    logits = [1.0, 0.9, 0.8]
    assert draw(logits, [row_of(prompt=[0, 0], output=[1], presence_penalty=0.5)]) == [0]
    assert draw(logits, [row_of(prompt=[], output=[0], presence_penalty=0.5)]) == [1]


def test_a_frequency_penalty_grows_with_every_occurrence() -> None:
    logits = [1.0, 0.7]
    assert draw(logits, [row_of(output=[0, 0], frequency_penalty=0.1)]) == [0]
    assert draw(logits, [row_of(output=[0] * 4, frequency_penalty=0.1)]) == [1]


def test_penalties_of_a_sequence_that_has_no_tokens_yet_change_nothing() -> None:
    assert draw([0.0, 1.0], [row_of(repetition_penalty=2.0, presence_penalty=2.0, frequency_penalty=2.0)]) == [1]


def test_a_prompt_may_be_an_array() -> None:
    logits = [4.0, 3.9, 3.8, 1.0]
    assert draw(logits, [row_of(prompt=array("i", [0]), output=[1], repetition_penalty=1.5)]) == [2]


@pytest.mark.parametrize("token", [-1, 3, 2**40])
def test_a_bias_on_a_token_without_a_logit_is_an_error(token: int) -> None:
    with pytest.raises(GenerationError, match="outside"):
        draw([0.0, 1.0, 2.0], [row_of(logit_bias={token: 1.0})])


# Logprobs


def test_logprobs_are_the_log_softmax_of_the_logits() -> None:
    logits = np.random.default_rng(0).normal(scale=5, size=(3, 30)).astype(np.float32)
    expected = logits - np.log(np.exp(logits.astype(np.float64)).sum(axis=-1, keepdims=True))
    for position, row in zip(top_logprobs(mx.array(logits), [4, 0, 29], 5).evaluate(), expected, strict=True):
        token, logprob = position.own
        assert logprob == pytest.approx(row[token], abs=1e-4)
        assert [token for token, _ in position.top] == np.argsort(-row)[:5].tolist()
        assert [logprob for _, logprob in position.top] == pytest.approx(np.sort(row)[::-1][:5], abs=1e-4)


def test_each_position_reports_the_token_that_was_asked_for() -> None:
    positions = top_logprobs(mx.zeros((2, 4)), [3, 1], 0).evaluate()
    assert [position.own[0] for position in positions] == [3, 1]
    assert [position.top for position in positions] == [[], []]


def test_equally_likely_tokens_are_listed_by_id() -> None:
    (position,) = top_logprobs(mx.array([[0.0, 1.0, 0.0, 1.0]]), [0], 4).evaluate()
    assert [token for token, _ in position.top] == [1, 3, 0, 2]


def test_there_are_no_more_likeliest_tokens_than_tokens() -> None:
    (position,) = top_logprobs(mx.zeros((1, 3)), [0], 20).evaluate()
    assert len(position.top) == 3


def test_logprobs_of_infinite_logits_are_numbers_or_minus_infinity() -> None:
    (position,) = top_logprobs(mx.array([[inf, -inf, nan, 0.0]]), [0], 4).evaluate()
    assert position.own == (0, 0.0)
    assert all(logprob <= 0 for _, logprob in position.top)


def test_half_precision_logits_have_float32_logprobs() -> None:
    logits = mx.array([[0.0, 0.0, 0.0]], dtype=mx.bfloat16)
    (position,) = top_logprobs(logits, [0], 1).evaluate()
    assert position.own[1] == pytest.approx(-np.log(3), abs=1e-6)


def test_logprobs_do_not_depend_on_the_row_beside() -> None:
    logits = mx.array(np.random.default_rng(1).normal(size=(2, 30)).astype(np.float32))
    both = top_logprobs(logits, [1, 2], 3).evaluate()
    assert both == [top_logprobs(logits[i : i + 1], [token], 3).evaluate()[0] for i, token in enumerate([1, 2])]
