"""A client that goes away, comes too late, or must wait: nothing runs on, nothing leaks."""

import json
import threading
from collections.abc import Iterator

import httpx
import pytest

from engine.config import EngineConfig
from engine.decision_options import DecisionOptions
from engine.generation import Generation
from tests.api.servers import WEATHER, LiveServer, chat_body, connected, events_of, head, posted, served
from tests.fakes import EOS, Gate, fake_loaded, fake_model, with_hook

NEVER_ENDS = {EOS: -(10**6)}
ONE_AT_A_TIME = EngineConfig(max_running=1, max_waiting=1)


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.open()  # a test that failed must not keep the server from its end


@pytest.fixture
def cancelled(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Set when a generation is first told to stop."""
    event, cancel = threading.Event(), Generation.cancel

    def cancel_and_tell(generation: Generation) -> None:
        cancel(generation)
        event.set()

    monkeypatch.setattr(Generation, "cancel", cancel_and_tell)
    return event


def num_passes(server: LiveServer) -> int:
    return fake_model(server.engine.loaded).num_forward_passes


def open_stream(server: LiveServer, **body: object) -> httpx.Response:
    request = server.http.build_request("POST", "/v1/chat/completions", json=chat_body(**body, stream=True))
    return server.http.send(request, stream=True)


@pytest.mark.parametrize("n", [1, 3])
def test_a_stream_whose_client_goes_away_stops_within_two_steps(gate: Gate, cancelled: threading.Event, n: int) -> None:
    with served(lambda: with_hook(fake_loaded(bonus=NEVER_ENDS), gate)) as server:
        response = open_stream(server, max_tokens=500, n=n)
        gate.let_through(8 * n)
        lines = response.iter_lines()  # a name: collected as garbage, it would close the connection
        assert next(lines).startswith("data: ")
        for _ in range(8 * n + 1):  # all that were let through have run, and the next one waits
            assert gate.arrived.acquire(timeout=30)
        response.close()
        assert cancelled.wait(30)
        gate.open()
        own = server.chat(max_tokens=2).json()["toolmask"]["forward_passes"]
        assert num_passes(server) - own <= 10 * n


def test_an_answer_that_nobody_waits_for_stops_within_two_steps(gate: Gate, cancelled: threading.Event) -> None:
    with served(lambda: with_hook(fake_loaded(bonus=NEVER_ENDS), gate)) as server:
        body = json.dumps(chat_body(max_tokens=500)).encode()
        with connected(server) as client:
            client.sendall(head(len(body)) + body)
            assert gate.arrived.acquire(timeout=30)
        assert cancelled.wait(30)
        gate.open()
        own = server.chat(max_tokens=2).json()["toolmask"]["forward_passes"]
        assert num_passes(server) - own <= 2


def test_a_server_that_executes_tools_stops_when_its_client_goes_away(gate: Gate, cancelled: threading.Event) -> None:
    with served(lambda: with_hook(fake_loaded(bonus=NEVER_ENDS), gate)) as server:
        body = json.dumps(chat_body(max_tokens=500, tools=["calculate"], tool_execution="server")).encode()
        with connected(server) as client:
            client.sendall(head(len(body)) + body)
            assert gate.arrived.acquire(timeout=30)
        assert cancelled.wait(30)
        gate.open()
        own = server.chat(max_tokens=2).json()["toolmask"]["forward_passes"]
        assert num_passes(server) - own <= 2


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", chat_body(tools=[WEATHER])),
        ("/v1/chat/completions", chat_body(tools=["calculate"], tool_execution="server")),
        ("/v1/responses", {"model": "fake", "input": "Hello", "tools": ["calculate"]}),
    ],
    ids=["chat", "server", "response"],
)
def test_the_pass_that_calibrates_a_request_stops_when_its_client_goes_away_and_nobody_waits_for_it(
    gate: Gate, cancelled: threading.Event, path: str, body: object
) -> None:
    config = EngineConfig(decision=DecisionOptions(), prompt_cache_memory=0, prefill_chunk=8)
    with served(lambda: with_hook(fake_loaded(bonus=NEVER_ENDS), gate), engine_config=config) as server:
        with connected(server) as client:
            client.sendall(posted(path, body))
            assert gate.arrived.acquire(timeout=30)
        assert cancelled.wait(30)
        assert server.http.get("/health").status_code == 200
        gate.open()
        own = server.chat(max_tokens=2).json()["toolmask"]["forward_passes"]
        assert num_passes(server) - own <= 2


def test_after_disconnects_no_request_holds_the_model_and_no_sequence_runs(gate: Gate) -> None:
    with served(lambda: with_hook(fake_loaded(bonus=NEVER_ENDS), gate)) as server:
        for _ in range(4):
            open_stream(server, max_tokens=500).close()
        gate.open()
        # Unloading waits for the requests in flight, so it would wait for the leaked ones too.
        unloaded = server.http.post("/v1/models/unload", json={"model": "fake"})
        assert unloaded.json() == {"id": "fake", "object": "model", "unloaded": True}
        assert server.chat().status_code == 503


def test_a_full_queue_is_a_429_that_says_when_to_come_back(gate: Gate) -> None:
    model = with_hook(fake_loaded(bonus=NEVER_ENDS), gate)
    with served(model, engine_config=ONE_AT_A_TIME) as server:
        running = open_stream(server, max_tokens=3)
        assert gate.arrived.acquire(timeout=30)
        waiting = open_stream(server, max_tokens=3)
        for stream in (False, True):
            refused = server.chat(stream=stream)
            assert refused.status_code == 429
            assert int(refused.headers["retry-after"]) >= 1
            assert refused.json()["error"]["type"] == "rate_limit_error"
        gate.open()
        for response in (running, waiting):
            response.read()
            assert events_of(response)[-1] == "data: [DONE]"
        assert server.chat().status_code == 200


def test_choices_that_do_not_fit_into_the_queue_leave_none_behind(gate: Gate) -> None:
    config = EngineConfig(max_running=1, max_waiting=2)
    with served(with_hook(fake_loaded(bonus=NEVER_ENDS), gate), engine_config=config) as server:
        running = open_stream(server, max_tokens=3)
        assert gate.arrived.acquire(timeout=30)
        waiting = open_stream(server, max_tokens=3)
        assert server.chat(n=2).status_code == 429
        gate.open()
        for response in (running, waiting):
            response.read()
            assert events_of(response)[-1] == "data: [DONE]"
        assert server.chat(n=2, max_tokens=3).status_code == 200


def test_an_answer_that_takes_too_long_is_a_504_and_stops(gate: Gate, cancelled: threading.Event) -> None:
    with served(with_hook(fake_loaded(bonus=NEVER_ENDS), gate), request_timeout_s=0.5) as server:
        late = server.chat(max_tokens=500)
        assert (late.status_code, late.json()["error"]["code"]) == (504, "request_timeout")
        assert late.headers["x-should-retry"] == "false"
        assert cancelled.is_set()
        *_, last = events_of(server.chat(max_tokens=500, stream=True))
        assert last == late.json()
        assert server.chat(tools=["calculate"], tool_execution="server", max_tokens=500).status_code == 504
        gate.open()


def test_a_server_that_is_told_to_stop_lets_streams_end(gate: Gate) -> None:
    with served(with_hook(fake_loaded(bonus=NEVER_ENDS), gate)) as server:
        response = open_stream(server, max_tokens=50)
        server.uvicorn.should_exit = True
        assert server.uvicorn.is_stopping.wait(30)
        gate.open()
        response.read()
        *chunks, done = events_of(response)
        assert done == "data: [DONE]"
        assert chunks[-1]["toolmask"]["forward_passes"] == 50
