"""Tools on the wire: as requests offer them, and those of the server."""

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field

from api.schemas.common import JsonSchema, RequestModel, ResponseModel, Text

ToolName = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_.-]{1,64}$")]


class FunctionDefinition(RequestModel):
    """A function that the model may call."""

    name: ToolName
    description: Text | None = None
    parameters: JsonSchema | None = Field(
        default=None, description="JSON schema of an object; none means no arguments."
    )
    strict: bool | None = None


class FunctionTool(RequestModel):
    type: Literal["function"]
    function: FunctionDefinition


class TextFormat(RequestModel):
    type: Literal["text"]


class GrammarDefinition(RequestModel):
    syntax: Literal["lark", "regex"]
    definition: Text


class GrammarFormat(RequestModel):
    type: Literal["grammar"]
    grammar: GrammarDefinition


class CustomDefinition(RequestModel):
    """A tool whose input is text, not JSON."""

    name: ToolName
    description: Text | None = None
    format: Annotated[TextFormat | GrammarFormat, Field(discriminator="type")] | None = None


class CustomTool(RequestModel):
    type: Literal["custom"]
    custom: CustomDefinition


AnyTool = Annotated[FunctionTool | CustomTool, Field(discriminator="type")]
RegisteredName = Annotated[Text, Field(min_length=1, description="The name of a tool that the server has.")]
RequestTool = AnyTool | RegisteredName


class Named(RequestModel):
    name: Text


class NamedFunction(RequestModel):
    type: Literal["function"]
    function: Named


class NamedCustom(RequestModel):
    type: Literal["custom"]
    custom: Named


NamedTool = Annotated[NamedFunction | NamedCustom, Field(discriminator="type")]


class AllowedTools(RequestModel):
    mode: Literal["auto", "required"]
    tools: list[NamedTool]


class AllowedToolsChoice(RequestModel):
    type: Literal["allowed_tools"]
    allowed_tools: AllowedTools


ToolChoice: TypeAlias = (
    Literal["auto", "none", "required"]
    | Annotated[NamedFunction | NamedCustom | AllowedToolsChoice, Field(discriminator="type")]
)


class ServerTool(ResponseModel):
    """A tool that the server can execute, in the form in which a request would offer it."""

    type: Literal["function"]
    function: FunctionDefinition


class ServerToolList(ResponseModel):
    object: Literal["list"]
    data: list[ServerTool]


class ExecuteRequest(RequestModel):
    """One call of a tool of the server."""

    tool: Text
    args: dict[Text, Any] = Field(default_factory=dict)


class ExecuteResponse(ResponseModel):
    """The tool's result, or in one line why there is none."""

    success: bool
    result: Any = None  # where it succeeded
    error: str | None = None  # where it failed
