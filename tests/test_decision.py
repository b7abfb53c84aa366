"""Call or text: what is told of the decision, and what it does; over fakes whose probabilities are given."""

import math

import pytest

from engine.decision_options import DecisionOptions
from engine.engine import Engine
from engine.events import Way
from engine.grammars.decision import log_odds
from engine.types import (
    Grammar,
    SamplingParams,
    ToolChoice,
    ToolChoiceMode,
)
from tests.deciders import (
    ALONE,
    AS_ASKED,
    CALL,
    LOOK,
    MARKER,
    TEXT,
    TOOLS,
    answered,
    called,
    decided,
    decider,
    each_kind,
    marker_then_text,
    pieces,
)
from tests.fakes import CALCULATE, EOS, SEARCH, USER, fake_loaded

# What is told.


@each_kind
@pytest.mark.parametrize("p", [0.001, 0.3, 0.9])
def test_p_call_is_the_model_s_own_probability_of_the_whole_marker(hermes: bool, p: float) -> None:
    decision = decided(answered(decider(marker_then_text(p, hermes=hermes), hermes=hermes), LOOK))
    assert decision.p_call == pytest.approx(p, rel=1e-4)
    assert decision.p_text == pytest.approx(1 - p, rel=1e-4)
    assert decision.p_call_raw == decision.p_call
    assert (decision.chosen, decision.calibrated, decision.passes) == (None, False, 0)


def test_p_call_is_the_product_over_the_marker_s_tokens() -> None:
    loaded = fake_loaded()
    said, written, product = {}, "", 1.0
    for number, piece in enumerate(pieces(loaded, MARKER), start=2):
        said[written] = {piece: 1 / number, "Y": 1 - 1 / number}
        written, product = written + piece, product / number
    assert decided(answered(decider(said, hermes=False), LOOK)).p_call == pytest.approx(product, rel=1e-4)


def test_p_call_is_the_same_whatever_the_sampling() -> None:
    loaded = decider(marker_then_text(0.3, hermes=False), hermes=False)
    sampling = SamplingParams(temperature=7, top_k=1, logit_bias={5: 50}, presence_penalty=1, seed=3)
    assert decided(answered(loaded, LOOK, sampling=sampling)).p_call == pytest.approx(0.3, rel=1e-4)


def test_where_one_token_opens_a_call_the_decision_is_told_unasked_and_elsewhere_only_when_asked() -> None:
    assert answered(fake_loaded(hermes=True)).decision is not None
    assert answered(fake_loaded(hermes=False)).decision is None
    assert answered(fake_loaded(hermes=True), tool_choice="required").decision is None
    assert answered(fake_loaded(hermes=True), tool_choice="none").decision is None
    assert answered(fake_loaded(hermes=True), tools=()).decision is None


@each_kind
@pytest.mark.parametrize("temperature", [0.0, 100.0])
def test_looking_changes_no_answer_and_costs_no_pass(hermes: bool, temperature: float) -> None:
    for seed in range(3):
        loaded = fake_loaded(hermes=hermes, bonus={MARKER: 400}, seed=seed)
        sampling = SamplingParams(temperature, seed=seed)
        plain, looked = (answered(loaded, each, sampling=sampling, tools=(SEARCH,)) for each in (None, LOOK))
        assert looked.decision is not None
        assert (looked.text, looked.usage) == (plain.text, plain.usage)
        assert [each.arguments for each in looked.tool_calls] == [each.arguments for each in plain.tool_calls]


def test_looking_waits_for_the_device_no_more_than_before() -> None:
    waits = []
    for options in ({}, {"tool_choice": ToolChoice(ToolChoiceMode.AUTO)}):
        with Engine(fake_loaded(hermes=True), config=ALONE) as engine:
            engine.chat([USER], tools=TOOLS if options else (), max_tokens=10)
            work = engine.load_now().work
        waits.append(work.num_waits - work.num_steps)
    assert waits == [0, 0]


# The coin.


@each_kind
@pytest.mark.parametrize("temperature", [0.0, 5.0])
def test_a_threshold_is_met_by_p_call_or_it_is_text_at_any_temperature(hermes: bool, temperature: float) -> None:
    loaded = decider(marker_then_text(0.3, hermes=hermes), hermes=hermes)
    for threshold, calls in ((0.0, True), (0.29, True), (0.31, False), (1.0, False)):
        options = DecisionOptions(tool_call_threshold=threshold)
        for seed in range(5):
            completion = answered(loaded, options, sampling=SamplingParams(temperature, seed=seed))
            assert bool(completion.tool_calls) is calls
            assert decided(completion).chosen is (Way.CALL if calls else Way.TEXT)
            assert decided(completion).threshold == threshold


@each_kind
def test_a_bias_is_added_to_the_log_odds(hermes: bool) -> None:
    loaded = decider(marker_then_text(0.2, hermes=hermes), hermes=hermes)
    for bias, p_call in ((0.0, 0.2), (math.log(4), 0.5), (-math.log(4), 1 / 17), (500.0, 1.0)):
        decision = decided(answered(loaded, DecisionOptions(tool_call_bias=bias)))
        assert decision.p_call == pytest.approx(p_call, rel=1e-3)
        assert decision.p_call_raw == pytest.approx(0.2, rel=1e-4)
        assert decision.bias == bias


