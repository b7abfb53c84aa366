"""Made-up arguments for a tool: valid by its schema, and of the kind that names and descriptions speak of."""

import random
import re
from collections.abc import Callable, Mapping
from typing import Any

from engine.errors import ConfigError
from engine.finetuning.words import FORMATS, HINTS, TOPICS
from engine.grammars.arguments_check import ArgumentsCheck
from engine.types import JsonObject, Tool

Draw = Callable[[random.Random], Any]

MAX_TRIES = 40  # draws of arguments before a schema counts as one that nothing is made up for
MAX_DEPTH = 4  # of objects and arrays within each other
OPTIONAL_SHARE = 0.4  # of draws that give an optional property a value
DEFAULT_RANGE = (1, 60)


class ArgumentsDrawer:
    """Draws arguments of one tool. The same random state gives the same ones."""

    def __init__(self, tool: Tool, path: str) -> None:
        """path: of the tool, for errors. Raises SchemaError where its schema cannot be enforced."""
        self.tool = tool
        self._path = path
        self._check = ArgumentsCheck(tool.parameters, f"{path}.parameters")

    def draw(self, source: random.Random) -> dict[str, Any]:
        """Valid arguments. Raises ConfigError where none are found."""
        fault: str | None = None
        for _ in range(MAX_TRIES):
            arguments = _object(self.tool.parameters or {}, source, MAX_DEPTH)
            fault = self._check.fault(arguments)
            if fault is None:
                return arguments
        raise ConfigError(
            f"{self._path}: no arguments of {self.tool.name!r} could be made up ({fault}); "
            "give the property `examples` in the schema"
        )


def _value(schema: Any, hint: str, source: random.Random, depth: int) -> Any:
    if not isinstance(schema, Mapping) or depth == 0:
        return source.choice(TOPICS)
    for keyword in ("enum", "examples"):
        if schema.get(keyword):
            return source.choice(schema[keyword])
    if "const" in schema:
        return schema["const"]
    for keyword in ("anyOf", "oneOf", "allOf"):
        if schema.get(keyword):
            return _value(schema[keyword][0], hint, source, depth - 1)
    return _of_type(schema, f"{hint}. {schema.get('description', '')}", source, depth)


def _of_type(schema: JsonObject, hint: str, source: random.Random, depth: int) -> Any:
    types = schema.get("type", "object" if "properties" in schema else "string")
    draws: Mapping[str, Draw] = {
        "object": lambda source: _object(schema, source, depth - 1),
        "array": lambda source: _array(schema, hint, source, depth - 1),
        "integer": lambda source: _integer(schema, hint, source),
        "number": lambda source: _number(schema, source),
        "boolean": lambda source: source.random() < 0.5,
        "null": lambda _: None,
        "string": lambda source: _string(schema, hint, source),
    }
    return draws[types if isinstance(types, str) else types[0]](source)


def _object(schema: JsonObject, source: random.Random, depth: int) -> dict[str, Any]:
    required = schema.get("required", ())
    return {
        name: _value(each, name, source, depth)
        for name, each in schema.get("properties", {}).items()
        if name in required or source.random() < OPTIONAL_SHARE
    }


def _array(schema: JsonObject, hint: str, source: random.Random, depth: int) -> list[Any]:
    least = max(int(schema.get("minItems", 1)), 0)
    most = min(int(schema.get("maxItems", least + 2)), least + 2)
    return [
        _value(schema.get("items", {}), hint, source, depth) for _ in range(source.randint(least, max(least, most)))
    ]


def _integer(schema: JsonObject, hint: str, source: random.Random) -> int:
    low, high = _bounds(schema, *((1990, 2030) if "year" in hint.lower() else DEFAULT_RANGE))
    step = int(schema.get("multipleOf", 1)) or 1
    value = source.randint(int(low), int(high))
    return value if value % step == 0 else value + step - value % step


def _number(schema: JsonObject, source: random.Random) -> float | int:
    low, high = _bounds(schema, *DEFAULT_RANGE)
    if source.random() < 0.4 and int(low) <= int(high):
        return source.randint(int(low), int(high))
    return round(source.uniform(low, high), source.choice((1, 2)))


def _bounds(schema: JsonObject, low: float, high: float) -> tuple[float, float]:
    """Within the schema's, and where it has only one, not far from it."""
    least = schema.get("minimum", schema.get("exclusiveMinimum"))
    most = schema.get("maximum", schema.get("exclusiveMaximum"))
    if least is not None and most is None:
        return least, least + high
    if most is not None and least is None:
        return min(low, most), most
    return (low, high) if least is None or most is None else (least, most)


def _string(schema: JsonObject, hint: str, source: random.Random) -> str:
    draw: Draw | None = FORMATS.get(schema.get("format", ""))
    if draw is None:
        name, _, description = hint.partition(". ")
        draw = _hinted(name) or _hinted(description) or (lambda source: source.choice(TOPICS))
    text = str(draw(source))
    return text[: schema["maxLength"]] if isinstance(schema.get("maxLength"), int) else text


def _hinted(text: str) -> Draw | None:
    """What the text's words speak of."""
    words = set(re.findall(r"[a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text).lower()))
    return next((draw for signs, draw in HINTS if signs & words), None)
