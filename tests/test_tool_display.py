"""The ways of showing tools to models whose chat template shows none: each is what it says, and all show the same."""

import itertools
import json

import pytest

from engine.engine import Engine
from engine.errors import RequestError
from engine.grammars.tool_descriptions import describe_tools
from engine.grammars.tool_formats import PLAIN
from engine.prompt import render_text
from engine.tool_display import ToolDisplay, ToolOrder, ToolPlace, ToolStyle
from engine.types import JsonObject, Message, Request, Role, Tool, ToolCall
from tests.fakes import CALCULATE, SEARCH, USER, fake_loaded, fake_tokenizer

DISPLAYS = [ToolDisplay(*each) for each in itertools.product(ToolStyle, (True, False), ToolOrder, ToolPlace)]
ADDRESS = {
    "type": "object",
    "description": "Where it is.",
    "properties": {"city": {"type": "string", "description": "The town."}, "kind": {"enum": ["home", "work"]}},
    "required": ["city"],
}


def prompt_of(display: ToolDisplay | None, *messages: Message) -> str:
    request = Request(messages=messages or (USER,), tools=(CALCULATE, SEARCH), tool_display=display)
    return render_text(request, PLAIN, fake_tokenizer())


def signature_of(**properties: object) -> str:
    tool = Tool("f", "Does it.", {"type": "object", "properties": properties, "$defs": {"Address": ADDRESS}})
    return describe_tools((tool,), ToolStyle.SIGNATURES)


def test_the_default_display_is_that_of_the_plain_family() -> None:
    assert prompt_of(ToolDisplay()) == prompt_of(None)


@pytest.mark.parametrize("display", DISPLAYS, ids=lambda display: "-".join(map(str, display_values(display))))
def test_every_display_shows_each_tool_the_marker_and_the_question(display: ToolDisplay) -> None:
    prompt = prompt_of(display)
    for text in ("calculate", "Compute.", "num_results", "<tool_call>", "<|im_start|>user"):
        assert prompt.count(text) >= 1
    assert ('"arguments": {"expression": "..."}' in prompt) is display.example
    assert ("calculate(expression: string): Compute." in prompt) is (display.style is ToolStyle.SIGNATURES)
    if display.style is ToolStyle.JSON:
        (line,) = (line for line in prompt.splitlines() if line.startswith('{"name": "web_search", "desc'))
        assert json.loads(line.removesuffix("<|im_end|>"))["parameters"] == SEARCH.parameters
    comes_first = prompt.index("<tool_call>") < prompt.index("web_search")
    assert comes_first is (display.order is ToolOrder.EXAMPLE_FIRST)


def display_values(display: ToolDisplay) -> list[object]:
    return [display.style, display.example, display.order, display.place]


def test_tools_stand_where_the_display_says() -> None:
    first, answer, latest = Message(Role.USER, "one"), Message(Role.ASSISTANT, "two"), Message(Role.USER, "three")
    for place, before, after in (
        (ToolPlace.SYSTEM, "<|im_start|>system\n", "<|im_start|>user\none"),
        (ToolPlace.BEFORE, "<|im_start|>user\n", "\n\nthree"),
        (ToolPlace.AFTER, "three\n\n", "<|im_start|>assistant\n"),
    ):
        prompt = prompt_of(ToolDisplay(place=place), first, answer, latest)
        start = prompt.index("You answer with a tool call")
        assert prompt[:start].endswith(before)
        assert after in prompt[start:]
        assert prompt.count("You answer with a tool call") == 1


def test_a_tools_result_is_no_message_of_the_user() -> None:
    call = ToolCall("c", "calculate", '{"expression": "1"}')
    history = (USER, Message(Role.ASSISTANT, None, (call,)), Message(Role.TOOL, "1", tool_call_id="c"))
    prompt = prompt_of(ToolDisplay(place=ToolPlace.AFTER), *history)
    assert prompt.index("The tools are") < prompt.index("<tool_response>")


