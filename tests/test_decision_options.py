"""What is refused of the options about call or text."""

import math
from collections.abc import Mapping
from typing import Any

import pytest

from engine.decision_options import DecisionOptions
from engine.engine import Engine
from engine.errors import RequestError
from engine.types import (
    Request,
    ToolChoice,
    ToolChoiceBy,
    ToolChoiceMode,
)
from tests.deciders import (
    LOOK,
    TOOLS,
)
from tests.fakes import USER, fake_loaded


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"tool_call_bias": math.inf}, "tool_call_bias"),
        ({"tool_call_bias": math.nan}, "tool_call_bias"),
        ({"tool_call_bias": "5"}, "tool_call_bias"),
        ({"tool_call_bias": 10**400}, "tool_call_bias"),
        ({"tool_call_threshold": 1.1}, "tool_call_threshold"),
        ({"tool_call_threshold": -0.1}, "tool_call_threshold"),
        ({"tool_call_threshold": math.nan}, "tool_call_threshold"),
        ({"calibrate": 1}, "calibrate"),
        ({"tool_probabilities": None}, "tool_probabilities"),
    ],
)
def test_options_out_of_range_are_refused_by_name(options: Mapping[str, Any], param: str) -> None:
    with pytest.raises(RequestError) as raised:
        DecisionOptions(**options)
    assert raised.value.param == param


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ({"decision": LOOK}, "decision"),
        ({"decision": DecisionOptions(tool_call_bias=1.0)}, "decision.tool_call_bias"),
        ({"decision": DecisionOptions(calibrate=True)}, "decision.calibrate"),
        ({"decision": DecisionOptions(calibrate=False)}, "decision.calibrate"),
        ({"decision": "yes"}, "decision"),
        ({"tool_choice_by": "likelihood"}, "tool_choice_by"),
        ({"tool_choice_by": "tokens"}, "tool_choice_by"),
    ],
)
@pytest.mark.parametrize(
    "request_options",
    [
        {"tools": ()},
        {"tools": TOOLS, "tool_choice": ToolChoice(ToolChoiceMode.NONE)},
        {"tools": TOOLS, "tool_choice": ToolChoice(allowed=())},
    ],
    ids=["no tools", "none", "none allowed"],
)
def test_what_is_asked_of_a_decision_where_there_is_none_is_refused(
    given: Mapping[str, Any], param: str, request_options: Mapping[str, Any]
) -> None:
    with pytest.raises(RequestError) as raised:
        Request(messages=(USER,), **request_options, **{k: _value(v) for k, v in given.items()})
    assert raised.value.param == param


def _value(given: Any) -> Any:
    return ToolChoiceBy(given) if given in list(ToolChoiceBy) else given


def test_a_call_that_must_come_is_no_decision_but_its_tool_may_be_chosen() -> None:
    required = {"messages": (USER,), "tools": TOOLS, "tool_choice": ToolChoice(ToolChoiceMode.REQUIRED)}
    with pytest.raises(RequestError, match="not auto"):
        Request(**required, decision=LOOK)
    assert Request(**required, tool_choice_by=ToolChoiceBy.LIKELIHOOD).callable_tools == TOOLS


def test_calibration_needs_messages() -> None:
    with pytest.raises(RequestError, match="messages") as raised:
        Request(prompt=(1, 2), tools=TOOLS, decision=DecisionOptions(calibrate=True))
    assert raised.value.param == "decision.calibrate"


def test_an_unknown_way_to_choose_is_refused() -> None:
    with Engine(fake_loaded()) as engine, pytest.raises(RequestError, match="tokens, likelihood"):
        engine.chat([USER], tools=TOOLS, tool_choice_by="dice")
