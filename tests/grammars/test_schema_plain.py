"""Plain schemas are read in one pass; it tells what the long way tells, word for word.

`$defs` asserts nothing and has no entry, but is not plain: a schema with it goes the long way.
"""

import json
import random
from typing import Any

import pytest

from engine.errors import SchemaError
from engine.grammars.json_schema import CheckedSchema, check_arguments_schema, check_schema
from engine.grammars.schema_limits import DEFAULT_LIMITS, SchemaLimits
from engine.grammars.schema_plain import plain_object
from engine.grammars.schema_source import Options
from tests.grammars.turns import INTEGER, STRING, an_object

PATH = "tools[0].parameters"
ANNOTATIONS = {"description": "what it is", "title": "It", "default": {"a": [1.5]}, "examples": [None], "x-order": 3}
NAMES = ("a", "two words", "a/b~c", "$ref", "properties", "é", 'quo"te', "type")


def random_schema(rng: random.Random, depth: int) -> dict[str, Any]:
    """A plain schema; its keywords in any order, annotations among them."""
    kinds = ("string", "integer", "number", "boolean", "null", "array", "object")
    kind = "object" if depth == 3 else rng.choice(kinds if depth else kinds[:5])
    schema: dict[str, Any] = {"type": kind}
    schema |= {name: ANNOTATIONS[name] for name in rng.sample(list(ANNOTATIONS), rng.choice([0, 1, 1, 2]))}
    if kind == "string" and rng.random() < 0.3:
        schema["enum"] = rng.choice([["x"], ["b", "a", "b"], ["é\n", ""]])
    if kind == "array":
        schema["items"] = random_schema(rng, depth - 1)
    if kind == "object":
        names = rng.sample(NAMES, rng.randint(1, 4))
        schema["properties"] = {name: random_schema(rng, depth - 1) for name in names}
        schema |= rng.choice([{}, {"required": rng.sample(names, rng.randint(0, len(names)))}])
        schema |= rng.choice([{}, {}, {"additionalProperties": False}])
    return dict(rng.sample(list(schema.items()), len(schema)))


def told(checked: CheckedSchema) -> str:
    """All of it as text, in which the order shows; without the `$defs` that merely kept it from being plain."""
    source = {keyword: value for keyword, value in dict(checked.source).items() if keyword != "$defs"}  # type: ignore[arg-type]
    schema = json.dumps([checked.schema, source])
    return f"{schema} {checked.entries} {checked.patterns} {checked.vetoed} {checked.examples}"


@pytest.mark.parametrize("seed", range(10))
def test_a_plain_schema_of_arguments_becomes_what_it_becomes_the_long_way(seed: int) -> None:
    rng = random.Random(seed)
    for schema in (random_schema(rng, 3) for _ in range(20)):
        assert plain_object(schema, PATH, Options(close_objects=True), DEFAULT_LIMITS) is not None
        plain = check_arguments_schema(schema, PATH, open_objects=False)
        assert told(plain) == told(check_arguments_schema({**schema, "$defs": {}}, PATH, open_objects=False))


@pytest.mark.parametrize("seed", range(3))
def test_a_response_becomes_what_it_becomes_the_long_way_whether_its_objects_are_closed_or_not(seed: int) -> None:
    rng = random.Random(seed)
    for schema in (random_schema(rng, 3) for _ in range(20)):
        assert told(check_schema(schema, "response")) == told(check_schema({**schema, "$defs": {}}, "response"))


@pytest.mark.parametrize(
    "wrong",
    [
        {"description": 5},
        {"required": ["a", "a"]},
        {"required": "a"},
        {"properties": {"a": {**STRING, "title": []}}},
        {"properties": {"a": {"type": "string", "enum": "x"}}},
        {"properties": {"a": {"type": "string", "enum": ["\x00"]}}},
        {"properties": {"a": {"type": "string", "description": "\ud800"}}},
        {"default": float("nan")},
    ],
    ids=str,
)
def test_what_is_not_well_written_is_refused_with_the_same_words(wrong: dict[str, Any]) -> None:
    schema = {**an_object({"a": STRING}), **wrong}
    texts = []
    for each in (schema, {**schema, "$defs": {}}):
        with pytest.raises(SchemaError) as refused:
            check_arguments_schema(each, PATH, open_objects=False)
        texts.append((str(refused.value), refused.value.param))
    assert texts[0] == texts[1]


@pytest.mark.parametrize(
    "more",
    [
        {"$schema": "http://json-schema.org/draft-07/schema#"},
        {"required": ["b"]},
        {"properties": {}},
        {"properties": {"a": {}}},
        {"properties": {"a": {"type": ["string", "null"]}}},
        {"properties": {"a": {"type": "array"}}},
        {"properties": {"a": {"type": "integer", "minimum": 1}}},
        {"properties": {"a": {"type": "integer", "enum": [1]}}},
        {"properties": {"a": {"type": "string", "enum": []}}},
        {"additionalProperties": STRING},
        {"$id": "urn:a"},
    ],
    ids=str,
)
def test_a_schema_that_says_more_is_not_plain(more: dict[str, Any]) -> None:
    schema = {**an_object({"a": STRING}), **more}
    assert plain_object(schema, PATH, Options(close_objects=True), DEFAULT_LIMITS) is None


@pytest.mark.parametrize(
    "limits",
    [SchemaLimits(max_bytes=50), SchemaLimits(max_depth=2), SchemaLimits(max_properties=1), SchemaLimits(max_enum=1)],
    ids=str,
)
def test_the_limits_hold_for_plain_schemas_too(limits: SchemaLimits) -> None:
    schema = an_object({"a": INTEGER, "b": {"type": "string", "enum": ["x", "y"]}})
    with pytest.raises(SchemaError, match=r"is more than|nested more than"):
        check_arguments_schema(schema, PATH, open_objects=False, limits=limits)