def test_tools_go_into_the_system_message_where_the_user_said_nothing() -> None:
    prompt = prompt_of(ToolDisplay(place=ToolPlace.AFTER), Message(Role.SYSTEM, "Be brief."))
    assert "<|im_start|>system\nBe brief.\n\nYou answer with a tool call" in prompt


def test_a_template_that_shows_tools_itself_takes_no_display() -> None:
    with Engine(fake_loaded(hermes=True)) as engine, pytest.raises(RequestError) as caught:
        engine.chat([USER], tools=[CALCULATE], tool_display=ToolDisplay())
    assert caught.value.param == "tool_display"


@pytest.mark.parametrize("field", ["style", "order", "place", "example"])
def test_a_display_with_something_else_is_refused_by_its_path(field: str) -> None:
    with pytest.raises(RequestError) as caught:
        ToolDisplay(**{field: "sideways"})  # type: ignore[arg-type]
    assert caught.value.param == f"tool_display.{field}"


def test_a_request_takes_no_display_of_another_type() -> None:
    with pytest.raises(RequestError, match="tool_display"):
        Request(messages=(USER,), tool_display="json")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("schema", "shown"),
    [
        ({"type": "string"}, "string"),
        ({"enum": ["a", 1, None]}, '"a" | 1 | null'),
        ({"type": "string", "const": "x"}, '"x"'),
        ({"type": ["integer", "null"]}, "integer | null"),
        ({"type": "array", "items": {"enum": ["a", "b"]}}, '("a" | "b")[]'),
        ({"type": "array", "items": {"type": "array", "items": {"type": "number"}}}, "number[][]"),
        ({"type": "array"}, "any[]"),
        ({"anyOf": [{"type": "integer"}, {"type": "string"}]}, "integer | string"),
        ({"$ref": "#/$defs/Address"}, '{city: string, kind?: "home" | "work"}'),
        ({"type": "array", "items": {"$ref": "#/$defs/Address"}}, '{city: string, kind?: "home" | "work"}[]'),
        ({"allOf": [{"$ref": "#/$defs/Address"}]}, '{city: string, kind?: "home" | "work"}'),
        ({"type": "object"}, "object"),
        ({"description": "d"}, "any"),
        ({"$ref": "#/$defs/Nowhere"}, "any"),
        ({}, "any"),
        (True, "any"),
    ],
    ids=str,
)
def test_a_signature_shows_types_and_enums(schema: object, shown: str) -> None:
    assert signature_of(x=schema).splitlines()[0] == f"f(x?: {shown}): Does it."


@pytest.mark.parametrize(
    ("schema", "lines"),
    [
        ({"type": "string", "description": "The text."}, ["  x: The text."]),
        ({"type": "array", "items": {"type": "string", "description": "One."}}, ["  x: One."]),
        ({"$ref": "#/$defs/Address"}, ["  x: Where it is.", "    city: The town."]),
        ({"$ref": "#/$defs/Address", "description": "Own."}, ["  x: Own.", "    city: The town."]),
        (
            {"anyOf": [{"$ref": "#/$defs/Address"}, {"type": "null"}]},
            ["  x:", "    city: The town."],
        ),
        ({"type": "array", "items": {"$ref": "#/$defs/Address"}}, ["  x: Where it is.", "    city: The town."]),
        ({"type": "string"}, []),
    ],
    ids=str,
)
def test_a_signature_has_every_description_at_its_depth(schema: JsonObject, lines: list[str]) -> None:
    assert signature_of(x=schema).splitlines()[1:] == lines


def test_a_schema_that_refers_to_itself_is_shown_in_few_characters() -> None:
    node = {"type": "object", "properties": {"next": {"$ref": "#/$defs/Node"}, "a": {"description": "An a."}}}
    tool = Tool("f", "", {"type": "object", "properties": {"x": {"$ref": "#/$defs/Node"}}, "$defs": {"Node": node}})
    assert len(describe_tools((tool,), ToolStyle.SIGNATURES)) < 500
