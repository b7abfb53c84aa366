"""Complete calls at every budget and under every veto, in every family's way of writing arguments and of reasoning."""

import json

import jsonschema
import pytest

from engine.config import EngineConfig
from engine.engine import Engine
from engine.errors import BudgetError
from engine.types import Grammar, Message, Role, SamplingParams, Tool
from tests.fakes import CALCULATE, EOS, REQUIRED, USER, fake_loaded

COLD = EngineConfig(prompt_cache_memory=0)
VETOED = {
    "type": "object",
    "properties": {
        "a": {"type": "array", "items": {"enum": ["x", "y", "z"]}, "uniqueItems": True, "minItems": 2},
        "s": {"type": "string", "not": {"pattern": "^a"}, "maxLength": 4},
        "n": {"type": "integer"},
    },
    "required": ["a", "s"],
    "additionalProperties": False,
}


def least_budget(engine: Engine, **options: object) -> int:
    with pytest.raises(BudgetError) as caught:
        engine.chat([USER], **options, max_tokens=1)
    return caught.value.least


@pytest.mark.parametrize(
    "family", ["hermes", "qwen3-coder", "glm", "llama4-pythonic", "gemma4", "harmony", "kimi-k2", "deepseek-v3"]
)
def test_budgets_and_vetoes_hold_in_every_way_of_writing_arguments(family: str) -> None:
    """F1, F7."""
    asked = {"tools": [Tool("f", "", VETOED)], "tool_choice": "required", "parallel_tool_calls": False}
    with Engine(fake_loaded(bonus={'"': 350, "]": 300, EOS: -300}), tool_format=family, config=COLD) as engine:
        least = least_budget(engine, **asked)
        for more in (0, 1, 9, 30):
            sampling = SamplingParams(temperature=100, seed=more)
            (call,) = engine.chat([USER], **asked, sampling=sampling, max_tokens=least + more).tool_calls
            jsonschema.validate(json.loads(call.arguments), VETOED)


@pytest.mark.parametrize("hermes", [False, True], ids=["text", "tokens"])
@pytest.mark.parametrize("opened", [False, True], ids=["by the model", "by the prompt"])
@pytest.mark.parametrize("more", [0, 1, 5, 40])
def test_reasoning_is_closed_in_time_for_a_call(hermes: bool, opened: bool, more: int) -> None:
    """F1, F16: a model that would go on thinking writes its call all the same, within its budget."""
    options = {"opened": True} if opened else {}
    asked = {"tools": [CALCULATE], "tool_choice": REQUIRED, "parallel_tool_calls": False, "template_options": options}
    loaded = fake_loaded(hermes=hermes, reasons=True, bonus={"a": 5000}, phrases={"<think>": 9000})
    with Engine(loaded, config=COLD) as engine:
        least = least_budget(engine, **asked)
        answer = engine.chat([USER], **asked, max_tokens=least + more)
    assert [call.name for call in answer.tool_calls] == ["calculate"]
    assert answer.usage.completion_tokens <= least + more
    assert more < 40 or answer.reasoning


def test_a_schema_is_answered_after_the_reasoning_within_the_budget() -> None:
    """F16: there, the JSON landed in the reasoning."""
    schema = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}
    asked = {"response": Grammar.json_schema(schema), "template_options": {"opened": True}}
    with Engine(fake_loaded(hermes=True, reasons=True, bonus={"a": 5000}), config=COLD) as engine:
        answer = engine.chat([USER], **asked, max_tokens=least_budget(engine, **asked) + 20)
    jsonschema.validate(json.loads(answer.text or ""), schema)
    assert "aaaa" in (answer.reasoning or "")


def test_a_history_with_reasoning_and_calls_goes_back_to_the_model() -> None:
    with Engine(fake_loaded(hermes=True, reasons=True), config=COLD) as engine:
        answer = engine.chat([USER], tools=[CALCULATE], tool_choice=REQUIRED, parallel_tool_calls=False, max_tokens=90)
        (call,) = answer.tool_calls
        result = Message(Role.TOOL, "4", tool_call_id=call.id)
        again = engine.chat([USER, answer.message(), result], tools=[CALCULATE], max_tokens=5)
    assert again.usage.completion_tokens > 0


def test_the_least_budget_that_is_named_is_the_least_that_is_taken() -> None:
    """F1: less room leads a search to shorter ways, which count before a caller is told."""
    schema = {"type": "object", "properties": {"a": {"type": "string", "pattern": "\\d{2,}"}}, "required": ["a"]}
    asked = {"tools": [Tool("f", "", schema)], "tool_choice": "required", "parallel_tool_calls": False}
    with Engine(fake_loaded(hermes=True, reasons=True), config=COLD) as engine:
        least = least_budget(engine, **asked)
        for budget in range(2, least):
            with pytest.raises(BudgetError) as caught:
                engine.chat([USER], **asked, max_tokens=budget)
            assert caught.value.least == least
        (call,) = engine.chat([USER], **asked, max_tokens=least).tool_calls
    jsonschema.validate(json.loads(call.arguments), schema)


@pytest.mark.parametrize("pattern", ["abc", "TODO", "\\d{2,}"])
def test_a_pattern_in_the_midst_of_a_string_needs_no_more_than_a_match_of_it(pattern: str) -> None:
    """F1: what may stand around the match is left out where there is no room for it."""
    with Engine(fake_loaded(), config=COLD) as engine:
        least = least_budget(engine, response=Grammar.json_schema({"type": "string", "pattern": pattern}))
    assert least <= 6  # most letters of the small vocabulary are a token each, and so are the quotes
