"""Where the rows of one engine keep what they have seen: each alone while it reads its prompt, then side by side.

A row that is alone has slots of its own, so that its prompt is read as mlx-lm would read it. A row that is to share a
forward pass joins the slots of its capacity class, which is one copy.
"""

from collections.abc import Hashable, Sequence
from typing import Any, Protocol

import mlx.core as mx

from engine.cache import Cache, Part, Planes, SequenceCache
from engine.capacity import capacity_class
from engine.slots import Slots


class Memory(Protocol):
    """The caches of one engine. Used by its decoding thread only."""

    @property
    def can_cut(self) -> bool:
        """Whether what a row remembers of its first tokens can be told from the rest."""

    @property
    def bytes_per_token(self) -> int:
        """What one token of one row takes; 0 where rows are not counted in tokens."""

    @property
    def bytes_moved(self) -> int:
        """Cache bytes copied from place to place since the start, beside what forward passes append."""

    def make_cache(self) -> Cache:
        """An empty cache."""


class SlotCache:
    """One row of a SlotMemory."""

    def __init__(self, memory: "SlotMemory") -> None:
        self.memory = memory
        self.row = memory.new_slots().add()

    @property
    def num_tokens(self) -> int:
        return self.row.num_tokens

    @property
    def group(self) -> Hashable:
        return capacity_class(self.row.num_tokens)

    @property
    def can_trim(self) -> bool:
        return True

    def arrays(self) -> list[mx.array]:
        return self.row.slots.arrays()

    def trim(self, num_tokens: int) -> None:
        assert 0 <= num_tokens <= self.row.num_tokens
        self.row.num_tokens -= num_tokens

    def release(self) -> None:
        self.row.slots.remove(self.row)

    def read(self, ranges: Sequence[tuple[int, int]]) -> list[Part]:
        views = [self.row.slots.read(self.row, start, stop) for start, stop in ranges]
        copies = [[[mx.contiguous(view) for view in layer] for layer in layers] for layers in views]
        # At once: a copy that is still to be made would keep the slots from being written in place.
        mx.eval(copies)
        return [Part(planes, self.memory.count(planes)) for planes in copies]

    def write(self, parts: Sequence[tuple[Part, int]]) -> None:
        assert self.row.num_tokens == 0
        cut = [[[plane[:, :, :stop] for plane in layer] for layer in part.content] for part, stop in parts]
        planes = [
            [mx.concatenate(list(pieces), axis=2) for pieces in zip(*layer, strict=True)]
            for layer in zip(*cut, strict=True)
        ]
        self.row.slots.write(self.row, planes)


class SlotMemory:
    """Rows in slots; any of one capacity class go together."""

    can_cut = True

    def __init__(self, num_layers: int, quantisation: tuple[int, int] | None = None) -> None:
        """quantisation: group size and bits of the stored keys and values."""
        # Per layer and plane: heads, size and type of one token. The model sets them, which knows its heads.
        self.token_shapes: list[list[tuple[int, int, mx.Dtype]]] = []
        self._num_layers = num_layers
        self._quantisation = quantisation
        self._shared: dict[int, Slots] = {}  # by capacity class
        self.bytes_moved = 0

    @property
    def bytes_per_token(self) -> int:
        return sum(heads * size * dtype.size for layer in self.token_shapes for heads, size, dtype in layer)

    def make_cache(self) -> SlotCache:
        return SlotCache(self)

    def count(self, planes: Planes) -> int:
        """Add the bytes of a copy that a row has made of itself; returns them."""
        num_bytes = sum(plane.nbytes for layer in planes for plane in layer)
        self._count(num_bytes)
        return num_bytes

    def new_slots(self) -> Slots:
        """Empty ones, of nobody."""
        return Slots(self._num_layers, self._quantisation, self._count)

    def _count(self, num_bytes: int) -> None:
        self.bytes_moved += num_bytes

    def together(self, caches: Sequence[SlotCache]) -> Slots:
        """Bring rows of one group into the same slots. A row alone stays where it is, if it still fits there."""
        group = capacity_class(max(cache.num_tokens for cache in caches))
        if len(caches) == 1:
            (cache,) = caches
            if self._is_outgrown(cache.row.slots, group):
                self._bring(cache, self.new_slots())
            elif cache.row.slots.is_half_empty:  # others have left
                cache.row.slots.tidy()
            return cache.row.slots
        if group not in self._shared:
            self._shared[group] = self.new_slots()
        slots = self._shared[group]
        joining = [cache for cache in caches if cache.row.slots is not slots]
        if joining:
            slots.reserve([cache.num_tokens for cache in joining])
        for cache in joining:
            self._bring(cache, slots)
        slots.tidy()
        return slots

    def _is_outgrown(self, slots: Slots, group: int) -> bool:
        return any(slots is shared for number, shared in self._shared.items() if number != group)

    def _bring(self, cache: SlotCache, slots: Slots) -> None:
        old = cache.row
        cache.row = slots.add()
        if old.num_tokens:
            slots.write(cache.row, old.slots.read(old, 0, old.num_tokens))
        old.slots.remove(old)
        if old.slots.is_half_empty:  # those that stay may have had their pass of this step
            old.slots.tidy()


class LayerMemory:
    """Rows in mlx-lm's own caches, where those are rotating or recurrent: each row has its own forward passes."""

    can_cut = False

    def __init__(self, make_layers: Any) -> None:
        """make_layers: gives mlx-lm's cache of each layer, empty."""
        self.bytes_per_token = 0  # layers differ: some grow with each token, some up to a window, some not at all
        self.bytes_moved = 0
        self._make_layers = make_layers

    def make_cache(self) -> SequenceCache:
        return SequenceCache(self._make_layers())
