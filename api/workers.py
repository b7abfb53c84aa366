"""Threads for calls that block, in a number that calls which never return cannot exceed."""

import asyncio
import contextlib
import functools
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from api.convert.errors import RETRY_SOON, WireError

T = TypeVar("T")


class Workers:
    """One thread a call. Its place is free again when the call has returned, whether or not somebody waited for it.

    That is why this is no pool of a library: theirs give the place back with the waiting.
    """

    def __init__(self, name: str, num_threads: int, *, max_waiting: int, is_daemon: bool) -> None:
        """max_waiting: calls that may wait for a place. is_daemon: whether the process may end before its calls."""
        self._name = name
        self._num_threads = num_threads
        self._max_waiting = max_waiting
        self._is_daemon = is_daemon
        self._places = asyncio.Semaphore(num_threads)
        self._num_waiting = 0

    async def run(self, call: Callable[[], T]) -> T:
        """What the call returns or raises, in first-come order. Raises WireError (429) where too many wait already.

        Where this is cancelled, a call that has begun goes on to its end.
        """
        if self._places.locked() and self._num_waiting >= self._max_waiting:
            raise self._full()
        self._num_waiting += 1
        try:
            await self._places.acquire()
        finally:
            self._num_waiting -= 1
        return await asyncio.wrap_future(self._start(call))

    def _start(self, call: Callable[[], T]) -> Future[T]:
        loop = asyncio.get_running_loop()
        done: Future[T] = Future()
        done.set_running_or_notify_cancel()  # from here on, cancelling does nothing

        def work() -> None:
            try:
                tell: Callable[[], None] = functools.partial(done.set_result, call())
            except BaseException as error:  # SystemExit too: whoever waits must learn of it
                tell = functools.partial(done.set_exception, error)
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody needs the place any more
                loop.call_soon_threadsafe(self._places.release)
            tell()

        thread = threading.Thread(target=work, name=f"toolmask-{self._name}", daemon=self._is_daemon)
        try:
            thread.start()
        except RuntimeError:  # the system has no thread left
            self._places.release()
            raise
        return done

    def _full(self) -> WireError:
        message = f"all {self._num_threads} threads for {self._name} are busy"
        return WireError(429, message, kind="rate_limit_error", code="server_busy", headers=RETRY_SOON)
