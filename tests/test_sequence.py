"""What one generation's state does when a token comes, and when it stops."""

from collections.abc import Sequence as Rows
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import MatcherError
from engine.events import StopReason
from engine.sequence import MAX_NARROW, Sequence
from engine.types import Message, Request, Role, SamplingParams
from tests.fakes import FakeCache

EOS = 9


@dataclass
class Rail:
    """A matcher of a text that is known: some of its tokens are forced, the others are the only legal choice."""

    text: list[int]
    forced: set[int] = field(default_factory=set)  # positions in the text
    position: int = 0

    def accept(self, tokens: Rows[int]) -> None:
        for token in tokens:
            if self.position >= len(self.text) or token != self.text[self.position]:
                raise MatcherError(f"token {token} is not allowed here")
            self.position += 1

    def forced_tokens(self) -> list[int]:
        end = self.position
        while end in self.forced:
            end += 1
        return self.text[self.position : end] + ([EOS] if end == len(self.text) else [])

    @property
    def is_terminated(self) -> bool:
        return self.position == len(self.text)


def make_sequence(matcher: Rail | None = None, **options: object) -> Sequence:
    request_options = {key: options.pop(key) for key in ("sampling", "stop_token_ids") if key in options}
    request = Request(messages=(Message(Role.USER, "hi"),), **request_options)
    defaults: dict[str, object] = {"prompt": [5, 6, 7], "max_tokens": 100, "fast_forward": True}
    return Sequence(
        request=request,
        key=0,
        seed=0,
        eos_ids=frozenset({EOS}),
        matcher=matcher,
        **(defaults | options),
    )


def write(sequence: Sequence) -> None:
    """Sample the legal tokens until the sequence stops."""
    matcher = sequence.matcher
    assert isinstance(matcher, Rail)
    while sequence.stop_reason is None:
        sequence.take(matcher.text[matcher.position])


def test_a_new_sequence_has_its_prompt_before_it() -> None:
    sequence = make_sequence()
    assert sequence.pending == [5, 6, 7]
    assert sequence.output == []
    assert sequence.stop_reason is None
    assert not sequence.is_done


def test_what_is_forced_at_the_start_stands_behind_the_prompt() -> None:
    sequence = make_sequence(Rail([1, 2, 3], forced={0, 1}))
    assert sequence.pending == [5, 6, 7, 1, 2]
    assert sequence.output == [1, 2]
    assert sequence.usage.forced_tokens == 2


def test_a_token_is_pending_together_with_those_that_it_forces() -> None:
    sequence = make_sequence(Rail([1, 2, 3, 4], forced={1, 2}))
    sequence.take(1)
    assert sequence.pending == [1, 2, 3]
    assert sequence.output == [1, 2, 3]


def test_without_fast_forward_nothing_is_forced() -> None:
    sequence = make_sequence(Rail([1, 2, 3], forced={0, 1, 2}), fast_forward=False)
    write(sequence)
    assert sequence.output == [1, 2, 3]
    assert sequence.usage.forced_tokens == 0


def test_the_end_token_ends_the_turn_and_is_no_output() -> None:
    sequence = make_sequence()
    sequence.take(1)
    sequence.take(EOS)
    assert (sequence.output, sequence.stop_reason) == ([1], StopReason.EOS)
    assert sequence.is_done


def test_an_end_token_that_is_forced_is_no_output() -> None:
    sequence = make_sequence(Rail([1, 2], forced={1}))
    sequence.take(1)
    assert (sequence.output, sequence.stop_reason) == ([1, 2], StopReason.GRAMMAR_END)


@given(st.integers(1, 8).flatmap(lambda n: st.tuples(st.just(n), st.sets(st.integers(0, n - 1)), st.integers(1, 10))))
def test_the_budget_is_exact_whatever_is_forced(case: tuple[int, set[int], int]) -> None:
    """F1, F2: what is forced is cut at the budget as well."""
    length, forced, max_tokens = case
    text = list(range(10, 10 + length))

    sequence = make_sequence(Rail(text, forced), max_tokens=max_tokens)
    write(sequence)

    assert sequence.output == text[:max_tokens]
    assert sequence.stop_reason is (StopReason.GRAMMAR_END if max_tokens >= length else StopReason.LENGTH)
    assert sequence.usage.completion_tokens == min(length, max_tokens)
    assert sequence.usage.forced_tokens == len(forced & set(range(max_tokens)))


