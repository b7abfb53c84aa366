"""The default compiler behind its protocol: every error state is an exception, and nothing is shared by accident."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from llguidance import LLMatcher, LLParserLimits

from engine.errors import GrammarError, MatcherError
from engine.grammars import llguidance_backend
from engine.grammars.json_schema import check_schema
from engine.grammars.llguidance_backend import LLGuidanceCompiler, LLGuidanceMatcher
from engine.sampling.bitmask import num_words
from tests.fakes import EOS, fake_tokenizer
from tests.grammars.turns import written

TOKENIZER = fake_tokenizer()
EOS_ID = TOKENIZER.encode(EOS)[0]
WORDS = num_words(TOKENIZER.num_tokens)


@pytest.fixture(scope="module")
def compiler() -> LLGuidanceCompiler:
    return LLGuidanceCompiler(TOKENIZER.backend_json(), eos_ids=[EOS_ID])


ids = TOKENIZER.encode


def row_of(matcher: LLGuidanceMatcher, num: int = WORDS) -> np.ndarray:
    row = np.full(num, -1, dtype=np.int32)
    matcher.fill_bitmask(row)
    return row


def allowed(row: np.ndarray) -> list[int]:
    return np.flatnonzero(np.unpackbits(row.view(np.uint8), bitorder="little")).tolist()


def lost(compiler: LLGuidanceCompiler) -> LLGuidanceMatcher:
    """A matcher whose library object is in its error state."""
    matcher = compiler.compile("start: /a*/", param="p")
    with pytest.raises(MatcherError):
        matcher.accept([TOKENIZER.num_tokens + 1000])
    return matcher


def schema(keywords: object) -> str:
    return f"start: %json {written(keywords)}"


# --- A matcher


def test_accepted_tokens_lead_to_the_end(compiler: LLGuidanceCompiler) -> None:
    matcher = compiler.compile('start: "a" ("b" | "c")', param="p")
    assert not matcher.is_accepting
    matcher.accept(ids("a"))
    assert not matcher.is_accepting
    matcher.accept(ids("c"))
    assert matcher.is_accepting
    assert matcher.is_terminated


def test_a_turn_that_may_end_and_may_go_on_is_accepting_but_not_terminated(compiler: LLGuidanceCompiler) -> None:
    matcher = compiler.compile("start: /a+/", param="p")
    matcher.accept(ids("a"))
    assert matcher.is_accepting
    assert not matcher.is_terminated


def test_no_tokens_are_accepted_without_change(compiler: LLGuidanceCompiler) -> None:
    matcher = compiler.compile('start: "ab"', param="p")
    before = row_of(matcher).tolist()
    matcher.accept([])
    assert matcher.validate([]) == 0
    assert row_of(matcher).tolist() == before


@pytest.mark.parametrize("tokens", ["b", "ab", "aab"])
def test_an_illegal_token_is_an_error_wherever_it_comes(compiler: LLGuidanceCompiler, tokens: str) -> None:
    """F15."""
    matcher = compiler.compile('start: /a*/ "x"', param="p")
    with pytest.raises(MatcherError):
        matcher.accept([id_ for character in tokens for id_ in ids(character)])


def test_an_illegal_token_leaves_the_matcher_before_it(compiler: LLGuidanceCompiler) -> None:
    matcher = compiler.compile('start: "ab"', param="p")
    matcher.accept(ids("a"))
    with pytest.raises(MatcherError):
        matcher.accept(ids("x"))
    matcher.accept(ids("b"))
    assert matcher.is_accepting


def test_the_end_of_the_turn_is_illegal_before_the_grammar_ends(compiler: LLGuidanceCompiler) -> None:
    matcher = compiler.compile('start: "ab"', param="p")
    matcher.accept(ids("a"))
    with pytest.raises(MatcherError):
        matcher.accept([EOS_ID])


def test_a_special_token_is_illegal_inside_a_string(compiler: LLGuidanceCompiler) -> None:
    """F24."""
    matcher = compiler.compile(schema({"type": "string"}), param="p")
    matcher.accept(ids('"a'))
    inside = allowed(row_of(matcher))
    assert not TOKENIZER.special_ids & set(inside)
    assert set(ids("b")) <= set(inside)


@pytest.mark.parametrize("method", ["accept", "validate", "forced_tokens", "row", "accepting", "terminated", "copy"])
def test_whoever_asks_a_matcher_that_is_in_error_gets_an_exception(compiler: LLGuidanceCompiler, method: str) -> None:
    """F15: the library would go on and say nothing."""
    matcher = lost(compiler)
    ask: dict[str, Callable[[], object]] = {
        "accept": lambda: matcher.accept(ids("a")),
        "validate": lambda: matcher.validate(ids("a")),
        "forced_tokens": matcher.forced_tokens,
        "row": lambda: row_of(matcher),
        "accepting": lambda: matcher.is_accepting,
        "terminated": lambda: matcher.is_terminated,
        "copy": matcher.copy,
    }
    with pytest.raises(MatcherError):
        ask[method]()


def test_a_token_that_is_no_token_is_an_error(compiler: LLGuidanceCompiler) -> None:
    matcher = compiler.compile("start: /a*/", param="p")
    with pytest.raises(MatcherError):
        matcher.accept([TOKENIZER.num_tokens + 1000])


def test_validate_counts_the_good_tokens_and_changes_nothing(compiler: LLGuidanceCompiler) -> None:
    """F18: drafts are checked token by token."""
    matcher = compiler.compile('start: "abc"', param="p")
    a, b, x = ids("a")[0], ids("b")[0], ids("x")[0]
    before = row_of(matcher).tolist()
    assert [matcher.validate(draft) for draft in ([a, b], [a, x, b], [x], [a])] == [2, 1, 0, 1]
    assert row_of(matcher).tolist() == before
    matcher.accept([a, b])


def test_a_copy_goes_its_own_way(compiler: LLGuidanceCompiler) -> None:
    matcher = compiler.compile('start: "a" ("b" | "c")', param="p")
    matcher.accept(ids("a"))
    before = row_of(matcher).tolist()
    copy = matcher.copy()
    copy.accept(ids("b"))
    assert copy.is_accepting
    assert not matcher.is_accepting
    assert row_of(matcher).tolist() == before
    matcher.accept(ids("c"))


def test_a_copy_in_error_leaves_the_original_alone(compiler: LLGuidanceCompiler) -> None:
    matcher = compiler.compile("start: /a*/", param="p")
    copy = matcher.copy()
    with pytest.raises(MatcherError):
        copy.accept(ids("b"))
    matcher.accept(ids("a"))
    assert matcher.is_accepting


def test_forced_tokens_are_cut_as_the_tokenizer_cuts_them_and_change_nothing(compiler: LLGuidanceCompiler) -> None:
    text = '{"name": "calculate", "arguments": {"expression": '
    matcher = compiler.compile(f"start: {written(text)} /[a-z]/", param="p")
    forced = matcher.forced_tokens()
    assert forced == ids(text)[: len(forced)]
    assert len(forced) >= len(ids(text)) - 1
    assert matcher.forced_tokens() == forced


def test_where_there_is_a_choice_nothing_is_forced(compiler: LLGuidanceCompiler) -> None:
    assert compiler.compile('start: "a" | "b"', param="p").forced_tokens() == []


# --- Rows


@pytest.mark.parametrize("extra", [0, 1, 7])
def test_a_row_is_filled_whole_and_is_zero_past_the_vocabulary(compiler: LLGuidanceCompiler, extra: int) -> None:
    row = row_of(compiler.compile("start: /(?s:.*)/", param="p"), WORDS + extra)
    tokens = allowed(row)
    assert max(tokens) < TOKENIZER.num_tokens
    assert row[WORDS:].tolist() == [0] * extra


def test_a_row_says_what_accept_will_say(compiler: LLGuidanceCompiler) -> None:
    matcher = compiler.compile(schema({"enum": ["ab", "b", 12]}), param="p")
    tokens = set(allowed(row_of(matcher)))
    assert {token for token in range(TOKENIZER.num_tokens) if matcher.validate([token])} == tokens


GRAMMARS = [
    "start: /a*/",
    'start: "call"',
    schema({"type": "object"}),
    schema({"enum": ["x", 1]}),
    "start: /(?s:.*)/",
    "start: /[0-9]{3}/",
]


@pytest.mark.parametrize("rows", [[0], [0, 1], [2, 0, 5], [5, 4, 3, 2, 1, 0], [7, 1]])
def test_rows_filled_together_equal_rows_filled_one_by_one(compiler: LLGuidanceCompiler, rows: list[int]) -> None:
    matchers = [compiler.compile(GRAMMARS[row % len(GRAMMARS)], param="p") for row in rows]
    bitmask = np.full((8, WORDS + 2), 5, dtype=np.int32)
    assert compiler.fill_bitmasks(list(zip(matchers, rows, strict=True)), bitmask) == {}
    for matcher, row in zip(matchers, rows, strict=True):
        assert bitmask[row].tolist() == row_of(matcher, WORDS + 2).tolist()
    untouched = [row for row in range(8) if row not in rows]
    assert (bitmask[untouched] == 5).all()


@pytest.mark.parametrize("num_good", [1, 3])
def test_a_row_that_fails_leaves_the_others_as_they_are(compiler: LLGuidanceCompiler, num_good: int) -> None:
    """F15."""
    good = [compiler.compile(GRAMMARS[position], param="p") for position in range(num_good)]
    bad = lost(compiler)
    bitmask = np.zeros((num_good + 1, WORDS), dtype=np.int32)
    failed = compiler.fill_bitmasks([(bad, 0), *((matcher, row + 1) for row, matcher in enumerate(good))], bitmask)
    assert list(failed) == [0]
    assert isinstance(failed[0], MatcherError)
    for row, matcher in enumerate(good):
        assert bitmask[row + 1].tolist() == row_of(matcher).tolist()


@dataclass
class Wrapped:
    """A matcher around another, of which nothing but its mask counts here."""

    inner: LLGuidanceMatcher

    @property
    def grammar(self) -> LLGuidanceMatcher:
        return self.inner.grammar

    def fill_bitmask(self, row: np.ndarray) -> None:
        self.inner.fill_bitmask(row)


class CountingCompiler(LLGuidanceCompiler):
    """Counts the masks that are computed ahead, on all cores."""

    num_ahead = 0

    def _fill_ahead(self, matchers: Sequence[LLMatcher]) -> None:
        self.num_ahead += len(matchers)
        super()._fill_ahead(matchers)


@pytest.mark.parametrize("num_matchers", [2, 5])
def test_the_masks_of_wrapped_matchers_are_computed_on_all_cores_like_the_others(num_matchers: int) -> None:
    compiler = CountingCompiler(TOKENIZER.backend_json(), eos_ids=[EOS_ID])
    plain = [compiler.compile(GRAMMARS[row % len(GRAMMARS)], param="p") for row in range(num_matchers)]
    matchers = [Wrapped(matcher) if row % 2 else matcher for row, matcher in enumerate(plain)]
    bitmask = np.zeros((num_matchers, WORDS), dtype=np.int32)
    assert compiler.fill_bitmasks(list(zip(matchers, range(num_matchers), strict=True)), bitmask) == {}
    assert compiler.num_ahead == num_matchers
    assert bitmask.tolist() == [row_of(matcher).tolist() for matcher in plain]


def test_a_row_alone_is_not_handed_to_other_cores() -> None:
    compiler = CountingCompiler(TOKENIZER.backend_json(), eos_ids=[EOS_ID])
    compiler.fill_bitmasks([(compiler.compile("start: /a*/", param="p"), 0)], np.zeros((1, WORDS), dtype=np.int32))
    assert compiler.num_ahead == 0


def test_no_rows_are_filled_at_once_without_harm(compiler: LLGuidanceCompiler) -> None:
    assert compiler.fill_bitmasks([], np.zeros((0, WORDS), dtype=np.int32)) == {}


# --- Grammars that cannot be


@pytest.mark.parametrize(
    "source",
    [
        "start: nothing",
        "start: /(/",
        "start",
        "",
        "start: %json {",
        schema({"$ref": "#"}),
        schema({"type": "object", "properties": {"a": False}, "required": ["a"]}),
        schema({"type": "string", "minLength": 3, "maxLength": 2}),
        schema(False),
        schema({"enum": []}),
        'start: /a/ & /b/\n',
        "start: LOOP\nLOOP: /a(?=b)/",
    ],
)  # fmt: skip
def test_a_grammar_that_is_none_or_allows_nothing_is_refused_when_it_compiles(
    compiler: LLGuidanceCompiler, source: str
) -> None:
    with pytest.raises(GrammarError) as caught:
        compiler.compile(source, param="tools[3].parameters")
    assert caught.value.param == "tools[3].parameters"
    assert str(caught.value).startswith("tools[3].parameters cannot be ")


@pytest.mark.parametrize("source", [schema({"$ref": "#"}), "start: secret_rule", 'start: "secret" /(/'])
def test_the_error_is_one_line_that_does_not_show_the_grammar(compiler: LLGuidanceCompiler, source: str) -> None:
    with pytest.raises(GrammarError) as caught:
        compiler.compile(source, param="response")
    text = str(caught.value)
    assert "\n" not in text
    assert "verbose" not in text
    assert "%json" not in text
    assert len(text) < 200


def test_a_grammar_that_failed_does_not_spoil_the_next(compiler: LLGuidanceCompiler) -> None:
    for _ in range(2):
        with pytest.raises(GrammarError):
            compiler.compile("start: nothing", param="p")
    compiler.compile("start: /a*/", param="p").accept(ids("a"))


def test_hundreds_of_optional_properties_can_be_walked(compiler: LLGuidanceCompiler) -> None:
    """With the library's own limits the walk dies after some 600 of them."""
    properties = {f"p{position}": {"type": "integer"} for position in range(700)}
    matcher = compiler.compile(schema({"type": "object", "properties": properties}), param="p")
    for token in ids('{"p0": 1, "p350": -2, "p699": 3}'):
        assert token in allowed(row_of(matcher))
        matcher.accept([token])
    assert matcher.is_accepting


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("start: start", "no text satisfies it"),
        ("start: X\nX: Y & ~Z\nY: /a/\nZ: /a/", "no text satisfies it"),
        ("", "it is empty"),
        ("start: X\nX: /(.*a.{100}b){30}/ & /(.*c.{100}d){30}/", "smaller repetition counts"),
        (r"start: /\b/", r"\b is not supported"),
        ('start: %json {"type": "string", "pattern": "a^b"}', "nor are ^ and $ inside of a pattern"),
        ("start: /a", "without an end"),
        ("start: (", "found the end of a line"),
        ('start: "a" : "b"', 'at ":"'),
    ],
    ids=ascii,
)
def test_a_reason_of_the_library_is_told_in_plain_words(compiler: LLGuidanceCompiler, source: str, reason: str) -> None:
    with pytest.raises(GrammarError, match=re.escape(reason)):
        compiler.compile(source, param="p")


def test_a_limit_of_the_library_is_told_in_plain_words(
    compiler: LLGuidanceCompiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = LLParserLimits(max_items_in_row=5, verbose_errors=False)
    monkeypatch.setattr(llguidance_backend, "_limits", lambda: few)
    optional = {"properties": {name: {} for name in "abcdefgh"}, "type": "object"}
    with pytest.raises((GrammarError, MatcherError), match="too many ways to go on"):
        compiler.compile(schema(optional), param="p").accept(ids('{"a"'))


def test_patterns_that_are_too_complex_together_are_told_in_plain_words(compiler: LLGuidanceCompiler) -> None:
    """A string that is long and not one of an enum's: none of the library's expressions reaches the caller."""
    checked = check_schema(
        {"type": "string", "not": {"anyOf": [{"enum": ["a\\b"]}, {"maxLength": 100_000}]}}, "response"
    )
    with pytest.raises(GrammarError) as refused:
        compiler.compile(f"start: {checked.lark()}", param="response")
    assert "its patterns are too complex together; simplify them" in str(refused.value)
    assert "Regex" not in str(refused.value)
