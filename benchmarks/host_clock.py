"""Where the decoding thread's CPU time goes, step by step, read from outside.

The rule of benchmarks/tracing.py holds: the measured path stays as it is. Each call of four functions costs two more
readings of the thread's clock. A reading charges the time since the last one to whatever ran then, so that the parts
of a step add up to the whole of it:

    forward   MLXModel.forward and mx.async_eval: building the graph and handing it to the device
    mask      LLGuidanceCompiler.fill_bitmasks, without what its threads do
    sample    engine.draws.sample and mx.eval: the same for the sampler, and waking up when the tokens are there
    python    everything else: scheduling, matchers, detokenizing, parsing, delivering
"""

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import mlx.core as mx

import engine.draws
from engine.grammars.llguidance_backend import LLGuidanceCompiler
from engine.model import MLXModel

DECODING_THREAD = "toolmask-decoding"
PARTS = ("forward", "mask", "sample", "python")
PATCHED: tuple[tuple[object, str, str], ...] = (
    (MLXModel, "forward", "forward"),
    (mx, "async_eval", "forward"),
    (LLGuidanceCompiler, "fill_bitmasks", "mask"),
    (engine.draws, "sample", "sample"),
    (mx, "eval", "sample"),
)


@dataclass(frozen=True, slots=True)
class HostStep:
    """CPU seconds of one step, by part, from one filling of masks to the next."""

    num_rows: int
    seconds: dict[str, float]
    mask_wall_s: float  # llguidance's own threads fill the masks of a batch: this is the time it takes

    @property
    def besides_forward_s(self) -> float:
        return sum(self.seconds.values()) - self.seconds["forward"]


@dataclass
class HostClock:
    """Records the steps of one engine while `installed`."""

    steps: list[HostStep] = field(default_factory=list)

    _parts: list[str] = field(default_factory=lambda: ["python"])  # the innermost last
    _seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PARTS, 0.0))
    _last_s: float | None = None
    _num_rows: int = 0
    _mask_wall_s: float = 0.0

    @contextmanager
    def installed(self) -> Iterator[None]:
        with ExitStack() as stack:
            for owner, name, part in PATCHED:
                stack.enter_context(_replaced(owner, name, self._timed(getattr(owner, name), part)))
            yield

    def clear(self) -> None:
        """Forget all steps, the one under way too. Precondition: the engine is idle."""
        self.steps, self._last_s, self._num_rows = [], None, 0
        self._seconds = dict.fromkeys(PARTS, 0.0)

    def _timed(self, function: Callable[..., Any], part: str) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            if threading.current_thread().name != DECODING_THREAD:
                return function(*args, **kwargs)
            self._charge()
            if part == "mask":
                self._begin_step(num_rows=args[2].shape[0])
            self._parts.append(part)
            start = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                if part == "mask":
                    self._mask_wall_s = time.perf_counter() - start
                self._charge()
                self._parts.pop()

        return timed

    def _charge(self) -> None:
        now = time.thread_time()
        if self._last_s is not None:
            self._seconds[self._parts[-1]] += now - self._last_s
        self._last_s = now

    def _begin_step(self, num_rows: int) -> None:
        """A step has one filling of masks. Its record ends where the next one begins."""
        self.steps.append(HostStep(self._num_rows, self._seconds, self._mask_wall_s))
        self._seconds, self._num_rows = dict.fromkeys(PARTS, 0.0), num_rows


@contextmanager
def _replaced(owner: object, name: str, value: object) -> Iterator[None]:
    original = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, original)


def steady(steps: list[HostStep], num_rows: int, skip: int) -> list[HostStep]:
    """The steps in which all rows decoded, as had those before: without prompts, and without the first few."""
    whole = [step for before, step in itertools.pairwise(steps) if step.num_rows == before.num_rows == num_rows]
    return whole[skip:]
