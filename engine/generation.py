"""One running generation, as its consumer sees it: events to iterate, cancel, the whole as one value."""

import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import TracebackType
from typing import Self

from engine.errors import GenerationError
from engine.events import Completion, Event, Finished, LogprobsDelta, Receipt, StopReason, TextDelta
from engine.output import OutputStream, collect
from engine.sequence import Sequence
from engine.step import Progress
from engine.types import ToolChoiceMode

CUT_OFF = (StopReason.LENGTH, StopReason.CANCELLED)

Deliver = Callable[[Event | Exception], None]


class Generation:
    """A running request: iterate its Events, or cancel it. One consumer."""

    def __init__(
        self,
        sequence: Sequence,
        output: OutputStream,
        receipt: Receipt,
        wake: threading.Condition,
        deliver: Deliver | None,
    ) -> None:
        self._sequence = sequence
        self._output = output
        self._receipt = receipt
        self._wake = wake
        self._events: queue.SimpleQueue[Event | Exception] = queue.SimpleQueue()
        self._deliver = deliver or self._events.put
        self._taken: list[Event] = []  # by the consumer
        self._ended = False  # for the consumer
        self._failure: Exception | None = None
        self.cancelled = False

    def __iter__(self) -> Iterator[Event]:
        return self

    def __next__(self) -> Event:
        """The next event; waits for it. Raises GenerationError or EngineClosedError where the generation failed."""
        if self._ended:
            raise StopIteration
        event = self._events.get()
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

    def cancel(self) -> None:
        """Stop within a step. The last event is then Finished with CANCELLED; after the end this does nothing."""
        with self._wake:
            self.cancelled = True
            self._wake.notify()

    def completion(self) -> Completion:
        """Wait for the end; all events as one value, those that were already taken too. Raises as iteration does."""
        for _ in self:
            pass
        if self._failure is not None:
            raise self._failure
        completion = collect(self._taken)
        has_none = completion.logprobs is None and self._sequence.sampling.top_logprobs is not None
        return replace(completion, logprobs=()) if has_none else completion  # asked for, of an answer without tokens

    # From here on: for the engine only.

    def report(self, progress: Progress) -> bool:
        """Pass on what a step did. Returns whether the generation has ended."""
        try:
            if progress.error is not None:
                raise progress.error
            return self._pass_on(progress)
        except Exception as error:  # whatever reading the output back raised: it must end this sequence only
            self._sequence.stop_reason = StopReason.FAILED
            is_ours = isinstance(error, GenerationError)
            self.abort(error if is_ours else GenerationError(f"the output cannot be read back: {error}"))
            return True

    def _pass_on(self, progress: Progress) -> bool:
        sequence = self._sequence
        events = self._output.feed(progress.tokens)
        for event in events:
            self._deliver(event)
        if progress.logprobs:
            self._deliver(LogprobsDelta(tuple(progress.logprobs)))
        is_free = self._has_text and sequence.request.response is None
        sequence.in_free_text = self._output.in_text and is_free
        if self._output.stopped:
            sequence.stop_reason = StopReason.STOP_STRING
        if not sequence.is_done and not self._output.stopped:
            return False
        self._finish()
        return True

    @property
    def _has_text(self) -> bool:
        return self._sequence.request.tool_choice.mode is not ToolChoiceMode.REQUIRED

    def abort(self, error: Exception | None = None) -> None:
        """End now: by this error, or as cancelled."""
        if error is not None:
            self._deliver(error)
            return
        self._sequence.stop_reason = StopReason.CANCELLED
        self._finish()

    def _finish(self) -> None:
        for event in self._output.finish(cut=self._sequence.stop_reason in CUT_OFF):
            if self._has_text or not isinstance(event, TextDelta):  # where there is none, it is half a marker
                self._deliver(event)
        reason = self._sequence.stop_reason
        assert reason is not None
        if self._output.stopped and reason is not StopReason.CANCELLED:  # by text that was held back
            reason = StopReason.STOP_STRING
        self._deliver(Finished(reason, self._sequence.usage, self._sequence.seed, self._receipt))
