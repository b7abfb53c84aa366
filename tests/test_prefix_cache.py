"""What earlier prompts leave to later ones."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.cache import Part
from engine.capacity import STEP
from engine.config import EngineConfig
from engine.engine import Engine
from engine.events import Completion
from engine.model import load
from engine.prefix_cache import BLOCK, Block, PrefixCache, SnapshotCache
from engine.types import Grammar, Message, Request, Role, SamplingParams
from tests.deciders import AS_ASKED
from tests.fakes import CALCULATE, EOS, REQUIRED, SEARCH, USER, FakeCache, fake_loaded, fake_model
from tests.stepping import make_sequence, run, stepper_of
from tests.test_parity import LONG, assert_same_up_to_rounding, except_passes, fake, tokens, weather_request
from tests.tiny_models import random_weights, write_folder

PROMPTS = st.lists(st.lists(st.integers(0, 1), max_size=5 * BLOCK), min_size=1, max_size=8)


def keep(prefixes: PrefixCache | SnapshotCache, prompt: Sequence[int]) -> None:
    prefixes.keep(prompt, FakeCache(list(prompt)))


def restored(prefixes: PrefixCache | SnapshotCache, prompt: Sequence[int]) -> list[int]:
    cache = FakeCache()
    num_known = prefixes.restore(prompt, cache)
    assert num_known == cache.num_tokens
    return cache.tokens


def num_shared(one: Sequence[int], other: Sequence[int]) -> int:
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


@given(PROMPTS, st.lists(st.integers(0, 1), max_size=5 * BLOCK))
def test_the_longest_prefix_that_any_earlier_prompt_shares_is_known(prompts: list[list[int]], new: list[int]) -> None:
    prefixes = PrefixCache(10**6, bytes_per_token=1)
    for prompt in prompts:
        keep(prefixes, prompt)
    longest = max(num_shared(prompt, new) for prompt in prompts)
    assert prefixes.find(new) == longest
    assert restored(prefixes, new) == new[:longest]


@given(PROMPTS, st.integers(1, 4 * BLOCK))
def test_it_never_keeps_more_than_its_bytes_and_what_it_says_stays_true(prompts: list[list[int]], limit: int) -> None:
    prefixes = PrefixCache(3 * limit, bytes_per_token=3)
    for prompt in prompts:
        keep(prefixes, prompt)
        assert prefixes.num_tokens == sum(len(block.tokens) for block in prefixes.blocks()) <= limit
        assert restored(prefixes, prompt) == prompt[: prefixes.find(prompt)]


def test_what_prompts_share_is_kept_once() -> None:
    prefixes = PrefixCache(10**6, bytes_per_token=1)
    tools = [1] * (3 * BLOCK)
    for question in range(10):
        keep(prefixes, [*tools, question])
    assert prefixes.num_tokens == len(tools) + 10


def test_only_what_is_new_is_read_from_the_device() -> None:
    prefixes = PrefixCache(10**6, bytes_per_token=1)
    prompt = list(range(2 * BLOCK + 5))
    assert prefixes.keep(prompt, FakeCache(prompt))
    assert not prefixes.keep(prompt, FakeCache(prompt))
    assert not prefixes.keep(prompt[:-3], FakeCache(prompt))  # the beginning of what is known
    assert prefixes.keep([*prompt[:-3], 1], FakeCache([*prompt[:-3], 1]))


def test_a_conversation_that_goes_on_replaces_its_last_block() -> None:
    prefixes = PrefixCache(10**6, bytes_per_token=1)
    conversation = list(range(10 * BLOCK))
    for length in range(1, len(conversation), 7):
        keep(prefixes, conversation[:length])
        assert prefixes.num_tokens == length


def test_what_was_not_used_for_longest_goes_first() -> None:
    prefixes = PrefixCache(3 * BLOCK, bytes_per_token=1)
    first, second, third, fourth = ([number] * BLOCK for number in range(4))
    for prompt in (first, second, third):
        keep(prefixes, prompt)
    restored(prefixes, first)
    keep(prefixes, fourth)
    assert [prefixes.find(prompt) for prompt in (first, second, third, fourth)] == [BLOCK, 0, BLOCK, BLOCK]


@given(st.lists(st.tuples(st.booleans(), st.lists(st.integers(0, 1), max_size=4)), max_size=20))
def test_every_block_was_used_no_later_than_its_parent(steps: list[tuple[bool, list[int]]]) -> None:
    """So the one that goes first never has children."""
    prefixes = PrefixCache(6 * BLOCK, bytes_per_token=1)
    for is_kept, turns in steps:
        prompt = [token for token in turns for _ in range(BLOCK)]
        keep(prefixes, prompt) if is_kept else restored(prefixes, prompt)
        order = [prefixes.root, *prefixes.blocks()]
        assert all(order.index(block.parent) < number for number, block in enumerate(order) if block.parent)


def test_what_goes_is_found_without_looking_at_the_rest() -> None:
    """Counted, not timed: each block is asked for its children at most a few times, however many there are."""
    prefixes = PrefixCache(500 * BLOCK, bytes_per_token=1)
    for start in range(500):
        keep(prefixes, [start] * BLOCK)
    looked_at = 0

    class Children(dict[tuple[int, ...], Block]):
        def __bool__(self) -> bool:
            nonlocal looked_at
            looked_at += 1
            return len(self) > 0

    for block in prefixes.blocks():
        block.children = Children(block.children)
    keep(prefixes, [5000 + number // BLOCK for number in range(64 * BLOCK)])
    assert prefixes.num_tokens == 500 * BLOCK
    assert looked_at <= 2 * 64


def test_states_that_cannot_be_cut_serve_prompts_that_begin_with_all_of_them() -> None:
    snapshots = SnapshotCache(max_bytes=30)
    for length in (4, 8):
        keep(snapshots, list(range(length)))
    assert [snapshots.find(list(range(length))) for length in (3, 4, 7, 8, 20)] == [0, 4, 4, 8, 8]
    assert restored(snapshots, list(range(7))) == list(range(4))
    keep(snapshots, list(range(20)))  # the state of 8 tokens was not used since
    assert (snapshots.num_bytes, snapshots.find(list(range(9)))) == (24, 4)


def test_of_a_state_that_does_not_fit_one_token_is_looked_at() -> None:
    looked_at = 0

    class Prompt(list[int]):
        def __getitem__(self, index: Any) -> Any:
            nonlocal looked_at
            found = super().__getitem__(index)
            looked_at += len(found)
            return found

    snapshots = SnapshotCache(max_bytes=10**6)
    for number in range(100):
        keep(snapshots, [*range(50), 1000 + number])
    keep(snapshots, list(range(40)))
    assert snapshots.find(Prompt(range(200))) == 40
    assert looked_at <= 101 + 40


# In the engine.


def ask(engine: Engine, question: str, **options: object) -> Completion:
    request = Request(messages=(Message(Role.USER, question),), tools=(CALCULATE, SEARCH), max_tokens=8, **options)
    return engine.submit(request).completion()


@pytest.mark.parametrize("hermes", [False, True], ids=["plain", "hermes"])
def test_tools_are_computed_once_for_all_conversations_and_the_usage_says_so(hermes: bool) -> None:
    """F29: there, cached_tokens was always 0."""
    loaded = fake_loaded(hermes=hermes)
    with Engine(loaded, config=AS_ASKED) as engine:
        first, other = ask(engine, "one question"), ask(engine, "another")
        again = ask(engine, "one question")
        positions = engine.load_now().work.num_positions

    assert first.usage.cached_tokens == 0
    assert 0.7 * other.usage.prompt_tokens < other.usage.cached_tokens < other.usage.prompt_tokens
    assert again.usage.cached_tokens == again.usage.prompt_tokens - 1  # its last token's logits are wanted
    new = sum(each.usage.prompt_tokens - each.usage.cached_tokens for each in (first, other, again))
    assert positions <= new + 3 * 8


def test_the_next_turn_of_a_conversation_finds_its_own_answer_known() -> None:
    loaded = fake_loaded(bonus={EOS: -(10**6)})
    with Engine(loaded) as engine:
        prompt = tuple(engine.render_prompt(Request(messages=(USER,))))
        answer = engine.submit(
            Request(prompt=prompt, sampling=SamplingParams(top_logprobs=0), max_tokens=30)
        ).completion()
        next_turn = engine.submit(Request(prompt=(*prompt, *tokens(answer), 7, 8), max_tokens=1)).completion()
    assert next_turn.usage.cached_tokens == len(prompt) + 29  # the last one never went through the model


@dataclass(eq=False)
class Unreadable(FakeCache):
    """What it remembers cannot be copied."""

    def read(self, ranges: Sequence[tuple[int, int]]) -> list[Part]:
        raise RuntimeError(f"no memory for {ranges}")


def test_a_prompt_that_cannot_be_kept_ends_nobody_s_answer(caplog: pytest.LogCaptureFixture) -> None:
    loaded = fake_loaded()
    sequence, beside, plain = (make_sequence(loaded) for _ in range(3))
    run(stepper_of(loaded), [plain])
    sequence.cache = Unreadable()
    stepper = stepper_of(loaded, max_prefix_bytes=1000)
    run(stepper, [sequence, beside])
    for each in (sequence, beside):
        stepper.release(each)
    assert sequence.output == beside.output == plain.output
    assert "could not be kept" in caplog.text
    assert stepper.prefixes is not None
    assert stepper.prefixes.num_bytes > 0  # of the other one


@pytest.mark.parametrize("can_batch", [True, False], ids=["slots", "snapshots"])
@pytest.mark.parametrize("chunk", [7, 512])
def test_answers_are_the_same_with_prompts_known_and_unknown(can_batch: bool, chunk: int) -> None:
    loaded = fake(hermes=False)
    fake_model(loaded).can_batch = can_batch
    requests = [
        Request(messages=(Message(Role.USER, text),), sampling=SamplingParams(70, seed=seed), max_tokens=60, **turn)
        for seed, text in enumerate(("abc", "abcd", "abc abc abc abc abc abc"))
        for turn in ({}, {"tools": (SEARCH,), "tool_choice": REQUIRED}, {"response": Grammar.regex("[ab]{9}")})
    ]
    answers = []
    for kept in (0, None):
        with Engine(loaded, config=EngineConfig(prompt_cache_memory=kept, prefill_chunk=chunk)) as engine:
            twice = [engine.submit(request).completion() for request in requests * 2]
            some = any(answer.usage.cached_tokens for answer in twice)
            assert some == (kept is None and (can_batch or chunk == 7))  # states are kept at the ends of chunks
            answers.append([except_passes(answer) for answer in twice])
    assert answers[0] == answers[1]


def test_choices_of_one_request_share_one_reading_of_the_prompt() -> None:
    loaded = fake_loaded(bonus={EOS: -(10**6)})
    with Engine(loaded) as engine:
        request = Request(
            messages=(Message(Role.USER, "abc " * 40),), sampling=SamplingParams(100, seed=1), max_tokens=20
        )
        choices = [choice.completion() for choice in engine.submit_choices(request, 5)]
        work = engine.load_now().work

    num_prompt = choices[0].usage.prompt_tokens
    assert [choice.usage.cached_tokens for choice in choices] == [0, *[num_prompt - 1] * 4]
    assert work.num_positions - work.num_padding <= num_prompt + 4 + 5 * 20
    assert work.num_passes <= 1 + 2 * 20
    assert len({choice.text for choice in choices}) == 5


def test_a_sequence_that_gave_way_finds_its_prompt_known() -> None:
    loaded = fake_loaded(bonus={EOS: -(10**6)})
    requests = [
        Request(messages=(Message(Role.USER, "abc " * 60),), sampling=SamplingParams(100, seed=seed), max_tokens=60)
        for seed in range(2)
    ]
    with Engine(loaded, config=EngineConfig(kv_memory=2 * STEP)) as engine:
        answers = [stream.completion() for stream in [engine.submit(request) for request in requests]]
        load = engine.load_now()
    assert load.num_preemptions == 1
    assert answers[1].usage.cached_tokens == answers[1].usage.prompt_tokens - 1
    assert load.work.num_positions < answers[0].usage.prompt_tokens + 3 * 60 + 10


def test_small_real_weights_say_the_same_with_their_prompt_known(tmp_path: Path) -> None:
    loaded = load(write_folder(tmp_path / "model", LONG, random_weights(LONG)), cache_dir=tmp_path)
    with Engine(loaded) as engine:
        request = weather_request("Is it warm in Rome?")
        prompt = engine.render_prompt(request)
        first, again = (engine.submit(request).completion() for _ in range(2))
    assert again.usage.cached_tokens == len(prompt) - 1
    assert_same_up_to_rounding(loaded, prompt, tokens(first), tokens(again))


@pytest.mark.parametrize("is_reused", [False, True], ids=["in its turn", "at once"])
@pytest.mark.parametrize("end", ["", " TEXT"], ids=["forced to its end", "going on"])
def test_a_row_that_gave_way_owes_the_logprobs_of_what_another_row_has_computed(end: str, is_reused: bool) -> None:
    loaded = fake_loaded()
    stepper = stepper_of(loaded, max_prefix_bytes=10**6)
    asked = {
        "grammar": f'start: /[ab]/ "The answer is 42."{end}\nTEXT: /[a-z]{{9}}/',
        "sampling": SamplingParams(top_logprobs=0),
    }
    twin, sequence = make_sequence(loaded, **asked), make_sequence(loaded, **asked)
    run(stepper, [twin])
    stepper.release(twin)
    stepper.step([sequence], max_chunk=512)
    num_owed = sequence.num_unscored

    sequence.preempt()
    if is_reused:
        stepper.reuse([sequence])
    run(stepper, [sequence])

    assert num_owed > 2
    assert sequence.output == twin.output
    assert sequence.logprobs == twin.logprobs
    assert len(sequence.logprobs) == len(sequence.output)
