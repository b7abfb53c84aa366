"""A request's life: submitted from any thread, streamed, stopped, cancelled, abandoned, closed."""

import gc
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.config import EngineConfig
from engine.engine import Engine
from engine.errors import EngineClosedError, GenerationError, QueueFullError, RequestError
from engine.events import Completion, Enforcement, Finished, StopReason, TextDelta, ToolCallEnd, ToolCallStart
from engine.grammars.turn_parser import TurnParser
from engine.types import Grammar, Message, Request, Role, SamplingParams, Tool
from tests.fakes import (
    CALCULATE,
    EOS,
    REQUIRED,
    SEARCH,
    USER,
    Gate,
    fake_loaded,
    fake_model,
    fake_that_writes,
    scripted,
    with_hook,
)

LONG = Request(messages=(USER,))  # up to the context's end
NEVER_ENDS = {EOS: -(10**6)}
FAMILIES = pytest.mark.parametrize("hermes", [False, True], ids=["plain", "hermes"])


def decoding_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "toolmask-decoding"]


# Cancelling and closing.


def test_a_cancelled_generation_ends_within_a_step() -> None:
    gate = Gate()
    loaded = with_hook(fake_loaded(bonus=NEVER_ENDS), gate)
    with Engine(loaded) as engine:
        generation = engine.submit(LONG)
        gate.let_through(4)
        for _ in range(5):  # the fifth pass waits
            assert gate.arrived.acquire(timeout=30)
        generation.cancel()
        gate.open()
        answer = generation.completion()

    assert answer.stop_reason is StopReason.CANCELLED
    assert answer.usage.completion_tokens == answer.usage.forward_passes == 5
    assert fake_model(loaded).num_forward_passes == 5


def test_a_generation_that_is_cancelled_while_it_waits_never_runs() -> None:
    gate = Gate()
    loaded = with_hook(fake_loaded(), gate)
    with Engine(loaded, config=EngineConfig(max_running=1)) as engine:
        first = engine.submit(Request(messages=(USER,), max_tokens=1))
        assert gate.arrived.acquire(timeout=30)
        second = engine.submit(LONG)
        second.cancel()
        gate.open()

        assert second.completion().stop_reason is StopReason.CANCELLED
        assert second.completion().usage.forward_passes == 0
        assert first.completion().stop_reason is StopReason.LENGTH
    assert fake_model(loaded).num_forward_passes == 1


def test_leaving_a_with_statement_cancels_what_is_left_of_a_stream() -> None:
    gate = Gate()
    with Engine(with_hook(fake_loaded(bonus=NEVER_ENDS), gate)) as engine:
        gate.let_through(3)
        with engine.stream([USER], max_tokens=1000) as generation:
            assert isinstance(next(generation), TextDelta)
        gate.open()
        assert generation.completion().stop_reason is StopReason.CANCELLED


def test_cancelling_after_the_end_changes_nothing() -> None:
    with Engine(fake_loaded()) as engine:
        generation = engine.submit(Request(messages=(USER,), max_tokens=3))
        answer = generation.completion()
        generation.cancel()
        assert generation.completion() == answer
        assert answer.stop_reason is StopReason.LENGTH
        assert engine.chat([USER], max_tokens=3).text == answer.text


def test_a_call_that_was_cancelled_half_way_is_not_reported() -> None:
    """F1: no incomplete call ever leaves the engine."""
    gate = Gate()
    with Engine(with_hook(fake_loaded(), gate)) as engine:
        generation = engine.stream([USER], tools=[CALCULATE], tool_choice="required")
        assert isinstance(next(generation), ToolCallStart)
        generation.cancel()
        gate.open()
        answer = generation.completion()

    assert answer.stop_reason is StopReason.CANCELLED
    assert answer.tool_calls == ()


