"""What a model says of a call when nobody has asked for anything: read once per tool set, and kept."""

import hashlib
import threading
from array import array
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace

from engine.admission import Admission
from engine.decision_point import Prior
from engine.decoding import Decoder
from engine.errors import GenerationError, RequestError
from engine.events import StopReason
from engine.generation import OnProbe, Run
from engine.types import Request

MAX_KEPT = 256  # tool sets


class Calibration:
    """The priors of one engine's tool sets. Any thread may ask but the one that decodes."""

    def __init__(self, admission: Admission, decoder: Decoder, *, max_kept: int = MAX_KEPT) -> None:
        """max_kept: tool sets whose priors are remembered; the one not asked about for longest goes first."""
        self._admission, self._decoder, self._max_kept = admission, decoder, max_kept
        self._lock = threading.Lock()
        self._kept: OrderedDict[bytes, Prior] = OrderedDict()
        self._reading: dict[bytes, threading.Event] = {}  # each is set when that prior is known, or could not be read

    def calibrate(self, request: Request, runs: Sequence[Run], on_probe: OnProbe | None = None) -> None:
        """Tell the runs of one request its prior, where it has one. As `prior` otherwise."""
        prior = self.prior(request, on_probe)
        for run in runs:
            if prior is not None and run.sequence.point is not None:
                run.sequence.point.calibrate(prior)

    def prior(self, request: Request, on_probe: OnProbe | None = None) -> Prior | None:
        """What the request's decision is calibrated by; None where it is not to be. Waits for a pass of its own.

        on_probe: is given that pass before it is waited for; whoever cancels it ends the waiting, with GenerationError.
        Where another request reads the same tools' prior already, its pass is waited for, and that is not given.
        Raises RequestError, QueueFullError, GenerationError and EngineClosedError.
        """
        if not self._admission.is_calibrated(request):
            return None
        run = self._admission.without_content(request)
        key = _key(run)
        while True:
            with self._lock:
                if (known := self._known(key)) is not None:
                    return known
                self._check_thread(request)
                reader = self._reading.get(key)
                if reader is None:
                    own = self._reading[key] = threading.Event()
                    break
            reader.wait()  # of the same tools; where it fails, the next one reads
        try:
            return self._read(run, key, on_probe)
        finally:
            with self._lock:
                del self._reading[key]
            own.set()

    def _read(self, run: Run, key: bytes, on_probe: OnProbe | None) -> Prior:
        (generation,) = self._decoder.start([run])
        with generation:
            if on_probe is not None:
                on_probe(generation)
            completion = generation.completion()
        if completion.stop_reason is StopReason.CANCELLED:
            raise GenerationError("the request was cancelled before its answer began")
        assert completion.decision is not None, "a probe is decided at its first token"
        tools = completion.decision.tool_logprobs or {}
        prior = Prior(completion.decision.log_odds_raw, tuple(tools.values()))
        self._keep(key, prior)
        return replace(prior, passes=completion.usage.forward_passes)

    def _check_thread(self, request: Request) -> None:
        if self._decoder.is_own_thread:
            param, instead = "tool_choice_by", "tool_choice_by=ToolChoiceBy.TOKENS"
            if request.may_decide:
                param, instead = "decision.calibrate", "decision=DecisionOptions(calibrate=False)"
            message = f"{param}: a callback cannot wait for a pass; submit from another thread, or with {instead}"
            raise RequestError(message, param=param)

    def _known(self, key: bytes) -> Prior | None:
        if key in self._kept:
            self._kept.move_to_end(key)
        return self._kept.get(key)

    def _keep(self, key: bytes, prior: Prior) -> None:
        with self._lock:
            self._kept[key] = prior
            while len(self._kept) > self._max_kept:
                self._kept.popitem(last=False)


def _key(run: Run) -> bytes:
    """Of what the run reads and what it looks for: beside a response, another beginning of a call may tell it."""
    point = run.sequence.point
    assert point is not None, "a prior is asked for where a turn is decided"
    opening = point.plan.opening
    paths = (path.tokens for path in point.plan.tree.paths)
    parts = (run.sequence.prompt, opening.stem, opening.lasts, point.plan.others, *paths)
    return hashlib.sha256(b"/".join(array("q", part).tobytes() for part in parts)).digest()
