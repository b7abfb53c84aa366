"""Who runs next. Speaks of sequences only: no arrays, no threads, no clock."""

from collections import deque
from dataclasses import dataclass, field

from engine.sequence import Sequence


@dataclass(slots=True)
class Scheduler:
    """First come, first served; prompts and decoding take turns, so that neither stalls the other."""

    max_running: int
    max_waiting: int
    waiting: deque[Sequence] = field(default_factory=deque)
    running: list[Sequence] = field(default_factory=list)

    _prompt_was_last: bool = False

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
            self.running.remove(sequence)
        elif sequence in self.waiting:
            self.waiting.remove(sequence)

    def next_step(self) -> list[Sequence]:
        """The sequences of the next step: one that is in its prompt, or all that are past it; [] when idle."""
        while self.waiting and len(self.running) < self.max_running:
            self.running.append(self.waiting.popleft())
        prompts = [sequence for sequence in self.running if sequence.is_prefilling]
        decoding = [sequence for sequence in self.running if not sequence.is_prefilling]
        self._prompt_was_last = bool(prompts) and not (self._prompt_was_last and decoding)
        return prompts[:1] if self._prompt_was_last else decoding
