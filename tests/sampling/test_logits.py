from math import inf

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

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

Floats = NDArray[np.float32]
SEEDS = range(5)
MASS_ERROR = 1e-5  # float32 sums

# Few values, so that ties are common; -inf as the mask leaves it; always one finite.
logit_rows = st.lists(st.sampled_from([-inf, -4.0, -1.0, 0.0, 0.5, 1.0, 3.0]), min_size=1, max_size=20).filter(
    lambda row: max(row) > -inf
)


def column(*values: float, dtype: mx.Dtype = mx.float32) -> mx.array:
    return mx.array(values, dtype=dtype)[:, None]


def random_logits(seed: int, batch: int = 3, vocab_size: int = 50) -> Floats:
    logits = np.random.default_rng(seed).normal(scale=3, size=(batch, vocab_size)).astype(np.float32)
    logits[:, ::7] = -np.inf
    return logits


def softmax(logits: Floats) -> NDArray[np.float64]:
    weights = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    probs: NDArray[np.float64] = weights / weights.sum(axis=-1, keepdims=True)
    return probs


def kept(filtered: mx.array) -> list[set[int]]:
    """Per row, the tokens that are not -inf."""
    return [set(np.flatnonzero(row > -np.inf).tolist()) for row in np.asarray(filtered)]


# Penalties and bias


def test_a_repetition_penalty_makes_seen_tokens_less_likely_whatever_their_sign() -> None:
    logits = mx.array([[4.0, -4.0, 4.0, 0.0]])
    penalised = penalise_repetition(logits, mx.array([[0, 1, 3, 0]]), column(2.0))
    assert penalised.tolist() == [[2.0, -8.0, 4.0, 0.0]]


@pytest.mark.parametrize("seed", SEEDS)
def test_the_repetition_penalty_matches_its_definition(seed: int) -> None:
    random, logits = np.random.default_rng(seed), random_logits(seed)
    seen, penalty = random.integers(0, 50, size=(3, 12)), random.uniform(0.5, 2, size=(3, 1))
    expected = logits.astype(np.float64)
    for row in range(3):
        for token in set(seen[row].tolist()):
            expected[row, token] *= 1 / penalty[row, 0] if expected[row, token] > 0 else penalty[row, 0]
    penalised = penalise_repetition(mx.array(logits), mx.array(seen), mx.array(penalty.astype(np.float32)))
    np.testing.assert_allclose(np.asarray(penalised), expected, rtol=1e-5)


def test_presence_counts_once_and_frequency_every_time() -> None:
    tokens, counts = mx.array([[0, 2], [1, 1]]), mx.array([[1.0, 3.0], [2.0, 2.0]])
    penalised = penalise_occurrences(mx.zeros((2, 3)), tokens, counts, column(0.5, 0.0), column(0.25, -1.0))
    assert penalised.tolist() == [[-0.75, 0.0, -1.25], [0.0, 2.0, 0.0]]


def test_a_bias_is_added_to_its_token_alone() -> None:
    biased = add_bias(mx.ones((2, 3)), mx.array([[2, 2], [0, 1]]), mx.array([[5.0, 5.0], [-1.0, 100.0]]))
    assert biased.tolist() == [[1.0, 1.0, 6.0], [0.0, 101.0, 1.0]]


# Temperature


@pytest.mark.parametrize("seed", SEEDS)
def test_temperature_divides_the_logits_up_to_a_shift_of_the_row(seed: int) -> None:
    logits, temperature = random_logits(seed), np.array([[0.3], [1.0], [5.0]], np.float32)
    divided = divide_by_temperature(mx.array(logits), mx.array(temperature))
    np.testing.assert_allclose(softmax(np.asarray(divided)), softmax(logits / temperature), rtol=1e-4, atol=1e-7)


def test_a_tiny_temperature_keeps_the_likeliest_tokens_and_overflows_to_no_nan() -> None:
    logits = mx.array([[3e38, -3e38, 3e38, -inf, 1.0]])
    assert divide_by_temperature(logits, column(1.2e-38)).tolist() == [[0.0, -inf, 0.0, -inf, -inf]]


# Filters


@given(logit_rows, st.integers(1, 25))
@settings(deadline=None)
def test_top_k_keeps_the_k_greatest_and_their_ties(row: list[float], k: int) -> None:
    threshold = sorted(row, reverse=True)[min(k, len(row)) - 1]
    filtered = keep_top_k(mx.array([row]), column(k, dtype=mx.int32), num_candidates=k)
    assert filtered.tolist() == [[value if value >= threshold else -inf for value in row]]


