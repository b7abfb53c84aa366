"""What happens around every request: its id, the access log, its lifetime, the key, the body's limit. Pure ASGI.

Starlette's BaseHTTPMiddleware would hide a client's disconnect from the endpoint.
"""

import asyncio
import hmac
import json
import logging
import time
import uuid
from collections.abc import Callable, Mapping

import anyio
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.connections import ABORT_KEY
from api.convert.answers import cancelled
from api.convert.errors import WireError, from_exception
from api.lifetime import STATE_KEY, Lifetime, Lifetimes

access_log = logging.getLogger("toolmask.access")
logger = logging.getLogger(__name__)

OPEN_PATHS = ("/health", "/docs", "/openapi.json")  # what answers without a key
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS")
MAX_DRAINED_BYTES = 64 * 2**20
LINGER_S = 2  # for a refused body whose rest may be on its way; a shutdown waits no longer for it
CLOSE = {"connection": "close"}  # what is left of the body would be taken for the next request
OnAnswered = Callable[[str, str, int, float], None]  # route, method, status, seconds


class RefusedBodyError(HTTPException):
    """What ends the reading of a body. FastAPI lets no other exception through there."""

    def __init__(self, error: WireError) -> None:
        super().__init__(error.status, str(error), dict(error.headers))
        self.error = error


class CutOffError(Exception):
    """The answer cannot be sent on: the request is over, and its client does not read."""


async def send_error(error: WireError, send: Send, *, is_last: bool = True) -> None:
    """Answer with this error. is_last: whether the answer ends with it; else an empty part has to follow."""
    body = error.json_text().encode()
    headers = MutableHeaders({"content-type": "application/json", "content-length": str(len(body)), **error.headers})
    await send({"type": "http.response.start", "status": error.status, "headers": headers.raw})
    await send({"type": "http.response.body", "body": body, "more_body": not is_last})


class AccessLog:
    """Gives each request an id, and writes one JSON line when it has been answered. No texts of clients are in it."""

    def __init__(self, app: ASGIApp, on_answered: OnAnswered) -> None:
        self._app = app
        self._on_answered = on_answered

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = f"req_{uuid.uuid4().hex}"
        scope.setdefault("state", {})["request_id"] = request_id
        start, status = time.perf_counter(), 500

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["x-request-id"] = request_id
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        finally:
            self._write(scope, request_id, status, time.perf_counter() - start)

    def _write(self, scope: Scope, request_id: str, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "(none)")  # as declared; unknown paths count as one
        method = scope["method"] if scope["method"] in METHODS else "(other)"  # clients may make up any
        self._on_answered(route, method, status, seconds)
        client = scope.get("client")
        line = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "request_id": request_id,
            "client": client[0] if client else None,
            "method": scope["method"],
            "path": scope["path"],
            "status": status,
            "duration_ms": round(seconds * 1000, 3),
        }
        access_log.info(json.dumps(line))


class Failures:
    """Answers what nobody foresaw, within what adds headers to answers. Its text goes to the log only."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        has_started = False

        async def send_noting_the_start(message: Message) -> None:
            nonlocal has_started
            has_started = True
            await send(message)

        try:
            await self._app(scope, receive, send_noting_the_start)
        except Exception as error:
            if has_started:
                raise  # the server closes the connection, so that nobody takes half an answer for a whole one
            await send_error(from_exception(error), send)


class Bounded:
    """Gives each request its lifetime, which binds reading its body, watching its client, and sending its answer."""

    def __init__(self, app: ASGIApp, lifetimes: Lifetimes, limit_s: float) -> None:
        self._app = app
        self._lifetimes = lifetimes
        self._limit_s = limit_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        async with self._lifetimes.opened(self._limit_s) as lifetime:
            scope["state"][STATE_KEY] = lifetime
            client = _Client(lifetime, self._limit_s, receive, send)
            try:
                await self._app(scope, client.receive, client.send)
            except CutOffError as error:
                await self._cut_off(scope, receive, error)
            finally:
                client.forget()

    async def _cut_off(self, scope: Scope, receive: Receive, error: CutOffError) -> None:
        """Close the connection without waiting for its client to take what was written. Raises where it cannot."""
        abort = scope["state"].get(ABORT_KEY)
        if abort is None:
            raise error
        logger.warning("%s is cut off: %s", scope["state"].get("request_id"), error)
        abort()
        while (await receive())["type"] != "http.disconnect":
            pass


class _Client:
    """Whoever sent a request, as the application sees it."""

    def __init__(self, lifetime: Lifetime, limit_s: float, receive: Receive, send: Send) -> None:
        self._lifetime = lifetime
        self._limit_s = limit_s
        self._receive = receive
        self._send = send
        self._watcher: asyncio.Task[None] | None = None  # once the body has been read

    async def receive(self) -> Message:
        """The body's next part; after the last one, the client's leaving. Raises RefusedBodyError."""
        if self._watcher is not None:
            await asyncio.shield(self._watcher)
            return {"type": "http.disconnect"}
        try:
            self._lifetime.check()  # where parts are there already, reading does not wait
            async with self._lifetime.bound():
                message = await self._receive()
        except WireError as error:
            raise RefusedBodyError(self._refusal(error)) from error
        if not message.get("more_body", False):
            self._watcher = asyncio.create_task(self._watch())
        return message

    async def send(self, message: Message) -> None:
        """Raises CutOffError where the request is over and the client does not read; else all of it can be sent."""
        try:
            async with self._lifetime.bound():
                await self._send(message)
        except WireError as error:
            raise CutOffError(str(error)) from error

    def forget(self) -> None:
        """Watch no longer. Waits for nothing: a client's next request must not be logged before this one."""
        if self._watcher is not None:
            self._watcher.cancel()

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._lifetime.end(cancelled())

    def _refusal(self, error: WireError) -> WireError:
        if error.status != 504:
            return WireError(
                error.status, str(error), kind=error.body.type, code=error.body.code, headers={**error.headers, **CLOSE}
            )
        message = f"the body did not arrive within {self._limit_s:g} seconds"
        return WireError(408, message, code="request_timeout", headers=CLOSE)


