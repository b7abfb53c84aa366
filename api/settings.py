"""Options of the server, resolved and checked once."""

from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import httpx

from engine.config import KV_BITS
from engine.errors import ConfigError
from engine.routes import Route
from engine.tools import RegisteredTool, calculate, web_search

DEFAULT_PORT = 7007
DEFAULT_MODEL = "smollm2-135m"


@dataclass(frozen=True, slots=True)
class FallbackConfig:
    """An upstream with OpenAI's chat completions, for requests that the local model is not sure about."""

    url: str  # its base URL, as https://api.openai.com/v1
    model: str  # that it is asked for
    below: float  # in (0, 1]: a decision between call and text that is less sure than this is handed over
    key: str | None = field(default=None, repr=False)
    timeout_s: float = 60.0  # to connect, and for each part of an answer

    def __post_init__(self) -> None:
        _check_base_url("fallback.url", self.url)
        if not self.model:
            raise ConfigError("fallback.model is empty; it must be a model of the upstream")
        if not 0 < self.below <= 1:
            raise ConfigError(f"fallback.below is {self.below}; it must be in (0, 1]")
        if not self.timeout_s > 0:
            raise ConfigError(f"fallback.timeout_s is {self.timeout_s}; it must be more than 0")
        if self.key is not None and not (self.key.isascii() and self.key.isprintable() and self.key):
            raise ConfigError("fallback.key has characters that no header can have, or none")


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """How the server runs. No environment is read here or below."""

    model: str = DEFAULT_MODEL  # loaded at the start
    known_models: tuple[str, ...] = ()  # others that a request may name, where switching is allowed
    allow_model_switch: bool = False
    draft_model: str | None = None  # makes guesses for `model`; it has the same vocabulary, and is smaller
    adapter: str | None = None  # a folder that training wrote, for `model` alone
    tool_format: str | None = None  # a family's name, for every model; None detects each model's own
    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    api_key: str | None = None  # None: anybody who reaches the port is served
    cors_origins: tuple[str, ...] = ()
    max_body_bytes: int = 4 * 2**20
    max_queue: int = 256  # sequences that may wait
    max_batch: int = 16  # sequences that are decoded together
    kv_memory: int | None = None  # bytes for the keys and values of those; None: a quarter of the machine's memory
    kv_bits: int | None = None  # 4 or 8: keys and values are kept in so many bits; None: as the model computes them
    prompt_cache: str | None = None  # folder for prompts that outlive the server; None: they end with it
    request_timeout_s: float = 600.0  # of a whole request, its wait included
    shutdown_timeout_s: int = 30  # how long running streams may go on after a signal to stop
    tools: tuple[RegisteredTool[..., Any], ...] = (calculate, web_search)  # that the server executes
    routes: tuple[Route, ...] = ()  # to calls of these tools, tried before the model is asked
    fallback: FallbackConfig | None = None  # None: the local model answers everything
    max_tool_rounds: int = 8  # of a request whose tools the server executes
    max_tool_threads: int = 32  # tools, or requests whose tools the server executes, that run at once
    max_backlog: int = 16_384  # events of one request that may wait for a client that reads slowly
    max_stored_responses: int = 256  # that a later one may go on from; 0 keeps none

    def __post_init__(self) -> None:
        for name, value, low in (
            ("port", self.port, 0),
            ("max_body_bytes", self.max_body_bytes, 1),
            ("max_queue", self.max_queue, 1),
            ("max_batch", self.max_batch, 1),
            ("kv_memory", 1 if self.kv_memory is None else self.kv_memory, 1),
            ("shutdown_timeout_s", self.shutdown_timeout_s, 0),
            ("max_tool_rounds", self.max_tool_rounds, 1),
            ("max_tool_threads", self.max_tool_threads, 1),
            ("max_backlog", self.max_backlog, 1),
            ("max_stored_responses", self.max_stored_responses, 0),
        ):
            if value < low:
                raise ConfigError(f"{name} is {value}; it must be {low} or more")
        if self.kv_bits is not None and self.kv_bits not in KV_BITS:
            raise ConfigError(f"kv_bits is {self.kv_bits}; it must be {' or '.join(map(str, KV_BITS))}")
        if self.port > 65535:
            raise ConfigError(f"port is {self.port}; it must be at most 65535")
        if not self.request_timeout_s > 0:
            raise ConfigError(f"request_timeout_s is {self.request_timeout_s}; it must be more than 0")
        if self.api_key == "":
            raise ConfigError("api_key is empty; leave it out to serve without one")


def _check_base_url(option: str, url: str) -> None:
    """Raises ConfigError for what is none, or what no request could be sent to."""
    try:
        parts = urlsplit(url)
        if parts.username is not None or parts.password is not None:
            raise ConfigError(f"{option} has a name or a password in it; the key has a place of its own")
        _ = parts.port, httpx.URL(url)  # a port that there is not, a character that no host has
        is_base = parts.scheme in ("http", "https") and bool(parts.hostname) and not (parts.query or parts.fragment)
    except (ValueError, httpx.InvalidURL):
        is_base = False
    if not is_base:
        raise ConfigError(f"{option} is {url!r}; it must be a base URL such as https://api.openai.com/v1")
