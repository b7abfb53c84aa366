"""Where a turn is decided: behind reasoning, in every family, and the same however it runs."""

from dataclasses import replace

import pytest

from engine.decision_options import DecisionOptions
from engine.engine import Engine
from engine.errors import RequestError
from engine.events import Completion, Decided, Way
from engine.grammars.decision import log_odds
from engine.grammars.tool_format import ToolFormat
from engine.grammars.tool_formats import TOOL_FORMATS
from engine.model import LoadedModel
from engine.types import (
    Request,
    SamplingParams,
    ToolChoice,
    ToolChoiceBy,
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
    thinking,
)
from tests.fakes import SEARCH, USER, fake_loaded, fake_model

# After reasoning.


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


@each_kind
def test_a_decision_is_the_same_where_a_pass_ran_ahead_of_the_reasoning_s_end(hermes: bool) -> None:
    thought = "<think>\nHm, let me see what they may want.\n</think>\n\n"
    loaded = decider(thinking(0.3, hermes=hermes, thought=thought), hermes=hermes, reasons=True)
    for options in (LOOK, CALL, TEXT):
        answers = []
        for look_ahead in (True, False):
            with Engine(loaded, config=replace(ALONE, look_ahead=look_ahead)) as engine:
                answers.append(said(engine.chat([USER], tools=TOOLS, decision=options, max_tokens=100)))
                assert (engine.load_now().work.num_ahead > 0) == look_ahead
        assert answers[0] == answers[1]


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
    with Engine(loaded, config=AS_ASKED) as engine:
        together = [said(each.completion()) for each in [engine.submit(request) for request in requests()]]
    assert together == alone


@each_kind
def test_a_decision_is_the_same_token_by_token(hermes: bool) -> None:
    loaded = fake_loaded(hermes=hermes, bonus={MARKER: 300})
    answers = []
    for fast_forward in (True, False):
        with Engine(loaded, config=replace(AS_ASKED, fast_forward=fast_forward)) as engine:
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


def test_real_weights_say_the_same_of_a_call_before_it_and_while_it_is_written(embedded_model: LoadedModel) -> None:
    """What was run to look at the marker leaves nothing behind in a real cache."""
    completions = [answered(embedded_model, each, max_tokens=12, tools=(SEARCH,)) for each in (None, LOOK)]
    assert completions[0].text == completions[1].text
    call = answered(embedded_model, CALL, max_tokens=40, tools=(SEARCH,), sampling=SamplingParams(top_logprobs=0))
    assert call.logprobs is not None
    marker = call.logprobs[: len(pieces(embedded_model, MARKER))]
    assert log_odds(sum(each.logprob for each in marker)) == pytest.approx(decided(call).log_odds_raw, abs=1e-2)
    assert decided(completions[1]).log_odds_raw == pytest.approx(decided(call).log_odds_raw, abs=1e-2)
