"""mlx-lm's own tool parsers, as a second reading of what a family's grammar lets through."""

import importlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from engine.grammars.tool_descriptions import describe_tool
from engine.types import Tool, ToolCall

MODULES = {
    "plain": "json_tools",
    "hermes": "json_tools",
    "smollm3": "json_tools",
    "qwen3-coder": "qwen3_coder",
    "glm": "glm47",
    "glm-4.7": "glm47",
    "minimax": "minimax_m2",
    "mistral": "mistral",
    "mistral-v7": "mistral",
    "mistral-v3": "mistral",
    "gemma4": "gemma4",
    "function-gemma": "function_gemma",
    "kimi-k2": "kimi_k2",
    "lfm2": "pythonic",
    "llama4-pythonic": "pythonic",
}
MISREAD = {"mistral-v11": "mistral"}  # whose parser finds the marker, and reads none of the calls as it is meant
ONE_AT_A_TIME = ("json_tools", "qwen3_coder", "glm47", "function_gemma", "gemma4")  # read what is between two tags
# What these parsers themselves get wrong, and are not asked: their own tags inside of strings, which they look for
# first; blanks around strings, which they take off; and, where they guess a type, strings that look like other values.
VALUES = r"^[-+\d.'\"\[{(]|^(null|none|nil|true|false)$"
HARD = {
    "json_tools": r"</?tool_call>",
    "qwen3_coder": rf"</?(parameter|function|tool_call)|{VALUES}",
    "glm47": rf"^\s|\s$|</?(arg_|tool_call)|{VALUES}",
    "minimax_m2": rf"^\s|\s$|</?(parameter|invoke|minimax)|{VALUES}",
    "mistral": r"\[(ARGS|TOOL_CALLS)\]",
    "gemma4": r'\0|<\|?"?\|?>|tool_call',
    "function_gemma": r"}|escape>|function_call",
    "kimi_k2": r"<\|tool_call",
    "pythonic": r"<\|tool_call",
}

UNREAD_WORDS = {"gemma4": "None"}  # for null, as the template has it: the parser knows null alone


@dataclass(frozen=True)
class ReadOtherwise:
    """A call that we read as it is meant, and mlx-lm's parser does not. docs/families.md lists them."""

    families: tuple[str, ...]
    what: str  # of the call misleads the parser
    arguments: dict[str, Any]
    name: str = "get_weather"

    def __str__(self) -> str:
        return self.what

    @property
    def tool(self) -> Tool:
        return Tool(self.name, "", {"type": "object", "properties": dict(map(_property, self.arguments.items()))})

    @property
    def call(self) -> ToolCall:
        return ToolCall("id", self.name, json.dumps(self.arguments, ensure_ascii=False))


def _property(argument: tuple[str, Any]) -> tuple[str, dict[str, str]]:
    name, value = argument
    return name, {"type": {str: "string", list: "array", dict: "object"}[type(value)]}


CITY = {"city": "Paris"}
PYTHONIC, JSON_TOOLS = ("llama4-pythonic", "lfm2"), ("smollm3", "hermes", "plain")
OTHERWISE = (
    ReadOtherwise(PYTHONIC, "a tool's name with `-`", CITY, "get-weather"),
    ReadOtherwise(PYTHONIC, "an argument named as a word of Python, beside a list", {"from": "Paris", "days": [1, 2]}),
    ReadOtherwise(PYTHONIC, "an argument's name that Python's NFKC changes", {"\ufb01le": "a.txt"}),
    ReadOtherwise(("mistral-v11",), "an id, as all of this family have", CITY),
    ReadOtherwise(("mistral",), "a tool's name with `.`", CITY, "weather.get"),
    ReadOtherwise(("gemma4", "function-gemma"), "a tool's name with `.`", CITY, "weather.get"),
    ReadOtherwise(("function-gemma",), "a tool's name with `-`", CITY, "get-weather"),
    ReadOtherwise(
        ("gemma4",), "an argument's name with a sign that is neither a letter nor a digit", {"a\u00b7b": "x"}
    ),
    ReadOtherwise(("function-gemma",), "a list", {"days": [1, 2]}),
    ReadOtherwise(("function-gemma",), "an object", {"at": {"x": [1]}}),
    ReadOtherwise(("function-gemma",), "a string with `}`", {"city": "{Paris}"}),
    ReadOtherwise(("qwen3-coder",), "an argument's name with a blank", {"my city": "Paris"}),
    ReadOtherwise(("qwen3-coder", *JSON_TOOLS), "a string with the tag that ends a call", {"city": "a</tool_call>b"}),
    ReadOtherwise(("glm-4.7", "glm"), "a string with the tag that ends a call", {"city": "a</tool_call>b"}),
    ReadOtherwise(("glm-4.7", "glm", "minimax"), "a string with blanks around it", {"city": " Paris "}),
    ReadOtherwise(("minimax",), "a string with the tag that ends a call", {"city": "a</invoke>b"}),
    ReadOtherwise(("gemma4",), "a string with the marker that ends a call", {"city": "a<tool_call|>b"}),
    ReadOtherwise(("kimi-k2",), "a string with the marker that ends a call", {"city": "a<|tool_call_end|>b"}),
    ReadOtherwise(("lfm2",), "a string with the marker that ends the calls", {"city": "a<|tool_call_end|>b"}),
)


def can_read(family: str, calls: Sequence[tuple[str, Any]]) -> bool:
    """Whether mlx-lm has a parser for the family, and these calls have nothing that it reads wrongly."""
    if family not in MODULES or not calls:
        return False
    values = [value for _, arguments in calls for value in arguments.values()]
    if family == "function-gemma" and any(isinstance(value, (dict, list)) for value in values):
        return False
    return not any(is_hard(family, text) for text in _strings(values))


def is_hard(family: str, text: str) -> bool:
    """Whether mlx-lm's parser would be misled by the text."""
    return re.search(HARD[MODULES[family]], text, re.IGNORECASE) is not None


def _strings(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [text for each in inner for text in _strings(each)]


def read(family: str, text: str, tools: Sequence[Tool]) -> list[tuple[str, Any]]:
    """The calls in a turn's text, as mlx-lm's server finds and parses them."""
    module = importlib.import_module(f"mlx_lm.tool_parsers.{(MODULES | MISREAD)[family]}")
    described = [describe_tool(tool) for tool in tools]
    begin, end = module.tool_call_start, module.tool_call_end
    if family == "llama4-pythonic":
        pieces = [text]
    elif MODULES.get(family) in ONE_AT_A_TIME:
        pieces = [piece.partition(end)[0] for piece in text.split(begin)[1:]]
    else:
        pieces = [text.partition(begin)[2].partition(end)[0] if end else text.partition(begin)[2].replace(begin, "\n")]
    found: list[tuple[str, Any]] = []
    for piece in pieces:
        parsed = module.parse_tool_call(piece, described)
        found += [(call["name"], call["arguments"]) for call in (parsed if isinstance(parsed, list) else [parsed])]
    return found
