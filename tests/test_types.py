"""The values that travel through the engine. What they refuse is in bad_input/."""

import copy
import dataclasses
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import RequestError
from engine.events import Completion, Receipt, StopReason, TokenLogprob, Usage
from engine.types import (
    Grammar,
    GrammarKind,
    Message,
    Request,
    Role,
    SamplingParams,
    Tool,
    ToolCall,
    ToolChoice,
    ToolChoiceMode,
)
from tests.fakes import CALCULATE, SEARCH, USER

VALUES = [
    USER,
    CALCULATE,
    ToolCall("c", "f", "{}"),
    ToolChoice.named("f"),
    Grammar.regex("a"),
    SamplingParams(logit_bias={1: 2.0}, seed=3),
    Request(messages=(USER,), tools=(CALCULATE,), sampling=SamplingParams(top_logprobs=0)),
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_a_value_cannot_be_changed(value: object) -> None:
    name = dataclasses.fields(value)[0].name  # type: ignore[arg-type]
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(value, name, None)


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_a_value_can_be_copied_and_stored(value: object) -> None:
    assert copy.deepcopy(value) == value
    assert pickle.loads(pickle.dumps(value)) == value
    assert dataclasses.replace(value) == value  # type: ignore[type-var]


def answer(text: str | None, *calls: ToolCall) -> Completion:
    return Completion(text, calls, StopReason.EOS, Usage(1, 1, 0, 1), 0, Receipt())


@pytest.mark.parametrize(
    ("completion", "content"),
    [
        (answer("hi"), "hi"),
        (answer(None), ""),  # a message must have content or calls
        (answer(None, ToolCall("c", "f", "{}")), None),
        (answer("hi", ToolCall("c", "f", "{}")), "hi"),
    ],
)
def test_a_completion_is_the_next_message(completion: Completion, content: str | None) -> None:
    assert completion.message() == Message(Role.ASSISTANT, content, completion.tool_calls)


@pytest.mark.parametrize(
    ("choice", "callable_tools"),
    [
        (ToolChoice(), (CALCULATE, SEARCH)),
        (ToolChoice(ToolChoiceMode.REQUIRED), (CALCULATE, SEARCH)),
        (ToolChoice(ToolChoiceMode.NONE), ()),
        (ToolChoice.named("web_search"), (SEARCH,)),
        (ToolChoice(allowed=("web_search", "calculate")), (CALCULATE, SEARCH)),  # in the order of the offer
        (ToolChoice(allowed=()), ()),
        (ToolChoice(ToolChoiceMode.NONE, allowed=("calculate",)), ()),
    ],
)
def test_a_tool_choice_decides_which_tools_may_be_called(choice: ToolChoice, callable_tools: tuple[Tool, ...]) -> None:
    """F8: there, a named tool_choice called another tool."""
    request = Request(messages=(USER,), tools=(CALCULATE, SEARCH), tool_choice=choice)
    assert request.callable_tools == callable_tools


@given(st.text(max_size=5) | st.text("abcXYZ019_.-", max_size=66))
def test_a_tool_name_has_1_to_64_letters_digits_and_signs_and_nothing_else(name: str) -> None:
    is_plain = name.isascii() and name.replace("_", "a").replace("-", "a").replace(".", "a").isalnum()
    if is_plain and len(name) <= 64:
        assert Tool(name).name == name
    else:
        with pytest.raises(RequestError, match="name is"):
            Tool(name)


def test_a_grammar_has_its_source_as_text() -> None:
    assert Grammar.json_object() == Grammar(GrammarKind.JSON_SCHEMA, '{"type": "object"}')
    assert Grammar.json_schema(schema=True).source == "true"
    assert Grammar.choice(["é", "b"]) == Grammar(GrammarKind.CHOICE, '["é", "b"]')
    assert Grammar.choice(("a",)) == Grammar(GrammarKind.CHOICE, '["a"]')


def test_parsed_arguments_are_a_dict() -> None:
    assert ToolCall("", "f", '{"a": [1, "é"]}').parsed_arguments() == {"a": [1, "é"]}


def test_a_custom_tools_call_has_no_arguments_to_parse() -> None:
    with pytest.raises(RequestError, match="custom tool 'f' is text"):
        ToolCall("", "f", "x = 1", custom=True).parsed_arguments()


def test_a_probability_is_the_logprobs_exponential() -> None:
    assert TokenLogprob(1, b"a", 0.0).probability == 1.0
    assert TokenLogprob(1, b"a", -1.0).probability == pytest.approx(0.36788, abs=1e-5)
    assert TokenLogprob(1, b"a", float("-inf")).probability == 0.0


def test_sampling_is_greedy_at_temperature_zero_only() -> None:
    assert SamplingParams().is_greedy
    assert SamplingParams(frequency_penalty=0.1).is_greedy
    assert not SamplingParams(temperature=0.1).is_greedy
