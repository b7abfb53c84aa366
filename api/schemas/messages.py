"""Messages of a conversation, as clients write them."""

from typing import Annotated, Literal

from pydantic import Field

from api.schemas.common import RequestModel, Text
from api.schemas.tools import ToolName


class TextPart(RequestModel):
    type: Literal["text"]
    text: Text


Content = Text | Annotated[list[TextPart], Field(min_length=1)]


class CalledFunction(RequestModel):
    name: ToolName
    arguments: Text = Field(description="The text of a JSON object.")


class FunctionCall(RequestModel):
    type: Literal["function"]
    id: Text
    function: CalledFunction


class CalledCustom(RequestModel):
    name: ToolName
    input: Text


class CustomCall(RequestModel):
    type: Literal["custom"]
    id: Text
    custom: CalledCustom


AnyCall = Annotated[FunctionCall | CustomCall, Field(discriminator="type")]


class SystemMessage(RequestModel):
    role: Literal["system"]
    content: Content


class DeveloperMessage(RequestModel):
    """Newer clients' name for the system message."""

    role: Literal["developer"]
    content: Content


class UserMessage(RequestModel):
    role: Literal["user"]
    content: Content


class AssistantMessage(RequestModel):
    """An earlier answer, as the server gave it. The last three fields are in answers, so they come back."""

    role: Literal["assistant"]
    content: Content | None = None
    tool_calls: list[AnyCall] | None = None
    reasoning_content: Text | None = Field(
        default=None, description="As in the answer; shown where the model wants it."
    )
    refusal: None = None
    audio: None = None
    function_call: None = None
    annotations: Annotated[list[None], Field(max_length=0)] | None = None


class ToolMessage(RequestModel):
    """A tool's result."""

    role: Literal["tool"]
    content: Content
    tool_call_id: Text
    name: Text | None = Field(
        default=None, description="The called tool's; some clients send it, and it must be right."
    )


Message = Annotated[
    SystemMessage | DeveloperMessage | UserMessage | AssistantMessage | ToolMessage, Field(discriminator="role")
]
Messages = Annotated[list[Message], Field(min_length=1)]
