"""Passes that several rows share, passes that run ahead, tokens that are drawn twice."""

import pytest

from engine.events import StopReason
from engine.types import SamplingParams
from tests.fakes import EOS, fake_loaded, fake_model
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


@pytest.mark.parametrize(
    "options",
    [
        {"grammar": "start: /[a-z]+/"},
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
    run(stepper, sequences)
    assert stepper.work.num_ahead == 0
