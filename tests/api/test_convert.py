"""Conversion alone: requests in, paths back; events in, answers out."""

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from api.convert import response_requests
from api.convert.answers import TextLogprobs
from api.convert.chat import ChatAnswer, ChatStream, to_completion
from api.convert.errors import WireError, from_exception
from api.convert.paths import json_path
from api.convert.requests import must_call, paths_of, to_request
from api.convert.response_requests import Asked
from api.schemas.chat import ChatRequest
from api.schemas.completions import CompletionRequest
from api.schemas.responses import ResponseRequest
from engine.errors import (
    BudgetError,
    EngineClosedError,
    GenerationError,
    MatcherError,
    ModelNotFoundError,
    QueueFullError,
    RequestError,
)
from engine.events import (
    Event,
    Finished,
    Receipt,
    StopReason,
    TextDelta,
    TokenLogprob,
    ToolCallDelta,
    ToolCallEnd,
    ToolCallStart,
    Usage,
)
from engine.types import CustomTool, Grammar, Message, Role, Tool, ToolCall, ToolChoice, ToolChoiceMode

PARAMETERS = {"type": "object", "properties": {"a": {"type": "integer"}}}
FUNCTION = {
    "type": "function",
    "function": {"name": "f", "description": "F.", "parameters": PARAMETERS, "strict": True},
}
SQL = {"type": "grammar", "grammar": {"syntax": "lark", "definition": 'start: "x"'}}
CUSTOM = {"type": "custom", "custom": {"name": "sql", "description": "SQL.", "format": SQL}}
SERVER_TOOLS = {"add": Tool("add", "Add.", PARAMETERS)}


def chat_request(**body: Any) -> ChatRequest:
    whole = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], **body}
    return TypeAdapter(ChatRequest).validate_python(whole)


def test_messages_of_every_role_are_read() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    custom = {"id": "2", "type": "custom", "custom": {"name": "sql", "input": "x"}}
    body = chat_request(
        messages=[
            {"role": "system", "content": "S"},
            {"role": "developer", "content": [{"type": "text", "text": "D"}, {"type": "text", "text": "E"}]},
            {"role": "user", "content": "U"},
            {"role": "assistant", "content": None, "tool_calls": [call, custom], "refusal": None, "annotations": []},
            {"role": "tool", "tool_call_id": "2", "content": "V"},
            {"role": "tool", "tool_call_id": "1", "content": "T"},
            {"role": "assistant", "content": "A"},
        ]
    )
    calls = (ToolCall("1", "f", "{}"), ToolCall("2", "sql", "x", custom=True))
    assert to_request(body, {}).messages == (
        Message(Role.SYSTEM, "S"),
        Message(Role.DEVELOPER, "DE"),
        Message(Role.USER, "U"),
        Message(Role.ASSISTANT, None, calls),
        Message(Role.TOOL, "V", tool_call_id="2"),
        Message(Role.TOOL, "T", tool_call_id="1"),
        Message(Role.ASSISTANT, "A"),
    )


def test_tools_are_functions_custom_or_names_of_the_servers() -> None:
    free = {"type": "custom", "custom": {"name": "shell", "format": {"type": "text"}}}
    body = chat_request(tools=[FUNCTION, CUSTOM, free, "add"])
    assert to_request(body, SERVER_TOOLS).tools == (
        Tool("f", "F.", PARAMETERS, strict=True),
        CustomTool("sql", "SQL.", Grammar.lark('start: "x"')),
        CustomTool("shell"),
        SERVER_TOOLS["add"],
    )


NAMED = {"type": "function", "function": {"name": "f"}}
NAMED_CUSTOM = {"type": "custom", "custom": {"name": "sql"}}


