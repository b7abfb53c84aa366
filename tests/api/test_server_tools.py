"""The server's own tools: listed, executed, named in requests, and run in turn with the model."""

import json
from collections.abc import Iterator
from typing import Literal

import openai
import pytest

from api.turns import Turns
from engine.admission import MAX_SEED
from engine.engine import Engine
from engine.tools import calculate, tool
from engine.types import Request, SamplingParams
from tests.api.servers import MODEL, WEATHER, LiveServer, call_text, events_of, fake_that_answers, served
from tests.fakes import USER, fake_loaded

CALL = call_text("calculate", '{"expression": "6 * 7"}')


@tool
def shout(text: str) -> str:
    """Say it louder."""
    return text.upper()


def reply(prompt: str) -> str:
    if "42.0" in prompt:
        return "The answer is 42."
    return call_text("shout", '{"text": "x"}') if "shout" in prompt and "calculate" not in prompt else CALL


@pytest.fixture(scope="module")
def server() -> Iterator[LiveServer]:
    with served(fake_that_answers(reply), tools=(calculate, shout), max_tool_rounds=3) as server:
        yield server


def test_the_tools_are_listed_as_a_request_would_offer_them(server: LiveServer) -> None:
    tools = server.http.get("/v1/tools").json()["data"]
    assert [each["function"]["name"] for each in tools] == ["calculate", "shout"]
    assert server.chat(tools=tools, max_tokens=100).status_code == 200


@pytest.mark.parametrize(
    ("body", "answer"),
    [
        ({"tool": "calculate", "args": {"expression": "sqrt(144) + 2**3"}}, {"success": True, "result": 20.0}),
        ({"tool": "shout", "args": {"text": "grüß"}}, {"success": True, "result": "GRÜSS"}),
        ({"tool": "calculate", "args": {"expression": "1/0"}}, {"success": False, "error": "division by zero"}),
        ({"tool": "shout"}, {"success": False, "error": "argument 'text' is missing"}),
    ],
)
def test_a_tool_is_executed(server: LiveServer, body: object, answer: object) -> None:
    response = server.http.post("/v1/tools/execute", json=body)
    assert (response.status_code, response.json()) == (200, answer)


def test_an_unknown_tool_is_a_404(server: LiveServer) -> None:
    error = server.http.post("/v1/tools/execute", json={"tool": "rm", "args": {}})
    assert (error.status_code, error.json()["error"]["param"]) == (404, "tool")


def test_a_request_may_name_a_tool_instead_of_spelling_it(server: LiveServer) -> None:
    choice = server.chat(tools=["calculate"], max_tokens=100).json()["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["tool_calls"][0]["function"]["name"] == "calculate"
    both = server.chat(tools=[WEATHER, "calculate"], max_tokens=100).json()["choices"][0]
    assert both["message"]["tool_calls"][0]["function"]["name"] == "calculate"


def test_the_server_runs_its_tools_and_answers_with_the_trace(server: LiveServer) -> None:
    body = {"tools": ["calculate"], "tool_execution": "server", "max_tokens": 100}
    answer = server.chat(**body).json()
    choice = answer["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("The answer is 42.", "stop")
    (step,) = answer["toolmask"]["trace"]
    assert (step["round"], step["name"], json.loads(step["arguments"])) == (0, "calculate", {"expression": "6 * 7"})
    assert step["result"] == {"success": True, "result": 42.0}
    alone = server.chat(tools=["calculate"], max_tokens=100).json()
    assert answer["usage"]["completion_tokens"] > alone["usage"]["completion_tokens"]


def test_the_servers_answer_can_be_streamed_to_openais_client(server: LiveServer) -> None:
    with server.client() as client:
        stream = client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": "6 * 7?"}],
            stream=True,
            extra_body={"tools": ["calculate"], "tool_execution": "server"},
        )
        assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == "The answer is 42."


def test_an_option_that_does_not_fit_is_told_before_a_tool_has_run() -> None:
    executed: list[str] = []

    @tool
    def note(text: str) -> None:
        """Write it down."""
        executed.append(text)

    body = {"tool_execution": "server", "tool_choice": "required", "max_tokens": 100}
    with served(fake_that_answers(lambda _: call_text("note", '{"text": "x"}')), tools=(note,)) as server:
        refused = server.chat(**body, stream_options={"include_usage": True})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "stream_options")
    assert not executed


