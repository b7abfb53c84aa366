"""What several endpoints share on the wire.

The rule of all schemas: a request names every option that is honoured and no other, so that an unknown one is refused
by name. A null means the same as leaving the option out, also of OpenAI's options that are not supported.
"""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from api.schemas.unsupported import NAMES


def _is_text(value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise PydanticCustomError("text", "Input should be text without lone surrogates") from None
    return value


Text = Annotated[str, AfterValidator(_is_text)]
JsonSchema = dict[str, Any]
StopStrings = (
    Annotated[Text, Field(min_length=1)] | Annotated[list[Annotated[Text, Field(min_length=1)]], Field(max_length=4)]
)
FinishReason = Literal["stop", "length", "tool_calls"]


class RequestModel(BaseModel):
    """Something that a client writes. Types are not coerced: "5" is no number."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _without_nulls_that_ask_for_nothing(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        ignored = {name for name in NAMES - cls.model_fields.keys() if given.get(name, "") is None}
        return {name: value for name, value in given.items() if name not in ignored} if ignored else given


class ResponseModel(BaseModel):
    """Something that the server writes. Only the fields that were set are sent, null among them."""

    model_config = ConfigDict(extra="forbid")

    @property
    def event_name(self) -> str | None:
        """Where it is an event of a stream: its name, if it has one beside its data."""
        return None

    def json_text(self) -> str:
        """The wire's form."""
        return self.model_dump_json(exclude_unset=True)


class StreamOptions(RequestModel):
    """What a stream has beside its deltas."""

    include_usage: bool | None = Field(
        default=None, description="End with a chunk without choices that carries the usage."
    )
    include_obfuscation: Literal[False] | None = Field(default=None, description="Only false: chunks are never padded.")


class ToolmaskOptions(RequestModel):
    """Options beyond OpenAI's. At most one of regex, choice and grammar, and none beside a response_format."""

    min_p: float | None = Field(
        default=None, ge=0, le=1, description="Keep tokens at least this likely, relative to the best."
    )
    top_k: int | None = Field(default=None, ge=0, description="Keep the k likeliest tokens; 0 keeps all.")
    repetition_penalty: float | None = Field(default=None, gt=0, le=10)
    regex: Text | None = Field(
        default=None, description="The text of the answer matches this; syntax of Rust's regex crate."
    )
    choice: list[Text] | None = Field(default=None, min_length=1, description="The text of the answer is one of these.")
    grammar: Text | None = Field(
        default=None, description="A Lark grammar, llguidance's dialect, of the answer's text."
    )


class SchemaOptions(ToolmaskOptions):
    """The same, and how the JSON schemas of tools and answers are taken."""

    open_objects: bool | None = Field(
        default=None, description="Allow arguments that a tool's schema does not name, where it does not forbid them."
    )
    lenient: bool | None = Field(
        default=None, description="Drop what cannot be enforced of a schema, and say so in the receipt."
    )
    strict_formats: bool | None = Field(
        default=None, description="Refuse formats that JSON Schema does not know, which else are annotations."
    )


class ToolDisplay(RequestModel):
    """How tools are shown to a model whose chat template does not show them; what is left out is as in the default."""

    style: Literal["signatures", "json"] | None = None
    example: bool | None = Field(default=None, description="Of a call, built from the first tool's schema.")
    order: Literal["example_first", "tools_first"] | None = None
    place: Literal["system", "before", "after"] | None = Field(
        default=None, description="In the system message, or in the user's latest one before or behind its text."
    )


class PromptOptions(RequestModel):
    """What decides the prompt, beside messages and tools."""

    tool_display: ToolDisplay | None = Field(
        default=None, description="Refused where the model's chat template shows tools itself."
    )
    tool_retrieval: int | None = Field(
        default=None, ge=1, description="Offer no more than so many of the tools: those that fit the request best."
    )

    chat_template_kwargs: dict[Text, Any] | None = Field(
        default=None, description="Options that the model's chat template reads, such as enable_thinking; no others."
    )


class DecisionFields(RequestModel):
    """About call or text, in a turn that may have either."""

    decision: Literal[True] | None = Field(
        default=None, description="Tell how likely a call was where it was decided, though that may cost positions."
    )
    tool_call_bias: float | None = Field(default=None, description="Added to the log-odds of a call.")
    tool_call_threshold: float | None = Field(
        default=None, ge=0, le=1, description="Call where P(call) reaches this, at any temperature."
    )
    calibrate: bool | None = Field(
        default=None,
        description="Subtract the log-odds of a call after a prompt without content, with the same tools. "
        "false takes away the default of a model that was never trained for tools.",
    )
    tool_probabilities: bool | None = Field(
        default=None, description="Tell P of each tool too; may cost forward passes."
    )
    tool_choice_by: Literal["tokens", "likelihood"] | None = Field(
        default=None,
        description="likelihood: the first call's tool is chosen by whole names, which may cost forward passes and is "
        "the default of a model that was never trained for tools; tokens: it is written as any text is.",
    )


class ChatToolmaskOptions(SchemaOptions, PromptOptions, DecisionFields):
    """Options of a conversation beyond OpenAI's."""

    optional_bias: float | None = Field(
        default=None,
        ge=-100,
        le=0,
        description="Added to the logit of another argument where a call's object may close.",
    )
    best_of: int | None = Field(
        default=None, ge=2, le=16, description="Samples of which the likeliest is the answer; not beside n above 1."
    )

    reasoning_budget: int | None = Field(
        default=None, ge=0, description="Tokens of reasoning after which it is closed; of models that reason only."
    )


class SamplingOptions(RequestModel):
    """How tokens are chosen; a base of the requests that generate."""

    temperature: float | None = Field(
        default=None, ge=0, le=100, description="0, the default, always takes the likeliest."
    )
    top_p: float | None = Field(default=None, gt=0, le=1)
    seed: int | None = Field(
        default=None, ge=0, lt=2**63, description="The same seed gives the same answer, streamed or not."
    )
    presence_penalty: float | None = Field(default=None, ge=-2, le=2)
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)
    logit_bias: dict[str, Annotated[float, Field(ge=-100, le=100)]] | None = Field(
        default=None, description="Token id, as a string, to what is added to its logit."
    )
    n: int | None = Field(default=None, ge=1, le=128, description="How many answers.")
    stop: StopStrings | None = Field(
        default=None, description="Free text ends before the first of these; calls do not."
    )
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: Text | None = Field(default=None, description="Accepted, changes nothing.")
    toolmask: ToolmaskOptions | None = None


