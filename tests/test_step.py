"""What a step costs, what it puts into one forward pass, what it says of its tokens, and how it fails."""

from collections.abc import Sequence as Rows
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.config import EngineConfig
from engine.engine import Engine
from engine.errors import BudgetError, GenerationError, MatcherError
from engine.events import Completion, StopReason
from engine.model import LoadedModel
from engine.sequence import MIN_UNFORCED, Sequence
from engine.step import Stepper
from engine.types import Grammar, Request, SamplingParams, Tool
from tests.fakes import CALCULATE, EOS, REQUIRED, SEARCH, USER, FailingCompiler, fake_loaded, fake_model, with_hook
from tests.stepping import compiler_of, make_sequence, run

NO_DRAFTS = EngineConfig(drafts=False)  # whose passes depend on what was guessed
NONE_IN_VAIN = EngineConfig(drafts=False, look_ahead=False)
FAMILIES = pytest.mark.parametrize("hermes", [False, True], ids=["plain", "hermes"])
# Long enough to outlast the matcher's tokens, whatever the model says.
FAULTY = Tool(
    "faulty",
    parameters={"type": "object", "properties": {"text": {"type": "string", "minLength": 60}}, "required": ["text"]},
)
OPENING = '<tool_call>\n{"name": "calculate", "arguments": {"expression": "'


# Forward passes, counted.


@FAMILIES
@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**31), tools=st.sampled_from([(CALCULATE,), (SEARCH,), (CALCULATE, SEARCH)]))
def test_a_constrained_call_takes_no_more_forward_passes_than_as_much_free_text(
    hermes: bool, seed: int, tools: tuple[Tool, ...]
) -> None:
    """F14: there, speed collapsed under constraint."""
    loaded = fake_loaded(hermes=hermes, seed=seed, bonus={EOS: -(10**6)})
    by_tokens = {"tool_choice": "required", "tool_choice_by": "tokens", "parallel_tool_calls": False}
    with Engine(loaded, config=NONE_IN_VAIN) as exact, Engine(loaded, config=NO_DRAFTS) as engine:
        least, call = (each.chat([USER], tools=tools, **by_tokens) for each in (exact, engine))
        free = engine.chat([USER], max_tokens=call.usage.completion_tokens)

    assert call.stop_reason is StopReason.GRAMMAR_END
    assert free.usage.forward_passes == call.usage.completion_tokens
    num_drawn = call.usage.completion_tokens - call.usage.forced_tokens
    assert least.usage.forward_passes == num_drawn
    assert num_drawn <= call.usage.forward_passes <= num_drawn + num_drawn // (MIN_UNFORCED + 1)
    assert call.usage.forward_passes <= free.usage.forward_passes
    assert call.usage.forced_tokens > call.usage.completion_tokens // 3


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**31))
def test_nor_does_one_whose_tool_whole_names_choose(seed: int) -> None:
    loaded = fake_loaded(seed=seed, bonus={EOS: -(10**6)})
    with Engine(loaded, config=NONE_IN_VAIN) as engine:
        options = {"tools": (CALCULATE, SEARCH), "tool_choice": "required", "parallel_tool_calls": False}
        _, call = (engine.chat([USER], **options) for _ in range(2))  # the first one reads the prior too
        free = engine.chat([USER], max_tokens=call.usage.completion_tokens)

    assert call.decision is not None
    assert call.decision.passes == 0  # the two names part at their first letter
    num_drawn = call.usage.completion_tokens - call.usage.forced_tokens
    assert call.usage.forward_passes == num_drawn + 1  # the prompt's
    assert call.usage.forward_passes <= free.usage.forward_passes


@FAMILIES
def test_the_opening_of_a_required_call_is_read_together_with_the_prompt(hermes: bool) -> None:
    loaded = fake_loaded(hermes=hermes)
    with Engine(loaded) as engine:
        answer = engine.chat([USER], tools=[CALCULATE], tool_choice="required", max_tokens=60)

    opening = loaded.tokenizer.encode(OPENING)[:-1]  # its last token could merge with what follows
    assert fake_model(loaded).widths[0] == answer.usage.prompt_tokens + len(opening)


