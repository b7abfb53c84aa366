"""The fallback: who is asked, what is passed on, and that a failing upstream is never covered up."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from api import cli
from api.fallback import confidence
from api.settings import FallbackConfig, ServerConfig
from engine.errors import ConfigError
from engine.events import Decision, Way
from engine.model import LoadedModel
from engine.routes import Route
from engine.tools import calculate
from tests.api.servers import (
    WEATHER,
    LiveServer,
    added_up,
    call_text,
    custom_tool,
    events_of,
    fake_that_answers,
    function_tool,
    is_idle,
    served,
    wait_until,
    without_call_ids,
)
from tests.fakes import ScriptedModel, fake_that_writes, scripted

KEY = "sk-of-the-upstream"
CALL = call_text("get_weather", '{"city": "Rome", "days": 2}')
ASK = {"tools": [WEATHER], "max_tokens": 100}
NEVER, ALWAYS = 0.1, 0.9  # thresholds, for a model that is about two thirds sure


def unsure_that_writes(text: str) -> LoadedModel:
    """Begins with the text, where a call would have been almost as likely."""
    sure = fake_that_writes(text, hermes=True)
    assert isinstance(sure.model, ScriptedModel)
    script, marker = sure.model.script, sure.tokenizer.token_id("<tool_call>")
    assert marker is not None
    return scripted(sure, lambda tokens: {marker: 99.5, **script(tokens)})


@contextmanager
def pair(
    local: str = "Local.", remote: str = CALL, below: float = ALWAYS, **config: Any
) -> Iterator[tuple[LiveServer, LiveServer]]:
    """A server and its upstream, which is one of ours as well."""
    with served(fake_that_answers(lambda _: remote), api_key=KEY) as upstream:
        fallback = FallbackConfig(f"{upstream.url}/v1", "fake", below, key=KEY)
        with served(unsure_that_writes(local), fallback=fallback, **config) as server:
            yield server, upstream


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[LiveServer, LiveServer]]:
    with pair(tools=(calculate,)) as both:
        yield both


def by(answer: dict[str, Any]) -> str | None:
    return answer["toolmask"].get("answered_by", {}).get("kind")


# Who answers.


def test_an_unsure_request_is_answered_by_the_upstream_and_says_so(servers: tuple[LiveServer, LiveServer]) -> None:
    server, upstream = servers
    answer = server.chat(**ASK).json()
    told = answer["toolmask"]["answered_by"]
    assert (told["kind"], told["name"]) == ("fallback", "fake")
    assert 0.5 <= told["confidence"] < 1
    direct = upstream.chat(**ASK).json()
    assert without_call_ids(answer["choices"]) == without_call_ids(direct["choices"])
    assert answer["usage"] == direct["usage"]


def test_the_streams_first_chunk_says_who_answers_and_the_rest_is_passed_on(
    servers: tuple[LiveServer, LiveServer],
) -> None:
    server, upstream = servers
    *chunks, done = events_of(server.chat(**ASK, stream=True, stream_options={"include_usage": True}))
    *direct, _ = events_of(upstream.chat(**ASK, stream=True, stream_options={"include_usage": True}))
    assert done == "data: [DONE]"
    assert by(chunks[0]) == "fallback"
    assert len(chunks) == len(direct)
    assert without_call_ids(added_up(chunks)) == without_call_ids(added_up(direct))
    assert chunks[-1]["usage"] == direct[-1]["usage"]


def test_the_local_model_is_free_once_a_request_is_handed_over(servers: tuple[LiveServer, LiveServer]) -> None:
    server, _ = servers
    assert server.chat(**ASK).status_code == 200
    wait_until(lambda: is_idle(server))


def test_what_was_handed_over_is_counted_by_what_the_model_leaned_to() -> None:
    with pair() as (server, _):
        server.chat(**ASK)
        server.chat(**ASK, stream=True)
        server.chat(**ASK, toolmask={"tool_call_threshold": 0.0})
        page = server.http.get("/metrics").text
    assert 'toolmask_handed_over_total{decision="text"} 2.0' in page
    assert 'toolmask_handed_over_total{decision="call"} 1.0' in page


def test_a_sure_request_is_answered_by_the_model_and_says_so() -> None:
    with pair(below=NEVER) as (server, upstream):
        answer = server.chat(**ASK).json()
        *chunks, _ = events_of(server.chat(**ASK, stream=True))
        assert answer["choices"][0]["message"]["content"] == "Local."
        assert (by(answer), by(chunks[-1])) == ("model", "model")
        assert without_call_ids(added_up(chunks)) == answer["choices"]
        assert 'route="/v1/chat/completions"' not in upstream.http.get("/metrics").text


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"tools": [WEATHER], "tool_choice": "none"},
        {"tools": [WEATHER], "toolmask": {"top_k": 3}},
        {"tools": [WEATHER], "logit_bias": {"5": 1}},
        {"tools": [WEATHER], "temperature": 0.01, "toolmask": {"best_of": 2}},
        {"tools": ["calculate"], "tool_execution": "server"},
    ],
)
def test_what_needs_no_decision_or_only_we_can_honour_stays_here(
    servers: tuple[LiveServer, LiveServer], body: dict[str, Any]
) -> None:
    answer = servers[0].chat(**body)
    assert (answer.status_code, by(answer.json())) == (200, None) or by(answer.json()) == "model"
    assert answer.json()["choices"][0]["message"]["content"] == "Local."


def test_a_required_call_stays_here_though_whole_names_choose_its_tool(
    servers: tuple[LiveServer, LiveServer],
) -> None:
    body = {"tools": [WEATHER, function_tool("clock")], "tool_choice": "required", "max_tokens": 100}
    answer = servers[0].chat(**body, toolmask={"tool_choice_by": "likelihood"}).json()
    assert by(answer) == "model"
    assert answer["toolmask"]["decision"]["p_call"] == 1
    assert answer["choices"][0]["finish_reason"] == "tool_calls"


def test_a_routed_request_is_not_handed_over() -> None:
    route = Route("sum", r"(?<sum>[\d+ ]+)", "calculate", {"expression": "{sum}"})
    with pair(tools=(calculate,), routes=(route,)) as (server, _):
        said = [{"role": "user", "content": "1 + 1"}]
        assert by(server.chat(messages=said, tools=["calculate"], max_tokens=99).json()) == "route"


def test_what_was_decided_by_a_threshold_is_as_sure_as_the_side_that_was_taken() -> None:
    even = Decision(log_odds=-1.0, log_odds_raw=-1.0)
    assert confidence([even]) == pytest.approx(0.731, abs=1e-3)
    called = Decision(log_odds=-1.0, log_odds_raw=-1.0, threshold=0.1, chosen=Way.CALL)
    assert confidence([even, called]) == pytest.approx(0.269, abs=1e-3)
    assert confidence([]) is None
    required = Decision(log_odds=-1.0, log_odds_raw=-1.0, required=True, chosen=Way.CALL)
    assert confidence([required]) is None
    assert (required.p_call, required.p_text) == (1, 0)


# What the upstream is asked, and what it may answer.


@dataclass
class Scripted:
    """An upstream that answers as it is told, and keeps what it was asked."""

    url: str
    answer: Callable[[BaseHTTPRequestHandler], None]
    asked: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)


@contextmanager
def scripted_upstream(answer: Callable[[BaseHTTPRequestHandler], None]) -> Iterator[Scripted]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            script.asked.append({"path": self.path, **json.loads(body)})
            script.keys.append(self.headers["authorization"])
            script.answer(self)

        def log_message(self, *_: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    script = Scripted(f"http://127.0.0.1:{http.server_port}/base/", answer)
    thread = threading.Thread(target=http.serve_forever)
    thread.start()
    try:
        yield script
    finally:
        http.shutdown()
        thread.join()
        http.server_close()


def sends(status: int, body: str, kind: str = "application/json") -> Callable[[BaseHTTPRequestHandler], None]:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        data = body.encode()
        handler.send_response(status)
        handler.send_header("content-type", kind)
        handler.send_header("content-length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data)

    return answer


@contextmanager
def behind(script: Scripted, timeout_s: float = 30.0) -> Iterator[LiveServer]:
    fallback = FallbackConfig(script.url, "big", ALWAYS, key=KEY, timeout_s=timeout_s)
    with served(unsure_that_writes("Local."), fallback=fallback, tools=(calculate,)) as server:
        yield server


def test_the_upstream_is_asked_for_its_own_model_with_tools_spelled_and_without_our_options() -> None:
    said = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello", "reasoning_content": "Hm."},
        {"role": "user", "content": "2 + 2?"},
    ]
    pattern = custom_tool("note", "[a-z]+")
    with scripted_upstream(sends(200, '{"id": "x", "odd": [1]}')) as script, behind(script) as server:
        body = {"messages": said, "tools": ["calculate", pattern], "toolmask": {"tool_call_bias": 0.5}, "seed": 3}
        answer = server.chat(**body, max_tokens=200)
    (asked,) = script.asked
    assert answer.json().keys() == {"id", "odd", "toolmask"}
    assert (answer.json()["id"], answer.json()["odd"]) == ("x", [1])
    assert script.keys == [f"Bearer {KEY}"]
    assert asked["path"] == "/base/chat/completions"
    assert (asked["model"], asked["seed"], asked["max_tokens"]) == ("big", 3, 200)
    assert asked["messages"] == [said[0], {"role": "assistant", "content": "Hello"}, said[2]]
    assert asked["tools"][0]["function"]["name"] == "calculate"
    assert asked["tools"][0]["function"]["parameters"]["required"] == ["expression"]
    assert asked["tools"][1] == pattern
    assert "toolmask" not in asked


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (sends(401, json.dumps({"error": {"message": f"bad key\n {KEY}"}})), "answered 401: bad key ***"),
        (sends(500, "<html>"), "answered 500"),
        (sends(302, ""), "answered 302"),
        (sends(200, "no json"), "answered"),
        (sends(200, '{"choices": [{"logprob": NaN}]}'), "answered"),
        (sends(200, '{"choices": [{"logprob": 1e999}]}'), "answered"),
        (sends(200, '{"error": {"message": "no quota"}}'), "answered"),
    ],
)
def test_an_upstream_that_fails_is_one_error_that_names_it(
    answer: Callable[[BaseHTTPRequestHandler], None], words: str, stream: bool
) -> None:
    with scripted_upstream(answer) as script, behind(script) as server:
        failed = server.chat(**ASK, stream=stream)
    error = failed.json()["error"]
    assert (failed.status_code, error["code"]) == (502, "upstream_failed")
    assert f"the fallback upstream {script.url} {words}" in error["message"]
    assert KEY not in failed.text
    assert failed.headers["x-should-retry"] == "false"
    assert len(script.asked) == 1, "nothing is tried again"


@pytest.mark.parametrize("stream", [False, True])
def test_half_of_a_surrogate_pair_is_passed_on_as_it_came(stream: bool) -> None:
    said = '{"choices": [], "text": "\\ud83d"}'
    answer = sends(200, f"data: {said}\n\ndata: [DONE]\n\n", "text/event-stream") if stream else sends(200, said)
    with scripted_upstream(answer) as script, behind(script) as server:
        answered = server.chat(**ASK, stream=stream)
    assert answered.status_code == 200
    assert "\\ud83d" in answered.text
    assert '"kind": "fallback"' in answered.text


def test_a_chunk_whose_error_is_null_has_not_failed() -> None:
    chunk = 'data: {"choices": [], "error": null}\n\n'
    stream = sends(200, chunk + "data: [DONE]\n\n", "text/event-stream")
    with scripted_upstream(stream) as script, behind(script) as server:
        events = events_of(server.chat(**ASK, stream=True))
    assert events[-1] == "data: [DONE]"


def test_an_upstream_that_is_not_there_is_named() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        fallback = FallbackConfig(url, "big", ALWAYS)
        with served(unsure_that_writes("Local."), fallback=fallback) as server:
            failed = server.chat(**ASK)
    assert failed.status_code == 502
    assert f"the fallback upstream {url} could not be reached" in failed.json()["error"]["message"]


def test_an_upstream_that_does_not_answer_in_time_is_a_504_that_names_it() -> None:
    until = threading.Event()
    with scripted_upstream(lambda _: until.wait(30) and None) as script, behind(script, timeout_s=0.2) as server:
        failed = server.chat(**ASK)
        until.set()
    assert failed.status_code == 504
    assert f"{script.url} did not answer within 0.2 seconds" in failed.json()["error"]["message"]


CHUNK = 'data: {"choices": [], "text": "a\\u2028b"}\n\n'


@pytest.mark.parametrize(
    ("stream", "words"),
    [
        (CHUNK, "ended its stream before [DONE]"),
        (CHUNK + "data: {\n\ndata: [DONE]\n\n", "no JSON object"),
        (CHUNK + 'data: {"error": {"message": "overloaded"}}\n\ndata: [DONE]\n\n', "failed in its stream: overloaded"),
        ("data: [DONE]\n\n", "without an answer"),
        ("", "before [DONE]"),
    ],
)
def test_a_stream_that_breaks_off_upstream_ends_with_an_error_and_without_done(stream: str, words: str) -> None:
    with scripted_upstream(sends(200, stream, "text/event-stream")) as script, behind(script) as server:
        events = events_of(server.chat(**ASK, stream=True))
    assert words in events[-1]["error"]["message"]
    assert script.url in events[-1]["error"]["message"]
    assert all(by(event) == "fallback" for event in events[:-1])


def test_events_are_read_as_the_standard_says_however_they_are_cut() -> None:
    """Comments, lines that end in CR LF, data of two lines, and characters that splitlines would cut at."""
    whole = ': hi\r\ndata: {"a":\r\ndata: "x\u2028y"}\r\n\r\nevent: z\ndata:{"b":\ndata: 1}\n\ndata: [DONE]\n\n'

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("content-type", "text/event-stream")
        handler.end_headers()
        for position in range(0, len(whole.encode()), 7):
            handler.wfile.write(whole.encode()[position : position + 7])

    with scripted_upstream(answer) as script, behind(script) as server:
        first, second, done = events_of(server.chat(**ASK, stream=True))
    assert (first["a"], by(first), second, done) == ("x\u2028y", "fallback", {"b": 1}, "data: [DONE]")


# The options.


def served_with(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> ServerConfig:
    configs: list[ServerConfig] = []
    monkeypatch.setattr(cli, "run_server", configs.append)
    monkeypatch.setattr("sys.path", [])
    monkeypatch.setattr("sys.argv", ["toolmask", "serve", *arguments])
    cli.main()
    return configs[0]


def test_there_is_no_fallback_unless_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert served_with(monkeypatch).fallback is None


def test_the_key_comes_from_the_environment_and_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOOLMASK_FALLBACK_KEY", KEY)
    options = "--fallback-url http://x/v1 --fallback-model big --fallback-below 0.7 --fallback-timeout 5"
    config = served_with(monkeypatch, *options.split())
    assert config.fallback == FallbackConfig("http://x/v1", "big", 0.7, key=KEY, timeout_s=5)
    assert KEY not in repr(config)


def test_a_fallback_that_is_named_in_part_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        served_with(monkeypatch, "--fallback-url", "http://x/v1")
    assert "--fallback-model and --fallback-below must be given too" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"url": "x/v1"}, "url is 'x/v1'"),
        ({"url": "ftp://x"}, "url is"),
        ({"url": "http://[::1/v1"}, "url is"),
        ({"url": "http://x:99999/v1"}, "url is"),
        ({"url": "http://x\n/v1"}, "url is"),
        ({"url": "http://me:secret@x/v1"}, "a name or a password"),
        ({"model": ""}, "model is empty"),
        ({"below": 0.0}, "below is 0"),
        ({"below": 1.5}, "below is 1.5"),
        ({"below": float("nan")}, "below is nan"),
        ({"timeout_s": 0.0}, "timeout_s is 0"),
        ({"key": "a\nb"}, "key has characters"),
    ],
)
def test_options_that_make_no_fallback_are_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as refused:
        FallbackConfig(**{"url": "http://x/v1", "model": "big", "below": 0.5, **change})
    assert "secret" not in str(refused.value)
