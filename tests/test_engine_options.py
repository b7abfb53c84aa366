"""The engine: when it stops, how it samples, and what it reports."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.config import EngineConfig
from engine.engine import Engine
from engine.errors import EngineClosedError, RequestError, SchemaError
from engine.events import Enforcement, Finished, StopReason, ToolCallEnd
from engine.types import Grammar, Message, Request, Role, SamplingParams, Tool
from tests.deciders import AS_ASKED
from tests.fakes import (
    CALCULATE,
    EOS,
    REQUIRED,
    SEARCH,
    USER,
    fake_loaded,
    fake_model,
    fake_that_writes,
    scripted,
)

LONG = Request(messages=(USER,))  # up to the context's end
NEVER_ENDS = {EOS: -(10**6)}
FAMILIES = pytest.mark.parametrize("hermes", [False, True], ids=["plain", "hermes"])


# Stopping.


def text_of(engine: Engine, **options: object) -> str:
    return engine.chat([USER], max_tokens=30, **options).text or ""


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10**6), start=st.integers(0, 25), length=st.integers(1, 6))
def test_text_ends_before_the_first_stop_string_wherever_tokens_cut_it(seed: int, start: int, length: int) -> None:
    with Engine(fake_loaded(seed=seed, bonus=NEVER_ENDS)) as engine:
        whole = text_of(engine)
        stop = whole[start : start + length]
        answer = engine.chat([USER], max_tokens=30, stop=["not in it \0\0", stop or "\0\0"])

    if stop:
        assert answer.text == (whole.partition(stop)[0] or None)
        assert answer.stop_reason is StopReason.STOP_STRING
        assert answer.usage.completion_tokens <= 30
    else:
        assert answer.text == whole


def test_of_several_stop_strings_the_first_in_the_text_counts() -> None:
    with Engine(fake_that_writes("The answer is 42.")) as engine:
        assert text_of(engine) == "The answer is 42."
        assert text_of(engine, stop=["42", "is", "is 42"]) == "The answer "


def test_a_stop_string_saves_the_passes_after_it() -> None:
    with Engine(fake_that_writes("The answer is 42.")) as engine:
        answer = engine.chat([USER], max_tokens=30, stop="The")
    assert (answer.text, answer.stop_reason) == (None, StopReason.STOP_STRING)
    assert answer.usage.forward_passes == answer.usage.completion_tokens == 1


def test_a_stop_string_that_looks_like_a_marker_s_beginning_stops_at_the_very_end_too() -> None:
    """The parser holds such text back in case a call begins."""
    with Engine(fake_that_writes("The answer is <tool"), config=AS_ASKED) as engine:
        answer = engine.chat([USER], tools=[CALCULATE], max_tokens=30, stop="<tool")
    assert answer.text == "The answer is "
    assert answer.stop_reason is StopReason.STOP_STRING


@FAMILIES
def test_stop_strings_are_not_sought_in_calls_and_the_receipt_says_so(hermes: bool) -> None:
    with Engine(fake_loaded(hermes=hermes, bonus={'"': 500})) as engine:
        answer = engine.chat(
            [USER], tools=[CALCULATE], tool_choice="required", parallel_tool_calls=False, stop=["expression", "{", "<"]
        )
    assert len(answer.tool_calls) == 1
    assert ("stop", Enforcement.NARROWED) in [(entry.path, entry.enforcement) for entry in answer.receipt.entries]


def test_stop_strings_are_not_sought_in_an_answer_that_is_bound() -> None:
    with Engine(fake_loaded()) as engine:
        answer = engine.chat([USER], response=Grammar.choice(["stop here", "stop there"]), stop="stop")
    assert answer.text in ("stop here", "stop there")


@pytest.mark.parametrize("fast_forward", [True, False])
def test_stop_tokens_end_free_text_and_nothing_else(fast_forward: bool) -> None:
    loaded = fake_loaded(bonus={'"': 500, EOS: -(10**6)})
    quote, bracket = loaded.tokenizer.encode('"')[0], loaded.tokenizer.encode("<")[0]
    config = EngineConfig(fast_forward=fast_forward)
    with Engine(loaded, config=config) as engine:
        stop = (quote, bracket)
        free = engine.submit(Request(messages=(USER,), stop_token_ids=stop, max_tokens=100)).completion()
        bound = engine.submit(
            Request(
                messages=(USER,),
                tools=(CALCULATE,),
                tool_choice=REQUIRED,
                parallel_tool_calls=False,
                stop_token_ids=stop,
            )
        ).completion()

    assert free.stop_reason is StopReason.STOP_TOKEN
    assert '"' not in (free.text or "")
    assert free.usage.forward_passes == free.usage.completion_tokens + 2  # the stop token's, and one ahead
    assert bound.stop_reason is StopReason.GRAMMAR_END
    assert len(bound.tool_calls) == 1


# Sampling options.


def test_a_seed_draws_the_same_answer_again_and_another_seed_another() -> None:
    with Engine(fake_loaded()) as engine:

        def text(seed: int | None) -> str:
            return text_of(engine, sampling=SamplingParams(temperature=100, seed=seed))

        assert text(1) == text(1)
        assert len({text(seed) for seed in range(5)}) == 5
        assert text(None) != text(None)


def test_a_seed_that_was_drawn_is_reported_and_draws_the_same_answer_again() -> None:
    with Engine(fake_loaded()) as engine:
        drawn = engine.chat([USER], sampling=SamplingParams(temperature=100), max_tokens=20)
        again = engine.chat([USER], sampling=SamplingParams(temperature=100, seed=drawn.seed), max_tokens=20)
    assert again.text == drawn.text
    assert again.seed == drawn.seed


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 2**63 - 1))
def test_top_k_of_1_and_a_temperature_of_almost_0_are_greedy(seed: int) -> None:
    fake = fake_model(fake_loaded(seed=seed % 1000))

    def without_ties(tokens: list[int]) -> dict[int, float]:
        return {token: logit + token / 1024 for token, logit in enumerate(fake.logits_after(tokens))}

    with Engine(scripted(fake_loaded(), without_ties)) as engine:
        greedy = text_of(engine)
        assert text_of(engine, sampling=SamplingParams(temperature=100, top_k=1, seed=seed)) == greedy
        assert text_of(engine, sampling=SamplingParams(temperature=1e-9, seed=seed)) == greedy
        assert text_of(engine, sampling=SamplingParams(temperature=100, top_p=1e-9, seed=seed)) == greedy
        assert text_of(engine, sampling=SamplingParams(temperature=100, min_p=1.0, seed=seed)) == greedy


@pytest.mark.parametrize(
    "sampling",
    [
        SamplingParams(presence_penalty=2),
        SamplingParams(frequency_penalty=2),
        SamplingParams(repetition_penalty=2),
    ],
    ids=["presence", "frequency", "repetition"],
)
def test_a_penalty_keeps_a_model_from_saying_the_same_again(sampling: SamplingParams) -> None:
    stuck = scripted(fake_loaded(), lambda _: {40: 3, 41: 2.5, 42: 2.4, 43: 2.3, 44: 2.2})
    with Engine(stuck) as engine:
        plain = text_of(engine)
        penalised = text_of(engine, sampling=sampling)
    assert len(set(plain)) == 1
    assert len(set(penalised)) >= 5


def test_a_bias_forces_a_token_or_forbids_it() -> None:
    tokenizer = fake_loaded().tokenizer
    (the,), (c,) = tokenizer.encode("The"), tokenizer.encode("c")
    with Engine(scripted(fake_loaded(), lambda _: {the: 50})) as engine:
        assert text_of(engine) == "The" * 30
        assert text_of(engine, sampling=SamplingParams(temperature=1, logit_bias={c: 100})) == "c" * 30
        assert "The" not in text_of(engine, sampling=SamplingParams(temperature=1, logit_bias={the: -100}))


def test_a_bias_cannot_force_what_the_grammar_forbids() -> None:
    loaded = fake_loaded()
    (the,) = loaded.tokenizer.encode("The")
    with Engine(loaded) as engine:
        answer = engine.chat(
            [USER], response=Grammar.choice(["4", "5"]), sampling=SamplingParams(logit_bias={the: 100})
        )
    assert answer.text in ("4", "5")


# What is reported.


@FAMILIES
def test_usage_is_counted(hermes: bool) -> None:
    """F29: there, a count was always 0."""
    loaded = fake_loaded(hermes=hermes, bonus={'"': 500})
    request = Request(
        messages=(USER,),
        tools=(CALCULATE,),
        tool_choice=REQUIRED,
        sampling=SamplingParams(seed=1, top_logprobs=0),
        max_tokens=80,
    )
    with Engine(loaded) as engine:
        generation = engine.submit(request)
        *_, finished = generation
        answer = generation.completion()
        prompt = engine.render_prompt(request)

    assert isinstance(finished, Finished)
    assert finished.usage == answer.usage
    assert answer.usage.prompt_tokens == len(prompt)
    assert answer.usage.completion_tokens == len(answer.logprobs or ())
    assert answer.usage.forward_passes == fake_model(loaded).num_forward_passes
    assert 0 < answer.usage.forced_tokens < answer.usage.completion_tokens


def test_an_answer_without_tokens_has_no_logprobs_where_they_were_asked_for_and_none_where_not() -> None:
    with Engine(fake_that_writes("")) as engine:
        assert engine.chat([USER], sampling=SamplingParams(top_logprobs=1)).logprobs == ()
        assert engine.chat([USER]).logprobs is None


def test_a_marker_inside_a_bound_answer_opens_no_call() -> None:
    """F19: only the family's exact marker, where a call may begin, opens one."""
    schema = Grammar.json_schema({"type": "object", "properties": {"s": {"type": "string"}}})
    with Engine(fake_that_writes('{"s": "<tool_call>"}'), config=AS_ASKED) as engine:
        answer = engine.chat([USER], tools=[CALCULATE], response=schema, max_tokens=60)
    assert (answer.text, answer.tool_calls) == ('{"s": "<tool_call>"}', ())


