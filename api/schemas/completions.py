"""POST /v1/completions on the wire: OpenAI's older endpoint, raw text without a chat template."""

from typing import Annotated, Literal

from pydantic import Field

from api.schemas.common import ResponseModel, SamplingOptions, Text, ToolmaskInfo, Usage

TokenIds = Annotated[list[int], Field(min_length=1)]
MAX_PROMPTS = 128
Prompts = Annotated[list[Text], Field(min_length=1, max_length=MAX_PROMPTS)]
TokenPrompts = Annotated[list[TokenIds], Field(min_length=1, max_length=MAX_PROMPTS)]


class CompletionRequest(SamplingOptions):
    """The options of a completion that are honoured; any other is refused by name."""

    model: Text
    prompt: Text | Prompts | TokenIds | TokenPrompts
    max_tokens: int | None = Field(default=None, ge=1, description="16 where it is left out, as at OpenAI.")
    logprobs: int | None = Field(default=None, ge=0, le=5)

    best_of: Literal[1] | None = Field(default=None, description="Only 1.")
    echo: Literal[False] | None = Field(default=None, description="Only false.")
    suffix: None = None


class CompletionLogprobs(ResponseModel):
    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]]
    text_offset: list[int]  # in characters, into the choice's text


class CompletionChoice(ResponseModel):
    index: int  # prompts first: choice j of prompt i has i * n + j
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: Literal["stop", "length"] | None  # null inside a stream


class Completion(ResponseModel):
    """A whole answer, or one event of a stream."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[CompletionChoice]
    system_fingerprint: str
    usage: Usage | None = None
    toolmask: ToolmaskInfo | None = None
