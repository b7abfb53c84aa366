"""The bound on what a value that was begun can still need: it is never too small, and not much too large."""

import gzip
import json
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from engine.errors import RequestError
from engine.grammars.closing import ClosingSearch
from engine.grammars.closing_bounds import ClosingBound, longest_closing, text_closing
from engine.grammars.closing_hints import regex_hints, schema_hints
from engine.grammars.json_schema import check_schema
from engine.grammars.literals import regex_literal
from engine.grammars.matcher import Matcher
from engine.grammars.tool_formats import PLAIN
from tests.grammars.turns import INTEGER, STRING, an_object, compiler_of, tokenizer_of

UNBOUNDED = 100_000  # tokens
SAMPLE = Path(__file__).parents[3] / "shared" / "data" / "maskbench-dev.jsonl.gz"


def bound_of(schema: Any) -> ClosingBound | None:
    return longest_closing(check_schema(schema, "response").schema)


def base_of(schema: Any) -> int:
    bound = bound_of(schema)
    assert bound is not None
    return bound.at(0)


# --- Values

TREE = {
    "$ref": "#/$defs/tree",
    "$defs": {
        "tree": an_object(
            {"name": STRING, "children": {"type": "array", "items": {"$ref": "#/$defs/tree"}}},
            required=["name", "children"],
        )
    },
}
OPEN_CHARACTER = 3
AT_LEAST_AND_AT_MOST: list[tuple[Any, str, int]] = [
    # the schema, the longest text that a state can need, and what the bound may have beyond it
    ({"const": "abc"}, '"abc"', 0),
    ({"enum": ["a", "a long one", 7]}, '"a long one"', 0),
    ({"type": "boolean"}, "false", 0),
    ({"type": "null"}, "null", 0),
    (STRING, '""', OPEN_CHARACTER),
    ({**STRING, "minLength": 20}, '"12345678901234567890"', OPEN_CHARACTER),
    ({**STRING, "maxLength": 100_000}, '""', OPEN_CHARACTER),
    ({**STRING, "format": "date"}, '"2024-01-01"', OPEN_CHARACTER),
    ({**STRING, "pattern": "^(cut|long way) end$"}, '"long way end"', OPEN_CHARACTER),
    ({**STRING, "pattern": "wifi"}, '"wifi"', OPEN_CHARACTER),
    ({**INTEGER, "minimum": 1000, "maximum": 9999}, "1000", 6),
    ({"type": "array", "items": {"const": 17}, "minItems": 3}, "[17, 17, 17]", 4),
    (an_object({"a": {"const": 1}, "b": {"const": 2}}, required=["a", "b"]), '{"a": 1, "b": 2}', 20),
    (an_object({"optional": {"const": 5}}, additionalProperties=False), ', "optional": 5}', 2),
    ({"anyOf": [{"const": "a"}, {"const": "abcdef"}]}, '"abcdef"', 0),
    ({"allOf": [an_object({"a": {"const": 1}}, required=["a"], additionalProperties=False)]}, '{"a": 1}', 6),
]


@pytest.mark.parametrize(("schema", "needed", "slack"), AT_LEAST_AND_AT_MOST, ids=lambda each: str(each)[:40])
def test_the_bound_holds_the_longest_rest_and_little_more(schema: Any, needed: str, slack: int) -> None:
    assert len(needed) <= base_of(schema) <= len(needed) + slack


@pytest.mark.parametrize("schema", [{}, True, {"type": "object"}, {"type": "array"}, TREE], ids=str)
def test_values_nested_without_end_need_something_for_each_open_bracket(schema: Any) -> None:
    bound = bound_of(schema)
    assert bound is not None
    assert bound.per_level > 0
    assert bound.at(10) == bound.at(0) + 10 * bound.per_level


def test_what_a_level_of_a_tree_needs_is_what_its_required_members_need() -> None:
    bound = bound_of(TREE)
    assert bound is not None
    assert len(', "children": []}') <= bound.per_level <= len(', "name": "", "children": []}')


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string", "pattern": "^(?i)a$"},
        {"type": "string", "pattern": "^a+$", "minLength": 5},
        {"type": "object", "patternProperties": {"^a$": {}}, "additionalProperties": False},
        {"type": "string", "keywordOfTheFuture": 5},
        {"type": "object", "properties": {"a": {"keywordOfTheFuture": 5}}},
        {"anyOf": [{"keywordOfTheFuture": 5}, {"type": "null"}]},
        {"$ref": "#/nowhere"},
    ],
    ids=str,
)
def test_what_is_not_understood_has_no_bound(schema: Any) -> None:
    assert longest_closing(schema) is None