def test_the_receipt_says_what_was_enforced_and_how() -> None:
    tool = Tool(
        "f", parameters={"type": "object", "properties": {"a": {"type": "string", "format": "odd", "title": "A"}}}
    )
    with Engine(fake_loaded(bonus={'"': 500})) as engine:
        answer = engine.chat([USER], tools=[tool], tool_choice="required", max_tokens=60)
    entries = [(entry.path, entry.enforcement) for entry in answer.receipt.entries]
    assert entries == [
        ("tool_choice", Enforcement.GRAMMAR),
        ("tools[0].parameters", Enforcement.GRAMMAR),
        ("tools[0].parameters.properties.a.format", Enforcement.ANNOTATION),
        ("tools[0].parameters.properties.a.title", Enforcement.ANNOTATION),
        ("tools[0].parameters", Enforcement.NARROWED),
    ]


@pytest.mark.parametrize(
    ("response", "what"),
    [
        (Grammar.json_schema({"enum": ["a"]}), "all of the schema that no other entry names"),
        (Grammar.regex("a"), "regex"),
        (Grammar.choice(["a"]), "choice"),
        (Grammar.lark('start: "a"'), "lark"),
    ],
    ids=["schema", "regex", "choice", "lark"],
)
def test_the_receipt_says_what_binds_a_response(response: Grammar, what: str) -> None:
    with Engine(fake_loaded()) as engine:
        (entry,) = engine.chat([USER], response=response).receipt.entries
    assert (entry.path, entry.enforcement, entry.detail) == ("response", Enforcement.GRAMMAR, what)


