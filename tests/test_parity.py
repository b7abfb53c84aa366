"""The same request gives the same answer, however its tokens go through the model.

Exactly, with the fake. With real weights up to rounding: the same tokens until the first position at which two of them
are less than TOLERANCE apart, computed alone.
"""

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.capacity import STEP
from engine.config import EngineConfig
from engine.engine import Engine
from engine.errors import BudgetError
from engine.events import (
    Completion,
    Event,
    Finished,
    LogprobsDelta,
    TextDelta,
    ToolCallDelta,
    ToolCallEnd,
    ToolCallStart,
)
from engine.generation import Generation
from engine.model import Chunk, LoadedModel, load
from engine.sequence import MIN_UNFORCED
from engine.types import Grammar, Message, Request, Role, SamplingParams, Tool, ToolChoice, ToolChoiceMode
from tests.deciders import AS_ASKED
from tests.fakes import CALCULATE, EOS, REQUIRED, SEARCH, fake_loaded, fake_model
from tests.tiny_models import CONFIG, random_weights, write_folder

TOLERANCE = 1e-3  # float32
LONG = CONFIG | {"max_position_embeddings": 2048}

FAMILIES = pytest.mark.parametrize("hermes", [False, True], ids=["plain", "hermes"])
EXAMPLES = settings(deadline=None, max_examples=25)

SAMPLING = st.builds(
    SamplingParams,
    temperature=st.sampled_from([0, 0.7, 30]),
    seed=st.integers(0, 2**63 - 1),
    top_k=st.sampled_from([0, 20]),
    top_p=st.sampled_from([1, 0.9]),
    repetition_penalty=st.sampled_from([1, 1.3]),
    presence_penalty=st.sampled_from([0, 1.5]),
)
WITH_TOOLS = st.fixed_dictionaries(
    {
        "tools": st.sampled_from([(CALCULATE,), (SEARCH, CALCULATE)]),
        "tool_choice": st.sampled_from([ToolChoice(), REQUIRED, ToolChoice(ToolChoiceMode.NONE)]),
        "parallel_tool_calls": st.booleans(),
    }
)
TURNS: st.SearchStrategy[dict[str, object]] = st.one_of(
    st.just({}),
    WITH_TOOLS,
    WITH_TOOLS,
    st.just({"response": Grammar.json_schema({"type": "object", "properties": {"name": {"enum": ["a", "b"]}}})}),
    st.just({"response": Grammar.regex(r"(ab?)+ [0-9]{2}")}),
    st.just({"response": Grammar.choice(["yes", "no"]), "tools": (CALCULATE,)}),
)
REQUESTS = st.builds(
    lambda turn, sampling, question, max_tokens, stop: Request(
        messages=(Message(Role.USER, question),), sampling=sampling, max_tokens=max_tokens, stop=stop, **turn
    ),
    turn=TURNS,
    sampling=SAMPLING,
    question=st.text("abc ", max_size=5),
    max_tokens=st.sampled_from([*range(1, 40), *[150] * 40]),
    stop=st.sampled_from([(), (), ("e",), ("a", "<")]),
)


STRINGS = {"type": "string", "minLength": 8}
LONG_VALUES = st.builds(
    lambda schema, sampling, max_tokens: Request(
        messages=(Message(Role.USER, "hi"),),
        response=Grammar.json_schema(schema),
        sampling=sampling,
        max_tokens=max_tokens,
    ),
    schema=st.sampled_from(
        [
            {"type": "object", "properties": {"a": STRINGS, "b": STRINGS}, "required": ["a", "b"]},
            {"type": "array", "items": STRINGS, "uniqueItems": True, "minItems": 2},
            {"type": "array", "items": {"type": "string"}, "contains": {"const": "ab"}},
        ]
    ),
    sampling=SAMPLING,
    max_tokens=st.integers(20, 70),
)


def fake(*, hermes: bool) -> LoadedModel:
    """Calls, now and then, and ends its strings and turns."""
    return fake_loaded(hermes=hermes, bonus={'"': 400, EOS: 300}, phrases={"<tool_call>": 400})


def submitted(engine: Engine, request: Request) -> Generation:
    """The request's generation, with the least budget that does where its own is too small."""
    try:
        return engine.submit(request)
    except BudgetError as error:
        return engine.submit(replace(request, max_tokens=error.least))


