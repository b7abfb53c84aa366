"""mlx-lm's own tool parsers, as a second reading of what a family's grammar lets through."""

import importlib
import re
from collections.abc import Sequence
from typing import Any

from engine.grammars.tool_descriptions import describe_tool
from engine.types import Tool

MODULES = {
    "plain": "json_tools",
    "hermes": "json_tools",
    "smollm3": "json_tools",
    "qwen3-coder": "qwen3_coder",
    "glm": "glm47",
    "minimax": "minimax_m2",
    "mistral": "mistral",
    "mistral-v7": "mistral",
    "gemma4": "gemma4",
    "function-gemma": "function_gemma",
    "kimi-k2": "kimi_k2",
    "lfm2": "pythonic",
    "llama4-pythonic": "pythonic",
}
ONE_AT_A_TIME = ("json_tools", "qwen3_coder", "glm47", "function_gemma")  # these read what stands between two tags
# What these parsers themselves get wrong, and we do not ask them: markup and quotes inside of strings, blanks around
# them, strings that look like other values, and, for FunctionGemma, lists and objects.
HARD = re.compile(r"""[<>\[\]{}()"'\\\n,:|\x00-\x1f]|^\s|\s$|^$|^(null|true|false|none|[-+\d.]+)$""", re.IGNORECASE)


def can_read(family: str, calls: Sequence[tuple[str, Any]]) -> bool:
    """Whether mlx-lm has a parser for the family, and these calls have nothing that it reads wrongly."""
    if family not in MODULES or not calls:
        return False
    values = [value for _, arguments in calls for value in arguments.values()]
    if family == "function-gemma" and any(isinstance(value, (dict, list)) for value in values):
        return False
    return not any(HARD.search(text) for text in _strings(values))


def _strings(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [text for each in inner for text in _strings(each)]


def read(family: str, text: str, tools: Sequence[Tool]) -> list[tuple[str, Any]]:
    """The calls in a turn's text, as mlx-lm's server finds and parses them."""
    module = importlib.import_module(f"mlx_lm.tool_parsers.{MODULES[family]}")
    described = [describe_tool(tool) for tool in tools]
    begin, end = module.tool_call_start, module.tool_call_end
    if family == "llama4-pythonic":
        pieces = [text]
    elif MODULES[family] in ONE_AT_A_TIME:
        pieces = [piece.partition(end)[0] for piece in text.split(begin)[1:]]
    else:
        pieces = [text.partition(begin)[2].partition(end)[0] if end else text.partition(begin)[2].replace(begin, "\n")]
    found: list[tuple[str, Any]] = []
    for piece in pieces:
        parsed = module.parse_tool_call(piece, described)
        found += [(call["name"], call["arguments"]) for call in (parsed if isinstance(parsed, list) else [parsed])]
    return found
