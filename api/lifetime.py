"""How long a request may go on: up to its time limit, or until its client leaves, falls behind, or the server stops.

Whatever a request waits for is waited for in `bound`, so that one end reaches all of it.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import fastapi

from api.convert.errors import DO_NOT_RETRY, SERVER, WireError

STATE_KEY = "lifetime"  # where a request's state has it


class Lifetime:
    """One request's. For the event loop only."""

    def __init__(self, limit_s: float) -> None:
        """Begins now, and ends with a 504 after limit_s seconds."""
        self._loop = asyncio.get_running_loop()
        self._end = self._loop.time() + limit_s
        self._error = _too_slow(limit_s)
        self._waits: set[asyncio.Timeout] = set()
        self.cleanup = contextlib.AsyncExitStack()  # closed when the request has been answered, however that went

    @property
    def is_over(self) -> bool:
        return self._loop.time() >= self._end

    def check(self) -> None:
        """Raises WireError once this is over. For loops that may never wait, which `bound` cannot end."""
        if self.is_over:
            raise self._error

    def end(self, error: WireError) -> None:
        """End what is waited for, now, with this error. The first end counts."""
        if self.is_over:
            return
        self._end, self._error = self._loop.time(), error
        for wait in self._waits:
            wait.reschedule(self._end)

    @contextlib.asynccontextmanager
    async def bound(self) -> AsyncIterator[None]:
        """Raises WireError where this ends while the body waits. What needs no waiting is done even after the end."""
        wait = asyncio.timeout_at(self._end)
        try:
            async with wait:
                self._waits.add(wait)
                try:
                    yield
                finally:
                    self._waits.discard(wait)
        except TimeoutError:
            if wait.expired():
                raise self._error from None
            raise  # of something else


class Lifetimes:
    """Those of all requests that are being answered."""

    def __init__(self) -> None:
        self._open: set[Lifetime] = set()

    @contextlib.asynccontextmanager
    async def opened(self, limit_s: float) -> AsyncIterator[Lifetime]:
        """A new one; leaving it cleans up what belongs to its request."""
        lifetime = Lifetime(limit_s)
        self._open.add(lifetime)
        try:
            async with lifetime.cleanup:
                yield lifetime
        finally:
            self._open.discard(lifetime)

    def end_all(self, error: WireError) -> None:
        """End every request that is being answered."""
        for lifetime in list(self._open):
            lifetime.end(error)


def lifetime_of(request: fastapi.Request) -> Lifetime:
    """The request's, since its head arrived."""
    lifetime: Lifetime = getattr(request.state, STATE_KEY)
    return lifetime


def _too_slow(limit_s: float) -> WireError:
    message = f"the answer took more than {limit_s:g} seconds"
    return WireError(504, message, kind=SERVER, code="request_timeout", headers=DO_NOT_RETRY)
