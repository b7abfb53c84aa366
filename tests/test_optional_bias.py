"""Optional properties are left out, or put in, by a bias at the places where an object may close."""

from typing import Any

import numpy as np
import pytest

from engine.engine import Engine
from engine.errors import RequestError
from engine.grammars.tool_formats import HERMES, PLAIN
from engine.optional_places import OptionalPlaces
from engine.types import CustomTool, Grammar, Request, SamplingParams, Tool, ToolChoice, ToolChoiceMode
from tests.fakes import REQUIRED, USER, fake_loaded, fake_tokenizer, scripted
from tests.grammars.turns import matcher_of, request

each_kind = pytest.mark.parametrize("hermes", [False, True], ids=["plain", "hermes"])
PARAMETERS: dict[str, Any] = {
    "type": "object",
    "properties": {
        "query": {"type": "string", "maxLength": 5},
        "near": {
            "type": "object",
            "properties": {"x": {"type": "integer"}, "y": {"type": "integer", "minimum": 0, "maximum": 9}},
            "required": ["x"],
        },
        "tags": {"type": "array", "items": {"enum": ["a,", "b}"]}, "maxItems": 2},
        "exact": {"type": "boolean"},
    },
    "required": ["query"],
}
LOOK_UP = Tool("look_up", "", PARAMETERS)


def arguments(bias: float | None, *, hermes: bool, seed: int) -> dict[str, Any]:
    """Of a model to which all tokens are equal."""
    loaded = fake_loaded(hermes=hermes)
    with Engine(scripted(loaded, lambda _: {})) as engine:
        completion = engine.chat(
            [USER],
            tools=[LOOK_UP],
            tool_choice=REQUIRED,
            parallel_tool_calls=False,
            sampling=SamplingParams(temperature=1, seed=seed),
            optional_bias=bias,
        )
    return completion.tool_calls[0].parsed_arguments()


@each_kind
def test_a_bias_far_below_0_leaves_optional_properties_out_and_the_required_ones_in(hermes: bool) -> None:
    unbiased = [arguments(None, hermes=hermes, seed=seed) for seed in range(12)]
    biased = [arguments(-100, hermes=hermes, seed=seed) for seed in range(12)]
    assert max(map(len, unbiased)) > 1
    assert [set(each) for each in biased] == [{"query"}] * 12


@each_kind
def test_inside_of_a_nested_object_too_and_not_between_the_elements_of_an_array(hermes: bool) -> None:
    places = OptionalPlaces(fake_tokenizer(hermes=hermes).token_bytes, fake_tokenizer(hermes=hermes).num_tokens, 400)

    def is_biased(written: str) -> bool:
        setting = request(LOOK_UP, choice=ToolChoice.named("look_up"))
        family = HERMES if hermes else PLAIN
        matcher = matcher_of(setting, family)
        begin = family.write_call("look_up", "{}").partition("{}")[0]
        matcher.accept(fake_tokenizer(hermes=hermes).encode(begin + written))
        row = np.zeros(13, dtype=np.int32)
        matcher.fill_bitmask(row)
        biased = places.bias(row, -1.0)
        assert set(biased.values()) <= {-1.0}
        return bool(biased)

    assert is_biased('{"query": "a"')
    assert is_biased('{"query": "a", "near": {"x": 1')
    assert is_biased('{"query": "a", "near": {"x": 1}')
    assert is_biased('{"query": "a", "tags": ["a,"]')
    assert not is_biased('{"query": "a", "near": {"x": 1, "y": 3')  # nothing else may stand there
    assert not is_biased('{"query": "a", "tags": ["a,"')
    assert not is_biased('{"query": "a", "tags": ["a')
    assert not is_biased('{"query"')
    assert not is_biased("{")


def test_no_bias_and_a_bias_of_0_are_the_same() -> None:
    for seed in range(4):
        assert arguments(0.0, hermes=False, seed=seed) == arguments(None, hermes=False, seed=seed)


def test_free_text_has_no_such_places() -> None:
    with Engine(fake_loaded()) as engine:
        text, biased = (
            engine.chat([USER], tools=[LOOK_UP], optional_bias=bias, max_tokens=60).text for bias in (None, -100.0)
        )
    assert biased == text


def test_a_format_that_writes_no_json_refuses_it() -> None:
    with (
        Engine(fake_loaded(), tool_format="qwen3-coder") as engine,
        pytest.raises(RequestError, match="JSON") as raised,
    ):
        engine.chat([USER], tools=[LOOK_UP], optional_bias=-1.0)
    assert raised.value.param == "optional_bias"


@pytest.mark.parametrize(
    "options",
    [
        {"tools": ()},
        {"tools": (LOOK_UP,), "tool_choice": ToolChoice(ToolChoiceMode.NONE)},
        {"tools": (LOOK_UP, CustomTool("note"))},
        {"tools": (LOOK_UP,), "response": Grammar.json_object()},
        {"tools": (LOOK_UP,), "optional_bias": 0.1},
        {"tools": (LOOK_UP,), "optional_bias": -101},
        {"tools": (LOOK_UP,), "optional_bias": float("nan")},
        {"tools": (LOOK_UP,), "optional_bias": "1"},
    ],
)
def test_where_it_would_mean_nothing_it_is_refused(options: Any) -> None:
    with pytest.raises(RequestError) as raised:
        Request(messages=(USER,), **{"optional_bias": -1.0} | options)
    assert raised.value.param == "optional_bias"