def test_a_large_schema_is_bounded_by_what_its_members_need() -> None:
    properties = {f"p{number}": {**INTEGER, "minimum": 0, "maximum": 9} for number in range(2000)}
    assert base_of(an_object(properties, additionalProperties=False)) < 30
    assert 2000 * len('"p0": 0, ') < base_of(an_object(properties, required=list(properties))) < 2000 * 20


# --- Regexes

REGEXES = {
    "abc": 3,
    "a{10}": 10,
    "(abc){2,5}x": 7,
    "[a-z]+@[a-z]+": 3,
    "(short|much longer)!": 12,
    ".*": 0,
    "\\d{4}-\\d\\d": 7,
    "\u00e9{2}": 4,
    "[^a]": 1,
}


@pytest.mark.parametrize(("regex", "least"), REGEXES.items())
def test_a_regex_is_bounded_by_the_longest_of_its_ways_to_an_end(regex: str, least: int) -> None:
    bound = text_closing(regex)
    assert bound is not None
    assert least <= bound <= least + OPEN_CHARACTER


@pytest.mark.parametrize("regex", ["(?x)a", "a\\b", "(?=a)b", "\\p{L}", "[[:alpha:]]", "a**", "(", "a{3,1}", "(a^b)"])
def test_a_regex_that_is_not_understood_has_no_bound(regex: str) -> None:
    assert text_closing(regex) is None


# --- No state needs more


