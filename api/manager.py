"""Which model serves. One at a time; a new one is loaded beside it, and only then takes its place.

So a load that fails changes nothing, and requests in flight finish on the model that they began with. A model that was
replaced must have finished before the next one is loaded: no more than two are ever in memory. Switches run one after
the other, in the order in which they were first asked for; everybody who asks for the same one meanwhile shares it.
Everything here runs in the event loop's thread but for the loader, and the close of an engine.
"""

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field
from enum import StrEnum

import anyio
import anyio.to_thread

from api.convert.errors import RETRY_SOON, SERVER, WireError, from_exception
from engine.catalog import OnProgress, Progress
from engine.decoding import EngineLoad
from engine.engine import Engine
from engine.errors import EngineClosedError, EngineError

logger = logging.getLogger(__name__)

Loader = Callable[[str, OnProgress], Engine]  # blocks; raises ModelError, MemoryError or what the device raises
Check = Callable[[str], object]  # of a name that is to be loaded; may read files; raises ModelError


class LoadState(StrEnum):
    """Where a load stands."""

    QUEUED = "queued"  # behind another
    LOADING = "loading"
    READY = "ready"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class LoadStatus:
    """How far a load has come."""

    model: str
    state: LoadState
    progress: Progress
    error: WireError | None = None


@dataclass(slots=True, eq=False)
class Serving:
    """A loaded model and how many requests use it."""

    name: str
    engine: Engine
    num_requests: int = 0
    is_retired: bool = False
    is_idle: asyncio.Event = field(default_factory=asyncio.Event)  # retired, and nobody uses it

    def release(self) -> None:
        """One request has ended."""
        self.num_requests -= 1
        self._check_idle()

    def retire(self) -> None:
        """No request begins from now on."""
        self.is_retired = True
        self._check_idle()

    def _check_idle(self) -> None:
        if self.is_retired and self.num_requests <= 0:
            self.is_idle.set()


@dataclass(slots=True, eq=False)
class Switch:
    """A model that is about to be loaded and served, and how many requests wait for that."""

    name: str
    is_ordered: bool = False  # by somebody who only wants it served
    num_waiting: int = 0
    serving: Serving | None = None  # once it serves; then those that waited use it
    task: "asyncio.Task[None]" = field(init=False)

    @property
    def is_wanted(self) -> bool:
        return self.is_ordered or self.num_waiting > 0

    def leave(self) -> None:
        """One request waits no longer, and does not use the model either."""
        if self.serving is None:
            self.num_waiting -= 1
        else:
            self.serving.release()


