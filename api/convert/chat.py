"""A turn's events as a chat completion, whole or in chunks.

Both come from the same events, so that a stream adds up to exactly the answer that is not streamed.
"""

import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from api.convert.answers import CallTracker, TextLogprobs, to_info, to_usage
from api.convert.decisions import add_decisions, decision_of, of_stream
from api.convert.errors import WireError
from api.convert.paths import UNCHANGED, Paths
from api.schemas import chat
from api.schemas.common import AnsweredBy, FinishReason, ToolmaskInfo, ToolStep, Usage
from api.schemas.errors import ErrorResponse
from engine.events import (
    Completion,
    Decided,
    Decision,
    Event,
    Finished,
    LogprobsDelta,
    ReasoningDelta,
    StopReason,
    TextDelta,
    TokenLogprob,
    ToolCallDelta,
    ToolCallStart,
)
from engine.output import collect
from engine.types import ToolCall

LOWEST_LOGPROB = -9999.0  # JSON has no infinity; OpenAI's API writes this


@dataclass(frozen=True, slots=True)
class ChatAnswer:
    """What all parts of one answer share."""

    model: str
    fingerprint: str
    paths: Paths = UNCHANGED
    must_call: bool = False
    has_logprobs: bool = False
    includes_usage: bool = False  # a stream ends with a chunk for it
    trace: Sequence[ToolStep] | None = None
    by: AnsweredBy | None = None  # where it is to be told though no route answered
    id: str = field(default_factory=lambda: f"chatcmpl-{uuid.uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))

    def info(self, finished: Sequence[Finished], decisions: Sequence[Decision | None]) -> ToolmaskInfo:
        """What stands under `toolmask`; decisions: of all choices."""
        info = to_info(finished[0], [each.usage for each in finished], self.paths)
        if self.by is not None and info.answered_by is None:
            info.answered_by = self.by
        if self.trace is not None:
            info.trace = list(self.trace)
        add_decisions(info, decisions)
        return info


# Not streamed.


def to_completion(answer: ChatAnswer, choices: Sequence[Sequence[Event]]) -> chat.ChatCompletion:
    """choices: all events of each. Raises WireError and GenerationError, as CallTracker does."""
    finished = [events[-1] for events in choices]
    ends = [each for each in finished if isinstance(each, Finished)]
    return chat.ChatCompletion(
        id=answer.id,
        object="chat.completion",
        created=answer.created,
        model=answer.model,
        choices=[_choice(answer, i, events) for i, events in enumerate(choices)],
        usage=to_usage([end.usage for end in ends]),
        system_fingerprint=answer.fingerprint,
        toolmask=answer.info(ends, [decision_of(events) for events in choices]),
    )


def _choice(answer: ChatAnswer, index: int, events: Sequence[Event]) -> chat.ChatChoice:
    calls, end = CallTracker(answer.must_call), events[-1]
    assert isinstance(end, Finished)
    for event in events:
        calls.add(event)
    of_answer = [event for event in events if not (isinstance(event, LogprobsDelta) and event.of_reasoning)]
    completion = collect(of_answer)
    return chat.ChatChoice(
        index=index,
        finish_reason=calls.finish_reason(end),
        logprobs=_choice_logprobs(completion) if answer.has_logprobs else None,
        message=_message(completion),
    )


def _message(completion: Completion) -> chat.AssistantAnswer:
    answer = _answer(completion)
    if completion.reasoning is not None:
        answer.reasoning_content = completion.reasoning
    return answer


def _answer(completion: Completion) -> chat.AssistantAnswer:
    if not completion.tool_calls:
        return chat.AssistantAnswer(role="assistant", content=completion.text or "", refusal=None)
    calls = [_written_call(call) for call in completion.tool_calls]
    return chat.AssistantAnswer(role="assistant", content=completion.text, refusal=None, tool_calls=calls)


def _written_call(call: ToolCall) -> chat.WrittenCall:
    if call.custom:
        return chat.WrittenCall(
            id=call.id, type="custom", custom=chat.WrittenCustom(name=call.name, input=call.arguments)
        )
    function = chat.WrittenFunction(name=call.name, arguments=call.arguments)
    return chat.WrittenCall(id=call.id, type="function", function=function)


def _choice_logprobs(completion: Completion) -> chat.ChoiceLogprobs | None:
    text = TextLogprobs()
    text.add_text(completion.text or "")
    text.add_tokens(completion.logprobs or ())
    return to_logprobs(text.take(rest=_is_all_text(completion.stop_reason, has_calls=bool(completion.tool_calls))))


def _is_all_text(reason: StopReason, *, has_calls: bool) -> bool:
    return not has_calls and reason is not StopReason.STOP_STRING


def to_logprobs(tokens: Sequence[TokenLogprob]) -> chat.ChoiceLogprobs | None:
    """Logprobs in OpenAI's shape; null where there is no text."""
    if not tokens:
        return None
    return chat.ChoiceLogprobs(content=[_token(token) for token in tokens], refusal=None)


def _token(token: TokenLogprob) -> chat.TokenLogprob:
    top = [chat.TopLogprob(**_token_fields(each)) for each in token.top]
    return chat.TokenLogprob(**_token_fields(token), top_logprobs=top)


def _token_fields(token: TokenLogprob) -> dict[str, Any]:
    text = token.token.decode(errors="replace")
    return {"token": text, "bytes": list(token.token), "logprob": max(token.logprob, LOWEST_LOGPROB)}


# Streamed.


@dataclass(slots=True)
class _Choice:
    """One choice of a stream, as far as it was sent."""

    index: int
    calls: CallTracker
    text: str = ""  # not sent yet: its logprobs are still to come
    logprobs: TextLogprobs = field(default_factory=TextLogprobs)
    has_begun: bool = False
    has_content: bool = False  # some was sent, be it empty
    custom: set[int] = field(default_factory=set)  # calls by their index
    end: Finished | None = None
    decision: Decision | None = None
    owes_decision: bool = False  # in the next chunk


class ChatStream:
    """Events in, chunks out, as they come."""

    ends_with_done = True

    def __init__(self, answer: ChatAnswer, num_choices: int) -> None:
        self._answer = answer
        self._choices = [_Choice(i, CallTracker(answer.must_call)) for i in range(num_choices)]

    def chunks(self, index: int, event: Event) -> Iterator[chat.ChatChunk]:
        """What one choice's next event adds. Raises WireError and GenerationError, as CallTracker does."""
        choice = self._choices[index]
        choice.calls.add(event)
        if isinstance(event, LogprobsDelta) and event.of_reasoning:
            return
        if isinstance(event, Decided):
            choice.decision, choice.owes_decision = event.decision, True
            return
        if not choice.has_begun:
            if isinstance(event, LogprobsDelta):  # of tokens whose text is held back: it may become a call
                choice.logprobs.add_tokens(event.tokens)
                return
            choice.has_begun = True
            yield self._chunk(choice, _opening(event))
        if not isinstance(event, (TextDelta, ReasoningDelta)):
            yield from self._flush(choice, event)
        if (delta := self._delta(choice, event)) is not None:
            yield self._chunk(choice, delta)
        if isinstance(event, Finished):
            yield from self._last(choice, event)

    def failed(self, error: WireError) -> Iterator[ErrorResponse]:
        """What ends a stream that failed."""
        yield ErrorResponse(error=error.body)

    def _delta(self, choice: _Choice, event: Event) -> chat.ChatDelta | None:
        match event:
            case TextDelta(text):
                choice.logprobs.add_text(text)
                if not self._answer.has_logprobs:
                    return chat.ChatDelta(content=text)
                choice.text += text
                return None
            case ReasoningDelta(text):
                return chat.ChatDelta(reasoning_content=text)
            case ToolCallStart() | ToolCallDelta():
                return _call_delta(_call_part(choice, event))
        return None

    def _flush(self, choice: _Choice, event: Event) -> Iterator[chat.ChatChunk]:
        """Send the text that waited for its logprobs."""
        rest = False
        if isinstance(event, LogprobsDelta):
            choice.logprobs.add_tokens(event.tokens)
        elif isinstance(event, Finished):
            rest = _is_all_text(event.stop_reason, has_calls=choice.calls.num_begun > 0)
        tokens = choice.logprobs.take(rest=rest) if self._answer.has_logprobs else []
        if choice.text or tokens:
            text, choice.text = choice.text, ""
            yield self._chunk(choice, chat.ChatDelta(content=text), logprobs=to_logprobs(tokens))

    def _last(self, choice: _Choice, event: Finished) -> Iterator[chat.ChatChunk]:
        choice.end = event
        # Reasoning alone: the content of the message is empty, not null.
        is_bare = not choice.has_content and choice.calls.num_begun == 0
        delta = chat.ChatDelta(content="") if is_bare else chat.ChatDelta()
        last = self._chunk(choice, delta, finish_reason=choice.calls.finish_reason(event))
        ends = [each.end for each in self._choices if each.end is not None]
        if len(ends) < len(self._choices):
            yield last
            return
        last.toolmask = self._answer.info(ends, [each.decision for each in self._choices])
        yield last
        if self._answer.includes_usage:
            yield self._envelope([], usage=to_usage([end.usage for end in ends]))

    def _chunk(
        self,
        choice: _Choice,
        delta: chat.ChatDelta,
        *,
        logprobs: chat.ChoiceLogprobs | None = None,
        finish_reason: FinishReason | None = None,
    ) -> chat.ChatChunk:
        choice.has_content |= delta.content is not None
        wire = chat.ChunkChoice(index=choice.index, delta=delta, logprobs=logprobs, finish_reason=finish_reason)
        chunk = self._envelope([wire], usage=None)
        if choice.decision is not None and choice.owes_decision:
            chunk.toolmask, choice.owes_decision = of_stream(choice.decision), False
        return chunk

    def _envelope(self, choices: list[chat.ChunkChoice], *, usage: Usage | None) -> chat.ChatChunk:
        answer = self._answer
        chunk = chat.ChatChunk(
            id=answer.id,
            object="chat.completion.chunk",
            created=answer.created,
            model=answer.model,
            choices=choices,
            system_fingerprint=answer.fingerprint,
        )
        if answer.includes_usage:
            chunk.usage = usage  # null in all chunks but the last, as at OpenAI
        return chunk


def _opening(event: Event) -> chat.ChatDelta:
    """The first delta: the role, and null for the content of a message that begins otherwise than with it."""
    content = None if isinstance(event, (ToolCallStart, ReasoningDelta)) else ""
    return chat.ChatDelta(role="assistant", content=content, refusal=None)


def _call_part(choice: _Choice, event: ToolCallStart | ToolCallDelta) -> chat.CallDelta:
    match event:
        case ToolCallStart(index, custom=True):
            choice.custom.add(index)
            return _start(event, custom=chat.CustomDelta(name=event.name, input=""))
        case ToolCallStart():
            return _start(event, function=chat.FunctionDelta(name=event.name, arguments=""))
        case ToolCallDelta(index, text) if index in choice.custom:
            return chat.CallDelta(index=index, custom=chat.CustomDelta(input=text))
        case ToolCallDelta(index, text):
            return chat.CallDelta(index=index, function=chat.FunctionDelta(arguments=text))


def _start(
    start: ToolCallStart, *, function: chat.FunctionDelta | None = None, custom: chat.CustomDelta | None = None
) -> chat.CallDelta:
    if custom is not None:
        return chat.CallDelta(index=start.index, id=start.id, type="custom", custom=custom)
    return chat.CallDelta(index=start.index, id=start.id, type="function", function=function)


def _call_delta(delta: chat.CallDelta) -> chat.ChatDelta:
    return chat.ChatDelta(tool_calls=[delta])
