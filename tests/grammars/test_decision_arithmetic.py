"""The arithmetic of the decision, by itself."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.grammars.decision import is_call, log_odds, log_shares, log_sum, probability, shares, text_bias


@pytest.mark.parametrize("p", [1e-300, 1e-9, 0.2, 0.5, 0.999])
def test_log_odds_and_probability_are_inverse(p: float) -> None:
    assert probability(log_odds(math.log(p))) == pytest.approx(p, rel=1e-9)


@pytest.mark.parametrize("logprob", [-math.inf, -1e9, 0.0, 1e-7])
def test_log_odds_are_finite_whatever_the_device_rounds_to(logprob: float) -> None:
    assert math.isfinite(log_odds(logprob))
    assert 0 <= probability(log_odds(logprob)) <= 1


def test_a_coin_falls_at_the_temperature() -> None:
    numbers = [(index + 0.5) / 1000 for index in range(1000)]
    for temperature in (0.5, 1.0, 4.0):
        calls = sum(is_call(math.log(3), threshold=None, temperature=temperature, uniform=each) for each in numbers)
        assert calls / 1000 == pytest.approx(probability(math.log(3) / temperature), abs=2e-3)


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=9))
def test_the_logs_of_shares_are_those_of_the_softmax(scores: list[float]) -> None:
    assert [math.exp(each) for each in log_shares(scores)] == pytest.approx(shares(scores))


def test_shares_add_up_to_one_and_keep_their_ratios() -> None:
    assert shares([-1000.0, -1000.0 + math.log(3)]) == pytest.approx([0.25, 0.75])


def test_the_log_of_a_sum_is_exact_where_probabilities_underflow() -> None:
    assert log_sum([-2000.0, -2000.0]) == pytest.approx(-2000.0 + math.log(2))
    assert log_sum([-math.inf]) == -math.inf


def test_a_bias_takes_away_what_the_marker_has_and_no_more() -> None:
    assert text_bias(math.log(0.25)) == pytest.approx(math.log(0.75))
    assert text_bias(-math.inf) == 0
    assert text_bias(0.0) == -math.inf
