"""What one generation did, read from outside: forward passes and when each token was known.

The rule: the measured path stays as it is. A pass costs one more Python call, a token one reading of three clocks.
"""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
from mlx import nn

from engine.tokenizer import Detokenizer, Tokenizer


@dataclass(frozen=True, slots=True)
class Stamp:
    """Three clocks at one moment, in seconds."""

    wall_s: float
    process_s: float  # CPU time of all threads, the BLAS's and MLX's too
    thread_s: float  # CPU time of the thread that took the stamp: the host's own work

    @classmethod
    def now(cls) -> "Stamp":
        return cls(time.perf_counter(), time.process_time(), time.thread_time())


@dataclass(frozen=True, slots=True)
class Pass:
    """One call of the model."""

    launched_s: float  # perf_counter
    width: int  # positions


class PassRecorder:
    """Every call of a module while `installed`, whoever makes it."""

    def __init__(self) -> None:
        self.passes: list[Pass] = []

    def clear(self) -> None:
        self.passes = []

    @contextmanager
    def installed(self, module: nn.Module) -> Iterator[None]:
        # A subclass for this one object, as engine/model.py does for the head: the parameters' names stay.
        kind = type(module)
        recorder = self

        def call(self: nn.Module, inputs: mx.array, *args: Any, **kwargs: Any) -> Any:
            recorder.passes.append(Pass(time.perf_counter(), inputs.shape[1]))
            return kind.__call__(self, inputs, *args, **kwargs)

        module.__class__ = type(kind.__name__, (kind,), {"__call__": call})
        try:
            yield
        finally:
            module.__class__ = kind


@dataclass(frozen=True, slots=True)
class TracedToken:
    """One token of the output, at the moment at which it became text."""

    id: int
    stamp: Stamp


class TracingTokenizer(Tokenizer):
    """A copy of a tokenizer that notes each token that is detokenized, in `trace`. For one generation at a time."""

    def __init__(self, original: Tokenizer) -> None:
        vars(self).update(vars(original))
        self.trace: list[TracedToken] = []

    def detokenizer(self) -> Detokenizer:
        return _TracingDetokenizer(self)


class EndlessTokenizer(TracingTokenizer):
    """One to which the model's end-of-turn tokens are tokens like others: free text goes on to max_tokens.

    Else nothing changes: they may be sampled, as before, and other special tokens may not. The grammar library insists
    on an end-of-turn token, so a special token that no chat contains takes the role.
    """

    def __init__(self, original: Tokenizer) -> None:
        super().__init__(original)
        self.special_ids = original.special_ids - original.eos_ids
        self.eos_ids = frozenset({max(self.special_ids, default=original.num_tokens - 1)})


class _TracingDetokenizer(Detokenizer):
    def __init__(self, tokenizer: TracingTokenizer) -> None:
        super().__init__(tokenizer)
        self._trace = tokenizer.trace

    def feed(self, token_id: int) -> str:
        self._trace.append(TracedToken(token_id, Stamp.now()))
        return super().feed(token_id)


def agreement(left: Iterable[int], right: Iterable[int], barred: frozenset[int] = frozenset()) -> bool:
    """Whether two outputs are equal up to the first token of `left` that the other side may not write."""
    for one, other in zip(left, right, strict=False):
        if one in barred:
            return True
        if one != other:
            return False
    return True


def wait_until_idle(limit_s: float = 2.0) -> None:
    """Let passes that nobody waits for, and the BLAS's spinning threads, come to rest."""
    deadline = time.perf_counter() + limit_s
    while time.perf_counter() < deadline:
        before = time.process_time()
        time.sleep(0.02)
        if time.process_time() - before < 0.002:
            return
