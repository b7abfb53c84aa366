from math import inf, nan

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.sampling.bitmask import allow_all, apply_bitmask, num_words, pack_bitmask

INT32_MIN = -(2**31)


def allowed_tokens(row: np.ndarray, vocab_size: int) -> list[int]:
    """The tokens of a packed row (W,), read bit by bit as the format is written down."""
    words = [int(word) % 2**32 for word in row]
    return [token for token in range(vocab_size) if words[token // 32] >> (token % 32) & 1]


def test_a_token_whose_bit_is_clear_gets_minus_infinity() -> None:
    only_token_1 = mx.array([[0b010]], dtype=mx.int32)
    assert apply_bitmask(mx.zeros((1, 3)), only_token_1).tolist() == [[-inf, 0.0, -inf]]


def test_the_sign_bit_is_token_31() -> None:
    masked = apply_bitmask(mx.arange(64, dtype=mx.float32)[None], mx.array([[INT32_MIN, 1]], dtype=mx.int32))
    assert [token for token in range(64) if masked[0, token].item() > -inf] == [31, 32]


def test_a_set_sign_bit_says_nothing_of_the_other_tokens() -> None:
    all_but_31 = mx.array([[2**31 - 1]], dtype=mx.int32)
    assert [value > -inf for value in apply_bitmask(mx.zeros((1, 32)), all_but_31).tolist()[0]] == [True] * 31 + [False]


@pytest.mark.parametrize(("vocab_size", "words"), [(1, 1), (31, 1), (32, 1), (33, 2), (151_936, 4748)])
def test_a_row_has_a_word_for_every_32_tokens_begun(vocab_size: int, words: int) -> None:
    assert num_words(vocab_size) == words
    assert pack_bitmask(np.ones(vocab_size, bool)).shape == (words,)


@given(st.lists(st.booleans(), min_size=1, max_size=100))
def test_packing_sets_the_bits_of_the_allowed_tokens_and_no_others(allowed: list[bool]) -> None:
    packed = pack_bitmask(np.array(allowed))
    expected = [token for token, is_allowed in enumerate(allowed) if is_allowed]
    assert packed.dtype == np.int32
    assert allowed_tokens(packed, 32 * num_words(len(allowed))) == expected


@settings(deadline=None)  # the first example compiles
@given(st.integers(0, 2**32), st.sampled_from([1, 31, 32, 33, 64, 95]), st.integers(1, 4))
def test_masking_keeps_the_allowed_logits_as_they_are(seed: int, vocab_size: int, batch: int) -> None:
    random = np.random.default_rng(seed)
    allowed = random.random((batch, vocab_size)) < 0.5
    logits = random.normal(size=(batch, vocab_size)).astype(np.float32)
    masked = apply_bitmask(mx.array(logits), mx.array(pack_bitmask(allowed)))
    np.testing.assert_array_equal(np.asarray(masked), np.where(allowed, logits, -np.inf))


@pytest.mark.parametrize("dtype", [mx.float32, mx.float16, mx.bfloat16], ids=str)
def test_allowed_logits_come_back_finite_and_in_their_own_type(dtype: mx.Dtype) -> None:
    masked = apply_bitmask(mx.array([[-inf, nan, inf, 2.0, inf, nan]], dtype=dtype), mx.array([[0b001111]]))
    low, high = mx.finfo(dtype).min, mx.finfo(dtype).max
    assert masked.dtype == dtype
    assert masked.tolist() == [[low, low, high, 2.0, -inf, -inf]]


def test_a_free_row_allows_the_tokenizers_tokens_but_the_forbidden_ones() -> None:
    row = allow_all(40, 70, forbidden={0, 31, 33})
    assert row.shape == (3,)
    assert allowed_tokens(row, 96) == [token for token in range(40) if token not in {0, 31, 33}]


def test_a_free_row_never_allows_a_padded_token() -> None:
    row = allow_all(33, 64, forbidden=())
    assert int(np.argmax(np.asarray(apply_bitmask(mx.arange(64.0)[None], mx.array(row[None]))))) == 32


def test_a_tokenizer_may_know_more_tokens_than_the_model() -> None:
    assert allowed_tokens(allow_all(50, 33, forbidden=[40]), 64) == list(range(33))