@pytest.mark.parametrize(
    ("wire", "choice"),
    [
        (None, ToolChoice()),
        ("auto", ToolChoice()),
        ("none", ToolChoice(ToolChoiceMode.NONE)),
        ("required", ToolChoice(ToolChoiceMode.REQUIRED)),
        (NAMED, ToolChoice.named("f")),
        (NAMED_CUSTOM, ToolChoice.named("sql")),
        (
            {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [NAMED]}},
            ToolChoice(ToolChoiceMode.AUTO, allowed=("f",)),
        ),
        (
            {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [NAMED, NAMED_CUSTOM]}},
            ToolChoice(ToolChoiceMode.REQUIRED, allowed=("f", "sql")),
        ),
    ],
    ids=str,
)
def test_a_tool_choice_in_each_of_its_forms(wire: Any, choice: ToolChoice) -> None:
    body = chat_request(tools=[FUNCTION, CUSTOM], tool_choice=wire)
    assert to_request(body, {}).tool_choice == choice
    assert must_call(body) == (choice.mode is ToolChoiceMode.REQUIRED)


@pytest.mark.parametrize(
    ("wire", "grammar"),
    [
        ({}, None),
        ({"response_format": {"type": "text"}}, None),
        ({"response_format": {"type": "json_object"}}, Grammar.json_object()),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": PARAMETERS}}},
            Grammar.json_schema(PARAMETERS),
        ),
        ({"toolmask": {"regex": "a+"}}, Grammar.regex("a+")),
        ({"toolmask": {"choice": ["a", "b"]}}, Grammar.choice(["a", "b"])),
        ({"toolmask": {"grammar": 'start: "a"'}}, Grammar.lark('start: "a"')),
        ({"toolmask": {"regex": "a+"}, "response_format": {"type": "text"}}, Grammar.regex("a+")),
    ],
    ids=str,
)
def test_what_binds_the_answers_text(wire: Any, grammar: Grammar | None) -> None:
    assert to_request(chat_request(**wire), {}).response == grammar


def test_every_sampling_option_arrives() -> None:
    extension = {"min_p": 0.1, "top_k": 4, "repetition_penalty": 1.5}
    body = chat_request(
        temperature=0.5,
        top_p=0.9,
        seed=3,
        presence_penalty=1,
        frequency_penalty=-1,
        logit_bias={"7": 2},
        logprobs=True,
        top_logprobs=5,
        stop="END",
        max_completion_tokens=9,
        parallel_tool_calls=False,
        toolmask=extension,
    )
    request = to_request(body, {})
    sampling = request.sampling
    assert (sampling.temperature, sampling.top_p, sampling.seed) == (0.5, 0.9, 3)
    assert (sampling.presence_penalty, sampling.frequency_penalty, sampling.logit_bias) == (1, -1, {7: 2})
    assert (sampling.min_p, sampling.top_k, sampling.repetition_penalty, sampling.top_logprobs) == (0.1, 4, 1.5, 5)
    assert (request.stop, request.max_tokens, request.parallel_tool_calls) == (("END",), 9, False)


@pytest.mark.parametrize("option", ["open_objects", "lenient", "strict_formats"])
@pytest.mark.parametrize("given", [True, False, None])
def test_how_schemas_are_taken_arrives_from_chats_and_responses(option: str, given: bool | None) -> None:
    extension = {option: given}
    of_chat = to_request(chat_request(toolmask=extension), {})
    asked = Asked(ResponseRequest.model_validate({"model": "m", "input": "Hi", "toolmask": extension}))
    for request in (of_chat, response_requests.to_request(asked, {})):
        taken = {name: getattr(request, name) for name in ("open_objects", "lenient", "strict_formats")}
        assert taken == {"open_objects": False, "lenient": False, "strict_formats": False, option: given is True}


@pytest.mark.parametrize("option", ["open_objects", "lenient", "strict_formats"])
def test_a_completion_has_no_schemas_and_so_no_option_for_them(option: str) -> None:
    with pytest.raises(ValidationError, match=option):
        CompletionRequest.model_validate({"model": "m", "prompt": "Hi", "toolmask": {option: True}})


