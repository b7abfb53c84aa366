"""POST /v1/responses on the wire: the request, and the answer that is not streamed."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from api.schemas.common import (
    ChatToolmaskOptions,
    JsonSchema,
    RequestModel,
    ResponseModel,
    Text,
    ToolmaskDecision,
    ToolmaskInfo,
)
from api.schemas.response_items import FlatAnyTool, FlatTool, FlatToolChoice, InputItem, Status
from api.schemas.tools import TextFormat


class JsonObjectFormat(RequestModel):
    type: Literal["json_object"]


class JsonSchemaFormat(RequestModel):
    model_config = ConfigDict(serialize_by_alias=True)

    type: Literal["json_schema"]
    name: Text
    schema_: JsonSchema = Field(alias="schema")
    description: Text | None = None
    strict: bool | None = Field(default=None, description="Changes nothing: the schema always holds.")


AnswerFormat = Annotated[TextFormat | JsonObjectFormat | JsonSchemaFormat, Field(discriminator="type")]


class TextOptions(RequestModel):
    """What the text of the answer is."""

    format: AnswerFormat | None = None
    verbosity: None = None


class Reasoning(RequestModel):
    """How long a model thinks. Answers have this object, so it comes back."""

    effort: Text | None = Field(
        default=None, description="Passed to the chat template; refused where that does not read it."
    )
    summary: None = Field(default=None, description="Only null: reasoning is told as it was written.")


class ResponseStreamOptions(RequestModel):
    include_obfuscation: Literal[False] | None = Field(default=None, description="Only false: events are never padded.")


class ResponseToolmaskOptions(ChatToolmaskOptions):
    """Options beyond OpenAI's. At most one of regex, choice and grammar, and none beside a text.format."""

    seed: int | None = Field(
        default=None, ge=0, lt=2**63, description="The same seed gives the same answer, streamed or not."
    )


class ResponseRequest(RequestModel):
    """The options of a response that are honoured; any other is refused by name."""

    model: Text
    input: Text | Annotated[list[InputItem], Field(min_length=1)]
    instructions: Text | None = Field(default=None, description="Of this answer only: not kept for the next one.")
    previous_response_id: Text | None = Field(default=None, description="Goes on where that response ended.")
    store: bool | None = Field(default=None, description="false: the answer is not kept. Kept ones are bounded.")
    tools: list[FlatTool] | None = Field(default=None, description="Schemas, or names of the server's own tools.")
    tool_choice: FlatToolChoice | None = None
    parallel_tool_calls: bool | None = None
    text: TextOptions | None = None
    reasoning: Reasoning | None = None
    max_output_tokens: int | None = Field(default=None, ge=1)
    temperature: float | None = Field(
        default=None, ge=0, le=100, description="0, the default, always takes the likeliest."
    )
    top_p: float | None = Field(default=None, gt=0, le=1)
    metadata: dict[Text, Text] | None = Field(default=None, description="Comes back in the answer.")
    user: Text | None = Field(default=None, description="Comes back in the answer.")
    stream: bool | None = None
    stream_options: ResponseStreamOptions | None = None
    toolmask: ResponseToolmaskOptions | None = None

    # Accepted where they change nothing.
    background: Literal[False] | None = Field(default=None, description="Only false: answers are waited for.")
    include: Annotated[list[Text], Field(max_length=0)] | None = Field(default=None, description="Only empty.")
    service_tier: Literal["auto", "default"] | None = Field(default=None, description="There is one tier.")
    top_logprobs: Literal[0] | None = Field(default=None, description="Only 0: responses have no logprobs.")
    truncation: Literal["disabled"] | None = Field(default=None, description="Only disabled: nothing is left out.")
    safety_identifier: Text | None = Field(default=None, description="Accepted, changes nothing.")
    prompt_cache_key: Text | None = Field(default=None, description="Accepted, changes nothing.")


# The answer.


class OutputText(ResponseModel):
    type: Literal["output_text"]
    text: str
    annotations: list[None]  # always empty
    logprobs: list[None]  # always empty


class ReasoningText(ResponseModel):
    type: Literal["reasoning_text"]
    text: str


class OutputReasoning(ResponseModel):
    """What the model thought before it answered."""

    id: str
    type: Literal["reasoning"]
    status: Status
    summary: list[None]  # always empty
    content: list[ReasoningText]


class OutputMessage(ResponseModel):
    id: str
    type: Literal["message"]
    role: Literal["assistant"]
    status: Status
    content: list[OutputText]


class OutputFunctionCall(ResponseModel):
    """A call that the model wrote; where its status is completed, it is valid for its tool."""

    id: str
    type: Literal["function_call"]
    status: Status
    call_id: str
    name: str
    arguments: str


class OutputCustomCall(ResponseModel):
    """A call of a custom tool; where its status is completed, it is valid for its tool."""

    id: str
    type: Literal["custom_tool_call"]
    status: Status
    call_id: str
    name: str
    input: str


OutputCall = OutputFunctionCall | OutputCustomCall
AnyOutputItem = OutputReasoning | OutputMessage | OutputCall
OutputItem = Annotated[AnyOutputItem, Field(discriminator="type")]


class InputTokensDetails(ResponseModel):
    cached_tokens: int  # of the input: not computed again
    cache_write_tokens: Literal[0]  # OpenAI's clients read it; here nothing is charged for


class OutputTokensDetails(ResponseModel):
    reasoning_tokens: int  # tags included
    forced_tokens: int  # that the grammar left no choice about; not in OpenAI's API


class ResponseUsage(ResponseModel):
    """Tokens, counted."""

    input_tokens: int
    input_tokens_details: InputTokensDetails
    output_tokens: int
    output_tokens_details: OutputTokensDetails
    total_tokens: int


class ResponseFailure(ResponseModel):
    """Why a streamed response failed."""

    code: Literal["server_error"]  # the one of OpenAI's codes that fits; the error event has the server's own
    message: str


class IncompleteDetails(ResponseModel):
    reason: Literal["max_output_tokens"]


class Response(ResponseModel):
    """A whole answer, or how far it has come. What was asked for comes back, with its defaults."""

    id: str
    object: Literal["response"]
    created_at: int
    status: Literal["in_progress", "completed", "incomplete", "failed"]
    background: Literal[False]
    error: ResponseFailure | None
    incomplete_details: IncompleteDetails | None
    instructions: str | None
    max_output_tokens: int | None
    metadata: dict[str, str]
    model: str
    output: list[OutputItem]
    parallel_tool_calls: bool
    previous_response_id: str | None
    reasoning: Reasoning
    service_tier: Literal["default"]
    store: bool
    temperature: float
    text: TextOptions
    tool_choice: FlatToolChoice
    tools: list[FlatAnyTool]
    top_p: float
    truncation: Literal["disabled"]
    usage: ResponseUsage | None
    user: str | None
    toolmask: ToolmaskInfo | ToolmaskDecision | None = None  # at the end; at the start where a call was decided on


class DeletedResponse(ResponseModel):
    id: str
    object: Literal["response"]
    deleted: Literal[True]
