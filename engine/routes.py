"""Direct routes: patterns of the user's message, each to a call of a registered tool, without the model.

The rule: a route that is not certain does not fire, and the model answers. A call that is sent satisfies the schema of
the tool as the request offers it; what can be known to be wrong with a route is refused when it is made.
"""

import json
import logging
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import regex

from engine.argument_templates import Template, template_of
from engine.checks import is_text, shown
from engine.errors import ConfigError, SchemaError
from engine.events import Event, Finished, Receipt, StopReason, ToolCallDelta, ToolCallEnd, ToolCallStart, Usage
from engine.grammars.arguments_check import ArgumentsCheck
from engine.grammars.schema_walk import child_path
from engine.types import CustomTool, JsonObject, Request, Role, Tool

logger = logging.getLogger(__name__)

MAX_ROUTES = 256
MAX_MESSAGE_CHARS = 4096  # of a message that routes look at; a longer one goes to the model
MATCH_TIMEOUT_S = 0.05  # of processor time, for one message and all routes: a pattern may backtrack without end
MAX_PATTERN_CHARS = 2000
KEYS = ("name", "pattern", "tool", "arguments")


@dataclass(frozen=True, slots=True)
class Route:
    """One pattern and the call that it means."""

    name: str  # told in the answer
    pattern: str  # of the whole message, white space at its ends aside; syntax of the package `regex`
    tool: str
    # JSON whose strings may have {group}: what the pattern's named group matched. A string that is one placeholder
    # alone may name its type: {days:integer}, {rate:number}, {aloud:boolean}; where its group took no part, the
    # property is left out.
    arguments: JsonObject = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RoutedCall:
    """What a route answers."""

    route: str
    tool: str
    arguments: str  # JSON text

    def events(self, seed: int = 0) -> list[Event]:
        """The turn, as a generation gives it. No token was read or written."""
        call_id = f"call_{uuid.uuid4().hex[:20]}0"
        usage = Usage(prompt_tokens=0, completion_tokens=0, forced_tokens=0, forward_passes=0)
        return [
            ToolCallStart(0, call_id, self.tool),
            ToolCallDelta(0, self.arguments),
            ToolCallEnd(0),
            Finished(StopReason.GRAMMAR_END, usage, seed, Receipt(), route=self.route),
        ]


class Routes:
    """The routes of one set of tools. Immutable; any thread may use it."""

    def __init__(self, routes: Iterable[Route | JsonObject], tools: Iterable[Tool]) -> None:
        """routes: the first that fires counts. Raises ConfigError that names what is wrong by path: routes[0].tool."""
        by_name = {tool.name: tool for tool in tools}
        given = list(routes)
        if len(given) > MAX_ROUTES:
            raise ConfigError(f"routes has {len(given)} routes; the limit is {MAX_ROUTES}")
        self._routes = [
            _Compiled(read_route(each, f"routes[{i}]"), f"routes[{i}]", by_name) for i, each in enumerate(given)
        ]
        names = [compiled.route.name for compiled in self._routes]
        for position, name in enumerate(names):
            if name in names[:position]:
                raise ConfigError(f"routes[{position}].name is {name!r}, as is an earlier one's; names must differ")

    def match(self, request: Request, *, timeout_s: float = MATCH_TIMEOUT_S) -> RoutedCall | None:
        """The call of the first route that fires; None where the model is to answer.

        A route fires where the conversation ends with the user's message, the request offers the route's tool and may
        call it, the pattern matches the whole message in time, and the arguments satisfy that tool's schema.
        """
        if not self._routes or not request.messages or request.messages[-1].role is not Role.USER:
            return None
        message = (request.messages[-1].content or "").strip()
        tools = {tool.name: tool for tool in request.callable_tools if not isinstance(tool, CustomTool)}
        offered = [compiled for compiled in self._routes if compiled.route.tool in tools]
        if not offered or len(message) > MAX_MESSAGE_CHARS:
            return None
        try:
            return next(_calls(offered, message, tools, request.open_objects, timeout_s), None)
        except TimeoutError:
            logger.warning("no route fires: the patterns took more than %g s with a message", timeout_s)
            return None


