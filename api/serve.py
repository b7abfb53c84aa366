"""`toolmask serve`: the application in uvicorn, until a signal."""

import asyncio
import contextlib
import functools
import logging
import signal
import socket
import sys
from collections.abc import Iterator
from typing import Any

import fastapi
import uvicorn

from api.app import create_app
from api.connections import Connection
from api.convert.errors import RETRY_SOON, SERVER, WireError
from api.manager import Check, Loader, ModelManager
from api.settings import ServerConfig
from engine.catalog import OnProgress, resolve
from engine.config import EngineConfig
from engine.engine import Engine
from engine.errors import ModelError
from engine.grammars.tool_formats import format_named
from engine.routes import Routes

LAST_WORDS_S = 5  # for requests that were cut short to say so, before uvicorn cancels them


def run_server(config: ServerConfig) -> None:
    """Serve until SIGINT or SIGTERM; then streams that run may end. Raises ModelError and ConfigError."""
    resolve(config.model)
    if config.draft_model is not None:
        resolve(config.draft_model)
    if config.tool_format is not None:
        format_named(config.tool_format)
    serve_models(config, engine_loader(config), check=resolve)


def serve_models(config: ServerConfig, load: Loader, *, check: Check = lambda _: None) -> None:
    """The same with engines of any making. After SIGTERM this returns; after SIGINT it raises KeyboardInterrupt.

    check: raises ModelError for a name that `load` could not load.
    """
    _log_to_console()
    known = (config.model, *config.known_models)
    manager = ModelManager(load, known=known, may_switch=config.allow_model_switch, check=check)
    failures: list[WireError] = []

    def stop(error: WireError) -> None:
        failures.append(error)
        server.should_exit = True

    server = GracefulServer(config, create_app(config, manager, on_failed_start=stop))
    with _ended_by_sigterm(server):
        server.run()
    if failures:
        raise ModelError(str(failures[0]))


class GracefulServer(uvicorn.Server):
    """Lets requests that run go on for a while when it is told to stop. What runs on then ends by an error."""

    def __init__(self, config: ServerConfig, app: fastapi.FastAPI) -> None:
        self._config = config
        self._lifetimes = app.state.server.lifetimes
        super().__init__(
            uvicorn.Config(
                app,
                host=config.host,
                port=config.port,
                http=_connections(config.request_timeout_s),
                log_config=None,
                access_log=False,  # the application writes its own
                server_header=False,
                timeout_graceful_shutdown=config.shutdown_timeout_s + LAST_WORDS_S,
            )
        )

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        message = f"the server stops, and its requests had {self._config.shutdown_timeout_s} seconds to end"
        error = WireError(503, message, kind=SERVER, code="shutting_down", headers=RETRY_SOON)
        loop = asyncio.get_running_loop()
        cut = loop.call_later(self._config.shutdown_timeout_s, self._lifetimes.end_all, error)
        try:
            await super().shutdown(sockets)
        finally:
            cut.cancel()


def _connections(limit_s: float) -> Any:
    """What makes uvicorn's connections. Its type wants a class, but it only ever calls it."""
    return functools.partial(Connection, limit_s=limit_s)


@contextlib.contextmanager
def _ended_by_sigterm(server: uvicorn.Server) -> Iterator[None]:
    """uvicorn sends the signal that ended it to the process once more; so the exit code would tell of a failure."""

    def stop(_: int, __: object) -> None:
        server.should_exit = True

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def engine_loader(config: ServerConfig) -> Loader:
    """How the server makes an engine of a model's name. Adapter and drafting model are the first one's alone.

    Raises ConfigError where a route or an option is wrong.
    """
    routes = Routes(config.routes, [tool.definition for tool in config.tools])
    engine_config = EngineConfig(
        max_waiting=config.max_queue,
        max_running=config.max_batch,
        kv_memory=config.kv_memory,
        kv_bits=config.kv_bits,
        prompt_cache_dir=config.prompt_cache,
    )

    def load(name: str, on_progress: OnProgress) -> Engine:
        is_first = name == config.model
        return Engine(
            name,
            config=engine_config,
            adapter_path=config.adapter if is_first else None,
            draft_model=config.draft_model if is_first else None,
            tool_format=config.tool_format,
            routes=routes,
            on_progress=on_progress,
        )

    return load


def _log_to_console() -> None:
    """Access lines, which programs read, to stdout as they are; all else to stderr."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
    access = logging.getLogger("toolmask.access")
    access.addHandler(logging.StreamHandler(sys.stdout))
    access.propagate = False
