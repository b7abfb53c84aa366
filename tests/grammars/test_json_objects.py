"""Objects and lists as rules of the turn's grammar: they allow what the library's own way with the schema allows."""

import json
import random
from typing import Any

import numpy as np
import pytest

from benchmarks.tool_sets import draw_tools, tool_pool
from engine.grammars.encoders.json_objects import MAX_COPIED, MAX_DEPTH, json_rules
from engine.grammars.json_schema import check_arguments_schema
from engine.grammars.matcher import Matcher
from engine.grammars.tool_formats import HERMES
from engine.types import Tool
from tests.fakes import fake_tokenizer
from tests.grammars.turns import INTEGER, STRING, an_object, compiler_of, request, turn_of

NUMBER = {"type": "number"}
SCHEMAS: dict[str, dict[str, Any]] = {
    "all required": an_object({"a": STRING, "b": INTEGER, "c": NUMBER}, required=["a", "b", "c"]),
    "all optional": an_object({"a": STRING, "ab": INTEGER, "b": {"type": "boolean"}}),
    "required in the middle": an_object({"a": INTEGER, "b": INTEGER, "c": INTEGER, "d": INTEGER}, required=["b"]),
    "required last": an_object({"a": INTEGER, "b": INTEGER, "c": INTEGER}, required=["c"]),
    "no members": an_object({"o": an_object({}, additionalProperties=False)}),
    "objects in objects": an_object({"o": an_object({"p": an_object({"q": INTEGER}, required=["q"]), "r": STRING})}),
    "lists": an_object({"a": {"type": "array", "items": INTEGER}, "b": {"type": "array", "items": STRING}}),
    "lists of objects": an_object({"a": {"type": "array", "items": an_object({"b": NUMBER})}}, required=["a"]),
    "lists of so many": an_object({"a": {"type": "array", "items": INTEGER, "minItems": 1, "maxItems": 3}}),
    "enums": an_object({"a": {"enum": ["a", "ab", 1, None]}, "b": {"const": "x"}}),
    "unions": an_object(
        {"a": {"anyOf": [STRING, INTEGER, an_object({"b": INTEGER})]}, "n": {"type": ["null", "integer"]}}
    ),
    "names to escape": an_object({'a"b': INTEGER, "c\\d": INTEGER, "e\nf": INTEGER, "\x01": INTEGER, "é😀": INTEGER}),
    "open inside": an_object({"a": an_object({"b": INTEGER}, additionalProperties=True), "any": {}}),
    "shared": {
        **an_object({"a": {"$ref": "#/$defs/o"}, "b": {"$ref": "#/$defs/o"}}, required=["a", "b"]),
        "$defs": {"o": an_object({"x": INTEGER, "y": NUMBER}, required=["y"])},
    },
    "patterns": an_object(
        {"a": {"type": "string", "pattern": "^[ab]{1,3}$"}, "b": {"type": "string", "format": "date"}}
    ),
}


def checked(schema: dict[str, Any]) -> Any:
    return check_arguments_schema(schema, "tools[0].parameters", open_objects=False)


def both_ways(schema: dict[str, Any]) -> tuple[Matcher, Matcher]:
    """A matcher by rules, and one that leaves the schema to the library."""
    found = json_rules(checked(schema).schema)
    assert found is not None
    ours = "\n".join([f"start: {found.body}", *found.rules])
    compiler = compiler_of(HERMES)
    return compiler.compile(ours, param="ours"), compiler.compile(f"start: {checked(schema).lark()}", param="theirs")