@FAMILIES
def test_a_sampled_token_and_those_that_it_forces_go_through_the_model_at_once(hermes: bool) -> None:
    loaded = fake_loaded(hermes=hermes)
    with Engine(loaded, config=replace(NO_DRAFTS, look_ahead=False)) as engine:
        answer = engine.chat(
            [USER],
            tools=[CALCULATE, SEARCH],
            tool_choice="required",
            tool_choice_by="tokens",
            parallel_tool_calls=False,
            sampling=SamplingParams(seed=1),
        )

    widths = fake_model(loaded).widths
    assert len(widths) == answer.usage.forward_passes
    assert max(widths[1:]) > 8  # the name's first letter decides the rest of the name, and what follows it
    # Each pass samples one token; what is forced after the last one needs no pass any more.
    assert answer.usage.completion_tokens == len(widths) + answer.usage.forced_tokens
    assert sum(widths) < answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_a_grammars_end_needs_no_forward_pass_for_the_end_token() -> None:
    loaded = fake_loaded()
    with Engine(loaded) as engine:
        answer = engine.chat([USER], response=Grammar.choice(["4", "5"]))

    assert answer.text in ("4", "5")
    assert answer.stop_reason is StopReason.GRAMMAR_END
    assert fake_model(loaded).widths == [answer.usage.prompt_tokens]


def test_an_answer_without_a_choice_needs_no_forward_pass_at_all() -> None:
    loaded = fake_loaded()
    with Engine(loaded) as engine:
        answer = engine.chat([USER], response=Grammar.choice(["The answer is 42."]))

    assert answer.text == "The answer is 42."
    assert answer.usage.forced_tokens == answer.usage.completion_tokens > 0
    assert fake_model(loaded).widths == []


