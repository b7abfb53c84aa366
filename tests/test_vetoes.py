"""Schemas whose vetoed keywords ask for values that the grammar does not show: taken, valid, and at every budget."""

import json
from typing import Any

import jsonschema_rs
import pytest

from engine.engine import Engine
from engine.errors import BudgetError, GrammarError, SchemaError
from engine.events import Enforcement
from engine.types import Grammar, SamplingParams
from tests.fakes import USER, fake_loaded
from tests.grammars.turns import INTEGER, STRING, an_object

ARRAY: dict[str, Any] = {"type": "array"}
CLOSED_ITEM = an_object({"kind": STRING, "n": INTEGER}, required=["kind", "n"], additionalProperties=False)

SCHEMAS: dict[str, Any] = {
    "contains a string that items do not name": {**ARRAY, "contains": {"const": "x"}},
    "contains one among strings": {**ARRAY, "items": STRING, "contains": {"const": "admin"}},
    "contains a number": {**ARRAY, "items": INTEGER, "contains": {"const": 42}},
    "contains a number by its bound": {**ARRAY, "items": INTEGER, "contains": {"minimum": 500}},
    "contains an object": {**ARRAY, "contains": {"const": {"a": 1, "b": "zed"}}},
    "contains a kind of closed object": {
        **ARRAY,
        "items": CLOSED_ITEM,
        "contains": {"properties": {"kind": {"const": "first"}}, "required": ["kind"]},
    },
    "contains what an optional property says": {
        **ARRAY,
        "items": {"type": "object"},
        "contains": an_object({"kind": {"const": "main"}}, required=["kind"]),
    },
    "contains a pattern": {**ARRAY, "items": STRING, "contains": {**STRING, "pattern": "^x-[0-9]{4}$"}},
    "contains it twice": {**ARRAY, "items": STRING, "contains": {"const": "ab"}, "minContains": 2},
    "contains two of them": {
        **ARRAY,
        "items": STRING,
        "allOf": [{"contains": {"const": each}} for each in ("ab", "cd")],
    },
    "contains it in a property": an_object({"tags": {**ARRAY, "contains": {"const": "admin"}}}, required=["tags"]),
    "different strings": {**ARRAY, "items": STRING, "uniqueItems": True, "minItems": 6},
    "different objects": {
        **ARRAY,
        "items": an_object({"a": STRING}, required=["a"], additionalProperties=False),
        "uniqueItems": True,
        "minItems": 4,
    },
    "names that overlapping patterns match": {
        "type": "object",
        "patternProperties": {"^a": INTEGER, "b$": {"type": "number"}},
        "additionalProperties": False,
        "minProperties": 3,
    },
    "patterns that contradict each other": {
        "type": "object",
        "patternProperties": {"^a": INTEGER, "b$": STRING},
        "additionalProperties": False,
        "minProperties": 2,
    },
    "names that a pattern and lengths bind": {
        "type": "object",
        "propertyNames": {"pattern": "^[a-z]+(-[a-z]+)*$", "minLength": 4, "maxLength": 6},
        "additionalProperties": INTEGER,
        "minProperties": 2,
    },
    "names of a format": {
        "type": "object",
        "propertyNames": {"format": "email"},
        "additionalProperties": INTEGER,
        "minProperties": 1,
    },
    "names of which two patterns speak": {
        "type": "object",
        "propertyNames": {"pattern": "[a-z]", "allOf": [{"pattern": "[0-9]"}]},
        "additionalProperties": INTEGER,
        "minProperties": 2,
    },
    "names that a pattern refuses": {
        "type": "object",
        "propertyNames": {"not": {"pattern": "^[a-z]"}},
        "additionalProperties": INTEGER,
        "minProperties": 1,
    },
    "a large multiple": {**INTEGER, "multipleOf": 86400, "minimum": 1},
    "a large multiple between bounds": {**INTEGER, "multipleOf": 12345, "minimum": 100_000, "maximum": 120_000},
    **{
        f"multiples of {step} from {least} on": {"type": "number", "multipleOf": step, "minimum": least}
        for step, least in ((0.07, 100), (0.14, 100.01), (0.57, 500.5), (0.0003, 1e6), (1.23456, 7))
    },
    "multiples of 0.07 below zero": {"type": "number", "multipleOf": 0.07, "exclusiveMaximum": -0.07},
    "multiples of 0.07 between bounds": {"type": "number", "multipleOf": 0.07, "minimum": 1000.1, "maximum": 1999},
    "multiples of two fractions": {
        "type": "number",
        "allOf": [{"multipleOf": 0.07}, {"multipleOf": 0.02}],
        "minimum": 1e7 + 0.1,
    },
    "an integer of 60 bits": {"const": 2**60 + 1},
    "one of such integers": {"enum": [2**53 + 1, 2**60 + 1, "a"]},
}


