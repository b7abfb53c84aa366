"""A stream of the upstream's, passed on as it comes; its first chunk says who answered."""

import json
from collections.abc import AsyncGenerator
from contextlib import aclosing

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from api.convert.errors import from_exception
from api.convert.handed_over import read_object, with_answered_by
from api.responses import DONE, EVENTS, HEADERS, server_sent_event
from api.schemas.common import AnsweredBy
from api.schemas.errors import ErrorResponse


class RelayedStream(Response):
    """Ends as the upstream's does, with [DONE]; where that fails, with an error event and without [DONE]."""

    media_type = EVENTS

    def __init__(self, data: AsyncGenerator[str, None], by: AnsweredBy) -> None:
        """data: of each event. It is closed when the answer has been sent."""
        super().__init__(headers=HEADERS)
        del self.headers["content-length"]
        self._data = data
        self._by = by

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002  ASGI gives all three
        async with aclosing(self._data), aclosing(self._lines()) as lines:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            async for line in lines:
                await send({"type": "http.response.body", "body": line, "more_body": True})
            await send({"type": "http.response.body", "body": b""})

    async def _lines(self) -> AsyncGenerator[bytes, None]:
        is_first = True
        try:
            async for data in self._data:
                yield server_sent_event(self._named(data) if is_first else data)
                is_first = False
        except Exception as error:  # the client must not take what it has for the whole
            yield server_sent_event(ErrorResponse(error=from_exception(error).body).json_text())

    def _named(self, data: str) -> str:
        chunk = None if data == DONE else read_object(data)
        return data if chunk is None else json.dumps(with_answered_by(chunk, self._by))
