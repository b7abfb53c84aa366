"""Calls that are opened in another way than a family's own, as rules of a turn's grammar.

They stand where a call is the model's choice. Where one must come, the family's own way is the only one, so that what
opens it is forced.
"""

from collections.abc import Mapping

from engine.grammars.encoders.arguments import Terminals
from engine.grammars.tool_format import ToolFormat
from engine.types import OfferedTool, Request, Tool, ToolChoiceMode


def opened_otherwise(request: Request, family: ToolFormat, tools: Mapping[int, OfferedTool]) -> dict[int, str]:
    """The names of those of the tools that may be called so, by their positions."""
    if not family.other_openings or request.tool_choice.mode is ToolChoiceMode.REQUIRED:
        return {}
    return {position: tool.name for position, tool in tools.items() if isinstance(tool, Tool)}


def other_calls(family: ToolFormat, names: Mapping[int, str], terminals: Terminals) -> dict[str, str]:
    """What each of the other ways may write, by the name of its rule. names: by position.

    All behind a header is the rule rest_N of its tool.
    """
    if not names:
        return {}
    found = {}
    for number, way in enumerate(family.other_ways):
        calls = (f"{terminals(name + way.before_arguments)} rest_{position}" for position, name in names.items())
        found[f"other_{number}"] = f"{terminals(way.marker)} ({' | '.join(calls)})"
    return found
