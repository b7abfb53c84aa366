"""The engine: many requests at once, cancelled and closed, from any thread."""

import gc
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from engine.config import EngineConfig
from engine.engine import Engine
from engine.errors import EngineClosedError, GenerationError, QueueFullError
from engine.events import Completion, Enforcement, Finished, StopReason, TextDelta, ToolCallStart
from engine.grammars.turn_parser import TurnParser
from engine.types import Grammar, Message, Request, Role, SamplingParams
from tests.fakes import (
    CALCULATE,
    EOS,
    REQUIRED,
    USER,
    Gate,
    fake_loaded,
    fake_model,
    with_hook,
)

LONG = Request(messages=(USER,))  # up to the context's end
NEVER_ENDS = {EOS: -(10**6)}


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
    assert answer.usage.completion_tokens == 4  # the fifth pass was one ahead
    assert answer.usage.forward_passes == fake_model(loaded).num_forward_passes == 5


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
        monkeypatch.setattr("engine.scheduler.Scheduler.next_batch", broken)
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
        usage = replace(answer.usage, forward_passes=0, cached_tokens=0)  # these depend on the others
        return answer.text, calls, answer.stop_reason, usage, answer.seed

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
    assert fake_model(loaded).num_forward_passes <= 4  # one of them ahead


def test_a_generation_with_a_callback_runs_on_unheld() -> None:
    ended = threading.Event()

    def deliver(event: object) -> None:
        if isinstance(event, Finished) and event.stop_reason is StopReason.LENGTH:
            ended.set()

    with Engine(fake_loaded(bonus=NEVER_ENDS)) as engine:
        engine.submit(Request(messages=(USER,), max_tokens=20), deliver=deliver)
        assert ended.wait(timeout=30)


def test_stop_tokens_beside_calls_stand_in_the_receipt_as_stop_strings_do() -> None:
    request = Request(messages=(USER,), tools=(CALCULATE,), tool_choice=REQUIRED, stop_token_ids=(5,), max_tokens=60)
    with Engine(fake_loaded()) as engine:
        entries = engine.submit(request).completion().receipt.entries
    assert ("stop_token_ids", Enforcement.NARROWED) in [(entry.path, entry.enforcement) for entry in entries]
