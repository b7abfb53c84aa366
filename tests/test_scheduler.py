"""Who runs next."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.config import EngineConfig
from engine.engine import Engine
from engine.errors import QueueFullError
from engine.events import StopReason
from engine.scheduler import Scheduler
from engine.sequence import Sequence
from engine.types import Request
from tests.fakes import USER, FakeCache, Gate, fake_loaded, with_hook


def make_sequence(num_prompt: int = 2) -> Sequence:
    return Sequence(
        request=Request(messages=(USER,)),
        prompt=list(range(num_prompt)),
        key=0,
        seed=0,
        max_tokens=100,
        eos_ids=frozenset(),
        matcher=None,
        fast_forward=True,
    )


def run_step(batch: list[Sequence]) -> None:
    """What a step does to what the scheduler looks at: one token of the cache a pass."""
    for sequence in batch:
        sequence.cache = sequence.cache or FakeCache()
        assert isinstance(sequence.cache, FakeCache)
        sequence.cache.tokens.append(0)


def add(scheduler: Scheduler, *num_prompts: int) -> list[Sequence]:
    sequences = [make_sequence(num_prompt) for num_prompt in num_prompts]
    for sequence in sequences:
        scheduler.add(sequence)
    return sequences


def test_an_idle_scheduler_has_nothing_to_run() -> None:
    scheduler = Scheduler(max_running=2, max_waiting=2)
    assert scheduler.is_idle
    assert scheduler.next_step() == []


def test_first_come_first_served() -> None:
    scheduler = Scheduler(max_running=1, max_waiting=9)
    sequences = add(scheduler, 1, 1, 1)
    for sequence in sequences:
        assert scheduler.next_step() == [sequence]
        scheduler.remove(sequence)
    assert scheduler.is_idle


def test_no_more_run_than_may_and_the_next_one_starts_when_one_ends() -> None:
    scheduler = Scheduler(max_running=2, max_waiting=9)
    first, second, third = add(scheduler, 1, 1, 1)
    for _ in range(6):
        run_step(scheduler.next_step())
    assert scheduler.running == [first, second]

    scheduler.remove(first)
    for _ in range(4):
        run_step(scheduler.next_step())

    assert scheduler.running == [second, third]
    assert third.cache is not None


def test_prompts_and_decoding_take_turns_so_that_neither_stalls() -> None:
    scheduler = Scheduler(max_running=3, max_waiting=9)
    (short,) = add(scheduler, 1)
    run_step(scheduler.next_step())
    (long,) = add(scheduler, 4)

    turns = []
    for _ in range(8):
        batch = scheduler.next_step()
        turns.append(batch)
        run_step(batch)

    assert turns == [[short], [long]] * 4
    assert not long.is_prefilling


def test_prompts_are_read_one_after_the_other() -> None:
    scheduler = Scheduler(max_running=3, max_waiting=9)
    first, second = add(scheduler, 2, 2)
    turns = []
    for _ in range(6):
        batch = scheduler.next_step()
        turns.append(batch)
        run_step(batch)
    # The second prompt takes turns with the first one's decoding.
    assert turns[:2] == [[first], [first]]
    assert turns.count([second]) == 2


def test_all_that_are_past_their_prompt_decode_together() -> None:
    scheduler = Scheduler(max_running=3, max_waiting=9)
    sequences = add(scheduler, 1, 1, 1)
    for _ in range(6):
        run_step(scheduler.next_step())
    assert scheduler.next_step() == sequences


def test_a_sequence_can_be_removed_while_it_waits_and_removing_it_again_does_nothing() -> None:
    scheduler = Scheduler(max_running=1, max_waiting=9)
    first, second, third = add(scheduler, 1, 1, 1)
    assert scheduler.next_step() == [first]
    scheduler.remove(second)
    scheduler.remove(second)
    scheduler.remove(first)
    assert scheduler.next_step() == [third]


@given(st.integers(1, 4), st.integers(1, 4))
def test_it_is_full_when_as_many_wait_as_may_besides_those_that_run(max_running: int, max_waiting: int) -> None:
    scheduler = Scheduler(max_running, max_waiting)
    for _ in range(max_running + max_waiting):
        assert not scheduler.is_full
        add(scheduler, 1)
    assert scheduler.is_full
    scheduler.next_step()  # moves some from waiting to running
    assert scheduler.is_full


@given(st.lists(st.integers(1, 5), min_size=1, max_size=8), st.integers(1, 3), st.integers(1, 6))
def test_every_sequence_gets_to_its_end(num_prompts: list[int], max_running: int, num_tokens: int) -> None:
    scheduler = Scheduler(max_running, max_waiting=9)
    sequences = add(scheduler, *num_prompts)
    steps = 0
    while batch := scheduler.next_step():
        assert 1 <= len(batch) <= max_running
        assert len({sequence.is_prefilling for sequence in batch}) == 1
        run_step(batch)
        steps += 1
        for sequence in batch:
            assert isinstance(sequence.cache, FakeCache)
            if sequence.cache.num_tokens == len(sequence.prompt) + num_tokens:
                scheduler.remove(sequence)
    assert scheduler.is_idle
    assert steps <= sum(num_prompts) + num_tokens * len(sequences)


def test_a_request_that_finds_the_queue_full_is_an_error_and_the_others_end_well() -> None:
    gate = Gate()
    config = EngineConfig(max_running=1, max_waiting=2)
    with Engine(with_hook(fake_loaded(), gate), config=config) as engine:
        request = Request(messages=(USER,), max_tokens=2)
        accepted = [engine.submit(request)]
        assert gate.arrived.acquire(timeout=30)
        accepted += [engine.submit(request), engine.submit(request)]
        with pytest.raises(QueueFullError, match="2 requests wait already"):
            engine.submit(request)
        gate.open()
        assert {each.completion().stop_reason for each in accepted} == {StopReason.LENGTH}
        assert engine.submit(request).completion().usage.completion_tokens == 2


def test_a_queue_of_one_takes_as_many_at_once_as_may_run_and_one_more() -> None:
    """The decoding thread has not moved them from waiting to running yet."""
    gate = Gate()
    config = EngineConfig(max_running=4, max_waiting=1)
    with Engine(with_hook(fake_loaded(), gate), config=config) as engine:
        request = Request(messages=(USER,), max_tokens=2)
        accepted = [engine.submit(request) for _ in range(5)]
        with pytest.raises(QueueFullError):
            engine.submit(request)
        gate.open()
        assert [each.completion().usage.completion_tokens for each in accepted] == [2] * 5
