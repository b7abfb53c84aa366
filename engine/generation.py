"""One running generation, as its consumer sees it: events to iterate, cancel, the whole as one value."""

import logging
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from types import TracebackType
from typing import Protocol, Self

from engine.errors import EngineError, GenerationError
from engine.events import (
    Completion,
    Decided,
    Event,
    Finished,
    LogprobsDelta,
    Receipt,
    StopReason,
    TextDelta,
    TokenLogprob,
)
from engine.output import OutputStream, collect
from engine.sequence import Sequence
from engine.step import Progress
from engine.types import ToolChoiceMode

logger = logging.getLogger(__name__)

CUT_OFF = (StopReason.LENGTH, StopReason.CANCELLED)

Deliver = Callable[[Event | Exception], None]
OnProbe = Callable[["Generation"], None]


class Source(Protocol):
    """What a generation takes its events from."""

    cancelled: bool

    @property
    def events(self) -> queue.SimpleQueue[Event | Exception] | None:
        """None where a callback is given them."""

    @property
    def asks_logprobs(self) -> bool:
        """Whether the request asked for them."""


class Generation:
    """A running request: iterate its Events, or cancel it. One consumer, and the only one who holds this object."""

    def __init__(self, run: Source, wake: threading.Condition) -> None:
        self._run = run
        self._wake = wake
        self._taken: list[Event] = []  # by the consumer
        self._ended = False  # for the consumer
        self._failure: Exception | None = None

    def __iter__(self) -> Iterator[Event]:
        return self

    def __next__(self) -> Event:
        """The next event; waits for it. Raises GenerationError or EngineClosedError where the generation failed."""
        if self._ended:
            raise StopIteration
        if self._run.events is None:
            raise EngineError("the events of this generation go to its callback")
        event = self._run.events.get()
        self._ended = isinstance(event, (Finished, Exception))
        if isinstance(event, Exception):
            self._failure = event
            raise event
        self._taken.append(event)
        return event

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.cancel()

    def __del__(self) -> None:
        # No lock: this may run at any point of any thread. Whoever has a callback may drop the generation.
        if self._run.events is not None:
            self._run.cancelled = True

    def cancel(self) -> None:
        """Stop within a step. The last event is then Finished with CANCELLED; after the end this does nothing."""
        with self._wake:
            self._run.cancelled = True
            self._wake.notify()

    def completion(self) -> Completion:
        """Wait for the end; all events as one value, those that were already taken too. Raises as iteration does."""
        for _ in self:
            pass
        if self._failure is not None:
            raise self._failure
        completion = collect(self._taken)
        has_none = completion.logprobs is None and self._run.asks_logprobs
        return replace(completion, logprobs=()) if has_none else completion  # asked for, of an answer without tokens