def said(answer: Completion) -> tuple[object, ...]:
    """All but the ids of the calls, which are new each time, and what others had computed before."""
    calls = tuple((call.name, call.arguments) for call in answer.tool_calls)
    usage = replace(answer.usage, cached_tokens=0)
    return answer.text, calls, answer.stop_reason, usage, answer.seed, answer.receipt, answer.logprobs


def except_passes(answer: Completion) -> tuple[object, ...]:
    return said(replace(answer, usage=replace(answer.usage, forward_passes=0), logprobs=None))


def asking_for_tokens(request: Request) -> Request:
    return replace(request, sampling=replace(request.sampling, top_logprobs=0))


def tokens(answer: Completion) -> list[int]:
    assert answer.logprobs is not None
    return [each.token_id for each in answer.logprobs]


def added_up(events: Iterable[Event]) -> tuple[object, ...]:
    """What a consumer of the stream has in the end; in the form of `said`."""
    text, calls, logprobs = "", [], []
    begun: dict[int, list[str]] = {}  # index -> name, arguments
    for event in events:
        match event:
            case TextDelta():
                text += event.text
            case ToolCallStart():
                begun[event.index] = [event.name, ""]
            case ToolCallDelta():
                begun[event.index][1] += event.arguments
            case ToolCallEnd():
                assert event.index == len(calls)
                calls.append(tuple(begun[event.index]))
            case LogprobsDelta():
                logprobs += event.tokens
            case Finished():
                end = event
    usage = replace(end.usage, cached_tokens=0)
    return text or None, tuple(calls), end.stop_reason, usage, end.seed, end.receipt, tuple(logprobs) or None


@FAMILIES
@EXAMPLES
@given(request=REQUESTS)
def test_the_streamed_events_add_up_to_the_whole_answer(hermes: bool, request: Request) -> None:
    """F12: there, streamed answers differed from whole ones."""
    with Engine(fake(hermes=hermes)) as engine:
        assert added_up(submitted(engine, request)) == said(submitted(engine, request).completion())
        assert (
            added_up(submitted(engine, asking_for_tokens(request)))[:3]
            == said(submitted(engine, request).completion())[:3]
        )


@FAMILIES
@settings(deadline=None, max_examples=10)
@given(requests=st.lists(REQUESTS, min_size=2, max_size=6))
def test_a_request_gets_the_same_answer_alone_and_among_others(hermes: bool, requests: list[Request]) -> None:
    with Engine(fake(hermes=hermes), config=EngineConfig(max_running=4)) as engine:
        alone = [except_passes(submitted(engine, request).completion()) for request in requests]
        with ThreadPoolExecutor(len(requests)) as threads:
            together = [
                except_passes(each) for each in threads.map(lambda each: submitted(engine, each).completion(), requests)
            ]
    assert together == alone


@FAMILIES
@EXAMPLES
@given(request=REQUESTS)
def test_forced_tokens_are_the_same_as_if_they_were_sampled_but_save_their_passes(
    hermes: bool, request: Request
) -> None:
    """F14: each forced token is a forward pass less."""
    one_pass_a_token = replace(AS_ASKED, drafts=False, look_ahead=False)
    with (
        Engine(fake(hermes=hermes), config=one_pass_a_token) as fast,
        Engine(fake(hermes=hermes), config=replace(one_pass_a_token, fast_forward=False)) as slow,
    ):
        by_runs, one_by_one = submitted(fast, request).completion(), submitted(slow, request).completion()
        request = asking_for_tokens(request)
        assert tokens(submitted(fast, request).completion()) == tokens(submitted(slow, request).completion())

    assert said(by_runs)[:3] == said(one_by_one)[:3]
    assert by_runs.usage.completion_tokens == one_by_one.usage.completion_tokens
    assert one_by_one.usage.forced_tokens == 0
    assert one_by_one.usage.forward_passes - by_runs.usage.forward_passes == by_runs.usage.forced_tokens


@FAMILIES
@EXAMPLES
@given(request=REQUESTS, top_logprobs=st.integers(0, 20))
def test_asking_for_logprobs_changes_nothing_else(hermes: bool, request: Request, top_logprobs: int) -> None:
    with Engine(fake(hermes=hermes), config=EngineConfig(drafts=False, look_ahead=False)) as engine:
        without = submitted(engine, request).completion()
        asking = replace(request, sampling=replace(request.sampling, top_logprobs=top_logprobs))
        with_them = submitted(engine, asking).completion()
    assert except_passes(with_them) == except_passes(without)
    assert without.logprobs is None
    assert len(with_them.logprobs or ()) == with_them.usage.completion_tokens
    # Those of what is forced at the end are one more.
    assert 0 <= with_them.usage.forward_passes - without.usage.forward_passes <= 1


