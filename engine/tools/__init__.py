"""Tools: typed Python functions that a model may call, two of them built in.

@tool
def add(a: int, b: int) -> int:
    '''Add two numbers.'''
    return a + b

registry = ToolRegistry([add, calculate, web_search])
registry.definitions  # the tools of a Request
registry.execute("add", '{"a": 1, "b": 2}')  # {"success": True, "result": 3}
"""

from engine.tools.calculate import CalculationError, calculate
from engine.tools.registry import RegisteredTool, ToolError, ToolFailure, ToolRegistry, ToolResult, ToolSuccess, tool
from engine.tools.web_search import (
    DuckDuckGo,
    SearchProvider,
    SearchResult,
    SearXNG,
    WebSearch,
    WebSearchError,
    make_web_search,
    web_search,
)
from engine.types import JsonObject

BUILT_IN_TOOLS = ToolRegistry([calculate, web_search])


def execute_tool(name: str, arguments: JsonObject | str, registry: ToolRegistry = BUILT_IN_TOOLS) -> ToolResult:
    """Run one call that a model wrote, of a built-in tool unless a registry is given. Never raises on bad input."""
    return registry.execute(name, arguments)


__all__ = [
    "BUILT_IN_TOOLS",
    "CalculationError",
    "DuckDuckGo",
    "RegisteredTool",
    "SearXNG",
    "SearchProvider",
    "SearchResult",
    "ToolError",
    "ToolFailure",
    "ToolRegistry",
    "ToolResult",
    "ToolSuccess",
    "WebSearch",
    "WebSearchError",
    "calculate",
    "execute_tool",
    "make_web_search",
    "tool",
    "web_search",
]
