"""How answers are written: JSON, and server-sent events."""

from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from typing import Protocol

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from api.convert.errors import WireError, from_exception
from api.jobs import Job
from api.schemas.common import ResponseModel
from engine.events import Event

DONE = "[DONE]"
EVENTS = "text/event-stream"
HEADERS = {"cache-control": "no-cache", "x-accel-buffering": "no"}  # the second: nginx must not collect events

# JSON may have these in strings as they are, but many clients cut lines at them, as Python's splitlines does.
LINE_BREAKS = {ord(character): f"\\u{ord(character):04x}" for character in "\x85\u2028\u2029"}


class Chunks(Protocol):
    """Turns events into what a stream sends of them."""

    ends_with_done: bool  # whether [DONE] follows where it succeeds

    def chunks(self, index: int, event: Event) -> Iterable[ResponseModel]:
        """What one choice's next event adds. Raises WireError where the answer failed."""

    def failed(self, error: WireError) -> Iterable[ResponseModel]:
        """What ends a stream that failed."""


def json_response(answer: ResponseModel, status: int = 200) -> Response:
    """An answer as JSON."""
    return Response(answer.json_text(), status, media_type="application/json")


def server_sent_event(data: str, name: str | None = None) -> bytes:
    """One event, its data in one line."""
    head = "" if name is None else f"event: {name}\n"
    return f"{head}data: {data.translate(LINE_BREAKS)}\n\n".encode()


def _sent(chunk: ResponseModel) -> bytes:
    return server_sent_event(chunk.json_text(), chunk.event_name)


def replayed(chunks: Chunks, events: Iterable[Event]) -> Response:
    """A stream whose events are all there already, of one choice. Raises WireError."""
    lines = [_sent(chunk) for event in events for chunk in chunks.chunks(0, event)]
    return Response(b"".join([*lines, server_sent_event(DONE)]), headers=HEADERS, media_type=EVENTS)


class EventStream(Response):
    """A job's events as they come. A stream that fails ends with an error, and says nowhere that it is complete."""

    media_type = EVENTS

    def __init__(self, job: Job, chunks: Chunks) -> None:
        super().__init__(headers=HEADERS)
        del self.headers["content-length"]
        self._job = job
        self._chunks = chunks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002  ASGI gives all three
        async with self._job, aclosing(self._data()) as lines:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            async for data in lines:
                await send({"type": "http.response.body", "body": data, "more_body": True})
            await send({"type": "http.response.body", "body": b""})

    async def _data(self) -> AsyncGenerator[bytes, None]:
        try:
            async with aclosing(self._job.events()) as events:
                async for index, event in events:
                    for chunk in self._chunks.chunks(index, event):
                        yield _sent(chunk)
        except Exception as error:  # of our own too: the client must not take what it has for the whole
            for chunk in self._chunks.failed(from_exception(error, self._job.paths)):
                yield _sent(chunk)
        else:
            if self._chunks.ends_with_done:
                yield server_sent_event(DONE)
