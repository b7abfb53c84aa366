"""A turn's events as a response of the Responses API, whole or as its events.

The whole one is what the last event of the stream carries, so that a stream adds up to it by construction.
"""

import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from api.convert.answers import CallTracker, to_info
from api.convert.decisions import add_decisions, of_stream
from api.convert.errors import WireError
from api.convert.paths import UNCHANGED, Paths
from api.schemas import response_events as events
from api.schemas import responses as wire
from api.schemas.response_items import FlatAnyTool, Status
from api.schemas.tools import TextFormat
from engine.events import (
    Decided,
    Decision,
    Event,
    Finished,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    ToolCallEnd,
    ToolCallStart,
    Usage,
)

Lifecycle = Literal["in_progress", "completed", "incomplete", "failed"]
Keep = Callable[[wire.Response], None]


@dataclass(frozen=True, slots=True)
class ResponseAnswer:
    """What all parts of one answer share."""

    body: wire.ResponseRequest
    tools: Sequence[FlatAnyTool]
    paths: Paths = UNCHANGED
    must_call: bool = False
    unique: str = field(default_factory=lambda: uuid.uuid4().hex)  # ends the ids of the response and its items
    created: int = field(default_factory=lambda: int(time.time()))

    def response(self, status: Lifecycle, output: Sequence[wire.OutputItem] = ()) -> wire.Response:
        """The response so far, what was asked for among it."""
        body, text = self.body, self.body.text
        plain = wire.TextOptions(format=TextFormat(type="text"))
        return wire.Response(
            id=f"resp_{self.unique}",
            object="response",
            created_at=self.created,
            status=status,
            background=False,
            error=None,
            incomplete_details=wire.IncompleteDetails(reason="max_output_tokens") if status == "incomplete" else None,
            instructions=body.instructions,
            max_output_tokens=body.max_output_tokens,
            metadata=body.metadata or {},
            model=body.model,
            output=list(output),
            parallel_tool_calls=body.parallel_tool_calls is not False,
            previous_response_id=body.previous_response_id,
            reasoning=wire.Reasoning(effort=None if body.reasoning is None else body.reasoning.effort, summary=None),
            service_tier="default",
            store=body.store is not False,
            temperature=body.temperature or 0.0,
            text=plain if text is None or text.format is None else text,
            tool_choice=body.tool_choice or "auto",
            tools=list(self.tools),
            top_p=1.0 if body.top_p is None else body.top_p,
            truncation="disabled",
            usage=None,
            user=body.user,
        )


def to_response(answer: ResponseAnswer, turn: Sequence[Event], keep: Keep) -> wire.Response:
    """The whole answer. Raises WireError and GenerationError, as CallTracker does."""
    whole: list[wire.Response] = []
    stream = ResponseStream(answer, whole.append)
    for event in turn:
        for _ in stream.chunks(0, event):
            pass
    keep(whole[0])
    return whole[0]


