"""One request, asked three ways: of the Python API, of chat completions, and of chat completions streamed.

A promise of ours holds on all of them, so a test of one takes a Surface and asks in the words of the OpenAI API.
"""

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from engine.config import EngineConfig
from engine.engine import Engine
from engine.errors import EngineError, RequestError
from engine.events import Completion, StopReason
from engine.model import LoadedModel
from engine.types import Grammar, SamplingParams
from tests.api.servers import LiveServer, added_up, call_text, events_of, function_tool, served

MESSAGES = [{"role": "user", "content": "hi"}]
SAMPLING = ("temperature", "top_p", "logit_bias", "presence_penalty", "frequency_penalty")
BEYOND_OPENAI = ("top_k", "min_p", "repetition_penalty")  # of sampling


@dataclass(frozen=True)
class Answer:
    """What a client sees of a whole answer, or why there is none."""

    text: str | None = None
    calls: tuple[tuple[str, str], ...] = ()  # name and arguments, as written
    finish_reason: str | None = None
    reasoning: str | None = None
    error: str | None = None
    param: str | None = None  # that the error names
    receipt: tuple[tuple[str, str], ...] = ()  # path and enforcement
    usage: Mapping[str, int] = field(default_factory=dict)  # by the names of engine.events.Usage

    @property
    def arguments(self) -> list[Any]:
        """Each call's, as values."""
        return [json.loads(arguments) for _, arguments in self.calls]

    @property
    def value(self) -> Any:
        """The text, as JSON."""
        return json.loads(self.text or "")

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.calls]


class Surface(Protocol):
    """A way to ask."""

    def ask(self, **body: Any) -> Answer:
        """body: of a chat completion, in OpenAI's words; messages may be left out."""


@dataclass
class PythonSurface:
    """Engine.chat."""

    engine: Engine

    def ask(self, **body: Any) -> Answer:
        response = body.pop("response_format", None)
        grammar = None if response is None else Grammar.json_schema(response["json_schema"]["schema"])
        options = {
            "template_options" if name == "chat_template_kwargs" else name: value
            for name, value in body.pop("toolmask", {}).items()
        }
        sampling = {name: body.pop(name) for name in SAMPLING if name in body}
        sampling |= {name: options.pop(name) for name in BEYOND_OPENAI if name in options}
        noise = SamplingParams(**{"temperature": 0.0, "seed": body.pop("seed", 0), **sampling})
        try:
            completion = self.engine.chat(
                body.pop("messages", MESSAGES), response=grammar, sampling=noise, **options, **body
            )
        except RequestError as error:
            return Answer(error=str(error), param=error.param)
        except EngineError as error:
            return Answer(error=str(error))
        return Answer(
            completion.text,
            tuple((call.name, call.arguments) for call in completion.tool_calls),
            _finish_reason(completion),
            completion.reasoning,
            receipt=tuple((entry.path, entry.enforcement.value) for entry in completion.receipt.entries),
            usage=asdict(completion.usage),
        )


def _finish_reason(completion: Completion) -> str:
    if completion.stop_reason is StopReason.LENGTH:
        return "length"
    return "tool_calls" if completion.tool_calls else "stop"


@dataclass
class WireSurface:
    """Chat completions, whole or streamed."""

    server: LiveServer
    stream: bool

    def ask(self, **body: Any) -> Answer:
        streaming = {"stream": True, "stream_options": {"include_usage": True}} if self.stream else {}
        response = self.server.chat(**{"max_tokens": None, "messages": MESSAGES, **body, **streaming})
        if response.status_code != 200:
            error = response.json()["error"]
            return Answer(error=error["message"], param=error["param"])
        return self._streamed(events_of(response)) if self.stream else _answer(response.json())

    def _streamed(self, chunks: list[Any]) -> Answer:
        if chunks.pop() != "data: [DONE]":
            return Answer(error="the stream broke off")
        (choice,) = added_up(chunks)
        *_, last, usage = chunks
        return _answer({"toolmask": last["toolmask"], "usage": usage["usage"], "choices": [choice]})


def _answer(whole: dict[str, Any]) -> Answer:
    (choice,) = whole["choices"]
    message = choice["message"]
    calls = tuple((call["function"]["name"], call["function"]["arguments"]) for call in message.get("tool_calls") or ())
    receipt, usage = whole["toolmask"]["receipt"], whole["usage"]
    return Answer(
        message.get("content"),
        calls,
        choice["finish_reason"],
        message.get("reasoning_content"),
        receipt=tuple((entry["path"], entry["enforcement"]) for entry in receipt),
        usage={
            **{name: count for name, count in usage.items() if isinstance(count, int)},
            **usage["prompt_tokens_details"],
            **usage["completion_tokens_details"],
            "forward_passes": whole["toolmask"]["forward_passes"],
        },
    )


@contextlib.contextmanager
def surfaces(loaded: LoadedModel, engine_config: EngineConfig | None = None) -> Iterator[dict[str, Surface]]:
    """The three of them before one model. engine_config: None computes every prompt anew."""
    with served(loaded, engine_config=engine_config) as server:
        yield {
            "python": PythonSurface(server.engine),
            "chat": WireSurface(server, stream=False),
            "streamed chat": WireSurface(server, stream=True),
        }


# One tool, called once.


def tool(properties: dict[str, Any], *required: str, **more: Any) -> dict[str, Any]:
    """A function f with these arguments."""
    return function_tool("f", {"type": "object", "properties": properties, "required": list(required), **more})


def called(surface: Surface, offered: dict[str, Any], **more: Any) -> Answer:
    """Its one call."""
    return surface.ask(tools=[offered], tool_choice="required", parallel_tool_calls=False, **more)


def wanted(arguments: str) -> list[dict[str, str]]:
    """Messages that make a parrot want to call f so."""
    return [{"role": "user", "content": call_text("f", arguments)}]
