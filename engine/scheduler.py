"""Who runs next. Speaks of sequences only: no arrays, no threads, no clock."""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from engine.capacity import room_for
from engine.sequence import Sequence


@dataclass(frozen=True, slots=True)
class Batch:
    """What the next step runs."""

    sequences: list[Sequence]
    max_chunk: int  # tokens of a prompt in one forward pass
    others_wait: bool = False  # whether more than one sequence runs


@dataclass(slots=True)
class Scheduler:
    """First come, first served; prompts and decoding take turns, so that neither stalls the other.

    Who runs must fit the room for keys and values. Rows grow, so it may get too little; then whoever came last gives
    its memory back and waits, first in the queue, to read its tokens again.
    """

    max_running: int
    max_waiting: int
    prefill_chunk: int = 512
    shared_prefill_chunk: int = 128  # while others decode: they wait for a chunk between two of their steps
    max_room: int | None = None  # tokens that all rows together may keep; one row must fit
    waiting: deque[Sequence] = field(default_factory=deque)
    running: list[Sequence] = field(default_factory=list)  # in the order of their arrival
    num_preemptions: int = 0

    _prompt_was_last: bool = False
    _num_turns: int = 0
    _running_since: dict[Sequence, int] = field(default_factory=dict)  # the turn

    @property
    def is_full(self) -> bool:
        may_start = self.max_running - len(self.running)  # at the next step
        return len(self.waiting) >= self.max_waiting + may_start

    @property
    def is_idle(self) -> bool:
        return not self.waiting and not self.running

    def add(self, sequence: Sequence) -> None:
        """Let a sequence wait for its turn. Precondition: not is_full."""
        self.waiting.append(sequence)

    def remove(self, sequence: Sequence) -> None:
        """Forget a sequence that has ended, wherever it is."""
        if sequence in self.running:
            self._stop(sequence)
        elif sequence in self.waiting:
            self.waiting.remove(sequence)

    def next_batch(self) -> Batch:
        """One sequence that reads its prompt, or all that are past it; none when idle."""
        self._preempt()
        self._admit()
        self._num_turns += 1
        prompts = [sequence for sequence in self.running if sequence.is_prefilling]
        decoding = [sequence for sequence in self.running if not sequence.is_prefilling] if prompts else [*self.running]
        self._prompt_was_last = bool(prompts) and not (self._prompt_was_last and decoding)
        is_shared = len(self.running) > 1
        others_decode = bool(decoding) and is_shared
        max_chunk = min(self.prefill_chunk, self.shared_prefill_chunk) if others_decode else self.prefill_chunk
        batch = [min(prompts, key=self._patience)] if self._prompt_was_last else decoding
        return Batch(batch, max_chunk, is_shared)

    def _patience(self, sequence: Sequence) -> int:
        """Short prompts first, but every turn of waiting counts as a chunk that is read."""
        return len(sequence.pending) - self.prefill_chunk * (self._num_turns - self._running_since[sequence])

    def _admit(self) -> None:
        while self.waiting and len(self.running) < self.max_running and self._fits([*self.running, self.waiting[0]]):
            sequence = self.waiting.popleft()
            self.running.append(sequence)
            self._running_since[sequence] = self._num_turns

    def _preempt(self) -> None:
        while len(self.running) > 1 and not self._fits(self.running):
            last = self.running[-1]
            self._stop(last)
            last.preempt()
            self.waiting.appendleft(last)
            self.num_preemptions += 1

    def _fits(self, sequences: Iterable[Sequence]) -> bool:
        return self.max_room is None or room_for(each.num_to_keep for each in sequences) <= self.max_room

    def _stop(self, sequence: Sequence) -> None:
        self.running.remove(sequence)
        del self._running_since[sequence]
