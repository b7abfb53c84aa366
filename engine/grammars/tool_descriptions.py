"""The offered tools as chat templates expect them, and as text for models whose template does not know tools."""

import enum
import json

from engine.types import CustomTool, JsonObject, OfferedTool


class ToolStyle(enum.StrEnum):
    """How a tool is shown to a model whose chat template does not show tools."""

    JSON = "json"  # one JSON object a line
    SIGNATURE = "signature"  # name(parameter: type, ...) and the descriptions


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
