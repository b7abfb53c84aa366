"""Guesses at what a row will write: they change what it costs, and nothing else."""

from collections.abc import Sequence as Rows
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.accounts import Account
from engine.config import EngineConfig
from engine.drafts import MAX_DRAFT, MAX_NGRAM, MIN_NGRAM, Draft, PromptLookup
from engine.engine import Engine
from engine.events import StopReason
from engine.model import LoadedModel, load
from engine.sequence import Sequence
from engine.types import Grammar, Message, Request, Role, SamplingParams
from tests.fakes import fake_loaded, fake_model, fake_that_writes
from tests.stepping import make_sequence, run, stepper_of
from tests.test_parity import (
    LONG,
    REQUESTS,
    assert_same_up_to_rounding,
    except_passes,
    fake,
    submitted,
    weather_request,
)
from tests.tiny_models import ROTATING, random_weights, write_folder

FREE_TEXT = "start: /(?s:.)*/"  # a grammar, all the same


@dataclass
class Oracle:
    """Guesses what a row wrote before, with mistakes at some positions."""

    written: list[int]
    mistakes: set[int] = field(default_factory=set)
    asked: int = 0

    def begin_step(self, max_chunk: int, *, others_wait: bool) -> None:
        pass

    def may_guess(self, row: Sequence) -> bool:
        return len(row.output) < len(self.written)

    def draft(self, row: Sequence, max_tokens: int) -> Draft:
        self.asked += 1
        start = len(row.output)
        guesses = self.written[start : start + max_tokens]
        return Draft([token ^ 1 if start + at in self.mistakes else token for at, token in enumerate(guesses)])

    def forget(self, row: Sequence) -> None:
        pass


@dataclass
class OracleOf:
    """Guesses of several rows, told apart by their first token."""

    by_first: dict[int, Oracle]

    def begin_step(self, max_chunk: int, *, others_wait: bool) -> None:
        pass

    def may_guess(self, row: Sequence) -> bool:
        return self.by_first[row.output[0]].may_guess(row)

    def draft(self, row: Sequence, max_tokens: int) -> Draft:
        return self.by_first[row.output[0]].draft(row, max_tokens)


def write(loaded: LoadedModel, oracle: Oracle | None = None, **options: object) -> Sequence:
    sequence = make_sequence(loaded, grammar=FREE_TEXT, **options)
    run(stepper_of(loaded, drafts=oracle), [sequence])
    return sequence


# The same answer.


@pytest.mark.parametrize("temperature", [0, 100])
@given(mistakes=st.sets(st.integers(0, 39)))
@settings(deadline=None, max_examples=15)
def test_right_and_wrong_guesses_give_the_same_answer(temperature: float, mistakes: set[int]) -> None:
    loaded = fake_loaded()
    sampling = SamplingParams(temperature, seed=5, presence_penalty=0.5)
    plain = write(loaded, sampling=sampling)
    guessed = write(loaded, Oracle(plain.output, mistakes), sampling=sampling)
    assert guessed.output == plain.output
    assert guessed.stop_reason == plain.stop_reason


@pytest.mark.parametrize("hermes", [False, True], ids=["plain", "hermes"])
@settings(deadline=None, max_examples=10)
@given(requests=st.lists(REQUESTS, min_size=1, max_size=4))
def test_a_seed_gives_the_same_answers_with_drafts_and_without(hermes: bool, requests: list[Request]) -> None:
    answers = []
    for drafts in (True, False):
        with Engine(fake(hermes=hermes), config=EngineConfig(drafts=drafts)) as engine:
            streams = [submitted(engine, request) for request in requests]
            answers.append([except_passes(stream.completion()) for stream in streams])
    assert answers[0] == answers[1]


def test_small_real_weights_say_the_same_with_drafts_and_without(tmp_path: Path) -> None:
    loaded = load(write_folder(tmp_path / "model", LONG, random_weights(LONG)), cache_dir=tmp_path)
    request = weather_request("Is it warm in Rome?")
    with Engine(loaded) as engine:
        prompt = engine.render_prompt(request)
    text = Grammar.regex("[a-z ]{40}")
    written = []
    for drafts, drafter in ((False, None), (True, None), (True, loaded)):
        with Engine(loaded, draft_model=drafter, config=EngineConfig(drafts=drafts, prefill_chunk=32)) as engine:
            asked = Request(messages=(Message(Role.USER, "abab " * 9),), response=text)
            answer = engine.submit(asked).completion().text
            assert answer is not None
            written.append(loaded.tokenizer.encode(answer))
            assert (engine.load_now().work.num_draft_passes > 0) == (drafter is not None)
    assert_same_up_to_rounding(loaded, prompt, written[0], written[1])
    assert_same_up_to_rounding(loaded, prompt, written[0], written[2])


