"""Where JSON may close an object or go on with another property, told by what the mask allows there.

Behind a number, a word or a bracket, nothing but a comma, a bracket or more of the number can come. A string's end may
come in one token with what follows it; inside of a string no line can end, which tells it from free text. A bias above
0 would end strings early there.
"""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.sampling.bitmask import num_words, pack_bitmask

OF_NUMBERS = b"0123456789.eE+-"


@dataclass(frozen=True, slots=True)
class _Place:
    """Masks (W,) of tokens: the bias is for what goes on, where some token closes and none tells of another place."""

    goes_on: NDArray[np.int32]
    closes: NDArray[np.int32]
    elsewhere: NDArray[np.int32]


class OptionalPlaces:
    """The tokens of one vocabulary, by how they begin. Used by the decoding thread only."""

    def __init__(self, token_bytes: Callable[[int], bytes], num_tokens: int, vocab_size: int) -> None:
        """num_tokens: of the vocabulary; vocab_size: columns of the logits."""
        self._token_bytes, self._num_tokens, self._num_words = token_bytes, num_tokens, num_words(vocab_size)

    def bias(self, mask: NDArray[np.int32], bias: float) -> Mapping[int, float]:
        """The bias of each token that begins another property; none elsewhere.

        mask: (W,), what may come next. bias: 0 or less.
        """
        biased: dict[int, float] = {}
        for place in self._places:
            if (mask & place.closes).any() and not (mask & place.elsewhere).any():
                words = np.ascontiguousarray(mask & place.goes_on)
                tokens = np.flatnonzero(np.unpackbits(words.view(np.uint8), bitorder="little"))
                biased |= dict.fromkeys(tokens.tolist(), bias)
        return biased

    @functools.cached_property
    def _places(self) -> tuple[_Place, _Place]:
        of_numbers = [bytes([byte]) for byte in OF_NUMBERS]
        in_place = self._mask(b",", b"}", *of_numbers)
        return (
            _Place(self._mask(b","), self._mask(b"}"), ~in_place),
            _Place(self._mask(b'",'), self._mask(b'"}'), self._mask(b"\n")),
        )

    def _mask(self, *beginnings: bytes) -> NDArray[np.int32]:
        """The tokens that begin so."""
        spelled = (self._token_bytes(token).startswith(beginnings) for token in range(self._num_tokens))
        mask = np.zeros(self._num_words, dtype=np.int32)
        packed = pack_bitmask(np.fromiter(spelled, dtype=np.bool_, count=self._num_tokens))
        mask[: min(packed.size, mask.size)] = packed[: mask.size]
        return mask
