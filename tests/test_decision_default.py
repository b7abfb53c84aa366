"""How a turn becomes a call or text where the request does not say."""

import math
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.config import EngineConfig
from engine.decision_options import TOKENS_DECIDE, DecisionOptions
from engine.engine import Engine
from engine.errors import ConfigError, RequestError
from engine.events import Completion, Way
from engine.grammars.tool_formats import PLAIN, TOOL_FORMATS
from engine.model import LoadedModel
from engine.types import Message, Request, Role, ToolCall
from tests.deciders import TOOLS, called, decided, decider, marker_then_text
from tests.fakes import USER, fake_loaded, fake_model

BIAS = PLAIN.decision.tool_call_bias or 0.0


def model_that_says(p_asked: float, p_bare: float, *, hermes: bool = False) -> LoadedModel:
    """P of a call where something is asked, and where nothing is."""

    def said(prompt: str) -> Mapping[str, Mapping[str, float]]:
        return marker_then_text(p_asked if "hi<|im_end|>" in prompt else p_bare, hermes=hermes)

    return decider({}, hermes=hermes, by_prompt=said)


def chat(loaded: LoadedModel, config: EngineConfig | None = None, **options: Any) -> Completion:
    with Engine(loaded, config=config) as engine:
        completion: Completion = engine.chat([USER], **({"tools": TOOLS, "max_tokens": 100} | options))
    return completion


def test_a_model_never_trained_for_tools_calls_where_the_request_makes_a_call_likelier() -> None:
    completion = chat(model_that_says(0.01, 0.001))
    assert called(completion)
    decision = decided(completion)
    assert decision.calibrated
    assert decision.chosen is Way.CALL
    odds = math.log(0.01 / 0.99) - math.log(0.001 / 0.999) + BIAS
    assert decision.log_odds == pytest.approx(odds, abs=1e-2)


def test_and_answers_where_it_makes_one_much_less_likely() -> None:
    completion = chat(model_that_says(0.001, 0.01))
    assert completion.text == "Y"
    assert decided(completion).chosen is Way.TEXT


def test_the_bias_of_the_default_is_what_parts_call_and_text() -> None:
    below, above = (0.01 * math.exp(-BIAS) * factor for factor in (0.8, 1.25))
    assert not called(chat(model_that_says(below, 0.01)))
    assert called(chat(model_that_says(above, 0.01)))


def test_the_tokens_decide_in_every_format_that_models_are_trained_for() -> None:
    assert {family.name for family in TOOL_FORMATS if family.decision != TOKENS_DECIDE} <= {"plain"}
    completion = chat(model_that_says(0.01, 0.001, hermes=True))
    assert completion.text == "Y"
    assert decided(completion).chosen is None


def test_a_request_may_leave_it_to_the_tokens() -> None:
    completion = chat(model_that_says(0.01, 0.001), decision=DecisionOptions(calibrate=False))
    assert completion.text == "Y"
    assert decided(completion).chosen is None
    assert not decided(completion).calibrated


def test_what_a_request_gives_stands_and_the_rest_is_the_default() -> None:
    decision = decided(chat(model_that_says(0.01, 0.001), decision=DecisionOptions(tool_call_bias=-9.0)))
    assert (decision.calibrated, decision.bias, decision.chosen) == (True, -9.0, Way.TEXT)
    decision = decided(chat(model_that_says(0.01, 0.001), decision=DecisionOptions(tool_probabilities=True)))
    assert (decision.calibrated, decision.bias, decision.chosen) == (True, BIAS, Way.CALL)
    assert decision.tools is not None
    options = DecisionOptions(calibrate=False, tool_call_bias=9.0)
    decision = decided(chat(model_that_says(0.01, 0.001), decision=options))
    assert (decision.calibrated, decision.bias, decision.chosen) == (False, 9.0, Way.CALL)


def test_an_engine_may_have_a_default_of_its_own() -> None:
    loaded = model_that_says(0.01, 0.001)
    assert chat(loaded, EngineConfig(decision=TOKENS_DECIDE)).text == "Y"
    assert decided(chat(loaded, EngineConfig(decision=DecisionOptions(tool_call_bias=-9.0)))).chosen is Way.TEXT
    trained = model_that_says(0.01, 0.001, hermes=True)
    assert called(chat(trained, EngineConfig(decision=DecisionOptions(calibrate=True))))
    with pytest.raises(ConfigError, match="decision is 3"):
        EngineConfig(decision=3)  # type: ignore[arg-type]


def test_nothing_is_decided_where_a_call_must_come_or_none_may() -> None:
    loaded = model_that_says(0.001, 0.01)
    required = chat(loaded, tool_choice="required", tools=TOOLS[:1])
    assert called(required)
    assert required.decision is None
    assert chat(loaded, tool_choice="none").decision is None


def test_behind_a_tool_s_result_the_tokens_decide() -> None:
    call = ToolCall("c1", "calculate", '{"expression": "1"}')
    said = [USER, Message(Role.ASSISTANT, tool_calls=(call,)), Message(Role.TOOL, "1", tool_call_id="c1")]
    with Engine(model_that_says(0.01, 0.001)) as engine:
        completion = engine.chat(said, tools=TOOLS, max_tokens=100)
    assert completion.text == "Y"
    assert completion.decision is None


def test_a_prompt_of_tokens_shows_no_tools_so_the_tokens_decide() -> None:
    loaded = model_that_says(0.01, 0.001)
    with Engine(loaded) as engine:
        prompt = tuple(engine.render_prompt(Request(messages=(USER,), tools=TOOLS)))
        completion = engine.submit(Request(prompt=prompt, tools=TOOLS, max_tokens=100)).completion()
    assert completion.text == "Y"
    assert completion.decision is None


def test_a_model_whose_cache_cannot_take_back_leaves_it_to_the_tokens() -> None:
    loaded = fake_loaded()
    fake_model(loaded).can_batch = False
    completion = chat(loaded, max_tokens=5)
    assert completion.text
    assert completion.decision is None


def test_a_callback_is_told_how_to_ask_without_waiting() -> None:
    raised: list[RequestError] = []
    with Engine(model_that_says(0.01, 0.001)) as engine:

        def deliver(_: object) -> None:
            try:
                engine.submit(Request(messages=(USER,), tools=TOOLS, max_tokens=60))
            except RequestError as error:
                raised.append(error)

        engine.submit(Request(messages=(USER,), max_tokens=1), deliver=deliver)
        engine.chat([USER], max_tokens=1)
    assert raised
    assert all("DecisionOptions(calibrate=False)" in str(error) for error in raised)


OPTIONS = st.builds(
    DecisionOptions,
    tool_call_bias=st.none() | st.floats(-5, 5),
    tool_call_threshold=st.none() | st.floats(0, 1),
    calibrate=st.none() | st.booleans(),
    tool_probabilities=st.booleans(),
)


@given(OPTIONS, OPTIONS)
def test_options_that_are_given_are_never_lost(own: DecisionOptions, default: DecisionOptions) -> None:
    resolved = own.or_else(default)
    assert set(own.given) <= set(resolved.given)
    assert all(getattr(resolved, name) == getattr(own, name) for name in own.given)
    assert own.or_else(own) == own
    assert own.or_else(default).or_else(default) == resolved
