"""JSON read from text in pieces: the same events however it is cut, and the value that Python's own parser reads."""

import contextlib
import itertools
import json
import operator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import MatcherError, VetoError
from engine.grammars.json_stream import Closed, JsonEvent, JsonStream, Named, Opened, Separated, grown

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
HARD_STRINGS = st.sampled_from(["", '"', "\\", '\\"', "\\\\", "]}", "{[,:", "\n\t\u2028", "😀", "null", "1"])
VALUES = st.recursive(
    SCALARS | HARD_STRINGS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3) | HARD_STRINGS, inner, max_size=4),
    max_leaves=12,
)


def read(pieces: list[str]) -> list[JsonEvent]:
    stream, events = JsonStream(), []
    for piece in pieces:
        events += stream.feed(piece)
    return events + stream.finish()


def cut(text: str, places: list[int]) -> list[str]:
    ends = sorted({place for place in places if place < len(text)})
    return [text[start:end] for start, end in zip([0, *ends], [*ends, len(text)], strict=True)]


@given(value=VALUES, places=st.lists(st.integers(1, 80)), escaped=st.booleans(), indent=st.none() | st.integers(0, 2))
@settings(max_examples=300, deadline=None)
def test_the_last_event_holds_the_value_and_no_cut_changes_any_event(
    value: Any, places: list[int], escaped: bool, indent: int | None
) -> None:
    text = json.dumps(value, ensure_ascii=escaped, indent=indent)
    events = read([text])
    assert repr(events[-1]) == repr(Closed(json.loads(text)))
    assert repr(read(cut(text, places))) == repr(events)
    assert repr(read(list(text))) == repr(events)


def test_events_come_in_the_order_of_the_text() -> None:
    assert read(['{"a": [1, "x"], "b": null}']) == [
        Opened(is_object=True),
        Named("a", is_repeated=False),
        Opened(is_object=False),
        Closed(1),
        Separated(in_object=False),
        Closed("x"),
        Closed([1, "x"]),
        Separated(in_object=True),
        Named("b", is_repeated=False),
        Closed(None),
        Closed({"a": [1, "x"], "b": None}),
    ]


@pytest.mark.parametrize("text", ['"ab"', "true", "false", "null", "[1]", "[]", '{"a": 1}', '["\\""]', "[1, [2] ]"])
def test_a_value_closes_with_its_last_character(text: str) -> None:
    stream = JsonStream()
    events = [stream.feed(character) for character in text]
    assert events[-1][-1] == Closed(json.loads(text))
    assert Closed(json.loads(text)) not in itertools.chain(*events[:-1])
    assert stream.feed(" \n") == []
    with pytest.raises(MatcherError):
        stream.feed("x")


def test_a_number_alone_closes_with_the_texts_end_only() -> None:
    stream = JsonStream()
    assert stream.feed("12") == []
    assert stream.is_open_number
    assert stream.copy().finish() == [Closed(12)]
    assert stream.feed("3") == []
    assert stream.finish() == [Closed(123)]
    assert not stream.is_open_number


def test_a_number_inside_something_closes_with_the_character_after_it() -> None:
    stream = JsonStream()
    stream.feed("[12")
    assert not stream.is_open_number
    assert stream.feed(",") == [Closed(12), Separated(in_object=False)]


@pytest.mark.parametrize(
    ("text", "repeated"),
    [
        ('{"a": 1, "a": 2}', [False, True]),
        ('{"a": 1, "b": 2, "b": 1, "a": 3}', [False, False, True, True]),
        ('{"a": {"a": 1}, "b": [{"a": 1}, {"a": 1}]}', [False, False, False, False, False]),
        ('{"": 1, "": 1}', [False, True]),
        ('{"\\u0061": 1, "a": 1}', [False, True]),
        ('{"\\n": 1, "n": 1}', [False, False]),
    ],
)
def test_a_name_that_the_same_object_has_already_is_told(text: str, repeated: list[bool]) -> None:
    """Names are compared as they are read, not as they are written."""
    assert [event.is_repeated for event in read([text]) if isinstance(event, Named)] == repeated


def test_of_thousands_of_names_the_one_that_is_repeated_is_told() -> None:
    names = [f"n{position}" for position in range(3000)]
    text = "{" + ", ".join(f'"{name}": 0' for name in [*names, "n1234"]) + "}"
    assert [event.is_repeated for event in read([text]) if isinstance(event, Named)] == [False] * 3000 + [True]


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "[", "{", '"', '"a', "[1", "[1,", '{"a"', '{"a":', '{"a": 1', "-", "tru", '"\\'),
        *("]", "}", ",", ":", "x", "nul]", "[,]", "[1,]", "[1 2]", "[1}", "{1: 2}", "{,}", '{"a"}', '{"a" 1}'),
        *('{"a": 1,}', '{"a": 1]', '{"a":: 1}', '["a" "b"]', "1 2", "[] []", '"a" "b"', "true false", "truefalse"),
        *("01", "+1", "1.", ".5", "1e", "NaN", "Infinity", "-Infinity", "[NaN]", '"\\x"', '"\\u12"', '"\n"', "'a'"),
    ],
)
def test_what_is_no_json_is_an_error(text: str) -> None:
    for pieces in ([text], list(text)):
        with pytest.raises(MatcherError) as raised:
            read(pieces)
        assert not isinstance(raised.value, VetoError)


@pytest.mark.parametrize("number", ["1e999", "-1e999", "9" * 5000])
def test_a_number_that_readers_cannot_hold_is_vetoed(number: str) -> None:
    with pytest.raises(VetoError):
        read([f"[{number}]"])


@given(value=VALUES, places=st.lists(st.integers(1, 80), min_size=1), other=VALUES)
@settings(max_examples=200, deadline=None)
def test_a_copy_goes_its_own_way(value: Any, places: list[int], other: Any) -> None:
    text = json.dumps([value], ensure_ascii=False)
    pieces = cut(text, places)
    stream, events = JsonStream(), []
    for position, piece in enumerate(pieces):
        copy, told = stream.copy(), list(events)
        for rest in pieces[position:]:
            told += copy.feed(rest)
        assert repr(told + copy.finish()) == repr(read([text]))
        with contextlib.suppress(MatcherError):
            stream.copy().feed(json.dumps(other))
        events += stream.feed(piece)
    assert repr(events + stream.finish()) == repr(read([text]))


@given(lengths=st.lists(st.integers(1, 40), min_size=1, max_size=60), is_sorted=st.booleans())
def test_what_grows_is_kept_in_few_blocks_in_whatever_pieces_it_comes(lengths: list[int], is_sorted: bool) -> None:
    """So a copy, and the next piece, cost the same late as early."""
    pieces = [chr(65 + number) * number for number in (sorted(lengths, reverse=True) if is_sorted else lengths)]
    blocks: tuple[str, ...] = ()
    for piece in pieces:
        before = blocks
        blocks = grown(blocks, piece, operator.add)
        assert "".join(blocks) == "".join(before) + piece
    assert len(blocks) <= sum(lengths).bit_length()


def test_an_array_of_ten_thousand_items_and_a_long_string_are_kept_in_few_blocks() -> None:
    stream = JsonStream()
    stream.feed("[" + "1, " * 10_000 + '"')
    for _ in range(10_000):
        stream.feed("xy")
    assert stream._frame is not None
    assert sum(map(len, stream._frame.items)) == 10_000
    assert sum(map(len, stream._lexeme)) == 20_000
    assert max(len(stream._frame.items), len(stream._lexeme)) < 16