@pytest.mark.parametrize("chunk", [1, 7, 64, 512])
def test_a_prompt_is_read_in_chunks_of_which_only_the_last_computes_logits(chunk: int) -> None:
    loaded = fake_loaded()
    with Engine(loaded, config=EngineConfig(prefill_chunk=chunk)) as engine:
        answer = engine.chat([USER], tools=[CALCULATE], tool_choice="none", max_tokens=1)

    widths, prompt = fake_model(loaded).widths, answer.usage.prompt_tokens
    assert sum(widths) == prompt
    assert max(widths) <= chunk
    assert len(widths) <= -(-prompt // chunk) + 1  # the prompt's last token may stand alone


# The budget.


@FAMILIES
def test_a_call_is_whole_at_every_max_tokens_or_refused_with_the_least(hermes: bool) -> None:
    """F1: there, a call cut off at max_tokens was reported."""
    with Engine(fake_loaded(hermes=hermes, bonus={'"': 500})) as engine:

        def answer(max_tokens: int | None) -> Completion:
            return engine.chat(
                [USER],
                tools=[CALCULATE, SEARCH],
                tool_choice="required",
                parallel_tool_calls=False,
                sampling=SamplingParams(seed=3, top_logprobs=0),
                max_tokens=max_tokens,
            )

        whole = answer(None)
        num_tokens = whole.usage.completion_tokens
        assert whole.stop_reason is StopReason.GRAMMAR_END
        with pytest.raises(BudgetError) as refused:
            answer(1)
        least = refused.value.least
        for max_tokens in range(2, least):
            with pytest.raises(BudgetError, match=f"max_tokens is {max_tokens}; .* has {least} tokens"):
                answer(max_tokens)
        for max_tokens in range(least, num_tokens + 2):
            fitted = answer(max_tokens)
            assert fitted.stop_reason is StopReason.GRAMMAR_END
            assert fitted.usage.completion_tokens <= max_tokens
            assert len(fitted.tool_calls) == 1
            assert fitted.text is None


def tokens(answer: Completion) -> list[int]:
    assert answer.logprobs is not None
    return [each.token_id for each in answer.logprobs]


def test_free_text_is_cut_at_every_max_tokens() -> None:
    with Engine(fake_loaded(bonus={EOS: -(10**6)})) as engine:
        for max_tokens in range(1, 12):
            answer = engine.chat([USER], max_tokens=max_tokens)
            assert (answer.stop_reason, answer.usage.completion_tokens) == (StopReason.LENGTH, max_tokens)
            assert answer.usage.forward_passes == max_tokens


def test_the_end_token_is_no_output() -> None:
    loaded = fake_loaded(bonus={EOS: 10**6})
    with Engine(loaded) as engine:
        answer = engine.chat([USER], sampling=SamplingParams(top_logprobs=1))

    assert answer.stop_reason is StopReason.EOS
    assert answer.text is None
    assert answer.usage.completion_tokens == 0
    assert answer.usage.forward_passes == 1


# Logprobs.


def log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max()
    return shifted - np.log(np.exp(shifted).sum())


def check_logprobs(loaded: LoadedModel, prompt: list[int], answer: Completion, k: int) -> None:
    """Against the model's own words after each prefix, one by one."""
    assert answer.logprobs is not None
    assert len(answer.logprobs) == answer.usage.completion_tokens
    written = tokens(answer)
    for position, found in enumerate(answer.logprobs):
        logits = fake_model(loaded).logits_after(prompt + written[:position])[: loaded.tokenizer.num_tokens]
        expected = log_softmax(logits)
        for each in (found, *found.top):
            assert each.logprob == pytest.approx(expected[each.token_id], abs=1e-3)
            assert each.token == loaded.tokenizer.token_bytes(each.token_id)
        assert len({each.token_id for each in found.top}) == k
        assert [each.logprob for each in found.top] == pytest.approx(np.sort(expected)[::-1][:k], abs=1e-3)


@FAMILIES
@settings(deadline=None, max_examples=15)
@given(
    chunk=st.sampled_from([1, 7, 512]),
    sampling=st.builds(
        SamplingParams,
        temperature=st.sampled_from([0, 0.5, 100]),
        seed=st.integers(0, 2**31),
        top_logprobs=st.integers(0, 5),
        repetition_penalty=st.sampled_from([1, 1.5]),
    ),
    parallel=st.booleans(),
    max_tokens=st.sampled_from([30, 40, 60]),
)
def test_logprobs_are_the_models_own_before_mask_and_temperature_one_for_each_output_token(
    hermes: bool, chunk: int, sampling: SamplingParams, parallel: bool, max_tokens: int
) -> None:
    """Forced tokens have theirs too, those at the turn's very end among them."""
    loaded = fake_loaded(hermes=hermes, bonus={'"': 300})
    request = Request(
        messages=(USER,),
        tools=(CALCULATE, SEARCH),
        tool_choice=REQUIRED,
        parallel_tool_calls=parallel,
        sampling=sampling,
        max_tokens=max_tokens,
    )
    with Engine(loaded, config=EngineConfig(prefill_chunk=chunk)) as engine:
        answer = engine.submit(request).completion()
        check_logprobs(loaded, engine.render_prompt(request), answer, sampling.top_logprobs or 0)


def test_logprobs_of_an_answer_that_is_forced_from_its_first_to_its_last_token() -> None:
    loaded = fake_loaded()
    request = Request(
        messages=(USER,), response=Grammar.choice(["The answer is 42."]), sampling=SamplingParams(top_logprobs=2)
    )
    with Engine(loaded, config=EngineConfig(prefill_chunk=7)) as engine:
        answer = engine.submit(request).completion()
        check_logprobs(loaded, engine.render_prompt(request), answer, k=2)

    assert answer.usage.forced_tokens == answer.usage.completion_tokens


def test_a_padded_column_is_never_among_the_likeliest() -> None:
    loaded = fake_loaded(padding=100)
    fake_model(loaded).bonus = dict.fromkeys(range(loaded.tokenizer.num_tokens, loaded.model.vocab_size), 10**4)
    with Engine(loaded) as engine:
        answer = engine.chat([USER], sampling=SamplingParams(top_logprobs=20), max_tokens=5)

    assert answer.logprobs is not None
    assert all(each.token_id < loaded.tokenizer.num_tokens for token in answer.logprobs for each in (token, *token.top))


# Failures.


def test_a_matcher_that_loses_step_ends_its_own_sequence_at_once_and_no_other() -> None:
    """F15: there, a matcher out of step rejected every token until max_tokens."""
    loaded = fake_loaded()
    grammar = 'start: "{}" TEXT\nTEXT: /(?s:.*)/'
    faulty = make_sequence(loaded, grammar=grammar.format("faulty"))
    bound = make_sequence(loaded, grammar=grammar.format("bound"))
    free = make_sequence(loaded)
    stepper = Stepper(loaded, compiler_of(loaded))

    progress = run(stepper, [bound, faulty, free])

    assert [each.error is not None for each in progress[1]] == [*[False] * (len(progress[1]) - 1), True]
    assert isinstance(progress[1][-1].error, MatcherError)
    assert faulty.stop_reason is StopReason.FAILED
    assert len(faulty.output) == FailingCompiler.tokens_left
    for sequence, each in ((bound, progress[0]), (free, progress[2])):
        assert not any(step.error for step in each)
        assert sequence.output == alone(loaded, sequence).output


def alone(loaded: LoadedModel, like: Sequence) -> Sequence:
    sequence = make_sequence(loaded, grammar=None if like.matcher is None else 'start: "bound" TEXT\nTEXT: /(?s:.*)/')
    run(Stepper(loaded, compiler_of(loaded)), [sequence])
    return sequence


def test_a_matcher_that_rejects_a_token_that_it_had_allowed_is_an_error() -> None:
    """F15, where the fault shows when the token is taken."""
    loaded = fake_loaded()
    sequence = make_sequence(loaded)
    sequence.matcher = _Rejecting()

    (progress,) = run(Stepper(loaded, compiler_of(loaded)), [sequence])

    assert [type(each.error) for each in progress] == [MatcherError]
    assert sequence.stop_reason is StopReason.FAILED


class _Rejecting:
    """Allows every token, and takes none."""

    def fill_bitmask(self, row: np.ndarray) -> None:
        row[:] = 1

    def accept(self, tokens: Rows[int]) -> None:
        raise MatcherError(f"token {tokens[0]} is not allowed here")


def test_a_matcher_error_reaches_the_consumer_and_the_other_requests_end_well(monkeypatch: pytest.MonkeyPatch) -> None:
    """F15, through the whole engine."""
    monkeypatch.setattr("engine.engine.LLGuidanceCompiler", FailingCompiler)
    with Engine(fake_loaded()) as engine:
        good = Request(messages=(USER,), tools=(CALCULATE,), tool_choice=REQUIRED, parallel_tool_calls=False)
        bad = Request(messages=(USER,), tools=(FAULTY,), tool_choice=REQUIRED, parallel_tool_calls=False)
        running = [engine.submit(good), engine.submit(bad), engine.submit(good)]

        with pytest.raises(MatcherError, match="lost step"):
            running[1].completion()
        answers = [running[0].completion(), running[2].completion(), engine.submit(good).completion()]

    assert [len(answer.tool_calls) for answer in answers] == [1, 1, 1]


def test_a_forward_pass_that_raises_ends_what_was_in_it_but_not_the_engine(caplog: pytest.LogCaptureFixture) -> None:
    def fail_once(num_passes: int) -> None:
        if num_passes == 3 and not failed:
            failed.append(num_passes)
            raise RuntimeError("out of memory")

    failed: list[int] = []
    with Engine(with_hook(fake_loaded(), fail_once)) as engine:
        with pytest.raises(GenerationError, match="out of memory"):
            engine.chat([USER], max_tokens=10)
        answer = engine.chat([USER], max_tokens=10)

    assert answer.usage.completion_tokens == 10
    assert "a step failed" in caplog.text


def test_special_tokens_other_than_the_turns_end_are_never_sampled() -> None:
    """F24: there, special tokens were written inside strings."""
    loaded = fake_loaded(hermes=True, bonus={"<|im_start|>": 10**6, "</tool_call>": 10**5, "<tool_call>": 10**4})
    with Engine(loaded) as engine:
        free = engine.chat([USER], sampling=SamplingParams(top_logprobs=0), max_tokens=10)
        bound = engine.chat(
            [USER],
            tools=[CALCULATE],
            tool_choice="required",
            sampling=SamplingParams(top_logprobs=0),
            parallel_tool_calls=False,
        )

    special = loaded.tokenizer.special_ids
    assert not special & set(tokens(free))
    written = [each.token for each in bound.logprobs or () if each.token_id in special]
    assert written == [b"<tool_call>", b"</tool_call>"]
