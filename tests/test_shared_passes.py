"""Passes that several rows share, passes that run ahead, tokens that are drawn twice."""

from collections.abc import Sequence as Rows
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.drafts import PromptLookup
from engine.events import StopReason
from engine.grammars.matcher import Matcher
from engine.prefix_cache import PrefixCache
from engine.sequence import MIN_UNFORCED, Sequence
from engine.types import SamplingParams
from tests.fakes import EOS, FakeCache, fake_loaded, fake_model, fake_that_writes
from tests.stepping import NEVER_ENDS, make_sequence, run, stepper_of


def test_rows_that_decode_share_their_forward_passes() -> None:
    loaded = fake_loaded(bonus=NEVER_ENDS)
    stepper = stepper_of(loaded, look_ahead=False)
    sequences = [make_sequence(loaded) for _ in range(4)]
    run(stepper, sequences)

    assert stepper.work.num_passes == fake_model(loaded).num_forward_passes == sequences[0].max_tokens
    assert set(fake_model(loaded).num_rows) == {4}
    assert stepper.work.num_waits == sequences[0].max_tokens
    assert stepper.work.num_padding == 0


def test_rows_whose_caches_cannot_be_together_have_passes_of_their_own_but_one_wait() -> None:
    loaded = fake_loaded(bonus=NEVER_ENDS)
    fake_model(loaded).can_batch = False
    stepper = stepper_of(loaded)
    sequences = [make_sequence(loaded) for _ in range(3)]
    run(stepper, sequences)

    assert set(fake_model(loaded).num_rows) == {1}
    assert stepper.work.num_passes == 3 * sequences[0].max_tokens
    assert stepper.work.num_waits == sequences[0].max_tokens


def test_a_row_with_a_long_forced_run_does_not_make_the_others_as_wide() -> None:
    loaded = fake_loaded(bonus=NEVER_ENDS)
    stepper = stepper_of(loaded)
    free = [make_sequence(loaded) for _ in range(3)]
    bound = make_sequence(loaded, grammar='start: /[ab]/ "The answer is 42. You can call these tools" TEXT\nTEXT: /.*/')
    run(stepper, [*free, bound])
    assert stepper.work.num_padding <= len(bound.prompt)


# One pass ahead.


def test_free_rows_have_their_next_pass_launched_before_their_token_is_read() -> None:
    loaded = fake_loaded(bonus=NEVER_ENDS)
    stepper = stepper_of(loaded)
    sequences = [make_sequence(loaded), make_sequence(loaded)]
    run(stepper, sequences)

    num_tokens = sequences[0].max_tokens
    assert stepper.work.num_passes == num_tokens  # none too many: the budget's end was known
    assert stepper.work.num_ahead == num_tokens - 2  # the prompt's pass starts none; nor is there one after the last


def test_a_row_that_ends_by_a_token_of_its_own_has_run_one_pass_too_many() -> None:
    loaded = fake_loaded(bonus={EOS: 400})
    sequence = make_sequence(loaded)
    run(stepper_of(loaded), [sequence])
    assert sequence.stop_reason is StopReason.EOS
    assert sequence.num_forward_passes == len(sequence.output) + 2


def test_an_answer_that_ends_at_once_has_one_pass_whether_its_prompt_was_known_or_not() -> None:
    loaded = fake_loaded(bonus={EOS: 10**6})
    stepper = stepper_of(loaded, max_prefix_bytes=10**6)
    sequences = [make_sequence(loaded), make_sequence(loaded)]
    for sequence in sequences:
        run(stepper, [sequence])
        assert sequence.num_forward_passes == 1
    assert sequences[1].num_reused == len(sequences[1].prompt) - 1


# Rows inside a grammar.

LONG_VALUE = "start: /(?s:.)*/"
SHORT_VALUES = f"""start: {' ", " '.join(["/[a-z]{6}/"] * 7)}"""
TWO_VALUES = 'start: /[xz]{12}/ " and " /[xz]{12}/'


def test_a_row_in_a_long_value_looks_ahead_where_for_a_while_nothing_was_forced() -> None:
    loaded = fake_loaded(bonus=NEVER_ENDS)
    stepper = stepper_of(loaded)
    sequences = [make_sequence(loaded, grammar=LONG_VALUE), make_sequence(loaded)]
    run(stepper, sequences)

    num_tokens = sequences[0].max_tokens
    assert [len(sequence.output) for sequence in sequences] == [num_tokens, num_tokens]
    assert stepper.work.num_passes == num_tokens  # none in vain, and all shared
    assert stepper.work.num_ahead == num_tokens - MIN_UNFORCED - 1