def _calls(
    routes: Iterable["_Compiled"], message: str, tools: Mapping[str, Tool], open_objects: bool, timeout_s: float
) -> Iterator[RoutedCall]:
    """The calls of all routes that fire. Raises TimeoutError: of a later route nobody knows whether it is the first."""
    end = time.monotonic() + timeout_s
    for compiled in routes:
        arguments = compiled.arguments_for(message, max(end - time.monotonic(), 0.0))
        if arguments is None:
            continue
        tool = tools[compiled.route.tool]
        check = ArgumentsCheck(tool.parameters, "parameters", open_objects=open_objects)
        if (fault := check.fault(arguments)) is not None:
            logger.info("the route %s does not fire: its arguments do not fit: %s", compiled.route.name, fault)
            continue
        text = json.dumps(check.ordered(arguments), ensure_ascii=False)
        yield RoutedCall(compiled.route.name, tool.name, text)


class _Compiled:
    """A route whose pattern and template are read, and checked against its tool."""

    def __init__(self, route: Route, path: str, tools: Mapping[str, Tool]) -> None:
        self.route = route
        self._pattern = _pattern(route.pattern, f"{path}.pattern")
        self._template = template_of(route.arguments, self._pattern.groupindex.keys(), f"{path}.arguments")
        if route.tool not in tools:
            known = ", ".join(tools) or "none"
            raise ConfigError(f"{path}.tool is {shown(route.tool)}; registered are {known}")
        _check_template(self._template, tools[route.tool], path)

    def arguments_for(self, message: str, timeout_s: float) -> dict[str, Any] | None:
        """None where the route does not fire. Raises TimeoutError."""
        # concurrent: without Python's lock, which the decoding thread needs meanwhile.
        match = self._pattern.fullmatch(message, timeout=timeout_s, concurrent=True)
        if match is None:
            return None
        try:
            return self._template.fill(match.groupdict())
        except ValueError as fault:
            logger.info("the route %s does not fire: %s", self.route.name, fault)
            return None


def read_route(given: object, path: str) -> Route:
    """A route, as it is or as JSON has it. Raises ConfigError that names what is wrong by path."""
    if not isinstance(given, Route):
        given = _read(given, path)
    for name in ("name", "pattern", "tool"):
        value = getattr(given, name)
        if not is_text(value) or not value:
            raise ConfigError(f"{path}.{name} is {shown(value)}; it must be text that is not empty")
    return given


def _read(given: object, path: str) -> Route:
    if not isinstance(given, Mapping):
        raise ConfigError(f"{path} is {shown(given)}; it must be an object with {', '.join(KEYS)}")
    for key in given:
        if key not in KEYS:
            raise ConfigError(f"{path} has {shown(key)}; known are {', '.join(KEYS)}")
    for key in KEYS[:3]:
        if key not in given:
            raise ConfigError(f"{path}.{key} is missing")
    return Route(given["name"], given["pattern"], given["tool"], given.get("arguments", {}))


def _pattern(source: str, path: str) -> "regex.Pattern[str]":
    if len(source) > MAX_PATTERN_CHARS:
        raise ConfigError(f"{path} has {len(source)} characters; the limit is {MAX_PATTERN_CHARS}")
    try:
        return regex.compile(source)
    except (regex.error, OverflowError, RecursionError) as error:
        raise ConfigError(f"{path} is {shown(source)}, which is no regular expression: {error}") from None


def _check_template(template: Template, tool: Tool, path: str) -> None:
    """What can be known before there is a message. Raises ConfigError."""
    try:
        check = ArgumentsCheck(tool.parameters, f"{path}.tool.parameters")
    except SchemaError as error:
        raise ConfigError(f"{path}.tool: the schema of {tool.name!r} cannot be enforced: {error}") from error
    path = f"{path}.arguments"
    for name in template.values:
        if not check.knows(name):
            raise ConfigError(f"{path} has {shown(name)}, which {tool.name!r} does not take")
    for name in check.required:
        if name not in template.values:
            raise ConfigError(f"{path} lacks {name!r}, which {tool.name!r} requires")
    if (fault := check.fault_of_parts(template.constants())) is not None:
        raise ConfigError(f"{path}.{fault}")
    for name, placeholder in template.placeholders().items():
        types = check.types_of(name)
        if types is not None and not types & placeholder.types:
            wanted = " or ".join(sorted(types))
            raise ConfigError(f"{child_path(path, name)} is a {placeholder.kind}; {tool.name!r} takes {wanted}")