def test_a_greedy_coin_takes_the_larger_of_both_where_tokens_alone_would_take_the_likeliest() -> None:
    said = {"": {MARKER: 0.4, "Y": 0.35, "N": 0.25}}
    loaded = decider(said, hermes=True)
    assert called(answered(loaded))
    assert answered(loaded, DecisionOptions(tool_call_bias=0.0)).text == "Y"
    assert called(answered(loaded, DecisionOptions(tool_call_bias=math.log(2))))


def test_the_coin_is_drawn_at_the_temperature_of_the_request() -> None:
    loaded = decider(marker_then_text(0.2, hermes=True), hermes=True)
    options = DecisionOptions(tool_call_bias=0.0)
    with Engine(loaded, config=AS_ASKED) as engine:
        for temperature, p in ((1.0, 0.2), (3.0, 1 / (1 + 4 ** (1 / 3)))):
            runs = [
                engine.stream(
                    [USER],
                    tools=(CALCULATE,),
                    decision=options,
                    max_tokens=40,
                    sampling=SamplingParams(temperature, seed=seed),
                )
                for seed in range(60)
            ]
            calls = sum(decided(run.completion()).chosen is Way.CALL for run in runs)
            assert calls / 60 == pytest.approx(p, abs=0.15)


# What follows from it.


@each_kind
def test_text_bars_the_marker_there_only_and_a_call_may_come_later(hermes: bool) -> None:
    said = marker_then_text(0.99, hermes=hermes) | marker_then_text(1 - 1e-9, hermes=hermes, after="Y")
    completion = answered(decider(said, hermes=hermes), TEXT, tools=(SEARCH,))
    assert completion.text == "Y"
    assert len(completion.tool_calls) == 1
    assert decided(completion).chosen is Way.TEXT


def test_text_keeps_its_own_probabilities_less_those_of_the_marker() -> None:
    first, second, *_ = pieces(fake_loaded(), MARKER)
    certain = marker_then_text(0.5, hermes=False) | {"": {first: 0.5, "Y": 0.3, "N": 0.2}}
    rare = {"": {first: 0.5, "Y": 0.3, "N": 0.2}, first: {second: 0.001, "b": 0.999}}
    assert answered(decider(certain, hermes=False), TEXT).text == "Y"
    assert answered(decider(rare, hermes=False), TEXT).text == f"{first}b"


def test_text_cannot_spell_the_marker_in_other_tokens() -> None:
    spelled = {MARKER[:number]: {letter: 0.999, "!": 0.001} for number, letter in enumerate(MARKER)}
    completion = answered(decider(spelled, hermes=False), TEXT)
    assert completion.text == f"{MARKER[:-1]}!"
    assert completion.tool_calls == ()


@each_kind
def test_a_call_that_cannot_be_completed_within_the_tokens_left_is_text_and_the_decision_says_so(hermes: bool) -> None:
    loaded = decider(marker_then_text(0.9, hermes=hermes), hermes=hermes)
    completion = answered(loaded, CALL, max_tokens=8)
    assert completion.text == "Y"
    assert completion.tool_calls == ()
    assert (decided(completion).chosen, decided(completion).fits) == (Way.TEXT, False)


@each_kind
def test_a_call_is_chosen_in_the_least_tokens_that_complete_one(hermes: bool) -> None:
    loaded = fake_loaded(hermes=hermes)
    fitting = [answered(loaded, CALL, tools=(SEARCH,), max_tokens=number) for number in range(24, 54, 3)]
    chosen = [decided(each).chosen is Way.CALL for each in fitting]
    assert chosen == sorted(chosen)
    assert any(chosen)
    assert [len(each.tool_calls) for each in fitting] == [int(is_call) for is_call in chosen]


@each_kind
def test_beside_a_response_schema_the_decision_is_between_both(hermes: bool) -> None:
    grammar = Grammar.choice(["yes", "no"])
    loaded = fake_loaded(hermes=hermes)
    assert answered(loaded, TEXT, response=grammar).text in ("yes", "no")
    assert called(answered(loaded, CALL, response=grammar))


@each_kind
def test_logprobs_are_those_of_the_tokens_written_when_a_call_was_decided(hermes: bool) -> None:
    loaded = fake_loaded(hermes=hermes)
    sampling = SamplingParams(top_logprobs=0)
    completion = answered(loaded, CALL, sampling=sampling)
    assert completion.logprobs is not None
    assert len(completion.logprobs) == completion.usage.completion_tokens
    written = b"".join(each.token for each in completion.logprobs).decode()
    assert written.startswith(MARKER)
    marker = completion.logprobs[: len(pieces(loaded, MARKER))]
    assert log_odds(sum(each.logprob for each in marker)) == pytest.approx(decided(completion).log_odds_raw, abs=1e-3)


def test_the_end_of_a_turn_may_follow_a_decision_for_text() -> None:
    loaded = decider({"": {MARKER: 0.5, EOS: 0.5}}, hermes=True)
    assert answered(loaded, TEXT).text is None
