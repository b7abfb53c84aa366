"""One request's generations, from their submission to the last event: deadline, disconnect, metrics, clean-up."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from types import TracebackType
from typing import Self

import anyio.to_thread
from starlette.types import Receive

from api.bridge import Delivered, EventQueue, cancel_all, on_disconnect
from api.convert.errors import DO_NOT_RETRY, SERVER, WireError, from_exception
from api.convert.paths import UNCHANGED, Paths
from api.manager import Serving
from api.server import Server
from engine.engine import Engine
from engine.events import Event, Finished, Usage
from engine.generation import Generation

Deliver = Callable[[int, Delivered], None]
Submit = Callable[[Engine, Deliver], list[Generation]]


class Job:
    """Running generations. To be used in `async with`: leaving it cancels what still runs, and lets the model go."""

    def __init__(self, server: Server, serving: Serving, queue: EventQueue, cleanup: AsyncExitStack) -> None:
        self._server = server
        self._queue = queue
        self.num_prompts = 1  # each has as many choices, which stand together
        self._cleanup = cleanup
        self._generations: list[Generation] = []
        self._started = time.perf_counter()
        self._deadline = asyncio.get_running_loop().time() + server.config.request_timeout_s
        self.model = serving.name
        self.paths = UNCHANGED

    @property
    def num_choices(self) -> int:
        return len(self._generations)

    @classmethod
    async def start(cls, server: Server, model: str, submit: Submit, paths: Paths) -> "Job":
        """Submit in a thread, since compiling a grammar may take long. Raises WireError: nothing was sent yet."""
        async with AsyncExitStack() as stack:
            serving = await stack.enter_async_context(model_in_use(server, model))
            queue = EventQueue()
            job = cls(server, serving, queue, stack)
            job.paths = paths
            try:
                job._generations = await anyio.to_thread.run_sync(submit, serving.engine, queue.deliver)
            except Exception as error:
                raise from_exception(error, paths) from error
            job._cleanup = stack.pop_all()
        return job

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self.cancel()
        await self._cleanup.aclose()

    def cancel(self) -> None:
        """Stop what still runs, within a step."""
        cancel_all(self._generations)

    async def events(self) -> AsyncGenerator[tuple[int, Event], None]:
        """Every event with its choice, until all have finished. Raises WireError."""
        first: float | None = None
        ends: dict[int, Finished] = {}
        try:
            async for index, event in self._queue.events(self.num_choices, self._deadline):
                if first is None:
                    first = time.perf_counter()
                    self._server.metrics.first_token(first - self._started)
                if isinstance(event, Finished):
                    ends[index] = event
                yield index, event
        except TimeoutError:
            raise too_slow(self._server.config.request_timeout_s) from None
        except Exception as error:
            raise from_exception(error, self.paths) from error
        assert first is not None
        self._server.metrics.finished(self._by_prompt(ends), time.perf_counter() - first)

    def _by_prompt(self, ends: Mapping[int, Finished]) -> list[list[Usage]]:
        usages = [ends[index].usage for index in range(self.num_choices)]
        num_choices = self.num_choices // self.num_prompts
        return [usages[first : first + num_choices] for first in range(0, len(usages), num_choices)]

    async def collect(self, receive: Receive) -> list[list[Event]]:
        """All events of each choice. A client that goes away cancels them. Raises WireError."""
        choices: list[list[Event]] = [[] for _ in self._generations]
        async with on_disconnect(receive, self.cancel):
            async for index, event in self.events():
                choices[index].append(event)
        return choices


@asynccontextmanager
async def model_in_use(server: Server, name: str | None) -> AsyncGenerator[Serving, None]:
    """The model of that name, for as long as this is open. A switch to it may take as long as a request may."""
    async with AsyncExitStack() as stack:
        try:
            async with asyncio.timeout(server.config.request_timeout_s):
                serving = await stack.enter_async_context(server.manager.use(name))
        except TimeoutError:
            raise too_slow(server.config.request_timeout_s) from None
        yield serving


def too_slow(limit_s: float) -> WireError:
    """A request that ran into its time limit."""
    message = f"the answer took more than {limit_s:g} seconds"
    return WireError(504, message, kind=SERVER, code="request_timeout", headers=DO_NOT_RETRY)


def submit_all(submits: Sequence[Callable[[], list[Generation]]]) -> list[Generation]:
    """Submit one after the other; where one fails, those before it are cancelled."""
    generations: list[Generation] = []
    try:
        for submit in submits:
            generations += submit()
    except BaseException:
        cancel_all(generations)
        raise
    return generations
