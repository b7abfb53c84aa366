"""Plain Python values, in the shape of the OpenAI API, as the engine's frozen ones. Errors name the value by path."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from engine.errors import RequestError
from engine.types import Message, Role, Tool, ToolCall, ToolChoice, ToolChoiceMode


class HasDefinition(Protocol):
    """A registered tool, as engine.tools makes it."""

    @property
    def definition(self) -> Tool:
        """What the model is told of it."""


AnyMessage = Message | Mapping[str, Any]
AnyTool = Tool | HasDefinition | Mapping[str, Any]
AnyToolChoice = ToolChoice | str | Mapping[str, Any]


def to_messages(messages: Iterable[AnyMessage]) -> tuple[Message, ...]:
    """Messages as they are, or as {"role": ..., "content": ...}."""
    return tuple(
        each if isinstance(each, Message) else _message(each, f"messages[{position}]")
        for position, each in enumerate(messages)
    )


def _message(message: Mapping[str, Any], path: str) -> Message:
    known = {"role", "content", "tool_calls", "tool_call_id"}
    if unknown := set(message) - known:
        raise RequestError(f"{path} has {min(unknown)!r}; allowed are {', '.join(sorted(known))}", param=path)
    try:
        role = Role(message.get("role", ""))
    except ValueError:
        allowed = ", ".join(Role)
        raise RequestError(
            f"{path}.role is {message.get('role')!r}; allowed are {allowed}", param=f"{path}.role"
        ) from None
    content = message.get("content")
    if content is not None and not isinstance(content, str):
        raise RequestError(f"{path}.content must be a string", param=f"{path}.content")
    calls = tuple(
        _tool_call(each, f"{path}.tool_calls[{position}]")
        for position, each in enumerate(message.get("tool_calls") or ())
    )
    if content is None and not calls:
        raise RequestError(f"{path} has no content", param=f"{path}.content")
    return Message(role, content, calls, message.get("tool_call_id"))


def _tool_call(call: Mapping[str, Any], path: str) -> ToolCall:
    try:
        function = call["function"]
        arguments = function["arguments"]
        text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
        if not isinstance(json.loads(text), dict):
            raise ValueError
        return ToolCall(call.get("id", ""), function["name"], text)
    except (KeyError, TypeError, ValueError):
        raise RequestError(
            f'{path} must have the form {{"id": "...", "function": {{"name": "...", "arguments": "{{...}}"}}}}',
            param=path,
        ) from None


def to_tools(tools: Iterable[AnyTool]) -> tuple[Tool, ...]:
    """Tools as they are, registered functions, or {"type": "function", "function": {...}}."""
    return tuple(_tool(each, f"tools[{position}]") for position, each in enumerate(tools))


def _tool(tool: AnyTool, path: str) -> Tool:
    if isinstance(tool, Tool):
        return tool
    if not isinstance(tool, Mapping):
        return tool.definition
    function = tool.get("function", tool)
    known = {"name", "description", "parameters"}
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise RequestError(f"{path} must have a name", param=f"{path}.name")
    if unknown := set(function) - known - {"type"}:
        raise RequestError(f"{path} has {min(unknown)!r}; allowed are {', '.join(sorted(known))}", param=path)
    return Tool(function["name"], function.get("description") or "", function.get("parameters"))


def to_tool_choice(choice: AnyToolChoice) -> ToolChoice:
    """A mode's name, {"type": "function", "function": {"name": ...}}, or an allowed_tools object."""
    if isinstance(choice, ToolChoice):
        return choice
    try:
        if isinstance(choice, str):
            return ToolChoice(ToolChoiceMode(choice))
        if choice["type"] == "function":
            return ToolChoice.named(choice["function"]["name"])
        if choice["type"] == "allowed_tools":
            return _allowed_tools(choice["allowed_tools"])
    except (KeyError, TypeError, ValueError):
        pass
    raise RequestError(
        f"tool_choice is {choice!r}; allowed are 'auto', 'none', 'required', a named function and allowed_tools",
        param="tool_choice",
    )


def _allowed_tools(allowed: Mapping[str, Any]) -> ToolChoice:
    names: Sequence[str] = [tool["function"]["name"] for tool in allowed["tools"]]
    return ToolChoice(ToolChoiceMode(allowed["mode"]), tuple(names))
