"""The tools that the server itself can execute."""

import importlib
from collections.abc import Iterable, Mapping
from typing import Any

from engine.errors import ConfigError
from engine.tools import RegisteredTool, ToolRegistry, ToolResult
from engine.types import JsonObject, Tool

AnyTool = RegisteredTool[..., Any]


class Toolbox:
    """Tools by name. Raises ConfigError where two have the same name."""

    def __init__(self, tools: Iterable[AnyTool]) -> None:
        self._tools = tuple(tools)
        self._registry = ToolRegistry(self._tools)

    @property
    def definitions(self) -> Mapping[str, Tool]:
        """What a model is told of each."""
        return {tool.definition.name: tool.definition for tool in self._tools}

    def execute(self, name: str, arguments: JsonObject) -> ToolResult:
        """Run one call; blocks as long as the tool does. Never raises on bad input."""
        return self._registry.execute(name, arguments)

    def subset(self, names: Iterable[str]) -> ToolRegistry:
        """A registry of these only, in this order."""
        by_name = {tool.definition.name: tool for tool in self._tools}
        return ToolRegistry(by_name[name] for name in names)


def import_tools(module: str) -> tuple[AnyTool, ...]:
    """Every tool that is a variable of a Python module. Raises ConfigError where there is none, or no such module."""
    try:
        imported = importlib.import_module(module)
    except Exception as error:  # a module's own code raises what it likes
        raise ConfigError(f"the tools of {module!r} cannot be imported: {type(error).__name__}: {error}") from error
    found = {id(value): value for value in vars(imported).values() if isinstance(value, RegisteredTool)}
    if not found:
        raise ConfigError(f"the module {module!r} has no function with @tool")
    return tuple(found.values())
