"""Packed bitmasks: which tokens may come next, one bit each.

int32 (B, W) with W = ceil(V / 32): bit t % 32 of word t // 32 is set where token t is allowed; bit 31 is the sign.
V is the width of the logits, which models often pad past the tokenizer's size; padded tokens are never allowed.
"""

from collections.abc import Collection

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

WORD_BITS = 32


def num_words(vocab_size: int) -> int:
    """W, the words of one row."""
    return -(-vocab_size // WORD_BITS)


def pack_bitmask(allowed: NDArray[np.bool_]) -> NDArray[np.int32]:
    """(..., V) of truth values -> (..., W). The bits of the last word past V are clear."""
    vocab_size = allowed.shape[-1]
    padding = num_words(vocab_size) * WORD_BITS - vocab_size
    padded = np.pad(allowed, [(0, 0)] * (allowed.ndim - 1) + [(0, padding)])
    packed = np.packbits(padded, axis=-1, bitorder="little")
    return packed.view("<i4").astype(np.int32, copy=False)


def allow_all(num_tokens: int, vocab_size: int, *, forbidden: Collection[int]) -> NDArray[np.int32]:
    """The row (W,) of a sequence without a grammar: every token of the tokenizer but the forbidden ones.

    num_tokens: the tokenizer's size. vocab_size: the width of the logits; either may be the larger one.
    """
    allowed = np.arange(vocab_size) < num_tokens
    allowed[[token for token in forbidden if token < vocab_size]] = False
    return pack_bitmask(allowed)


@mx.compile
def apply_bitmask(logits: mx.array, bitmask: mx.array) -> mx.array:
    """-inf where the bit is clear; elsewhere the logits, made finite.

    logits: (B, V), of any float type, which the result keeps. bitmask: (B, W), int32.
    An allowed logit of -inf or NaN becomes the type's lowest number and +inf its highest, so that an allowed token
    always beats a forbidden one and later arithmetic meets no inf - inf. A row should have a bit that is set.

    Compiled, so that unpacking fuses with the select: 0.15 ms a row of 152k on one CPU core, against 1 ms. It is
    traced once per shape and type.
    """
    # The shift copies the sign bit downwards; & 1 drops the copies.
    bits = (mx.expand_dims(bitmask, -1) >> mx.arange(WORD_BITS, dtype=mx.int32)) & 1
    allowed = bits.reshape(bitmask.shape[0], -1)[:, : logits.shape[1]].astype(mx.bool_)
    lowest = mx.finfo(logits.dtype).min
    return mx.where(allowed, mx.nan_to_num(logits, nan=lowest), -mx.inf)
