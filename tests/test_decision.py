"""Call or text: what is told of the decision, and what it does; over fakes whose probabilities are given."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from engine.config import EngineConfig
from engine.engine import Engine
from engine.errors import RequestError
from engine.events import Completion, Decided, Decision, Way
from engine.grammars.decision import log_odds
from engine.grammars.tool_format import ToolFormat
from engine.grammars.tool_formats import TOOL_FORMATS
from engine.model import LoadedModel
from engine.types import (
    CustomTool,
    DecisionOptions,
    Grammar,
    Message,
    Request,
    Role,
    SamplingParams,
    Tool,
    ToolChoice,
    ToolChoiceBy,
    ToolChoiceMode,
)
from tests.deciders import MARKER, decider, marker_then_text, pieces
from tests.fakes import CALCULATE, EOS, SEARCH, USER, fake_loaded, fake_model

TOOLS = (CALCULATE, SEARCH)
ALONE = EngineConfig(drafts=False, prompt_cache_memory=0)
each_kind = pytest.mark.parametrize("hermes", [False, True], ids=["plain", "hermes"])
LOOK = DecisionOptions()
CALL, TEXT = DecisionOptions(tool_call_threshold=0.0), DecisionOptions(tool_call_threshold=1.0)


def answered(loaded: LoadedModel, decision: DecisionOptions | None = None, **options: Any) -> Completion:
    options = {"tools": TOOLS, "max_tokens": 100, "parallel_tool_calls": False} | options
    with Engine(loaded, config=ALONE) as engine:
        return engine.chat([USER], decision=decision, **options)


def decided(completion: Completion) -> Decision:
    assert completion.decision is not None
    return completion.decision


def called(completion: Completion) -> bool:
    """Whether the turn is a call, and nothing before it."""
    return bool(completion.tool_calls) and completion.text is None


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
    with Engine(loaded) as engine:
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


# After reasoning.

THOUGHT = "<think>\nHm.\n</think>\n\n"


def thinking(p: float, *, hermes: bool, thought: str = THOUGHT) -> dict[str, Mapping[str, float]]:
    loaded, written = fake_loaded(hermes=hermes, reasons=True), ""
    said: dict[str, Mapping[str, float]] = {}
    for piece in pieces(loaded, thought):
        said[written] = {piece: 1.0}
        written += piece
    return said | marker_then_text(p, hermes=hermes, after=thought)


@each_kind
@pytest.mark.parametrize("opened", [False, True], ids=["before", "inside"])
def test_a_model_that_reasons_decides_after_its_reasoning(hermes: bool, opened: bool) -> None:
    prefix = "<think>\n" if opened else ""
    said = thinking(0.3, hermes=hermes)
    loaded = decider({text: said[text] for text in said}, hermes=hermes, reasons=True)
    for options, chosen in ((LOOK, None), (CALL, Way.CALL), (TEXT, Way.TEXT)):
        with Engine(loaded, config=ALONE) as engine:
            events = list(
                engine.stream(
                    [USER], tools=TOOLS, decision=options, max_tokens=100, template_options={"opened": opened}
                )
            )
        kinds = [type(event).__name__ for event in events]
        decision = next(event.decision for event in events if isinstance(event, Decided))
        assert decision.p_call == pytest.approx(0.3, rel=1e-4), prefix
        assert decision.chosen is chosen
        assert kinds[0] == "ReasoningDelta"
        assert kinds[kinds.index("Decided") + 1] == ("ToolCallStart" if chosen is Way.CALL else "TextDelta")


def test_a_model_that_could_reason_and_does_not_decides_at_the_start() -> None:
    loaded = decider(marker_then_text(0.3, hermes=True), hermes=True, reasons=True)
    assert decided(answered(loaded)).p_call == pytest.approx(0.3, rel=1e-4)
    assert called(answered(loaded, CALL))
    assert answered(loaded, TEXT).text == "Y"


def test_where_reasoning_takes_the_barred_marker_s_place_the_decision_comes_behind_it() -> None:
    said = thinking(0.99, hermes=True)
    said[""] = {MARKER: 0.6, "<think>": 0.3, "Y": 0.1}
    completion = answered(decider(said, hermes=True, reasons=True), TEXT)
    assert (completion.reasoning, completion.text, completion.tool_calls) == ("Hm.", "Y", ())
    assert decided(completion).p_call == pytest.approx(0.99, rel=1e-4)


def test_what_began_as_reasoning_does_not_become_a_call_that_nobody_chose() -> None:
    """In ordinary text, <think> and <tool_call> begin alike."""
    completion = answered(decider(marker_then_text(1 - 1e-9, hermes=False), hermes=False, reasons=True), TEXT)
    assert completion.tool_calls == ()
    assert completion.decision is None


# In every family.


@pytest.mark.parametrize("family", TOOL_FORMATS, ids=lambda family: family.name)
def test_in_every_family_a_call_is_a_call_and_text_begins_with_none(family: ToolFormat) -> None:
    """All over one small vocabulary, in which most markers are many tokens."""
    with Engine(fake_loaded(seed=3), config=ALONE, tool_format=family) as engine:
        for decision, chosen in ((CALL, Way.CALL), (TEXT, Way.TEXT)):
            completion = engine.chat([USER], tools=TOOLS, decision=decision, max_tokens=120)
            assert decided(completion).chosen is chosen
            assert called(completion) is (chosen is Way.CALL)
        by_likelihood = engine.chat(
            [USER], tools=TOOLS, tool_choice="required", tool_choice_by="likelihood", max_tokens=300
        )
        shares = decided(by_likelihood).tools
        assert shares is not None
        assert by_likelihood.tool_calls[0].name == max(shares, key=shares.__getitem__)


# Calibration.


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


def test_the_prior_of_a_model_that_reasons_is_that_after_no_thought() -> None:
    empty = "<think>\n</think>\n\n"

    def said(prompt: str) -> dict[str, Mapping[str, float]]:
        asked = thinking(0.2, hermes=True)
        bare = marker_then_text(0.05, hermes=True, after="<think></think>\n\n")
        return asked if "hi<|im_end|>" in prompt else bare | marker_then_text(0.05, hermes=True, after=empty)

    loaded = decider({}, hermes=True, reasons=True, by_prompt=said)
    decision = decided(answered(loaded, DecisionOptions(calibrate=True)))
    assert decision.log_odds == pytest.approx(math.log(0.2 / 0.8) - math.log(0.05 / 0.95), abs=1e-3)


def test_choices_of_one_request_share_one_prior() -> None:
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


# Tools.

# Each letter of their names is a token.
QZK, QVK, JZK = NAMED = tuple(Tool(name) for name in ("qzk", "qvk", "jzkkk"))


HEADER = f'{MARKER}\n{{"name": "'
NAMES = {  # "j" is the likeliest beginning, "qvk" the likeliest name per token
    "": {"q": 0.4, "j": 0.6},
    "q": {"z": 0.1, "v": 0.9},
    "j": {"z": 0.001, "!": 0.999},
}


def naming(*, p: float = 0.5) -> LoadedModel:
    """A Hermes fake that calls with probability p, and then names a tool."""
    end = pieces(fake_loaded(hermes=True), 'k", "arguments": ')[1]
    said: dict[str, Mapping[str, float]] = {"": {MARKER: p, "Y": 1 - p}}
    for tool in NAMED:
        for number, letter in enumerate([*tool.name[1:], end], start=1):
            said[HEADER + tool.name[:number]] = {letter: 1.0}
    return decider(said | {HEADER + written: following for written, following in NAMES.items()}, hermes=True)


def test_the_probability_of_each_tool_is_that_of_its_whole_name_per_token() -> None:
    decision = decided(answered(naming(), DecisionOptions(tool_probabilities=True), tools=NAMED))
    # The quote behind a name is one of its tokens.
    per_token = {"qzk": (0.4 * 0.1) ** (1 / 4), "qvk": (0.4 * 0.9) ** (1 / 4), "jzkkk": (0.6 * 0.001) ** (1 / 6)}
    assert decision.tools is not None
    assert decision.tools == pytest.approx({name: p / sum(per_token.values()) for name, p in per_token.items()})
    assert decision.passes == 4  # what all names share, and one for each
    assert decision.p_call == pytest.approx(0.5, rel=1e-4)


def test_one_tool_alone_is_certain_and_costs_no_pass() -> None:
    decision = decided(answered(fake_loaded(), DecisionOptions(tool_probabilities=True), tools=(SEARCH,)))
    assert decision.tools == {"web_search": 1.0}
    assert decision.passes == 0


@pytest.mark.parametrize("mode", ["auto", "required"])
def test_by_likelihood_the_whole_name_counts_and_not_its_first_token(mode: str) -> None:
    options = {"tools": NAMED, "tool_choice": mode}
    by_tokens = answered(naming(p=0.9), **options)
    by_likelihood = answered(naming(p=0.9), tool_choice_by="likelihood", **options)
    assert [call.name for call in by_tokens.tool_calls] == ["jzkkk"]
    assert [call.name for call in by_likelihood.tool_calls] == ["qvk"]
    decision = decided(by_likelihood)
    assert decision.chosen is Way.CALL
    assert decision.tools is not None
    assert max(decision.tools.items(), key=lambda each: each[1])[0] == "qvk"


@each_kind
def test_by_likelihood_a_name_is_drawn_at_the_temperature_and_by_the_seed(hermes: bool) -> None:
    loaded = fake_loaded(hermes=hermes)
    with Engine(loaded) as engine:
        names = [
            engine.chat(
                [USER],
                tools=TOOLS,
                tool_choice="required",
                tool_choice_by="likelihood",
                sampling=SamplingParams(t, seed=s),
            )
            .tool_calls[0]
            .name
            for t, s in [(100.0, seed) for seed in range(12)] * 2
        ]
    assert names[:12] == names[12:]
    assert set(names) == {"calculate", "web_search"}


@each_kind
def test_a_tool_whose_call_does_not_fit_is_not_chosen_by_likelihood(hermes: bool) -> None:
    long = Tool("calculate_" + "x" * 50)
    loaded = fake_loaded(hermes=hermes, phrases={'{"name": "calculate_x': 10**4})
    with Engine(loaded, config=ALONE) as engine:
        options = {"tools": (long, SEARCH), "tool_choice": "required", "tool_choice_by": "likelihood"}
        assert engine.chat([USER], max_tokens=200, **options).tool_calls[0].name == long.name
        assert engine.chat([USER], max_tokens=44, **options).tool_calls[0].name == "web_search"


def test_a_custom_tool_is_chosen_by_likelihood_too() -> None:
    tools = tuple(CustomTool(name, format=Grammar.regex("[a-z]{3}")) for name in ("note", "shout"))
    completion = answered(fake_loaded(), tool_choice="required", tool_choice_by="likelihood", tools=tools)
    assert completion.tool_calls[0].custom


# The same in every setting.

OPTIONS = (
    DecisionOptions(tool_call_threshold=0.0),
    DecisionOptions(tool_call_threshold=1.0),
    DecisionOptions(tool_call_bias=600.0),
    DecisionOptions(calibrate=True),
    DecisionOptions(tool_probabilities=True),
)


def requests() -> list[Request]:
    base = Request(messages=(USER,), tools=TOOLS, max_tokens=60)
    every = [replace(base, decision=options) for options in OPTIONS]
    every.append(replace(base, tool_choice=ToolChoice(ToolChoiceMode.REQUIRED), tool_choice_by=ToolChoiceBy.LIKELIHOOD))
    return [
        replace(each, sampling=SamplingParams(temperature, seed=seed, top_logprobs=1 if seed else None))
        for each in every
        for seed, temperature in enumerate((0.0, 100.0))
    ]


def said(completion: Completion) -> tuple[object, ...]:
    decision = decided(completion)
    calls = [(call.name, call.arguments) for call in completion.tool_calls]
    return completion.text, calls, completion.logprobs, replace(decision, passes=0)


@each_kind
def test_a_decision_is_the_same_alone_among_others_and_streamed(hermes: bool) -> None:
    loaded = fake_loaded(hermes=hermes, bonus={MARKER: 300})
    with Engine(loaded, config=ALONE) as engine:
        alone = [said(engine.submit(request).completion()) for request in requests()]
    with Engine(loaded) as engine:
        together = [said(each.completion()) for each in [engine.submit(request) for request in requests()]]
    assert together == alone


@each_kind
def test_a_decision_is_the_same_token_by_token(hermes: bool) -> None:
    loaded = fake_loaded(hermes=hermes, bonus={MARKER: 300})
    answers = []
    for fast_forward in (True, False):
        with Engine(loaded, config=EngineConfig(fast_forward=fast_forward)) as engine:
            answers.append([said(engine.submit(request).completion())[:2] for request in requests()])
    assert answers[0] == answers[1]


def test_a_model_whose_cache_cannot_take_back_refuses_what_must_be_taken_back() -> None:
    def unable(hermes: bool) -> LoadedModel:
        loaded = fake_loaded(hermes=hermes)
        fake_model(loaded).can_batch = False
        return loaded

    assert called(answered(unable(True), CALL))
    assert answered(unable(False)).decision is None
    for hermes, options, param in (
        (False, {"decision": LOOK}, "decision"),
        (False, {"decision": CALL}, "decision.tool_call_threshold"),
        (True, {"decision": DecisionOptions(tool_probabilities=True)}, "decision.tool_probabilities"),
        (True, {"tool_choice_by": "likelihood"}, "tool_choice_by"),
    ):
        with pytest.raises(RequestError, match="cannot take back") as raised:
            answered(unable(hermes), **options)
        assert raised.value.param == param


# What is refused.


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
        ({"decision": "yes"}, "decision"),
        ({"tool_choice_by": "likelihood"}, "tool_choice_by"),
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
    return ToolChoiceBy.LIKELIHOOD if given == "likelihood" else given


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


def test_the_end_of_a_turn_may_follow_a_decision_for_text() -> None:
    loaded = decider({"": {MARKER: 0.5, EOS: 0.5}}, hermes=True)
    assert answered(loaded, TEXT).text is None
