"""The real application in a real uvicorn, in a thread on the loopback interface, with fake models behind it."""

import asyncio
import contextlib
import itertools
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import httpx
from fastapi import FastAPI
from openai import AsyncOpenAI, OpenAI

from api.app import create_app
from api.manager import ModelManager
from api.serve import GracefulServer
from api.settings import ServerConfig
from engine.catalog import OnProgress, Progress
from engine.config import EngineConfig
from engine.decision_options import TOKENS_DECIDE
from engine.engine import Engine
from engine.errors import ModelNotFoundError
from engine.model import LoadedModel
from engine.routes import Routes
from engine.tokenizer import Tokenizer
from tests.fakes import EOS, fake_loaded, scripted

MODEL = "fake"
TIMEOUT_S = 30
ASSISTANT = "<|im_start|>assistant\n"


@dataclass
class FakeLoader:
    """Makes engines of fake models; can fail, and can be held."""

    models: Mapping[str, Callable[[], LoadedModel]]
    config: EngineConfig = field(default_factory=EngineConfig)
    engines: dict[str, Engine] = field(default_factory=dict)  # the latest of each name
    before_load: Callable[[str], None] = lambda _: None  # may wait or raise
    routes: Routes | None = None

    def __call__(self, name: str, on_progress: OnProgress) -> Engine:
        on_progress(Progress(f"downloading {name}", 1, 2))
        self.before_load(name)
        if name not in self.models:
            raise ModelNotFoundError(f"there is no folder {name!r}")
        self.engines[name] = Engine(self.models[name](), config=self.config, routes=self.routes)
        return self.engines[name]


class _Uvicorn(GracefulServer):
    """Tells when it listens, and once its model is loaded."""

    def __init__(self, config: ServerConfig, app: FastAPI, manager: ModelManager, model: str | None) -> None:
        super().__init__(config, app)
        self.is_ready = threading.Event()
        self.is_stopping = threading.Event()
        self._manager = manager
        self._model = model
        self.loop: asyncio.AbstractEventLoop | None = None

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        self.loop = asyncio.get_running_loop()
        if self._model is not None:
            await self._manager.start_load(self._model)
        self.is_ready.set()

    async def shutdown(self, sockets: Any = None) -> None:
        self.is_stopping.set()
        await super().shutdown(sockets)


@dataclass
class LiveServer:
    """A server that runs, and its clients."""

    url: str
    loader: FakeLoader
    manager: ModelManager
    http: httpx.Client
    api_key: str
    uvicorn: _Uvicorn

    @property
    def engine(self) -> Engine:
        """The engine of the model that was served at the start."""
        return self.loader.engines[MODEL]

    def client(self, **options: Any) -> OpenAI:
        """The official client. It never tries again: a test sees what was answered first."""
        return OpenAI(base_url=f"{self.url}/v1", api_key=self.api_key, max_retries=0, **options)

    def async_client(self) -> AsyncOpenAI:
        return AsyncOpenAI(base_url=f"{self.url}/v1", api_key=self.api_key, max_retries=0)

    def chat(self, **body: Any) -> httpx.Response:
        """A chat completion; a short greedy one unless the body says otherwise."""
        return self.http.post("/v1/chat/completions", json=chat_body(**body))


def chat_body(**body: Any) -> dict[str, Any]:
    return {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 12, **body}


COLD = EngineConfig(prompt_cache_memory=0)


@contextlib.contextmanager
def served(
    model: LoadedModel | Callable[[], LoadedModel] | None = None,
    *,
    others: Mapping[str, Callable[[], LoadedModel]] | None = None,
    engine_config: EngineConfig | None = None,
    before_load: Callable[[str], None] = lambda _: None,
    check: Callable[[str], None] = lambda _: None,
    waits: bool = True,
    **config: Any,
) -> Iterator[LiveServer]:
    """A running server. waits: until its model is loaded. config: fields of ServerConfig.

    Its model's tokens decide between call and text, unless engine_config says otherwise: scripts know no calibration.

    engine_config: None computes every prompt anew, so that an answer's usage does not depend on those before.
    """
    kept = engine_config or COLD
    as_asked = kept if kept.decision is not None else replace(kept, decision=TOKENS_DECIDE)
    first = model or fake_loaded
    make = first if callable(first) else lambda: first
    loader = FakeLoader({MODEL: make, **(others or {})}, as_asked, before_load=before_load)
    settings = ServerConfig(**{"model": MODEL, "port": 0, "shutdown_timeout_s": TIMEOUT_S, **config})
    loader.routes = Routes(settings.routes, [tool.definition for tool in settings.tools])
    known = [MODEL, *settings.known_models]
    manager = ModelManager(loader, known=known, may_switch=settings.allow_model_switch, check=check)
    app = create_app(settings, manager)
    server = _Uvicorn(settings, app, manager, MODEL if waits else None)
    thread = threading.Thread(target=server.run, name="uvicorn")
    thread.start()
    try:
        assert server.is_ready.wait(TIMEOUT_S)
        url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        key = settings.api_key or "none"
        headers = {"authorization": f"Bearer {key}"}
        with httpx.Client(base_url=url, timeout=TIMEOUT_S, headers=headers) as http:
            yield LiveServer(url, loader, manager, http, key, server)
    finally:
        server.should_exit = True
        thread.join(TIMEOUT_S)
        assert not thread.is_alive()