class PromptTokensDetails(ResponseModel):
    cached_tokens: int  # of the prompt: not computed again


class CompletionTokensDetails(ResponseModel):
    reasoning_tokens: int  # tags included
    forced_tokens: int  # that the grammar left no choice about; not in OpenAI's API


class Usage(ResponseModel):
    """Tokens, counted. The prompt counts once, however many answers it gets."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails
    completion_tokens_details: CompletionTokensDetails


class ReceiptEntry(ResponseModel):
    """One fact about what was enforced."""

    path: str  # into the request
    enforcement: str
    detail: str


Answerer = Literal["model", "route", "fallback"]


class AnsweredBy(ResponseModel):
    """Who answered; told where that need not be the server's own model."""

    kind: Answerer
    name: str  # of the model, the route, or the upstream's model
    confidence: float | None = None  # of the local decision: with a fallback, and where one was taken


class ToolStep(ResponseModel):
    """One call that the server executed."""

    round: int
    id: str
    name: str
    arguments: str
    result: dict[str, Any]
    answered_by: AnsweredBy | None = None  # who wrote the call, where that was a direct route


class Decision(ResponseModel):
    """Call or text, where it was decided."""

    p_call: float  # calibrated, with the bias; compared with the threshold
    p_text: float
    p_call_raw: float  # the model's own
    calibrated: bool
    bias: float
    threshold: float | None
    chosen: Literal["call", "text"] | None  # null: left to the tokens
    fits: bool  # false: it was a call, but none could be completed within the tokens that were left
    passes: int  # forward passes beyond those of the answer
    tools: dict[str, float] | None = None  # where they were compared


class BestOf(ResponseModel):
    """What an answer was chosen from."""

    scores: list[float]  # of each sample: the mean logprob of its tokens
    chosen: int  # its index; of the samples that call, or do not, as the first one does


class ToolmaskDecision(ResponseModel):
    """What a stream says as soon as it is decided."""

    decision: Decision


class ToolmaskInfo(ResponseModel):
    """What an answer says beyond OpenAI's fields."""

    receipt: list[ReceiptEntry]
    forced_tokens: int
    forward_passes: int
    seed: int
    answered_by: AnsweredBy | None = None
    trace: list[ToolStep] | None = None  # with tool_execution "server"
    decision: Decision | None = None  # of the first choice
    decisions: list[Decision | None] | None = None  # of all choices, where there are several; null of those with none
    best_of: BestOf | None = None
    offered_tools: list[str] | None = None  # with tool_retrieval