# What it saves.


def test_every_right_guess_saves_a_forward_pass() -> None:
    loaded = fake_loaded()
    plain = write(loaded)
    guessed = write(loaded, Oracle(plain.output))
    assert plain.num_forward_passes > 30
    assert guessed.num_forward_passes <= 2 + -(-plain.num_forward_passes // (MAX_DRAFT + 1))


def test_what_was_guessed_in_vain_is_forgotten_by_the_cache() -> None:
    loaded = fake_loaded()
    plain = write(loaded)
    stepper = stepper_of(loaded, drafts=Oracle(plain.output, mistakes={3, 4, 9}))
    sequence = make_sequence(loaded, grammar=FREE_TEXT)
    while not sequence.is_done:
        stepper.step([sequence], max_chunk=512)
        assert sequence.cache is not None
        assert sequence.cache.tokens == [*sequence.prompt, *sequence.output][: sequence.num_cached_now]  # type: ignore[attr-defined]
        assert sequence.num_to_keep == len(sequence.prompt) + len(sequence.output) or sequence.is_done


def test_a_row_whose_guesses_are_wrong_stops_guessing() -> None:
    loaded = fake_loaded()
    plain = write(loaded)
    oracle = Oracle(plain.output, mistakes=set(range(40)))
    guessed = write(loaded, oracle)
    assert guessed.output == plain.output
    assert guessed.num_forward_passes == plain.num_forward_passes
    assert fake_model(loaded).widths[-5:] == [1] * 5
    assert oracle.asked < 10


def test_a_call_whose_arguments_stand_in_the_prompt_takes_few_passes() -> None:
    sentence = "Saint-Rémy-de-Provence and back to Aix"
    loaded = fake_that_writes(f'<tool_call>\n{{"name": "note", "arguments": {{"text": "{sentence}"}}}}\n</tool_call>')
    note = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}
    passes = {}
    for drafts in (True, False):
        with Engine(loaded, config=EngineConfig(drafts=drafts)) as engine:
            answer = engine.chat(
                [Message(Role.USER, f"Note: {sentence}.")],
                tools=[{"type": "function", "function": {"name": "note", "parameters": note}}],
                tool_choice="required",
                parallel_tool_calls=False,
            )
            passes[drafts] = answer.usage.forward_passes
            work = engine.load_now().work
            assert sentence in answer.tool_calls[0].arguments
            assert (work.num_accepted > 10) == drafts
    assert passes[True] < passes[False] / 2


# The grammar.


def test_a_draft_is_cut_at_the_first_token_that_the_grammar_forbids() -> None:
    """F18: there, speculation ignored the grammar."""
    loaded = fake_loaded()
    digit, letter = loaded.tokenizer.encode("7")[0], loaded.tokenizer.encode("x")[0]
    oracle = Oracle([digit, digit, letter, digit, digit, digit])
    sequence = make_sequence(loaded, grammar='start: /[0-9]{3}/ "."')
    stepper = stepper_of(loaded, drafts=oracle)
    stepper.step([sequence], max_chunk=512)
    stepper.step([sequence], max_chunk=512)
    assert fake_model(loaded).widths[1] == 2  # the token that was drawn, and one that may follow
    run(stepper, [sequence])
    assert loaded.tokenizer.decode(sequence.output)[3:] == "."


def test_a_matcher_that_loses_step_within_a_draft_fails_its_own_row_where_it_would_without() -> None:
    """F15, where the token that it does not take is a guess."""
    loaded = fake_loaded()
    grammar = 'start: "{}" TEXT\nTEXT: /(?s:.)*/'

    def written(*names: str, drafts: Oracle | None) -> list[Sequence]:
        rows = [make_sequence(loaded, grammar=grammar.format(name)) for name in names]
        run(stepper_of(loaded, drafts=drafts), rows)
        return rows

    (good,) = written("bound", drafts=None)
    (bad,) = written("faulty", drafts=None)
    beyond = Oracle([*bad.output, *good.output], mistakes={len(bad.output) - 4})  # so that a guess begins behind it
    oracle = OracleOf({good.output[0]: Oracle(good.output), bad.output[0]: beyond})
    drafted = written("bound", "faulty", "bound", drafts=oracle)

    assert bad.stop_reason is StopReason.FAILED
    assert [row.stop_reason for row in drafted] == [good.stop_reason, StopReason.FAILED, good.stop_reason]
    assert [row.output for row in drafted] == [good.output, bad.output, good.output]
    assert drafted[1].num_forward_passes < bad.num_forward_passes


