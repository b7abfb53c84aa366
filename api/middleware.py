"""What happens around every request: its id, the access log, the key, the body's limit. Pure ASGI.

Starlette's BaseHTTPMiddleware would hide a client's disconnect from the endpoint.
"""

import hmac
import json
import logging
import time
import uuid
from collections.abc import Callable

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.convert.errors import WireError

access_log = logging.getLogger("toolmask.access")

OPEN_PATHS = ("/health", "/docs", "/openapi.json")  # what answers without a key
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS")
MAX_DRAINED_BYTES = 64 * 2**20
OnAnswered = Callable[[str, str, int, float], None]  # route, method, status, seconds


async def send_error(error: WireError, send: Send) -> None:
    """Answer with this error."""
    body = error.json_text().encode()
    headers = MutableHeaders({"content-type": "application/json", "content-length": str(len(body)), **error.headers})
    await send({"type": "http.response.start", "status": error.status, "headers": headers.raw})
    await send({"type": "http.response.body", "body": body})


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


class ApiKey:
    """Refuses requests without the key. Compared in constant time: how long it takes tells nothing of the key."""

    def __init__(self, app: ASGIApp, key: str) -> None:
        self._app = app
        self._expected = f"Bearer {key}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS or self._is_right(scope):
            await self._app(scope, receive, send)
            return
        message = "the API key is missing or wrong; send it as Authorization: Bearer KEY"
        await send_error(WireError(401, message, code="invalid_api_key", headers={"www-authenticate": "Bearer"}), send)

    def _is_right(self, scope: Scope) -> bool:
        given = Headers(scope=scope).get("authorization", "").encode("latin-1")
        return hmac.compare_digest(given, self._expected)


class BodyLimit:
    """Refuses bodies that are too long, by their header or, where that is missing or false, as they come."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        length = Headers(scope=scope).get("content-length", "0")
        if length.isdigit() and int(length[:20]) > self._max_bytes:
            await _drain(receive)
            await send_error(self._error(), send)
            return
        num_bytes = 0

        async def receive_bounded() -> Message:
            nonlocal num_bytes
            message = await receive()
            num_bytes += len(message.get("body", b""))
            if num_bytes > self._max_bytes:
                if message.get("more_body", False):
                    await _drain(receive)
                # The one exception that FastAPI lets through while it reads a body.
                raise HTTPException(413, str(self._error()))
            return message

        await self._app(scope, receive_bounded, send)

    def _error(self) -> WireError:
        return WireError(413, f"the body has more than {self._max_bytes} bytes", code="body_too_large")


async def _drain(receive: Receive) -> None:
    """Read what is left of a body, within reason: many clients read no answer before they have sent everything."""
    num_bytes = 0
    while num_bytes < MAX_DRAINED_BYTES:
        message = await receive()
        num_bytes += len(message.get("body", b""))
        if not message.get("more_body", False):
            return
