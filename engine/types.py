"""The frozen values that travel through the engine. None of them knows of arrays, tokens' bytes or HTTP."""

import enum
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from engine.errors import RequestError

JsonObject = Mapping[str, Any]

TOOL_NAME = re.compile(r"[a-zA-Z0-9_.-]{1,64}")
MAX_TOP_LOGPROBS = 20


class Role(enum.StrEnum):
    """Who wrote a message."""

    SYSTEM = "system"
    DEVELOPER = "developer"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One complete call. `arguments` is the JSON text exactly as it was written."""

    id: str
    name: str
    arguments: str

    def parsed_arguments(self) -> dict[str, Any]:
        """The arguments as a Python dict."""
        arguments: dict[str, Any] = json.loads(self.arguments)
        return arguments


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation."""

    role: Role
    content: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()  # assistant messages only
    tool_call_id: str | None = None  # tool messages only: the call that this answers


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that the model may call.

    `parameters` is a JSON schema of an object; None means that the tool takes no arguments.
    """

    name: str
    description: str = ""
    parameters: JsonObject | None = None

    def __post_init__(self) -> None:
        if not TOOL_NAME.fullmatch(self.name):
            raise RequestError(
                f"the tool name {self.name!r} is not allowed; it must have 1 to 64 of a-z, A-Z, 0-9, '_', '-' and '.'",
                param="tools.name",
            )


class ToolChoiceMode(enum.StrEnum):
    """What a turn may consist of."""

    AUTO = "auto"  # text, or calls, or text and then calls
    NONE = "none"  # text only; the markers of a call cannot be written
    REQUIRED = "required"  # at least one call


@dataclass(frozen=True, slots=True)
class ToolChoice:
    """Which tools may, or must, be called."""

    mode: ToolChoiceMode = ToolChoiceMode.AUTO
    allowed: tuple[str, ...] | None = None  # names; None allows every offered tool
    exactly_one: bool = False  # one call at most, whatever Request.parallel_tool_calls says

    @classmethod
    def named(cls, name: str) -> "ToolChoice":
        """Exactly one call, of this tool."""
        return cls(ToolChoiceMode.REQUIRED, allowed=(name,), exactly_one=True)


class GrammarKind(enum.StrEnum):
    """The language that a grammar's source is written in."""

    JSON_SCHEMA = "json_schema"
    REGEX = "regex"
    LARK = "lark"
    CHOICE = "choice"


@dataclass(frozen=True, slots=True)
class Grammar:
    """Source text and its language."""

    kind: GrammarKind
    source: str

    @classmethod
    def json_schema(cls, schema: JsonObject | bool) -> "Grammar":
        """Any JSON value that satisfies the schema, taken as JSON Schema writes it."""
        return cls(GrammarKind.JSON_SCHEMA, json.dumps(schema))

    @classmethod
    def json_object(cls) -> "Grammar":
        """Any JSON object."""
        return cls.json_schema({"type": "object"})

    @classmethod
    def regex(cls, pattern: str) -> "Grammar":
        """Text that the whole pattern matches; syntax of Rust's regex crate."""
        return cls(GrammarKind.REGEX, pattern)

    @classmethod
    def lark(cls, source: str) -> "Grammar":
        """Text that a Lark grammar derives from its rule `start`; llguidance's dialect."""
        return cls(GrammarKind.LARK, source)

    @classmethod
    def choice(cls, options: Sequence[str]) -> "Grammar":
        """Exactly one of the options."""
        return cls(GrammarKind.CHOICE, json.dumps(list(options), ensure_ascii=False))


