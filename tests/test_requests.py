"""OpenAI's shapes as the engine's values. What is refused is in bad_input/."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import RequestError
from engine.requests import to_messages, to_stop, to_tool_choice, to_tools
from engine.tools import calculate, tool
from engine.types import Message, Role, Tool, ToolCall, ToolChoice, ToolChoiceMode
from tests.fakes import CALCULATE

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text('aé"\\\n'),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3).filter(str.isprintable), inner),
    max_leaves=5,
)


def test_a_conversation_in_openais_form_becomes_messages() -> None:
    conversation = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Weather in Paris?"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Paris"}'}}
            ],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "sunny"},
        {"role": "assistant", "content": "Sunny."},
    ]
    assert to_messages(conversation) == (
        Message(Role.SYSTEM, "Be brief."),
        Message(Role.USER, "Weather in Paris?"),
        Message(Role.ASSISTANT, None, (ToolCall("c1", "weather", '{"city": "Paris"}'),)),
        Message(Role.TOOL, "sunny", tool_call_id="c1"),
        Message(Role.ASSISTANT, "Sunny."),
    )


@pytest.mark.parametrize("role", Role)
def test_every_role_is_known_by_its_name(role: Role) -> None:
    (message,) = to_messages([{"role": role.value, "content": "hi"}])
    assert message == Message(role, "hi")


def test_messages_of_our_own_pass_as_they_are() -> None:
    message = Message(Role.USER, "hi")
    assert to_messages(iter([message]))[0] is message


@given(st.dictionaries(st.text(max_size=3).filter(str.isprintable), JSON_VALUES, max_size=3))
def test_arguments_may_be_an_object_or_its_text(arguments: dict[str, object]) -> None:
    def read_back(given_arguments: object) -> object:
        function = {"name": "f", "arguments": given_arguments}
        (message,) = to_messages([{"role": "assistant", "tool_calls": [{"id": "", "function": function}]}])
        return message.tool_calls[0].parsed_arguments()

    assert read_back(arguments) == read_back(json.dumps(arguments)) == arguments


def test_a_tool_has_many_forms() -> None:
    function = {"name": "calculate", "description": "Compute.", "parameters": CALCULATE.parameters}
    forms = [CALCULATE, {"type": "function", "function": function}, function, {"type": "function", **function}]
    assert to_tools(forms) == (CALCULATE,) * 4


def test_a_registered_function_is_a_tool() -> None:
    @tool
    def add(a: int, b: int) -> int:
        """Add two numbers."""
        return a + b

    assert to_tools([calculate, add]) == (calculate.definition, add.definition)


def test_a_tool_needs_no_more_than_a_name() -> None:
    assert to_tools([{"name": "now"}]) == (Tool("now"),)


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("auto", ToolChoice()),
        ("none", ToolChoice(ToolChoiceMode.NONE)),
        ("required", ToolChoice(ToolChoiceMode.REQUIRED)),
        ({"type": "function", "function": {"name": "f"}}, ToolChoice.named("f")),
        (
            {
                "type": "allowed_tools",
                "allowed_tools": {"mode": "required", "tools": [{"type": "function", "function": {"name": "f"}}]},
            },
            ToolChoice(ToolChoiceMode.REQUIRED, ("f",)),
        ),
        (ToolChoice.named("g"), ToolChoice.named("g")),
    ],
)
def test_a_tool_choice_has_many_forms(choice: object, expected: ToolChoice) -> None:
    assert to_tool_choice(choice) == expected


def test_one_stop_string_is_not_a_list_of_letters() -> None:
    assert to_stop("END") == ("END",)
    assert to_stop(["END", "STOP"]) == ("END", "STOP")


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(
                st.sampled_from(["role", "content", "tool_calls", "function", "name", "arguments", "id", "type"]), inner
            )
        ),
        max_leaves=8,
    )
)
def test_whatever_is_given_is_taken_or_refused_by_path_never_anything_else(value: object) -> None:
    for convert, param in (
        (to_messages, "messages"),
        (to_tools, "tools"),
        (to_stop, "stop"),
        (to_tool_choice, "tool_choice"),
    ):
        assert outcome(convert, value).startswith(param)


def outcome(convert: Callable[[Any], object], value: object) -> str:
    """The parameter that is refused; where none is, the converter's own name."""
    try:
        convert(value)
    except RequestError as error:
        return error.param
    return convert.__name__.removeprefix("to_")
