"""Connections that uvicorn would keep for as long as their clients like: an end to that."""

import asyncio
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

ABORT_KEY = "abort_connection"  # where a request's state has what closes its connection without waiting


class Connection(H11Protocol):
    """Bounds what no application sees: a request's head on its way in, and the last of an answer on its way out."""

    def __init__(
        self,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        limit_s: float,
    ) -> None:
        """limit_s: how long a head, and the last of an answer, may take."""
        super().__init__(config, server_state, {**app_state, ABORT_KEY: self._abort}, _loop)
        self._limit_s = limit_s
        self._head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvicorn narrows it too
        super().connection_made(transport)
        self._time_head()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._time_head()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._stop_head_timer()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.is_closing():
            self._bound_flush()

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self._bound_flush()

    def _time_head(self) -> None:
        is_between_requests = self.cycle is None or self.cycle.response_complete
        if not is_between_requests or self.transport.is_closing():
            self._stop_head_timer()
        elif self._head_timer is None:
            self._head_timer = self.loop.call_later(self._limit_s, self.timeout_keep_alive_handler)

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _bound_flush(self) -> None:
        """A transport that is closing waits until its client has taken everything."""
        if self.transport.get_write_buffer_size() > 0:
            self.loop.call_later(self._limit_s, self._abort)

    def _abort(self) -> None:
        self.transport.abort()
