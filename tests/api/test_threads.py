"""Tools that hang and grammars that take for ever: how many threads they get, and what the others notice of them."""

import functools
import json
import logging
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pytest

from api.server import NUM_SUBMIT_THREADS
from engine.tools import calculate, tool
from tests.api.servers import LiveServer, busy, call_text, connected, fake_that_answers, is_idle, posted, served
from tests.api.servers import wait_until as until
from tests.fakes import EOS, fake_loaded

EXECUTE = "/v1/tools/execute"
WAIT = {"tool": "wait", "args": {}}
NEVER_ENDS = {EOS: -(10**6)}


@dataclass
class Hanging:
    """A tool that does not return before it may."""

    may_end: threading.Event = field(default_factory=threading.Event)
    begun: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    def tool(self) -> Any:
        @tool
        def wait() -> str:
            """Wait for ever."""
            self.begun.release()
            assert self.may_end.wait(30)
            return "done"

        return wait


@pytest.fixture
def hanging() -> Iterator[Hanging]:
    hanging = Hanging()
    yield hanging
    hanging.may_end.set()
    until(lambda: num_threads() == 0)


def num_threads() -> int:
    """Those of tools and of requests that are being submitted."""
    return sum(thread.name in {"toolmask-tools", "toolmask-submissions"} for thread in threading.enumerate())


def test_tools_that_hang_take_no_more_threads_than_there_are_for_them(hanging: Hanging) -> None:
    tools = (hanging.tool(), calculate)
    with served(tools=tools, request_timeout_s=0.5, max_tool_threads=2) as server:
        late = [server.http.post(EXECUTE, json=WAIT) for _ in range(2)]
        assert [(each.status_code, each.json()["error"]["code"]) for each in late] == [(504, "request_timeout")] * 2
        assert num_threads() == 2
        for refused in (server.http.post(EXECUTE, json=WAIT), server.chat(tool_execution="server")):
            assert (refused.status_code, refused.json()["error"]["code"]) == (429, "server_busy")
            assert int(refused.headers["retry-after"]) >= 1
        assert num_threads() == 2
        assert server.http.get("/health").status_code == 200
        hanging.may_end.set()
        until(lambda: num_threads() == 0)
        sums = server.http.post(EXECUTE, json={"tool": "calculate", "args": {"expression": "1 + 1"}})
        assert sums.json() == {"success": True, "result": 2.0}


def test_a_request_whose_tool_hangs_ends_and_keeps_its_thread_only(hanging: Hanging) -> None:
    model = fake_that_answers(lambda prompt: "Done." if "tool_response" in prompt else call_text("wait", "{}"))
    with served(model, tools=(hanging.tool(),), request_timeout_s=1, max_tool_threads=1) as server:
        body = {"tools": ["wait"], "tool_execution": "server", "max_tokens": 100}
        assert server.chat(**body).status_code == 504
        assert is_idle(server)
        assert hanging.begun.acquire(timeout=30)
        assert server.chat(**body).status_code == 429


def test_a_tool_whose_client_goes_away_is_waited_for_no_longer(
    hanging: Hanging, caplog: pytest.LogCaptureFixture
) -> None:
    def statuses() -> list[int]:
        lines = [json.loads(record.message) for record in caplog.records if record.name == "toolmask.access"]
        return [line["status"] for line in lines]

    with caplog.at_level(logging.INFO, "toolmask.access"), served(tools=(hanging.tool(),)) as server:
        with connected(server) as client:
            client.sendall(posted(EXECUTE, WAIT))
            assert hanging.begun.acquire(timeout=30)
        until(lambda: statuses() == [499])


@pytest.fixture
def stuck(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[LiveServer, threading.Event]]:
    """A server whose requests compile until they may end."""
    may_end = threading.Event()
    with served(fake_loaded(bonus=NEVER_ENDS), request_timeout_s=0.6, max_queue=2) as server:
        submit = server.engine.submit_choices

        def wait_and_submit(*arguments: Any) -> Any:
            assert may_end.wait(30)
            return submit(*arguments)

        monkeypatch.setattr(server.engine, "submit_choices", wait_and_submit)
        yield server, may_end
        may_end.set()
        until(lambda: num_threads() == 0)


def test_a_request_that_compiles_for_too_long_is_a_504_and_never_runs(
    stuck: tuple[LiveServer, threading.Event],
) -> None:
    server, may_end = stuck
    late = server.chat(max_tokens=4000)
    assert (late.status_code, late.json()["error"]["code"]) == (504, "request_timeout")
    assert server.manager.num_requests == 0
    may_end.set()
    until(lambda: num_threads() == 0)
    until(lambda: busy(server) == 0)


def test_requests_that_compile_keep_neither_tools_nor_tokens_waiting(
    stuck: tuple[LiveServer, threading.Event],
) -> None:
    server, may_end = stuck
    with ThreadPoolExecutor(NUM_SUBMIT_THREADS + 3) as pool:
        answers = list(pool.map(lambda _: server.chat(), range(NUM_SUBMIT_THREADS + 3)))
        sums = server.http.post(EXECUTE, json={"tool": "calculate", "args": {"expression": "1 + 1"}})
        tokens = server.http.post("/v1/tokenize", json={"text": "a"})
    # Those that have a thread, two that wait for one, and one that may not even wait.
    assert sorted(answer.status_code for answer in answers) == [429, *[504] * (NUM_SUBMIT_THREADS + 2)]
    assert (sums.status_code, tokens.status_code) == (200, 200)
    may_end.set()
    until(lambda: num_threads() == 0)


def test_a_client_that_leaves_while_its_request_compiles_lets_the_model_go(
    stuck: tuple[LiveServer, threading.Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, _ = stuck
    begun = threading.Event()
    submit = server.engine.submit_choices
    monkeypatch.setattr(server.engine, "submit_choices", functools.partial(tell_and_call, begun, submit))
    with connected(server) as client:
        client.sendall(
            posted("/v1/chat/completions", {"model": "fake", "messages": [{"role": "user", "content": "x"}]})
        )
        assert begun.wait(30)
        assert server.manager.num_requests == 1
    until(lambda: server.manager.num_requests == 0)


def tell_and_call(begun: threading.Event, submit: Any, *arguments: Any) -> Any:
    begun.set()
    return submit(*arguments)