def test_short_values_cost_a_pass_for_each_token_that_is_not_forced_and_no_more() -> None:
    loaded = fake_loaded(bonus=NEVER_ENDS)
    stepper = stepper_of(loaded)
    sequence = make_sequence(loaded, grammar=SHORT_VALUES)
    run(stepper, [sequence])
    assert sequence.num_forced > 0
    assert stepper.work.num_passes == len(sequence.output) - sequence.num_forced
    assert stepper.work.num_ahead == 0


def test_the_end_of_a_long_value_costs_one_pass_in_vain_whatever_comes_behind_it() -> None:
    loaded = fake_loaded(bonus=NEVER_ENDS)
    stepper = stepper_of(loaded)
    sequence = make_sequence(loaded, grammar=TWO_VALUES)
    run(stepper, [sequence])
    assert sequence.stop_reason is StopReason.GRAMMAR_END
    assert stepper.work.num_passes == len(sequence.output) - sequence.num_forced + 2
    assert_remembers_what_it_wrote(sequence)


def test_a_row_that_may_draft_drafts_and_does_not_look_ahead() -> None:
    loaded = fake_that_writes("abcdefgh, abcdefgh, abcdefgh, abcdefgh")
    stepper = stepper_of(loaded, drafts=PromptLookup())
    sequence = make_sequence(loaded, grammar=LONG_VALUE, text="?")
    run(stepper, [sequence])
    assert stepper.work.num_ahead > 0  # in what stood nowhere before
    assert stepper.work.num_accepted > 10
    assert_remembers_what_it_wrote(sequence)


@dataclass
class Refusing:
    """A guard that refuses some of the tokens that are drawn, as a veto or a budget may."""

    refused: set[int]  # remainders of eight
    path: None = None

    def admits(self, matcher: Matcher, token: int, room: int) -> bool:
        assert matcher.validate([token]) == 1
        return (token + room) % 8 not in self.refused

    def follow(self, matcher: Matcher, tokens: Rows[int], room: int) -> None:
        pass


@settings(deadline=None, max_examples=30)
@given(
    refused=st.sets(st.integers(0, 7), max_size=3),
    others=st.lists(st.sampled_from([None, LONG_VALUE, TWO_VALUES]), max_size=2),
    preempted_at=st.none() | st.integers(0, 30),
    released_at=st.integers(0, 40),
)
def test_what_ran_ahead_and_was_refused_is_forgotten(
    refused: set[int], others: list[str | None], preempted_at: int | None, released_at: int
) -> None:
    loaded = fake_loaded(bonus=NEVER_ENDS)
    written = []
    for look_ahead in (True, False):
        stepper = stepper_of(loaded, look_ahead=look_ahead, max_prefix_bytes=10**6)
        rows = [make_sequence(loaded, grammar=grammar) for grammar in (LONG_VALUE, *others)]
        rows[0].guard = Refusing(refused)  # type: ignore[assignment]
        for number in range(released_at):
            if number == preempted_at:
                rows[0].preempt()
            running = [row for row in rows if not row.is_done]
            stepper.step(running, max_chunk=512)
            for row in running:
                assert_remembers_what_it_wrote(row)
        for row in rows:
            stepper.release(row)
        assert isinstance(stepper.prefixes, PrefixCache)
        for block in stepper.prefixes.blocks():
            assert block.part is not None
            assert block.part.content == list(block.tokens)
        written.append([row.output for row in rows])
    assert written[0] == written[1]


def assert_remembers_what_it_wrote(row: Sequence) -> None:
    """But a token that ended it, which may have run."""
    assert isinstance(row.cache, FakeCache)
    seen, text = row.cache.tokens, [*row.prompt, *row.output]
    assert row.tokens_seen == seen[: len(text)] == text[: len(seen)]
    assert row.is_done or [*seen, *row.pending] == text


@pytest.mark.parametrize(
    "options",
    [
        {"grammar": SHORT_VALUES},
        {"sampling": SamplingParams(top_logprobs=0)},
        {"sampling": SamplingParams(repetition_penalty=1.1)},
        {"sampling": SamplingParams(presence_penalty=0.1)},
        {"sampling": SamplingParams(frequency_penalty=0.1)},
    ],
    ids=lambda options: next(iter(options)),
)
def test_a_row_whose_next_pass_depends_on_its_token_does_not_look_ahead_nor_do_others_beside_it(
    options: dict[str, object],
) -> None:
    loaded = fake_loaded(bonus=NEVER_ENDS)
    stepper = stepper_of(loaded)
    sequences = [make_sequence(loaded, **options), make_sequence(loaded)]
    sequences[1].max_tokens = 15  # it ends first
    run(stepper, sequences)
    assert stepper.work.num_ahead == 0
