"""Clients that send or read slowly, or not at all: their time is bounded, and so is what they take of the server."""

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send

from api.bridge import EventQueue
from api.connections import ABORT_KEY
from api.convert.errors import WireError
from api.lifetime import Lifetime, Lifetimes
from api.middleware import Bounded
from engine.events import TextDelta
from tests.api.servers import LiveServer, chat_body, connected, head, is_idle, posted, served, wait_until
from tests.fakes import EOS, fake_loaded, fake_model

NEVER_ENDS = {EOS: -(10**6)}
SMALL = 4096  # bytes that the system takes for a client that does not read
CHAT = "/v1/chat/completions"
GONE = WireError(503, "gone")


def answer_of(client: socket.socket) -> tuple[int, dict[str, str], Any]:
    """Status, headers and JSON of a connection's only answer; the server closes it."""
    first, _, body = rest_of(client).partition(b"\r\n\r\n")
    status, *lines = first.decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    return int(status.split()[1]), headers, json.loads(body)


def rest_of(client: socket.socket) -> bytes:
    """All that still comes; the system may tell of a closed connection either way."""
    data = b""
    with contextlib.suppress(ConnectionResetError):
        while part := client.recv(65536):
            data += part
    return data


def num_connections(server: LiveServer) -> int:
    return len(server.uvicorn.server_state.connections)


@pytest.fixture(scope="module")
def hasty() -> Iterator[LiveServer]:
    """Its requests have less than a second."""
    with served(request_timeout_s=0.4, max_body_bytes=1000) as server:
        yield server


# Sending.


def test_a_body_that_does_not_arrive_in_time_is_a_408(hasty: LiveServer) -> None:
    with connected(hasty) as client:
        client.sendall(head(100) + b"{")
        status, headers, body = answer_of(client)
    assert (status, headers["connection"]) == (408, "close")
    assert headers["x-request-id"]
    assert (body["error"]["code"], body["error"]["type"]) == ("request_timeout", "invalid_request_error")


@pytest.mark.parametrize("length", ["content-length: 2000", "transfer-encoding: chunked"])
def test_a_body_that_is_too_long_and_does_not_arrive_is_a_413_all_the_same(hasty: LiveServer, length: str) -> None:
    with connected(hasty) as client:
        start = f"POST {CHAT} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n{length}\r\n\r\n".encode()
        piece = b"x" * 1001 if "content" in length else b"3e9\r\n" + b"x" * 1001 + b"\r\n"
        client.sendall(start + piece)
        status, headers, body = answer_of(client)
    assert (status, headers["connection"]) == (413, "close")
    assert body["error"]["code"] == "body_too_large"


