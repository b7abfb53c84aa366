"""The frozen values that travel through the engine. None of them knows of arrays, tokens' bytes or HTTP.

Each checks itself when it is made: a RequestError names the field, from the value itself on; whoever puts the value
into a list adds the path to it.
"""

import enum
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import UnionType
from typing import Any

from engine.checks import (
    check,
    is_finite,
    is_integer,
    is_json_object,
    is_json_strings,
    is_number,
    is_text,
    is_tuple_of,
    is_tuple_of_integers,
    json_text,
    read_json,
    shown,
)
from engine.decision_options import DecisionOptions
from engine.errors import RequestError, SchemaError, UnknownToolError
from engine.grammars.schema_limits import DEFAULT_LIMITS
from engine.tool_display import ToolDisplay

JsonObject = Mapping[str, Any]

TOOL_NAME = re.compile(r"[a-zA-Z0-9_.-]{1,64}")
TOOL_NAME_RULE = "1 to 64 of a-z, A-Z, 0-9, '_', '-' and '.'"
MAX_TOP_LOGPROBS = 20


def _is_tool_name(value: object) -> bool:
    return isinstance(value, str) and TOOL_NAME.fullmatch(value) is not None


class Role(enum.StrEnum):
    """Who wrote a message."""

    SYSTEM = "system"
    DEVELOPER = "developer"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One complete call. `arguments` is the JSON text exactly as it was written; of a custom tool, its input."""

    id: str
    name: str
    arguments: str
    custom: bool = False  # whether it calls a CustomTool

    def __post_init__(self) -> None:
        check("id", self.id, "a string", holds=is_text(self.id))
        check("name", self.name, TOOL_NAME_RULE, holds=_is_tool_name(self.name))
        check("custom", self.custom, "a bool", holds=isinstance(self.custom, bool))
        allowed = "text" if self.custom else "the text of a JSON object"
        holds = is_text(self.arguments) and (self.custom or is_json_object(self.arguments))
        check("arguments", self.arguments, allowed, holds=holds)

    def parsed_arguments(self) -> dict[str, Any]:
        """The arguments as a Python dict. Raises RequestError for a custom tool's call, which has text instead."""
        if self.custom:
            raise RequestError(f"the input of custom tool {self.name!r} is text, not a JSON object", param="arguments")
        arguments: dict[str, Any] = json.loads(self.arguments)
        return arguments


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation."""

    role: Role
    content: str | None = None  # None only beside tool calls
    tool_calls: tuple[ToolCall, ...] = ()  # assistant messages only
    tool_call_id: str | None = None  # tool messages only: the call that this answers; many chat templates know no ids
    reasoning: str | None = None  # assistant messages only: what was thought before; many chat templates leave it out

    def __post_init__(self) -> None:
        check("role", self.role, "a Role", holds=isinstance(self.role, Role))
        is_call = bool(self.tool_calls) and self.content is None
        check("content", self.content, "text, or missing beside tool_calls", holds=is_call or is_text(self.content))
        may_call = self.role is Role.ASSISTANT or self.tool_calls == ()
        is_tuple = is_tuple_of(ToolCall, self.tool_calls)
        check("tool_calls", self.tool_calls, "ToolCalls of an assistant's message", holds=may_call and is_tuple)
        is_answer = self.role is Role.TOOL and is_text(self.tool_call_id)
        check(
            "tool_call_id",
            self.tool_call_id,
            "the text of an id, and stands in tool messages only",
            holds=is_answer or self.tool_call_id is None,
        )
        is_thought = self.role is Role.ASSISTANT and is_text(self.reasoning)
        allowed = "text, and stands in assistant's messages only"
        check("reasoning", self.reasoning, allowed, holds=is_thought or self.reasoning is None)


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that the model may call.

    `parameters` is a JSON schema of an object; None means that the tool takes no arguments.
    """

    name: str
    description: str = ""
    parameters: JsonObject | None = None
    strict: bool = False  # refuse a schema that OpenAI's strict mode refuses; what is written is valid either way

    def __post_init__(self) -> None:
        check("name", self.name, TOOL_NAME_RULE, holds=_is_tool_name(self.name))
        check("description", self.description, "text", holds=is_text(self.description))
        check("strict", self.strict, "a bool", holds=isinstance(self.strict, bool))
        is_schema = self.parameters is None or isinstance(self.parameters, Mapping)
        check("parameters", self.parameters, "a JSON schema of an object", holds=is_schema, error=SchemaError)
        DEFAULT_LIMITS.check_depth(self.parameters, "parameters")
        json_text("parameters", dict(self.parameters or {}), error=SchemaError)


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

    def __post_init__(self) -> None:
        check("tool_choice.mode", self.mode, "a ToolChoiceMode", holds=isinstance(self.mode, ToolChoiceMode))
        is_names = self.allowed is None or is_tuple_of(str, self.allowed)
        check("tool_choice.allowed", self.allowed, "a tuple of tool names, or None", holds=is_names)
        check("tool_choice.exactly_one", self.exactly_one, "a bool", holds=isinstance(self.exactly_one, bool))

    @classmethod
    def named(cls, name: str) -> "ToolChoice":
        """Exactly one call, of this tool."""
        return cls(ToolChoiceMode.REQUIRED, allowed=(name,), exactly_one=True)