class Run:
    """The engine's side of a generation. All but `cancelled` belongs to the decoding thread."""

    def __init__(self, sequence: Sequence, output: OutputStream, receipt: Receipt, deliver: Deliver | None) -> None:
        self.sequence = sequence
        self.events: queue.SimpleQueue[Event | Exception] | None = None  # None: a callback is given them
        if deliver is None:
            self.events = queue.SimpleQueue()
            deliver = self.events.put
        self.cancelled = False  # by the consumer: to be ended before the next step
        self._output = output
        self._receipt = receipt
        self._callback = deliver
        self._is_deaf = False  # the callback raised
        self._logprobs: list[TokenLogprob] = []  # not delivered yet: it is open what their tokens are
        self._num_logprobs = 0  # delivered

    @property
    def asks_logprobs(self) -> bool:
        return self.sequence.sampling.top_logprobs is not None

    def report(self, progress: Progress) -> bool:
        """Pass on what a step did. Returns whether the generation has ended."""
        try:
            if progress.error is not None:
                raise progress.error
            return self._pass_on(progress)
        except Exception as error:  # whatever reading the output back raised: it must end this sequence only
            self.fail(_as_ours(error))
            return True

    def _pass_on(self, progress: Progress) -> bool:
        sequence = self.sequence
        if progress.decision is not None:
            self._deliver(Decided(progress.decision))
        events = self._output.feed(progress.tokens)
        for event in events:
            self._deliver(event)
        self._logprobs += progress.logprobs
        if not self._output.is_undecided:
            self._deliver_logprobs()
        if self._is_deaf:
            return True
        is_free = self._has_text and sequence.request.response is None
        sequence.in_free_text = self._output.in_text and is_free
        if self._output.stopped:
            sequence.stop_reason = StopReason.STOP_STRING
        if not sequence.is_done and not self._output.stopped:
            return False
        self._finish()
        return True

    def _deliver_logprobs(self) -> None:
        if not self._logprobs:
            return
        num_reasoning = max(self._output.num_reasoning_tokens - self._num_logprobs, 0)
        self._num_logprobs += len(self._logprobs)
        reasoning, others = self._logprobs[:num_reasoning], self._logprobs[num_reasoning:]
        self._logprobs = []
        for tokens, of_reasoning in ((reasoning, True), (others, False)):
            if tokens:
                self._deliver(LogprobsDelta(tuple(tokens), of_reasoning))

    @property
    def _has_text(self) -> bool:
        return self.sequence.request.tool_choice.mode is not ToolChoiceMode.REQUIRED

    def cancel(self) -> None:
        """End now, as cancelled."""
        self.sequence.stop_reason = StopReason.CANCELLED
        try:
            self._finish()
        except Exception as error:  # as in report
            self.fail(_as_ours(error))

    def fail(self, error: Exception) -> None:
        """End now, by this error. Never raises."""
        self.sequence.stop_reason = StopReason.FAILED
        self._deliver(error)

    def _deliver(self, event: Event | Exception) -> None:
        if self._is_deaf:
            return
        try:
            self._callback(event)
        except BaseException:  # SystemExit too: the decoding thread is everybody's
            logger.exception("a deliver callback raised; its generation ends here")
            self._is_deaf = True
            self.sequence.stop_reason = StopReason.FAILED

    @property
    def _is_complete(self) -> bool:
        """Whether all calls, or the response, are complete: the turn could have gone on, but it may end here."""
        matcher = self.sequence.matcher
        is_free = self._output.in_text and self.sequence.request.response is None
        return not is_free and matcher is not None and matcher.is_accepting

    def _finish(self) -> None:
        for event in self._output.finish(cut=self.sequence.stop_reason in CUT_OFF):
            if self._has_text or not isinstance(event, TextDelta):  # where there is none, it is half a marker
                self._deliver(event)
        self._deliver_logprobs()
        reason = self.sequence.stop_reason
        assert reason is not None
        if self._output.stopped and reason is not StopReason.CANCELLED:  # by text that was held back
            reason = StopReason.STOP_STRING
        if reason is StopReason.LENGTH and self._is_complete:
            reason = StopReason.GRAMMAR_END
        usage = replace(self.sequence.usage, reasoning_tokens=self._output.num_reasoning_tokens)
        self._deliver(Finished(reason, usage, self.sequence.seed, self._receipt))


class ReadyRun:
    """Stands for a run whose events are all there from the start: no token is read or written for it."""

    def __init__(self, events: Iterable[Event], deliver: Deliver | None, *, asks_logprobs: bool) -> None:
        self.events: queue.SimpleQueue[Event | Exception] | None = None
        self.cancelled = False
        self.asks_logprobs = asks_logprobs
        if deliver is None:
            self.events = queue.SimpleQueue()
            deliver = self.events.put
        try:
            for event in events:
                deliver(event)
        except Exception:  # as of a callback on the decoding thread
            logger.exception("a deliver callback raised; its generation ends here")


def _as_ours(error: Exception) -> Exception:
    is_ours = isinstance(error, GenerationError)
    return error if is_ours else GenerationError(f"the output cannot be read back: {error}")
