"""How tokens are chosen, how many, and limits: refused by name, before the first token."""

import math
from collections.abc import Callable
from typing import Any

import pytest

from engine.config import EngineConfig
from engine.engine import Engine
from engine.errors import ConfigError, ContextLengthError, RequestError
from engine.types import SamplingParams
from tests.bad_input.asking import USER, Case, Options, assert_refused, each

NUMBERS: list[tuple[str, object]] = [
    *(("temperature", value) for value in (math.nan, math.inf, -0.1, 100.5, "hot", True, None, 10**400)),
    *(("top_p", value) for value in (0, 1.1, math.nan, "1", True)),
    *(("min_p", value) for value in (-0.1, 1.1, math.nan, "1")),
    *(("top_k", value) for value in (-1, 1.5, "5", True, None, math.nan)),
    *(("repetition_penalty", value) for value in (0, 11, math.nan, "1")),
    *(("presence_penalty", value) for value in (-2.1, 2.1, math.nan, [])),
    *(("frequency_penalty", value) for value in (-2.1, 2.1, math.nan, False)),
    *(("seed", value) for value in (-1, 2**63, 1.0, "1", True, math.nan)),
    *(("top_logprobs", value) for value in (-1, 21, 1.0, "1", True)),
    *(
        ("logit_bias", value)
        for value in ([1], None, {"5": 1}, {5.0: 1}, {True: 1}, {-1: 1}, {10**9: 1}, {10**5000: 1})
    ),
    *(("logit_bias.5", {5: value}) for value in (100.5, -101, math.nan, "1", None, True)),
]


LENGTHS: list[Case] = [
    *(
        (f"max_tokens: {value!r:.20}", lambda value=value: {"max_tokens": value}, "max_tokens", error)
        for value, error in (
            (0, RequestError),
            (-1, RequestError),
            (True, RequestError),
            (1.5, RequestError),
            ("9", RequestError),
            (math.nan, RequestError),
            (10**6, ContextLengthError),
        )
    ),
    ("max_tokens that nobody can print", lambda: {"max_tokens": 10**5000}, "max_tokens", ContextLengthError),
    ("a stop string of none", lambda: {"stop": ["a", ""]}, "stop[1]", RequestError),
    ("an empty stop string", lambda: {"stop": ""}, "stop[0]", RequestError),
    ("a stop that is a number", lambda: {"stop": [5]}, "stop", RequestError),
    ("a stop that is nothing", lambda: {"stop": None}, "stop", RequestError),
    ("sampling as it stands", lambda: {"sampling": {"temperature": 1}}, "sampling", RequestError),
    (
        "a prompt longer than the context",
        lambda: {"messages": [{**USER, "content": "hi " * 5000}]},
        "messages",
        ContextLengthError,
    ),
]


def title(param: str, value: object) -> str:
    return f"{param}: {value!r:.30}" if value != {10**5000: 1} else "logit_bias: a token that nobody can print"


@pytest.mark.parametrize("number", NUMBERS, ids=lambda number: title(*number))
def test_a_number_beyond_its_range_is_an_error_that_names_it(engine: Engine, way: str, number: tuple[str, Any]) -> None:
    param, value = number
    name = param.partition(".")[0]
    assert_refused(engine, way, lambda: {"sampling": SamplingParams(**{name: value})}, param, RequestError)


@each(LENGTHS)
def test_what_no_answer_can_end_by_is_an_error_that_names_it(
    engine: Engine, way: str, options: Callable[[], Options], param: str, error: type[RequestError]
) -> None:
    assert_refused(engine, way, options, param, error)


@pytest.mark.parametrize("name", ["prefill_chunk", "shared_prefill_chunk", "max_running", "max_waiting", "kv_memory"])
@pytest.mark.parametrize("value", [0, -1, 1.5, "5", True, [], math.nan])
def test_a_limit_of_an_engine_below_1_is_an_error(name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=name):
        EngineConfig(**{name: value})


def test_a_callers_later_change_does_not_reach_a_request() -> None:
    bias = {5: 1.0}
    sampling = SamplingParams(logit_bias=bias)
    bias[10**9] = math.nan
    assert sampling.logit_bias == {5: 1.0}