def walk(matcher: Matcher, rng: random.Random, num_tokens: int) -> tuple[Matcher, str]:
    """Random tokens, those with structure preferred. Returns where it ended, and the text."""
    tokenizer = tokenizer_of(PLAIN)
    matcher, written = matcher.copy(), list[int]()
    row = np.zeros((tokenizer.num_tokens + 31) // 32, dtype=np.int32)
    while len(written) < num_tokens and not matcher.is_terminated:
        matcher.fill_bitmask(row)
        allowed = np.flatnonzero(np.unpackbits(row.view(np.uint8), bitorder="little")).tolist()
        allowed = [token for token in allowed if token not in tokenizer.eos_ids]
        structural = [token for token in allowed if re.search(rb'["{}\[\],:\\]', tokenizer.token_bytes(token))]
        if not allowed:
            break
        token = rng.choice(structural if structural and rng.random() < 0.6 else allowed)
        matcher.accept([token])
        written.append(token)
    return matcher, tokenizer.decode(written)


def open_brackets(text: str) -> int:
    outside = re.sub(r'"(\\.|[^"\\])*("|$)', "", text, flags=re.DOTALL)
    return len(re.findall(r"[\[{]", outside)) - len(re.findall(r"[\]}]", outside))


def states_of(schema: Any, seed: str, *, num_walks: int) -> Iterator[tuple[Matcher, str]]:
    start = compiler_of(PLAIN).compile(f"start: {check_schema(schema, 'response').lark()}", param="response")
    yield start, ""
    for number in range(num_walks):
        rng = random.Random(f"{seed} {number}")
        yield walk(start, rng, rng.choice([1, 2, 4, 8, 16, 40]))


@pytest.fixture(scope="module")
def search() -> ClosingSearch:
    tokenizer = tokenizer_of(PLAIN)
    token_bytes = [tokenizer.token_bytes(token) for token in range(tokenizer.num_tokens)]
    special = list(tokenizer.unspellable.values())
    return ClosingSearch(token_bytes, eos_ids=tokenizer.eos_ids, special_ids=special)


def check_states(schema: Any, search: ClosingSearch, seed: str, *, num_walks: int) -> int:
    """Every state has a path, within the bound if there is one. Returns how many states had a bound."""
    bound, hints, num_bounded = bound_of(schema), schema_hints(check_schema(schema, "response").schema), 0
    for matcher, text in states_of(schema, seed, num_walks=num_walks):
        fits = UNBOUNDED if bound is None else bound.at(open_brackets(text))
        assert search.path(matcher, fits, hints) is not None, f"{json.dumps(schema)} after {text!r}, within {fits}"
        num_bounded += bound is not None
    return num_bounded


@pytest.mark.parametrize(
    "regex", [*REGEXES, "(a|bc)*d{3}|x[0-9]{2,4}[^0-9]", "(Yes|No), because .+\\.", "[^\\x00-\\x7f]?z"]
)
def test_no_place_in_a_regex_needs_more_than_its_bound(search: ClosingSearch, regex: str) -> None:
    bound = text_closing(regex)
    start = compiler_of(PLAIN).compile(f"start: {regex_literal(regex)}", param="response")
    for number in range(10):
        rng = random.Random(number)
        matcher, text = walk(start, rng, rng.choice([0, 1, 2, 3, 5, 9]))
        assert bound is not None
        assert search.path(matcher, bound, regex_hints(regex)) is not None, text


NAMES = st.sampled_from(["a", "b", "ab", "name", 'q"', "\u00e9", "type"])
PATTERNS = ["^[ab]{3}$", "wifi|net", "^(ab)*c$", "^\\d+-\\d{4}$", "e.o", "^[^a-z]+$", '^"\\\\"$', "^x?y+z"]
PATTERNS += ["(?i)wifi", "(^|,)ab(;|$)", "(^$|^[a-z]{3}$)"]
LITERALS = ["a", "aa", 'x"', 7, None, [1, {}], "long one"]
ANY_KIND = [True, {}, {"type": "boolean"}, {"type": ["null", "integer"]}, {"type": "object"}, {"$ref": "#/$defs/tree"}]


def a_string(least: int, more: int | None) -> Any:
    return {**STRING, "minLength": least, **({} if more is None else {"maxLength": least + more})}


def a_number(kind: str, low: float, width: float) -> Any:
    return {"type": kind, "minimum": low, "maximum": low + width}


LEAVES = st.one_of(
    st.builds(a_string, st.integers(0, 9), st.none() | st.integers(0, 5)),
    st.builds(lambda pattern: {**STRING, "pattern": pattern}, st.sampled_from(PATTERNS)),
    st.builds(lambda name: {**STRING, "format": name}, st.sampled_from(["date", "uuid", "ipv4", "time", "email"])),
    st.builds(a_number, st.just("integer"), st.integers(-999, 9999), st.integers(0, 9999)),
    st.builds(a_number, st.just("number"), st.integers(-9000, 9000).map(lambda n: n / 1000), st.just(0.5)),
    st.builds(lambda step: {**INTEGER, "minimum": 10, "multipleOf": step}, st.integers(1, 99)),
    st.builds(lambda values: {"enum": values}, st.lists(st.sampled_from(LITERALS), min_size=1, unique_by=str)),
    st.sampled_from(ANY_KIND),
)


def containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    def an_open_or_closed(properties: dict[str, Any], required: set[str], others: Any) -> Any:
        return an_object(properties, required=sorted(required), additionalProperties=others)

    return st.one_of(
        st.builds(an_open_or_closed, st.dictionaries(NAMES, inner, max_size=4), st.sets(NAMES, max_size=2), inner),
        st.builds(an_open_or_closed, st.dictionaries(NAMES, inner, max_size=4), st.just(set()), st.just(False)),
        st.builds(lambda items, least: {"type": "array", "items": items, "minItems": least}, inner, st.integers(0, 4)),
        st.builds(
            lambda first, items, least: {"type": "array", "prefixItems": first, "items": items, "minItems": least},
            st.lists(inner, min_size=1, max_size=3),
            st.one_of(inner, st.just(False)),
            st.integers(0, 2),
        ),
        st.builds(lambda options: {"anyOf": options}, st.lists(inner, min_size=1, max_size=3)),
        st.builds(lambda each, name: {"allOf": [each, an_object({name: STRING})]}, inner, NAMES),
    )


SCHEMAS = st.recursive(LEAVES, containers, max_leaves=8)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(schema=SCHEMAS)
def test_no_state_of_any_schema_needs_more_than_its_bound(search: ClosingSearch, schema: Any) -> None:
    whole = {"$defs": TREE["$defs"], **schema} if isinstance(schema, dict) else schema
    try:
        compiler_of(PLAIN).compile(f"start: {check_schema(whole, 'response').lark()}", param="response")
    except RequestError:
        assume(False)
    check_states(whole, search, "hypothesis", num_walks=6)


@pytest.mark.skipif(not SAMPLE.exists(), reason="the development sample of MaskBench is not there")
def test_no_state_of_real_schemas_needs_more_than_their_bounds(search: ClosingSearch) -> None:
    with gzip.open(SAMPLE, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    num_bounded = num_checked = 0
    for row in rows[::6]:
        try:
            num_bounded += check_states(row["schema"], search, row["id"], num_walks=3) > 0
        except RequestError:
            continue
        num_checked += 1
    assert num_checked >= 20
    assert num_bounded >= 0.9 * num_checked


def test_a_name_pattern_beyond_python_s_own_regexes_is_read_as_json_schema_means_it() -> None:
    """`\\u{...}` stands in rewritten schemas, and Python's own library has no such escape."""
    schema = {
        "type": "object",
        "properties": {"id": STRING},
        "patternProperties": {"^[\\u{1F600}-\\u{1F64F}]": INTEGER},
        "additionalProperties": False,
    }
    assert longest_closing(schema) is not None