def test_a_consumer_whose_engine_is_closed_gets_an_error() -> None:
    engine = Engine(fake_loaded(bonus=NEVER_ENDS), config=EngineConfig(max_running=1))
    running, waiting = engine.submit(LONG), engine.submit(LONG)
    with ThreadPoolExecutor(2) as threads:
        consumers = [threads.submit(generation.completion) for generation in (running, waiting)]
        engine.close()
        for consumer in consumers:
            with pytest.raises(EngineClosedError, match="while this ran"):
                consumer.result(timeout=30)
    with pytest.raises(EngineClosedError):
        running.completion()  # again
    assert next(running, None) is None


def test_a_closed_engine_takes_no_request_and_may_be_closed_again() -> None:
    engine = Engine(fake_loaded())
    engine.close()
    engine.close()
    with pytest.raises(EngineClosedError, match="the engine is closed"):
        engine.chat([USER])
    with pytest.raises(EngineClosedError):
        engine.chat([USER], response=Grammar.choice(["needs no model"]))


def test_an_answer_that_was_complete_outlives_its_engine() -> None:
    with Engine(fake_loaded()) as engine:
        generation = engine.submit(Request(messages=(USER,), max_tokens=3))
        answer = generation.completion()
    assert generation.completion() == answer


def test_no_thread_is_left_after_close() -> None:
    before = decoding_threads()
    with Engine(fake_loaded()) as engine:
        engine.chat([USER], max_tokens=2)
        assert len(decoding_threads()) == len(before) + 1
    assert decoding_threads() == before


def test_an_engine_closes_although_an_exception_leaves_its_with_statement() -> None:
    before = decoding_threads()
    engine = Engine(fake_loaded())
    with pytest.raises(ZeroDivisionError), engine:
        raise ZeroDivisionError
    assert decoding_threads() == before


def test_abandoned_generations_hinder_nobody() -> None:
    with Engine(fake_loaded(bonus=NEVER_ENDS), config=EngineConfig(max_running=2)) as engine:
        for _ in range(4):
            engine.submit(Request(messages=(USER,), max_tokens=30))
        gc.collect()
        assert engine.chat([USER], max_tokens=5).usage.completion_tokens == 5


def test_an_interrupted_chat_leaves_nothing_running(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate()
    loaded = with_hook(fake_loaded(bonus=NEVER_ENDS), gate)

    def interrupted(_: object) -> Completion:
        raise KeyboardInterrupt

    with Engine(loaded) as engine:
        with monkeypatch.context() as patch:
            patch.setattr("engine.engine.Generation.completion", interrupted)
            with pytest.raises(KeyboardInterrupt):
                engine.chat([USER], max_tokens=1000)
        gate.open()
        engine.chat([USER], max_tokens=1)
    assert fake_model(loaded).num_forward_passes <= 2


def test_an_output_that_cannot_be_read_back_ends_its_own_request_only(monkeypatch: pytest.MonkeyPatch) -> None:
    feed = TurnParser.feed

    def fails_in_calls(parser: TurnParser, text: str, *, special: bool = False) -> list[object]:
        if not parser.in_text:
            raise ZeroDivisionError
        return list(feed(parser, text, special=special))

    monkeypatch.setattr(TurnParser, "feed", fails_in_calls)
    with Engine(fake_loaded()) as engine:
        with pytest.raises(GenerationError, match="cannot be read back"):
            engine.chat([USER], tools=[CALCULATE], tool_choice="required")
        assert engine.chat([USER], max_tokens=2).usage.completion_tokens == 2


def test_nobody_waits_for_a_decoding_thread_that_died_of_a_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: object) -> None:
        raise ZeroDivisionError

    deaths: list[threading.ExceptHookArgs] = []
    monkeypatch.setattr(threading, "excepthook", deaths.append)
    with Engine(fake_loaded()) as engine:
        monkeypatch.setattr("engine.scheduler.Scheduler.next_step", broken)
        with pytest.raises(EngineClosedError):
            engine.submit(LONG).completion()
        with pytest.raises(EngineClosedError):
            engine.submit(LONG).completion()
    assert [death.exc_type for death in deaths] == [ZeroDivisionError]


# Many at once.


