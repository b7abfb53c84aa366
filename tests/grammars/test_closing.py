"""The search for a closing path: what it promises, on small grammars and in the middle of values."""

from typing import Any

import pytest

from engine.grammars.closing import NO_HINTS, ClosingSearch
from engine.grammars.closing_hints import ClosingHints
from engine.grammars.json_schema import check_schema
from engine.grammars.matcher import Matcher
from engine.grammars.tool_formats import PLAIN
from tests.grammars.turns import INTEGER, STRING, an_object, compiler_of, takes, tokenizer_of

SEARCHED = 100_000  # tokens; more than any path here has


def search(max_nodes: int = 4096, hints: ClosingHints = NO_HINTS) -> ClosingSearch:
    tokenizer = tokenizer_of(PLAIN)
    token_bytes = [tokenizer.token_bytes(token) for token in range(tokenizer.num_tokens)]
    return ClosingSearch(
        token_bytes,
        eos_ids=tokenizer.eos_ids,
        special_ids=tokenizer.unspellable.values(),
        max_nodes=max_nodes,
        hints=hints,
    )


def after(text: str, source: str) -> Matcher:
    """A matcher of the grammar's, with the text written."""
    matcher = compiler_of(PLAIN).compile(source, param="response")
    matcher.accept(tokenizer_of(PLAIN).encode(text))
    return matcher


def after_json(text: str, schema: Any) -> Matcher:
    return after(text, f"start: {check_schema(schema, 'response').lark()}")


def closed(matcher: Matcher, max_tokens: int = SEARCHED) -> str | None:
    """What the path writes."""
    found = search().path(matcher, max_tokens)
    return None if found is None else tokenizer_of(PLAIN).decode(found)


PLACES = [
    ('{"a": "so', an_object({"a": STRING, "b": INTEGER}, required=["a"])),
    ('{"a": "so', an_object({"a": STRING, "b": INTEGER}, required=["a", "b"])),
    ('{"a": 1', an_object({"a": {**INTEGER, "minimum": 100, "maximum": 199}}, required=["a"])),
    ("", {"type": "number", "exclusiveMinimum": 0.25, "maximum": 0.5}),
    ("", {**STRING, "format": "date-time"}),
    ('"2024-0', {**STRING, "format": "date"}),
    ("", {**STRING, "pattern": "^[a-z]+@[a-z]+\\.(com|org)$"}),
    ("", {**STRING, "pattern": "^(ab)*cd$"}),
    ("", {**STRING, "minLength": 500}),
    ("[", {"type": "array", "items": {"enum": ["alpha", "beta", "alphabet"]}, "minItems": 3}),
    ("", {"enum": [f"value {number}" for number in range(2000)]}),
    ("[[[[", {"type": "array", "items": {"$ref": "#"}}),
    ("", {"type": "array", "items": INTEGER, "minItems": 1000}),
]


@pytest.mark.parametrize(("text", "schema"), PLACES)
def test_after_the_path_the_turn_may_end(text: str, schema: Any) -> None:
    matcher = after_json(text, schema)
    path = search().path(matcher, SEARCHED)
    assert path is not None
    assert takes(matcher, path)