@FAMILIES
@settings(deadline=None, max_examples=8)
@given(requests=st.lists(REQUESTS | LONG_VALUES, min_size=1, max_size=3), drafts=st.booleans())
def test_looking_ahead_changes_no_answer(hermes: bool, requests: list[Request], drafts: bool) -> None:
    answers = []
    for look_ahead in (True, False):
        config = EngineConfig(look_ahead=look_ahead, drafts=drafts)
        with Engine(fake_loaded(hermes=hermes, bonus={EOS: 300}), config=config) as engine:
            streams = [submitted(engine, request) for request in requests]
            answers.append([except_passes(stream.completion()) for stream in streams])
    assert answers[0] == answers[1]


@settings(deadline=None, max_examples=10)
@given(request=LONG_VALUES)
def test_a_pass_that_ran_ahead_in_vain_comes_behind_several_tokens_that_were_not_forced(request: Request) -> None:
    passes = {}
    for look_ahead in (True, False):
        config = EngineConfig(look_ahead=look_ahead, drafts=False)
        with Engine(fake_loaded(bonus={'"': 200}), config=config) as engine:
            usage = submitted(engine, request).completion().usage
        passes[look_ahead] = usage.forward_passes
    num_in_vain = passes[True] - passes[False]
    assert 0 <= num_in_vain <= (usage.completion_tokens - usage.forced_tokens) // (MIN_UNFORCED + 1)


@FAMILIES
@EXAMPLES
@given(request=REQUESTS, asks=st.booleans())
def test_a_prompt_in_chunks_is_the_same_as_a_prompt_at_once(hermes: bool, request: Request, asks: bool) -> None:
    request = asking_for_tokens(request) if asks else request
    answers = []
    for chunk in (1, 7, 512):
        with Engine(fake(hermes=hermes), config=EngineConfig(prefill_chunk=chunk)) as engine:
            answers.append(submitted(engine, request).completion())
    assert except_passes(answers[0]) == except_passes(answers[1]) == except_passes(answers[2])
    assert answers[0].logprobs == answers[1].logprobs == answers[2].logprobs


@FAMILIES
def test_whoever_gives_way_for_lack_of_memory_writes_the_same_in_the_end(hermes: bool) -> None:
    loaded = fake_loaded(hermes=hermes, bonus={EOS: -(10**6)})
    requests = [
        Request(
            messages=(Message(Role.USER, "abc " * 60),),
            response=response,
            sampling=SamplingParams(70, seed=seed, top_logprobs=0),
            max_tokens=60,
        )
        for seed, response in enumerate([None, Grammar.regex("[a-z ]{300}[0-9]{9}")] * 2)
    ]
    with Engine(loaded) as engine:
        alone = [submitted(engine, request).completion() for request in requests]
    # The fake's tokens take a byte each: room for two rows, until one of them has more than a step of tokens.
    with Engine(loaded, config=EngineConfig(kv_memory=2 * STEP)) as engine:
        together = [stream.completion() for stream in [submitted(engine, request) for request in requests]]
        load = engine.load_now()

    assert all(answer.usage.prompt_tokens < STEP < answer.usage.prompt_tokens + 60 for answer in alone)
    assert load.num_preemptions > 0
    assert [except_passes(answer) for answer in together] == [except_passes(answer) for answer in alone]
    assert [answer.logprobs for answer in together] == [answer.logprobs for answer in alone]


# Real weights.

WEATHER = Tool(
    "get_weather",
    "The weather in a city.",
    {
        "type": "object",
        "properties": {"city": {"type": "string"}, "unit": {"enum": ["celsius", "fahrenheit"]}},
        "required": ["city", "unit"],
    },
)
QUESTIONS = (
    "What is the weather in Paris?",
    "Is it warm in Rome, in celsius?",
    "How cold is it in Oslo?",
    "Do I need a coat in Berlin?",
    "Tell me about Tokyo's weather in fahrenheit.",
    "Is it raining in London?",
    "Weather in São Paulo, please.",
    "Temperature in New York?",
    "Is it sunny in Cairo today?",
    "How hot is Delhi?",
)


def weather_request(question: str) -> Request:
    return Request(
        messages=(Message(Role.USER, question),),
        tools=(WEATHER,),
        tool_choice=REQUIRED,
        sampling=SamplingParams(top_logprobs=0),
        max_tokens=110,
    )


