"""What a model remembers of the tokens that it has seen."""

import copy
from collections.abc import Hashable, Sequence
from typing import Any, Protocol

import mlx.core as mx
from mlx.utils import tree_flatten
from mlx_lm.models.cache import can_trim_prompt_cache, trim_prompt_cache

Planes = list[list[mx.array]]
"""Per layer, the arrays that hold a stretch of one row's tokens: (1, heads, tokens, size) each."""


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
        """False for rotating and recurrent layers: they do not keep what would come back."""
        return bool(can_trim_prompt_cache(self.layers))

    def trim(self, num_tokens: int) -> None:
        """Forget the last tokens. Precondition: can_trim, and no more than it has seen."""
        assert self.can_trim
        assert 0 <= num_tokens <= self._num_tokens
        trim_prompt_cache(self.layers, num_tokens)
        self._num_tokens -= num_tokens

    def copy(self) -> "SequenceCache":
        """The same memory, to go on from twice. Arrays are values: none is copied before it is changed."""
        twin = SequenceCache(copy.deepcopy(self.layers))
        twin.advance(self._num_tokens)
        return twin

    def release(self) -> None:
        self.layers = []


def arrays_in(tree: Any) -> list[mx.array]:
    """The arrays in nested lists, tuples and dicts."""
    return [leaf for leaf in dict(tree_flatten(tree)).values() if isinstance(leaf, mx.array)]
