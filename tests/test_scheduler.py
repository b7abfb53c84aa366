"""Who runs next."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.capacity import FIRST_CLASS, STEP, room_for
from engine.config import EngineConfig
from engine.engine import Engine
from engine.errors import QueueFullError
from engine.events import StopReason
from engine.scheduler import Batch, Scheduler
from engine.sequence import Sequence
from engine.types import Request
from tests.fakes import USER, FakeCache, Gate, fake_loaded, with_hook

CHUNK = 100


def make_sequence(num_chunks: int = 2) -> Sequence:
    """A prompt of so many chunks."""
    return Sequence(
        request=Request(messages=(USER,)),
        prompt=list(range(num_chunks * CHUNK)),
        key=0,
        seed=0,
        max_tokens=100,
        eos_ids=frozenset(),
        matcher=None,
        fast_forward=True,
    )


def run_step(batch: Batch) -> list[Sequence]:
    """What a step does to what the scheduler looks at."""
    for sequence in batch.sequences:
        sequence.cache = sequence.cache or FakeCache()
        assert isinstance(sequence.cache, FakeCache)
        num_tokens = batch.max_chunk if sequence.is_prefilling else len(sequence.pending)
        sequence.cache.tokens += sequence.pending[:num_tokens]
        sequence.pending = sequence.pending[num_tokens:]
        if not sequence.pending:
            sequence.take(0)
    return batch.sequences


def scheduler_of(max_running: int = 9, max_waiting: int = 9, **options: int) -> Scheduler:
    return Scheduler(max_running, max_waiting, prefill_chunk=CHUNK, shared_prefill_chunk=CHUNK, **options)


def add(scheduler: Scheduler, *num_chunks: int) -> list[Sequence]:
    sequences = [make_sequence(each) for each in num_chunks]
    for sequence in sequences:
        scheduler.add(sequence)
    return sequences


def test_an_idle_scheduler_has_nothing_to_run() -> None:
    scheduler = scheduler_of(2, 2)
    assert scheduler.is_idle
    assert scheduler.next_batch().sequences == []


def test_first_come_first_served() -> None:
    scheduler = scheduler_of(1, 9)
    sequences = add(scheduler, 1, 1, 1)
    for sequence in sequences:
        assert scheduler.next_batch().sequences == [sequence]
        scheduler.remove(sequence)
    assert scheduler.is_idle


def test_no_more_run_than_may_and_the_next_one_starts_when_one_ends() -> None:
    scheduler = scheduler_of(2, 9)
    first, second, third = add(scheduler, 1, 1, 1)
    for _ in range(6):
        run_step(scheduler.next_batch())
    assert scheduler.running == [first, second]

    scheduler.remove(first)
    for _ in range(4):
        run_step(scheduler.next_batch())

    assert scheduler.running == [second, third]
    assert third.cache is not None


def test_prompts_and_decoding_take_turns_so_that_neither_stalls() -> None:
    scheduler = scheduler_of(3, 9)
    (short,) = add(scheduler, 1)
    run_step(scheduler.next_batch())
    (long,) = add(scheduler, 4)

    turns = []
    for _ in range(8):
        turns.append(run_step(scheduler.next_batch()))

    assert turns == [[short], [long]] * 4
    assert not long.is_prefilling


def test_prompts_are_read_one_after_the_other() -> None:
    scheduler = scheduler_of(3, 9)
    first, second = add(scheduler, 2, 2)
    turns = []
    for _ in range(6):
        turns.append(run_step(scheduler.next_batch()))
    # The second prompt takes turns with the first one's decoding.
    assert turns[:2] == [[first], [first]]
    assert turns.count([second]) == 2


def test_all_that_are_past_their_prompt_decode_together() -> None:
    scheduler = scheduler_of(3, 9)
    sequences = add(scheduler, 1, 1, 1)
    for _ in range(6):
        run_step(scheduler.next_batch())
    assert scheduler.next_batch().sequences == sequences


def test_a_sequence_can_be_removed_while_it_waits_and_removing_it_again_does_nothing() -> None:
    scheduler = scheduler_of(1, 9)
    first, second, third = add(scheduler, 1, 1, 1)
    assert scheduler.next_batch().sequences == [first]
    scheduler.remove(second)
    scheduler.remove(second)
    scheduler.remove(first)
    assert scheduler.next_batch().sequences == [third]


@given(st.integers(1, 4), st.integers(1, 4))
def test_it_is_full_when_as_many_wait_as_may_besides_those_that_run(max_running: int, max_waiting: int) -> None:
    scheduler = scheduler_of(max_running, max_waiting)
    for _ in range(max_running + max_waiting):
        assert not scheduler.is_full
        add(scheduler, 1)
    assert scheduler.is_full
    scheduler.next_batch()  # moves some from waiting to running
    assert scheduler.is_full


@given(
    st.lists(st.integers(1, 5), min_size=1, max_size=8),
    st.integers(1, 3),
    st.integers(1, 6),
    st.sampled_from([None, 512, 1024]),
)
def test_every_sequence_gets_to_its_end(
    num_chunks: list[int], max_running: int, num_tokens: int, max_room: int | None
) -> None:
    scheduler = scheduler_of(max_running, max_room=max_room)
    sequences = add(scheduler, *num_chunks)
    steps = 0
    while (batch := scheduler.next_batch()).sequences:
        assert 1 <= len(batch.sequences) <= max_running
        assert len({sequence.is_prefilling for sequence in batch.sequences}) == 1
        if max_room is not None and len(scheduler.running) > 1:
            assert room_for(sequence.num_to_keep for sequence in scheduler.running) <= max_room
        run_step(batch)
        steps += 1
        for sequence in batch.sequences:
            if len(sequence.output) == num_tokens:
                scheduler.remove(sequence)
    assert scheduler.is_idle
    assert scheduler.num_preemptions == 0 or max_room is not None
    most_turns = sum(num_chunks) + (num_tokens + 1) * len(sequences)
    assert steps <= most_turns + scheduler.num_preemptions * (max(num_chunks) + 2)


def test_a_short_prompt_does_not_wait_for_a_long_one_that_came_first() -> None:
    scheduler = scheduler_of()
    long, short = add(scheduler, 20, 1)
    assert run_step(scheduler.next_batch()) == [short]
    assert [run_step(scheduler.next_batch()) for _ in range(4)] == [[short], [long]] * 2


def test_a_long_prompt_gets_its_turn_however_many_short_ones_come() -> None:
    scheduler = scheduler_of(max_running=100, max_waiting=100)
    (long,) = add(scheduler, 5)
    for _ in range(50):
        add(scheduler, 1)
        run_step(scheduler.next_batch())
    assert long.output


def test_while_others_decode_a_prompt_is_read_in_shorter_chunks() -> None:
    scheduler = Scheduler(max_running=9, max_waiting=9, prefill_chunk=CHUNK, shared_prefill_chunk=CHUNK // 4)
    add(scheduler, 1)
    assert scheduler.next_batch().max_chunk == CHUNK
    run_step(Batch(scheduler.running, CHUNK))
    add(scheduler, 1)
    assert {scheduler.next_batch().max_chunk for _ in range(4)} == {CHUNK // 4}


def test_a_sequence_that_decodes_alone_keeps_nobody_waiting_and_reads_in_long_chunks() -> None:
    scheduler = Scheduler(max_running=9, max_waiting=9, prefill_chunk=CHUNK, shared_prefill_chunk=CHUNK // 4)
    (sequence,) = add(scheduler, 1)
    run_step(scheduler.next_batch())
    assert sequence.output
    assert scheduler.next_batch().max_chunk == CHUNK


# Room for keys and values.


def test_a_sequence_waits_until_there_is_room_for_its_prompt() -> None:
    scheduler = scheduler_of(max_room=2 * STEP)
    first, second, third = add(scheduler, 1, 1, 1)
    run_step(scheduler.next_batch())
    assert scheduler.running == [first, second]

    scheduler.remove(first)
    run_step(scheduler.next_batch())
    assert scheduler.running == [second, third]


def test_where_rows_outgrow_the_room_the_last_one_gives_way_and_is_read_again_first() -> None:
    scheduler = scheduler_of(max_room=2 * STEP)
    first, second, waiting = add(scheduler, 2, 2, 1)
    while not scheduler.num_preemptions:
        run_step(scheduler.next_batch())
    assert scheduler.running == [first]
    assert list(scheduler.waiting) == [second, waiting]
    assert second.cache is None
    assert second.pending == [*second.prompt, *second.output]
    assert second.is_prefilling

    written = list(second.output)
    scheduler.remove(first)
    while second.pending != [0] or len(second.output) < len(written) + 3:
        run_step(scheduler.next_batch())
    assert second.output == written + [0] * 3


def test_room_is_a_rectangle_in_each_class() -> None:
    assert room_for([]) == 0
    assert room_for([1, STEP, STEP + 1]) == 3 * 2 * STEP
    assert room_for([1, FIRST_CLASS + 1]) == STEP + FIRST_CLASS + STEP


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
