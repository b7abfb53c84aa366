"""Reasoning, by the whole engine: its events, its budget, and the options of the chat template."""

import pytest

from engine.engine import Engine
from engine.errors import RequestError
from engine.events import Finished, LogprobsDelta, ReasoningDelta
from engine.output import collect
from engine.types import Message, Request, Role, SamplingParams
from tests.fakes import CALCULATE, REQUIRED, USER, fake_loaded, fake_that_writes, fake_tokenizer

each_kind = pytest.mark.parametrize("hermes", [False, True], ids=["text", "tokens"])
CALL = '<tool_call>\n{"name": "calculate", "arguments": {"expression": "1"}}\n</tool_call>'


@each_kind
def test_what_the_model_thinks_is_no_part_of_its_text(hermes: bool) -> None:
    with Engine(fake_that_writes("<think>\nHm. STOP\n</think>\n\nYes.", hermes=hermes, reasons=True)) as engine:
        completion = engine.chat([USER], stop="STOP")
        streamed = list(engine.stream([USER]))
    assert (completion.reasoning, completion.text) == ("Hm. STOP", "Yes.")
    assert completion.message() == Message(Role.ASSISTANT, "Yes.", reasoning="Hm. STOP")
    assert collect(streamed).reasoning == "Hm. STOP"
    assert isinstance(streamed[0], ReasoningDelta)


@each_kind
@pytest.mark.parametrize("opened", [False, True], ids=["before", "inside"])
def test_tokens_of_reasoning_are_counted_with_its_tags(hermes: bool, opened: bool) -> None:
    with Engine(fake_that_writes("<think>\nHm.\n</think>\n\nYes.", hermes=hermes, reasons=True)) as engine:
        *events, end = engine.stream(
            [USER], sampling=SamplingParams(top_logprobs=0), template_options={"opened": opened}
        )
    of_reasoning = [
        each for event in events if isinstance(event, LogprobsDelta) and event.of_reasoning for each in event.tokens
    ]
    written = b"".join(each.token for each in of_reasoning).decode()
    assert written.endswith("Hm.\n</think>\n\n")
    assert isinstance(end, Finished)
    assert end.usage.reasoning_tokens == len(of_reasoning)


def test_a_turn_that_is_cut_in_its_reasoning_is_all_reasoning() -> None:
    with Engine(fake_that_writes("<think>\nHm. Well.\n</think>\n\nYes.", hermes=True, reasons=True)) as engine:
        usage = engine.chat([USER], max_tokens=5).usage
    assert (usage.reasoning_tokens, usage.completion_tokens) == (5, 5)


def test_text_alone_has_no_tokens_of_reasoning() -> None:
    with Engine(fake_that_writes("<thin Yes.", reasons=True)) as engine:
        assert engine.chat([USER]).usage.reasoning_tokens == 0


@each_kind
def test_a_call_inside_the_reasoning_is_not_called(hermes: bool) -> None:
    """F17."""
    inside = CALL.replace("<tool_call>", "<tool_call").replace("</tool_call>", "") if hermes else CALL
    with Engine(fake_that_writes(f"<think>{inside}</think>\n\n{CALL}", hermes=hermes, reasons=True)) as engine:
        completion = engine.chat([USER], tools=[CALCULATE], tool_choice=REQUIRED)
    assert completion.reasoning == inside.strip("\n")
    assert [call.arguments for call in completion.tool_calls] == ['{"expression": "1"}']


@each_kind
def test_reasoning_ends_with_its_budget(hermes: bool) -> None:
    with Engine(fake_loaded(hermes=hermes, reasons=True, bonus={"a": 5000})) as engine:
        completion = engine.chat(
            [USER],
            tools=[CALCULATE],
            tool_choice=REQUIRED,
            parallel_tool_calls=False,
            max_tokens=200,
            reasoning_budget=7,
            template_options={"opened": True},
        )
    assert completion.reasoning == "a" * 7
    assert [call.name for call in completion.tool_calls] == ["calculate"]


def test_a_budget_without_reasoning_is_refused() -> None:
    with Engine(fake_loaded()) as engine, pytest.raises(RequestError) as caught:
        engine.chat([USER], reasoning_budget=5)
    assert caught.value.param == "reasoning_budget"


@each_kind
def test_an_option_of_the_chat_template_is_passed_to_it(hermes: bool) -> None:
    with Engine(fake_that_writes("Yes.", hermes=hermes, reasons=True)) as engine:
        completion = engine.chat([USER], template_options={"enable_thinking": False})
    assert (completion.reasoning, completion.text) == (None, "Yes.")


@pytest.mark.parametrize("name", ["enable_thinkin", "tools", "messages", "add_generation_prompt", "message"])
def test_an_option_that_the_chat_template_does_not_read_is_refused_by_name(name: str) -> None:
    """F13."""
    with Engine(fake_loaded(reasons=True)) as engine, pytest.raises(RequestError, match="enable_thinking") as caught:
        engine.chat([USER], template_options={name: True})
    assert caught.value.param == f"template_options.{name}"


def test_earlier_reasoning_is_shown_by_the_models_own_template() -> None:
    with Engine(fake_that_writes("Yes.", hermes=True, reasons=True)) as engine:
        history = [USER, Message(Role.ASSISTANT, "No.", reasoning="Hm."), USER]
        prompt = engine.render_prompt(Request(messages=tuple(history)))
    assert "<think>\nHm.\n</think>\n\nNo." in fake_tokenizer(hermes=True, reasons=True).decode(prompt)
