"""A grammar as a logits processor of mlx-lm: one mask a token, on the host, after the forward pass.

The protocol of mlx_lm.generate: processor(tokens, logits), tokens (n,) all tokens so far, logits (1, V). Reading the
last token waits for the device: so does every processor that follows a grammar.
"""

from collections.abc import Callable, Sequence

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from engine.grammars.matcher import Matcher
from engine.sampling.bitmask import apply_bitmask, num_words

FillMask = Callable[[NDArray[np.int32]], None]


class MaskProcessor:
    """Anything that takes tokens and fills a bitmask. After the end only end-of-turn tokens may come."""

    def __init__(
        self, accept: Callable[[int], None], fill: FillMask, is_done: Callable[[], bool], eos_ids: Sequence[int]
    ) -> None:
        self._accept, self._fill, self._is_done, self._eos_ids = accept, fill, is_done, eos_ids
        self._started = self._ended = False

    def __call__(self, tokens: mx.array, logits: mx.array) -> mx.array:
        if self._started:
            self._take(int(tokens[-1].item()))
        self._started = True
        row = np.zeros(num_words(logits.shape[-1]), dtype=np.int32)
        if self._ended or self._is_done():
            for token in self._eos_ids:
                row.view(np.uint32)[token // 32] |= np.uint32(1 << token % 32)
        else:
            self._fill(row)
        return apply_bitmask(logits, mx.array(row)[None])

    def _take(self, token: int) -> None:
        if self._ended or token in self._eos_ids:
            self._ended = True
        else:
            self._accept(token)


def llguidance_processor(matcher: Matcher, eos_ids: Sequence[int]) -> MaskProcessor:
    """The very grammar that the engine has."""
    return MaskProcessor(
        lambda token: matcher.accept([token]), matcher.fill_bitmask, lambda: matcher.is_terminated, eos_ids
    )
