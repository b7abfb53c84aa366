"""A matcher under a veto: what it takes is what the grammar takes and the veto leaves, token by token."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import MatcherError, VetoError
from engine.grammars.matcher import Matcher
from engine.grammars.tool_formats import HERMES, PLAIN, ToolFormat
from engine.grammars.veto_matcher import TurnReader, TurnVetoes, VetoMatcher
from engine.types import CustomTool, Grammar, GrammarKind, Request, Tool
from tests.grammars.turns import (
    REQUIRED,
    STRING,
    an_object,
    call_of,
    calls,
    compiler_of,
    each_family,
    matcher_of,
    parser_of,
    request,
    takes,
    tokenizer_of,
    written,
)
from tests.grammars.vetoes import veto_of, without_vetoed

UNIQUE = {"type": "array", "items": STRING, "uniqueItems": True}
TAG = Tool("tag", "", an_object({"name": STRING, "tags": UNIQUE}, required=["name", "tags"]))
NOTE = Tool("note", "", an_object({"text": STRING}, required=["text"]))


def under_veto(asked: Request, family: ToolFormat, response: Any = None) -> VetoMatcher:
    """A matcher of the turn; whatever these tests veto is in the veto, the rest in the grammar."""
    tools = [each for each in asked.tools if isinstance(each, Tool)]
    loose = tuple(
        replace(each, parameters=without_vetoed(each.parameters)) if isinstance(each, Tool) else each
        for each in asked.tools
    )
    held = replace(asked, tools=loose)
    if response is not None:
        held = replace(held, response=Grammar(GrammarKind.JSON_SCHEMA, written(without_vetoed(response))))
    custom = [each.name for each in asked.tools if isinstance(each, CustomTool)]
    parser = parser_of(family, has_calls=bool(asked.tools), has_response=response is not None, custom_names=custom)
    vetoes = TurnVetoes(
        {each.name: veto_of(each.parameters) for each in tools if each.name != NOTE.name},
        None if response is None else veto_of(response),
    )
    return VetoMatcher(matcher_of(held, family), TurnReader(parser, vetoes, tokenizer_of(family)))


def response_matcher(schema: Any) -> VetoMatcher:
    return under_veto(request(), PLAIN, schema)


def ids(text: str, family: ToolFormat = PLAIN) -> list[int]:
    return tokenizer_of(family).encode(text)


def one_by_one(text: str) -> list[int]:
    """Each byte as its own token."""
    return [token for byte in text.encode() for token in _byte_tokens()[byte]]


def _byte_tokens() -> Mapping[int, list[int]]:
    tokenizer = tokenizer_of(PLAIN)
    found: dict[int, list[int]] = {}
    for token in range(tokenizer.num_tokens):
        if len(tokenizer.token_bytes(token)) == 1:
            found.setdefault(tokenizer.token_bytes(token)[0], [token])
    return found


def row_of(matcher: Matcher) -> list[int]:
    row = np.zeros((tokenizer_of(PLAIN).num_tokens + 31) // 32, dtype=np.int32)
    matcher.fill_bitmask(row)
    return [int(word) for word in row]


def vetoed_token(matcher: Matcher, tokens: Sequence[int]) -> int | None:
    """The position of the token that is vetoed; None where none is."""
    for position, token in enumerate(tokens):
        try:
            matcher.accept([token])
        except VetoError:
            return position
    return None


# --- In a turn


@each_family
def test_the_arguments_of_a_call_are_under_the_veto_of_their_tool(family: ToolFormat) -> None:
    good = calls(family, ("tag", {"name": "a", "tags": ["x", "y"]}), ("tag", {"name": "a", "tags": ["x"]}))
    bad = calls(family, ("tag", {"name": "a", "tags": ["x"]}), ("tag", {"name": "a", "tags": ["x", "x"]}))
    asked = request(TAG, NOTE)
    assert takes(under_veto(asked, family), ids(good, family))
    matcher, tokens = under_veto(asked, family), ids(bad, family)
    position = vetoed_token(matcher, tokens)
    assert position is not None
    assert tokenizer_of(family).decode(tokens[:position]).endswith('"tags": ["x", "x')


@each_family
def test_free_text_other_tools_and_custom_tools_are_not(family: ToolFormat) -> None:
    shell = CustomTool("shell")
    asked = request(TAG, NOTE, shell)
    doubled = written({"name": "a", "tags": ["x", "x"]})
    for turn in (
        f"Such as {doubled}.",
        calls(family, ("note", {"text": doubled})),
        family.write_input("shell", doubled),
    ):
        assert takes(under_veto(asked, family), ids(turn, family))


@each_family
def test_a_response_is_under_its_veto_and_a_call_beside_it_under_the_tools(family: ToolFormat) -> None:
    asked, schema = request(TAG), an_object({"list": UNIQUE}, required=["list"])
    for turn, is_valid in (
        (written({"list": ["x", "<tool"]}), True),
        (written({"list": ["x", "x"]}), False),
        (calls(family, ("tag", {"name": "x", "tags": []})), True),
        (calls(family, ("tag", {"name": "x", "tags": ["", ""]})), False),
    ):
        assert takes(under_veto(asked, family, schema), ids(turn, family)) is is_valid


TAGS = st.lists(st.sampled_from(["", "a", "é", "é😀", '"', "]"]), max_size=4)


@each_family
@given(tags=TAGS, places=st.lists(st.integers(1, 60), max_size=6))
@settings(max_examples=60, deadline=None)
def test_every_cut_into_tokens_gives_the_same_verdict(family: ToolFormat, tags: list[str], places: list[int]) -> None:
    """F24: characters that tokens cut through are read once they are whole."""
    asked, arguments = request(TAG, choice=REQUIRED), written({"name": "n", "tags": tags})
    before, after = call_of(family, "tag", "|").split("|")
    bounds = [0, *sorted({place for place in places if place < len(arguments)}), len(arguments)]
    cut = [token for start, end in itertools.pairwise(bounds) for token in ids(arguments[start:end], family)]
    for inside in (ids(arguments, family), cut, one_by_one(arguments)):
        tokens = [*ids(before, family), *inside, *ids(after, family)]
        assert takes(under_veto(asked, family), tokens) == (len(set(tags)) == len(tags))


# --- The protocol


def test_a_vetoed_token_leaves_the_matcher_as_it_was() -> None:
    """F15: so another token may be drawn."""
    matcher = response_matcher(UNIQUE)
    matcher.accept(ids('["ab", "ab'))
    before = row_of(matcher), matcher.is_accepting, matcher.must_look_ahead, matcher.forced_tokens()
    for _ in range(3):
        with pytest.raises(VetoError):
            matcher.accept(one_by_one('"'))
    assert (row_of(matcher), matcher.is_accepting, matcher.must_look_ahead, matcher.forced_tokens()) == before
    matcher.accept(one_by_one('c"]'))
    assert matcher.is_accepting


def test_of_many_tokens_those_before_the_vetoed_one_stay_accepted() -> None:
    matcher = response_matcher(UNIQUE)
    with pytest.raises(VetoError):
        matcher.accept(one_by_one('["a", "a", "b"]'))
    matcher.accept(one_by_one('b"]'))
    assert matcher.is_accepting


def test_an_illegal_token_is_no_veto_and_leaves_the_matcher_as_it_was_too() -> None:
    matcher = response_matcher(UNIQUE)
    matcher.accept(ids('["a"'))
    for wrong in ("x", "}", '"', "1"):
        with pytest.raises(MatcherError) as raised:
            matcher.accept(one_by_one(wrong))
        assert not isinstance(raised.value, VetoError)
    matcher.accept(ids("]"))
    assert matcher.is_accepting


def test_validate_counts_up_to_the_first_token_that_is_illegal_or_vetoed_and_changes_nothing() -> None:
    """F18."""
    matcher = response_matcher(UNIQUE)
    matcher.accept(ids('["a", '))
    before = row_of(matcher)
    for text, num in (('"b"]', 4), ('"a"]', 2), ('"b", "b", "c"', 7), ("1", 0), ("", 0), ('"b"}', 3)):
        assert matcher.validate(one_by_one(text)) == num
    assert row_of(matcher) == before
    matcher.accept(ids('"b"]'))


def test_forced_tokens_end_before_the_first_that_is_vetoed() -> None:
    matcher = response_matcher({"enum": [["aa", "aa"], ["bb", "b"]], **UNIQUE})
    matcher.accept(one_by_one('["a'))
    assert tokenizer_of(PLAIN).decode(matcher.forced_tokens()) in ('a", "aa', 'a", "a')
    matcher = response_matcher({"enum": [["aa", "aa"], ["bb", "b"]], **UNIQUE})
    matcher.accept(one_by_one('["b'))
    forced = tokenizer_of(PLAIN).decode(matcher.forced_tokens())
    assert forced.startswith('b", "b"')


def test_the_mask_is_the_grammars() -> None:
    """Tokens are vetoed one by one, after they were drawn."""
    matcher, grammar = response_matcher(UNIQUE), matcher_of(request(response=_json(without_vetoed(UNIQUE))), PLAIN)
    for token in ids('["a", "a'):
        assert row_of(matcher) == row_of(grammar)
        matcher.accept([token])
        grammar.accept([token])
    assert row_of(matcher) == row_of(grammar)


def _json(schema: Any) -> Grammar:
    return Grammar(GrammarKind.JSON_SCHEMA, written(schema))


def test_the_compiler_fills_the_matcher_inside() -> None:
    matcher = response_matcher(UNIQUE)
    assert type(matcher.grammar) is type(compiler_of(PLAIN).compile("start: /a*/", param="p"))
    assert matcher.grammar.grammar is matcher.grammar


def test_a_copy_goes_its_own_way() -> None:
    matcher = response_matcher(UNIQUE)
    matcher.accept(ids('["a", "'))
    copy = matcher.copy()
    copy.accept(one_by_one('b"'))
    with pytest.raises(VetoError):
        matcher.accept(one_by_one('a"'))
    matcher = copy.copy()
    copy.accept(ids("]"))
    assert copy.is_accepting
    assert not matcher.is_accepting
    matcher.accept(ids(', "c"]'))
    assert matcher.is_accepting
    assert matcher.is_terminated


def test_a_copy_in_the_middle_of_a_character_has_its_first_bytes() -> None:
    matcher = response_matcher(UNIQUE)
    matcher.accept(one_by_one('["é", "')[:-1] + one_by_one('"'))
    matcher.accept(one_by_one("é")[:1])
    copy = matcher.copy()
    for each in (copy, matcher):
        with pytest.raises(VetoError):
            each.accept([*one_by_one("é")[1:], *one_by_one('"')])


# --- A number that is the whole response

NOT_FIVE = {"type": "integer", "minimum": 0, "maximum": 99, "not": {"enum": [5, 77]}}


def test_a_number_alone_is_judged_by_the_token_that_ends_the_turn() -> None:
    eos = min(tokenizer_of(PLAIN).eos_ids)
    matcher = response_matcher({**NOT_FIVE, "maximum": 999})
    matcher.accept(one_by_one("5"))
    assert not matcher.is_accepting
    assert matcher.validate([eos]) == 0
    with pytest.raises(VetoError):
        matcher.accept([eos])
    matcher.accept(one_by_one("0"))
    assert matcher.is_accepting
    matcher.accept([eos])


def test_a_number_that_the_grammar_ends_is_judged_with_its_last_digit() -> None:
    """No token comes after it that could be vetoed."""
    matcher = response_matcher(NOT_FIVE)
    assert matcher.validate(one_by_one("77")) == 1
    matcher.accept(one_by_one("7"))
    with pytest.raises(VetoError):
        matcher.accept(one_by_one("7"))
    matcher.accept(one_by_one("8"))
    assert matcher.is_terminated
    assert matcher.is_accepting


# --- Looking ahead


@each_family
def test_ways_to_the_end_are_looked_for_in_the_values_that_are_judged_and_nowhere_else(family: ToolFormat) -> None:
    matcher, seen = under_veto(request(TAG, NOTE), family), ""
    turn = "Well. " if family is PLAIN else ""
    told = []
    for token in ids(turn + calls(family, ("tag", {"name": "nm", "tags": ["x"]}), ("note", {"text": "t"})), family):
        matcher.accept([token])
        seen += tokenizer_of(family).decode([token])
        told.append((seen, matcher.must_look_ahead))
    assert not any(ahead for text, ahead in told if '{"name": "tag"' not in text)
    assert not any(ahead for text, ahead in told if text.endswith(('"name": "n', '"name": "nm')))
    assert all(ahead for text, ahead in told if '"tags": [' in text and "]" not in text)
    assert not any(ahead for text, ahead in told if "]" in text)


# --- Tokens of any shape


@dataclass
class AnyTokens:
    """A grammar that takes whatever it is given."""

    def accept(self, tokens: Sequence[int]) -> None: ...

    def validate(self, tokens: Sequence[int]) -> int:
        return len(tokens)

    def forced_tokens(self) -> list[int]:
        return []

    def fill_bitmask(self, row: np.ndarray) -> None:
        row[:] = -1

    @property
    def grammar(self) -> Self:
        return self

    is_accepting = is_terminated = False

    def copy(self) -> Self:
        return self


@dataclass(frozen=True)
class Spelled:
    """A vocabulary of these tokens."""

    tokens: tuple[bytes, ...]
    unspellable: Mapping[str, int]
    eos_ids: frozenset[int] = frozenset()

    def token_bytes(self, token_id: int) -> bytes:
        return self.tokens[token_id]


def spelled(schema: Any, *tokens: str | bytes) -> int | None:
    """Which of the tokens, in this order, is vetoed."""
    spellings = tuple(token.encode() if isinstance(token, str) else token for token in tokens)
    parser = parser_of(PLAIN, has_calls=False, has_response=True)
    reader = TurnReader(parser, TurnVetoes(response=veto_of(schema)), Spelled(spellings, {}))
    return vetoed_token(VetoMatcher(AnyTokens(), reader), range(len(tokens)))


@pytest.mark.parametrize(
    ("tokens", "vetoed"),
    [
        (['[["a"], ["a"]'], None),
        (['[["a", "b"], ["a', '", "b"], [', '"a"]]'], None),
        (['[["a", "a"], ["b"'], 0),
        (['[["a', '", "a"], ["', 'b"]]'], 1),
        (['[["a"', '], ["a", "', 'a"]]'], 2),
        (['[[], ["a', '"]]'], None),
        (['[[], ["a", "', 'b"]]'], None),
        (['[["a"], ["b", "b', '"]]'], 1),
        (['[["a", "a"]]'], 0),
        ([b'[["\xc3', b'\xa9", "\xc3', b'\xa9"'], 2),
        ([b'[["\xf0\x9f', b"\x98", b'\x80", "\xf0\x9f\x98\x80"', b"]]"], 2),
        ([b'[["\xc3\xa9", "\xc3', b'\xa8"]]'], None),
    ],
)
def test_one_token_may_close_and_open_values_and_cut_through_characters(
    tokens: list[str | bytes], vetoed: int | None
) -> None:
    assert spelled({"items": UNIQUE}, *tokens) == vetoed


def test_a_token_that_spells_a_marker_is_one_only_where_it_is_that_token() -> None:
    """F21: of the same bytes, one token opens a call, others are text."""
    tokens = (b"<tool_call>", b"<tool", b"_call>", b'\n{"name": "tag", "arguments": ', b'{"tags": ["x", "x"')
    vetoes = TurnVetoes({"tag": veto_of(TAG.parameters)})
    reader = TurnReader(parser_of(HERMES), vetoes, Spelled(tokens, {"<tool_call>": 0}))
    assert vetoed_token(VetoMatcher(AnyTokens(), reader.copy()), [1, 2, 3, 4]) is None
    assert vetoed_token(VetoMatcher(AnyTokens(), reader.copy()), [0, 3, 4]) == 2
