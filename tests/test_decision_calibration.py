"""Calibration: a prior is read once per tool set."""

import math
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from engine.admission import Admission
from engine.calibration import Calibration
from engine.decision_options import DecisionOptions
from engine.engine import Engine
from engine.errors import GenerationError, RequestError
from engine.events import Way
from engine.generation import Run
from engine.types import (
    Grammar,
    Message,
    Request,
    Role,
)
from tests.deciders import (
    ALONE,
    LOOK,
    TOOLS,
    answered,
    decided,
    decider,
    each_kind,
    marker_then_text,
    thinking,
)
from tests.fakes import CALCULATE, SEARCH, USER, fake_loaded, with_hook


def by_prompt(prompt: str) -> dict[str, Mapping[str, float]]:
    """0.2 where something is asked, 0.05 where nothing is."""
    return marker_then_text(0.2 if "hi<|im_end|>" in prompt else 0.05, hermes="Answer in <tool_call>" in prompt)


@each_kind
def test_calibration_subtracts_the_log_odds_of_a_prompt_without_content(hermes: bool) -> None:
    loaded = decider({}, hermes=hermes, by_prompt=by_prompt)
    decision = decided(answered(loaded, DecisionOptions(calibrate=True)))
    odds = math.log(0.2 / 0.8) - math.log(0.05 / 0.95)
    assert decision.calibrated
    assert decision.log_odds == pytest.approx(odds, abs=1e-3)
    assert decision.p_call_raw == pytest.approx(0.2, rel=1e-4)
    assert decision.chosen is Way.CALL


def test_a_prior_is_computed_once_per_tool_set_and_counted_where_it_is() -> None:
    loaded = decider({}, hermes=True, by_prompt=by_prompt)
    with Engine(loaded) as engine:
        passes = [
            decided(
                engine.chat([Message(Role.USER, said)], tools=tools, decision=DecisionOptions(calibrate=True))
            ).passes
            for said, tools in (("hi", TOOLS), ("hi", TOOLS), ("well, hi", TOOLS), ("hi", (SEARCH,)), ("hi", TOOLS))
        ]
    assert passes == [1, 0, 0, 1, 0]


def test_priors_are_kept_within_bounds_and_the_least_recently_used_goes_first() -> None:
    loaded = decider({}, hermes=True, by_prompt=by_prompt)
    a, b, c = (
        Request(messages=(USER,), tools=tools, decision=DecisionOptions(calibrate=True))
        for tools in (TOOLS, (SEARCH,), (CALCULATE,))
    )
    with Engine(loaded) as engine:
        calibration = Calibration(engine._admission, engine._decoder, max_kept=2)
        priors = [calibration.prior(request) for request in (a, b, a, c, a, b)]
    assert [prior.passes for prior in priors if prior is not None] == [1, 1, 0, 1, 0, 1]


def test_the_prior_of_a_model_that_reasons_is_that_after_no_thought() -> None:
    empty = "<think>\n</think>\n\n"

    def said(prompt: str) -> dict[str, Mapping[str, float]]:
        asked = thinking(0.2, hermes=True)
        bare = marker_then_text(0.05, hermes=True, after="<think></think>\n\n")
        return asked if "hi<|im_end|>" in prompt else bare | marker_then_text(0.05, hermes=True, after=empty)

    loaded = decider({}, hermes=True, reasons=True, by_prompt=said)
    decision = decided(answered(loaded, DecisionOptions(calibrate=True)))
    assert decision.log_odds == pytest.approx(math.log(0.2 / 0.8) - math.log(0.05 / 0.95), abs=1e-3)


def test_choices_of_one_request_share_one_prior_and_each_tells_its_passes() -> None:
    loaded = decider({}, hermes=True, by_prompt=by_prompt)
    request = Request(messages=(USER,), tools=TOOLS, decision=DecisionOptions(calibrate=True), max_tokens=60)
    with Engine(loaded) as engine:
        decisions = [decided(each.completion()) for each in engine.submit_choices(request, 3)]
    assert [each.passes for each in decisions] == [1, 1, 1]
    assert len({each.p_call for each in decisions}) == 1