PATHS = [
    ("tools[0].parameters.properties.a", "tools[0].function.parameters.properties.a"),
    ("tools[0].name", "tools[0].function.name"),
    ("tools[1].format", "tools[1].custom.format.grammar.definition"),
    ("tools[1].name", "tools[1].custom.name"),
    ("tools[12].name", "tools[12].name"),
    ("messages[0].content", "messages[0].content"),
    ("messages[1].tool_calls[0].arguments", "messages[1].tool_calls[0].function.arguments"),
    ("messages[1].tool_calls[1].arguments", "messages[1].tool_calls[1].custom.input"),
    ("response", "response_format.json_schema.schema"),
    ("response.properties.a", "response_format.json_schema.schema.properties.a"),
    ("responses", "responses"),
    ("max_tokens", "max_completion_tokens"),
    ("stop[0]", "stop"),
    ("top_k", "toolmask.top_k"),
    ("top_p", "top_p"),
    ("seed", "seed"),
]


@pytest.mark.parametrize(("engine", "wire"), PATHS)
def test_the_engines_paths_read_as_the_client_wrote_them(engine: str, wire: str) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    custom = {"id": "2", "type": "custom", "custom": {"name": "sql", "input": "x"}}
    body = chat_request(
        tools=[FUNCTION, CUSTOM],
        messages=[{"role": "user", "content": "Hi"}, {"role": "assistant", "tool_calls": [call, custom]}],
        response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": PARAMETERS}},
        max_completion_tokens=4,
        stop="x",
    )
    error = from_exception(RequestError(f"{engine} is bad; it must be good", param=engine), paths_of(body))
    assert (error.status, error.body.param) == (400, wire)
    assert error.body.message == f"{wire} is bad; it must be good"


@pytest.mark.parametrize(
    ("steps", "body", "missing", "path"),
    [
        (("a", "b"), {"a": {"b": 1}}, False, "a.b"),
        (("a", 0, "function", "function", "name"), {"a": [{"function": {}}]}, True, "a[0].function.name"),
        (("a", 0, "function", "b"), {"a": [{"function": {}, "b": 1}]}, False, "a[0].b"),
        (("a", 0, "function", "function", "b"), {"a": [{"function": {"b": 1}}]}, False, "a[0].function.b"),
        (("a", "list[str]", 1), {"a": ["x", 5]}, False, "a[1]"),
        (("a", "str"), {"a": 5}, False, "a"),
        (("a",), {}, True, "a"),
        ((), {}, False, ""),
    ],
)
def test_a_validation_errors_path_leads_through_the_body(
    steps: tuple[str | int, ...], body: object, missing: bool, path: str
) -> None:
    assert json_path(steps, body, missing=missing) == path


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (QueueFullError("full"), 429, "queue_full"),
        (EngineClosedError("closed"), 503, "shutting_down"),
        (ModelNotFoundError("no"), 404, "model_not_found"),
        (BudgetError("max_tokens is 2", param="max_tokens", least=9), 400, "max_tokens_too_small"),
        (MatcherError("lost"), 500, "internal_error"),
        (KeyError("secret"), 500, "internal_error"),
    ],
)
def test_each_error_has_its_status(error: Exception, status: int, code: str) -> None:
    told = from_exception(error)
    assert (told.status, told.body.code) == (status, code)
    assert "secret" not in told.json_text()


# Answers.


def finished(reason: StopReason = StopReason.EOS) -> Finished:
    return Finished(reason, Usage(10, 5, 2, 3, cached_tokens=4), 7, Receipt())


ANSWER = ChatAnswer("m", "fp_1")


