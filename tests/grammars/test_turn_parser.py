"""What the grammar lets through, the parser reads back, however the text is cut into pieces."""

import itertools
import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import MatcherError
from engine.events import TextDelta, ToolCallDelta, ToolCallEnd, ToolCallStart
from engine.grammars.tool_format import ToolFormat
from engine.grammars.tool_formats import HERMES, PLAIN
from engine.grammars.turn_parser import ParsedEvent, held_back
from tests.grammars.turns import FAMILIES, between, call_of, parse, parser_of, tokenizer_of, written

each_family = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)

HARD_STRINGS = [
    "",
    '"',
    "\\",
    '\\"',
    '"}}\n</tool_call>',
    "</tool_call>",
    '<tool_call>\n{"name": "x", "arguments": {}}\n</tool_call>',
    "{[",
    "]}",
    "日本 😀 é\u2028",
    "\n\t",
]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(HARD_STRINGS) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(HARD_STRINGS) | st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=6,
)
ARGUMENTS = st.dictionaries(st.sampled_from(HARD_STRINGS) | st.text(max_size=4), VALUES, max_size=3)
NAMES = st.from_regex(r"[a-zA-Z0-9_.-]{1,64}", fullmatch=True)
TEXTS = st.lists(
    st.text(max_size=6)
    | st.sampled_from(["<", "<tool", "<tool_call", "<<tool_cal", "</tool_call>", "<tool kit>", "{"]),
    max_size=4,
).map(lambda parts: "".join(parts).replace("<tool_call>", ""))


def segments(family: ToolFormat, text: str, calls: Sequence[tuple[str, Any]]) -> list[tuple[str, bool]]:
    """A turn in its natural parts, each with whether it is one token."""
    if family is PLAIN:
        return [(text + between(PLAIN).join(call_of(PLAIN, *call) for call in calls), False)]
    parts, parted_by = [(text, False)], ""
    for name, arguments in calls:
        inside = call_of(HERMES, name, arguments).removeprefix(HERMES.marker).removesuffix("</tool_call>")
        parts += [(parted_by, False), (HERMES.marker, True), (inside, False), ("</tool_call>", True)]
        parted_by = between(HERMES)
    return parts


def cut(parts: Sequence[tuple[str, bool]], places: Sequence[int]) -> list[tuple[str, bool]]:
    """The same parts, those that are spelled cut at some of the places."""
    pieces = []
    for text, is_token in parts:
        ends = [] if is_token else sorted({place for place in places if place < len(text)})
        bounds = [0, *ends, len(text)]
        pieces += [(text[start:end], is_token) for start, end in itertools.pairwise(bounds)]
    return pieces


def read(family: ToolFormat, pieces: Sequence[tuple[str, bool]]) -> list[ParsedEvent]:
    parser, events = parser_of(family), []
    for piece, is_token in pieces:
        events += parser.feed(piece, special=is_token)
    return events + parser.finish()


def added_up(events: Sequence[ParsedEvent]) -> list[tuple[Any, ...]]:
    """The events with neighbouring deltas joined, in order."""
    joined: list[tuple[Any, ...]] = []
    for event in events:
        match event:
            case TextDelta(text):
                item: tuple[Any, ...] = ("text", text)
            case ToolCallStart(index, id_, name):
                item = ("start", index, id_, name)
            case ToolCallDelta(index, arguments):
                item = ("delta", index, arguments)
            case ToolCallEnd(index):
                item = ("end", index)
        if joined and item[0] in ("text", "delta") and joined[-1][:-1] == item[:-1]:
            joined[-1] = (*item[:-1], joined[-1][-1] + item[-1])
        else:
            joined.append(item)
    return joined


def read_calls(events: Sequence[ParsedEvent]) -> list[tuple[str, Any]]:
    """The complete calls."""
    names = {event.index: event.name for event in events if isinstance(event, ToolCallStart)}
    complete = [event.index for event in events if isinstance(event, ToolCallEnd)]
    texts = dict.fromkeys(names, "")
    for event in events:
        if isinstance(event, ToolCallDelta):
            texts[event.index] += event.arguments
    return [(names[index], json.loads(texts[index])) for index in complete]


