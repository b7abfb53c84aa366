"""F12 to F15: options that are honoured, streams that add up, cost, and failure."""

from typing import Any

import pytest

from tests.api.servers import WEATHER, call_text, function_tool
from tests.fakes import FailingCompiler, fake_loaded
from tests.field.surfaces import Surface, surfaces

PARIS = call_text("get_weather", '{"city": "Paris", "days": 3}')
TURNS = {
    "text": "Hello <tool you, 😀.",
    "call": PARIS,
    "calls": f"{PARIS}\n{PARIS}",
    "text and call": f"I look. {PARIS}",
}


@pytest.mark.parametrize("turn", TURNS)
def test_the_three_ways_of_asking_give_one_answer(all_scripted: dict[str, Surface], turn: str) -> None:
    """F12: there, streams had markup in their content, or lost what was empty."""
    messages = [{"role": "user", "content": TURNS[turn]}]
    answers = [each.ask(messages=messages, tools=[WEATHER], max_tokens=200) for each in all_scripted.values()]
    seen = {(answer.text, answer.calls, answer.finish_reason) for answer in answers}
    assert len(seen) == 1
    assert all("tool_call>" not in (answer.text or "") for answer in answers)
    assert bool(answers[0].calls) == ("call" in turn)


@pytest.mark.parametrize("seed", range(6))
def test_the_three_ways_of_asking_draw_one_answer_from_a_seed(all_noise: dict[str, Surface], seed: int) -> None:
    """F12."""
    body: dict[str, Any] = {"tools": [WEATHER], "temperature": 30, "seed": seed, "max_tokens": 80}
    answers = [each.ask(**body) for each in all_noise.values()]
    assert len({(answer.text, answer.calls, answer.finish_reason) for answer in answers}) == 1


def test_a_response_format_is_honoured(noise: Surface) -> None:
    """F13: there, it was ignored in silence."""
    schema = {"type": "array", "items": {"type": "boolean"}, "minItems": 2, "maxItems": 2}
    answer = noise.ask(response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": schema}})
    assert isinstance(answer.value, list)
    assert len(answer.value) == 2


def test_an_option_that_is_not_supported_is_refused_by_its_name(noise: Surface, surface_name: str) -> None:
    """F13."""
    if surface_name == "python":
        with pytest.raises(TypeError, match="best_guess"):
            noise.ask(best_guess=True)
    else:
        assert noise.ask(best_guess=True).param == "best_guess"


def test_a_matcher_that_fails_ends_its_request_as_an_error(surface_name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """F15: there, every token was rejected until max_tokens."""
    monkeypatch.setattr("engine.engine.LLGuidanceCompiler", FailingCompiler)
    text = {"type": "object", "properties": {"text": {"type": "string", "minLength": 60}}, "required": ["text"]}
    with surfaces(fake_loaded()) as each:
        answer = each[surface_name].ask(tools=[function_tool("faulty", text)], tool_choice="required", max_tokens=400)
        assert answer.error is not None
        assert answer.finish_reason is None
        assert each[surface_name].ask(max_tokens=5).finish_reason in ("length", "stop")
