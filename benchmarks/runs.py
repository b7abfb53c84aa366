"""One measured generation: which clock readings and forward passes count as what. No model, no threads.

Which time. `decode_s` is the time that n tokens take beyond the prompt's own work: from the moment at which the first
sampled token is known to the end, plus, where forced tokens ran in the prompt's forward pass, their share of its
positions times the time from its launch. It stands for n - 1 tokens in every mode. `later_s` is stricter on
fast-forward: it leaves out that pass with all that it gave, and stands for the tokens thereafter only. `request_s` is
everything: compiling the grammar, the prompt, decoding. CPU time is taken over the same stretch as `later_s`.

Which passes. All calls of the module. mlx-lm runs one token ahead, so its last pass is for a token that nobody reads:
it is counted, for it is work, and named, for it is no difference in decoding. It runs after the measured time. And it
runs the prompt's last token in a pass of its own.
"""

import enum
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.tracing import Pass, Stamp, TracedToken
from engine.events import Finished, StopReason


class Mode(enum.StrEnum):
    """Who decodes, and how."""

    MLX_LM_FREE = "mlx_lm_free"
    TOOLMASK_FREE = "toolmask_free"
    CONSTRAINED = "constrained"  # one token a forward pass
    CONSTRAINED_FF = "constrained_ff"  # forced tokens together

    @property
    def is_free(self) -> bool:
        return self in (Mode.MLX_LM_FREE, Mode.TOOLMASK_FREE)


@dataclass(frozen=True, slots=True)
class Run:
    """One generation, measured."""

    case_id: str
    mode: Mode
    tokens: tuple[int, ...]  # an end-of-turn token that ended it is not among them
    num_tokens: int  # that one included
    num_later_tokens: int
    num_forced: int
    num_passes: int
    num_unread_passes: int  # of them: for a token that nobody reads
    num_positions: int  # of all passes
    request_s: float
    decode_s: float
    later_s: float
    cpu_s: float  # all threads
    host_s: float  # the threads that run Python

    @property
    def decode_s_per_token(self) -> float:
        return self.decode_s / (self.num_tokens - 1)

    @property
    def later_s_per_token(self) -> float | None:
        return self._per_later_token(self.later_s)

    @property
    def cpu_s_per_token(self) -> float | None:
        return self._per_later_token(self.cpu_s)

    @property
    def host_s_per_token(self) -> float | None:
        return self._per_later_token(self.host_s)

    def _per_later_token(self, duration_s: float) -> float | None:
        """None where the prompt's pass gave everything, the end included."""
        return duration_s / self.num_later_tokens if self.num_later_tokens else None


@dataclass(frozen=True, slots=True)
class Recording:
    """What was noted while one generation ran."""

    trace: Sequence[TracedToken]
    passes: Sequence[Pass]
    start: Stamp
    submitted: Stamp  # by the caller's thread, as the others; mlx-lm's generator starts when it is iterated
    end: Stamp


def mlx_lm_run(case_id: str, recording: Recording, num_prompt: int) -> Run:
    """Of mlx_lm.stream_generate, in the caller's thread. Precondition: two tokens or more."""
    trace, passes = recording.trace, recording.passes
    first, last = trace[0].stamp, trace[-1].stamp
    return Run(
        case_id=case_id,
        mode=Mode.MLX_LM_FREE,
        tokens=tuple(token.id for token in trace),
        num_tokens=len(trace),
        num_later_tokens=len(trace) - 1,
        num_forced=0,
        num_passes=len(passes),
        num_unread_passes=_num_unread(passes, num_prompt, len(trace)),
        num_positions=sum(one.width for one in passes),
        request_s=last.wall_s - recording.start.wall_s,
        decode_s=last.wall_s - first.wall_s,
        later_s=last.wall_s - first.wall_s,
        cpu_s=last.process_s - first.process_s,
        host_s=last.thread_s - first.thread_s,
    )


def engine_run(case_id: str, mode: Mode, recording: Recording, finished: Finished) -> Run:
    """Of toolmask. What is forced at the start comes before the first pass. Precondition: a token was sampled."""
    trace, passes, end = recording.trace, recording.passes, recording.end
    with_prompt = [token for token in trace if token.stamp.wall_s < passes[0].launched_s]
    first = trace[len(with_prompt)].stamp
    next_launch = min((one.launched_s for one in passes if one.launched_s > first.wall_s), default=end.wall_s)
    num_end_tokens = int(finished.stop_reason is StopReason.EOS)
    num_unread = _num_unread(passes, finished.usage.prompt_tokens, len(trace)) if mode.is_free else 0
    later_s = end.wall_s - first.wall_s
    host_s = (trace[-1].stamp.thread_s - first.thread_s) + (end.thread_s - recording.submitted.thread_s)
    return Run(
        case_id=case_id,
        mode=mode,
        tokens=tuple(token.id for token in trace),
        num_tokens=len(trace) + num_end_tokens,
        num_later_tokens=sum(token.stamp.wall_s > next_launch for token in trace) + num_end_tokens,
        num_forced=finished.usage.forced_tokens,
        num_passes=len(passes),
        num_unread_passes=num_unread,
        num_positions=sum(one.width for one in passes),
        request_s=end.wall_s - recording.start.wall_s,
        decode_s=later_s + _share_of_prompt_s(len(with_prompt), passes, first),
        later_s=later_s,
        cpu_s=end.process_s - first.process_s,
        host_s=host_s,
    )


def _num_unread(passes: Sequence[Pass], num_prompt: int, num_tokens: int) -> int:
    """Passes beyond those over the prompt, the last of which gives the first token, and one for each further token."""
    seen = itertools.accumulate((one.width for one in passes), initial=0)
    num_of_prompt = sum(num_seen < num_prompt for num_seen in seen)
    return len(passes) - num_of_prompt - (num_tokens - 1)


def _share_of_prompt_s(num_forced: int, passes: Sequence[Pass], first: Stamp) -> float:
    """The time of the prompt's passes that goes to the forced tokens among their positions."""
    of_prompt = [one for one in passes if one.launched_s < first.wall_s]
    num_positions = sum(one.width for one in of_prompt)
    return (first.wall_s - of_prompt[0].launched_s) * num_forced / num_positions