class ToolChoiceBy(enum.StrEnum):
    """How the tool of a turn's first call is chosen."""

    TOKENS = "tokens"  # its name is written token by token, as any text is
    LIKELIHOOD = "likelihood"  # by the probabilities of whole names, calibrated if the turn is; then it is forced


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

    def __post_init__(self) -> None:
        check("response.kind", self.kind, "a GrammarKind", holds=isinstance(self.kind, GrammarKind))
        check("response", self.source, "text", holds=is_text(self.source))
        if self.kind is GrammarKind.JSON_SCHEMA:
            is_schema = isinstance(read_json(self.source), (dict, bool)) if is_text(self.source) else False
            check("response", self.source, "the text of a JSON schema", holds=is_schema)
        if self.kind is GrammarKind.CHOICE:
            check("response", self.source, "the text of a JSON array of strings", holds=is_json_strings(self.source))

    @classmethod
    def json_schema(cls, schema: JsonObject | bool) -> "Grammar":
        """Any JSON value that satisfies the schema, taken as JSON Schema writes it."""
        DEFAULT_LIMITS.check_depth(schema, "response")
        return cls(GrammarKind.JSON_SCHEMA, json_text("response", schema, error=SchemaError))

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
        is_list = isinstance(options, Sequence) and not isinstance(options, str)
        check("response", options, "a list of strings", holds=is_list)
        return cls(GrammarKind.CHOICE, json_text("response", list(options)))


@dataclass(frozen=True, slots=True)
class CustomTool:
    """A tool that takes text instead of JSON arguments."""

    name: str
    description: str = ""
    format: Grammar | None = None  # a regex or a Lark grammar; None: any text

    def __post_init__(self) -> None:
        check("name", self.name, TOOL_NAME_RULE, holds=_is_tool_name(self.name))
        check("description", self.description, "text", holds=is_text(self.description))
        kind = None if self.format is None else getattr(self.format, "kind", "")
        allowed = (None, GrammarKind.REGEX, GrammarKind.LARK)
        check("format", self.format, "a regex or Lark Grammar, or None", holds=kind in allowed)


OfferedTool = Tool | CustomTool


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
        # NaN fails every comparison.
        for param, value, low, high in (
            ("temperature", self.temperature, 0, 100),
            ("min_p", self.min_p, 0, 1),
            ("presence_penalty", self.presence_penalty, -2, 2),
            ("frequency_penalty", self.frequency_penalty, -2, 2),
        ):
            check(param, value, f"a number in [{low}, {high}]", holds=is_number(value) and low <= value <= high)
        for param, value, high in (("top_p", self.top_p, 1), ("repetition_penalty", self.repetition_penalty, 10)):
            check(param, value, f"a number in (0, {high}]", holds=is_number(value) and 0 < value <= high)
        k, seed = self.top_logprobs, self.seed
        check("top_k", self.top_k, "an integer, 0 or more", holds=is_integer(self.top_k) and self.top_k >= 0)
        if seed is not None:
            check("seed", seed, "an integer in [0, 2**63)", holds=is_integer(seed) and 0 <= seed < 2**63)
        if k is not None:
            allowed = f"an integer in [0, {MAX_TOP_LOGPROBS}]"
            check("top_logprobs", k, allowed, holds=is_integer(k) and 0 <= k <= MAX_TOP_LOGPROBS)
        self._check_logit_bias()

    def _check_logit_bias(self) -> None:
        is_mapping = isinstance(self.logit_bias, Mapping)
        check("logit_bias", self.logit_bias, "a mapping from token ids to numbers", holds=is_mapping)
        for token, bias in self.logit_bias.items():
            check("logit_bias", token, "a mapping whose keys are token ids", holds=is_integer(token))
            in_range = is_number(bias) and -100 <= bias <= 100
            check(f"logit_bias.{shown(token)}", bias, "a number in [-100, 100]", holds=in_range)
        # A copy: the caller may go on changing its own.
        object.__setattr__(self, "logit_bias", dict(self.logit_bias))

    @property
    def is_greedy(self) -> bool:
        return self.temperature == 0


