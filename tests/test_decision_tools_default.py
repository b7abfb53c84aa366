"""How the tool of a call is chosen where the request does not say."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from engine.calibration import Calibration
from engine.config import EngineConfig
from engine.decision_options import TOKENS_DECIDE, DecisionOptions
from engine.engine import Engine
from engine.errors import RequestError
from engine.events import Completion, Way
from engine.grammars.tool_formats import PLAIN, TOOL_FORMATS
from engine.model import LoadedModel
from engine.types import Message, Request, Role, ToolCall, ToolChoice, ToolChoiceBy, ToolChoiceMode
from tests.deciders import decided
from tests.fakes import USER, fake_loaded, fake_model
from tests.test_decision_tools import NAMED, QZK, UNASKED, naming

REQUIRED = ToolChoice(ToolChoiceMode.REQUIRED)
# Tokens choose "qvk" and whole names "jzkkk"; it is "qzk" that being asked makes likelier.
each_mode = pytest.mark.parametrize("mode", ["auto", "required"])


def untrained(p: float = 0.9, *, hermes: bool = False) -> LoadedModel:
    return naming(p=p, unasked=UNASKED, hermes=hermes)


def chat(loaded: LoadedModel, config: EngineConfig | None = None, **options: Any) -> Completion:
    with Engine(loaded, config=config) as engine:
        completion: Completion = engine.chat(
            [USER], **({"tools": NAMED, "max_tokens": 100, "parallel_tool_calls": False} | options)
        )
    return completion


def names(completion: Completion) -> list[str]:
    return [call.name for call in completion.tool_calls]


@each_mode
def test_an_untrained_model_calls_the_tool_that_the_request_makes_likelier(mode: str) -> None:
    completion = chat(untrained(), tool_choice=mode)
    assert names(completion) == ["qzk"]
    decision = decided(completion)
    assert (decision.calibrated, decision.chosen) == (True, Way.CALL)
    assert decision.p_call_raw == pytest.approx(0.9, rel=1e-4)
    if mode == "required":
        assert (decision.p_call, decision.p_text, decision.bias) == (1, 0, 0)
    assert decision.tools is not None
    assert max(decision.tools, key=decision.tools.__getitem__) == "qzk"


@each_mode
@pytest.mark.parametrize(("by", "name"), [("tokens", "qvk"), ("likelihood", "qzk")])
def test_a_request_may_say_how(mode: str, by: str, name: str) -> None:
    assert names(chat(untrained(), tool_choice=mode, tool_choice_by=by)) == [name]


def test_where_the_turn_is_not_calibrated_the_tokens_choose() -> None:
    assert names(chat(untrained(), decision=DecisionOptions(calibrate=False))) == ["qvk"]
    required = chat(untrained(), EngineConfig(decision=TOKENS_DECIDE), tool_choice="required")
    assert names(required) == ["qvk"]
    assert required.decision is None


def test_of_formats_that_models_are_trained_for_the_tokens_choose_calibrated_or_not() -> None:
    by_likelihood = {each.name for each in TOOL_FORMATS if each.tool_choice_by is ToolChoiceBy.LIKELIHOOD}
    assert by_likelihood == {"plain"}
    trained = untrained(hermes=True)
    assert names(chat(trained, decision=DecisionOptions(calibrate=True))) == ["qvk"]
    assert names(chat(trained, tool_choice="required")) == ["qvk"]


@pytest.mark.parametrize(
    "options",
    [{"tools": (QZK,)}, {"tool_choice": ToolChoice.named("qzk")}, {"tool_retrieval": 1}],
    ids=["alone", "named", "retrieved"],
)
def test_of_a_single_tool_nothing_is_compared(options: Mapping[str, Any]) -> None:
    completion = chat(untrained(), **({"tool_choice": "required"} | options))
    assert names(completion) == ["qzk"]
    assert completion.decision is None


def test_nor_is_a_prior_read_for_it() -> None:
    request = Request(messages=(USER,), tools=NAMED, tool_choice=REQUIRED, max_tokens=100)
    with Engine(untrained()) as engine:
        calibration = Calibration(engine._admission, engine._decoder)
        assert calibration.prior(replace(request, tool_retrieval=1)) is None
        prior = calibration.prior(request)
    assert prior is not None
    assert len(prior.tools) == 3


def test_behind_a_tool_s_result_the_tokens_choose() -> None:
    call = ToolCall("c1", "qzk", "{}")
    said = [USER, Message(Role.ASSISTANT, tool_calls=(call,)), Message(Role.TOOL, "1", tool_call_id="c1")]
    with Engine(untrained()) as engine:
        completion = engine.chat(said, tools=NAMED, tool_choice="required", max_tokens=100, parallel_tool_calls=False)
    assert names(completion) == ["qvk"]
    assert completion.decision is None


def test_a_model_whose_cache_cannot_take_back_leaves_it_to_the_tokens() -> None:
    loaded = fake_loaded()
    fake_model(loaded).can_batch = False
    completion = chat(loaded, tool_choice="required")
    assert completion.tool_calls
    assert completion.decision is None


def test_it_costs_passes_for_the_prior_once_and_for_each_call() -> None:
    with Engine(untrained()) as engine:
        call = [decided(engine.chat([USER], tools=NAMED, max_tokens=100)) for _ in range(2)]
    assert [each.passes for each in call] == [3, 1]  # one for the second place where names part; and the prompt's


def test_a_turn_that_becomes_text_costs_no_pass_for_its_tools() -> None:
    bias = DecisionOptions(tool_call_bias=-20.0)
    with Engine(untrained()) as engine:
        text = [engine.chat([USER], tools=NAMED, max_tokens=100, decision=bias) for _ in range(2)]
    assert text[1].text == "Y"
    assert decided(text[1]).passes == 0
    assert decided(text[1]).tools is None


def test_a_callback_is_told_how_to_require_a_call_without_waiting() -> None:
    raised: list[RequestError] = []
    with Engine(untrained()) as engine:

        def deliver(_: object) -> None:
            required = Request(messages=(USER,), tools=NAMED, tool_choice=REQUIRED, max_tokens=60)
            try:
                engine.submit(required)
            except RequestError as error:
                raised.append(error)
            engine.submit(replace(required, tool_choice_by=ToolChoiceBy.TOKENS)).cancel()

        engine.submit(Request(messages=(USER,), max_tokens=1), deliver=deliver)
        engine.chat([USER], max_tokens=1)
    assert raised
    assert all(error.param == "tool_choice_by" for error in raised)
    assert all("tool_choice_by=ToolChoiceBy.TOKENS" in str(error) for error in raised)


def test_a_format_without_an_end_of_names_cannot_choose_by_them() -> None:
    with pytest.raises(ValueError, match="nothing in it ends a name"):
        replace(PLAIN, before_arguments="")
