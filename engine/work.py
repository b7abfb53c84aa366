"""What the steps of an engine did, counted, and where the decoding thread's time went."""

import time
from dataclasses import dataclass


@dataclass(slots=True)
class Work:
    """Sums since the engine's start."""

    num_steps: int = 0
    num_passes: int = 0
    num_positions: int = 0  # of all passes, padding included
    num_padding: int = 0  # of them
    num_ahead: int = 0  # passes that were launched before their tokens were read
    num_waits: int = 0  # for the device
    num_drafted: int = 0  # tokens that were run on a guess
    num_accepted: int = 0  # of them, right
    num_draft_passes: int = 0  # of a drafting model
    num_draft_positions: int = 0  # of those passes
    forward_s: float = 0.0  # launching passes; where the device's queue is short, waiting for it too
    mask_s: float = 0.0  # filling bitmasks
    sample_s: float = 0.0  # launching the sampler, and waiting for its tokens
    step_s: float = 0.0  # all of it; what is left is Python between

    @property
    def python_s(self) -> float:
        """Of the steps, what is neither forward, nor mask, nor sample."""
        return self.step_s - self.forward_s - self.mask_s - self.sample_s

    def timed(self, part: str) -> "_Timed":
        """Add the time of a block to one of the fields."""
        return _Timed(self, part)


@dataclass(slots=True)
class _Timed:
    """A class and no generator: each step enters several."""

    work: Work
    part: str
    start_s: float = 0.0

    def __enter__(self) -> None:
        self.start_s = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        setattr(self.work, self.part, getattr(self.work, self.part) + time.perf_counter() - self.start_s)