def test_a_callback_cannot_wait_for_a_prior_and_is_told_so() -> None:
    raised: list[Exception] = []
    request = Request(messages=(USER,), tools=TOOLS, decision=DecisionOptions(calibrate=True), max_tokens=60)
    with Engine(decider({}, hermes=True, by_prompt=by_prompt)) as engine:

        def deliver(_: object) -> None:
            try:
                engine.submit(request)
            except RequestError as error:
                raised.append(error)

        engine.submit(Request(messages=(USER,), max_tokens=1), deliver=deliver)
        engine.chat([USER], max_tokens=1)
    assert raised
    assert all("another thread" in str(error) for error in raised)


def test_the_prior_is_that_of_the_tools_that_are_shown() -> None:
    prompts: list[str] = []

    def said(prompt: str) -> dict[str, Mapping[str, float]]:
        prompts.append(prompt)
        return marker_then_text(0.2, hermes=True)

    loaded = decider({}, hermes=True, by_prompt=said)
    options = {"decision": DecisionOptions(calibrate=True), "tool_retrieval": 1, "max_tokens": 60}
    with Engine(loaded) as engine:
        for asked in ("calculate 1 + 1", "search the web"):
            engine.chat([Message(Role.USER, asked)], tools=TOOLS, **options)
    bare = {prompt for prompt in prompts if "<|im_start|>user\n<|im_end|>" in prompt}
    shown = [{tool.name for tool in TOOLS if f'"name": "{tool.name}"' in prompt} for prompt in bare]
    assert sorted(shown, key=min) == [{"calculate"}, {"web_search"}]


@pytest.mark.parametrize("family", ["llama3-json", "cogito-llama", "hermes"])
def test_the_prior_beside_a_response_is_that_of_the_same_beginning_of_a_call(family: str) -> None:
    """Where a response may begin as a call does, more of the call's marker is what tells it, in both prompts."""
    with Engine(fake_loaded(seed=3), config=ALONE, tool_format=family) as engine:
        for response in (None, Grammar.choice(["yes", "no"])):
            options: dict[str, Any] = {"tools": TOOLS, "response": response, "max_tokens": 100}
            bare = decided(engine.chat([Message(Role.USER, "")], decision=LOOK, **options)).log_odds_raw
            decision = decided(engine.chat([USER], decision=DecisionOptions(calibrate=True), **options))
            assert decision.log_odds_raw - decision.log_odds == pytest.approx(bare)


class Together:
    """An admission that gives nobody a run without content before so many have asked for one."""

    def __init__(self, admission: Admission, num_asking: int) -> None:
        self.is_calibrated = admission.is_calibrated
        self._admission, self._all = admission, threading.Barrier(num_asking)

    def without_content(self, request: Request) -> Run:
        run = self._admission.without_content(request)
        self._all.wait(30)
        return run


def test_of_requests_that_come_together_one_reads_the_prior_and_the_others_wait_for_it() -> None:
    request = Request(messages=(USER,), tools=TOOLS, decision=DecisionOptions(calibrate=True))
    with Engine(fake_loaded(hermes=True)) as engine:
        admission: Any = Together(engine._admission, 3)
        calibration = Calibration(admission, engine._decoder)
        with ThreadPoolExecutor(3) as pool:
            priors = list(pool.map(calibration.prior, [request] * 3))
    assert sorted(prior.passes for prior in priors if prior is not None) == [0, 0, 1]


def test_where_reading_a_prior_fails_the_next_request_reads_it() -> None:
    request = Request(messages=(USER,), tools=TOOLS, decision=DecisionOptions(calibrate=True))

    def fail_once(number: int) -> None:
        if number == 0 and not failed:
            failed.append(number)
            raise ValueError("out of memory")

    failed: list[int] = []
    with Engine(with_hook(fake_loaded(hermes=True), fail_once)) as engine:
        calibration = Calibration(engine._admission, engine._decoder)
        with pytest.raises(GenerationError):
            calibration.prior(request)
        prior = calibration.prior(request)
    assert prior is not None
    assert prior.passes == 1
