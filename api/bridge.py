"""From the decoding thread to the event loop, and a client's leaving back to the decoding thread."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence

from starlette.types import Receive

from engine.events import Event, Finished
from engine.generation import Generation

Delivered = Event | Exception


class EventQueue:
    """Events of several choices, in the order in which the decoding thread wrote them.

    Made in the event loop; `deliver` may be called in any thread. A client that reads slowly makes this grow, up to
    the answer's own length.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[tuple[int, Delivered]] = asyncio.Queue()

    def deliver(self, index: int, event: Delivered) -> None:
        """Pass on what one choice reports."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits for this any more
            self._loop.call_soon_threadsafe(self._queue.put_nowait, (index, event))

    async def events(self, num_choices: int, deadline: float) -> AsyncIterator[tuple[int, Event]]:
        """Every event, until all choices have finished.

        deadline: by the loop's clock. Raises what ended a choice before it finished, or TimeoutError.
        """
        num_running = num_choices
        while num_running:
            async with asyncio.timeout_at(deadline):
                index, event = await self._queue.get()
            if isinstance(event, Exception):
                raise event
            num_running -= isinstance(event, Finished)
            yield index, event


def cancel_all(generations: Sequence[Generation]) -> None:
    """Let each stop within a step; those that have ended are left alone."""
    for generation in generations:
        generation.cancel()


@contextlib.asynccontextmanager
async def on_disconnect(receive: Receive, call: Callable[[], None]) -> AsyncIterator[None]:
    """While this is open, call once as soon as the client goes away. The request's body must have been read."""

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        call()

    watcher = asyncio.create_task(watch())
    try:
        yield
    finally:
        watcher.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watcher