class ModelManager:
    """Loads, switches and unloads models."""

    def __init__(
        self, load: Loader, *, known: Iterable[str] = (), may_switch: bool = False, check: Check = lambda _: None
    ) -> None:
        """known: names that a request may ask for. may_switch: whether asking for one that is not served loads it."""
        self._load = load
        self._check = check
        self._may_switch = may_switch
        self._known: dict[str, int] = dict.fromkeys(known, int(time.time()))  # name -> since when
        self._serving: Serving | None = None
        self._switching = asyncio.Lock()
        self._switches: dict[str, Switch] = {}  # those that have not ended
        self._retiring: set[asyncio.Task[None]] = set()
        self._is_closed = False
        # Of its own: others' threads must not keep a model from being loaded or closed. Loads are one at a time anyway.
        self._threads = anyio.CapacityLimiter(math.inf)
        self.status: LoadStatus | None = None  # of the latest load

    @property
    def known(self) -> dict[str, int]:
        """The names that a request may ask for, and since when (seconds since 1970)."""
        return dict(self._known)

    @property
    def served(self) -> str | None:
        """The name of the model that answers now."""
        return None if self._serving is None else self._serving.name

    @property
    def num_requests(self) -> int:
        """How many requests use the model that answers now."""
        return 0 if self._serving is None else self._serving.num_requests

    @property
    def waiting(self) -> dict[str, int]:
        """The models that are about to serve, in turn, and how many requests wait for each."""
        return {name: switch.num_waiting for name, switch in self._switches.items()}

    @property
    def load_now(self) -> EngineLoad:
        """How busy the engine is that answers now."""
        return EngineLoad(0, 0) if self._serving is None else self._serving.engine.load_now()

    @contextlib.asynccontextmanager
    async def use(self, name: str | None) -> AsyncIterator[Serving]:
        """The model of that name, None for the one that serves; it stays as long as this is open. Raises WireError."""
        serving = await self._claim(name)
        try:
            yield serving
        finally:
            serving.release()

    @property
    def queued(self) -> list[str]:
        """The models that are to be loaded after the one that loads, in turn."""
        return [name for name in self._switches if self.progress_of(name).state is LoadState.QUEUED]

    def progress_of(self, name: str) -> LoadStatus:
        """How far the load of this model has come, which has been asked for."""
        status = self.status
        if status is not None and status.model == name and status.state is LoadState.LOADING:
            return status
        if name in self._switches:
            return LoadStatus(name, LoadState.QUEUED, Progress("waiting", 0, None))
        return LoadStatus(name, LoadState.READY, Progress("ready", 0, None))

    async def check_name(self, name: str) -> None:
        """Raises WireError for a name that no model can have, before anybody waits for it."""
        if name in self._known:
            return
        try:
            await anyio.to_thread.run_sync(self._check, name, limiter=self._threads)
        except EngineError as reason:
            raise _load_error(name, reason) from reason

    def start_load(self, name: str) -> "asyncio.Task[None]":
        """Load a model and let it serve, in the background. The task raises WireError where that fails."""
        switch = self._switch(name)
        switch.is_ordered = True
        return switch.task

    async def unload(self, name: str) -> None:
        """Stop serving this model; returns when its requests have finished and its memory is free. Raises WireError."""
        async with self._switching:
            if self.served != name:
                raise WireError(404, f"the model {name!r:.200} is not loaded", param="model", code="model_not_found")
            closing = self._retire()
        if closing is not None:
            await asyncio.shield(closing)

    async def close(self) -> None:
        """End all engines; what still runs on them fails. A load that runs ends when it next reports how far it is."""
        self._is_closed = True
        tasks = [switch.task for switch in self._switches.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._serving is not None:
            self._serving.num_requests = 0
            self._retire()
        await asyncio.gather(*self._retiring, return_exceptions=True)

    async def _claim(self, name: str | None) -> Serving:
        """The model, with one request more that uses it."""
        if self._serving is not None and name in (None, self._serving.name):
            self._serving.num_requests += 1
            return self._serving
        if name is not None and name not in self._known:
            known = ", ".join(self._known) or "none"
            message = f"the model {name!r:.200} does not exist here; known are {known}"
            raise WireError(404, message, param="model", code="model_not_found")
        if name is None or not self._may_switch or self._is_loading_first(name):
            raise self._not_served(name)
        return await self._claim_after(self._switch(name))

    async def _claim_after(self, switch: Switch) -> Serving:
        """The model that the switch brings. It is ours even where the next switch comes before we are told."""
        switch.num_waiting += 1
        try:
            await asyncio.shield(switch.task)
        except BaseException:
            switch.leave()
            raise
        assert switch.serving is not None
        return switch.serving

    def _is_loading_first(self, name: str) -> bool:
        """Whether the server is still starting: waiting would hide that from clients."""
        status = self.status
        is_loading = status is not None and status.state is LoadState.LOADING and status.model == name
        return self._serving is None and is_loading

    def _not_served(self, name: str | None) -> WireError:
        if self.status is not None and self.status.state is LoadState.LOADING:
            loading = self.status.model
            if self._serving is None or loading == name:
                message = f"the model {loading!r} is loading: {self.status.progress.stage}"
                return WireError(503, message, kind=SERVER, code="model_loading", headers=RETRY_SOON)
        if self._serving is None:
            return WireError(503, "no model is loaded", kind=SERVER, code="model_not_loaded", headers=RETRY_SOON)
        message = f"the model {name!r} is not served, but {self.served!r}; switching is off (--allow-model-switch)"
        return WireError(404, message, param="model", code="model_not_found")

    def _switch(self, name: str) -> Switch:
        """The switch to this model that is on its way, or a new one behind all others."""
        if name in self._switches:
            return self._switches[name]
        if self.status is None or self.status.state is not LoadState.LOADING:
            self._report(name, LoadState.LOADING, Progress("waiting", 0, None))
        self._switches[name] = switch = Switch(name)
        switch.task = asyncio.create_task(self._switch_to(switch))
        switch.task.add_done_callback(_look_at)
        return switch

    async def _switch_to(self, switch: Switch) -> None:
        try:
            async with self._switching:
                if self.served != switch.name:
                    if not switch.is_wanted:
                        self._give_up(switch.name)
                        return
                    await self._replace(switch.name)
                self._begin_requests(switch)
        finally:
            del self._switches[switch.name]  # who comes now has missed it

    async def _replace(self, name: str) -> None:
        if self._retiring:
            await asyncio.wait(self._retiring)
        engine = await self._loaded(name)
        self._retire()
        self._known.setdefault(name, int(time.time()))
        self._serving = Serving(name, engine)

    def _begin_requests(self, switch: Switch) -> None:
        """Let those that waited use the model, before anything else can replace it."""
        assert self._serving is not None
        self._serving.num_requests += switch.num_waiting
        switch.serving = self._serving
        self._report(switch.name, LoadState.READY, Progress("ready", 0, None))

    def _give_up(self, name: str) -> None:
        error = WireError(499, "no request waited for it any longer", kind=SERVER, code="cancelled")
        self._report(name, LoadState.FAILED, Progress("given up", 0, None), error)

    async def _loaded(self, name: str) -> Engine:
        def show(progress: Progress) -> None:  # in the loader's thread
            if self._is_closed:
                raise EngineClosedError("the server is shutting down")
            self._report(name, LoadState.LOADING, progress)

        show(Progress(f"loading {name}", 0, None))
        try:
            return await anyio.to_thread.run_sync(self._load, name, show, limiter=self._threads)
        except Exception as reason:  # a loader meets files and devices: whatever it raises, the old model serves on
            error = _load_error(name, reason)
            self._report(name, LoadState.FAILED, Progress("failed", 0, None), error)
            raise error from reason

    def _report(self, name: str, state: LoadState, progress: Progress, error: WireError | None = None) -> None:
        self.status = LoadStatus(name, state, progress, error)

    def _retire(self) -> "asyncio.Task[None] | None":
        serving, self._serving = self._serving, None
        if serving is None:
            return None
        serving.retire()
        task = asyncio.create_task(self._close_when_idle(serving))
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)
        return task

    async def _close_when_idle(self, serving: Serving) -> None:
        await serving.is_idle.wait()
        await anyio.to_thread.run_sync(serving.engine.close, limiter=self._threads)


def _look_at(task: "asyncio.Task[None]") -> None:
    """asyncio complains of an exception that nobody looked at; `status` has this one."""
    if not task.cancelled():
        task.exception()


def _load_error(name: str, reason: Exception) -> WireError:
    is_memory = isinstance(reason, MemoryError) or (isinstance(reason, RuntimeError) and "alloc" in str(reason).lower())
    if is_memory:
        logger.error("no memory for the model %s", name, exc_info=reason)
        message = f"there is not enough memory for the model {name!r:.200}; unload the one that serves first"
        return WireError(507, message, kind=SERVER, code="out_of_memory")
    error = from_exception(reason)
    if error.body.param is None and error.status < 500:
        error.body.param = "model"
    return error