class ApiKey:
    """Refuses requests without the key. Compared in constant time: how long it takes tells nothing of the key."""

    def __init__(self, app: ASGIApp, key: str) -> None:
        self._app = app
        self._expected = key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS or self._is_right(scope):
            await self._app(scope, receive, send)
            return
        message = "the API key is missing or wrong; send it as Authorization: Bearer KEY"
        await send_error(WireError(401, message, code="invalid_api_key", headers={"www-authenticate": "Bearer"}), send)

    def _is_right(self, scope: Scope) -> bool:
        scheme, _, given = Headers(scope=scope).get("authorization", "").partition(" ")
        is_equal = hmac.compare_digest(given.strip(" ").encode("latin-1"), self._expected)
        return scheme.lower() == "bearer" and is_equal  # schemes have no case: RFC 9110, 11.1


class BodyLimit:
    """Refuses bodies that are compressed or too long, by their head or, where that has no length, as they come."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if (fault := self._fault(Headers(scope=scope))) is not None:
            await _refuse(fault, receive, send)
            return
        num_bytes = 0

        async def receive_bounded() -> Message:
            nonlocal num_bytes
            message = await receive()
            num_bytes += len(message.get("body", b""))
            if num_bytes > self._max_bytes:
                raise RefusedBodyError(await self._refusal(receive, message))
            return message

        await self._app(scope, receive_bounded, send)

    def _fault(self, headers: Headers) -> WireError | None:
        """What is wrong with a body that has this head."""
        encoding, length = headers.get("content-encoding", ""), headers.get("content-length", "0")
        if encoding.strip().lower() not in ("", "identity"):
            message = f"compressed bodies are not read; send it without Content-Encoding: {encoding:.80}"
            return WireError(415, message, code="unsupported_encoding", headers=CLOSE)
        if length.isdigit() and int(length[:20]) > self._max_bytes:
            return self._too_large(CLOSE)
        return None

    async def _refusal(self, receive: Receive, latest: Message) -> WireError:
        is_read = await _drain(receive) if latest.get("more_body", False) else True
        return self._too_large({} if is_read else CLOSE)

    def _too_large(self, headers: Mapping[str, str]) -> WireError:
        message = f"the body has more than {self._max_bytes} bytes"
        return WireError(413, message, code="body_too_large", headers=headers)


async def _refuse(error: WireError, receive: Receive, send: Send) -> None:
    """Answer before the body comes, and without asking for it. Then take for a while what comes all the same.

    To close at once would reset the connection, and with it take the answer from a client that still sends.
    """
    await send_error(error, send, is_last=False)
    with anyio.move_on_after(LINGER_S):
        await _drain(receive)
    await send({"type": "http.response.body", "body": b""})


async def _drain(receive: Receive) -> bool:
    """Read what is left of a body, within reason: many clients read no answer before they have sent everything.

    Returns whether that was all.
    """
    num_bytes = 0
    while num_bytes < MAX_DRAINED_BYTES:
        try:
            message = await receive()
        except RefusedBodyError:  # too slow: what is wrong with it is known without the rest
            return False
        num_bytes += len(message.get("body", b""))
        if not message.get("more_body", False):
            return True
    return False
