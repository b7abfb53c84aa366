"""KV memory for rows of unequal length that go through one forward pass.

The rule: each row lives in a slot; its tokens stand at positions 0 to num_tokens of it, and whatever stands behind them
is junk that no query looks at and the next tokens overwrite. So a row of a pass may be shorter than the others (the
padding lands behind its end), trimming is a smaller number, and a row may sit a pass out.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import mlx.core as mx
from mlx_lm.models.cache import create_attention_mask

from engine.cache import Planes
from engine.capacity import rounded_up


@dataclass(slots=True, eq=False)
class Row:
    """One row's place. Only slots change it."""

    slots: "Slots"
    index: int
    num_tokens: int = 0


class Frame:
    """One forward pass, as all layers see it: the slots from start to stop, each from its own offset on."""

    def __init__(self, start: int, stop: int, offsets: tuple[int, ...], width: int, capacity: int) -> None:
        """offsets: of every slot that there is."""
        self.start = start
        self.stop = stop
        self.offsets = offsets
        self.width = width
        self.capacity = capacity
        self._masks: dict[int | None, mx.array] = {}  # by window size

    @property
    def is_lone(self) -> bool:
        return self.stop - self.start == 1

    @property
    def reach(self) -> int:
        """Positions that any query looks at."""
        return max(self.offsets[self.start : self.stop]) + self.width

    @cached_property
    def offset(self) -> int | mx.array:
        """Where the new tokens begin: one number, or one per row."""
        inside = self.offsets[self.start : self.stop]
        return inside[0] if self.is_lone else mx.array(inside)

    @cached_property
    def index(self) -> mx.array:
        """(S, 1, L, 1): where each slot's new tokens go. Those of slots outside go behind their end, as padding."""
        ends = mx.array([min(offset, self.capacity - self.width) for offset in self.offsets])
        return (ends[:, None] + mx.arange(self.width))[:, None, :, None]

    def mask(self, window_size: int | None) -> mx.array:
        """(B, 1, L, K), bool: what each query may look at, by position."""
        if window_size not in self._masks:
            queries = self.index[self.start : self.stop]
            keys = mx.arange(self.reach)
            seen = keys <= queries
            self._masks[window_size] = seen if window_size is None else seen & (keys > queries - window_size)
        return self._masks[window_size]


