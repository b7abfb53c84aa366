"""`toolmask serve`: the application in uvicorn, until a signal."""

import logging
import sys

import uvicorn

from api.app import create_app
from api.convert.errors import WireError
from api.manager import Loader, ModelManager
from api.settings import ServerConfig
from engine.catalog import OnProgress, resolve
from engine.config import EngineConfig
from engine.engine import Engine
from engine.errors import ModelError
from engine.grammars.tool_formats import format_named


def run_server(config: ServerConfig) -> None:
    """Serve until SIGINT or SIGTERM; then streams that run may end. Raises ModelError and ConfigError."""
    resolve(config.model)
    if config.tool_format is not None:
        format_named(config.tool_format)
    _log_to_console()
    manager = ModelManager(
        engine_loader(config), known=(config.model, *config.known_models), may_switch=config.allow_model_switch
    )
    failures: list[WireError] = []

    def stop(error: WireError) -> None:
        failures.append(error)
        server.should_exit = True

    server = uvicorn.Server(
        uvicorn.Config(
            create_app(config, manager, on_failed_start=stop),
            host=config.host,
            port=config.port,
            log_config=None,
            access_log=False,  # the application writes its own
            server_header=False,
            timeout_graceful_shutdown=config.shutdown_timeout_s,
        )
    )
    server.run()
    if failures:
        raise ModelError(str(failures[0]))


def engine_loader(config: ServerConfig) -> Loader:
    """How the server makes an engine of a model's name."""

    def load(name: str, on_progress: OnProgress) -> Engine:
        return Engine(
            name,
            config=EngineConfig(max_waiting=config.max_queue),
            tool_format=config.tool_format,
            on_progress=on_progress,
        )

    return load


def _log_to_console() -> None:
    """Access lines, which programs read, to stdout as they are; all else to stderr."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
    access = logging.getLogger("toolmask.access")
    access.addHandler(logging.StreamHandler(sys.stdout))
    access.propagate = False
