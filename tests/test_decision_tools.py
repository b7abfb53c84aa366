"""The tool of a call: the probability of each, and the choice by whole names."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from engine.decision_options import DecisionOptions
from engine.decision_point import DecisionPlan
from engine.engine import Engine
from engine.errors import RequestError
from engine.events import Way
from engine.grammars.call_paths import CallOpening, ToolPath, ToolTree
from engine.model import LoadedModel
from engine.types import (
    CustomTool,
    Grammar,
    SamplingParams,
    Tool,
)
from tests.deciders import (
    ALONE,
    AS_ASKED,
    MARKER,
    TOOLS,
    Script,
    answered,
    decided,
    decider,
    each_kind,
    marker_then_text,
    pieces,
)
from tests.fakes import SEARCH, USER, FakeModel, ScriptedModel, fake_loaded, fake_tokenizer, scripted

# Each letter of their names is a token.
QZK, QVK, JZK = NAMED = tuple(Tool(name) for name in ("qzk", "qvk", "jzkkk"))


HEADER = f'{MARKER}\n{{"name": "'
NAMES = {  # "q" is the likeliest beginning, "jzkkk" the likeliest name; "!" begins none
    "": {"q": 0.48, "j": 0.32, "!": 0.2},
    "q": {"z": 0.4, "v": 0.6},
}
OF_TOOLS = {"qzk": 0.6 * 0.4, "qvk": 0.6 * 0.6, "jzkkk": 0.4}

# Where nothing is asked, "jzkkk" is likelier still, and "qvk" surer behind its beginning.
UNASKED = {"": {"q": 0.2, "j": 0.8}, "q": {"z": 0.1, "v": 0.9}}
UNASKED_OF_TOOLS = {"qzk": 0.2 * 0.1, "qvk": 0.2 * 0.9, "jzkkk": 0.8}


def naming(*, p: float = 0.5, unasked: Mapping[str, Mapping[str, float]] = NAMES, hermes: bool = True) -> LoadedModel:
    """A fake that calls with probability p, and then names a tool; otherwise where nothing is asked."""

    def said(prompt: str) -> Mapping[str, Mapping[str, float]]:
        return marker_then_text(p, hermes=hermes) | _names(NAMES if is_asked(prompt) else unasked)

    return decider({}, hermes=hermes, by_prompt=said)


def is_asked(prompt: str) -> bool:
    return "hi<|im_end|>" in prompt


def _names(names: Mapping[str, Mapping[str, float]]) -> dict[str, Mapping[str, float]]:
    end = pieces(fake_loaded(hermes=True), 'k", "arguments": ')[1]
    said: dict[str, Mapping[str, float]] = {}
    for tool in NAMED:
        for number, letter in enumerate([*tool.name[1:], end], start=1):
            said[HEADER + tool.name[:number]] = {letter: 1.0}
    return said | {HEADER + written: following for written, following in names.items()}


def test_the_probability_of_each_tool_is_that_of_its_whole_name_among_the_tools() -> None:
    decision = decided(answered(naming(), DecisionOptions(tool_probabilities=True), tools=NAMED))
    assert decision.tools == pytest.approx(OF_TOOLS)
    assert decision.tool_logprobs == pytest.approx({name: math.log(p) for name, p in OF_TOOLS.items()})
    assert decision.passes == 1  # for the second place where names part
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
    assert [call.name for call in by_tokens.tool_calls] == ["qvk"]
    assert [call.name for call in by_likelihood.tool_calls] == ["jzkkk"]
    decision = decided(by_likelihood)
    assert decision.chosen is Way.CALL
    assert decision.tools is not None
    assert max(decision.tools, key=decision.tools.__getitem__) == "jzkkk"


@pytest.mark.parametrize("mode", ["auto", "required"])
def test_calibrated_tools_are_compared_with_those_of_a_prompt_without_content(mode: str) -> None:
    config = replace(ALONE, decision=DecisionOptions(calibrate=True, tool_call_bias=1.0))
    options = {"tools": NAMED, "tool_choice": mode, "tool_choice_by": "likelihood", "max_tokens": 100}
    with Engine(naming(p=0.9, unasked=UNASKED), config=config) as engine:
        completion = engine.chat([USER], parallel_tool_calls=False, **options)
    assert [call.name for call in completion.tool_calls] == ["qzk"]  # tokens choose "qvk", and whole names "jzkkk"
    decision = decided(completion)
    gained = {name: p / UNASKED_OF_TOOLS[name] for name, p in OF_TOOLS.items()}
    assert decision.calibrated
    assert decision.tools == pytest.approx({name: each / sum(gained.values()) for name, each in gained.items()})
    assert decision.tool_logprobs == pytest.approx({name: math.log(p) for name, p in OF_TOOLS.items()})


def test_no_prior_is_read_where_a_required_call_has_one_tool_to_choose() -> None:
    config = replace(ALONE, decision=DecisionOptions(calibrate=True))
    options = {"tools": (QZK,), "tool_choice": "required", "tool_choice_by": "likelihood", "max_tokens": 100}
    with Engine(naming(), config=config) as engine:
        assert decided(engine.chat([USER], **options)).passes == 0


def test_a_prior_without_tools_is_not_taken_for_one_with_them() -> None:
    with Engine(naming(p=0.9, unasked=UNASKED), config=ALONE) as engine:
        kinds = [DecisionOptions(calibrate=True, tool_probabilities=named) for named in (False, True, False, True)]
        decisions = [decided(engine.chat([USER], tools=NAMED, max_tokens=100, decision=kind)) for kind in kinds]
    assert [each.passes for each in decisions] == [1, 3, 0, 1]  # the prior has passes for the tools too, and is kept
    assert decisions[1].tools == decisions[3].tools


@each_kind
def test_by_likelihood_a_name_is_drawn_at_the_temperature_and_by_the_seed(hermes: bool) -> None:
    loaded = fake_loaded(hermes=hermes)
    with Engine(loaded, config=AS_ASKED) as engine:
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


def drawn(num_seeds: int = 200, tools: tuple[Tool, ...] = NAMED, **sampling: Any) -> dict[str, float]:
    """How often each tool is called at temperature 1."""
    options = {"tools": tools, "tool_choice": "required", "tool_choice_by": "likelihood", "max_tokens": 40}
    with Engine(naming(), config=AS_ASKED) as engine:
        names = [
            engine.chat(
                [USER], sampling=SamplingParams(1.0, seed=seed, **sampling), parallel_tool_calls=False, **options
            )
            .tool_calls[0]
            .name
            for seed in range(num_seeds)
        ]
    return {name: names.count(name) / num_seeds for name in set(names)}


def test_names_are_drawn_by_their_probabilities() -> None:
    assert drawn() == pytest.approx(OF_TOOLS, abs=0.08)


@pytest.mark.parametrize("sampling", [{"top_k": 1}, {"top_p": 0.01}, {"min_p": 1.0}])
def test_what_keeps_only_the_likeliest_token_keeps_only_the_likeliest_tool(sampling: Mapping[str, Any]) -> None:
    assert drawn(20, **sampling) == {"jzkkk": 1.0}


def test_a_bias_counts_where_names_part() -> None:
    (j,) = fake_loaded().tokenizer.encode("j")
    assert drawn(logit_bias={j: -100.0}) == pytest.approx({"qzk": 0.4, "qvk": 0.6}, abs=0.08)
    sampling = SamplingParams(logit_bias={j: -100.0})
    decision = decided(answered(naming(p=0.9), tools=NAMED, tool_choice_by="likelihood", sampling=sampling))
    assert decision.tools == pytest.approx({"qzk": 0.4, "qvk": 0.6, "jzkkk": 0.0})
    assert decision.tool_logprobs == pytest.approx({name: math.log(p) for name, p in OF_TOOLS.items()})


def test_what_does_not_fit_leaves_the_others_their_shares() -> None:
    tools = (QZK, QVK, Tool("j" + "k" * 60))
    assert drawn(tools=tools) == pytest.approx({"qzk": 0.4, "qvk": 0.6}, abs=0.08)


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


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"decision": DecisionOptions(tool_probabilities=True)}, "decision.tool_probabilities"),
        ({"tool_choice_by": "likelihood"}, "tool_choice_by"),
    ],
)
def test_names_that_nothing_ends_are_not_compared_where_one_begins_another(
    options: Mapping[str, Any], param: str
) -> None:
    tools = (Tool("get_time"), Tool("get_time_2"))
    with (
        Engine(fake_loaded(), tool_format="glm-4.7") as engine,
        pytest.raises(RequestError, match="get_time is the beginning of get_time_2") as raised,
    ):
        engine.chat([USER], tools=tools, **options)
    assert raised.value.param == param


@pytest.mark.parametrize(("bias", "name"), [(0.0, "calculate"), (-100.0, "web_search")])
def test_a_bias_counts_where_the_marker_s_token_reaches_into_the_name(bias: float, name: str) -> None:
    tokenizer = fake_tokenizer(added=("[calc", "[web"))
    loaded = replace(fake_loaded(), tokenizer=tokenizer)
    model = FakeModel(tokenizer.num_tokens, {}, {}, 0)
    said = Script(loaded, {"": {"[calc": 0.5, "[web": 0.3, "Y": 0.2}})
    sampling = SamplingParams(logit_bias={tokenizer.encode("[calc")[0]: bias})
    with Engine(scripted(replace(loaded, model=model), said), tool_format="llama4-pythonic", config=AS_ASKED) as engine:
        decision = DecisionOptions(tool_call_threshold=0.0, tool_probabilities=True)
        completion = engine.chat([USER], tools=TOOLS, decision=decision, sampling=sampling, max_tokens=100)
    assert completion.tool_calls[0].name == name
    assert decided(completion).p_call_raw == pytest.approx(0.8, rel=1e-4)
    shares = {"calculate": 0.0, "web_search": 1.0} if bias else {"calculate": 0.625, "web_search": 0.375}
    assert decided(completion).tools == pytest.approx(shares)


@pytest.mark.parametrize("calibrate", [False, True])
def test_a_tool_whose_tokens_are_impossible_has_no_share_and_takes_none(calibrate: bool) -> None:
    loaded = naming()
    (j,) = loaded.tokenizer.encode("j")
    assert isinstance(loaded.model, ScriptedModel)
    script = loaded.model.script
    never = scripted(loaded, lambda tokens: {**script(tokens), j: -math.inf})
    options = DecisionOptions(tool_probabilities=True, calibrate=calibrate)
    tools = decided(answered(never, options, tools=NAMED)).tools
    shares = {"qzk": 0.5, "qvk": 0.5, "jzkkk": 0.0} if calibrate else {"qzk": 0.4, "qvk": 0.6, "jzkkk": 0.0}
    assert tools == pytest.approx(shares)  # calibrated by itself: this model says the same of any request


@pytest.mark.parametrize(
    ("stem", "paths", "scored"),
    [
        ((7,), [(7, 8, 1, 9), (7, 8, 2, 9)], (7, 8)),  # as much as all calls have
        ((7,), [(7, 8, 9)], (7,)),
        ((7, 8), [(7, 1, 9), (7, 2, 9)], (7, 8)),  # a tokenizer that cuts the marker otherwise where names follow
    ],
)
def test_what_is_run_at_the_place_has_the_whole_marker(
    stem: tuple[int, ...], paths: list[tuple[int, ...]], scored: tuple[int, ...]
) -> None:
    tree = ToolTree.of([ToolPath(str(tokens), tokens) for tokens in paths])
    assert DecisionPlan(CallOpening(stem, (8,)), (b"[",), tree=tree).scored == scored