def _check_range(param: str, value: float, allowed: str, *, inside: bool) -> None:
    # NaN fails every comparison, so `inside` is False for it.
    if not inside:
        raise RequestError(f"{param} is {value}; it must be {allowed}", param=param)


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How logits become a token. Greedy unless asked otherwise.

    Logits are changed in this order: penalties and bias, the grammar's mask, temperature, top_k, top_p, min_p.
    """

    temperature: float = 0.0  # [0, 100]; 0 means greedy
    top_p: float = 1.0  # (0, 1]; 1 keeps every token
    top_k: int = 0  # 0 keeps every token
    min_p: float = 0.0  # [0, 1]; relative to the likeliest token's probability
    repetition_penalty: float = 1.0  # (0, 10]; divides positive logits of tokens seen in prompt or output
    presence_penalty: float = 0.0  # [-2, 2]; subtracted once from tokens seen in the output
    frequency_penalty: float = 0.0  # [-2, 2]; subtracted per occurrence in the output
    logit_bias: Mapping[int, float] = field(default_factory=dict)  # token id -> [-100, 100]
    seed: int | None = None  # [0, 2**63); None draws one, which the completion reports
    top_logprobs: int | None = None  # None: no logprobs; k in [0, 20]: each token's own and the k likeliest

    def __post_init__(self) -> None:
        for param, value, low, high in (
            ("temperature", self.temperature, 0, 100),
            ("min_p", self.min_p, 0, 1),
            ("presence_penalty", self.presence_penalty, -2, 2),
            ("frequency_penalty", self.frequency_penalty, -2, 2),
        ):
            _check_range(param, value, f"in [{low}, {high}]", inside=low <= value <= high)
        _check_range("top_p", self.top_p, "in (0, 1]", inside=0 < self.top_p <= 1)
        _check_range("top_k", self.top_k, "0 or more", inside=self.top_k >= 0)
        _check_range(
            "repetition_penalty", self.repetition_penalty, "in (0, 10]", inside=0 < self.repetition_penalty <= 10
        )
        for token, bias in self.logit_bias.items():
            _check_range(f"logit_bias.{token}", bias, "in [-100, 100]", inside=-100 <= bias <= 100)
        if self.seed is not None:
            _check_range("seed", self.seed, "in [0, 2**63)", inside=0 <= self.seed < 2**63)
        if (k := self.top_logprobs) is not None:
            _check_range("top_logprobs", k, f"in [0, {MAX_TOP_LOGPROBS}]", inside=0 <= k <= MAX_TOP_LOGPROBS)

    @property
    def is_greedy(self) -> bool:
        return self.temperature == 0

    @property
    def has_penalties(self) -> bool:
        return self.repetition_penalty != 1 or self.presence_penalty != 0 or self.frequency_penalty != 0


@dataclass(frozen=True, slots=True)
class Request:
    """Everything that decides what one generation may write."""

    messages: tuple[Message, ...]
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice = ToolChoice()
    parallel_tool_calls: bool = True
    open_objects: bool = False  # allow properties that a tool's schema does not name, where it does not forbid them
    response: Grammar | None = None  # what the text of the answer must be
    sampling: SamplingParams = SamplingParams()
    stop: tuple[str, ...] = ()  # free text ends before the first of these
    stop_token_ids: tuple[int, ...] = ()  # free text ends before the first of these
    max_tokens: int | None = None  # None: up to the model's context length

    def __post_init__(self) -> None:
        if not self.messages:
            raise RequestError("messages is empty; at least one message is needed", param="messages")
        if self.max_tokens is not None and self.max_tokens < 1:
            raise RequestError(f"max_tokens is {self.max_tokens}; it must be 1 or more", param="max_tokens")
        if "" in self.stop:
            raise RequestError("a stop string is empty; it must have a character", param=f"stop[{self.stop.index('')}]")
        self._check_tool_names()

    def _check_tool_names(self) -> None:
        names = [tool.name for tool in self.tools]
        for position, name in enumerate(names):
            if name in names[:position]:
                raise RequestError(f"two tools are called {name!r}; names must differ", param=f"tools[{position}].name")
        for name in self.tool_choice.allowed or ():
            if name not in names:
                offered = ", ".join(names) or "none"
                raise RequestError(f"{name!r} is not among the offered tools ({offered})", param="tool_choice")
        if self.tool_choice.mode is ToolChoiceMode.REQUIRED and not self.callable_tools:
            raise RequestError("tool_choice asks for a call, but no tool may be called", param="tool_choice")

    @property
    def callable_tools(self) -> tuple[Tool, ...]:
        """The tools that this turn may call, in the order in which they were offered."""
        if self.tool_choice.mode is ToolChoiceMode.NONE:
            return ()
        allowed = self.tool_choice.allowed
        return tuple(tool for tool in self.tools if allowed is None or tool.name in allowed)


class StopReason(enum.StrEnum):
    """Why a generation ended."""

    EOS = "eos"  # the model ended its turn
    STOP_STRING = "stop_string"
    STOP_TOKEN = "stop_token"
    GRAMMAR_END = "grammar_end"  # nothing but the turn's end could follow
    LENGTH = "length"  # max_tokens or the context's end; a call cut here is not reported
    CANCELLED = "cancelled"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Usage:
    """What a generation cost, counted."""

    prompt_tokens: int
    completion_tokens: int  # forced ones included, the end-of-turn token not
    forced_tokens: int  # of the completion: tokens that the grammar left no choice about
    forward_passes: int  # of the model, the prompt's included


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """Natural log of the probability that the model itself gave to a token, before mask and temperature."""

    token_id: int
    token: bytes
    logprob: float
    top: tuple["TokenLogprob", ...] = ()  # the likeliest at this position, best first

    @property
    def probability(self) -> float:
        return math.exp(self.logprob)


class Enforcement(enum.StrEnum):
    """How a keyword of a schema is taken care of."""

    GRAMMAR = "grammar"  # the mask holds it
    NARROWED = "narrowed"  # the mask admits less than was asked
    ANNOTATION = "annotation"  # says nothing about validity; not enforced


@dataclass(frozen=True, slots=True)
class ReceiptEntry:
    """One fact about what was enforced. `path` leads into the request."""

    path: str
    enforcement: Enforcement
    detail: str


@dataclass(frozen=True, slots=True)
class Receipt:
    """What was enforced, narrowed or only annotated, by path."""

    entries: tuple[ReceiptEntry, ...] = ()


@dataclass(frozen=True, slots=True)
class TextDelta:
    """More of the answer's text."""

    text: str


