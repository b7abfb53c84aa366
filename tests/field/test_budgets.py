"""F1, F2: an answer is complete and valid within its budget, or refused up front with the budget that it needs."""

import re
from typing import Any

import jsonschema
import pytest

from tests.api.servers import function_tool
from tests.field.surfaces import Surface

WEATHER = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "minLength": 3},
        "days": {"type": "integer", "minimum": 1, "maximum": 14},
        "units": {"enum": ["metric", "imperial"]},
        "places": {"type": "array", "items": {"type": "string"}, "minItems": 2},
    },
    "required": ["city", "days", "places"],
    "additionalProperties": False,
}
TOOL = function_tool("get_weather", WEATHER)
NAMED = {"type": "function", "function": {"name": "get_weather"}}
SCHEMA = {"type": "json_schema", "json_schema": {"name": "weather", "schema": WEATHER}}


def least_budget(surface: Surface, **body: Any) -> int:
    refused = surface.ask(**body, max_tokens=1)
    assert refused.param == "max_tokens"
    found = re.search(r"max_tokens is 1;.* has (\d+) tokens", refused.error or "")
    assert found is not None, refused.error
    return int(found[1])


@pytest.mark.parametrize("choice", ["required", NAMED], ids=["required", "named"])
def test_a_call_is_complete_at_every_budget_from_the_least_upward_and_refused_below(
    noise: Surface, choice: Any
) -> None:
    """F1, F2."""
    body = {"tools": [TOOL], "tool_choice": choice}
    least = least_budget(noise, **body)
    assert noise.ask(**body, max_tokens=least - 1).param == "max_tokens"
    for budget in range(least, least + 12):
        answer = noise.ask(**body, max_tokens=budget, seed=budget)
        assert (answer.error, answer.finish_reason) == (None, "tool_calls"), budget
        assert set(answer.names) == {"get_weather"}
        for arguments in answer.arguments:
            jsonschema.validate(arguments, WEATHER)


def test_a_response_satisfies_its_schema_at_every_budget_from_the_least_upward(noise: Surface) -> None:
    """F2: there, the text was padded with white space and never ended."""
    least = least_budget(noise, response_format=SCHEMA)
    for budget in range(least, least + 12):
        answer = noise.ask(response_format=SCHEMA, max_tokens=budget, seed=budget)
        assert (answer.error, answer.finish_reason) == (None, "stop"), budget
        assert answer.text == (answer.text or "").strip()
        jsonschema.validate(answer.value, WEATHER)


def test_in_auto_a_call_is_opened_only_if_it_can_be_completed(parrot: Surface) -> None:
    """F1: a model that wants to call writes text where the budget is too small for the call."""
    call = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris", "days": 3, "places": ["a", "b"]}}\n'
    outcomes = set()
    for budget in range(1, 140, 3):
        answer = parrot.ask(messages=[{"role": "user", "content": call}], tools=[TOOL], max_tokens=budget)
        assert answer.error is None
        assert answer.finish_reason in ("length", "stop", "tool_calls"), budget
        assert bool(answer.calls) == (answer.finish_reason == "tool_calls")
        for arguments in answer.arguments:
            jsonschema.validate(arguments, WEATHER)
        outcomes.add(answer.finish_reason)
    assert {"length", "tool_calls"} <= outcomes


def test_calls_that_are_all_complete_end_the_turn_properly_where_the_budget_allows_no_more(noise: Surface) -> None:
    """F1: with parallel calls, the last one that fits is the last one."""
    body = {"tools": [TOOL, function_tool("now")], "tool_choice": "required"}
    least = least_budget(noise, **body)
    for budget in range(least, least + 60, 7):
        answer = noise.ask(**body, max_tokens=budget, seed=budget)
        assert (answer.error, answer.finish_reason) == (None, "tool_calls")
        assert answer.calls
