"""How tools are shown to models whose chat template does not show them: the choices, and the words around the tools.

docs/showing-tools.md and docs/accuracy.md have what each choice was measured to do.
"""

import enum
from dataclasses import dataclass

from engine.checks import check


class ToolStyle(enum.StrEnum):
    """How one tool is written."""

    JSON = "json"  # one JSON object a line
    SIGNATURES = "signatures"  # name(parameter: type, ...) and the descriptions


class ToolOrder(enum.StrEnum):
    """What comes first."""

    EXAMPLE_FIRST = "example_first"
    TOOLS_FIRST = "tools_first"


class ToolPlace(enum.StrEnum):
    """Where in the prompt the tools stand."""

    SYSTEM = "system"  # in the system message
    BEFORE = "before"  # in the user's latest message, before its text
    AFTER = "after"  # likewise, behind it


EXAMPLE_FIRST = "You answer with a tool call, like this:\n{example}\n\nThe tools are:\n{tools}"
TOOLS_FIRST = "You can call these tools:\n{tools}\n\nTo call a tool, write its name and arguments like this:\n{example}"
NO_EXAMPLE_FIRST = "You answer with a tool call, which begins with {marker}\n\nThe tools are:\n{tools}"
NO_EXAMPLE = "You can call these tools:\n{tools}\n\nA tool call begins with {marker}"


@dataclass(frozen=True, slots=True)
class ToolDisplay:
    """How a request's tools are shown. What is not set is as in the default."""

    style: ToolStyle = ToolStyle.SIGNATURES
    example: bool = True  # of a call, built from the first tool's own schema
    order: ToolOrder = ToolOrder.EXAMPLE_FIRST
    place: ToolPlace = ToolPlace.SYSTEM

    def __post_init__(self) -> None:
        chosen: tuple[tuple[str, object, type[enum.StrEnum]], ...] = (
            ("style", self.style, ToolStyle),
            ("order", self.order, ToolOrder),
            ("place", self.place, ToolPlace),
        )
        for param, value, kind in chosen:
            path = f"tool_display.{param}"
            check(path, value, f"a {kind.__name__}", holds=isinstance(value, kind))
        check("tool_display.example", self.example, "a bool", holds=isinstance(self.example, bool))

    @property
    def instructions(self) -> str:
        """What is said around the tools; {tools}, {example} and {marker} are to be filled in."""
        if self.order is ToolOrder.EXAMPLE_FIRST:
            return EXAMPLE_FIRST if self.example else NO_EXAMPLE_FIRST
        return TOOLS_FIRST if self.example else NO_EXAMPLE
