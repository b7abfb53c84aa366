"""What a model remembers of the tokens that it has seen."""

import copy
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import mlx.core as mx
from mlx.utils import tree_flatten
from mlx_lm.models.cache import CacheList, ConcatenateKVCache, KVCache, QuantizedKVCache, trim_prompt_cache

KEEP_ALL = (KVCache, QuantizedKVCache, ConcatenateKVCache)  # layer caches that can always forget their last tokens

Planes = list[list[mx.array]]
"""Per layer, the arrays that hold a stretch of one row's tokens: (1, heads, tokens, size) each."""


@dataclass(frozen=True, slots=True)
class Part:
    """What a cache remembers of some tokens, evaluated. Only caches of its own kind can read the content."""

    content: Any
    num_bytes: int


class Cache(Protocol):
    """What the step needs to know of one row's memory."""

    @property
    def num_tokens(self) -> int:
        """Tokens seen."""

    @property
    def group(self) -> Hashable:
        """Rows of one group may go through one forward pass."""

    @property
    def can_trim(self) -> bool:
        """Whether the last tokens can be forgotten."""

    def arrays(self) -> list[mx.array]:
        """Its arrays, for evaluation."""

    def trim(self, num_tokens: int) -> None:
        """Forget the last tokens. Precondition: can_trim, and no more than it has seen."""

    def read(self, ranges: Sequence[tuple[int, int]]) -> list[Part]:
        """Copies of what it remembers of the tokens from start to stop; of all of them, where it cannot be cut.

        Waits for the device.
        """

    def write(self, parts: Sequence[tuple[Part, int]]) -> None:
        """Take over parts, one behind the other, of each so many of its first tokens. Precondition: it is empty."""

    def release(self) -> None:
        """Give its memory back; it must not be used any more."""


class SequenceCache:
    """The layer caches of mlx-lm for one row, where they are rotating or recurrent. Forward passes append to it."""

    def __init__(self, layers: Sequence[Any]) -> None:
        """layers: mlx-lm's cache of each layer, empty."""
        self.layers = list(layers)
        self._num_tokens = 0

    @property
    def num_tokens(self) -> int:
        return self._num_tokens

    @property
    def group(self) -> Hashable:
        return id(self)

    def arrays(self) -> list[mx.array]:
        return arrays_in([layer.state for layer in self.layers])

    def advance(self, num_tokens: int) -> None:
        """Count tokens that a forward pass has just appended; the model calls it."""
        self._num_tokens += num_tokens

    @property
    def can_trim(self) -> bool:
        """False for rotating and recurrent layers: they do not keep what would come back.

        Nor may a rotating one that has not rotated yet: what is to be taken back may be what makes it rotate.
        """
        return all(_keeps_all(layer) for layer in self.layers)

    def trim(self, num_tokens: int) -> None:
        """Forget the last tokens. Precondition: can_trim, and no more than it has seen."""
        assert self.can_trim
        assert 0 <= num_tokens <= self._num_tokens
        trim_prompt_cache(self.layers, num_tokens)
        self._num_tokens -= num_tokens

    def read(self, ranges: Sequence[tuple[int, int]]) -> list[Part]:
        assert list(ranges) == [(0, self._num_tokens)]
        layers = copy.deepcopy(self.layers)
        arrays = arrays_in([layer.state for layer in layers])
        mx.eval(arrays)
        return [Part(layers, sum(array.nbytes for array in arrays))]

    def write(self, parts: Sequence[tuple[Part, int]]) -> None:
        assert self._num_tokens == 0
        ((part, num_tokens),) = parts
        self.layers = copy.deepcopy(part.content)
        self._num_tokens = num_tokens

    def release(self) -> None:
        self.layers = []


def _keeps_all(layer: Any) -> bool:
    return all(map(_keeps_all, layer.caches)) if isinstance(layer, CacheList) else type(layer) in KEEP_ALL


def arrays_in(tree: Any) -> list[mx.array]:
    """The arrays in nested lists, tuples and dicts."""
    return [leaf for leaf in dict(tree_flatten(tree)).values() if isinstance(leaf, mx.array)]


def bytes_of(array: mx.array) -> memoryview:
    """Its values as they lie in memory, not copied where they lie in one stretch. Waits for the device."""
    flat: Any = array.reshape(-1).view(mx.uint8)
    return memoryview(flat)
