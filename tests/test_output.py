"""A sequence's tokens become events: whole characters, text cut at stop strings, and complete calls."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.events import (
    Event,
    Finished,
    LogprobsDelta,
    Receipt,
    StopReason,
    TextDelta,
    TokenLogprob,
    ToolCallDelta,
    ToolCallEnd,
    ToolCallStart,
    Usage,
)
from engine.grammars.tool_format import ToolFormat
from engine.grammars.tool_formats import HERMES, PLAIN
from engine.output import OutputStream, collect
from engine.types import Message, Role, ToolCall
from tests.grammars.turns import FAMILIES, call_of, parser_of, tokenizer_of

USAGE = Usage(prompt_tokens=3, completion_tokens=2, forced_tokens=1, forward_passes=2)
FINISHED = Finished(StopReason.EOS, USAGE, seed=7, receipt=Receipt())

each_family = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)


def output_of(family: ToolFormat, stop: Sequence[str] = (), *, has_calls: bool = True) -> OutputStream:
    tokenizer = tokenizer_of(family)
    special = frozenset(tokenizer.unspellable.values())
    parser = parser_of(family, has_calls=has_calls)
    return OutputStream(tokenizer.detokenizer(), parser, stop=stop, special_ids=special)


def letters(text: str) -> list[int]:
    """A token for each byte."""
    tokenizer = tokenizer_of(PLAIN)
    by_byte = {tokenizer.token_bytes(token): token for token in range(tokenizer.num_tokens)}
    return [by_byte[bytes([byte])] for byte in text.encode()]


def text_of(events: Sequence[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


def written(text: str, stop: Sequence[str]) -> tuple[str, bool]:
    """What is left of a text whose bytes come one by one, and whether it was stopped."""
    output = output_of(PLAIN, stop)
    events: list[Event] = []
    for token in letters(text):
        events += output.feed([token])
        if output.stopped:
            break
    return text_of(events + output.finish()), output.stopped


# --- Characters


def test_a_character_comes_when_its_last_byte_does() -> None:
    """F23."""
    output = output_of(PLAIN)
    assert [output.feed([token]) for token in letters("é😀")] == [
        [],
        [TextDelta("é")],
        [],
        [],
        [],
        [TextDelta("😀")],
    ]


@pytest.mark.parametrize(("family", "text"), [(PLAIN, "日本 😀"), (HERMES, "naïve \u2028 text")])
def test_text_is_the_same_in_one_piece_and_in_many(family: ToolFormat, text: str) -> None:
    tokens = tokenizer_of(family).encode(text)
    one_by_one = output_of(family)
    events = [event for token in tokens for event in one_by_one.feed([token])] + one_by_one.finish()
    at_once = output_of(family)
    assert text_of(events) == text == text_of(at_once.feed(tokens) + at_once.finish())


def test_a_character_that_was_left_open_comes_as_the_replacement_character_at_the_end() -> None:
    output = output_of(PLAIN)
    assert output.feed(letters("a😀")[:-1]) == [TextDelta("a")]
    assert text_of(output.finish()) == "\ufffd"


# --- Stop strings


@pytest.mark.parametrize(
    ("text", "stop", "left"),
    [
        ("abcdef", ["cd"], "ab"),
        ("abcdef", ["a"], ""),
        ("abcdef", ["f"], "abcde"),
        ("abcdef", ["x"], "abcdef"),
        ("aab", ["ab"], "a"),
        ("ababac", ["abac"], "ab"),
        ("one\n\ntwo", ["\n\n"], "one"),
        ("STOP here", ["STOP"], ""),
        ("日本語", ["本"], "日"),
        ("a😀b", ["😀"], "a"),
        ("abcdef", ["ef", "bc"], "a"),
        ("abcdef", ["cd", "abcd"], ""),
        ("abcdef", ["abcd", "c"], "ab"),
        ("abcx", ["abcd", "bc"], "a"),
        ("abab", ["aba", "bab"], ""),
        ("", ["a"], ""),
        ("<tool_x", ["tool_"], "<"),
    ],
)
def test_text_ends_before_the_stop_string_that_is_complete_first(text: str, stop: list[str], left: str) -> None:
    assert written(text, stop) == (left, left != text)
    at_once = output_of(PLAIN, stop)
    assert text_of(at_once.feed(letters(text)) + at_once.finish()) == left


WORDS = ["The answer", " tool", "arguments", '": {"', "<tool_call", "name", "weather in Paris", "<", "<|", "é"]


@given(
    st.lists(st.sampled_from(WORDS), max_size=5).map("".join),
    st.lists(st.sampled_from(["answ", "er to", "tool", "r", "arguments", "s<", "<", "ame", "é", "e", '"'])),
)
def test_it_does_not_matter_in_which_tokens_the_text_comes(text: str, stop: list[str]) -> None:
    """F12."""
    text = text.replace("<tool_call>", "")
    completed = sorted((text.find(one) + len(one), text.find(one)) for one in stop if one in text)
    expected = text[: completed[0][1]] if completed else text
    output = output_of(PLAIN, stop)
    events = output.feed(tokenizer_of(PLAIN).encode(text)) + output.finish()
    assert (text_of(events), output.stopped) == (expected, bool(completed))
    assert written(text, stop) == (expected, bool(completed))


def test_no_text_of_a_stop_string_that_begins_is_given_out_before_it_is_clear() -> None:
    """F12."""
    output = output_of(PLAIN, ["END!"])
    assert output.feed(letters("text EN")) == [
        TextDelta("t"),
        TextDelta("e"),
        TextDelta("x"),
        TextDelta("t"),
        TextDelta(" "),
    ]
    assert output.feed(letters("D")) == []
    assert text_of(output.feed(letters("."))) == "END."
    assert output.feed(letters("END")) == []
    assert output.finish() == [TextDelta("END")]


def test_after_a_stop_string_nothing_more_comes() -> None:
    output = output_of(PLAIN, ["."])
    output.feed(letters("a."))
    assert output.stopped
    assert output.feed(letters("more") + letters(call_of(PLAIN, "f", {}))) == []
    assert output.finish() == []


@each_family
def test_stop_strings_count_in_free_text_only(family: ToolFormat) -> None:
    """In a call they would cut the JSON."""
    tokens = tokenizer_of(family).encode("Hm" + call_of(family, "stop", {"a": "stop\n"}))
    output = output_of(family, ["stop", "\n", "{", '"'])
    events = output.feed(tokens) + output.finish()
    completion = collect([*events, FINISHED])
    assert not output.stopped
    assert completion.text == "Hm"
    assert [(call.name, call.parsed_arguments()) for call in completion.tool_calls] == [("stop", {"a": "stop\n"})]


@each_family
def test_a_stop_string_before_a_call_ends_the_turn_there(family: ToolFormat) -> None:
    tokens = tokenizer_of(family).encode("a STOP b" + call_of(family, "f", {}))
    output = output_of(family, ["STOP"])
    events = output.feed(tokens) + output.finish()
    assert text_of(events) == "a "
    assert not [event for event in events if isinstance(event, ToolCallStart)]


@each_family
def test_the_beginning_of_a_stop_string_before_a_call_is_text(family: ToolFormat) -> None:
    tokens = tokenizer_of(family).encode("a ST" + call_of(family, "f", {}))
    output = output_of(family, ["STOP"])
    events = output.feed(tokens) + output.finish()
    assert text_of(events) == "a ST"
    assert (
        events.index(ToolCallStart(0, "call_0", "f"))
        == max(position for position, event in enumerate(events) if isinstance(event, TextDelta)) + 1
    )


def test_a_stop_string_may_be_completed_by_text_that_was_held_back_for_a_marker() -> None:
    output = output_of(PLAIN, ["<tool"])
    assert output.feed(letters("a<tool")) == [TextDelta("a")]
    assert not output.stopped  # it may still be a marker
    assert output.finish() == []
    assert output.stopped


@each_family
def test_an_output_is_in_text_until_a_call_begins(family: ToolFormat) -> None:
    output, tokenizer = output_of(family), tokenizer_of(family)
    output.feed(tokenizer.encode("text"))
    assert output.in_text
    output.feed(tokenizer.encode(family.marker))
    assert not output.in_text


# --- collect


def test_the_events_of_a_generation_add_up_to_its_completion() -> None:
    """F12, F29."""
    first, second = TokenLogprob(1, b"a", -0.5), TokenLogprob(2, b"b", -1.5)
    completion = collect(
        [
            TextDelta("Let "),
            LogprobsDelta((first,)),
            TextDelta("me see."),
            ToolCallStart(0, "id_0", "f"),
            ToolCallDelta(0, '{"a"'),
            ToolCallDelta(0, ": 1}"),
            ToolCallEnd(0),
            LogprobsDelta((second,)),
            ToolCallStart(1, "id_1", "g"),
            ToolCallDelta(1, "{}"),
            ToolCallEnd(1),
            FINISHED,
        ]
    )
    assert completion.text == "Let me see."
    assert completion.tool_calls == (ToolCall("id_0", "f", '{"a": 1}'), ToolCall("id_1", "g", "{}"))
    assert completion.logprobs == (first, second)
    assert (completion.stop_reason, completion.usage, completion.seed) == (StopReason.EOS, USAGE, 7)
    assert completion.message() == Message(Role.ASSISTANT, "Let me see.", completion.tool_calls)


def test_a_call_that_was_cut_off_is_not_among_the_calls() -> None:
    """F1."""
    completion = collect(
        [
            ToolCallStart(0, "id_0", "f"),
            ToolCallDelta(0, "{}"),
            ToolCallEnd(0),
            ToolCallStart(1, "id_1", "g"),
            ToolCallDelta(1, '{"a": "cut o'),
            Finished(StopReason.CANCELLED, USAGE, 7, Receipt()),
        ]
    )
    assert completion.tool_calls == (ToolCall("id_0", "f", "{}"),)
    assert completion.text is None
    assert completion.stop_reason is StopReason.CANCELLED


def test_a_turn_without_text_has_none_and_without_logprobs_none() -> None:
    completion = collect([FINISHED])
    assert completion.text is None
    assert completion.logprobs is None
    assert completion.tool_calls == ()


def test_logprobs_that_were_asked_for_are_a_tuple_even_where_there_are_none() -> None:
    assert collect([LogprobsDelta(()), FINISHED]).logprobs == ()


def test_events_that_do_not_finish_are_no_generation() -> None:
    with pytest.raises(AssertionError):
        collect([TextDelta("a")])
