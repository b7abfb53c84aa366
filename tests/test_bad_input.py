"""Whatever the caller gets wrong is one tree of errors that name the parameter, before the first token.

Also what is not wrong, where one might think so.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest
import tokenizers
from transformers import PreTrainedTokenizerFast

from engine.config import EngineConfig
from engine.engine import Engine
from engine.errors import (
    ConfigError,
    ContextLengthError,
    EngineError,
    GrammarError,
    RequestError,
    SchemaError,
    UnknownToolError,
)
from engine.tokenizer import Tokenizer
from engine.types import (
    Grammar,
    GrammarKind,
    Message,
    Request,
    Role,
    SamplingParams,
    Tool,
    ToolCall,
    ToolChoice,
    ToolChoiceMode,
)
from tests.fakes import EOS, fake_loaded, fake_model

USER = {"role": "user", "content": "hi"}
TOOL = {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}
OTHER_TOOL = {"type": "function", "function": {"name": "time"}}

Options = Mapping[str, Any]


def call(**function: object) -> dict[str, object]:
    return {"id": "call_0", "function": {"name": "weather", "arguments": "{}", **function}}


def answer_with(*calls: object) -> dict[str, object]:
    return {"role": "assistant", "tool_calls": list(calls)}


def schema(**keywords: object) -> dict[str, object]:
    return {"name": "weather", "parameters": {"type": "object", "properties": {"city": keywords}}}


def deep(levels: int) -> Any:
    value: Any = {"type": "string"}
    for _ in range(levels):
        value = {"type": "object", "properties": {"a": value}}
    return value


MESSAGES: list[tuple[str, Callable[[], Options], str]] = [
    ("no messages", lambda: {"messages": []}, "messages"),
    ("messages that are one text", lambda: {"messages": "hi"}, "messages"),
    ("messages that are one message", lambda: {"messages": USER}, "messages"),
    ("messages that are nothing", lambda: {"messages": None}, "messages"),
    ("messages that are a number", lambda: {"messages": 5}, "messages"),
    ("a message that is a text", lambda: {"messages": [USER, "hi"]}, "messages[1]"),
    ("a message that is nothing", lambda: {"messages": [None]}, "messages[0]"),
    ("a message with a key that is not known", lambda: {"messages": [{**USER, "name": "Bo"}]}, "messages[0]"),
    ("a message with a key that is no text", lambda: {"messages": [{**USER, 1: 2, "x": 3}]}, "messages[0]"),
    ("a message with the key None", lambda: {"messages": [{**USER, None: 2}]}, "messages[0]"),
    ("an unknown role", lambda: {"messages": [{"role": "robot", "content": "hi"}]}, "messages[0].role"),
    ("a role that is a list", lambda: {"messages": [{"role": ["user"], "content": "hi"}]}, "messages[0].role"),
    ("no role", lambda: {"messages": [{"content": "hi"}]}, "messages[0].role"),
    ("content that is a number", lambda: {"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
    ("content in parts", lambda: {"messages": [{"role": "user", "content": [{}]}]}, "messages[0].content"),
    ("content that is bytes", lambda: {"messages": [{"role": "user", "content": b"hi"}]}, "messages[0].content"),
    ("content without UTF-8", lambda: {"messages": [{"role": "user", "content": "\ud800"}]}, "messages[0].content"),
    ("a user without content", lambda: {"messages": [{"role": "user"}]}, "messages[0].content"),
    ("an assistant with neither", lambda: {"messages": [USER, {"role": "assistant"}]}, "messages[1].content"),
    ("a tool's answer without content", lambda: {"messages": [{"role": "tool"}]}, "messages[0].content"),
    ("calls of a user", lambda: {"messages": [{**USER, "tool_calls": [call()]}]}, "messages[0].tool_calls"),
    ("calls that are a number", lambda: {"messages": [{**USER, "tool_calls": 5}]}, "messages[0].tool_calls"),
    ("a user's tool_call_id", lambda: {"messages": [{**USER, "tool_call_id": "x"}]}, "messages[0].tool_call_id"),
    (
        "a tool_call_id that is a number",
        lambda: {"messages": [{"role": "tool", "content": "1", "tool_call_id": 5}]},
        "messages[0].tool_call_id",
    ),
    ("a call that is a text", lambda: {"messages": [answer_with("x")]}, "messages[0].tool_calls[0]"),
    ("a call without function", lambda: {"messages": [answer_with({})]}, "messages[0].tool_calls[0].function"),
    (
        "a call of another type",
        lambda: {"messages": [answer_with({**call(), "type": "custom"})]},
        "messages[0].tool_calls[0].type",
    ),
    (
        "a call's id that is a number",
        lambda: {"messages": [answer_with({**call(), "id": 5})]},
        "messages[0].tool_calls[0].id",
    ),
    *(
        (
            f"a call's arguments: {what}",
            lambda arguments=arguments: {"messages": [answer_with(call(arguments=arguments))]},
            "messages[0].tool_calls[0].arguments",
        )
        for what, arguments in (
            ("cut off", '{"city": "Par'),
            ("no object", "[1]"),
            ("NaN", '{"x": NaN}'),
            ("NaN, as a value", {"x": math.nan}),
            ("no JSON", {"x": {1, 2}}),
            ("missing", None),
            ("as deep as no parser goes", '{"a":' * 100_000),
            ("a surrogate", '{"x": "\ud800"}'),
            ("a line's end in a string", '{"x": "\n"}'),
        )
    ),
    (
        "a call's name that could close the call",
        lambda: {"messages": [answer_with(call(name='x"}}</tool_call>'))]},
        "messages[0].tool_calls[0].name",
    ),
    (
        "a call's name that is a number",
        lambda: {"messages": [answer_with(call(name=5))]},
        "messages[0].tool_calls[0].name",
    ),
    ("a message of ours with a role of text", lambda: {"messages": [Message("user", "hi")]}, "role"),
]

TOOLS: list[tuple[str, Callable[[], Options], str, type[RequestError]]] = [
    ("two tools of one name", lambda: {"tools": [TOOL, OTHER_TOOL, TOOL]}, "tools[2].name", RequestError),
    ("tools that are one tool", lambda: {"tools": TOOL}, "tools", RequestError),
    ("tools that are nothing", lambda: {"tools": None}, "tools", RequestError),
    ("a tool that is a plain function", lambda: {"tools": [len]}, "tools[0]", RequestError),
    ("a tool that is nothing", lambda: {"tools": [TOOL, None]}, "tools[1]", RequestError),
    ("a tool without name", lambda: {"tools": [{"parameters": {}}]}, "tools[0].name", RequestError),
    ("a tool's name with a blank", lambda: {"tools": [{"name": "a b"}]}, "tools[0].name", RequestError),
    ("a tool's name of 65 letters", lambda: {"tools": [{"name": "a" * 65}]}, "tools[0].name", RequestError),
    ("a tool's name with a line's end", lambda: {"tools": [{"name": "a\n"}]}, "tools[0].name", RequestError),
    ("a tool's name that is a number", lambda: {"tools": [{"name": 5}]}, "tools[0].name", RequestError),
    (
        "a description that is a number",
        lambda: {"tools": [{**TOOL, "description": 5}]},
        "tools[0].description",
        RequestError,
    ),
    ("a tool of another type", lambda: {"tools": [{"type": "web_search"}]}, "tools[0].type", RequestError),
    ("a key that is not known", lambda: {"tools": [{**TOOL, "returns": True}]}, "tools[0]", RequestError),
    ("a key beside function", lambda: {"tools": [{**OTHER_TOOL, "returns": True}]}, "tools[0]", RequestError),
    ("a function that is a text", lambda: {"tools": [{"function": "time"}]}, "tools[0]", RequestError),
    (
        "parameters that are a text",
        lambda: {"tools": [{**TOOL, "parameters": "{}"}]},
        "tools[0].parameters",
        SchemaError,
    ),
    (
        "an unknown type",
        lambda: {"tools": [schema(type="txt")]},
        "tools[0].parameters.properties.city.type",
        SchemaError,
    ),
    (
        "a keyword nobody can hold",
        lambda: {"tools": [schema(pattern="(?=a)")]},
        "tools[0].parameters.properties.city.pattern",
        SchemaError,
    ),
    (
        "a pattern that is no regex",
        lambda: {"tools": [TOOL, {**schema(type="string", pattern="("), "name": "b"}]},
        "tools[1].parameters.properties.city.pattern",
        SchemaError,
    ),
    (
        "a schema no value satisfies",
        lambda: {"tools": [{**TOOL, "parameters": {"enum": []}}]},
        "tools[0].parameters",
        SchemaError,
    ),
    ("a schema that JSON cannot write", lambda: {"tools": [schema(enum=[{1, 2}])]}, "tools[0].parameters", SchemaError),
    ("a schema of surrogates", lambda: {"tools": [schema(const="\ud800")]}, "tools[0].parameters", SchemaError),
    (
        "a schema that is deep",
        lambda: {"tools": [{**TOOL, "parameters": deep(150)}]},
        "tools[0].parameters",
        SchemaError,
    ),
    (
        "a schema of endless depth",
        lambda: {"tools": [{**TOOL, "parameters": deep(2000)}]},
        "tools[0].parameters",
        SchemaError,
    ),
    (
        "an unknown name in tool_choice",
        lambda: {"tool_choice": {"type": "function", "function": {"name": "fly"}}},
        "tool_choice",
        UnknownToolError,
    ),
    (
        "an unknown name among the allowed",
        lambda: {"tool_choice": ToolChoice(allowed=("fly",))},
        "tool_choice",
        UnknownToolError,
    ),
    ("a call without tools", lambda: {"tools": [], "tool_choice": "required"}, "tool_choice", RequestError),
    (
        "a call of none that is allowed",
        lambda: {"tool_choice": ToolChoice(ToolChoiceMode.REQUIRED, allowed=())},
        "tool_choice",
        RequestError,
    ),
    *(
        (f"tool_choice: {choice!r:.60}", lambda choice=choice: {"tool_choice": choice}, "tool_choice", RequestError)
        for choice in (
            "always",
            "",
            None,
            5,
            ["auto"],
            {},
            {"type": "function"},
            {"type": "function", "function": "weather"},
            {"type": "function", "function": {"name": ["weather"]}},
            {"type": "function", "name": "weather"},
            {"type": "function", "function": {"name": "weather"}, "strict": True},
            {"type": "function", "function": {"name": "weather", "strict": True}},
            {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [], "max": 1}},
            {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": []}, "mode": "auto"},
            {
                "type": "allowed_tools",
                "allowed_tools": {"mode": "auto", "tools": [{"function": {"name": "weather"}, "x": 1}]},
            },
            {"type": "allowed_tools", "allowed_tools": {"mode": "auto"}},
            {"type": "allowed_tools", "allowed_tools": {"mode": "none", "tools": []}},
            {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": ["weather"]}},
        )
    ),
    (
        "a tool_choice of ours with a mode of text",
        lambda: {"tool_choice": ToolChoice("required")},
        "tool_choice.mode",
        RequestError,
    ),
    ("parallel_tool_calls as text", lambda: {"parallel_tool_calls": "no"}, "parallel_tool_calls", RequestError),
]

RESPONSES: list[tuple[str, Callable[[], Options], str, type[RequestError]]] = [
    ("a regex", lambda: {"response": Grammar.regex("(")}, "response", GrammarError),
    ("a Lark grammar", lambda: {"response": Grammar.lark("start: nothing")}, "response", GrammarError),
    ("a choice of none", lambda: {"response": Grammar.choice([])}, "response", GrammarError),
    ("a choice of nothing", lambda: {"response": Grammar.choice(["a", ""])}, "response", GrammarError),
    ("a choice that is one text", lambda: {"response": Grammar.choice("abc")}, "response", RequestError),
    ("a choice of numbers", lambda: {"response": Grammar.choice([1, 2])}, "response", RequestError),
    ("a schema", lambda: {"response": Grammar.json_schema({"type": "txt"})}, "response.type", SchemaError),
    ("a schema of NaN", lambda: {"response": Grammar.json_schema({"const": math.nan})}, "response", SchemaError),
    ("a schema of no JSON", lambda: {"response": Grammar.json_schema({"enum": [{1}]})}, "response", SchemaError),
    ("a schema's text", lambda: {"response": Grammar(GrammarKind.JSON_SCHEMA, "{")}, "response", RequestError),
    ("a schema's list", lambda: {"response": Grammar(GrammarKind.JSON_SCHEMA, "[]")}, "response", RequestError),
    ("an unknown kind", lambda: {"response": Grammar("ebnf", "")}, "response.kind", RequestError),
    ("a source that is no text", lambda: {"response": Grammar.regex(5)}, "response", RequestError),
    ("a schema as it stands", lambda: {"response": {"type": "object"}}, "response", RequestError),
]

NUMBERS: list[tuple[str, object]] = [
    *(("temperature", value) for value in (math.nan, math.inf, -0.1, 100.5, "hot", True, None, 10**400)),
    *(("top_p", value) for value in (0, 1.1, math.nan, "1", True)),
    *(("min_p", value) for value in (-0.1, 1.1, math.nan, "1")),
    *(("top_k", value) for value in (-1, 1.5, "5", True, None, math.nan)),
    *(("repetition_penalty", value) for value in (0, 11, math.nan, "1")),
    *(("presence_penalty", value) for value in (-2.1, 2.1, math.nan, [])),
    *(("frequency_penalty", value) for value in (-2.1, 2.1, math.nan, False)),
    *(("seed", value) for value in (-1, 2**63, 1.0, "1", True, math.nan)),
    *(("top_logprobs", value) for value in (-1, 21, 1.0, "1", True)),
    *(
        ("logit_bias", value)
        for value in ([1], None, {"5": 1}, {5.0: 1}, {True: 1}, {-1: 1}, {10**9: 1}, {10**5000: 1})
    ),
    *(("logit_bias.5", {5: value}) for value in (100.5, -101, math.nan, "1", None, True)),
]

OTHERS: list[tuple[str, Callable[[], Options], str, type[RequestError]]] = [
    *(
        (f"max_tokens: {value!r:.20}", lambda value=value: {"max_tokens": value}, "max_tokens", error)
        for value, error in (
            (0, RequestError),
            (-1, RequestError),
            (True, RequestError),
            (1.5, RequestError),
            ("9", RequestError),
            (math.nan, RequestError),
            (10**6, ContextLengthError),
        )
    ),
    ("max_tokens that nobody can print", lambda: {"max_tokens": 10**5000}, "max_tokens", ContextLengthError),
    ("a stop string of none", lambda: {"stop": ["a", ""]}, "stop[1]", RequestError),
    ("an empty stop string", lambda: {"stop": ""}, "stop[0]", RequestError),
    ("a stop that is a number", lambda: {"stop": [5]}, "stop", RequestError),
    ("a stop that is nothing", lambda: {"stop": None}, "stop", RequestError),
    ("sampling as it stands", lambda: {"sampling": {"temperature": 1}}, "sampling", RequestError),
    (
        "a prompt longer than the context",
        lambda: {"messages": [{**USER, "content": "hi " * 5000}]},
        "messages",
        ContextLengthError,
    ),
]

CASES = [
    *((what, options, param, RequestError) for what, options, param in MESSAGES),
    *TOOLS,
    *((f"response: {what}", options, param, error) for what, options, param, error in RESPONSES),
    *(
        (
            f"{param}: {value!r:.30}" if value != {10**5000: 1} else "logit_bias: a token that nobody can print",
            lambda param=param, value=value: {"sampling": SamplingParams(**{param.partition(".")[0]: value})},
            param,
            RequestError,
        )
        for param, value in NUMBERS
    ),
    *OTHERS,
]


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with Engine(fake_loaded()) as engine:
        yield engine


@pytest.mark.parametrize("way", ["chat", "stream"])
@pytest.mark.parametrize(("options", "param", "error"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_what_the_caller_gets_wrong_is_an_error_that_names_it_before_the_first_token(
    engine: Engine, way: str, options: Callable[[], Options], param: str, error: type[RequestError]
) -> None:
    passes_before = fake_model(engine.loaded).num_forward_passes

    with pytest.raises(EngineError) as caught:
        getattr(engine, way)(**{"messages": [USER], "tools": [TOOL], **options()})

    assert isinstance(caught.value, error)
    assert isinstance(caught.value, RequestError)
    assert caught.value.param == param
    assert len(str(caught.value)) < 500
    assert fake_model(engine.loaded).num_forward_passes == passes_before


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"messages": [Message(Role.USER, "hi")]}, "messages"),  # a list could change while the request runs
        ({"messages": ()}, "messages"),
        ({"prompt": ()}, "prompt"),
        ({"prompt": ("hi",)}, "prompt"),
        ({"prompt": (True,)}, "prompt"),
        ({"prompt": (5,), "messages": (Message(Role.USER, "hi"),)}, "prompt"),
        ({"prompt": (10**9,)}, "prompt"),
        ({"prompt": (-1,)}, "prompt"),
        ({"prompt": (5,) * 5000}, "prompt"),
        ({"prompt": (5,), "stop_token_ids": (10**9,)}, "stop_token_ids"),
        ({"prompt": (5,), "stop_token_ids": (-1,)}, "stop_token_ids"),
        ({"prompt": (5,), "stop_token_ids": ("5",)}, "stop_token_ids"),
        ({"prompt": (5,), "stop_token_ids": 5}, "stop_token_ids"),
        ({"prompt": (5,), "tools": (TOOL,)}, "tools"),
        ({"prompt": (5,), "tool_choice": "auto"}, "tool_choice"),
        ({"prompt": (5,), "open_objects": 1}, "open_objects"),
        ({"prompt": (5,), "lenient": 1}, "lenient"),
        ({"prompt": (5,), "strict_formats": "yes"}, "strict_formats"),
        ({"prompt": (5,), "sampling": None}, "sampling"),
    ],
    ids=lambda value: value if isinstance(value, str) else f"{value!r:.60}",
)
def test_a_request_of_our_own_types_is_checked_too(engine: Engine, options: Options, param: str) -> None:
    with pytest.raises(RequestError) as caught:
        engine.submit(Request(**options))
    assert caught.value.param == param


def test_arguments_that_no_chat_template_can_show_are_an_error() -> None:
    arguments = '{"a":' * 900 + "1" + "}" * 900  # Python's parser may just read it; its writer does not write it
    with Engine(fake_loaded(hermes=True)) as engine, pytest.raises(RequestError) as caught:
        engine.chat([USER, answer_with(call(arguments=arguments)), USER], max_tokens=1)
    assert caught.value.param.startswith("messages")


def test_a_grammar_that_is_too_large_is_an_error_before_the_first_token(engine: Engine) -> None:
    """F25: there, a schema took all memory."""
    with pytest.raises(GrammarError, match="response cannot be enforced: no complete answer was found that fits"):
        engine.chat([USER], response=Grammar.regex("(a{1000}){1000}"))


def test_a_chat_template_that_says_nothing_is_an_error() -> None:
    loaded = fake_loaded()
    backend = loaded.tokenizer.backend_json()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizers.Tokenizer.from_str(backend), eos_token=EOS)
    fast.chat_template = "{{ '' }}"
    with (
        Engine(replace(loaded, tokenizer=Tokenizer(fast))) as engine,
        pytest.raises(RequestError, match="empty prompt"),
    ):
        engine.chat([USER])


@pytest.mark.parametrize("name", ["prefill_chunk", "shared_prefill_chunk", "max_running", "max_waiting", "kv_memory"])
@pytest.mark.parametrize("value", [0, -1, 1.5, "5", True, [], math.nan])
def test_a_limit_of_an_engine_below_1_is_an_error(name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=name):
        EngineConfig(**{name: value})


@pytest.mark.parametrize(
    "options",
    [
        {"messages": (message for message in [USER])},
        {"messages": [{**USER, "content": ""}]},
        {"messages": [USER, {"role": "assistant", "content": ""}]},
        {"messages": [USER, answer_with(call()), {"role": "tool", "content": "sunny"}]},  # most templates know no ids
        {"messages": [USER, answer_with(call(arguments={"city": "Paris"}))]},
        {"messages": [USER, answer_with(call(name="a_tool_that_is_gone"))]},
        {"messages": [USER, answer_with(ToolCall("", "weather", "{}"))]},
        {"messages": [{"role": "developer", "content": "be brief"}, USER]},
        {"messages": [{**USER, "tool_calls": None, "tool_call_id": None}]},
        {"tools": []},
        {"tools": [OTHER_TOOL, {"type": "function", "name": "flat"}, Tool("ours")]},
        {"tools": [{**TOOL, "description": None, "parameters": None}]},
        {"tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": []}}},
        {"tools": [], "tool_choice": "none"},
        {"stop": "END"},
        {"stop": ["END", "STOP"]},
        {"sampling": SamplingParams(temperature=0, top_p=1, seed=2**63 - 1, top_logprobs=0)},
        {"sampling": SamplingParams(temperature=100, top_k=10**30, logit_bias={0: -100, 384: 100})},
        {"max_tokens": 1},
    ],
    ids=lambda options: f"{options!r:.80}",
)
def test_what_is_unusual_but_not_wrong_is_answered(engine: Engine, options: Options) -> None:
    answer = engine.chat(**{"messages": [USER], "tools": [TOOL], "max_tokens": 3, **options})
    assert answer.usage.completion_tokens <= 3


def test_one_bad_schema_leaves_the_other_requests_alone(engine: Engine) -> None:
    """F5: there, one bad schema broke every tool."""
    with pytest.raises(SchemaError, match=r"tools\[0\].parameters.properties.city.pattern"):
        engine.chat([USER], tools=[schema(pattern="(?=a)")])
    assert engine.chat([USER], tools=[TOOL], tool_choice="required", max_tokens=60).tool_calls


@pytest.mark.parametrize("parameters", [None, {}, {"type": "object"}, {"type": "object", "properties": {}}])
def test_a_tool_without_parameters_is_a_good_tool(parameters: Mapping[str, object] | None) -> None:
    """F5: `{}`, missing parameters and empty objects are good schemas; the arguments are then `{}`."""
    with Engine(fake_loaded(bonus={EOS: 2000})) as engine:
        answer = engine.chat([USER], tools=[{"name": "now", "parameters": parameters}], tool_choice="required")
    assert [(each.name, each.arguments) for each in answer.tool_calls] == [("now", "{}")]


def test_a_callers_later_change_does_not_reach_a_request() -> None:
    bias = {5: 1.0}
    sampling = SamplingParams(logit_bias=bias)
    bias[10**9] = math.nan
    assert sampling.logit_bias == {5: 1.0}