@pytest.fixture(scope="module")
def engine() -> Any:
    with Engine(fake_loaded(bonus={'"': 300})) as engine:
        yield engine


@pytest.mark.parametrize("schema", SCHEMAS.values(), ids=list(SCHEMAS))
def test_what_a_veto_asks_for_is_found_and_written_within_the_least_budget(engine: Engine, schema: Any) -> None:
    """F7."""
    response = Grammar.json_schema(schema)
    with pytest.raises(BudgetError) as caught:
        engine.chat([USER], response=response, max_tokens=1)
    least = caught.value.least
    answer = engine.chat([USER], response=response, max_tokens=least, sampling=SamplingParams(seed=1))
    assert jsonschema_rs.is_valid(schema, json.loads(answer.text or ""))
    assert Enforcement.VETO in {entry.enforcement for entry in answer.receipt.entries}


@pytest.mark.parametrize("step", [0.07, 0.57, 0.0003])
def test_multiples_that_the_grammar_library_would_misread_are_written_at_every_temperature(
    engine: Engine, step: float
) -> None:
    """F7."""
    schema = {"type": "number", "multipleOf": step, "minimum": 100}
    for seed in range(5):
        sampling = SamplingParams(temperature=50, seed=seed)
        answer = engine.chat([USER], response=Grammar.json_schema(schema), max_tokens=30, sampling=sampling)
        assert jsonschema_rs.is_valid(schema, json.loads(answer.text or ""))


@pytest.mark.parametrize("items", [STRING, INTEGER, {}, CLOSED_ITEM])
def test_30_different_items_can_be_asked_for(engine: Engine, items: Any) -> None:
    schema = {**ARRAY, "items": items, "uniqueItems": True, "minItems": 30}
    with pytest.raises(BudgetError) as caught:
        engine.chat([USER], response=Grammar.json_schema(schema), max_tokens=1)
    assert caught.value.least < 600


@pytest.mark.parametrize(
    ("keywords", "path"),
    [
        ({"items": INTEGER, "contains": STRING}, "response.contains"),
        ({"items": {"enum": [1, 2, 3]}, "contains": {"const": 3}, "uniqueItems": True, "minContains": 2}, "response"),
    ],
)
def test_a_keyword_for_which_no_value_is_found_is_named_by_its_path(
    engine: Engine, keywords: dict[str, Any], path: str
) -> None:
    with pytest.raises(GrammarError, match=r"no value was found that satisfies response\.contains") as caught:
        engine.chat([USER], response=Grammar.json_schema({**ARRAY, **keywords}))
    assert caught.value.param == path


def test_a_schema_that_is_asked_for_again_is_searched_once(engine: Engine) -> None:
    response = Grammar.json_schema({**ARRAY, "contains": {"const": "again"}})
    vetoes = engine._admission._vetoes
    made = []
    for _ in range(2):
        engine.chat([USER], response=response, max_tokens=40)
        made.append(next(reversed(vetoes._made.values())))
    assert made[0] is made[1]


def test_a_schema_that_is_nested_too_deep_is_told_the_bound() -> None:
    schema: dict[str, Any] = INTEGER
    for _ in range(2000):
        schema = {**ARRAY, "items": schema}
    with pytest.raises(SchemaError, match=r"256 levels deep \(the limit max_depth\)"):
        Grammar.json_schema(schema)
