"""Items of a Responses conversation and its tools, as clients write them: flat, where chats nest."""

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Discriminator, Field, Tag

from api.schemas.common import JsonSchema, RequestModel, Text
from api.schemas.tools import RegisteredName, TextFormat, ToolName

Status = Literal["in_progress", "completed", "incomplete"]

# Items.


class InputText(RequestModel):
    type: Literal["input_text"]
    text: Text


class WrittenText(RequestModel):
    """Text of an earlier answer, as the server gave it. What changes nothing is not kept either."""

    type: Literal["output_text"]
    text: Text
    annotations: list[Any] | None = Field(default=None, exclude=True, description="Accepted, changes nothing.")
    logprobs: list[Any] | None = Field(default=None, exclude=True, description="Accepted, changes nothing.")


TextPart = Annotated[InputText | WrittenText, Field(discriminator="type")]
ItemContent = Text | Annotated[list[TextPart], Field(min_length=1)]


class InputItemBase(RequestModel):
    """Ids and states are in answers, so they come back; they change nothing."""

    id: Text | None = None
    status: Status | None = None


class InputMessage(InputItemBase):
    type: Literal["message"] = "message"
    role: Literal["system", "developer", "user", "assistant"]
    content: ItemContent


class ReasoningPart(RequestModel):
    type: Literal["reasoning_text"]
    text: Text


class InputReasoning(InputItemBase):
    """What the model thought before the items after it, up to the next turn. Shown where the model wants it."""

    type: Literal["reasoning"]
    content: Annotated[list[ReasoningPart], Field(min_length=1)]
    summary: Annotated[list[None], Field(max_length=0)] | None = Field(
        default=None, description="Only empty: the model is shown what it wrote."
    )
    encrypted_content: None = None


class InputFunctionCall(InputItemBase):
    """An earlier call."""

    type: Literal["function_call"]
    call_id: Text
    name: ToolName
    arguments: Text = Field(description="The text of a JSON object.")


class InputCustomCall(InputItemBase):
    """An earlier call of a custom tool."""

    type: Literal["custom_tool_call"]
    call_id: Text
    name: ToolName
    input: Text


class FunctionCallOutput(InputItemBase):
    """A function's result."""

    type: Literal["function_call_output"]
    call_id: Text
    output: ItemContent


class CustomCallOutput(InputItemBase):
    """A custom tool's result."""

    type: Literal["custom_tool_call_output"]
    call_id: Text
    output: ItemContent


def _kind_of_item(item: Any) -> str:
    """The type may be left out of messages."""
    kind = item.get("type", "message") if isinstance(item, dict) else getattr(item, "type", "")
    return kind if isinstance(kind, str) else ""


InputItem: TypeAlias = Annotated[
    Annotated[InputMessage, Tag("message")]
    | Annotated[InputReasoning, Tag("reasoning")]
    | Annotated[InputFunctionCall, Tag("function_call")]
    | Annotated[InputCustomCall, Tag("custom_tool_call")]
    | Annotated[FunctionCallOutput, Tag("function_call_output")]
    | Annotated[CustomCallOutput, Tag("custom_tool_call_output")],
    Discriminator(
        _kind_of_item,
        custom_error_type="unsupported_item",
        custom_error_message="Input should be a message, reasoning, function_call, function_call_output, "
        "custom_tool_call or custom_tool_call_output; item_reference and all other types are not supported",
    ),
]


# Tools.


class FlatFunctionTool(RequestModel):
    """A function that the model may call."""

    type: Literal["function"]
    name: ToolName
    description: Text | None = None
    parameters: JsonSchema | None = Field(
        default=None, description="JSON schema of an object; none means no arguments."
    )
    strict: bool | None = Field(default=None, description="false where it is left out; arguments are valid either way.")


class FlatGrammarFormat(RequestModel):
    type: Literal["grammar"]
    syntax: Literal["lark", "regex"]
    definition: Text


class FlatCustomTool(RequestModel):
    """A tool whose input is text, not JSON."""

    type: Literal["custom"]
    name: ToolName
    description: Text | None = None
    format: Annotated[TextFormat | FlatGrammarFormat, Field(discriminator="type")] | None = None


FlatAnyTool = Annotated[FlatFunctionTool | FlatCustomTool, Field(discriminator="type")]
FlatTool = FlatAnyTool | RegisteredName


class FlatNamedTool(RequestModel):
    type: Literal["function", "custom"]
    name: Text


class FlatAllowedTools(RequestModel):
    type: Literal["allowed_tools"]
    mode: Literal["auto", "required"]
    tools: list[FlatNamedTool]


FlatToolChoice: TypeAlias = (
    Literal["auto", "none", "required"] | Annotated[FlatNamedTool | FlatAllowedTools, Field(discriminator="type")]
)