@dataclass(frozen=True, slots=True)
class ToolCallStart:
    """A call begins; its arguments follow."""

    index: int
    id: str
    name: str


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """More of a call's JSON arguments, as written."""

    index: int
    arguments: str


@dataclass(frozen=True, slots=True)
class ToolCallEnd:
    """A call is complete. A call without this event was cut off and must not be used."""

    index: int


@dataclass(frozen=True, slots=True)
class LogprobsDelta:
    """Logprobs of the next output tokens, in order; only where they were asked for."""

    tokens: tuple[TokenLogprob, ...]


@dataclass(frozen=True, slots=True)
class Finished:
    """The last event of every generation that did not fail."""

    stop_reason: StopReason
    usage: Usage
    seed: int
    receipt: Receipt


Event = TextDelta | ToolCallStart | ToolCallDelta | ToolCallEnd | LogprobsDelta | Finished


@dataclass(frozen=True, slots=True)
class Completion:
    """A whole generation: its events added up."""

    text: str | None  # None where the turn has no text
    tool_calls: tuple[ToolCall, ...]  # complete calls only
    stop_reason: StopReason
    usage: Usage
    seed: int  # draws the same answer again
    receipt: Receipt
    logprobs: tuple[TokenLogprob, ...] | None = None  # one per output token, where asked for

    def message(self) -> Message:
        """This answer as the next message of the conversation."""
        return Message(Role.ASSISTANT, self.text, self.tool_calls)
