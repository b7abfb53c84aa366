"""From the decoding thread to the event loop."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Sequence

from api.lifetime import Lifetime
from engine.events import Event, Finished
from engine.generation import Generation

Delivered = Event | Exception


class EventQueue:
    """Events of several choices, in the order in which the decoding thread wrote them.

    Made in the event loop; `deliver` may be called in any thread, and never blocks: a client that reads slowly must not
    hold up the others' steps. So events wait here for it, but only so many.
    """

    def __init__(self, max_backlog: int, on_full: Callable[[], None]) -> None:
        """max_backlog: events that may wait; one more is dropped, and the first such calls on_full."""
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[tuple[int, Delivered]] = asyncio.Queue()
        self._max_backlog = max_backlog
        self._on_full = on_full
        self._is_full = False

    def deliver(self, index: int, event: Delivered) -> None:
        """Pass on what one choice reports."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits for this any more
            self._loop.call_soon_threadsafe(self._put, index, event)

    async def events(self, num_choices: int, lifetime: Lifetime) -> AsyncGenerator[tuple[int, Event], None]:
        """Every event, until all choices have finished. Raises what ended a choice before it finished, or WireError."""
        num_running = num_choices
        while num_running:
            lifetime.check()  # as long as events are there, `get` does not wait
            async with lifetime.bound():
                index, event = await self._queue.get()
            if isinstance(event, Exception):
                raise event
            num_running -= isinstance(event, Finished)
            yield index, event

    def _put(self, index: int, event: Delivered) -> None:
        if self._queue.qsize() < self._max_backlog:
            self._queue.put_nowait((index, event))
        elif not self._is_full:
            self._is_full = True
            self._on_full()


def cancel_all(generations: Sequence[Generation]) -> None:
    """Let each stop within a step; those that have ended are left alone."""
    for generation in generations:
        generation.cancel()