class ResponseStream:
    """Events of a turn in, events of a response out, as they come."""

    ends_with_done = False

    def __init__(self, answer: ResponseAnswer, keep: Keep) -> None:
        """keep: is given the whole response before its last event is sent; never one that failed."""
        self._answer = answer
        self._keep = keep
        self._calls = CallTracker(answer.must_call)
        self._next_number = 0
        self._decision: Decision | None = None
        self._done: list[wire.OutputItem] = []
        self._open: wire.AnyOutputItem | None = None

    def chunks(self, _: int, event: Event) -> Iterator[events.ResponseEvent]:
        """What the turn's next event adds. Raises WireError and GenerationError, as CallTracker does."""
        self._calls.add(event)
        if isinstance(event, Decided):
            self._decision = event.decision
        yield from self._begin()
        match event:
            case ReasoningDelta(text):
                yield from self._reasoning(text)
            case TextDelta(text):
                yield from self._text(text)
            case ToolCallStart():
                yield from self._close("completed")
                yield self._open_item(self._new_call(event))
            case ToolCallDelta(_, text):
                yield self._more_of_call(text)
            case ToolCallEnd():
                yield from self._close("completed")
            case Finished():
                yield from self._last(event)

    def failed(self, error: WireError) -> Iterator[events.ResponseEvent]:
        """What ends a stream that failed: the error, and the response without what was cut off."""
        yield from self._begin()
        body = error.body
        yield events.ErrorEvent(
            type="error", sequence_number=self._number(), code=body.code, message=body.message, param=body.param
        )
        response = self._answer.response("failed", self._done)
        response.error = wire.ResponseFailure(code="server_error", message=body.message)
        yield self._lifecycle("response.failed", response)

    # The response.

    def _begin(self) -> Iterator[events.ResponseEvent]:
        if self._next_number == 0:
            kinds: tuple[events.LifecycleType, ...] = ("response.created", "response.in_progress")
            for kind in kinds:
                response = self._answer.response("in_progress")
                if self._decision is not None:
                    response.toolmask = of_stream(self._decision)
                yield self._lifecycle(kind, response)

    def _last(self, end: Finished) -> Iterator[events.ResponseEvent]:
        is_cut = self._calls.finish_reason(end) == "length"
        if not self._done and self._open is None:
            yield from self._open_message()  # clients expect at least one item
        yield from self._close("incomplete" if is_cut else "completed")
        response = self._answer.response("incomplete" if is_cut else "completed", self._done)
        response.usage = _usage(end.usage)
        info = to_info(end, [end.usage], self._answer.paths)
        add_decisions(info, [self._decision])
        response.toolmask = info
        self._keep(response)
        yield self._lifecycle("response.incomplete" if is_cut else "response.completed", response)

    def _lifecycle(self, kind: events.LifecycleType, response: wire.Response) -> events.LifecycleEvent:
        return events.LifecycleEvent(type=kind, sequence_number=self._number(), response=response)

    def _number(self) -> int:
        self._next_number += 1
        return self._next_number - 1

    # Items.

    def _new_call(self, start: ToolCallStart) -> wire.OutputCall:
        ids = f"{self._answer.unique}{start.index}"
        if start.custom:
            return wire.OutputCustomCall(
                id=f"ctc_{ids}",
                type="custom_tool_call",
                status="in_progress",
                call_id=start.id,
                name=start.name,
                input="",
            )
        return wire.OutputFunctionCall(
            id=f"fc_{ids}", type="function_call", status="in_progress", call_id=start.id, name=start.name, arguments=""
        )

    def _open_item(self, item: wire.AnyOutputItem) -> events.ItemEvent:
        self._open = item
        return self._item_event("response.output_item.added", item)

    def _item_event(self, kind: events.ItemType, item: wire.AnyOutputItem) -> events.ItemEvent:
        copy = item.model_copy(deep=True)  # the item goes on changing
        return events.ItemEvent(type=kind, sequence_number=self._number(), output_index=len(self._done), item=copy)

    def _close(self, status: Status) -> Iterator[events.ResponseEvent]:
        """End the open item, if there is one."""
        item, self._open = self._open, None
        if item is None:
            return
        item.status = status
        match item:
            case wire.OutputReasoning():
                yield from self._close_reasoning(item)
            case wire.OutputMessage():
                yield from self._close_message(item)
            case _:
                yield self._call_done(item)
        yield self._item_event("response.output_item.done", item)
        self._done.append(item)

    # Reasoning: the turn's first item, where there is any.

    def _open_reasoning(self) -> Iterator[events.ResponseEvent]:
        item = wire.OutputReasoning(
            id=f"rs_{self._answer.unique}", type="reasoning", status="in_progress", summary=[], content=[]
        )
        yield self._open_item(item)
        item.content.append(wire.ReasoningText(type="reasoning_text", text=""))
        yield self._part_event("response.content_part.added", item)

    def _reasoning(self, text: str) -> Iterator[events.ResponseEvent]:
        if self._open is None:
            yield from self._open_reasoning()
        assert isinstance(self._open, wire.OutputReasoning)
        self._open.content[0].text += text
        yield events.ReasoningDeltaEvent(
            type="response.reasoning_text.delta",
            sequence_number=self._number(),
            item_id=self._open.id,
            output_index=len(self._done),
            content_index=0,
            delta=text,
        )

    def _close_reasoning(self, item: wire.OutputReasoning) -> Iterator[events.ResponseEvent]:
        yield events.ReasoningDoneEvent(
            type="response.reasoning_text.done",
            sequence_number=self._number(),
            item_id=item.id,
            output_index=len(self._done),
            content_index=0,
            text=item.content[0].text,
        )
        yield self._part_event("response.content_part.done", item)

    # Text.

    def _open_message(self) -> Iterator[events.ResponseEvent]:
        message = wire.OutputMessage(
            id=f"msg_{self._answer.unique}", type="message", role="assistant", status="in_progress", content=[]
        )
        yield self._open_item(message)
        message.content.append(wire.OutputText(type="output_text", text="", annotations=[], logprobs=[]))
        yield self._part_event("response.content_part.added", message)

    def _text(self, text: str) -> Iterator[events.ResponseEvent]:
        if not isinstance(self._open, wire.OutputMessage):
            yield from self._close("completed")
            yield from self._open_message()
        assert isinstance(self._open, wire.OutputMessage)
        self._open.content[0].text += text
        yield events.TextDeltaEvent(
            type="response.output_text.delta",
            sequence_number=self._number(),
            item_id=self._open.id,
            output_index=len(self._done),
            content_index=0,
            delta=text,
            logprobs=[],
        )

    def _close_message(self, message: wire.OutputMessage) -> Iterator[events.ResponseEvent]:
        yield events.TextDoneEvent(
            type="response.output_text.done",
            sequence_number=self._number(),
            item_id=message.id,
            output_index=len(self._done),
            content_index=0,
            text=message.content[0].text,
            logprobs=[],
        )
        yield self._part_event("response.content_part.done", message)

    def _part_event(self, kind: events.PartType, item: wire.OutputReasoning | wire.OutputMessage) -> events.PartEvent:
        return events.PartEvent(
            type=kind,
            sequence_number=self._number(),
            item_id=item.id,
            output_index=len(self._done),
            content_index=0,
            part=item.content[0].model_copy(),
        )

    # Calls.

    def _more_of_call(self, text: str) -> events.CallDeltaEvent:
        call = self._open
        kind: events.CallDeltaType = "response.function_call_arguments.delta"
        if isinstance(call, wire.OutputCustomCall):
            kind = "response.custom_tool_call_input.delta"
            call.input += text
        else:
            assert isinstance(call, wire.OutputFunctionCall)
            call.arguments += text
        return events.CallDeltaEvent(
            type=kind, sequence_number=self._number(), item_id=call.id, output_index=len(self._done), delta=text
        )

    def _call_done(self, call: wire.OutputCall) -> events.ResponseEvent:
        position = len(self._done)
        if isinstance(call, wire.OutputCustomCall):
            return events.InputDoneEvent(
                type="response.custom_tool_call_input.done",
                sequence_number=self._number(),
                item_id=call.id,
                output_index=position,
                input=call.input,
            )
        return events.ArgumentsDoneEvent(
            type="response.function_call_arguments.done",
            sequence_number=self._number(),
            item_id=call.id,
            output_index=position,
            name=call.name,
            arguments=call.arguments,
        )


def _usage(usage: Usage) -> wire.ResponseUsage:
    details = wire.OutputTokensDetails(reasoning_tokens=usage.reasoning_tokens, forced_tokens=usage.forced_tokens)
    return wire.ResponseUsage(
        input_tokens=usage.prompt_tokens,
        input_tokens_details=wire.InputTokensDetails(cached_tokens=usage.cached_tokens, cache_write_tokens=0),
        output_tokens=usage.completion_tokens,
        output_tokens_details=details,
        total_tokens=usage.prompt_tokens + usage.completion_tokens,
    )
