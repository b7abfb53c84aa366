"""What every route can reach."""

import functools
import hashlib
import importlib.metadata
from dataclasses import dataclass, field

import fastapi

from api.fallback import Upstream
from api.lifetime import Lifetimes
from api.manager import ModelManager
from api.metrics import Metrics
from api.response_store import ResponseStore
from api.settings import ServerConfig
from api.toolbox import Toolbox
from api.workers import Workers

NUM_SUBMIT_THREADS = 8  # requests whose grammars are compiled at once; the others wait


@dataclass(frozen=True, slots=True)
class Server:
    """One application's parts."""

    config: ServerConfig
    manager: ModelManager
    tools: Toolbox
    responses: ResponseStore
    # Threads apart: requests that wait for tools, or compile large grammars, must not keep the others waiting.
    tool_threads: Workers
    submit_threads: Workers
    upstream: Upstream | None = None
    lifetimes: Lifetimes = field(default_factory=Lifetimes)
    metrics: Metrics = field(default_factory=Metrics)


def new_server(config: ServerConfig, manager: ModelManager) -> Server:
    """The parts as they are at the start. Raises ConfigError where two tools have the same name."""
    return Server(
        config,
        manager,
        Toolbox(config.tools),
        ResponseStore(config.max_stored_responses),
        # A tool may hang for ever, and the process must end all the same; compiling ends.
        Workers("tools", config.max_tool_threads, max_waiting=0, is_daemon=True),
        Workers("submissions", NUM_SUBMIT_THREADS, max_waiting=config.max_queue, is_daemon=False),
        None if config.fallback is None else Upstream(config.fallback),
    )


def server_of(request: fastapi.Request) -> Server:
    """The parts of the application that serves this request."""
    server: Server = request.app.state.server
    return server


@functools.cache
def fingerprint(model: str) -> str:
    """OpenAI's `system_fingerprint`: equal as long as a seed gives the same answer."""
    versions = [f"{name} {importlib.metadata.version(name)}" for name in ("toolmask", "mlx", "llguidance")]
    return "fp_" + hashlib.sha256("\n".join([model, *versions]).encode()).hexdigest()[:12]
