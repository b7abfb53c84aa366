"""Who answers the cases of benchmarks/tool_accuracy.py, in process or over HTTP, and what came of each.

Both sides are given the same chat request, so that every option of the API can be measured by its name. In process,
the cases of a batch are decoded together.

free      the same prompt with the tools in it, and nothing that binds the answer; calls are read out of its text by the
          parser of the model's own tool format. Over HTTP no prompt can be given so: the tools stand in the system
          message as the plain format shows them, and are read as that
auto      the server's own
required  likewise
"""

import concurrent.futures
import enum
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import httpx
import jsonschema_rs

from api.convert.errors import WireError
from api.convert.requests import to_request
from api.schemas.chat import ChatRequest
from benchmarks.tool_cases import JsonCall, ToolCase
from engine.engine import Engine
from engine.errors import MatcherError, RequestError
from engine.events import Completion, ToolCallDelta, ToolCallStart
from engine.grammars.tool_descriptions import describe_tool
from engine.grammars.tool_format import Opening, ToolFormat
from engine.grammars.tool_formats import PLAIN
from engine.grammars.turn_parser import TurnParser
from engine.prompt import instructions
from engine.types import Request, Tool

REQUEST_TIMEOUT_S = 600
# A wrong key or address, a server that is full or stops: the same request may be answered another time. A 500 is what
# llama.cpp's server says of schemas that it has no grammar for.
NOT_OF_THE_REQUEST = (401, 403, 404, 408, 429, 502, 503, 504)


class Mode(enum.StrEnum):
    """How a case is asked."""

    FREE = "free"
    AUTO = "auto"
    REQUIRED = "required"


@dataclass(frozen=True, slots=True)
class Written:
    """What was answered."""

    calls: tuple[JsonCall, ...] = ()
    text: str | None = None
    is_broken: bool = False  # a call began that cannot be read
    refusal: str | None = None  # what the request's error said
    prompt_tokens: int = 0
    completion_tokens: int = 0
    forced_tokens: int = 0
    forward_passes: int = 0
    toolmask: Mapping[str, Any] | None = None  # what the server says beyond that


@dataclass(frozen=True, slots=True)
class Asked:
    """What all requests have in common."""

    max_tokens: int
    options: Mapping[str, Any] = field(default_factory=dict)  # under `toolmask`
    temperature: float = 0
    seed: int = 0  # where the temperature is above 0


class Answerer(Protocol):
    """Answers a batch of cases; in their order."""

    def answer(self, cases: Sequence[ToolCase], mode: Mode) -> list[Written]: ...


def chat_body(case: ToolCase, mode: Mode, model: str, asked: Asked) -> dict[str, Any]:
    """The chat request. Where a case wants one call, one is asked for: an application knows that of its requests."""
    return {
        "model": model,
        "messages": [{"role": message.role.value, "content": message.content} for message in case.messages],
        "tools": [describe_tool(tool) for tool in case.tools],
        "tool_choice": "auto" if mode is Mode.FREE else mode.value,
        "parallel_tool_calls": case.is_parallel,
        "max_tokens": asked.max_tokens,
        "temperature": asked.temperature,
        **({"seed": asked.seed} if asked.temperature else {}),
        **({"toolmask": dict(asked.options)} if asked.options else {}),
    }


class InProcess:
    """An engine in this process."""

    def __init__(self, engine: Engine, asked: Asked) -> None:
        self._engine, self._asked = engine, asked

    def answer(self, cases: Sequence[ToolCase], mode: Mode) -> list[Written]:
        started = [self._start(case, mode) for case in cases]
        return [
            each if isinstance(each, Written) else self._written(each.completion(), case, mode)
            for each, case in zip(started, cases, strict=True)
        ]

    def _start(self, case: ToolCase, mode: Mode) -> Any:
        """A generation, or what refused the request."""
        body = chat_body(case, mode, self._engine.loaded.name, self._asked)
        try:
            request = to_request(ChatRequest.model_validate(body), {})
            if mode is Mode.FREE:
                prompt = tuple(self._engine.render_prompt(request))
                return self._engine.submit(
                    Request(prompt=prompt, sampling=request.sampling, max_tokens=request.max_tokens)
                )
            best_of = self._asked.options.get("best_of")
            return self._engine.submit(request) if best_of is None else self._engine.submit_best(request, best_of)
        except (RequestError, WireError) as error:
            return Written(refusal=str(error))

    def _written(self, completion: Completion, case: ToolCase, mode: Mode) -> Written:
        usage = completion.usage
        counts = {
            "prompt_tokens": usage.prompt_tokens,
            "completion_tokens": usage.completion_tokens,
            "forced_tokens": usage.forced_tokens,
            "forward_passes": usage.forward_passes,
        }
        if mode is Mode.FREE:
            calls, is_broken = read_calls(completion.text or "", self._engine.tool_format, case.tools)
            return Written(calls, completion.text, is_broken, **counts)
        calls = tuple({"name": call.name, "arguments": call.parsed_arguments()} for call in completion.tool_calls)
        return Written(calls, completion.text, toolmask=decision_of(completion), **counts)


