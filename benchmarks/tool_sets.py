"""Tool sets of any size, drawn from BFCL's functions."""

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from benchmarks.bfcl import DECODE_CATEGORIES, load_cases
from engine.types import Tool


def tool_pool() -> list[Tool]:
    """Every function of the two categories, the first of each name."""
    found: dict[str, Tool] = {}
    for category in DECODE_CATEGORIES:
        for case in load_cases(category).values():
            for tool in case.tools:
                found.setdefault(tool.name, tool)
    return list(found.values())


def draw_tools(pool: Sequence[Tool], count: int, seed: int) -> tuple[Tool, ...]:
    """So many of them, without repetition."""
    return tuple(random.Random(seed).sample(list(pool), count))


def renamed(tools: Sequence[Tool], tag: str) -> tuple[Tool, ...]:
    """The same tools under names, and with properties, that no cache has seen yet."""
    return tuple(replace(tool, name=f"{tool.name}_{tag}", parameters=_tagged(tool.parameters, tag)) for tool in tools)


def _tagged(schema: Any, tag: str) -> Any:
    properties = schema.get("properties") if schema else None
    if not properties:
        return schema
    names = {name: f"{name}_{tag}" for name in properties}
    required = [names.get(name, name) for name in schema.get("required", [])]
    tagged = {names[name]: value for name, value in properties.items()}
    return {**schema, "properties": tagged, "required": required}
