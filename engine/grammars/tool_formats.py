"""How each model family writes tool calls: one frozen object a family, read by the grammar and by the parser."""

import enum
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

from engine.types import CustomTool, JsonObject, OfferedTool, ToolCall


class ToolStyle(enum.StrEnum):
    """How a tool is shown to a model whose chat template does not show tools."""

    JSON = "json"  # one JSON object a line
    SIGNATURE = "signature"  # name(parameter: type, ...) and the descriptions


@dataclass(frozen=True, slots=True)
class Reasoning:
    """How a family writes what it thinks before it answers. All fields are literal text.

    A block is: begin, any text without end, end, after. Markers of calls inside it are its text.
    """

    begin: str
    end: str
    after: str = ""  # between the block and what follows it

    def is_in(self, chat_template: str | None) -> bool:
        """Whether models of this chat template reason so."""
        return self.begin in (chat_template or "") or self.end in (chat_template or "")

    def opening(self, prompt: str, *, may_open: bool) -> "Opening":
        """Where a turn after this prompt begins. may_open: whether the model reasons at all."""
        end = prompt.rstrip()
        if end.endswith(self.begin.rstrip()):
            return Opening.INSIDE
        is_over = end.endswith((self.end + self.after).rstrip())
        return Opening.BEFORE if may_open and not is_over else Opening.NONE


class Opening(enum.StrEnum):
    """Where a turn begins."""

    NONE = "none"  # after the reasoning, or there is none
    BEFORE = "before"  # the model may open its reasoning
    INSIDE = "inside"  # the prompt has opened it already


THINK = Reasoning(begin="<think>", end="</think>", after="\n\n")


@dataclass(frozen=True, slots=True)
class ToolFormat:
    """One family's way of writing calls. All fields are literal text.

    A call is: marker, before_name, the tool's name, before_arguments, the arguments as JSON, end.
    A custom tool's call is: marker, before_name, name, before_input, the raw input, input_end.
    Calls are joined by separator. Nothing but the turn's end follows the last one.
    """

    name: str
    marker: str  # opens a call, and only this does; often a single special token
    before_name: str
    before_arguments: str
    end: str
    separator: str
    before_input: str  # of a custom tool's call, in place of before_arguments; then comes its raw input
    input_end: str  # ends a custom tool's input, and its call
    response_begin: str  # around a tool's result, where the chat template does not know tool messages
    response_end: str
    template_signs: tuple[str, ...] = ()  # a chat template with all of these shows tools in this format itself
    instructions: str = ""  # shown to models whose template does not show tools; {tools} and {example} are filled in
    tool_style: ToolStyle = ToolStyle.JSON
    reasoning: Reasoning | None = THINK  # where the chat template has it

    @property
    def template_shows_tools(self) -> bool:
        return bool(self.template_signs)

    @property
    def literals(self) -> tuple[str, ...]:
        """Everything that it writes between what a request brings."""
        return tuple(_strings(self))

    def rewritten(self, rewrite: Callable[[str], str]) -> "ToolFormat":
        """The same with each literal rewritten."""
        family: ToolFormat = _rewritten(self, rewrite)
        return family

    def write_call(self, name: str, arguments: str) -> str:
        """A whole call as the model would write it. arguments: JSON text."""
        return f"{self.marker}{self.before_name}{name}{self.before_arguments}{arguments}{self.end}"

    def write_input(self, name: str, text: str) -> str:
        """A whole call of a custom tool as the model would write it."""
        return f"{self.marker}{self.before_name}{name}{self.before_input}{text}{self.input_end}"

    def write_calls(self, calls: tuple[ToolCall, ...]) -> str:
        """A turn's calls as the model would write them."""
        return self.separator.join(
            (self.write_input if call.custom else self.write_call)(call.name, call.arguments) for call in calls
        )


HERMES = ToolFormat(
    # Hermes 2 and 3, Qwen 2.5 and 3; read in Qwen2.5-3B-Instruct's chat template.
    name="hermes",
    marker="<tool_call>",
    before_name='\n{"name": "',
    before_arguments='", "arguments": ',
    end="}\n</tool_call>",
    separator="\n",
    before_input='"}\n',
    input_end="</tool_call>",
    response_begin="<tool_response>\n",
    response_end="\n</tool_response>",
    template_signs=("<tool_call>", "</tool_call>", "tools"),
)

