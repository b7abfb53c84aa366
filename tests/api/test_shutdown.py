"""A real server process and a real SIGTERM while a stream runs."""

import contextlib
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.api.servers import MODEL, TIMEOUT_S, chat_body, events_of


class Process:
    """The server's, as its starter sees it."""

    def __init__(self, popen: subprocess.Popen[str]) -> None:
        self.popen = popen
        self.port = int(self.said(r"http://127\.0\.0\.1:(\d+)"))

    def said(self, pattern: str) -> str:
        """What the next line on stderr that has this has of it."""
        assert self.popen.stderr is not None
        return next(found[1] for line in self.popen.stderr if (found := re.search(pattern, line)))

    def stop(self) -> None:
        """Returns once it has begun to stop."""
        self.popen.send_signal(signal.SIGTERM)
        self.said("(Waiting for connections)")

    def let_answers_go_on(self) -> None:
        assert self.popen.stdin is not None
        self.popen.stdin.write("\n")
        self.popen.stdin.flush()

    def exit_code(self) -> int:
        self.popen.communicate(timeout=TIMEOUT_S)
        return self.popen.returncode


@contextlib.contextmanager
def started(shutdown_timeout_s: int) -> Iterator[Process]:
    command = [sys.executable, "-m", "tests.api.fake_process", str(shutdown_timeout_s)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stderr=pipe, stdout=subprocess.DEVNULL, text=True) as popen:
        deadline = threading.Timer(2 * TIMEOUT_S, popen.kill)  # reading what it says has no end of its own
        deadline.start()
        try:
            yield Process(popen)
        finally:
            deadline.cancel()
            popen.kill()


@contextlib.contextmanager
def streaming(process: Process, **body: object) -> Iterator[httpx.Response]:
    """A stream that has begun; read to its end when this closes."""
    with httpx.Client(base_url=f"http://127.0.0.1:{process.port}", timeout=TIMEOUT_S) as http:
        http.post("/v1/models/load", json={"model": MODEL}).raise_for_status()
        with http.stream("POST", "/v1/chat/completions", json=chat_body(stream=True, **body)) as response:
            yield response
            response.read()


def test_a_stream_that_runs_at_a_sigterm_ends_whole_and_nobody_new_is_let_in() -> None:
    with started(shutdown_timeout_s=TIMEOUT_S) as process:
        with streaming(process, max_tokens=20) as response:
            process.stop()
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", process.port))
            process.let_answers_go_on()
        assert process.exit_code() == 0
    *chunks, done = events_of(response)
    assert done == "data: [DONE]"
    assert chunks[-1]["toolmask"]["forward_passes"] == 20


def test_what_takes_longer_than_the_shutdown_may_ends_with_an_error() -> None:
    with started(shutdown_timeout_s=0) as process, ThreadPoolExecutor() as pool:
        with streaming(process, max_tokens=4000) as response:
            url = f"http://127.0.0.1:{process.port}/v1/tools/execute"
            executed = pool.submit(httpx.post, url, json={"tool": "hang"}, timeout=TIMEOUT_S)
            process.said("(the tool hangs)")
            process.let_answers_go_on()
            process.popen.send_signal(signal.SIGTERM)
        assert process.exit_code() == 0
    *chunks, last = events_of(response)
    assert (last["error"]["code"], last["error"]["type"]) == ("shutting_down", "server_error")
    assert not any(choice["finish_reason"] for chunk in chunks for choice in chunk["choices"])
    refused = executed.result()
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "shutting_down")