def assert_same_up_to_rounding(loaded: LoadedModel, prompt: Sequence[int], one: list[int], other: list[int]) -> None:
    """Equal tokens, or a first difference between two whose logits, computed alone, are within TOLERANCE."""
    if one == other:
        return
    position = next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), None)
    assert position is not None, "one is longer: they do not end alike"
    cache = loaded.model.make_memory().make_cache()
    logits = loaded.model.forward([Chunk([*prompt, *one[:position]], cache, num_logits=1)])[-1]
    gap = abs(logits[one[position]].item() - logits[other[position]].item())
    assert gap < TOLERANCE, f"token {position} differs, and the two are {gap} apart"


def test_the_tolerance_forgives_no_difference_that_is_not_rounding() -> None:
    loaded = fake_loaded()
    logits = fake_model(loaded).logits_after([5, 6, 7])
    likelier, less = int(logits.argmax()), int(logits.argmin())
    assert_same_up_to_rounding(loaded, [5, 6], [7, likelier], [7, likelier])
    with pytest.raises(AssertionError, match="token 1 differs"):
        assert_same_up_to_rounding(loaded, [5, 6], [7, likelier], [7, less])
    with pytest.raises(AssertionError, match="one is longer"):
        assert_same_up_to_rounding(loaded, [5, 6], [7, likelier], [7])


def test_rows_with_quantised_keys_and_values_say_the_same_alone_and_among_others(tmp_path: Path) -> None:
    config = LONG | {"hidden_size": 128, "num_attention_heads": 2}  # heads that fill a group
    loaded = load(write_folder(tmp_path / "model", config, random_weights(config)), cache_dir=tmp_path)
    requests = [replace(weather_request(question), max_tokens=110) for question in QUESTIONS[:4]]
    with Engine(loaded, config=EngineConfig(kv_bits=8)) as engine:
        alone = [tokens(engine.submit(request).completion()) for request in requests]
        streams = [engine.submit(request) for request in requests]
        together = [tokens(stream.completion()) for stream in streams]
    assert len({tuple(each) for each in alone}) > 1
    assert together == alone


@pytest.mark.embedded
def test_real_weights_say_the_same_alone_streamed_among_others_and_token_by_token(embedded_model: LoadedModel) -> None:
    requests = [weather_request(question) for question in QUESTIONS]
    with Engine(embedded_model) as engine:
        prompts = [engine.render_prompt(request) for request in requests]
        alone = [submitted(engine, request).completion() for request in requests]
        streams = [submitted(engine, request) for request in requests]
        together = [added_up(stream) for stream in streams]
    with Engine(embedded_model, config=EngineConfig(fast_forward=False)) as engine:
        one_by_one = [submitted(engine, request).completion() for request in requests]

    for prompt, expected, batched, slow in zip(prompts, alone, together, one_by_one, strict=True):
        logprobs = batched[-1]
        assert isinstance(logprobs, tuple)
        assert_same_up_to_rounding(embedded_model, prompt, tokens(expected), [each.token_id for each in logprobs])
        assert_same_up_to_rounding(embedded_model, prompt, tokens(expected), tokens(slow))
        assert expected.usage.forced_tokens > 10
        assert expected.usage.forward_passes < slow.usage.forward_passes


@pytest.mark.parametrize("temperature", [0, 0.8])
def test_small_real_weights_say_the_same_alone_and_among_others(tmp_path: Path, temperature: float) -> None:
    loaded = load(write_folder(tmp_path / "model", LONG, random_weights(LONG)), cache_dir=tmp_path)
    requests = [
        replace(weather_request(question), sampling=SamplingParams(temperature, seed=seed, top_logprobs=0), **turn)
        for seed, question in enumerate(QUESTIONS[:5])
        for turn in ({}, {"tools": (), "tool_choice": ToolChoice(), "max_tokens": 20})
    ]
    with Engine(loaded, config=EngineConfig(max_running=4, prefill_chunk=64)) as engine:
        prompts = [engine.render_prompt(request) for request in requests]
        alone = [submitted(engine, request).completion() for request in requests]
        together = [stream.completion() for stream in [submitted(engine, request) for request in requests]]
        num_passes = engine.load_now().work.num_passes

    for prompt, one, other in zip(prompts, alone, together, strict=True):
        assert_same_up_to_rounding(loaded, prompt, tokens(one), tokens(other))
    assert num_passes < 1.7 * sum(answer.usage.forward_passes for answer in alone)