@pytest.mark.parametrize("start", [b"", b"POST /v1/chat"])
@pytest.mark.parametrize("is_first", [True, False])
def test_a_head_that_does_not_arrive_in_time_ends_the_connection(
    hasty: LiveServer, start: bytes, is_first: bool
) -> None:
    before = num_connections(hasty)
    with connected(hasty) as client:
        if not is_first:
            client.sendall(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")
            assert client.recv(65536).startswith(b"HTTP/1.1 200")
            start = start or b"G"  # an idle connection may wait for longer
        client.sendall(start)
        while client.recv(65536):
            pass
    wait_until(lambda: num_connections(hasty) == before)


# Reading.


def test_a_stream_that_is_not_read_gives_its_model_back_when_its_time_is_up() -> None:
    with served(fake_loaded(bonus=NEVER_ENDS), request_timeout_s=1) as server:
        before = num_connections(server)
        with connected(server, receive_buffer=SMALL) as client:
            client.sendall(posted(CHAT, chat_body(stream=True, max_tokens=4000, logprobs=True, top_logprobs=20)))
            assert client.recv(13) == b"HTTP/1.1 200 "
            wait_until(lambda: is_idle(server))
            wait_until(lambda: num_connections(server) == before)


def test_a_stream_that_is_not_read_is_cut_off_when_too_much_waits_for_it() -> None:
    body = chat_body(stream=True, max_tokens=4000, logprobs=True, top_logprobs=20)
    with (
        served(fake_loaded(bonus=NEVER_ENDS), max_backlog=200) as server,
        connected(server, receive_buffer=SMALL) as client,
    ):
        client.sendall(posted(CHAT, body, "connection: close"))
        assert client.recv(13) == b"HTTP/1.1 200 "
        unloaded = server.http.post("/v1/models/unload", json={"model": "fake"})
        assert unloaded.json()["unloaded"] is True
        assert fake_model(server.engine.loaded).num_forward_passes < 4000
        assert b"[DONE]" not in rest_of(client)


def test_an_answer_that_is_not_taken_does_not_keep_its_connection() -> None:
    with served(request_timeout_s=1) as server:
        before = num_connections(server)
        with connected(server, receive_buffer=SMALL) as client:
            client.sendall(posted("/v1/tokenize", {"text": "a " * 10**5}, "connection: close"))
            wait_until(lambda: num_connections(server) == before + 1)
            wait_until(lambda: num_connections(server) == before)


# The parts.


def test_events_that_are_there_already_do_not_outlast_the_time() -> None:
    async def read() -> None:
        lifetime, queue = Lifetime(60), EventQueue(10, lambda: None)
        for text in "abc":
            queue.deliver(0, TextDelta(text))
        await asyncio.sleep(0)
        events = queue.events(1, lifetime)
        assert (await anext(events)) == (0, TextDelta("a"))
        lifetime.end(GONE)
        with pytest.raises(WireError, match="gone"):
            await anext(events)

    asyncio.run(read())


def test_a_queue_that_is_full_takes_no_more_and_tells_once() -> None:
    told: list[str] = []

    async def fill() -> list[Any]:
        lifetime, queue = Lifetime(60), EventQueue(3, lambda: told.append("full"))
        for text in "abcdef":
            queue.deliver(0, TextDelta(text))
        await asyncio.sleep(0)
        events = queue.events(1, lifetime)
        return [(await anext(events))[1] for _ in range(3)]

    assert asyncio.run(fill()) == [TextDelta("a"), TextDelta("b"), TextDelta("c")]
    assert told == ["full"]


class Peer:
    """A client behind a connection: its body, whether it takes what is sent, and what it was sent."""

    def __init__(self, *, reads: bool) -> None:
        self.sent: list[Message] = []
        self.was_aborted = False
        self.has_left = asyncio.Event()
        self._reads = reads
        self._body_is_sent = False

    async def receive(self) -> Message:
        if not self._body_is_sent:
            self._body_is_sent = True
            return {"type": "http.request", "body": b"{}", "more_body": False}
        await self.has_left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        if not self._reads and message["type"] == "http.response.body":
            await self.has_left.wait()
        self.sent.append(message)

    def abort(self) -> None:
        self.was_aborted = True
        self.has_left.set()


START = {"type": "http.response.start", "status": 200, "headers": []}
PART = {"type": "http.response.body", "body": b"data: 1\n\n", "more_body": True}


async def answer(receive: Receive, send: Send) -> AsyncIterator[None]:
    await receive()
    await send(START)
    while True:
        await send(PART)
        yield


@pytest.mark.parametrize("ends_by_itself", [True, False])
def test_sending_to_a_client_that_does_not_read_ends_with_the_request(ends_by_itself: bool) -> None:
    cleaned: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"]["lifetime"].cleanup.callback(cleaned.append, "cleaned")
        if not ends_by_itself:
            asyncio.get_running_loop().call_soon(lifetimes.end_all, GONE)
        async for _ in answer(receive, send):
            pass

    async def run() -> Peer:
        peer = Peer(reads=False)
        scope = {"type": "http", "state": {ABORT_KEY: peer.abort}}
        await Bounded(app, lifetimes, 0.01 if ends_by_itself else 60)(scope, peer.receive, peer.send)
        return peer

    lifetimes = Lifetimes()
    peer = asyncio.run(run())
    assert (peer.was_aborted, cleaned) == (True, ["cleaned"])
    assert peer.sent == [START]


def test_a_client_that_reads_is_sent_the_last_words_after_the_end() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(START)
        scope["state"]["lifetime"].end(GONE)
        await send(PART)

    async def run() -> Peer:
        peer = Peer(reads=True)
        await Bounded(app, Lifetimes(), 60)({"type": "http", "state": {}}, peer.receive, peer.send)
        return peer

    peer = asyncio.run(run())
    assert peer.sent == [START, PART]
    assert not peer.was_aborted


def test_an_error_of_the_applications_own_is_not_taken_for_its_time() -> None:
    async def run() -> None:
        async with Lifetime(60).bound():
            raise TimeoutError("of a tool")

    with pytest.raises(TimeoutError, match="of a tool"):
        asyncio.run(run())