PLAIN = ToolFormat(
    # Ours, for models that were never trained for tools. Every marker is ordinary text.
    name="plain",
    marker="<tool_call>",
    before_name='\n{"name": "',
    before_arguments='", "arguments": ',
    end="}\n</tool_call>",
    separator="\n",
    before_input='"}\n',
    input_end="</tool_call>",
    response_begin="<tool_response>\n",
    response_end="\n</tool_response>",
    # Of the ways that benchmarks/tool_prompts.py compares, the one with most right calls.
    instructions="You answer with a tool call, like this:\n{example}\n\nThe tools are:\n{tools}",
    tool_style=ToolStyle.SIGNATURE,
)

TOOL_FORMATS = (HERMES, PLAIN)


def _strings(literals: Any) -> Iterator[str]:
    for field in fields(literals):
        value = getattr(literals, field.name)
        if type(value) is str:
            yield value
        elif is_dataclass(value):
            yield from _strings(value)


def _rewritten(literals: Any, rewrite: Callable[[str], str]) -> Any:
    changed: dict[str, Any] = {}
    for field in fields(literals):
        value = getattr(literals, field.name)
        if type(value) is str:
            changed[field.name] = rewrite(value)
        elif is_dataclass(value):
            changed[field.name] = _rewritten(value, rewrite)
    return replace(literals, **changed)


def detect_format(chat_template: str | None) -> ToolFormat:
    """The family whose signs are all in the chat template; plain where there is none."""
    for family in TOOL_FORMATS:
        if family.template_shows_tools and all(sign in (chat_template or "") for sign in family.template_signs):
            return family
    return PLAIN


def describe_tool(tool: OfferedTool) -> dict[str, object]:
    """The tool in the form in which chat templates expect it: OpenAI's."""
    if isinstance(tool, CustomTool):
        form = "any text" if tool.format is None else f"{tool.format.kind.value}: {tool.format.source}"
        return {"type": "custom", "custom": {"name": tool.name, "description": tool.description, "input": form}}
    parameters = dict(tool.parameters) if tool.parameters else {"type": "object", "properties": {}}
    function = {"name": tool.name, "description": tool.description, "parameters": parameters}
    return {"type": "function", "function": function}


def describe_tools(tools: tuple[OfferedTool, ...], style: ToolStyle) -> str:
    """The tools as text for a prompt, one after the other."""
    if style is ToolStyle.JSON:
        described = (describe_tool(tool) for tool in tools)
        return "\n".join(json.dumps(each[str(each["type"])], ensure_ascii=False) for each in described)
    return "\n".join(_signature(tool) for tool in tools)


def _signature(tool: OfferedTool) -> str:
    if isinstance(tool, CustomTool):
        return f"{tool.name}, which takes plain text: {tool.description}".rstrip(": ")
    parameters = tool.parameters or {}
    properties: JsonObject = parameters.get("properties", {})
    required = parameters.get("required", ())
    shown = (f"{name}{'' if name in required else '?'}: {_type(schema)}" for name, schema in properties.items())
    lines = [f"{tool.name}({', '.join(shown)}): {tool.description}".rstrip(": ")]
    for name, schema in properties.items():
        if isinstance(schema, dict) and schema.get("description"):
            lines.append(f"  {name}: {schema['description']}")
    return "\n".join(lines)


def _type(schema: object) -> str:
    """A type in a few characters; what has no short form is shown as JSON."""
    if not isinstance(schema, dict) or not schema:
        return "any"
    if "enum" in schema:
        return " | ".join(json.dumps(value, ensure_ascii=False) for value in schema["enum"])
    types = schema.get("type")
    if types == "array":
        return f"{_type(schema.get('items'))}[]"
    if types == "object" and "properties" in schema:
        return "{" + ", ".join(f"{name}: {_type(each)}" for name, each in schema["properties"].items()) + "}"
    if types is None:
        return json.dumps(schema, ensure_ascii=False)
    return types if isinstance(types, str) else " | ".join(types)
