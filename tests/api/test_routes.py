"""Direct routes on the server: who answered is said, in every form of an answer."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from api import cli
from api.route_file import read_routes
from api.serve import engine_loader
from api.settings import ServerConfig
from engine.errors import ConfigError
from engine.routes import Route
from engine.tools import calculate
from tests.api.servers import (
    MODEL,
    WEATHER,
    LiveServer,
    added_up,
    call_text,
    events_of,
    fake_that_answers,
    served,
    without_call_ids,
)

SUM = Route("sum", r"(?i)calculate (?<sum>[-+*/. \d]+)", "calculate", {"expression": "{sum}"})
ASK = {"messages": [{"role": "user", "content": "Calculate 6 * 7"}], "max_tokens": 100}
BY_ROUTE = {"kind": "route", "name": "sum"}


def reply(prompt: str) -> str:
    return "It is 42." if "42.0" in prompt else call_text("calculate", '{"expression": "1 + 1"}')


@pytest.fixture(scope="module")
def server() -> Iterator[LiveServer]:
    with served(fake_that_answers(reply), tools=(calculate,), routes=(SUM,)) as server:
        yield server


def call_of(choice: dict[str, Any]) -> tuple[str, Any]:
    function = choice["message"]["tool_calls"][0]["function"]
    return function["name"], json.loads(function["arguments"])


def test_a_routed_answer_is_a_call_that_no_model_wrote(server: LiveServer) -> None:
    answer = server.chat(**ASK, tools=["calculate"]).json()
    assert call_of(answer["choices"][0]) == ("calculate", {"expression": "6 * 7"})
    assert answer["choices"][0]["finish_reason"] == "tool_calls"
    assert answer["toolmask"]["answered_by"] == BY_ROUTE
    assert (answer["toolmask"]["forward_passes"], answer["usage"]["total_tokens"]) == (0, 0)


def test_a_routed_stream_adds_up_to_the_answer_that_is_not_streamed(server: LiveServer) -> None:
    """F12"""
    whole = server.chat(**ASK, tools=["calculate"], n=2).json()
    *chunks, done = events_of(server.chat(**ASK, tools=["calculate"], n=2, stream=True))
    assert done == "data: [DONE]"
    assert without_call_ids(added_up(chunks, 2)) == without_call_ids(whole["choices"])
    assert chunks[-1]["toolmask"]["answered_by"] == BY_ROUTE


@pytest.mark.parametrize("stream", [False, True])
def test_a_response_may_come_from_a_route_too(server: LiveServer, stream: bool) -> None:
    body = {"model": MODEL, "input": "Calculate 6 * 7", "tools": ["calculate"], "stream": stream}
    answered = server.http.post("/v1/responses", json=body)
    if stream:
        last = answered.text.split("data: ")[-1]
        response = json.loads(last)["response"]
    else:
        response = answered.json()
    (call,) = response["output"]
    assert (call["name"], json.loads(call["arguments"])) == ("calculate", {"expression": "6 * 7"})
    assert response["toolmask"]["answered_by"] == BY_ROUTE


def test_what_no_route_fits_is_answered_by_the_model_and_nobody_else_is_named(server: LiveServer) -> None:
    answer = server.chat(tools=["calculate"], max_tokens=100).json()
    assert call_of(answer["choices"][0]) == ("calculate", {"expression": "1 + 1"})
    assert "answered_by" not in answer["toolmask"]


def test_a_tool_that_is_not_offered_is_not_routed_to(server: LiveServer) -> None:
    assert "answered_by" not in server.chat(**ASK, tools=[WEATHER]).json()["toolmask"]


def test_the_trace_tells_which_call_came_from_a_route(server: LiveServer) -> None:
    answer = server.chat(**ASK, tools=["calculate"], tool_execution="server").json()
    (step,) = answer["toolmask"]["trace"]
    assert (step["answered_by"], step["result"]) == (BY_ROUTE, {"success": True, "result": 42.0})
    assert answer["choices"][0]["message"]["content"] == "It is 42."
    assert "answered_by" not in answer["toolmask"]


def test_the_turns_of_each_route_are_counted() -> None:
    with served(fake_that_answers(reply), tools=(calculate,), routes=(SUM,)) as server:
        for body in ({"n": 3}, {"stream": True}, {"tool_execution": "server"}):
            server.chat(**ASK, tools=["calculate"], **body)
        server.chat(tools=["calculate"], max_tokens=100)
        page = server.http.get("/metrics").text
    assert 'toolmask_routed_turns_total{route="sum"} 3.0' in page


def test_what_is_wrong_with_a_request_is_told_whatever_its_message(server: LiveServer) -> None:
    refused = server.chat(**ASK, tools=["calculate"], toolmask={"chat_template_kwargs": {"no_such": 1}})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "toolmask.chat_template_kwargs.no_such")


# The option.


def write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def test_serve_reads_the_routes_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    configs: list[ServerConfig] = []
    monkeypatch.setattr(cli, "run_server", configs.append)
    routes = [{"name": "sum", "pattern": SUM.pattern, "tool": "calculate", "arguments": {"expression": "{sum}"}}]
    monkeypatch.setattr("sys.path", [])
    file = write(tmp_path / "routes.json", json.dumps(routes))
    monkeypatch.setattr("sys.argv", ["toolmask", "serve", "--routes", file])
    cli.main()
    assert configs[0].routes == (SUM,)


@pytest.mark.parametrize(
    ("text", "words"),
    [("{}", "must be an array"), ("[", "is no JSON"), ('[{"name": "a"}]', r"routes\[0\]\.pattern is missing")],
)
def test_a_file_that_has_no_routes_is_refused(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        read_routes(write(tmp_path / "routes.json", text))


def test_a_file_that_does_not_exist_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.json cannot be read"):
        read_routes(tmp_path / "absent.json")


def test_a_route_to_a_tool_that_the_server_does_not_have_is_refused_before_a_model_is_loaded() -> None:
    with pytest.raises(ConfigError, match=r"routes\[0\]\.tool is 'rm'"):
        engine_loader(ServerConfig(routes=(Route("a", "a", "rm"),)))
