"""Plain Python values, in the shape of the OpenAI API, as the engine's frozen ones. Errors name the value by path."""

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

from engine.checks import check, shown
from engine.errors import RequestError
from engine.types import Message, OfferedTool, Role, Tool, ToolCall, ToolChoice, ToolChoiceBy, ToolChoiceMode


class HasDefinition(Protocol):
    """A registered tool, as engine.tools makes it."""

    @property
    def definition(self) -> Tool:
        """What the model is told of it."""


AnyMessage = Message | Mapping[str, Any]
AnyTool = OfferedTool | HasDefinition | Mapping[str, Any]
AnyToolChoice = ToolChoice | str | Mapping[str, Any]

T = TypeVar("T")


def to_messages(messages: Iterable[AnyMessage]) -> tuple[Message, ...]:
    """Messages as they are, or as {"role": ..., "content": ...}."""
    return tuple(_message(each, f"messages[{position}]") for position, each in enumerate(_listed(messages, "messages")))


def to_tools(tools: Iterable[AnyTool]) -> tuple[OfferedTool, ...]:
    """Tools as they are, registered functions, or {"type": "function", "function": {...}}."""
    return tuple(_tool(each, f"tools[{position}]") for position, each in enumerate(_listed(tools, "tools")))


def to_stop(stop: str | Iterable[str]) -> tuple[str, ...]:
    """One stop string, or several."""
    return (stop,) if isinstance(stop, str) else tuple(_listed(stop, "stop"))


def to_tool_choice(choice: AnyToolChoice) -> ToolChoice:
    """A mode's name, {"type": "function", "function": {"name": ...}}, or an allowed_tools object."""
    if isinstance(choice, ToolChoice):
        return choice
    try:
        if isinstance(choice, str):
            return ToolChoice(ToolChoiceMode(choice))
        if choice["type"] == "function":
            return ToolChoice.named(_named(choice))
        if choice["type"] == "allowed_tools":
            _check_keys(choice, {"type", "allowed_tools"}, "tool_choice")
            return _allowed_tools(choice["allowed_tools"])
    except (LookupError, TypeError, ValueError, RequestError):
        pass
    raise RequestError(
        f"tool_choice is {shown(choice)}; allowed are 'auto', 'none', 'required', a named function and allowed_tools",
        param="tool_choice",
    )


def to_tool_choice_by(by: ToolChoiceBy | str | None) -> ToolChoiceBy | None:
    """The value, or its name; None where it is left to the model's family."""
    if by is None:
        return None
    names = [each.value for each in ToolChoiceBy]
    check("tool_choice_by", by, f"one of {', '.join(names)}", holds=isinstance(by, str) and by in names)
    return ToolChoiceBy(by)


def _allowed_tools(allowed: Mapping[str, Any]) -> ToolChoice:
    _check_keys(allowed, {"mode", "tools"}, "tool_choice.allowed_tools")
    mode = ToolChoiceMode(allowed["mode"])
    if mode is ToolChoiceMode.NONE:
        raise ValueError
    return ToolChoice(mode, tuple(map(_named, allowed["tools"])))


def _named(choice: Mapping[str, Any]) -> str:
    """The name in {"type": "function", "function": {"name": ...}}."""
    _check_keys(choice, {"type", "function"}, "tool_choice")
    _check_keys(choice["function"], {"name"}, "tool_choice.function")
    if choice.get("type", "function") != "function":
        raise ValueError
    name: str = choice["function"]["name"]
    return name


def _message(message: AnyMessage, path: str) -> Message:
    if isinstance(message, Message):
        return message
    _check_keys(message, {"role", "content", "tool_calls", "tool_call_id", "reasoning"}, path)
    role: Any = message.get("role")
    check(f"{path}.role", role, f"one of {', '.join(Role)}", holds=isinstance(role, str) and role in list(Role))
    calls = message.get("tool_calls")
    calls = () if calls is None else _listed(calls, f"{path}.tool_calls")
    tool_calls = tuple(_tool_call(each, f"{path}.tool_calls[{position}]") for position, each in enumerate(calls))
    with _inside(path):
        return Message(
            Role(role), message.get("content"), tool_calls, message.get("tool_call_id"), message.get("reasoning")
        )


def _tool_call(call: ToolCall | Mapping[str, Any], path: str) -> ToolCall:
    if isinstance(call, ToolCall):
        return call
    _check_keys(call, {"id", "type", "function"}, path)
    check(f"{path}.type", call.get("type"), "'function'", holds=call.get("type", "function") == "function")
    function: Any = call.get("function")
    _check_keys(function, {"name", "arguments"}, f"{path}.function")
    arguments = function.get("arguments")
    try:
        text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):
        text = ""  # which is no JSON object either
    with _inside(path):
        return ToolCall(call.get("id", ""), function.get("name", ""), text)


def _tool(tool: AnyTool, path: str) -> OfferedTool:
    if isinstance(tool, OfferedTool):
        return tool
    if not isinstance(tool, Mapping):
        definition = getattr(tool, "definition", None)
        check(path, tool, "a Tool, a registered function or a mapping", holds=isinstance(definition, Tool))
        return tool.definition
    check(f"{path}.type", tool.get("type"), "'function'", holds=tool.get("type", "function") == "function")
    function = tool
    if "function" in tool:
        _check_keys(tool, {"type", "function"}, path)
        function = tool["function"]
    _check_keys(function, {"type", "name", "description", "parameters", "strict"}, path)
    description, strict = function.get("description"), function.get("strict")
    with _inside(path):
        return Tool(
            function.get("name", ""),
            "" if description is None else description,
            function.get("parameters"),
            strict=False if strict is None else strict,
        )


def _listed(values: Iterable[T], param: str) -> list[T]:
    is_list = isinstance(values, Iterable) and not isinstance(values, (str, bytes, Mapping))
    check(param, values, "a list", holds=is_list)
    return list(values)


def _check_keys(value: object, known: Collection[str], path: str) -> None:
    """Nothing is dropped in silence: a key that is not known is an error."""
    keys = f"a mapping with some of {', '.join(sorted(known))}"
    check(path, value, keys, holds=isinstance(value, Mapping))
    assert isinstance(value, Mapping)
    for key in value:
        if key not in known:
            raise RequestError(f"{path} has {shown(key)}; it must be {keys}", param=path)


@contextmanager
def _inside(path: str) -> Iterator[None]:
    """Put the path before what a value says of itself."""
    try:
        yield
    except RequestError as error:
        raise type(error)(f"{path}.{error}", param=f"{path}.{error.param}") from None
