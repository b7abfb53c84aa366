"""What every route can reach."""

import functools
import hashlib
import importlib.metadata
from dataclasses import dataclass, field

import anyio
import fastapi

from api.manager import ModelManager
from api.metrics import Metrics
from api.response_store import ResponseStore
from api.settings import ServerConfig
from api.toolbox import Toolbox

MAX_TOOL_THREADS = 32


@dataclass(frozen=True, slots=True)
class Server:
    """One application's parts."""

    config: ServerConfig
    manager: ModelManager
    tools: Toolbox
    responses: ResponseStore
    metrics: Metrics = field(default_factory=Metrics)
    # Threads of their own: those that wait for tools must not keep others from being submitted.
    tool_threads: anyio.CapacityLimiter = field(default_factory=lambda: anyio.CapacityLimiter(MAX_TOOL_THREADS))


def server_of(request: fastapi.Request) -> Server:
    """The parts of the application that serves this request."""
    server: Server = request.app.state.server
    return server


@functools.cache
def fingerprint(model: str) -> str:
    """OpenAI's `system_fingerprint`: equal as long as a seed gives the same answer."""
    versions = [f"{name} {importlib.metadata.version(name)}" for name in ("toolmask", "mlx", "llguidance")]
    return "fp_" + hashlib.sha256("\n".join([model, *versions]).encode()).hexdigest()[:12]
