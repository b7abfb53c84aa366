"""A drafting model: a smaller one whose guesses change what a row costs, and nothing else."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.capacity import STEP
from engine.config import EngineConfig
from engine.drafts import MAX_DRAFT, ModelDrafts
from engine.engine import Engine
from engine.errors import ConfigError
from engine.sequence import MAX_NARROW
from engine.types import Request
from tests.fakes import fake_loaded, fake_model, with_hook
from tests.stepping import make_sequence, run, stepper_of
from tests.test_drafts import FREE_TEXT, write
from tests.test_parity import (
    REQUESTS,
    except_passes,
    fake,
    submitted,
)


@pytest.mark.parametrize("hermes", [False, True], ids=["plain", "hermes"])
@settings(deadline=None, max_examples=10)
@given(requests=st.lists(REQUESTS, min_size=1, max_size=3), is_other=st.booleans())
def test_a_drafting_model_changes_no_answer(hermes: bool, requests: list[Request], is_other: bool) -> None:
    model = fake(hermes=hermes)
    drafter = fake_loaded(hermes=hermes, seed=1) if is_other else fake(hermes=hermes)
    answers = []
    for draft_model in (drafter, None):
        config = EngineConfig(drafts=draft_model is not None)
        with Engine(model, draft_model=draft_model, config=config) as engine:
            streams = [submitted(engine, request) for request in requests]
            answers.append([except_passes(stream.completion()) for stream in streams])
    assert answers[0] == answers[1]


def test_a_drafting_model_that_says_the_same_saves_passes_and_takes_its_guesses_back() -> None:
    model, drafter = fake_loaded(), fake_loaded()
    fake_model(drafter).num_weights = 5
    source = ModelDrafts(drafter, model)
    plain = write(model)
    sequence = make_sequence(model, grammar=FREE_TEXT)
    stepper = stepper_of(model, drafts=source)
    run(stepper, [sequence])
    (cache,) = fake_model(drafter).memories[0].caches
    known = [*sequence.prompt, *sequence.output]
    assert sequence.output == plain.output
    assert sequence.num_forward_passes < plain.num_forward_passes / 2  # it does not know what the grammar forbids
    assert len(cache.tokens) <= len(known) + MAX_DRAFT
    assert sum(fake_model(drafter).widths) < len(known) + 2 * stepper.work.num_drafted
    stepper.release(sequence)
    assert cache.is_released


def test_a_drafting_model_as_large_as_the_model_itself_is_soon_asked_no_more() -> None:
    model, drafter = fake_loaded(), fake_loaded()
    source = ModelDrafts(drafter, model)
    sequence = make_sequence(model, grammar=FREE_TEXT)
    run(stepper_of(model, drafts=source), [sequence])
    assert fake_model(drafter).num_forward_passes < 25


def test_for_a_row_alone_a_drafting_model_reads_all_at_once_chunk_by_chunk() -> None:
    model, drafter = fake_loaded(), fake_loaded()
    fake_model(drafter).num_weights = 5
    stepper = stepper_of(model, drafts=ModelDrafts(drafter, model))
    row = make_sequence(model, grammar=FREE_TEXT, text=LONG_TEXT)
    while row.is_prefilling:
        stepper.step([row], max_chunk=512, others_wait=False)

    stepper.step([row], max_chunk=32, others_wait=False)

    assert stepper.work.num_drafted > 0
    assert max(fake_model(drafter).widths) <= 32
    assert stepper.work.num_draft_positions == sum(fake_model(drafter).widths) > len(row.prompt)
    assert stepper.work.num_draft_passes == len(fake_model(drafter).widths)


LONG_TEXT = "".join(chr(97 + (at * at * 7 + at // 7) % 26) for at in range(200))


def test_a_drafting_model_reads_prompts_in_chunks_that_all_rows_of_a_step_share_and_guesses_thereafter() -> None:
    model, drafter = fake_loaded(), fake_loaded()
    fake_model(drafter).num_weights = 5
    stepper = stepper_of(model, drafts=ModelDrafts(drafter, model))
    rows = [make_sequence(model, grammar=FREE_TEXT, text=LONG_TEXT) for _ in range(2)]
    while any(row.is_prefilling for row in rows):
        stepper.step([row for row in rows if row.is_prefilling], max_chunk=512)
    seen, most = 0, 32 + 2 * (MAX_NARROW + MAX_DRAFT)

    while running := [row for row in rows if not row.is_done]:
        drafted = stepper.work.num_drafted
        stepper.step(running, max_chunk=32)
        is_read = all(row.draft_memory and len(row.draft_memory.tokens) >= len(row.prompt) for row in rows[:1])
        assert is_read or stepper.work.num_drafted == drafted
        assert stepper.work.num_draft_positions - seen <= most
        seen = stepper.work.num_draft_positions

    assert max(fake_model(drafter).widths) <= 32
    assert stepper.work.num_accepted > 0
    assert stepper.work.num_draft_positions == sum(fake_model(drafter).widths)
    assert stepper.work.num_draft_passes == len(fake_model(drafter).widths)
    alone = make_sequence(model, grammar=FREE_TEXT, text=LONG_TEXT)
    run(stepper_of(model), [alone])
    assert [row.output for row in rows] == [alone.output] * 2


def test_a_row_that_gives_way_gives_back_what_a_drafting_model_has_seen_of_it() -> None:
    model, drafter = fake_loaded(), fake_loaded()
    fake_model(drafter).num_weights = 5
    stepper = stepper_of(model, drafts=ModelDrafts(drafter, model))
    sequence = make_sequence(model, grammar=FREE_TEXT)
    for _ in range(3):
        stepper.step([sequence], max_chunk=512)
    (memory,) = fake_model(drafter).memories
    assert len(memory.caches) == 1

    sequence.preempt()
    assert memory.caches == []

    run(stepper, [sequence])
    assert sequence.output == write(model).output
    assert memory.num_made == 2


def test_what_a_drafting_model_keeps_counts_as_memory_of_the_rows() -> None:
    for drafter, num_tokens in ((None, 2 * STEP), (fake_loaded(), STEP)):  # a token of either takes a byte
        with Engine(fake_loaded(), draft_model=drafter, config=EngineConfig(kv_memory=2 * STEP)) as engine:
            assert engine.context_length == num_tokens


def test_a_drafting_model_reads_and_guesses_no_more_than_its_own_context_has() -> None:
    model, drafter = fake_loaded(), fake_loaded()
    fake_model(drafter).num_weights = 5
    plain = write(model)
    fake_model(drafter).context_length = len(plain.prompt) + 20  # of 40 that are written
    sequence, most = make_sequence(model, grammar=FREE_TEXT), 0
    source = ModelDrafts(drafter, model)
    stepper = stepper_of(model, drafts=source)
    while not sequence.is_done:
        stepper.step([sequence], max_chunk=512)
        most = max([most, *(len(cache.tokens) for cache in fake_model(drafter).memories[0].caches)])
    assert sequence.output == plain.output
    assert stepper.work.num_accepted > 0
    assert most == fake_model(drafter).context_length
    assert not source.may_guess(sequence)


def test_a_drafting_model_does_not_read_a_prompt_that_is_longer_than_its_context() -> None:
    model, drafter = fake_loaded(), fake_loaded()
    fake_model(drafter).context_length = 1
    sequence = make_sequence(model, grammar=FREE_TEXT)
    run(stepper_of(model, drafts=ModelDrafts(drafter, model)), [sequence])
    assert fake_model(drafter).num_forward_passes == 0


def test_a_drafting_model_that_fails_costs_its_guesses_and_no_answer(caplog: pytest.LogCaptureFixture) -> None:
    failures: list[int] = []

    def run_out(num_passes: int) -> None:
        if num_passes == 12:
            failures.append(num_passes)
            raise RuntimeError("no memory for guesses")

    model, drafter = fake_loaded(), with_hook(fake_loaded(), run_out)
    fake_model(drafter).num_weights = 5
    stepper = stepper_of(model, drafts=ModelDrafts(drafter, model))
    rows = [make_sequence(model, grammar=FREE_TEXT) for _ in range(2)]
    run(stepper, rows)

    assert [row.output for row in rows] == [write(model).output] * 2
    assert len(failures) == 2  # each row asks no more
    assert fake_model(drafter).memories[0].caches == []
    assert caplog.text.count("a row goes on without its guesses") == 2


def test_a_drafting_model_with_other_tokens_or_a_cache_that_keeps_its_guesses_is_refused() -> None:
    with pytest.raises(ConfigError, match="vocabulary"):
        Engine(fake_loaded(), draft_model=fake_loaded(hermes=True))
    rotating = fake_loaded()
    fake_model(rotating).can_batch = False
    with pytest.raises(ConfigError, match="take guesses back"):
        Engine(fake_loaded(), draft_model=rotating)
    with pytest.raises(ConfigError, match="drafts=False"):
        Engine(fake_loaded(), draft_model=fake_loaded(), config=EngineConfig(drafts=False))
    with pytest.raises(ConfigError, match="draft_model is 5"):
        Engine(fake_loaded(), draft_model=5)  # type: ignore[arg-type]
