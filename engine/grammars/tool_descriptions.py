"""The offered tools as chat templates expect them, and as text for models whose template does not know tools.

A signature has all that the model must know to fill a call: types, enums, and each description, of inner properties
too. Keywords that only bound a value are left to the grammar.
"""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from engine.tool_display import ToolStyle
from engine.types import CustomTool, JsonObject, OfferedTool

MAX_DEPTH = 4  # of what is shown of inner objects; a schema may refer to itself
INDENT = "  "
IN_BRACES = re.compile(r"\{.*\}")


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
    shown = _Shown(parameters)
    lines = [f"{tool.name}({shown.properties(parameters, MAX_DEPTH)}): {tool.description}".rstrip(": ")]
    return "\n".join([*lines, *shown.descriptions(parameters, INDENT, MAX_DEPTH)])


class _Shown:
    """Types and descriptions of one tool's parameters, in a few characters each."""

    def __init__(self, root: JsonObject) -> None:
        self._root = root

    def properties(self, schema: JsonObject, depth: int) -> str:
        required = schema.get("required", ())
        return ", ".join(
            f"{name}{'' if name in required else '?'}: {self.type(each, depth)}"
            for name, each in _properties(schema).items()
        )

    def type(self, schema: object, depth: int) -> str:
        """What kind of value it is. What has no short form is any value: the grammar knows it."""
        if not isinstance(schema, dict) or not schema:
            return "any"
        if depth == 0:
            return "object"
        for keyword, values in (("enum", schema.get("enum")), ("const", [schema.get("const")])):
            if keyword in schema and isinstance(values, list):
                return " | ".join(json.dumps(value, ensure_ascii=False) for value in values)
        if meant := [each for each in self._alternatives(schema) if each is not None]:
            return " | ".join(dict.fromkeys(self.type(each, depth - 1) for each in meant))
        return self._of_types(schema, depth)

    def _alternatives(self, schema: JsonObject) -> list[Any]:
        """The schemas of which one says what the value is: what it refers to, or the members of a union."""
        parts = schema.get("allOf") or ()
        return [
            self._target(schema),
            *(schema.get("anyOf") or ()),
            *(schema.get("oneOf") or ()),
            *(parts if len(parts) == 1 else ()),
        ]

    def _of_types(self, schema: JsonObject, depth: int) -> str:
        types = schema.get("type", "object" if "properties" in schema else ())
        names = [types] if isinstance(types, str) else types
        return " | ".join(self._of_type(str(name), schema, depth) for name in names) or "any"

    def _of_type(self, name: str, schema: JsonObject, depth: int) -> str:
        if name == "array":
            item = self.type(schema.get("items"), depth - 1)
            is_union = " | " in IN_BRACES.sub("", item)
            return f"({item})[]" if is_union else f"{item}[]"
        if name == "object" and _properties(schema):
            return "{" + self.properties(schema, depth - 1) + "}"
        return name

    def descriptions(self, schema: JsonObject, indent: str, depth: int) -> Iterator[str]:
        """A line for each property that is described; below it, those inside of its value."""
        if depth == 0:
            return
        for name, each in _properties(schema).items():
            if not isinstance(each, dict):
                continue
            text, inner = self._description(each), self._objects(each, depth)
            lines = [line for one in inner for line in self.descriptions(one, indent + INDENT, depth - 1)]
            if text or lines:
                yield f"{indent}{name}: {text}".rstrip()
            yield from lines

    def _description(self, schema: Mapping[str, Any]) -> str:
        """Its own, or that of what it refers to or lists."""
        items = schema.get("items")
        listed = items if isinstance(items, dict) else {}
        meant = (schema, self._target(schema), listed, self._target(listed))
        found = (each["description"] for each in meant if isinstance(each, dict) and each.get("description"))
        return str(next(found, ""))

    def _objects(self, schema: Mapping[str, Any], depth: int) -> Iterator[JsonObject]:
        """The schemas of objects that its value is or has, not looking into their properties."""
        if depth == 0:
            return
        if _properties(schema):
            yield schema
        inner = [self._target(schema), schema.get("items")]
        for keyword in ("anyOf", "oneOf", "allOf"):
            inner += schema.get(keyword) or ()
        for each in inner:
            if isinstance(each, dict):
                yield from self._objects(each, depth - 1)

    def _target(self, schema: Mapping[str, Any]) -> Any:
        """What a reference into the same document leads to; None where there is none."""
        reference = schema.get("$ref")
        if not isinstance(reference, str) or not reference.startswith("#/"):
            return None
        target: Any = self._root
        for step in reference.removeprefix("#/").split("/"):
            target = target.get(step.replace("~1", "/").replace("~0", "~")) if isinstance(target, dict) else None
        return target


def _properties(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    found = schema.get("properties")
    return found if isinstance(found, Mapping) else {}
