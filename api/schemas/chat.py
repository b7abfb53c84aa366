"""POST /v1/chat/completions on the wire."""

from typing import Annotated, Literal

from pydantic import Field

from api.schemas.common import (
    ChatToolmaskOptions,
    FinishReason,
    JsonSchema,
    RequestModel,
    ResponseModel,
    SamplingOptions,
    Text,
    ToolmaskDecision,
    ToolmaskInfo,
    Usage,
)
from api.schemas.messages import Messages
from api.schemas.tools import RequestTool, ToolChoice


class TextResponse(RequestModel):
    type: Literal["text"]


class JsonObjectResponse(RequestModel):
    type: Literal["json_object"]


class JsonSchemaDefinition(RequestModel):
    name: Text
    description: Text | None = None
    schema_: JsonSchema | None = Field(default=None, alias="schema", description="None admits any JSON object.")
    strict: bool | None = Field(default=None, description="Changes nothing: the schema always holds.")


class JsonSchemaResponse(RequestModel):
    type: Literal["json_schema"]
    json_schema: JsonSchemaDefinition


ResponseFormat = Annotated[TextResponse | JsonObjectResponse | JsonSchemaResponse, Field(discriminator="type")]


class ChatRequest(SamplingOptions):
    """The options of a chat completion that are honoured; any other is refused by name."""

    model: Text
    messages: Messages
    tools: list[RequestTool] | None = Field(default=None, description="Schemas, or names of the server's own tools.")
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    tool_execution: Literal["client", "server"] | None = Field(
        default=None,
        description="server: the server runs its own tools in turn and answers with the final text; tools must be "
        "named, and all of the server's are offered where none is.",
    )
    response_format: ResponseFormat | None = None
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1, description="The newer name of max_tokens.")
    reasoning_effort: Text | None = Field(
        default=None, description="Passed to the chat template; refused where that does not read it."
    )
    toolmask: ChatToolmaskOptions | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=20)

    # Accepted where they change nothing.
    metadata: dict[Text, Text] | None = Field(default=None, description="Accepted, changes nothing.")
    store: Literal[False] | None = Field(default=None, description="Only false: chats are not stored.")
    service_tier: Literal["auto", "default"] | None = Field(default=None, description="There is one tier.")
    modalities: list[Literal["text"]] | None = Field(default=None, description="Only text is written.")
    safety_identifier: Text | None = Field(default=None, description="Accepted, changes nothing.")
    prompt_cache_key: Text | None = Field(default=None, description="Accepted, changes nothing.")


class TopLogprob(ResponseModel):
    token: str
    bytes: list[int]
    logprob: float


class TokenLogprob(TopLogprob):
    top_logprobs: list[TopLogprob]


class ChoiceLogprobs(ResponseModel):
    content: list[TokenLogprob]  # of the text only
    refusal: None


class WrittenFunction(ResponseModel):
    name: str
    arguments: str


class WrittenCustom(ResponseModel):
    name: str
    input: str


class WrittenCall(ResponseModel):
    """A call that the model wrote; complete, and valid for its tool."""

    id: str
    type: Literal["function", "custom"]
    function: WrittenFunction | None = None
    custom: WrittenCustom | None = None


class AssistantAnswer(ResponseModel):
    role: Literal["assistant"]
    content: str | None
    refusal: None
    reasoning_content: str | None = None  # what the model thought before it answered; not in OpenAI's API
    tool_calls: list[WrittenCall] | None = None


class ChatChoice(ResponseModel):
    index: int
    message: AssistantAnswer
    logprobs: ChoiceLogprobs | None
    finish_reason: FinishReason


class ChatCompletion(ResponseModel):
    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage
    system_fingerprint: str
    toolmask: ToolmaskInfo


class FunctionDelta(ResponseModel):
    name: str | None = None
    arguments: str | None = None


class CustomDelta(ResponseModel):
    name: str | None = None
    input: str | None = None


class CallDelta(ResponseModel):
    """The first one of a call has its id, type and name; the others have more of its arguments."""

    index: int
    id: str | None = None
    type: Literal["function", "custom"] | None = None
    function: FunctionDelta | None = None
    custom: CustomDelta | None = None


class ChatDelta(ResponseModel):
    role: Literal["assistant"] | None = None
    content: str | None = None
    refusal: None = None
    reasoning_content: str | None = None
    tool_calls: list[CallDelta] | None = None


class ChunkChoice(ResponseModel):
    index: int
    delta: ChatDelta
    logprobs: ChoiceLogprobs | None
    finish_reason: FinishReason | None


class ChatChunk(ResponseModel):
    """One event of a stream. `toolmask` is in the last one that has a choice; before, where a call was decided on."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    choices: list[ChunkChoice]
    system_fingerprint: str
    usage: Usage | None = None
    toolmask: ToolmaskInfo | ToolmaskDecision | None = None