@pytest.mark.parametrize(
    "options",
    [
        {"sampling": SamplingParams(top_logprobs=0)},
        {"stop": ("x",)},
        {"stop_token_ids": (5,)},
    ],
    ids=lambda options: next(iter(options)),
)
def test_rows_that_are_read_token_by_token_draft_nothing(options: dict[str, object]) -> None:
    oracle = Oracle([1] * 40)
    write(fake_loaded(), oracle, **options)
    assert oracle.asked == 0


def test_caches_that_cannot_be_trimmed_draft_nothing() -> None:
    loaded = fake_loaded()
    fake_model(loaded).can_batch = False
    oracle = Oracle([1] * 40)
    write(loaded, oracle)
    assert oracle.asked == 0


def test_a_row_with_a_rotating_cache_writes_the_same_when_the_cache_begins_to_rotate(tmp_path: Path) -> None:
    """There, the first guess that ran over the window's end could not be taken back, and ended all rows of its step."""
    loaded = load(write_folder(tmp_path / "model", ROTATING, random_weights(ROTATING)), cache_dir=tmp_path)
    text = Grammar.regex("[a-z ]{24}")
    request = Request(messages=(Message(Role.USER, "ab ab"),), response=text, sampling=SamplingParams(0.7, seed=1))
    written = []
    for config in (EngineConfig(), EngineConfig(drafts=False, look_ahead=False)):
        with Engine(loaded, config=config) as engine:
            answer = engine.submit(request).completion()
            assert engine.load_now().work.num_drafted == 0
            written.append(except_passes(answer))
    assert answer.usage.prompt_tokens < ROTATING["sliding_window"] < answer.usage.prompt_tokens + 20
    assert written[0] == written[1]


# Where guesses come from, and whether they pay.


def lookup(prompt: Rows[int], output: Rows[int], max_tokens: int = 8) -> list[int]:
    sequence = make_sequence(fake_loaded())
    sequence.prompt, sequence.output = list(prompt), list(output)
    return PromptLookup().draft(sequence, max_tokens).tokens


def test_a_guess_is_what_followed_the_same_tokens_before() -> None:
    assert lookup([1, 2, 3, 4, 5, 6], [9, 2, 3]) == [4, 5, 6, 9, 2, 3]
    assert lookup([1, 2, 3, 4, 5, 6], [9, 2, 3], max_tokens=2) == [4, 5]
    assert lookup([1, 2, 3], [4, 5]) == []
    assert lookup([3, 1], [3]) == []  # one token says too little


def test_a_longer_match_goes_first_and_of_equals_the_latest() -> None:
    assert lookup([1, 2, 3, 7, 9, 2, 3, 8], [1, 2, 3])[0] == 7
    assert lookup([2, 3, 7, 2, 3, 8], [2, 3])[0] == 8


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 2), min_size=1, max_size=40), st.lists(st.integers(0, 2), max_size=40))
def test_looking_up_as_the_answer_grows_is_looking_up_at_once(prompt: list[int], output: list[int]) -> None:
    source = PromptLookup()
    sequence = make_sequence(fake_loaded())
    sequence.prompt = prompt
    for length in range(len(output) + 1):
        sequence.output = output[:length]
        found = source.draft(sequence, 5).tokens
        assert found == lookup(prompt, sequence.output, 5)
        text = [*prompt, *sequence.output]
        for size in range(MAX_NGRAM, MIN_NGRAM - 1, -1):
            ends = [end for end in range(size, len(text)) if text[end - size : end] == text[-size:]]
            if ends:
                assert found == text[ends[-1] : ends[-1] + 5]
                break


def settle(account: Account, times: int, accepted: int, num_rows: int = 1, cost: float = 0) -> Account:
    for _ in range(times):
        account.settle(8, accepted, num_rows=num_rows, pass_cost=12, draft_cost=cost)
    return account


def test_drafts_pay_where_the_passes_that_they_save_cost_more_than_their_positions() -> None:
    assert settle(Account(), 100, accepted=1).is_good  # 8 positions for a pass
    assert not settle(Account(), 100, accepted=0).is_good
    assert not settle(Account(), 100, accepted=1, num_rows=8).is_good  # the others' padding costs more than a share
    assert settle(Account(), 100, accepted=8, num_rows=8).is_good
    assert not settle(Account(), 100, accepted=3, cost=40).is_good


def test_a_row_that_stopped_guessing_tries_again_later() -> None:
    account = settle(Account(), 5, accepted=0)
    assert not account.is_good
    tokens_until = 0
    while not account.is_good:
        account.add_token()
        tokens_until += 1
    assert 8 < tokens_until < 100
