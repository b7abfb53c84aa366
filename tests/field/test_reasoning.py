"""F16, F17: what a model thinks, and what it then does, are one grammar."""

from typing import Any

import pytest

from tests.api.servers import WEATHER, call_text
from tests.field.surfaces import Answer, Surface

PARIS = call_text("get_weather", '{"city": "Paris", "days": 3}')
ROME = call_text("get_weather", '{"city": "Rome", "days": 1}')
SCHEMA = {
    "type": "json_schema",
    "json_schema": {
        "name": "answer",
        "schema": {"type": "object", "properties": {"answer": {"type": "boolean"}}, "required": ["answer"]},
    },
}
TRUE = '{"answer": true}'
OPENED = pytest.mark.parametrize("opened", [False, True], ids=["by the model", "by the template"])


def asked(thinker: Surface, turn: str, *, opened: bool = False, **body: Any) -> Answer:
    """opened: the chat template has written the turn's first line before it begins."""
    options = {"chat_template_kwargs": {"opened": True}} if opened else {}
    return thinker.ask(messages=[{"role": "user", "content": turn}], toolmask=options, max_tokens=300, **body)


@OPENED
@pytest.mark.parametrize("thought", ["Hm.", "{}", '{"answer": 5}', "The answer is {"])
def test_the_response_stands_behind_the_reasoning_and_never_in_it(thinker: Surface, thought: str, opened: bool) -> None:
    """F16: there, the JSON landed in the reasoning."""
    answer = asked(thinker, f"<think>\n{thought}\n</think>\n\n{TRUE}", opened=opened, response_format=SCHEMA)
    assert (answer.error, answer.reasoning, answer.value) == (None, thought, {"answer": True})


@OPENED
def test_a_model_that_goes_on_thinking_is_closed_in_time_for_its_response(thinker: Surface, opened: bool) -> None:
    """F16: all of the budget may not go into the reasoning."""
    endless = "<think>\n" + "a b " * 200
    answer = asked(thinker, endless, opened=opened, response_format=SCHEMA)
    assert (answer.error, answer.finish_reason) == (None, "stop")
    assert isinstance(answer.value["answer"], bool)
    assert answer.usage["reasoning_tokens"] > 200


@OPENED
@pytest.mark.parametrize("choice", ["auto", "required", {"type": "function", "function": {"name": "get_weather"}}])
def test_a_call_stands_behind_the_reasoning(thinker: Surface, choice: Any, opened: bool) -> None:
    """F16: there, a template that had opened the block broke the grammar."""
    turn = f"<think>\nHm.\n</think>\n\n{PARIS}"
    answer = asked(thinker, turn, opened=opened, tools=[WEATHER], tool_choice=choice, parallel_tool_calls=False)
    assert (answer.error, answer.reasoning) == (None, "Hm.")
    assert answer.arguments == [{"city": "Paris", "days": 3}]


@OPENED
@pytest.mark.parametrize("choice", ["auto", "required", "none"])
def test_a_call_inside_the_reasoning_is_reasoning(thinker: Surface, choice: str, opened: bool) -> None:
    """F17: there, it was called, or swallowed with what came behind it."""
    turn = f"<think>\nPerhaps {ROME}?\n</think>\n\n{'Yes.' if choice == 'none' else PARIS}"
    answer = asked(thinker, turn, opened=opened, tools=[WEATHER], tool_choice=choice, parallel_tool_calls=False)
    assert (answer.error, answer.reasoning) == (None, f"Perhaps {ROME}?")
    assert answer.arguments == ([] if choice == "none" else [{"city": "Paris", "days": 3}])
    assert (answer.text or "") == ("Yes." if choice == "none" else "")


@OPENED
def test_a_turn_that_is_cut_inside_its_reasoning_calls_nothing_of_it(thinker: Surface, opened: bool) -> None:
    """F17."""
    turn = f"<think>\n{PARIS} " + "a b " * 300
    answer = asked(thinker, turn, opened=opened, tools=[WEATHER])
    assert (answer.calls, answer.finish_reason) == ((), "length")
    assert PARIS in (answer.reasoning or "")