def decision_of(completion: Completion) -> dict[str, Any] | None:
    """How sure the model was of calling, where the request asked for it; as the server tells it."""
    return None if completion.decision is None else {"decision": asdict(completion.decision)}


class OverHttp:
    """An OpenAI-compatible server."""

    def __init__(self, http: httpx.Client, model: str, asked: Asked) -> None:
        """http: its base URL is the API's, such as http://127.0.0.1:8000/v1."""
        self._http, self._model, self._asked = http, model, asked

    def answer(self, cases: Sequence[ToolCase], mode: Mode) -> list[Written]:
        with concurrent.futures.ThreadPoolExecutor(len(cases)) as pool:
            return list(pool.map(lambda case: self._answer(case, mode), cases))

    def _answer(self, case: ToolCase, mode: Mode) -> Written:
        body = chat_body(case, mode, self._model, self._asked)
        if mode is Mode.FREE:
            shown = {"role": "system", "content": instructions(PLAIN, case.tools)}
            body = {name: body[name] for name in ("model", "max_tokens", "temperature")}
            body["messages"] = [shown, *({"role": each.role.value, "content": each.content} for each in case.messages)]
        try:
            response = self._http.post("chat/completions", json=body, timeout=REQUEST_TIMEOUT_S)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise SystemExit(f"{self._http.base_url} could not be asked: {type(error).__name__}: {error}") from error
        told = f"{response.status_code}: {response.text[:300]}"
        if response.status_code in NOT_OF_THE_REQUEST:
            raise SystemExit(f"{self._http.base_url} answered {told}")
        if response.status_code != 200:
            return Written(refusal=told)
        return _of_wire(response.json(), case, mode)


def _of_wire(answer: Mapping[str, Any], case: ToolCase, mode: Mode) -> Written:
    (choice,), usage, info = answer["choices"], answer.get("usage") or {}, answer.get("toolmask")
    message, counts = choice["message"], _counts(usage, info or {})
    text: str | None = message.get("content")
    if mode is Mode.FREE:
        calls, is_broken = read_calls(text or "", PLAIN, case.tools)
        return Written(calls, text, is_broken, **counts)
    functions = [call["function"] for call in message.get("tool_calls") or []]
    arguments = [_parsed(function["arguments"]) for function in functions]
    read = tuple(
        {"name": function["name"], "arguments": each}
        for function, each in zip(functions, arguments, strict=True)
        if each is not None
    )
    return Written(read, text, None in arguments, toolmask=info, **counts)


def _counts(usage: Mapping[str, Any], info: Mapping[str, Any]) -> dict[str, int]:
    return {
        "prompt_tokens": usage.get("prompt_tokens", 0),
        "completion_tokens": usage.get("completion_tokens", 0),
        "forced_tokens": info.get("forced_tokens", 0),
        "forward_passes": info.get("forward_passes", 0),
    }


def read_calls(text: str, family: ToolFormat, tools: Sequence[Tool]) -> tuple[tuple[JsonCall, ...], bool]:
    """The calls that a text has in the family's format, and whether one began that cannot be read."""
    parser = TurnParser(
        family,
        has_calls=True,
        special_tokens={},  # the text spells them
        call_id=str,
        schemas={tool.name: tool.parameters or {} for tool in tools},
        opening=Opening.NONE,
    )
    names: dict[int, str] = {}
    arguments: dict[int, str] = {}
    is_broken = False
    try:
        # One character after the other: what is read before the format is left counts.
        for event in (event for character in text for event in parser.feed(character)):
            if isinstance(event, ToolCallStart):
                names[event.index], arguments[event.index] = event.name, ""
            elif isinstance(event, ToolCallDelta):
                arguments[event.index] += event.arguments
    except (MatcherError, ValueError):
        is_broken = True
    parsed = {index: _parsed(written) for index, written in arguments.items()}
    calls = tuple({"name": names[index], "arguments": each} for index, each in parsed.items() if each is not None)
    return calls, None in parsed.values() or (is_broken and not calls)


def _parsed(arguments: str) -> dict[str, Any] | None:
    """JSON text of an object; None where it is no such."""
    try:
        found = json.loads(arguments)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def invalid_calls(calls: Sequence[JsonCall], tools: Sequence[Tool]) -> list[str]:
    """The names of the calls that no offered tool can be called with."""
    schemas = {tool.name: dict(tool.parameters or {}) for tool in tools}
    return [call["name"] for call in calls if call["name"] not in schemas or not _fits(call, schemas[call["name"]])]


def _fits(call: JsonCall, schema: Mapping[str, Any]) -> bool:
    return bool(jsonschema_rs.validator_for(dict(schema)).is_valid(call["arguments"]))