def test_a_free_answers_receipt_is_empty() -> None:
    with Engine(fake_loaded()) as engine:
        assert engine.chat([USER], max_tokens=1, stop="x").receipt.entries == ()


def test_the_last_event_is_finished_and_there_is_one() -> None:
    with Engine(fake_loaded(bonus={'"': 500})) as engine:
        events = list(engine.stream([USER], tools=[CALCULATE, SEARCH], tool_choice="required", max_tokens=100))
    assert [isinstance(event, Finished) for event in events] == [*[False] * (len(events) - 1), True]
    assert any(isinstance(event, ToolCallEnd) for event in events)


def test_an_empty_answer_is_a_message_that_may_stand_in_the_history() -> None:
    with Engine(fake_loaded(bonus={EOS: 10**6})) as engine:
        answer = engine.chat([USER])
        assert answer.text is None
        assert answer.message() == Message(Role.ASSISTANT, "")
        engine.chat([USER, answer.message(), USER])


def test_a_prompt_of_token_ids_is_read_as_it_is() -> None:
    loaded = fake_loaded()
    with Engine(loaded) as engine:
        by_messages = Request(messages=(USER,), max_tokens=10)
        prompt = tuple(engine.render_prompt(by_messages))
        by_ids = Request(prompt=prompt, max_tokens=10)
        assert engine.submit(by_ids).completion().text == engine.submit(by_messages).completion().text


