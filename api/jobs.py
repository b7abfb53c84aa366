"""One request's generations, from their submission to the last event: model, threads, metrics, clean-up."""

import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from types import TracebackType
from typing import Self

import fastapi

from api.bridge import Delivered, EventQueue, cancel_all
from api.convert.errors import DO_NOT_RETRY, SERVER, WireError, from_exception
from api.convert.paths import Paths
from api.lifetime import Lifetime, lifetime_of
from api.manager import Serving
from api.server import Server, server_of
from engine.engine import Engine
from engine.events import Decided, Decision, Event, Finished, TextDelta, ToolCallStart, Usage
from engine.generation import Generation, OnProbe

Deliver = Callable[[int, Delivered], None]
Submit = Callable[[Engine, Deliver, OnProbe], list[Generation]]


class Job:
    """Running generations. To be used in `async with`: leaving it cancels what still runs, and lets the model go."""

    def __init__(self, server: Server, lifetime: Lifetime, model: str, paths: Paths) -> None:
        self._server = server
        self.num_prompts = 1  # each has as many choices, which stand together
        self._lifetime = lifetime
        self._queue = EventQueue(server.config.max_backlog, self._fall_behind)
        self._cleanup = AsyncExitStack()
        self._generations: list[Generation] = []
        self._is_cancelled = False
        self._taken: list[tuple[int, Event]] = []  # by `decisions`, for `events`
        self._started = time.perf_counter()
        self.model = model
        self.paths = paths

    @property
    def num_choices(self) -> int:
        return len(self._generations)

    @classmethod
    async def start(cls, request: fastapi.Request, model: str, submit: Submit, paths: Paths) -> "Job":
        """Submit in a thread, since compiling a grammar may take long. Raises WireError: nothing was sent yet."""
        server, lifetime = server_of(request), lifetime_of(request)
        async with AsyncExitStack() as stack:
            serving = await stack.enter_async_context(model_in_use(server, model, lifetime))
            job = cls(server, lifetime, serving.name, paths)
            stack.callback(job.cancel)
            await job._submit(submit, serving)
            job._cleanup = stack.pop_all()
        # Where nobody comes to use the job. Once it is closed, this holds nothing of it.
        lifetime.cleanup.push_async_callback(job._cleanup.aclose)
        return job

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self._cleanup.aclose()

    def cancel(self) -> None:
        """Stop what still runs, within a step."""
        self._is_cancelled = True
        cancel_all(self._generations)

    async def close(self) -> None:
        """Cancel what still runs, and let the model go."""
        await self._cleanup.aclose()

    async def decisions(self) -> list[Decision]:
        """What was decided between call and text, once that is known of every choice. Raises WireError."""
        decided: dict[int, Decision | None] = {}
        async with aclosing(self._raw_events()) as events:
            async for index, event in events:
                self._taken.append((index, event))
                if isinstance(event, Decided):
                    decided[index] = event.decision
                elif isinstance(event, TextDelta | ToolCallStart | Finished):
                    decided.setdefault(index, None)
                if len(decided) == self.num_choices:
                    break
        return [each for each in decided.values() if each is not None]

    async def _raw_events(self) -> AsyncGenerator[tuple[int, Event], None]:
        """Those that nobody has taken yet. Raises WireError."""
        num_running = self.num_choices - sum(isinstance(event, Finished) for _, event in self._taken)
        try:
            async with aclosing(self._queue.events(num_running, self._lifetime)) as events:
                async for each in events:
                    yield each
        except Exception as error:
            raise from_exception(error, self.paths) from error

    async def _all_events(self) -> AsyncGenerator[tuple[int, Event], None]:
        """Those that `decisions` took, and the others."""
        for each in self._taken:
            yield each
        async with aclosing(self._raw_events()) as events:
            async for each in events:
                yield each

    async def events(self) -> AsyncGenerator[tuple[int, Event], None]:
        """Every event with its choice, until all have finished. Raises WireError."""
        first: float | None = None
        ends: dict[int, Finished] = {}
        async with aclosing(self._all_events()) as events:
            async for index, event in events:
                if first is None:
                    first = time.perf_counter()
                    self._server.metrics.first_token(first - self._started)
                if isinstance(event, Finished):
                    ends[index] = event
                yield index, event
        assert first is not None
        self._server.metrics.finished(self._by_prompt(ends), time.perf_counter() - first)
        if (route := ends[0].route) is not None:  # all choices have its call
            self._server.metrics.routed(route)

    def _by_prompt(self, ends: Mapping[int, Finished]) -> list[list[Usage]]:
        usages = [ends[index].usage for index in range(self.num_choices)]
        num_choices = self.num_choices // self.num_prompts
        return [usages[first : first + num_choices] for first in range(0, len(usages), num_choices)]

    async def collect(self) -> list[list[Event]]:
        """All events of each choice. Raises WireError."""
        choices: list[list[Event]] = [[] for _ in self._generations]
        async for index, event in self.events():
            choices[index].append(event)
        return choices

    async def _submit(self, submit: Submit, serving: Serving) -> None:
        def run() -> None:
            self._hold(submit(serving.engine, self._queue.deliver, lambda probe: self._hold([probe])))

        try:
            async with self._lifetime.bound():
                await self._server.submit_threads.run(run)
        except Exception as error:
            raise from_exception(error, self.paths) from error

    def _hold(self, generations: list[Generation]) -> None:
        """What runs for the request from now on. In the thread that submits, which the request may not outlive."""
        self._generations = generations
        if self._is_cancelled:
            cancel_all(generations)

    def _fall_behind(self) -> None:
        most = self._server.config.max_backlog
        message = f"the client reads too slowly: more than {most} events waited for it"
        error = WireError(503, message, kind=SERVER, code="slow_reader", headers=DO_NOT_RETRY)
        self._lifetime.end(error)
        self.cancel()


@asynccontextmanager
async def model_in_use(server: Server, name: str | None, lifetime: Lifetime) -> AsyncGenerator[Serving, None]:
    """The model of that name, for as long as this is open. A switch to it may take as long as the request may."""
    async with AsyncExitStack() as stack:
        async with lifetime.bound():
            serving = await stack.enter_async_context(server.manager.use(name))
        yield serving


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