def fake_that_answers(answer: Callable[[str], str], *, hermes: bool = True, reasons: bool = False) -> LoadedModel:
    """A fake whose turn is a function of its prompt's text. What a grammar forces on the way does not disturb it."""
    loaded = fake_loaded(hermes=hermes, reasons=reasons)
    tokenizer = loaded.tokenizer

    def script(tokens: list[int]) -> Mapping[int, float]:
        text = b"".join(map(tokenizer.token_bytes, tokens))
        prompt, _, written = text.rpartition(ASSISTANT.encode())
        whole = answer(prompt.decode()) + EOS
        return {_token_after(tokenizer, whole, len(written)): 100}

    return scripted(loaded, script)


def failing_after(num_tokens: int, text: str) -> Callable[[str], str]:
    """Answers with the text, for so many tokens; from then on the model fails."""
    numbers = itertools.count()

    def answer(_: str) -> str:
        if next(numbers) >= num_tokens:
            raise ValueError("secret path /home/me")
        return text

    return answer


def _token_after(tokenizer: Tokenizer, text: str, num_bytes: int) -> int:
    """The token that goes on with a text of which so much is written: as it is cut whole, or else cut anew there."""
    position = 0
    for token in tokenizer.encode(text):
        if position == num_bytes:
            return token
        position += len(tokenizer.token_bytes(token))
    return tokenizer.encode(text.encode()[num_bytes:].decode(errors="replace") or EOS)[0]


def call_text(name: str, arguments: str) -> str:
    """A call as both fake families write it."""
    return f'<tool_call>\n{{"name": "{name}", "arguments": {arguments}}}\n</tool_call>'


def function_tool(name: str, parameters: Any = None, **more: Any) -> dict[str, Any]:
    function = {"name": name, **({} if parameters is None else {"parameters": parameters}), **more}
    return {"type": "function", "function": function}


def custom_tool(name: str, definition: str, syntax: str = "regex") -> dict[str, Any]:
    grammar = {"type": "grammar", "grammar": {"syntax": syntax, "definition": definition}}
    return {"type": "custom", "custom": {"name": name, "format": grammar}}


WEATHER = function_tool(
    "get_weather",
    {
        "type": "object",
        "properties": {"city": {"enum": ["Paris", "Rome"]}, "days": {"type": "integer", "minimum": 1, "maximum": 9}},
        "required": ["city", "days"],
    },
    description="The forecast.",
)


# What runs on a server.


def busy(server: LiveServer) -> int:
    """Sequences that run or wait."""
    load = server.engine.load_now()
    return load.num_running + load.num_waiting


def is_idle(server: LiveServer) -> bool:
    return server.manager.num_requests == 0 and busy(server) == 0


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


# Clients that do as they like.


def connected(server: LiveServer, *, receive_buffer: int | None = None) -> socket.socket:
    """A bare connection. receive_buffer: bytes that the system takes for a client that does not read."""
    host, port = server.url.removeprefix("http://").split(":")
    client = socket.socket()
    if receive_buffer is not None:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        for listener in server.uvicorn.servers[0].sockets:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, receive_buffer)
    client.settimeout(TIMEOUT_S)
    client.connect((host, int(port)))
    return client


def head(num_bytes: int, path: str = "/v1/chat/completions", *more: str) -> bytes:
    """Of a POST with a body of so many bytes."""
    lines = (f"POST {path} HTTP/1.1", "host: x", "content-type: application/json", *more)
    return "\r\n".join([*lines, f"content-length: {num_bytes}", "", ""]).encode()


def posted(path: str, body: Any, *more: str) -> bytes:
    """A whole POST."""
    data = json.dumps(body).encode()
    return head(len(data), path, *more) + data


# What clients make of answers.


def events_of(response: httpx.Response) -> list[Any]:
    """The data of each server-sent event, read as the standard says, [DONE] as it is."""
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    *blocks, rest = response.content.decode().split("\n\n")
    assert rest == ""
    assert all(block.startswith("data: ") for block in blocks)
    return [block if block == "data: [DONE]" else json.loads(block[6:]) for block in blocks]


def added_up(chunks: list[Any], num_choices: int = 1) -> list[dict[str, Any]]:
    """The choices that a stream's chunks add up to."""
    choices: list[dict[str, Any]] = [{"index": i, "message": {}, "logprobs": None} for i in range(num_choices)]
    for chunk in chunks:
        for part in chunk["choices"]:
            choice = choices[part["index"]]
            _add(choice["message"], part["delta"])
            if part["logprobs"] is not None:
                choice["logprobs"] = choice["logprobs"] or {"content": [], "refusal": None}
                choice["logprobs"]["content"] += part["logprobs"]["content"]
            if part["finish_reason"] is not None:
                assert "finish_reason" not in choice
                choice["finish_reason"] = part["finish_reason"]
    return choices


def _add(whole: dict[str, Any], delta: dict[str, Any]) -> None:
    for key, value in delta.items():
        if isinstance(value, dict):
            _add(whole.setdefault(key, {}), value)
        elif isinstance(value, list):
            for call in value:
                calls = whole.setdefault(key, [])
                if call["index"] == len(calls):
                    calls.append({})
                _add(calls[call["index"]], {name: each for name, each in call.items() if name != "index"})
        elif isinstance(value, str) and isinstance(whole.get(key), str):
            whole[key] += value
        else:
            whole[key] = value


def without_call_ids(choices: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same choices; ids of calls are new in each answer."""
    for choice in choices:
        for call in choice["message"].get("tool_calls", []):
            assert call.pop("id").startswith("call_")
    return choices