def mask(matcher: Matcher) -> np.ndarray[Any, Any]:
    row = np.zeros((fake_tokenizer(hermes=True).num_tokens + 31) // 32, dtype=np.int32)
    matcher.fill_bitmask(row)
    return np.flatnonzero(np.unpackbits(row.view(np.uint8), bitorder="little"))


@pytest.mark.parametrize("schema", SCHEMAS.values(), ids=SCHEMAS)
def test_rules_allow_the_same_tokens_as_the_library_at_every_step(schema: dict[str, Any]) -> None:
    choose = random.Random(0)
    for _ in range(6):
        ours, theirs = both_ways(schema)
        for _ in range(60):
            allowed = mask(ours)
            assert allowed.tolist() == mask(theirs).tolist()
            assert ours.is_accepting == theirs.is_accepting
            if ours.is_terminated or not allowed.size:
                break
            token = int(choose.choice(allowed))
            ours.accept([token])
            theirs.accept([token])


@pytest.mark.parametrize("number", [INTEGER, NUMBER], ids=["integer", "number"])
def test_near_every_bound_any_number_is_written_as_the_library_writes_it(number: dict[str, Any]) -> None:
    bounds = [0, 9, 10, 2**53 - 1, 2**53, 2**53 + 1, 9 * 10**18 - 1, 9 * 10**18, 10**19]
    texts = [str(sign * bound) for bound in bounds for sign in (1, -1)]
    texts += [text + fraction for text in ("0", "-0", *texts) for fraction in (".0", ".00", ".50", ".01")]
    for text in ["-0", "00", *texts]:
        ours, theirs = both_ways(an_object({"n": number}, required=["n"]))
        for token in fake_tokenizer(hermes=True).encode(f'{{"n": {text}'):
            assert mask(ours).tolist() == mask(theirs).tolist(), text
            if token not in mask(ours):
                break
            ours.accept([token])
            theirs.accept([token])
        assert mask(ours).tolist() == mask(theirs).tolist(), text


def test_rules_force_the_same_tokens_as_the_library() -> None:
    ours, theirs = both_ways(SCHEMAS["all required"])
    assert ours.forced_tokens() == theirs.forced_tokens() != []


def test_what_tools_share_stands_in_the_grammar_once() -> None:
    tools = [
        Tool(name, "", an_object({"n": STRING, "x": {"type": "null"}}, required=["n"])) for name in ("a", "b", "c")
    ]
    source = turn_of(request(*tools), HERMES).source
    assert source is not None
    assert source.count("%json") == 2
    assert source.count("object_") == 1 + len(tools)  # defined once, named by each


def test_tools_of_a_benchmark_need_few_blocks() -> None:
    """BFCL: 200 functions with some 600 members."""
    tools = draw_tools(tool_pool(), 200, seed=0)
    source = turn_of(request(*tools), HERMES).source
    assert source is not None
    assert source.count("%json") < 60


def test_a_schema_that_refers_to_itself_is_left_to_the_library() -> None:
    node = an_object({"value": INTEGER, "next": {"$ref": "#/$defs/node"}})
    schema = {**an_object({"list": {"$ref": "#/$defs/node"}}), "$defs": {"node": node}}
    assert json_rules(checked(schema).schema) is None
    assert json_rules(checked(an_object({"tree": {"$ref": "#"}})).schema) is None


@pytest.mark.parametrize("num_optional", [MAX_DEPTH, 2000])
def test_many_optional_members_do_not_make_deep_rules(num_optional: int) -> None:
    """The library reads rules one inside the other, and a thousand of them overflow its stack."""
    ours, theirs = both_ways(an_object({f"p{number}": INTEGER for number in range(num_optional)}))
    tokens = fake_tokenizer(hermes=True).encode('{"p7": 1, "p30": 2')
    for matcher in (ours, theirs):
        matcher.accept(tokens)
    assert mask(ours).tolist() == mask(theirs).tolist()


def test_a_schema_whose_rules_are_too_deep_is_left_to_the_library() -> None:
    members = {f"p{number}": INTEGER for number in range(2 * MAX_DEPTH + 2)}
    schema = an_object(members, required=[*members][::2])
    assert json_rules(checked(schema).schema) is None


def test_a_schema_whose_blocks_share_much_is_left_to_the_library() -> None:
    """Each block takes its definitions along: many blocks with many definitions would outgrow the schema."""
    shared = {f"d{number}": an_object({"a": {"type": "string", "minLength": number}}) for number in range(MAX_COPIED)}
    union = {"anyOf": [{"$ref": f"#/$defs/{name}"} for name in shared]}
    schema = {"type": "object", "properties": {"a": union, "b": {"anyOf": [INTEGER, union]}}, "$defs": shared}
    assert json_rules({**schema, "additionalProperties": False}) is None


def test_a_property_that_is_called_like_a_keyword_is_a_property() -> None:
    members = {"$ref": INTEGER, "enum": STRING, "properties": NUMBER}
    ours, _ = both_ways(an_object(members, required=[*members]))
    text = json.dumps({"$ref": 1, "enum": "x", "properties": 2})
    tokens = fake_tokenizer(hermes=True).encode(text)
    assert ours.validate(tokens) == len(tokens)