def read_text(events: Sequence[ParsedEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


# --- The law


@each_family
@given(
    text=TEXTS,
    calls=st.lists(st.tuples(NAMES, ARGUMENTS), max_size=3),
    places=st.lists(st.integers(0, 200), max_size=30),
)
@settings(max_examples=150, deadline=None)
def test_a_turn_that_the_family_writes_is_read_back_however_it_is_cut(
    family: ToolFormat, text: str, calls: list[tuple[str, Any]], places: list[int]
) -> None:
    """F12, F20, F23."""
    parts = segments(family, text, calls)
    events = read(family, cut(parts, places))
    assert read_text(events) == text
    assert read_calls(events) == calls
    assert added_up(events) == added_up(read(family, parts))


@each_family
def test_a_copy_made_anywhere_reads_on_as_its_original_does_and_leaves_it_alone(family: ToolFormat) -> None:
    """F18: a token that is vetoed must leave no trace."""
    parts = segments(family, "ab<", [("f", {"a": '"\\}'}), ("g", {})])
    pieces = cut(parts, range(1, len(parts[-1][0]) + 200))
    whole = added_up(read(family, pieces))
    for place in range(len(pieces) + 1):
        parser, events = parser_of(family), []
        for piece, is_token in pieces[:place]:
            events += parser.feed(piece, special=is_token)
        copy = parser.copy()
        for each in (copy, parser):
            rest = [event for piece, is_token in pieces[place:] for event in each.feed(piece, special=is_token)]
            assert added_up([*events, *rest, *each.finish()]) == whole


@each_family
@pytest.mark.parametrize("hard", HARD_STRINGS)
def test_a_string_argument_may_hold_what_looks_like_markup(family: ToolFormat, hard: str) -> None:
    """F20. Every letter comes alone, so that no marker in the string is the token."""
    arguments = {hard: [hard, {"x": hard}]}
    before, after = call_of(family, "f", '"SPLIT"').split('"SPLIT"')
    pieces = [family.marker, *before.removeprefix(family.marker), *written(arguments), *after]
    assert read_calls(parse(family, pieces)) == [("f", arguments)]


@each_family
def test_arguments_come_as_they_are_written(family: ToolFormat) -> None:
    """F12, F23: the deltas add up to the JSON text itself."""
    text = '{"a": "é😀\\n", "b": [1.50, {}], "c": {"d": "}"}}'
    before, end = call_of(family, "f", "|").removeprefix(family.marker).split("|")
    events = parse(family, [family.marker, before, *text, *(end if family is PLAIN else [end])])
    assert "".join(event.arguments for event in events if isinstance(event, ToolCallDelta)) == text


@each_family
def test_calls_are_numbered_from_zero_and_each_has_its_id(family: ToolFormat) -> None:
    assert added_up(read(family, segments(family, "a", [("f", {}), ("g", {"x": 1}), ("f", {})]))) == [
        ("text", "a"),
        ("start", 0, "call_0", "f"),
        ("delta", 0, "{}"),
        ("end", 0),
        ("start", 1, "call_1", "g"),
        ("delta", 1, '{"x": 1}'),
        ("end", 1),
        ("start", 2, "call_2", "f"),
        ("delta", 2, "{}"),
        ("end", 2),
    ]


# --- Text


@pytest.mark.parametrize(
    "text",
    ["<tool kit> and < b", "functional", "<<tool_call", "<tool_call <tool_call", "</tool_call>", "{}", "<tool_cal>"],
)
@each_family
def test_what_only_resembles_a_marker_is_text(family: ToolFormat, text: str) -> None:
    """F19."""
    for pieces in ([text], list(text)):
        assert read_text(parse(family, pieces)) == text
        with_call = [*pieces, family.marker, *call_of(family, "f", {}).removeprefix(family.marker)]
        events = parse(family, with_call)
        assert read_text(events) == text
        assert read_calls(events) == [("f", {})]


@given(text=TEXTS, places=st.lists(st.integers(0, 999), max_size=30))
def test_no_text_delta_holds_a_marker_of_ordinary_text(text: str, places: list[int]) -> None:
    """F12: not even where calls follow."""
    events = read(PLAIN, cut(segments(PLAIN, text, [("f", {"a": "<tool_call>"})]), places))
    assert not [event for event in events if isinstance(event, TextDelta) and "<tool_call>" in event.text]
    assert "<tool_call>" not in read_text(events)


@pytest.mark.parametrize("length", range(1, len(PLAIN.marker)))
def test_the_beginning_of_a_marker_is_held_back_and_comes_out_at_the_end(length: int) -> None:
    """F12."""
    parser = parser_of(PLAIN)
    beginning = PLAIN.marker[:length]
    assert parser.feed("text" + beginning) == [TextDelta("text")]
    assert parser.finish() == [TextDelta(beginning)]
    assert parser.finish() == []


def test_text_that_cannot_begin_a_marker_is_not_held_back() -> None:
    parser = parser_of(PLAIN)
    assert parser.feed("<tool") == []
    assert parser.feed(" kit") == [TextDelta("<tool kit")]
    assert parser.feed("<<") == [TextDelta("<")]
    assert parser.feed("a") == [TextDelta("<a")]


@pytest.mark.parametrize(
    ("text", "marker", "length"),
    [
        ("", "ab", 0),
        ("a", "ab", 1),
        ("xa", "ab", 1),
        ("ab", "ab", 0),
        ("aa", "aab", 2),
        ("abab", "ababc", 4),
        ("a", "a", 0),
    ],
)
def test_as_much_is_held_back_as_may_begin_the_marker(text: str, marker: str, length: int) -> None:
    assert held_back(text, marker) == length


@each_family
def test_a_turn_without_calls_is_all_text(family: ToolFormat) -> None:
    turn = call_of(family, "f", {})
    for pieces in ([turn], list(turn)):
        assert read_text(parse(family, pieces, has_calls=False)) == turn


def test_a_marker_token_in_a_turn_without_calls_is_text() -> None:
    """Where nothing was offered, nothing is masked."""
    assert parse(HERMES, ["<tool_call>", "x"], has_calls=False) == [TextDelta("<tool_call>"), TextDelta("x")]


def test_a_marker_that_is_a_token_means_nothing_where_it_is_spelled() -> None:
    """F19."""
    assert read_text(parse(HERMES, list("<tool_call>hello"))) == "<tool_call>hello"


@each_family
def test_a_parser_is_in_text_until_a_call_begins(family: ToolFormat) -> None:
    parser = parser_of(family)
    assert parser.in_text
    parser.feed("a <tool_cal")
    assert parser.in_text
    parser.feed("x")
    parser.feed(family.marker, special=family is HERMES)
    assert not parser.in_text


# --- Beside a response


@each_family
@pytest.mark.parametrize("response", ['{"a": "<tool_call>"}', '"x<tool_call>\\n{"', "1 <tool_call>", "<tool_cal", "<"])
def test_a_marker_inside_a_response_is_the_responses_own(family: ToolFormat, response: str) -> None:
    """F21, F12."""
    for pieces in ([response], list(response), [response[:3], response[3:]]):
        events = parse(family, pieces, has_response=True)
        assert read_text(events) == response
        assert not [event for event in events if isinstance(event, ToolCallStart)]


@each_family
def test_a_turn_that_begins_with_the_marker_is_a_call_beside_a_response_too(family: ToolFormat) -> None:
    """F21."""
    calls = [("f", {"a": 1}), ("g", {})]
    for places in ([], range(200)):
        parser = parser_of(family, has_response=True)
        pieces = cut(segments(family, "", calls), places)
        events = [event for piece, is_token in pieces for event in parser.feed(piece, special=is_token)]
        assert read_calls(events) == calls
        assert read_text(events) == ""


# --- Calls that were cut off


@each_family
def test_a_call_that_is_cut_anywhere_is_not_complete_and_leaves_no_markup(family: ToolFormat) -> None:
    """F1, F12."""
    turn = family.write_call("f", written({"a": '}"'})) + between(family) + call_of(family, "g", {"b": {}})
    first = len(call_of(family, "f", {"a": '}"'}))
    for length in range(len(family.marker), len(turn)):
        part = turn[:length]
        pieces = [family.marker, *part.removeprefix(family.marker)] if family is PLAIN else cut_tokens(part)
        events = parse(family, pieces)
        assert read_text(events) == ""
        assert len(read_calls(events)) == (1 if length >= first else 0)


def cut_tokens(part: str) -> list[str]:
    """The pieces that Hermes's tokens are, as far as the part goes."""
    tokenizer = tokenizer_of(HERMES)
    return [tokenizer.decode([token]) for token in tokenizer.encode(part)]


@each_family
@pytest.mark.parametrize("wrong", ["x", "\n\n", '\n{"nome": "f"'])
def test_text_that_no_call_begins_with_is_an_error(family: ToolFormat, wrong: str) -> None:
    """F15: the grammar does not let it through."""
    parser = parser_of(family)
    parser.feed(family.marker, special=family is HERMES)
    with pytest.raises(MatcherError):
        parser.feed(wrong)


@each_family
def test_text_after_a_call_that_is_no_call_is_an_error(family: ToolFormat) -> None:
    parser = parser_of(family)
    for piece in cut_tokens(call_of(HERMES, "f", {})):
        parser.feed(piece, special=family is HERMES and piece in tokenizer_of(HERMES).unspellable)
    with pytest.raises(MatcherError):
        parser.feed("done")


@pytest.mark.parametrize("length", range(1, len(PLAIN.marker)))
def test_a_marker_that_was_cut_off_beside_a_response_is_no_text(length: int) -> None:
    """F12."""
    parser = parser_of(PLAIN, has_response=True)
    assert parser.feed(PLAIN.marker[:length]) + parser.finish(cut=True) == []
