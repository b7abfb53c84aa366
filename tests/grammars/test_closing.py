"""The search for a closing path: what it promises, on small grammars and in the middle of values."""

import heapq
import itertools
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from engine.errors import MatcherError
from engine.grammars.closing import ClosingSearch
from engine.grammars.closing_hints import ClosingHints, regex_hints, schema_hints
from engine.grammars.closing_tokens import TokenOrder
from engine.grammars.json_schema import check_schema
from engine.grammars.llguidance_backend import LLGuidanceCompiler
from engine.grammars.matcher import Matcher
from engine.grammars.tool_formats import HERMES, PLAIN, ToolFormat
from engine.model import LoadedModel
from engine.tokenizer import Tokenizer
from tests.grammars.turns import INTEGER, STRING, an_object, compiler_of, takes, tokenizer_of

UNBOUNDED = 100_000  # tokens; more than any path here has


def searcher(tokenizer: Tokenizer, **options: Any) -> ClosingSearch:
    token_bytes = [tokenizer.token_bytes(token) for token in range(tokenizer.num_tokens)]
    special = tokenizer.unspellable.values()
    return ClosingSearch(token_bytes, eos_ids=tokenizer.eos_ids, special_ids=list(special), **options)


@pytest.fixture(scope="module")
def search() -> ClosingSearch:
    return searcher(tokenizer_of(PLAIN))


def after(text: str, source: str, family: ToolFormat = PLAIN) -> Matcher:
    """A matcher of the grammar's, with the text written."""
    matcher = compiler_of(family).compile(source, param="response")
    matcher.accept(tokenizer_of(family).encode(text))
    return matcher


def lark_of(schema: Any) -> str:
    return f"start: {check_schema(schema, 'response').lark()}"


def text_of(path: tuple[int, ...] | None) -> str | None:
    return None if path is None else tokenizer_of(PLAIN).decode(path)