def test_a_stop_token_counts_in_free_text_only_and_is_no_output() -> None:
    sequence = make_sequence(stop_token_ids=(3,))
    sequence.in_free_text = False
    sequence.take(3)
    assert (sequence.output, sequence.stop_reason) == ([3], None)
    sequence.in_free_text = True
    sequence.take(3)
    assert (sequence.output, sequence.stop_reason) == ([3], StopReason.STOP_TOKEN)


def test_a_token_that_the_grammar_does_not_allow_is_an_error() -> None:
    """F15: there, the matcher went on out of step."""
    sequence = make_sequence(Rail([1, 2]))
    with pytest.raises(MatcherError, match="token 2"):
        sequence.take(2)


def test_a_sequence_reads_its_prompt_by_itself_until_so_little_is_left_that_it_can_go_along() -> None:
    sequence = make_sequence(prompt=list(range(100)))
    assert sequence.is_prefilling
    read(sequence, 100 - MAX_NARROW - 1)
    assert sequence.is_prefilling
    read(sequence, 1)
    assert not sequence.is_prefilling


def read(sequence: Sequence, num_tokens: int) -> None:
    """What a forward pass does to its state."""
    cache = sequence.cache or FakeCache()
    assert isinstance(cache, FakeCache)
    cache.tokens += sequence.pending[:num_tokens]
    sequence.cache, sequence.pending = cache, sequence.pending[num_tokens:]


def test_a_long_forced_run_is_no_prompt() -> None:
    sequence = make_sequence(Rail(list(range(10, 60)), forced=set(range(1, 49))))
    read(sequence, 3)
    sequence.take(10)
    assert len(sequence.pending) > MAX_NARROW
    assert not sequence.is_prefilling


def test_a_sequence_that_gave_way_reads_its_prompt_and_what_it_wrote_again() -> None:
    sequence = make_sequence(Rail(list(range(10, 60)), forced={1, 2}), prompt=list(range(100)))
    read(sequence, 100)
    sequence.take(10)
    read(sequence, 3)
    sequence.take(13)
    cache = sequence.cache
    sequence.preempt()
    assert isinstance(cache, FakeCache)
    assert cache.is_released
    assert sequence.pending == [*range(100), 10, 11, 12, 13]
    assert sequence.is_prefilling
    read(sequence, 104)
    sequence.take(14)
    assert sequence.output == [10, 11, 12, 13, 14]


def test_forced_tokens_owe_their_logprobs_where_those_were_asked_for() -> None:
    rail = Rail([1, 2, 3], forced={0, 1, 2})
    asked = make_sequence(rail, sampling=SamplingParams(top_logprobs=0))
    assert asked.stop_reason is StopReason.GRAMMAR_END
    assert asked.num_unscored == 3
    assert not asked.is_done

    not_asked = make_sequence(Rail([1, 2, 3], forced={0, 1, 2}))
    assert not_asked.num_unscored == 0
    assert not_asked.is_done


@pytest.mark.parametrize("reason", [StopReason.CANCELLED, StopReason.FAILED])
def test_a_sequence_that_was_cancelled_or_failed_owes_nothing(reason: StopReason) -> None:
    sequence = make_sequence(Rail([1, 2], forced={0, 1}), sampling=SamplingParams(top_logprobs=0))
    sequence.stop_reason = reason
    assert sequence.is_done


def test_two_sequences_of_one_request_are_not_the_same() -> None:
    assert make_sequence() != make_sequence()
    assert len({make_sequence(), make_sequence()}) == 2


def test_a_forced_run_ends_at_its_first_end_token() -> None:
    class Beyond(Rail):
        def forced_tokens(self) -> list[int]:
            return [1, EOS, 2]

    assert make_sequence(Beyond([1, 2, 3])).output == [1]
