"""The likeliest of several samples of one answer: nothing is delivered before all of them have ended."""

import queue
from collections.abc import Sequence
from dataclasses import fields, replace

from engine.checks import check, is_integer
from engine.errors import RequestError
from engine.events import Event, Finished, LogprobsDelta, Samples, ToolCallStart, Usage
from engine.generation import Deliver, Run
from engine.types import Request

MAX_SAMPLES = 16


def sampled(request: Request, best_of: int) -> Request:
    """The request as each sample answers it, with logprobs to rank it by. Raises RequestError."""
    allowed = f"an integer from 2 to {MAX_SAMPLES}"
    check("best_of", best_of, allowed, holds=is_integer(best_of) and 2 <= best_of <= MAX_SAMPLES)
    if request.sampling.is_greedy:
        raise RequestError("best_of needs a temperature above 0: greedy samples are all the same", param="best_of")
    top = request.sampling.top_logprobs
    return replace(request, sampling=replace(request.sampling, top_logprobs=0 if top is None else top))


class BestOf:
    """Several runs as one. All but `cancelled` belongs to the decoding thread.

    The first sample decides whether the answer calls; of those that agree with it, the likeliest per token is given.
    """

    def __init__(self, num_samples: int, deliver: Deliver | None, *, asks_logprobs: bool) -> None:
        self.events: queue.SimpleQueue[Event | Exception] | None = None  # None: a callback is given them
        if deliver is None:
            self.events = queue.SimpleQueue()
            deliver = self.events.put
        self.runs: Sequence[Run] = ()
        self.asks_logprobs = asks_logprobs
        self._deliver = deliver
        self._samples: list[list[Event]] = [[] for _ in range(num_samples)]
        self._num_running = num_samples
        self._has_failed = False

    @property
    def cancelled(self) -> bool:
        """By the consumer: to be ended before the next step."""
        return any(run.cancelled for run in self.runs)

    @cancelled.setter
    def cancelled(self, value: bool) -> None:
        for run in self.runs:
            run.cancelled = value

    def take(self, index: int, event: Event | Exception) -> None:
        """The next event of one sample. The first that fails ends them all."""
        if self._has_failed:
            return
        if isinstance(event, Exception):
            self._has_failed = self.cancelled = True
            self._deliver(event)
            return
        self._samples[index].append(event)
        self._num_running -= isinstance(event, Finished)
        if self._num_running == 0:
            self._give_best()

    def _give_best(self) -> None:
        scores = tuple(map(_score, self._samples))
        agreeing = [number for number, each in enumerate(self._samples) if _calls(each) == _calls(self._samples[0])]
        best = max(agreeing, key=lambda number: scores[number])
        for event in self._samples[best]:
            if isinstance(event, Finished):
                self._deliver(replace(event, usage=self._usage(), samples=Samples(scores, best)))
            elif self.asks_logprobs or not isinstance(event, LogprobsDelta):
                self._deliver(event)

    def _usage(self) -> Usage:
        """Of all samples; the prompt counts once."""
        usages = [each[-1].usage for each in self._samples if isinstance(each[-1], Finished)]
        total = {each.name: sum(getattr(usage, each.name) for usage in usages) for each in fields(Usage)}
        first = usages[0]
        return Usage(**total | {"prompt_tokens": first.prompt_tokens, "cached_tokens": first.cached_tokens})


def _calls(events: Sequence[Event]) -> bool:
    return any(isinstance(event, ToolCallStart) for event in events)


def _score(events: Sequence[Event]) -> float:
    """The mean logprob of the tokens; 0 of none."""
    logprobs = [token.logprob for event in events if isinstance(event, LogprobsDelta) for token in event.tokens]
    return sum(logprobs) / len(logprobs) if logprobs else 0.0