def test_the_seed_that_is_told_gives_all_rounds_again() -> None:
    @tool
    def pick(side: Literal["a", "b", "c", "d", "e", "f", "g", "h"]) -> str:
        """Take a side."""
        return side

    body = {"tool_execution": "server", "tool_choice": "required", "parallel_tool_calls": False, "temperature": 100}
    with served(tools=(pick,), max_tool_rounds=1) as server:
        first = server.chat(**body, max_tokens=60).json()
        again = server.chat(**body, max_tokens=60, seed=first["toolmask"]["seed"]).json()
    called = [[step["arguments"] for step in answer["toolmask"]["trace"]] for answer in (first, again)]
    assert called[0] == called[1] != []
    assert first["choices"][0]["message"] == again["choices"][0]["message"]


def test_each_round_has_noise_of_its_own_and_one_seed_gives_all_again() -> None:
    request = Request((USER,), sampling=SamplingParams(temperature=100, seed=MAX_SEED - 1), max_tokens=8)
    with Engine(fake_loaded()) as engine:
        rounds = []
        for turns in (Turns(engine, request), Turns(engine, request)):
            rounds.append([turns.chat([USER], tools=(), tool_choice="auto").text for _ in range(2)])
    assert rounds[0] == rounds[1]
    assert rounds[0][0] != rounds[0][1]


def test_all_tools_are_offered_where_none_is_named(server: LiveServer) -> None:
    answer = server.chat(tool_execution="server", tool_choice="required", max_tokens=100).json()
    assert answer["choices"][0]["message"]["content"] == "The answer is 42."


@pytest.mark.parametrize("stream", [False, True])
def test_a_limit_that_no_call_fits_into_is_refused_where_one_must_be(server: LiveServer, stream: bool) -> None:
    body = {"tools": ["calculate"], "tool_choice": "required", "tool_execution": "server", "max_tokens": 5}
    refused = server.chat(**body, stream=stream)
    error = refused.json()["error"]
    assert (refused.status_code, error["code"], error["param"]) == (400, "max_tokens_too_small", "max_tokens")


def test_where_a_call_does_not_fit_the_model_answers_in_text(server: LiveServer) -> None:
    body = {"tools": ["calculate"], "tool_execution": "server", "max_tokens": 5}
    answer = server.chat(**body).json()
    assert (answer["toolmask"]["trace"], answer["choices"][0]["finish_reason"]) == ([], "length")


def test_after_the_last_round_the_model_must_answer_in_text(server: LiveServer) -> None:
    answer = server.chat(tools=["shout"], tool_execution="server", max_tokens=60).json()
    assert len(answer["toolmask"]["trace"]) == 3
    assert "tool_calls" not in answer["choices"][0]["message"]


def test_a_tool_of_the_clients_own_cannot_be_executed(server: LiveServer) -> None:
    with server.client() as client, pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": "Hi"}],
            tools=[WEATHER],
            extra_body={"tool_execution": "server"},
        )
    assert refused.value.param == "tools[0]"


def test_a_streamed_trace_is_in_the_last_chunk(server: LiveServer) -> None:
    body = {"tools": ["calculate"], "tool_execution": "server", "max_tokens": 100, "stream": True}
    *_, last, done = events_of(server.chat(**body))
    assert done == "data: [DONE]"
    assert last["toolmask"]["trace"][0]["name"] == "calculate"


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses"])
def test_a_tool_that_is_named_twice_is_told_by_its_place_in_the_list(server: LiveServer, path: str) -> None:
    said = {"messages": [{"role": "user", "content": "x"}]} if "chat" in path else {"input": "x"}
    error = server.http.post(path, json={"model": MODEL, **said, "tools": ["calculate", "calculate"]}).json()["error"]
    assert (error["param"], "differ" in error["message"]) == ("tools[1]", True)


def receipt_of(server: LiveServer, **options: object) -> list[dict[str, str]]:
    answer = server.chat(max_tokens=300, **options).json()
    return list(answer["toolmask"]["receipt"])


def test_a_receipt_speaks_of_tools_of_the_server_by_paths_that_the_request_has(server: LiveServer) -> None:
    named = receipt_of(server, tools=[WEATHER, "calculate"])
    assert {entry["path"] for entry in named if entry["path"].startswith("tools[1]")} == {"tools[1]"}
    assert any(entry["detail"].startswith("parameters") for entry in named if entry["path"] == "tools[1]")
    offered = receipt_of(server, tool_execution="server")
    assert [entry for entry in offered if entry["path"].startswith("tools")] == []
    assert "tool_execution" in {entry["path"] for entry in offered}
