"""POST /v1/completions on the wire: OpenAI's older endpoint, raw text without a chat template."""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from api.schemas.common import ResponseModel, SamplingOptions, Text, ToolmaskInfo, Usage

TokenIds = Annotated[list[int], Field(min_length=1)]
MAX_PROMPTS = 128
Prompts = Annotated[list[Text], Field(min_length=1, max_length=MAX_PROMPTS)]
TokenPrompts = Annotated[list[TokenIds], Field(min_length=1, max_length=MAX_PROMPTS)]


def _form_of(prompt: Any) -> str | None:
    """Which of the four forms a prompt is meant as, by its first item: the faults of that form alone are told."""
    if isinstance(prompt, str):
        return "text"
    if not isinstance(prompt, list):
        return None
    return {str: "texts", int: "tokens", list: "token lists"}.get(type(prompt[0]) if prompt else str)


Prompt = Annotated[
    Annotated[Text, Tag("text")]
    | Annotated[Prompts, Tag("texts")]
    | Annotated[TokenIds, Tag("tokens")]
    | Annotated[TokenPrompts, Tag("token lists")],
    Discriminator(
        _form_of,
        custom_error_type="prompt_form",
        custom_error_message=f"Input should be text, a list of token ids, or a list of at most {MAX_PROMPTS} of either",
    ),
]


class CompletionRequest(SamplingOptions):
    """The options of a completion that are honoured; any other is refused by name."""

    model: Text
    prompt: Prompt
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