def test_a_custom_call_is_answered_as_one_whole_and_in_pieces() -> None:
    events: list[Event] = [
        ToolCallStart(0, "call_1", "sql", custom=True),
        ToolCallDelta(0, "SELECT "),
        ToolCallDelta(0, "1"),
        ToolCallEnd(0),
        finished(),
    ]
    message = to_completion(ANSWER, [events]).model_dump(exclude_unset=True)["choices"][0]["message"]
    call = {"id": "call_1", "type": "custom", "custom": {"name": "sql", "input": "SELECT 1"}}
    assert message["tool_calls"] == [call]

    stream = ChatStream(ANSWER, 1)
    chunks = [chunk.model_dump(exclude_unset=True) for event in events for chunk in stream.chunks(0, event)]
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert [delta["tool_calls"][0] for delta in deltas if "tool_calls" in delta] == [
        {"index": 0, "id": "call_1", "type": "custom", "custom": {"name": "sql", "input": ""}},
        {"index": 0, "custom": {"input": "SELECT "}},
        {"index": 0, "custom": {"input": "1"}},
    ]


def test_usage_counts_the_prompt_once_and_tells_what_was_cached_and_forced() -> None:
    events: list[Event] = [TextDelta("x"), finished()]
    usage = to_completion(ANSWER, [events, events]).usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (10, 10, 20)
    assert usage.prompt_tokens_details.cached_tokens == 4
    assert usage.completion_tokens_details.forced_tokens == 4


HALF_A_CALL: list[Event] = [ToolCallStart(0, "call_1", "f"), ToolCallDelta(0, "{")]
A_CALL: list[Event] = [*HALF_A_CALL, ToolCallDelta(0, "}"), ToolCallEnd(0)]


@pytest.mark.parametrize("reason", [reason for reason in StopReason if reason is not StopReason.CANCELLED])
@pytest.mark.parametrize(("events", "must_call"), [(HALF_A_CALL, False), ([*A_CALL, *HALF_A_CALL], False), ([], True)])
def test_a_turn_that_lacks_a_call_or_its_end_is_the_engines_fault_and_never_an_answer(
    events: list[Event], must_call: bool, reason: StopReason
) -> None:
    """F1: only a fault of ours ends a turn there."""
    answer, turn = ChatAnswer("m", "fp_1", must_call=must_call), [*events, finished(reason)]
    with pytest.raises((GenerationError, WireError)):
        to_completion(answer, [turn])
    stream = ChatStream(answer, 1)
    with pytest.raises((GenerationError, WireError)):
        [chunk for event in turn for chunk in stream.chunks(0, event)]


@pytest.mark.parametrize("events", [[TextDelta("x")], HALF_A_CALL, A_CALL], ids=["text", "half a call", "a call"])
def test_a_turn_that_was_cancelled_is_never_an_answer(events: list[Event]) -> None:
    with pytest.raises(WireError) as failed:
        to_completion(ANSWER, [[*events, finished(StopReason.CANCELLED)]])
    assert (failed.value.status, failed.value.body.code) == (499, "cancelled")


@pytest.mark.parametrize("reason", [StopReason.EOS, StopReason.GRAMMAR_END, StopReason.LENGTH])
def test_complete_calls_are_told_as_tool_calls_whatever_ended_the_turn(reason: StopReason) -> None:
    choice = to_completion(ANSWER, [[*A_CALL, finished(reason)]]).choices[0]
    assert choice.finish_reason == "tool_calls"
    assert choice.message.tool_calls is not None


def test_only_the_tokens_of_the_text_have_logprobs() -> None:
    tokens = [TokenLogprob(i, text.encode(), -1.0) for i, text in enumerate(["Hé", "llo", "<call>", "{}"])]
    whole = TextLogprobs()
    whole.add_tokens(tokens)
    whole.add_text("Héllo")
    assert whole.take() == tokens[:2]
    assert whole.take() == []
    pieces, taken = TextLogprobs(), []
    for text, token in zip(["H", "éllo", "", ""], tokens, strict=True):
        pieces.add_text(text)
        pieces.add_tokens([token])
        taken += pieces.take()
    assert taken == tokens[:2]
    assert pieces.take(rest=True) == tokens[2:]
