"""The likeliest of several samples."""

from dataclasses import replace
from typing import Any

import pytest

from engine.engine import Engine
from engine.errors import GenerationError, RequestError
from engine.events import Event, Finished, StopReason
from engine.output import collect
from engine.types import Request, SamplingParams
from tests.deciders import AS_ASKED, decider, marker_then_text
from tests.fakes import CALCULATE, REQUIRED, SEARCH, USER, Gate, fake_loaded, with_hook

each_kind = pytest.mark.parametrize("hermes", [False, True], ids=["plain", "hermes"])


def asked(**options: Any) -> Request:
    sampling = SamplingParams(temperature=100, seed=7)
    return Request(messages=(USER,), **{"tools": (CALCULATE, SEARCH), "sampling": sampling, "max_tokens": 80} | options)


@each_kind
def test_the_answer_is_the_sample_whose_tokens_are_likeliest(hermes: bool) -> None:
    request = asked(tool_choice=REQUIRED)
    scored = replace(request, sampling=replace(request.sampling, top_logprobs=0))
    with Engine(fake_loaded(hermes=hermes)) as engine:
        samples = [each.completion() for each in engine.submit_choices(scored, 5)]
        best = engine.submit_best(request, 5).completion()
    scores = [
        sum(each.logprob for each in sample.logprobs or ()) / sample.usage.completion_tokens for sample in samples
    ]
    assert best.samples is not None
    assert best.samples.scores == pytest.approx(scores)
    assert best.samples.best == max(range(5), key=scores.__getitem__)
    likeliest = samples[best.samples.best].tool_calls
    assert [(call.name, call.arguments) for call in best.tool_calls] == [(c.name, c.arguments) for c in likeliest]
    assert best.logprobs is None
    assert best.usage.completion_tokens == sum(sample.usage.completion_tokens for sample in samples)
    assert best.usage.prompt_tokens == samples[0].usage.prompt_tokens


def test_the_first_sample_decides_whether_the_answer_calls() -> None:
    loaded = decider(marker_then_text(0.5, hermes=True), hermes=True)
    ways = set()
    with Engine(loaded) as engine:
        for seed in range(8):
            request = asked(sampling=SamplingParams(temperature=1, seed=seed))
            first = engine.submit(request).completion()
            best = engine.submit_best(request, 4).completion()
            assert bool(best.tool_calls) is bool(first.tool_calls)
            ways.add(bool(first.tool_calls))
    assert ways == {True, False}


def test_logprobs_come_where_they_were_asked_for() -> None:
    request = asked(sampling=SamplingParams(temperature=100, seed=7, top_logprobs=2))
    with Engine(fake_loaded()) as engine:
        logprobs = engine.submit_best(request, 2).completion().logprobs
    assert logprobs
    assert all(len(each.top) == 2 for each in logprobs)


def test_nothing_is_delivered_before_all_samples_have_ended_and_then_one_whole_answer() -> None:
    delivered: list[Event | Exception] = []
    with Engine(fake_loaded()) as engine:
        engine.submit_best(asked(), 3, delivered.append)
        whole = engine.submit_best(asked(), 3).completion()
    events = [event for event in delivered if not isinstance(event, Exception)]
    assert len(events) == len(delivered)
    assert sum(isinstance(event, Finished) for event in events) == 1
    assert (collect(events).text, collect(events).samples) == (whole.text, whole.samples)


def test_cancelling_ends_all_samples() -> None:
    gate = Gate()
    with Engine(with_hook(fake_loaded(), gate), config=AS_ASKED) as engine:
        generation = engine.submit_best(asked(max_tokens=1000), 3)
        assert gate.arrived.acquire(timeout=30)
        generation.cancel()
        gate.open()
        assert generation.completion().stop_reason is StopReason.CANCELLED
        assert engine.load_now().num_running == 0


def test_a_sample_that_fails_fails_the_answer_and_ends_the_others() -> None:
    def fail(number: int) -> None:
        if number == 5:
            raise ValueError("broken")

    with Engine(with_hook(fake_loaded(), fail)) as engine, pytest.raises(GenerationError, match="broken"):
        engine.submit_best(asked(max_tokens=1000), 3).completion()


@pytest.mark.parametrize("best_of", [0, 1, 17, True, 2.0])
def test_the_number_of_samples_is_bounded(best_of: Any) -> None:
    with Engine(fake_loaded()) as engine, pytest.raises(RequestError, match="from 2 to 16") as raised:
        engine.submit_best(asked(), best_of)
    assert raised.value.param == "best_of"


def test_greedy_samples_are_refused() -> None:
    with Engine(fake_loaded()) as engine, pytest.raises(RequestError, match="temperature") as raised:
        engine.submit_best(asked(sampling=SamplingParams()), 2)
    assert raised.value.param == "best_of"