def mask_of(matcher: Matcher) -> NDArray[np.int32]:
    row = np.zeros((tokenizer_of(PLAIN).num_tokens + 31) // 32, dtype=np.int32)
    matcher.fill_bitmask(row)
    return row


# --- Any place of a value

TREE = {"$ref": "#/$defs/tree", "$defs": {"tree": {"type": "array", "items": {"$ref": "#/$defs/tree"}, "maxItems": 2}}}
MANY = {f"property {number}": STRING for number in range(2000)}
PLACES: list[tuple[str, Any]] = [
    ('{"a": "so', an_object({"a": STRING, "b": INTEGER}, required=["a"])),
    ('{"a": "so', an_object({"a": STRING, "b": INTEGER}, required=["a", "b"])),
    ('{"a": 1', an_object({"a": {**INTEGER, "minimum": 100, "maximum": 199}}, required=["a"])),
    ('{"a": "\\', an_object({"a": STRING})),
    ('"\U0001f600 and', STRING),
    ("", {"type": "number", "exclusiveMinimum": 0.25, "maximum": 0.5}),
    ("-", {"type": "number", "maximum": -0.001}),
    ("", {**INTEGER, "minimum": 1000, "multipleOf": 97}),
    ("", {**STRING, "format": "date-time"}),
    ('"2024-0', {**STRING, "format": "date"}),
    ("", {**STRING, "format": "uuid"}),
    ("", {**STRING, "pattern": "^[a-z]+@[a-z]+\\.(com|org)$"}),
    ("", {**STRING, "pattern": "^(ab)*cd$"}),
    ("", {**STRING, "pattern": "^[0-9a-f]{64}$"}),
    ('"w', {**STRING, "pattern": "wifi"}),
    ("", {**STRING, "pattern": "^.*,.*@$"}),
    ("", {**STRING, "format": "uri", "pattern": "\\.pdf$"}),
    ('"http:/', {**STRING, "format": "uri", "pattern": "\\.pdf$"}),
    ("", {**STRING, "minLength": 500}),
    ("", {**STRING, "maxLength": 100_000}),
    ("[", {"type": "array", "items": {"enum": ["alpha", "beta", "alphabet"]}, "minItems": 3}),
    ("", {"enum": [f"value {number}" for number in range(10_000)]}),
    ("[[[[", TREE),
    ("", {"type": "array", "items": INTEGER, "minItems": 1000}),
    ('{"prop', an_object(MANY, required=["property 1999"])),
    ('{"a": {"b": [1, {"c": "', {}),
]
each_place = pytest.mark.parametrize(("text", "schema"), PLACES, ids=lambda each: str(each)[:30])


@each_place
def test_after_the_path_the_turn_may_end(search: ClosingSearch, text: str, schema: Any) -> None:
    matcher = after(text, lark_of(schema))
    path = search.path(matcher, UNBOUNDED, schema_hints(schema))
    assert path is not None
    assert takes(matcher, path)


@each_place
def test_a_path_that_fits_the_shortest_length_is_found_too(search: ClosingSearch, text: str, schema: Any) -> None:
    matcher, hints = after(text, lark_of(schema)), schema_hints(schema)
    shortest = search.shortest(matcher, UNBOUNDED, hints)
    assert shortest is not None
    path = search.path(matcher, len(shortest), hints)
    assert path is not None
    assert len(path) <= len(shortest)


@each_place
def test_the_path_is_what_the_engine_would_write_with_all_that_is_forced(
    search: ClosingSearch, text: str, schema: Any
) -> None:
    matcher = after(text, lark_of(schema))
    path = list(search.path(matcher, UNBOUNDED, schema_hints(schema)) or ())[:500]
    written = 0
    while written < len(path):
        forced = matcher.forced_tokens()[: len(path) - written]
        chosen = forced or path[written : written + 1]
        assert path[written : written + len(chosen)] == chosen
        matcher.accept(chosen)
        written += len(chosen)


@each_place
def test_the_matcher_that_is_given_stays_as_it_is(search: ClosingSearch, text: str, schema: Any) -> None:
    matcher = after(text, lark_of(schema))
    before = mask_of(matcher), matcher.is_accepting
    search.path(matcher, UNBOUNDED, schema_hints(schema))
    assert (mask_of(matcher).tolist(), matcher.is_accepting) == (before[0].tolist(), before[1])


def test_the_same_state_gives_the_same_path_whatever_was_searched_before() -> None:
    one, other = searcher(tokenizer_of(PLAIN)), searcher(tokenizer_of(PLAIN))
    sources = [(text, lark_of(schema)) for text, schema in PLACES[:15]]
    forwards = [one.path(after(*source), 100) for source in sources]
    backwards = [other.path(after(*source), 100) for source in reversed(sources)]
    assert forwards == backwards[::-1]


def test_where_the_turn_may_end_already_the_path_is_empty(search: ClosingSearch) -> None:
    assert search.path(after("12", lark_of(INTEGER)), 0) == ()


def test_searches_are_counted() -> None:
    search = searcher(tokenizer_of(PLAIN))
    search.path(after("", lark_of(STRING)), 10)
    search.shortest(after("", lark_of(STRING)), 10)
    assert search.num_searches == 2


# --- Against all the paths there are

SMALL = [
    'start: /a*b/ ("cd" | "e" start)',
    'start: "x" (start "y" | "z")',
    "start: /[ab]{3}/ /c|dd/",
    'start: "begin " ("long way round" | "cut") " end"',
    'start: /(ab|cde)+/ "!" | "name" "tool_call" "q"',
    'start: "{" start "}" | "[" start "]" | "0" | "name"',
    *(
        lark_of(schema)
        for schema in (
            {**INTEGER, "minimum": 120, "maximum": 250},
            {**INTEGER, "minimum": 50, "maximum": 90, "multipleOf": 7},
            {"type": "number", "exclusiveMinimum": 0.25, "maximum": 0.5},
            {"enum": ["red", "green", "blue", "name"]},
            {"enum": ["arguments", "arg", "argument_list", 17]},
            {"type": ["boolean", "null"]},
            an_object({"a": {"enum": [1, 2]}, "type": {"type": "boolean"}}, required=["type"]),
            {"type": "array", "items": {**INTEGER, "minimum": 5, "maximum": 17}, "minItems": 2},
            {"type": "array", "items": {"enum": ["alpha", "name"]}, "minItems": 2},
            {**STRING, "pattern": "^(ab)*c(de)?f$"},
            {**STRING, "pattern": "^(name|query|ab)(x|yz)$"},
            TREE,
        )
    ),
]


def length_of_the_shortest(matcher: Matcher) -> int:
    """By trying every allowed token everywhere, with what the grammar then forces."""
    eos_ids, tokenizer = tokenizer_of(PLAIN).eos_ids, tokenizer_of(PLAIN)

    def settled(place: Matcher, tokens: tuple[int, ...]) -> tuple[int, ...]:
        forced = tuple(itertools.takewhile(lambda token: token not in eos_ids, place.forced_tokens()))
        place.accept(forced)
        return (*tokens, *forced)

    start = matcher.copy()
    queue: list[tuple[int, tuple[int, ...], Matcher]] = [(len(tokens := settled(start, ())), tokens, start)]
    seen: set[str] = set()
    while True:
        length, tokens, place = heapq.heappop(queue)
        if place.is_accepting:
            return length
        if (text := tokenizer.decode(tokens)) in seen:
            continue
        seen.add(text)
        for token in np.flatnonzero(np.unpackbits(mask_of(place).view(np.uint8), bitorder="little")).tolist():
            after_token = place.copy()
            after_token.accept([token])
            all_tokens = settled(after_token, (*tokens, token))
            heapq.heappush(queue, (len(all_tokens), all_tokens, after_token))


@pytest.mark.parametrize("source", SMALL)
def test_the_shortest_path_is_the_shortest_there_is_and_none_is_found_below_it(
    search: ClosingSearch, source: str
) -> None:
    matcher = after("", source)
    least = length_of_the_shortest(matcher)
    shortest = search.shortest(matcher, UNBOUNDED)
    assert shortest is not None
    assert len(shortest) == least
    for max_tokens in range(least + 3):
        path = search.path(matcher, max_tokens)
        assert (path is None) == (max_tokens < least)
        assert path is None or len(path) <= max_tokens


def test_a_character_is_written_whole_where_a_token_has_it() -> None:
    """Else a name in Chinese costs three tokens for each character."""
    name = "名".encode()
    order = TokenOrder([*(bytes([byte]) for byte in name), name, b"ab"], eos_ids=(), special_ids=())
    choices = order.choices(np.array([0b11111], dtype=np.int32), None)
    assert choices.longest[:2] == (4, 3)


# --- Hints


def test_reasoning_in_free_text_is_ended_by_its_hint() -> None:
    source = 'start: thought "yes"\nthought[suffix="</think>"]: /(?s:.*)/'
    hinted = searcher(tokenizer_of(PLAIN), hints=ClosingHints(anywhere=("</think>",)))
    path = hinted.path(after("hm", source), UNBOUNDED)
    assert text_of(path) == "</think>yes"


def test_a_special_token_that_ends_something_comes_first() -> None:
    end = tokenizer_of(HERMES).unspellable["</tool_call>"]
    matcher = after("some", f"start: TEXT <[{end}]>\nTEXT: /(?s:.*)/", HERMES)
    assert searcher(tokenizer_of(HERMES)).path(matcher, UNBOUNDED) == (end,)


def test_the_names_of_required_properties_lead_past_the_optional_ones(search: ClosingSearch) -> None:
    schema = an_object({**MANY, "wanted": INTEGER}, required=["wanted"], additionalProperties=False)
    path = search.path(after("", lark_of(schema)), UNBOUNDED, schema_hints(schema))
    assert text_of(path) == '{"wanted": 12}'  # "12" is one token


def test_a_hint_that_cannot_help_does_no_harm(search: ClosingSearch) -> None:
    hints = ClosingHints(strings=('so"', 'a"', "b"), anywhere=("</think>", "!"))
    for text, schema in PLACES[:10]:
        matcher = after(text, lark_of(schema))
        path = search.path(matcher, UNBOUNDED, hints)
        assert path is not None
        assert takes(matcher, path)


def test_a_regex_is_ended_by_its_shortest_match(search: ClosingSearch) -> None:
    regex = r"(?s:.*)Answer: [0-9]+\."
    matcher = after("Let me see", "start: /" + regex + "/")
    assert text_of(search.path(matcher, UNBOUNDED, regex_hints(regex))) == "Answer: 0."


def test_one_search_goes_on_to_many_different_texts(search: ClosingSearch) -> None:
    matcher = after("", lark_of(an_object({"a": STRING}, required=["a"], additionalProperties=False)))
    texts = list(itertools.islice(search.texts(matcher), 100))
    assert len({json.loads(text)["a"] for text in texts}) > 50  # one text may have several cuts
    assert [json.loads(text) for text in search.texts(after("", lark_of({"enum": ["a", 1]})))] in (["a", 1], [1, "a"])


# --- Where there is no path, or not for every token


@dataclass
class Endless:
    """Takes any token, for ever."""

    def accept(self, tokens: object) -> None: ...

    def validate(self, tokens: list[int]) -> int:
        return len(tokens)

    def rollback(self, num_tokens: int) -> None: ...

    def forced_tokens(self) -> list[int]:
        return []

    def fill_bitmask(self, row: NDArray[np.int32]) -> None:
        row[:] = 0
        row[:3] = 0x0FFF_0FFF

    is_accepting = is_terminated = False
    wanted = ()

    def copy(self) -> "Endless":
        return Endless()


@pytest.mark.parametrize("max_nodes", [1, 50])
def test_a_grammar_without_an_end_stops_at_the_node_limit(max_nodes: int) -> None:
    search = searcher(tokenizer_of(PLAIN), max_nodes=max_nodes)
    assert search.path(Endless(), UNBOUNDED) is None
    assert search.num_nodes == max_nodes


def test_almost_free_text_that_shows_no_end_is_given_up(search: ClosingSearch) -> None:
    matcher = after("", "start: /(?s:.*)qZq7!/")
    assert search.path(matcher, UNBOUNDED) is None
    assert search.num_nodes < 1000


@dataclass
class Vetoing:
    """Another matcher, which raises where the text would hold one that is not wanted."""

    inner: Matcher
    unwanted: str
    written: str = ""
    wanted = ()

    def accept(self, tokens: list[int]) -> None:
        self.inner.accept(tokens)
        self.written += tokenizer_of(PLAIN).decode(tokens)
        if self.unwanted in self.written:
            raise MatcherError(f"{self.unwanted} is not wanted")

    def validate(self, tokens: list[int]) -> int:
        return self.inner.validate(tokens)

    def rollback(self, num_tokens: int) -> None:
        raise NotImplementedError

    def forced_tokens(self) -> list[int]:
        return self.inner.forced_tokens()

    def fill_bitmask(self, row: NDArray[np.int32]) -> None:
        self.inner.fill_bitmask(row)

    @property
    def is_accepting(self) -> bool:
        return self.inner.is_accepting

    @property
    def is_terminated(self) -> bool:
        return self.inner.is_terminated

    def copy(self) -> "Vetoing":
        return Vetoing(self.inner.copy(), self.unwanted, self.written)


@pytest.mark.parametrize(
    ("schema", "unwanted"),
    [
        (an_object({"a": STRING}, required=["a"]), '""'),
        ({"type": "array", "items": {"enum": ["alpha", "beta"]}, "minItems": 2}, '"alpha", "alpha"'),
        ({"type": "array", "items": {"enum": ["alpha", "beta"]}, "minItems": 2}, '"beta", "beta"'),
        ({"type": "array", "items": {"type": "boolean"}, "minItems": 70}, "false, false, false"),
    ],
)
def test_a_token_at_which_the_matcher_raises_is_not_taken(search: ClosingSearch, schema: Any, unwanted: str) -> None:
    matcher = Vetoing(after("", lark_of(schema)), unwanted)
    path = search.path(matcher, UNBOUNDED)
    assert path is not None
    assert takes(matcher.copy(), path)


# --- The embedded model's vocabulary


@pytest.fixture(scope="module")
def embedded(embedded_model: LoadedModel) -> tuple[Tokenizer, LLGuidanceCompiler]:
    tokenizer = embedded_model.tokenizer
    return tokenizer, LLGuidanceCompiler(tokenizer.backend_json(), eos_ids=sorted(tokenizer.eos_ids))


@pytest.mark.embedded
@pytest.mark.parametrize(
    ("schema", "longest"),
    [
        ({"type": "array", "items": INTEGER, "minItems": 1000}, 3001),
        (an_object({**MANY, "wanted": INTEGER}, required=["wanted"]), 8),
        ({"enum": [f"value {number}" for number in range(10_000)]}, 8),
        ({**STRING, "format": "date-time"}, 22),
        ({**STRING, "pattern": "wifi"}, 4),
        ({**STRING, "minLength": 1000}, 15),
    ],
)
def test_with_a_real_vocabulary_paths_are_short(
    embedded: tuple[Tokenizer, LLGuidanceCompiler], schema: Any, longest: int
) -> None:
    tokenizer, compiler = embedded
    matcher = compiler.compile(lark_of(schema), param="response")
    hints = schema_hints(check_schema(schema, "response").schema)
    path = searcher(tokenizer).path(matcher, UNBOUNDED, hints)
    assert path is not None
    assert len(path) <= longest
    assert takes(matcher, path)


# --- Special tokens


@pytest.mark.parametrize("ends", [False, True], ids=["not known", "known"])
def test_parts_that_may_be_followed_by_more_of_them_are_ended(ends: bool) -> None:
    """Calls, where one token begins the next and another ends them all: not one more, and one more, for ever."""
    begin, end = sorted(set(tokenizer_of(HERMES).unspellable.values()) - set(tokenizer_of(HERMES).eos_ids))[:2]
    matcher = after("", f'start: (<[{begin}]> "x")+ <[{end}]>', HERMES)
    search = searcher(tokenizer_of(HERMES), **({"ends": [end]} if ends else {}))
    assert search.shortest(matcher, UNBOUNDED) == (begin, *tokenizer_of(HERMES).encode("x"), end)
    if ends:
        assert search.path(matcher, 3, max_nodes=2) is not None
