"""Streams: what is in each chunk, and that they add up to exactly the answer that is not streamed (F12)."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from engine.errors import GenerationError
from tests.api.servers import (
    WEATHER,
    LiveServer,
    added_up,
    call_text,
    custom_tool,
    events_of,
    failing_after,
    fake_that_answers,
    function_tool,
    served,
    without_call_ids,
)
from tests.fakes import EOS, fake_loaded, with_hook

PARIS = call_text("get_weather", '{"city": "Paris", "days": 3}')
ROME = call_text("get_weather", '{"city": "Rome", "days": 1}')
SCRIPT = {
    "text": "It is 21 \N{DEGREE SIGN}C, \N{CJK UNIFIED IDEOGRAPH-6674} \N{GRINNING FACE}.",
    "lines": "one\u2028two\u2029three\x85four\r\nfive\x0bsix",
    "call": PARIS,
    "calls": f"{PARIS}\n{ROME}",
    "text and call": f"Let me see. <tool\n{PARIS}",
    "nothing": "",
    "json": '{"city": "Rome", "days": 2}',
}


def reply(prompt: str) -> str:
    question = prompt.rpartition("<|im_start|>user\n")[2].partition("<|im_end|>")[0]
    return SCRIPT[question]


@pytest.fixture(scope="module", params=[True, False], ids=["hermes", "plain"])
def server(request: pytest.FixtureRequest) -> Iterator[LiveServer]:
    with served(fake_that_answers(reply, hermes=request.param)) as server:
        yield server


@pytest.fixture(scope="module")
def random_server() -> Iterator[LiveServer]:
    with served(fake_loaded()) as server:
        yield server


def ask(question: str, **more: Any) -> dict[str, Any]:
    return {
        "messages": [{"role": "user", "content": question}],
        "tools": [WEATHER],
        "max_tokens": 200,
        "seed": 7,
        **more,
    }


SCHEMA = {"type": "json_schema", "json_schema": {"name": "x", "schema": WEATHER["function"]["parameters"]}}
CASES = {
    **{name: ask(name) for name in SCRIPT},
    "required": ask("calls", tool_choice="required"),
    "one call": ask("calls", parallel_tool_calls=False),
    "schema": ask("json", response_format=SCHEMA, tools=None),
    "stop": ask("text", stop=["\N{CJK UNIFIED IDEOGRAPH-6674}"]),
    "length": ask("text", max_tokens=6),
    "logprobs": ask("text", logprobs=True, top_logprobs=2),
    "logprobs of lines": ask("lines", logprobs=True),
    "logprobs beside a call": ask("text and call", logprobs=True, top_logprobs=1),
    "logprobs of a call": ask("call", logprobs=True),
    "logprobs and stop": ask("text", logprobs=True, stop="C"),
}


@pytest.mark.parametrize("body", CASES.values(), ids=CASES)
def test_a_stream_adds_up_to_the_whole_answer(server: LiveServer, body: dict[str, Any]) -> None:
    whole = server.chat(**body).json()
    chunks = events_of(server.chat(**body, stream=True))
    assert chunks.pop() == "data: [DONE]"
    assert without_call_ids(added_up(chunks)) == without_call_ids(whole["choices"])
    assert chunks[-1]["toolmask"] == whole["toolmask"]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("tools", [[], [WEATHER]], ids=["text", "tools"])
def test_a_seed_gives_the_same_choices_streamed_or_not(
    random_server: LiveServer, seed: int, tools: list[dict[str, Any]]
) -> None:
    body = {"temperature": 100, "seed": seed, "n": 3, "tools": tools, "logprobs": True, "max_tokens": 24}
    whole = random_server.chat(**body).json()
    chunks = events_of(random_server.chat(**body, stream=True))
    choices = without_call_ids(added_up(chunks[:-1], 3))
    assert choices == without_call_ids(whole["choices"])
    assert len({json.dumps(choice["message"]) for choice in choices}) == 3
    assert whole["toolmask"]["seed"] == seed


@pytest.mark.parametrize("seed", range(4))
def test_a_custom_call_adds_up_and_keeps_to_its_grammar(random_server: LiveServer, seed: int) -> None:
    tools = [custom_tool("sql", "SELECT [a-z]{1,9}"), custom_tool("sum", 'start: /[0-9]/ "+" /[0-9]/', "lark")]
    body = {"tools": tools, "tool_choice": "required", "parallel_tool_calls": False, "max_tokens": 60}
    whole = random_server.chat(**body, seed=seed, temperature=100).json()
    chunks = events_of(random_server.chat(**body, seed=seed, temperature=100, stream=True))
    choices = without_call_ids(whole["choices"])
    assert without_call_ids(added_up(chunks[:-1])) == choices
    (call,) = choices[0]["message"]["tool_calls"]
    assert (call["type"], choices[0]["finish_reason"]) == ("custom", "tool_calls")
    pattern = {"sql": r"SELECT [a-z]{1,9}", "sum": r"[0-9]\+[0-9]"}[call["custom"]["name"]]
    assert re.fullmatch(pattern, call["custom"]["input"])


def test_a_calls_first_delta_has_id_type_and_name_and_the_others_more_arguments(server: LiveServer) -> None:
    chunks = events_of(server.chat(**ask("calls"), stream=True))[:-1]
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert deltas[0] == {"role": "assistant", "content": None, "refusal": None}
    calls = [delta["tool_calls"][0] for delta in deltas if "tool_calls" in delta]
    starts = [call for call in calls if "id" in call]
    assert [(call["index"], call["type"], call["function"]) for call in starts] == [
        (index, "function", {"name": "get_weather", "arguments": ""}) for index in (0, 1)
    ]
    pieces = [call for call in calls if "id" not in call]
    assert len(pieces) > 4
    assert all(set(call) == {"index", "function"} and set(call["function"]) == {"arguments"} for call in pieces)
    assert deltas[-1] == {}
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"


def test_all_chunks_have_the_same_id_and_usage_comes_alone_at_the_end(server: LiveServer) -> None:
    body = ask("text", stream_options={"include_usage": True})
    *chunks, last, done = events_of(server.chat(**body, stream=True))
    assert done == "data: [DONE]"
    assert len({(chunk["id"], chunk["created"], chunk["model"]) for chunk in [*chunks, last]}) == 1
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert all(chunk["usage"] is None for chunk in chunks)
    assert last["choices"] == []
    assert last["usage"] == server.chat(**ask("text")).json()["usage"]


def test_no_line_of_a_stream_is_cut_by_what_some_clients_take_for_a_line_break(server: LiveServer) -> None:
    response = server.chat(**ask("lines"), stream=True)
    lines = [line for line in response.text.splitlines() if line]
    assert all(line.startswith("data: ") for line in lines)
    assert added_up([json.loads(line[6:]) for line in lines[:-1]])[0]["message"]["content"] == SCRIPT["lines"]


def test_a_stream_may_not_be_cached_or_collected_on_its_way(server: LiveServer) -> None:
    headers = server.chat(**ask("text"), stream=True).headers
    assert headers["cache-control"] == "no-cache"
    assert headers["x-accel-buffering"] == "no"
    assert "content-length" not in headers


def test_no_markup_is_in_the_content(server: LiveServer) -> None:
    message = server.chat(**ask("text and call")).json()["choices"][0]["message"]
    assert message["content"].startswith("Let me see. <tool\n")
    assert "tool_call>" not in message["content"]
    assert message["tool_calls"][0]["function"]["name"] == "get_weather"


# Calls that are cut off, and generations that fail (F1, rule 5 of the design).


LONG_CALL = call_text("note", '{"text": "' + "word " * 50 + '"}')
NOTE = function_tool("note", {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]})


def test_a_call_that_fails_in_its_midst_is_an_error_and_never_tool_calls() -> None:
    with served(fake_that_answers(failing_after(20, LONG_CALL))) as server:
        body = {"tools": [NOTE], "max_tokens": 400}
        *chunks, last = events_of(server.chat(**body, stream=True))
        (begun,) = added_up(chunks)[0]["message"]["tool_calls"]
        assert begun["function"]["arguments"].startswith('{"text": "word')
        assert not begun["function"]["arguments"].endswith("}")
        assert all(chunk["choices"][0]["finish_reason"] is None for chunk in chunks)
        whole = server.chat(**body)
        assert (whole.status_code, whole.json()["error"]["code"]) == (500, "internal_error")
        assert last == whole.json()


@pytest.mark.parametrize("limit", ["max_tokens", "max_completion_tokens"])
def test_a_required_call_has_its_least_budget_and_below_it_is_refused(limit: str) -> None:
    """F1."""
    with served(fake_that_answers(lambda _: LONG_CALL)) as server:
        body = {"max_tokens": None, "tools": [NOTE], "tool_choice": "required"}
        for stream in (False, True):
            refused = server.chat(**body | {limit: 3, "stream": stream})
            error = refused.json()["error"]
            assert (refused.status_code, error["param"], error["code"]) == (400, limit, "max_tokens_too_small")
        least = re.fullmatch(rf"{limit} is 3; the shortest .* has (\d+) tokens", error["message"])
        assert least is not None
        assert server.chat(**body | {limit: int(least[1]) - 1}).status_code == 400
        choice = server.chat(**body | {limit: int(least[1])}).json()["choices"][0]
        assert choice["finish_reason"] == "tool_calls"
        assert json.loads(choice["message"]["tool_calls"][0]["function"]["arguments"])["text"] in "word " * 50


@pytest.mark.parametrize("max_tokens", [*range(1, 50, 4), 200])
def test_where_calls_are_free_they_are_whole_or_not_there_at_every_budget(max_tokens: int) -> None:
    """F1."""
    with served(fake_that_answers(lambda _: LONG_CALL)) as server:
        body = {"tools": [NOTE], "max_tokens": max_tokens}
        choice = server.chat(**body).json()["choices"][0]
        calls = choice["message"].get("tool_calls", [])
        assert choice["finish_reason"] == ("tool_calls" if calls else "length")
        for call in calls:
            assert json.loads(call["function"]["arguments"])["text"] in "word " * 50
        streamed = added_up(events_of(server.chat(**body, stream=True))[:-1])
        assert without_call_ids(streamed) == without_call_ids([choice])


def test_a_generation_that_fails_ends_its_stream_with_an_error_without_internals() -> None:
    def fail_at_5(number: int) -> None:
        if number >= 5:
            raise ValueError("secret path /home/me")

    with served(lambda: with_hook(fake_loaded(bonus={EOS: -(10**6)}), fail_at_5)) as server:
        *chunks, last = events_of(server.chat(stream=True, max_tokens=40))
        assert chunks
        assert set(last) == {"error"}
        assert last["error"]["type"] == "server_error"
        assert "secret" not in json.dumps(last)
        whole = server.chat(max_tokens=40)
        assert whole.status_code == 500
        assert whole.json() == last


def test_an_engine_error_is_never_told_with_its_text(monkeypatch: pytest.MonkeyPatch) -> None:
    with served(fake_loaded()) as server:

        def submit(*_: object) -> None:
            raise GenerationError("secret")

        monkeypatch.setattr(server.engine, "submit_choices", submit)
        response = server.chat(stream=True)
        assert (response.status_code, "secret" in response.text) == (500, False)