def test_twenty_requests_from_several_threads_each_get_their_own_answer() -> None:
    def ask(number: int) -> Completion:
        return engine.chat(
            [Message(Role.USER, f"question {number}")],
            tools=[CALCULATE] if number % 2 else [],
            tool_choice="required" if number % 2 else "auto",
            parallel_tool_calls=False,
            sampling=SamplingParams(temperature=1, seed=number),
            max_tokens=60,
        )

    with Engine(fake_loaded(bonus={'"': 300}), config=EngineConfig(max_running=6)) as engine:
        alone = [ask(number) for number in range(20)]
        with ThreadPoolExecutor(20) as threads:
            together = list(threads.map(ask, range(20)))

    def said(answer: Completion) -> object:
        calls = [(call.name, call.arguments) for call in answer.tool_calls]
        return answer.text, calls, answer.stop_reason, answer.usage, answer.seed

    assert list(map(said, together)) == list(map(said, alone))
    assert len({str(said(answer)) for answer in alone}) == 20


def test_calls_of_different_answers_have_different_ids() -> None:
    with Engine(fake_loaded(bonus={'"': 500})) as engine:
        answers = [
            engine.chat([USER], tools=[CALCULATE], tool_choice="required", sampling=SamplingParams(temperature=1))
            for _ in range(3)
        ]
    ids = [call.id for answer in answers for call in answer.tool_calls]
    assert len(ids) == len(set(ids)) >= 3


def test_completion_holds_all_events_also_those_that_were_taken_before() -> None:
    with Engine(fake_loaded()) as engine:
        whole = engine.chat([USER], max_tokens=8)
        generation = engine.stream([USER], max_tokens=8)
        next(generation)
        next(generation)
        assert generation.completion().text == whole.text
        assert generation.completion().text == whole.text
        assert next(generation, None) is None


def test_completion_of_a_call_whose_start_was_taken_before_is_the_whole_call() -> None:
    with Engine(fake_loaded(bonus={'"': 500})) as engine:
        generation = engine.stream([USER], tools=[CALCULATE], tool_choice="required", parallel_tool_calls=False)
        start = next(generation)
        (call,) = generation.completion().tool_calls
    assert isinstance(start, ToolCallStart)
    assert (call.id, call.name) == (start.id, "calculate")


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
    with Engine(fake_that_writes("The answer is <tool")) as engine:
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
    assert free.usage.forward_passes == free.usage.completion_tokens + 1
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
    with Engine(fake_that_writes('{"s": "<tool_call>"}')) as engine:
        answer = engine.chat([USER], tools=[CALCULATE], response=schema, max_tokens=60)
    assert (answer.text, answer.tool_calls) == ('{"s": "<tool_call>"}', ())


def test_the_receipt_says_what_was_enforced_and_how() -> None:
    tool = Tool(
        "f", parameters={"type": "object", "properties": {"a": {"type": "string", "format": "odd", "title": "A"}}}
    )
    with Engine(fake_loaded(bonus={'"': 500})) as engine:
        answer = engine.chat([USER], tools=[tool], tool_choice="required", max_tokens=1)
    entries = {entry.path: entry.enforcement for entry in answer.receipt.entries}
    assert entries == {
        "tool_choice": Enforcement.GRAMMAR,
        "tools[0].parameters": Enforcement.NARROWED,
        "tools[0].parameters.properties.a.format": Enforcement.ANNOTATION,
        "tools[0].parameters.properties.a.title": Enforcement.ANNOTATION,
    }


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


# Callbacks, and who lets go.


def test_a_callback_that_raises_ends_its_own_generation_and_no_other(caplog: pytest.LogCaptureFixture) -> None:
    told: list[object] = []

    def broken(event: object) -> None:
        told.append(event)
        raise SystemExit(3) if len(told) > 1 else ValueError

    with Engine(fake_loaded(bonus=NEVER_ENDS)) as engine:
        engine.submit(LONG, deliver=broken)
        assert engine.chat([USER], max_tokens=5).usage.completion_tokens == 5
        assert engine.load_now().num_running == 0
    assert len(told) == 1
    assert caplog.text.count("a deliver callback raised") == 1


