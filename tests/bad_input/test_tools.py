"""Tools, their schemas and tool_choice: refused by path, before the first token."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from engine.engine import Engine
from engine.errors import RequestError, SchemaError, UnenforceableError, UnknownToolError
from engine.types import ToolChoice, ToolChoiceMode
from tests.bad_input.asking import OTHER_TOOL, TOOL, USER, Case, Options, assert_refused, each
from tests.fakes import EOS, fake_loaded


def schema(**keywords: object) -> dict[str, object]:
    return {"name": "weather", "parameters": {"type": "object", "properties": {"city": keywords}}}


def deep(levels: int) -> Any:
    value: Any = {"type": "string"}
    for _ in range(levels):
        value = {"type": "object", "properties": {"a": value}}
    return value


TOOLS: list[Case] = [
    ("two tools of one name", lambda: {"tools": [TOOL, OTHER_TOOL, TOOL]}, "tools[2].name", RequestError),
    ("tools that are one tool", lambda: {"tools": TOOL}, "tools", RequestError),
    ("tools that are nothing", lambda: {"tools": None}, "tools", RequestError),
    ("a tool that is a plain function", lambda: {"tools": [len]}, "tools[0]", RequestError),
    ("a tool that is nothing", lambda: {"tools": [TOOL, None]}, "tools[1]", RequestError),
    ("a tool without name", lambda: {"tools": [{"parameters": {}}]}, "tools[0].name", RequestError),
    ("a tool's name with a blank", lambda: {"tools": [{"name": "a b"}]}, "tools[0].name", RequestError),
    ("a tool's name of 65 letters", lambda: {"tools": [{"name": "a" * 65}]}, "tools[0].name", RequestError),
    ("a tool's name with a line's end", lambda: {"tools": [{"name": "a\n"}]}, "tools[0].name", RequestError),
    ("a tool's name that is a number", lambda: {"tools": [{"name": 5}]}, "tools[0].name", RequestError),
    (
        "a description that is a number",
        lambda: {"tools": [{**TOOL, "description": 5}]},
        "tools[0].description",
        RequestError,
    ),
    ("a tool of another type", lambda: {"tools": [{"type": "web_search"}]}, "tools[0].type", RequestError),
    ("a key that is not known", lambda: {"tools": [{**TOOL, "returns": True}]}, "tools[0]", RequestError),
    ("a key beside function", lambda: {"tools": [{**OTHER_TOOL, "returns": True}]}, "tools[0]", RequestError),
    ("a function that is a text", lambda: {"tools": [{"function": "time"}]}, "tools[0]", RequestError),
    (
        "parameters that are a text",
        lambda: {"tools": [{**TOOL, "parameters": "{}"}]},
        "tools[0].parameters",
        SchemaError,
    ),
    (
        "an unknown type",
        lambda: {"tools": [schema(type="txt")]},
        "tools[0].parameters.properties.city.type",
        SchemaError,
    ),
    (
        "a keyword nobody can hold",
        lambda: {"tools": [schema(pattern="(?=a)")]},
        "tools[0].parameters.properties.city.pattern",
        UnenforceableError,
    ),
    (
        "a pattern that is no regex",
        lambda: {"tools": [TOOL, {**schema(type="string", pattern="("), "name": "b"}]},
        "tools[1].parameters.properties.city.pattern",
        UnenforceableError,
    ),
    (
        "a schema no value satisfies",
        lambda: {"tools": [{**TOOL, "parameters": {"enum": []}}]},
        "tools[0].parameters",
        SchemaError,
    ),
    ("a schema that JSON cannot write", lambda: {"tools": [schema(enum=[{1, 2}])]}, "tools[0].parameters", SchemaError),
    ("a schema of surrogates", lambda: {"tools": [schema(const="\ud800")]}, "tools[0].parameters", SchemaError),
    (
        "a schema that is deep",
        lambda: {"tools": [{**TOOL, "parameters": deep(150)}]},
        "tools[0].parameters",
        SchemaError,
    ),
    (
        "a schema of endless depth",
        lambda: {"tools": [{**TOOL, "parameters": deep(2000)}]},
        "tools[0].parameters",
        SchemaError,
    ),
    (
        "an unknown name in tool_choice",
        lambda: {"tool_choice": {"type": "function", "function": {"name": "fly"}}},
        "tool_choice",
        UnknownToolError,
    ),
    (
        "an unknown name among the allowed",
        lambda: {"tool_choice": ToolChoice(allowed=("fly",))},
        "tool_choice",
        UnknownToolError,
    ),
    ("a call without tools", lambda: {"tools": [], "tool_choice": "required"}, "tool_choice", RequestError),
    (
        "a call of none that is allowed",
        lambda: {"tool_choice": ToolChoice(ToolChoiceMode.REQUIRED, allowed=())},
        "tool_choice",
        RequestError,
    ),
    *(
        (f"tool_choice: {choice!r:.60}", lambda choice=choice: {"tool_choice": choice}, "tool_choice", RequestError)
        for choice in (
            "always",
            "",
            None,
            5,
            ["auto"],
            {},
            {"type": "function"},
            {"type": "function", "function": "weather"},
            {"type": "function", "function": {"name": ["weather"]}},
            {"type": "function", "name": "weather"},
            {"type": "function", "function": {"name": "weather"}, "strict": True},
            {"type": "function", "function": {"name": "weather", "strict": True}},
            {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [], "max": 1}},
            {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": []}, "mode": "auto"},
            {
                "type": "allowed_tools",
                "allowed_tools": {"mode": "auto", "tools": [{"function": {"name": "weather"}, "x": 1}]},
            },
            {"type": "allowed_tools", "allowed_tools": {"mode": "auto"}},
            {"type": "allowed_tools", "allowed_tools": {"mode": "none", "tools": []}},
            {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": ["weather"]}},
        )
    ),
    (
        "a tool_choice of ours with a mode of text",
        lambda: {"tool_choice": ToolChoice("required")},
        "tool_choice.mode",
        RequestError,
    ),
    ("parallel_tool_calls as text", lambda: {"parallel_tool_calls": "no"}, "parallel_tool_calls", RequestError),
]


@each(TOOLS)
def test_what_is_no_tool_and_no_choice_of_one_is_an_error_that_names_it(
    engine: Engine, way: str, options: Callable[[], Options], param: str, error: type[RequestError]
) -> None:
    assert_refused(engine, way, options, param, error)


def test_one_bad_schema_leaves_the_other_requests_alone(engine: Engine) -> None:
    """F5: there, one bad schema broke every tool."""
    with pytest.raises(UnenforceableError, match=r"tools\[0\].parameters.properties.city.pattern"):
        engine.chat([USER], tools=[schema(pattern="(?=a)")])
    assert engine.chat([USER], tools=[TOOL], tool_choice="required", max_tokens=60).tool_calls


@pytest.mark.parametrize("parameters", [None, {}, {"type": "object"}, {"type": "object", "properties": {}}])
def test_a_tool_without_parameters_is_a_good_tool(parameters: Mapping[str, object] | None) -> None:
    """F5: `{}`, missing parameters and empty objects are good schemas; the arguments are then `{}`."""
    with Engine(fake_loaded(bonus={EOS: 2000})) as engine:
        answer = engine.chat([USER], tools=[{"name": "now", "parameters": parameters}], tool_choice="required")
    assert [(each.name, each.arguments) for each in answer.tool_calls] == [("now", "{}")]