@dataclass(frozen=True, slots=True)
class Request:
    """Everything that decides what one generation may write."""

    messages: tuple[Message, ...] = ()
    prompt: tuple[int, ...] | None = None  # token ids, instead of messages: no chat template, tools are not shown
    tools: tuple[OfferedTool, ...] = ()
    tool_choice: ToolChoice = ToolChoice()
    parallel_tool_calls: bool = True
    open_objects: bool = False  # allow properties that a tool's schema does not name, where it does not forbid them
    lenient: bool = False  # drop keywords of schemas that cannot be enforced, and name them in the receipt
    strict_formats: bool = False  # refuse formats that no draft of JSON Schema knows, which else are annotations
    response: Grammar | None = None  # what the text of the answer must be
    sampling: SamplingParams = SamplingParams()
    stop: tuple[str, ...] = ()  # free text ends before the first of these
    stop_token_ids: tuple[int, ...] = ()  # free text ends before the first of these
    max_tokens: int | None = None  # None: up to the model's context length
    reasoning_budget: int | None = None  # tokens of reasoning after which the block is closed; None: no limit
    decision: DecisionOptions | None = None  # about call or text, where the turn may have either
    tool_choice_by: ToolChoiceBy | None = None  # None: the way that suits models of the family
    optional_bias: float | None = None  # [-100, 0]; added to the logit of another property where an object may close
    template_options: JsonObject = field(default_factory=dict)  # for the chat template: enable_thinking, say
    tool_display: ToolDisplay | None = None  # where the chat template does not show tools; None: the default way
    tool_retrieval: int | None = None  # offer no more than so many of the tools, those that fit the request best

    def __post_init__(self) -> None:
        lists: tuple[tuple[str, object, str, type | UnionType], ...] = (
            ("messages", self.messages, "Message", Message),
            ("tools", self.tools, "Tool or CustomTool", OfferedTool),
            ("stop", self.stop, "str", str),
        )
        for param, value, name, kind in lists:
            check(param, value, f"a tuple of {name}", holds=is_tuple_of(kind, value))
        others: tuple[tuple[str, object, type], ...] = (
            ("tool_choice", self.tool_choice, ToolChoice),
            ("parallel_tool_calls", self.parallel_tool_calls, bool),
            ("open_objects", self.open_objects, bool),
            ("lenient", self.lenient, bool),
            ("strict_formats", self.strict_formats, bool),
            ("sampling", self.sampling, SamplingParams),
        )
        for param, value, wanted in others:
            check(param, value, f"a {wanted.__name__}", holds=isinstance(value, wanted))
        is_grammar = self.response is None or isinstance(self.response, Grammar)
        check("response", self.response, "a Grammar, or None", holds=is_grammar)
        if self.prompt is None:
            check("messages", self.messages, "at least one message", holds=bool(self.messages))
        else:
            check("prompt", self.prompt, "a tuple of token ids", holds=is_tuple_of_integers(self.prompt))
            if self.messages or not self.prompt:
                raise RequestError("prompt must have at least one token, and no messages beside it", param="prompt")
            self._check_beside_prompt()
        for position, stop in enumerate(self.stop):
            check(f"stop[{position}]", stop, "text that is not empty", holds=stop != "" and is_text(stop))
        is_ids = is_tuple_of_integers(self.stop_token_ids)
        check("stop_token_ids", self.stop_token_ids, "a tuple of token ids", holds=is_ids)
        if (limit := self.max_tokens) is not None:
            check("max_tokens", limit, "an integer, 1 or more", holds=is_integer(limit) and limit >= 1)
        if (budget := self.reasoning_budget) is not None:
            check("reasoning_budget", budget, "an integer, 0 or more", holds=is_integer(budget) and budget >= 0)
        is_display = self.tool_display is None or isinstance(self.tool_display, ToolDisplay)
        check("tool_display", self.tool_display, "a ToolDisplay, or None", holds=is_display)
        if (most := self.tool_retrieval) is not None:
            check("tool_retrieval", most, "an integer, 1 or more", holds=is_integer(most) and most >= 1)
        is_mapping = isinstance(self.template_options, Mapping)
        check("template_options", self.template_options, "a mapping from names to JSON values", holds=is_mapping)
        json_text("template_options", dict(self.template_options))
        self._check_tool_names()
        self._check_decision()
        self._check_optional_bias()

    def _check_optional_bias(self) -> None:
        if (bias := self.optional_bias) is None:
            return
        check("optional_bias", bias, "a number in [-100, 0]", holds=is_finite(bias) and -100 <= bias <= 0)
        if self.response is not None or not self.callable_tools or not is_tuple_of(Tool, self.callable_tools):
            message = "optional_bias is about the arguments of function tools; other tools or a response stand here"
            message = message if self.callable_tools else "optional_bias stands here, but there is no tool to call"
            raise RequestError(message, param="optional_bias")

    @property
    def may_decide(self) -> bool:
        """Whether the turn may have text or a call, so that there is something to decide."""
        return self.tool_choice.mode is ToolChoiceMode.AUTO and bool(self.callable_tools)

    def _check_decision(self) -> None:
        options, mode = self.decision, self.tool_choice.mode
        is_options = options is None or isinstance(options, DecisionOptions)
        check("decision", options, "DecisionOptions, or None", holds=is_options)
        if options is not None:
            named = options.given or (("calibrate",) if options.calibrate is False else ())
            param = ".".join(("decision", *named[:1]))
            if mode is not ToolChoiceMode.AUTO or not self.callable_tools:
                reason = "tool_choice is not auto" if self.callable_tools else "there is no tool to call"
                raise RequestError(f"{param} stands here, but {reason}: there is nothing to decide", param=param)
            if options.calibrate and self.prompt is not None:
                param = "decision.calibrate"
                raise RequestError(f"{param} stands beside a prompt of tokens; it needs messages", param=param)
        is_way = self.tool_choice_by is None or isinstance(self.tool_choice_by, ToolChoiceBy)
        check("tool_choice_by", self.tool_choice_by, "a ToolChoiceBy, or None", holds=is_way)
        if self.tool_choice_by is not None and not self.callable_tools:
            raise RequestError("tool_choice_by stands here, but there is no tool to call", param="tool_choice_by")

    def _check_beside_prompt(self) -> None:
        for param in ("tool_display", "tool_retrieval"):
            if getattr(self, param) is not None:
                raise RequestError(f"{param} stands beside a prompt, which shows no tools", param=param)

    def _check_tool_names(self) -> None:
        names = [tool.name for tool in self.tools]
        for position, name in enumerate(names):
            if name in names[:position]:
                raise RequestError(f"two tools are called {name!r}; names must differ", param=f"tools[{position}].name")
        for name in self.tool_choice.allowed or ():
            if name not in names:
                offered = ", ".join(names) or "none"
                raise UnknownToolError(f"{shown(name)} is not among the offered tools ({offered})", param="tool_choice")
        if self.tool_choice.mode is ToolChoiceMode.REQUIRED and not self.callable_tools:
            raise RequestError("tool_choice asks for a call, but no tool may be called", param="tool_choice")

    @property
    def callable_tools(self) -> tuple[OfferedTool, ...]:
        """The tools that this turn may call, in the order in which they were offered."""
        if self.tool_choice.mode is ToolChoiceMode.NONE:
            return ()
        allowed = self.tool_choice.allowed
        return tuple(tool for tool in self.tools if allowed is None or tool.name in allowed)