def test_top_k_has_a_value_for_each_row_and_0_is_off() -> None:
    filtered = keep_top_k(mx.array([[3.0, 1.0, 2.0]] * 3), column(1, 0, 2, dtype=mx.int32), num_candidates=2)
    assert kept(filtered) == [{0}, {0, 1, 2}, {0, 2}]


@given(logit_rows, st.floats(0.001, 0.999))
@settings(deadline=None)
def test_top_p_keeps_the_fewest_tokens_that_reach_it_and_their_ties(row: list[float], top_p: float) -> None:
    (nucleus,) = kept(keep_top_p(mx.array([row]), column(top_p)))
    probs = softmax(np.array([row], np.float32))[0]
    least = min(probs[token] for token in nucleus)
    assert nucleus == {token for token, prob in enumerate(probs) if prob >= least > 0}
    assert sum(probs[token] for token in nucleus) >= top_p - MASS_ERROR
    assert sum(prob for prob in probs if prob > least) < top_p + MASS_ERROR


@pytest.mark.parametrize("seed", SEEDS)
def test_top_p_matches_its_definition(seed: int) -> None:
    logits, top_p = random_logits(seed), [0.15, 0.6, 0.93]
    expected = []
    for probs, wanted in zip(softmax(logits), top_p, strict=True):
        order = np.argsort(-probs)
        reached = int(np.argmax(np.cumsum(probs[order]) >= wanted))
        expected.append(set(order[: reached + 1].tolist()))
    assert kept(keep_top_p(mx.array(logits), column(*top_p))) == expected


@pytest.mark.parametrize("seed", SEEDS)
def test_top_p_keeps_the_same_tokens_when_it_is_told_how_many_are_left(seed: int) -> None:
    logits = keep_top_k(mx.array(random_logits(seed)), column(3, 8, 20, dtype=mx.int32), num_candidates=20)
    top_p = column(0.5, 0.8, 0.99)
    assert kept(keep_top_p(logits, top_p, num_candidates=20)) == kept(keep_top_p(logits, top_p))


def test_a_top_p_of_1_keeps_every_token_though_their_mass_rounds_to_1_early() -> None:
    logits = mx.array([[0.0] + [-30.0] * 1000 + [-200.0]])
    assert keep_top_p(logits, column(1.0)).tolist() == logits.tolist()


def test_the_smallest_top_p_still_keeps_the_likeliest() -> None:
    assert kept(keep_top_p(mx.array([[1.0, 2.0, 0.0]]), column(1e-45))) == [{1}]


@given(logit_rows, st.sampled_from([0.001, 0.01, 0.1, 0.3, 0.7, 1.0]))
@settings(deadline=None)
def test_min_p_keeps_what_is_likely_enough_beside_the_likeliest(row: list[float], min_p: float) -> None:
    probs = softmax(np.array([row], np.float32))[0]
    expected = {token for token, prob in enumerate(probs) if prob >= min_p * probs.max()}
    assert kept(keep_min_p(mx.array([row]), column(min_p))) == [expected]


def test_a_min_p_of_0_keeps_every_token() -> None:
    logits = mx.array([[0.0, -1e30, -inf]])
    assert keep_min_p(logits, column(0.0)).tolist() == logits.tolist()


# Noise


def test_the_noise_of_a_row_depends_on_its_key_alone() -> None:
    together = add_gumbel_noise(mx.zeros((3, 10)), [7, 2**64 - 1, 7])
    alone = add_gumbel_noise(mx.zeros((1, 10)), [7])
    assert together[0].tolist() == together[2].tolist() == alone[0].tolist()
    assert together[1].tolist() != alone[0].tolist()


def test_noise_uses_all_64_bits_of_the_key() -> None:
    low, high = add_gumbel_noise(mx.zeros((2, 10)), [1, 1 + 2**32]).tolist()
    assert low != high


def test_noise_brings_no_dropped_token_back_and_drops_none() -> None:
    noisy = np.asarray(add_gumbel_noise(mx.array([[-inf, 0.0] * 5000]), [3]))
    assert np.isneginf(noisy[0, ::2]).all()
    assert np.isfinite(noisy[0, 1::2]).all()