def test_a_context_is_used_to_its_last_token() -> None:
    loaded = fake_loaded(bonus=NEVER_ENDS)
    fake_model(loaded).context_length = 40
    with Engine(loaded) as engine:
        answer = engine.chat([USER])
        assert answer.usage.prompt_tokens + answer.usage.completion_tokens == 40
        assert answer.stop_reason is StopReason.LENGTH
        room = answer.usage.completion_tokens
        assert engine.chat([USER], max_tokens=room).usage.completion_tokens == room
        with pytest.raises(RequestError, match=f"leave room for {room}"):
            engine.chat([USER], max_tokens=room + 1)


def in_threads(number: int, work: Callable[[], object]) -> None:
    with ThreadPoolExecutor(number) as threads:
        for future in [threads.submit(work) for _ in range(number)]:
            future.result(timeout=60)


def test_submitting_cancelling_and_closing_at_once_leaves_nobody_waiting() -> None:
    with Engine(fake_loaded(bonus=NEVER_ENDS), config=EngineConfig(max_running=2)) as engine:
        closed_while_running = threading.Barrier(5)

        def use() -> None:
            for number in range(4):
                generation = engine.submit(LONG)
                if number % 2:
                    generation.cancel()
                    assert generation.completion().stop_reason is StopReason.CANCELLED
                else:
                    next(generation)
                    generation.cancel()
            closed_while_running.wait(timeout=30)
            try:
                engine.submit(LONG).completion()
            except EngineClosedError:
                return
            raise AssertionError("nothing ends this but its max_tokens or the engine's end")

        def close() -> None:
            closed_while_running.wait(timeout=30)
            engine.close()

        with ThreadPoolExecutor(1) as closer:
            closing = closer.submit(close)
            in_threads(4, use)
            closing.result(timeout=30)


# How schemas are taken.


def tool_of(**keywords: object) -> Tool:
    return Tool("f", parameters={"type": "object", "properties": {"a": {"type": "string", **keywords}}})


def test_lenient_drops_what_cannot_be_enforced_and_the_receipt_says_so() -> None:
    tool, path = tool_of(pattern="(?=a)"), "tools[0].parameters.properties.a.pattern"
    with Engine(fake_loaded(bonus={'"': 500})) as engine:
        with pytest.raises(SchemaError) as refused:
            engine.chat([USER], tools=[tool], tool_choice="required", max_tokens=60)
        answer = engine.chat([USER], tools=[tool], tool_choice="required", max_tokens=60, lenient=True)
    assert refused.value.param == path
    assert (path, Enforcement.LENIENT) in [(entry.path, entry.enforcement) for entry in answer.receipt.entries]


def test_strict_formats_refuses_a_format_that_else_is_an_annotation() -> None:
    tool, path = tool_of(format="odd"), "tools[0].parameters.properties.a.format"
    with Engine(fake_loaded(bonus={'"': 500})) as engine:
        answer = engine.chat([USER], tools=[tool], tool_choice="required", max_tokens=60)
        with pytest.raises(SchemaError) as refused:
            engine.stream([USER], tools=[tool], tool_choice="required", max_tokens=60, strict_formats=True)
    assert (path, Enforcement.ANNOTATION) in [(entry.path, entry.enforcement) for entry in answer.receipt.entries]
    assert refused.value.param == path