class Slots:
    """Rows side by side: per layer, arrays (S, heads, capacity, size). One thread uses it."""

    def __init__(
        self,
        num_layers: int,
        quantisation: tuple[int, int] | None = None,
        on_move: Callable[[int], None] = lambda _: None,
    ) -> None:
        """quantisation: group size and bits; None stores keys and values as they come.

        on_move: is told how many bytes a copy from place to place had; what forward passes append is none.
        """
        make = _Layer if quantisation is None else _QuantizedLayer
        self.layers = [make(self, *(quantisation or ())) for _ in range(num_layers)]
        self.rows: list[Row | None] = []
        self.frame: Frame | None = None
        self._on_move = on_move

    @property
    def num_slots(self) -> int:
        """Those with memory; 0 before the first token."""
        return int(self.layers[0].planes[0].shape[0]) if self.layers[0].planes else 0

    @property
    def capacity(self) -> int:
        """Tokens that a slot has memory for."""
        return int(self.layers[0].planes[0].shape[2]) if self.layers[0].planes else 0

    def arrays(self) -> list[mx.array]:
        return [plane for layer in self.layers for plane in layer.planes]

    def add(self) -> Row:
        """An empty row, in the first free slot."""
        self.reserve([0])
        row = Row(self, self.rows.index(None) if None in self.rows else len(self.rows))
        self.rows[row.index : row.index + 1] = [row]
        return row

    def reserve(self, lengths: Sequence[int]) -> None:
        """Have slots for more rows of so many tokens, and be copied once for all of them."""
        needed = self._num_used + len(lengths)
        if self.layers[0].planes and needed > self.num_slots:
            self._resize(max(3 * self.num_slots // 2, needed), rounded_up(max(self._longest, *lengths) + 1))

    def remove(self, row: Row) -> None:
        """Free a row's slot."""
        self.rows[row.index] = None
        if self.rows[-1] is None:
            self._drop_free_end()
        if not self.rows:
            for layer in self.layers:
                layer.planes = []

    def read(self, row: Row, start: int, stop: int) -> Planes:
        """A row's tokens from start to stop, lazily: evaluate them before the row moves on."""
        at = slice(row.index, row.index + 1)
        return [[plane[at, :, start:stop] for plane in layer.planes] for layer in self.layers]

    def write(self, row: Row, planes: Planes) -> None:
        """Put tokens into a row, from its beginning."""
        num_tokens = planes[0][0].shape[2]
        self._make_room(num_tokens, like=planes)
        at = slice(row.index, row.index + 1)
        for layer, parts in zip(self.layers, planes, strict=True):
            for plane, part in zip(layer.planes, parts, strict=True):
                plane[at, :, :num_tokens] = part
                # Junk behind the end is masked, but masked is times 0, and an earlier tenant's NaN would stay NaN.
                plane[at, :, num_tokens:] = 0
        row.num_tokens = num_tokens
        self._count(planes)

    def open(self, widths: Mapping[int, int]) -> Frame:
        """Get ready for a forward pass. widths: from slot to its new tokens; the slots between them join in."""
        width, start, stop = max(widths.values()), min(widths), max(widths) + 1
        offsets = [0] * max(self.num_slots, len(self.rows))
        for row in self.rows:
            if row is not None:
                offsets[row.index] = row.num_tokens
        # A pass over one slot writes into that slot alone.
        longest = offsets[start] if stop - start == 1 else max(offsets)
        self._make_room(longest + width)
        self.frame = Frame(start, stop, tuple(offsets), width, self.capacity or rounded_up(longest + width))
        return self.frame

    @property
    def is_half_empty(self) -> bool:
        """Whether it has more than twice the memory that its rows need."""
        return self.num_slots * self.capacity > 2 * self._num_used * rounded_up(self._longest)

    def tidy(self) -> None:
        """Move rows from the end into free slots, and give memory back that few use: no pass has idle rows between."""
        for index in range(len(self.rows)):
            if index < len(self.rows) and self.rows[index] is None:
                self._move_last(index)
        if self.is_half_empty:
            self._resize(len(self.rows), rounded_up(self._longest + 1))

    @property
    def _num_used(self) -> int:
        return len(self.rows) - self.rows.count(None)

    @property
    def _longest(self) -> int:
        return max((row.num_tokens for row in self.rows if row is not None), default=0)

    def _move_last(self, index: int) -> None:
        row = self.rows[-1]
        assert row is not None  # remove keeps the end in use
        planes = [[mx.contiguous(part) for part in parts] for parts in self.read(row, 0, row.num_tokens)]
        self.rows[index] = row
        row.index = index
        self._drop_free_end()
        self.write(row, planes)

    def _drop_free_end(self) -> None:
        self.rows[-1] = None
        while self.rows and self.rows[-1] is None:
            self.rows.pop()

    def _make_room(self, num_tokens: int, like: Planes | None = None) -> None:
        if not self.layers[0].planes:
            if like is not None:
                for layer, parts in zip(self.layers, like, strict=True):
                    layer.allocate(parts, len(self.rows), rounded_up(num_tokens))
        elif num_tokens > self.capacity:
            self._resize(self.num_slots, rounded_up(num_tokens))

    def _resize(self, num_slots: int, capacity: int) -> None:
        """A copy, larger or smaller. Precondition: all rows fit."""
        slots, tokens = min(num_slots, self.num_slots), min(capacity, self.capacity)
        growth = [(0, num_slots - slots), (0, 0), (0, capacity - tokens), (0, 0)]
        kept = [[plane[:slots, :, :tokens] for plane in layer.planes] for layer in self.layers]
        self._count(kept)
        for layer, planes in zip(self.layers, kept, strict=True):
            layer.planes = [mx.contiguous(mx.pad(plane, growth)) for plane in planes]

    def _count(self, planes: Planes) -> None:
        self._on_move(sum(part.nbytes for parts in planes for part in parts))


class _Layer:
    """What mlx-lm's models call a cache: one layer of the slots, seen through the pass under way."""

    def __init__(self, slots: Slots) -> None:
        self._slots = slots
        self.planes: list[mx.array] = []

    @property
    def offset(self) -> int | mx.array:
        """Where the new tokens begin: one number, or one per row, for the rotary embedding."""
        return self._frame.offset

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[Any, Any]:
        """keys, values: (B, heads, L, size). Append them; returns all that queries may look at."""
        self._append([keys, values])
        keys, values = self._fetch()
        return keys, values

    def make_mask(self, num_new: int, return_array: bool = False, window_size: int | None = None) -> Any:
        """The attention mask of the pass, in the forms that mlx-lm's models know."""
        frame = self._frame
        if frame.is_lone:
            return create_attention_mask(num_new, frame.offsets[frame.start], return_array, window_size)
        return frame.mask(window_size)

    def allocate(self, parts: Sequence[mx.array], num_slots: int, capacity: int) -> None:
        """Make room for rows of such parts: (_, heads, _, size) each."""
        self.planes = [mx.zeros((num_slots, part.shape[1], capacity, part.shape[3]), part.dtype) for part in parts]

    @property
    def _frame(self) -> Frame:
        assert self._slots.frame is not None
        return self._slots.frame

    def _append(self, parts: list[mx.array]) -> None:
        frame = self._frame
        if not self.planes:
            self.allocate(parts, len(frame.offsets), frame.capacity)
        if frame.is_lone:
            begin = frame.offsets[frame.start]
            for plane, part in zip(self.planes, parts, strict=True):
                plane[frame.start : frame.stop, :, begin : begin + frame.width] = part
            return
        if frame.stop - frame.start < len(frame.offsets):
            around = [(frame.start, len(frame.offsets) - frame.stop), (0, 0), (0, 0), (0, 0)]
            parts = [mx.pad(part, around) for part in parts]
        self.planes = [
            mx.put_along_axis(plane, frame.index, part, axis=2) for plane, part in zip(self.planes, parts, strict=True)
        ]

    def _fetch(self) -> list[mx.array]:
        frame = self._frame
        return [plane[frame.start : frame.stop, :, : frame.reach] for plane in self.planes]


class _QuantizedLayer(_Layer):
    """Keys and values in a few bits: packed words, scales and biases. mlx-lm's attention knows it by `bits`."""

    def __init__(self, slots: Slots, group_size: int, bits: int) -> None:
        super().__init__(slots)
        self.group_size = group_size
        self.bits = bits

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[Any, Any]:
        parts = [mx.quantize(each, group_size=self.group_size, bits=self.bits) for each in (keys, values)]
        self._append([part for triple in parts for part in triple])
        fetched = self._fetch()
        return tuple(fetched[:3]), tuple(fetched[3:])