def test_callbacks_that_raise_when_the_engine_closes_leave_nobody_waiting() -> None:
    def broken_at_the_end(event: object) -> None:
        if isinstance(event, Exception):
            raise ZeroDivisionError

    engine = Engine(fake_loaded(bonus=NEVER_ENDS))
    engine.submit(LONG, deliver=broken_at_the_end)
    waiting = engine.submit(LONG)
    engine.close()
    with pytest.raises(EngineClosedError):
        waiting.completion()


def test_a_callback_may_close_its_engine() -> None:
    told: list[object] = []
    ended = threading.Event()

    def close(event: object) -> None:
        told.append(event)
        if isinstance(event, Exception):
            ended.set()
        else:
            engine.close()

    with Engine(fake_loaded(bonus=NEVER_ENDS)) as engine:
        engine.submit(LONG, deliver=close)
        assert ended.wait(timeout=30)
    assert isinstance(told[-1], EngineClosedError)


def test_events_come_on_the_decoding_thread_those_of_a_forced_start_too() -> None:
    threads: list[str] = []
    ended = threading.Event()

    def deliver(event: object) -> None:
        threads.append(threading.current_thread().name)
        if isinstance(event, Finished):
            ended.set()

    loaded = fake_loaded()
    with Engine(loaded) as engine:
        engine.submit(Request(messages=(USER,), response=Grammar.choice(["forced"])), deliver=deliver)
        assert ended.wait(timeout=30)
    assert set(threads) == {"toolmask-decoding"}
    assert fake_model(loaded).num_forward_passes == 0


def test_of_choices_that_find_no_place_nothing_is_ever_delivered() -> None:
    gate = Gate()
    told: list[object] = []
    request = Request(messages=(USER,), tools=(CALCULATE,), tool_choice=REQUIRED)
    config = EngineConfig(max_running=1, max_waiting=2)
    with Engine(with_hook(fake_loaded(), gate), config=config) as engine:
        running = engine.submit(LONG)
        assert gate.arrived.acquire(timeout=30)
        waiting = engine.submit(LONG)
        with pytest.raises(QueueFullError):
            engine.submit_choices(request, 2, lambda _, event: told.append(event))
        assert engine.load_now().num_waiting == 1
        running.cancel()
        waiting.cancel()
        gate.open()
        assert waiting.completion().stop_reason is StopReason.CANCELLED
        engine.chat([USER], max_tokens=1)
    assert told == []


def test_a_stream_that_nobody_holds_any_more_is_cancelled() -> None:
    gate = Gate()
    loaded = with_hook(fake_loaded(bonus=NEVER_ENDS), gate)
    with Engine(loaded) as engine:
        gate.let_through(1)
        for _ in engine.stream([USER], max_tokens=1000):
            break
        gc.collect()
        gate.open()
        engine.chat([USER], max_tokens=1)
    assert fake_model(loaded).num_forward_passes <= 3


def test_a_generation_with_a_callback_runs_on_unheld() -> None:
    ended = threading.Event()

    def deliver(event: object) -> None:
        if isinstance(event, Finished) and event.stop_reason is StopReason.LENGTH:
            ended.set()

    with Engine(fake_loaded(bonus=NEVER_ENDS)) as engine:
        engine.submit(Request(messages=(USER,), max_tokens=20), deliver=deliver)
        assert ended.wait(timeout=30)


def test_stop_tokens_beside_calls_stand_in_the_receipt_as_stop_strings_do() -> None:
    request = Request(messages=(USER,), tools=(CALCULATE,), tool_choice=REQUIRED, stop_token_ids=(5,), max_tokens=1)
    with Engine(fake_loaded()) as engine:
        entries = engine.submit(request).completion().receipt.entries
    assert ("stop_token_ids", Enforcement.NARROWED) in [(entry.path, entry.enforcement) for entry in entries]
