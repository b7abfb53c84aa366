"""One sequence's tokens as Events: text pieces, stop strings, calls, logprobs."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from engine.events import (
    Completion,
    Decided,
    Decision,
    Event,
    Finished,
    LogprobsDelta,
    ReasoningDelta,
    TextDelta,
    TokenLogprob,
    ToolCallDelta,
    ToolCallEnd,
    ToolCallStart,
)
from engine.grammars.turn_parser import ParsedEvent, TurnParser, held_back
from engine.tokenizer import Detokenizer
from engine.types import ToolCall


class OutputStream:
    """Turns tokens into events as they come."""

    def __init__(
        self,
        detokenizer: Detokenizer,
        parser: TurnParser,
        *,
        stop: Sequence[str],
        special_ids: frozenset[int],
    ) -> None:
        """stop: matched in free text only; pass none for a turn whose text is bound by a grammar."""
        self._detokenizer = detokenizer
        self._parser = parser
        self._stop = stop
        self._special_ids = special_ids
        self._held = ""  # text that may be the beginning of a stop string
        self.stopped = False  # a stop string was written
        self._num_tokens = 0  # fed so far
        self.num_reasoning_tokens = 0  # of the turn's first tokens, those of its reasoning, its tags included

    @property
    def in_text(self) -> bool:
        return self._parser.in_text

    @property
    def is_undecided(self) -> bool:
        """Whether the latest tokens may be the beginning of reasoning, of text or of a call."""
        return self._parser.is_undecided

    def feed(self, tokens: Iterable[int]) -> list[Event]:
        """The events of these tokens. After a stop string nothing more comes."""
        events: list[Event] = []
        for token in tokens:
            text, was_reasoning = self._detokenizer.feed(token), self._parser.in_reasoning
            self._num_tokens += 1
            events += self._through_stop(self._parser.feed(text, special=token in self._special_ids))
            if was_reasoning or self._parser.in_reasoning:
                self.num_reasoning_tokens = self._num_tokens
        return events

    def finish(self, *, cut: bool = False) -> list[Event]:
        """What was held back. To be called once, when the sequence has ended; cut: not by itself."""
        if self.stopped:
            return []
        open_character = self._detokenizer.finish()
        parsed = (self._parser.feed(open_character) if open_character else []) + self._parser.finish(cut=cut)
        events = self._through_stop(parsed)
        return events if self.stopped else events + self._release()

    def _through_stop(self, parsed: Iterable[ParsedEvent]) -> list[Event]:
        events: list[Event] = []
        for event in parsed:
            if self.stopped:
                break
            if isinstance(event, TextDelta) and self._stop:
                events += self._cut_at_stop(event.text)
            else:
                events += [*self._release(), event]
        return events

    def _cut_at_stop(self, text: str) -> list[Event]:
        self._held += text
        found = [(start + len(stop), start) for stop in self._stop if (start := self._held.find(stop)) >= 0]
        if found:  # the one that was complete first, so that it does not matter in which pieces the text came
            _, start = min(found)
            self.stopped = True
            self._held = self._held[:start]
            return self._release()
        keep = max(held_back(self._held, stop) for stop in self._stop)
        ready, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        return [TextDelta(ready)] if ready else []

    def _release(self) -> list[Event]:
        text, self._held = self._held, ""
        return [TextDelta(text)] if text else []


@dataclass(slots=True)
class _Collected:
    text: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    starts: dict[int, ToolCallStart] = field(default_factory=dict)
    arguments: dict[int, str] = field(default_factory=dict)
    calls: list[ToolCall] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    decision: Decision | None = None

    def add(self, event: Event) -> None:
        match event:
            case TextDelta(text):
                self.text.append(text)
            case ReasoningDelta(text):
                self.reasoning.append(text)
            case ToolCallStart(index):
                self.starts[index] = event
                self.arguments[index] = ""
            case ToolCallDelta(index, arguments):
                self.arguments[index] += arguments
            case ToolCallEnd(index):
                start = self.starts[index]
                self.calls.append(ToolCall(start.id, start.name, self.arguments[index], start.custom))
            case LogprobsDelta(tokens):
                self.logprobs.extend(tokens)
            case Decided(decision):
                self.decision = decision
            case Finished():
                pass


def collect(events: Iterable[Event]) -> Completion:
    """All events of one generation as one value. A call that was cut off is not among its calls."""
    collected = _Collected()
    finished: Finished | None = None
    logprobs_asked = False
    for event in events:
        collected.add(event)
        logprobs_asked |= isinstance(event, LogprobsDelta)
        if isinstance(event, Finished):
            finished = event
    assert finished is not None, "a generation ends with Finished or raises"
    return Completion(
        text="".join(collected.text) or None,
        tool_calls=tuple(collected.calls),
        stop_reason=finished.stop_reason,
        usage=finished.usage,
        seed=finished.seed,
        receipt=finished.receipt,
        logprobs=tuple(collected.logprobs) if logprobs_asked else None,
        reasoning="".join(collected.reasoning) or None,
        route=finished.route,
        decision=collected.decision,
        samples=finished.samples,
    )
