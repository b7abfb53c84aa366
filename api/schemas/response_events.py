"""The events of a streamed response, in OpenAI's names."""

from typing import Literal

from api.schemas.common import ResponseModel
from api.schemas.responses import OutputItem, OutputText, ReasoningText, Response

LifecycleType = Literal[
    "response.created", "response.in_progress", "response.completed", "response.incomplete", "response.failed"
]
ItemType = Literal["response.output_item.added", "response.output_item.done"]
PartType = Literal["response.content_part.added", "response.content_part.done"]
CallDeltaType = Literal["response.function_call_arguments.delta", "response.custom_tool_call_input.delta"]


class ResponseEvent(ResponseModel):
    """Each has its type, and its number in the stream, from 0 on."""

    type: str
    sequence_number: int

    @property
    def event_name(self) -> str:
        """OpenAI sends the type as the event's name too."""
        return self.type


class LifecycleEvent(ResponseEvent):
    type: LifecycleType
    response: Response


class ItemEvent(ResponseEvent):
    type: ItemType
    output_index: int
    item: OutputItem


class PartEvent(ResponseEvent):
    type: PartType
    item_id: str
    output_index: int
    content_index: int
    part: OutputText | ReasoningText


class ReasoningDeltaEvent(ResponseEvent):
    type: Literal["response.reasoning_text.delta"]
    item_id: str
    output_index: int
    content_index: int
    delta: str


class ReasoningDoneEvent(ResponseEvent):
    type: Literal["response.reasoning_text.done"]
    item_id: str
    output_index: int
    content_index: int
    text: str


class TextDeltaEvent(ResponseEvent):
    type: Literal["response.output_text.delta"]
    item_id: str
    output_index: int
    content_index: int
    delta: str
    logprobs: list[None]


class TextDoneEvent(ResponseEvent):
    type: Literal["response.output_text.done"]
    item_id: str
    output_index: int
    content_index: int
    text: str
    logprobs: list[None]


class CallDeltaEvent(ResponseEvent):
    type: CallDeltaType
    item_id: str
    output_index: int
    delta: str


class ArgumentsDoneEvent(ResponseEvent):
    type: Literal["response.function_call_arguments.done"]
    item_id: str
    output_index: int
    name: str
    arguments: str


class InputDoneEvent(ResponseEvent):
    type: Literal["response.custom_tool_call_input.done"]
    item_id: str
    output_index: int
    input: str


class ErrorEvent(ResponseEvent):
    """Why the response fails; the failed response follows."""

    type: Literal["error"]
    code: str | None
    message: str
    param: str | None


AnyEvent = (
    LifecycleEvent
    | ItemEvent
    | PartEvent
    | ReasoningDeltaEvent
    | ReasoningDoneEvent
    | TextDeltaEvent
    | TextDoneEvent
    | CallDeltaEvent
    | ArgumentsDoneEvent
    | InputDoneEvent
    | ErrorEvent
)
