"""Keywords that no grammar has: rewritten where finitely many cases say the same, else left to the veto by pointer."""

from typing import Any

import jsonschema_rs
import pytest

from engine.errors import SchemaError
from engine.events import Enforcement
from engine.grammars.json_schema import check_arguments_schema, check_schema
from engine.grammars.schema_limits import SchemaLimits
from tests.grammars.turns import INTEGER, STRING, allows, allows_text, allows_value, an_object, written

CAT, DOG = (an_object({"kind": {"const": kind}, kind: INTEGER}, required=["kind"]) for kind in ("cat", "dog"))
AB = {"a": INTEGER, "b": INTEGER}
US = {"if": {"properties": {"land": {"const": "US"}}, "required": ["land"]}, "then": {"required": ["zip"]}}

# Held by the grammar alone: schema, values that can be written, values that cannot.
REWRITTEN: list[tuple[str, Any, list[Any], list[Any]]] = [
    ("not const", {"type": "string", "not": {"const": "ab"}}, ["", "a", "abc", "b"], ["ab"]),
    ("not enum of strings", {**STRING, "not": {"enum": ["a", "\n", "😀"]}}, ["", "aa", "😀😀"], ["a", "\n", "😀"]),
    ("not enum of numbers", {**INTEGER, "not": {"enum": [0, 5]}}, [-1, 1, 4, 6], [0, 5]),
    ("not const of a fraction", {"type": "number", "not": {"const": 0.5}}, [0.25, 0.75, 1], [0.5]),
    ("not type", {"not": {"type": ["string", "object"]}}, [1, None, []], ["a", {}]),
    ("not required", an_object(AB, **{"not": {"required": ["a", "b"]}}), [{}, {"a": 1}, {"b": 1}], [{"a": 1, "b": 2}]),
    ("not properties", {"not": an_object({"a": STRING})}, [1, {"a": 1}], [{}, {"a": "x"}]),
    ("not anyOf", {"not": {"anyOf": [STRING, {"type": "number"}]}}, [None, []], ["a", 1]),
    ("not not", {"not": {"not": STRING}}, ["a"], [1]),
    ("not empty", {"not": {"enum": [[], {}]}}, [[1], {"a": 1}, 0], [[], {}]),
    ("not contains", {"type": "array", "not": {"contains": STRING}}, [[], [1, None]], [["a"], [1, "a"]]),
    ("not minLength", {**STRING, "not": {"minLength": 3}}, ["", "ab"], ["abc"]),
    ("not maximum", {"type": "number", "not": {"maximum": 3}}, [3.5, 4], [3, 2]),
    (
        "if then else",
        an_object({"land": STRING, "zip": STRING}, **US, **{"else": {"required": []}}),
        [{"land": "US", "zip": "1"}, {"land": "DE"}, {}],
        [{"land": "US"}],
    ),
    ("if then of types", {"if": STRING, "then": {"minLength": 2}, "else": INTEGER}, ["ab", 1], ["a", None]),
    ("dependentRequired", an_object(AB, dependentRequired={"a": ["b"]}), [{}, {"b": 1}, {"a": 1, "b": 1}], [{"a": 1}]),
    (
        "dependentSchemas",
        an_object(AB, dependentSchemas={"a": {"properties": {"b": {"minimum": 5}}}}),
        [{"b": 1}, {"a": 1, "b": 5}, {"a": 1}],
        [{"a": 1, "b": 4}],
    ),
    ("dependencies", an_object(AB, dependencies={"a": ["b"]}), [{"a": 1, "b": 1}, {}], [{"a": 1}]),
    (
        "dependencies before dependentRequired",
        an_object(AB, dependencies={"a": ["b"]}, dependentRequired={"a": ["c"], "d": ["b"]}),
        [{"b": 1}, {"a": 1, "b": 1, "c": 1}],
        [{"a": 1, "b": 1}, {"a": 1, "c": 1}, {"d": 1}],
    ),
    (
        "dependencies behind dependentSchemas",
        an_object(AB, dependentSchemas={"a": {"required": ["b"]}}, dependencies={"a": {"required": ["c"]}, "d": False}),
        [{"b": 1}, {"a": 1, "b": 1, "c": 1}],
        [{"a": 1, "b": 1}, {"a": 1, "c": 1}, {"d": 1}],
    ),
    (
        "oneOf by tag",
        {"oneOf": [CAT, DOG]},
        [{"kind": "cat", "cat": 1}],
        [{"kind": "cow"}, {"kind": "dog", "dog": "x"}],
    ),
    (
        "oneOf of required",
        an_object(AB, oneOf=[{"required": ["a"]}, {"required": ["b"]}]),
        [{"a": 1}, {"b": 1}],
        [{}, {"a": 1, "b": 1}],
    ),
    ("oneOf by bounds", {"oneOf": [{**INTEGER, "maximum": 5}, {**INTEGER, "minimum": 4}]}, [3, 6], [4, 5, "a"]),
    ("oneOf of patterns", {"oneOf": [{**STRING, "pattern": "^a"}, {**STRING, "pattern": "^b"}]}, ["a", "b"], ["c", ""]),
    ("minProperties", an_object(AB, minProperties=2, additionalProperties=False), [{"a": 1, "b": 2}], [{}, {"a": 1}]),
    ("maxProperties", an_object(AB, maxProperties=1), [{}, {"a": 1}, {"c": 1}], [{"a": 1, "b": 1}, {"a": 1, "c": 1}]),
    ("propertyNames", {"type": "object", "propertyNames": {"pattern": "^x"}}, [{}, {"x1": 1}], [{"a": 1}]),
    ("propertyNames of lengths", an_object(AB, propertyNames={"maxLength": 1}), [{"a": 1}, {"c": 1}], [{"cc": 1}]),
    (
        "propertyNames of a pattern and lengths",
        {"type": "object", "propertyNames": {"pattern": "^[a-z][a-z_]*$", "minLength": 2, "maxLength": 3}},
        [{}, {"ab": 1}, {"a_b": 1}],
        [{"a": 1}, {"abcd": 1}, {"_b": 1}],
    ),
    (
        "propertyNames of a format",
        {"type": "object", "propertyNames": {"format": "ipv4"}},
        [{"10.0.0.255": 1}],
        [{"10.0.0.256": 1}, {"a": 1}],
    ),
    ("propertyNames of an enum", {"type": "object", "propertyNames": {"enum": ["a", "b"]}}, [{"a": 1}], [{"c": 1}]),
    (
        "patterns that overlap",
        {"type": "object", "patternProperties": {"a*": INTEGER, "aaa*": {"maximum": 20}}},
        [{"b": 30}, {"aa": 20}],
        [{"aa": 21}, {"b": "x"}],
    ),
    ("contains of none", {"type": "array", "contains": STRING, "minContains": 0, "maxContains": 0}, [[1]], [["a"]]),
    (
        "unevaluatedProperties",
        {"allOf": [an_object({"a": INTEGER})], "properties": {"b": INTEGER}, "unevaluatedProperties": False},
        [{"a": 1, "b": 1}, {}],
        [{"c": 1}],
    ),
    (
        "unevaluatedItems",
        {"type": "array", "allOf": [{"prefixItems": [INTEGER]}], "unevaluatedItems": STRING},
        [[1, "a"]],
        [[1, 1], ["a"]],
    ),
    ("nullable", {**STRING, "nullable": True}, ["a", None], [1]),
    ("allOf of enums", {"allOf": [{"enum": [1, 2, "a"]}, {"enum": ["a", 2, 3]}, STRING]}, ["a"], [1, 2, 3]),
    ("multipleOf twice", {**INTEGER, "allOf": [{"multipleOf": 4}, {"multipleOf": 6}]}, [0, 12, -24], [4, 6]),
    ("int32", {**INTEGER, "format": "int32"}, [2**31 - 1, -(2**31)], [2**31, -(2**31) - 1]),
    (
        "int32 before wider bounds",
        {"type": "number", "format": "int32", "minimum": 0, "maximum": 2**32 - 1, "multipleOf": 0.5},
        [2**31 - 1, 0],
        [2**31, -1, 0.5],
    ),
    ("int64 of a number", {"type": "number", "format": "int64"}, [2**53, 0], [0.5]),
    ("float", {"type": "number", "format": "float"}, [0.5], ["a"]),
    ("a format and a pattern", {**STRING, "format": "uri", "pattern": "\\.pdf$"}, ["a:b.pdf"], ["a:b", "b.pdf"]),
    ("byte", {**STRING, "format": "byte"}, ["", "YQ==", "YWJj"], ["a", "YQ", "?==="]),
]


@pytest.mark.parametrize(("schema", "good", "bad"), [row[1:] for row in REWRITTEN], ids=[row[0] for row in REWRITTEN])
def test_the_grammar_alone_holds_what_finitely_many_cases_say(schema: Any, good: list[Any], bad: list[Any]) -> None:
    """F7."""
    checked = check_schema(schema, "r")
    assert checked.vetoed == frozenset()
    assert [value for value in good if not allows_text(checked, written(value))] == []
    assert [value for value in bad if allows_text(checked, written(value))] == []


# Left to the veto: schema, the pointers, values that can be written and are valid, values that are taken back.
VETOED: list[tuple[str, Any, set[str], list[Any], list[Any]]] = [
    (
        "uniqueItems",
        {"properties": {"a": {"uniqueItems": True}}},
        {"/properties/a/uniqueItems"},
        [{"a": [1]}],
        [{"a": [1, 1]}],
    ),
    ("contains", {"type": "array", "contains": INTEGER}, {"/contains"}, [["a", 1]], [["a"]]),
    ("maxContains", {"contains": INTEGER, "maxContains": 1}, {"/contains", "/maxContains"}, [[1, "a"]], [[1, 1]]),
    ("not pattern", {**STRING, "not": {"pattern": "b"}}, {"/not"}, ["a"], ["abc"]),
    ("not multipleOf", {**INTEGER, "not": {"multipleOf": 2}}, {"/not"}, [1], [2]),
    ("not uniqueItems", {"type": "array", "not": {"uniqueItems": True}}, {"/not"}, [[1, 1]], [[1, 2]]),
    ("if of a pattern", {**STRING, "if": {"pattern": "^a"}, "then": {"maxLength": 1}}, {"/if"}, ["a", "bb"], ["ab"]),
    ("oneOf of a pattern", {"oneOf": [STRING, {"pattern": "^a"}]}, {"/oneOf"}, ["b", 1], ["a"]),
    (
        "a/b",
        {"properties": {"a/b~": {"uniqueItems": True}}},
        {"/properties/a~1b~0/uniqueItems"},
        [{}],
        [{"a/b~": [1, 1]}],
    ),
    (
        "propertyNames that are not",
        {"type": "object", "propertyNames": {"not": {"pattern": "^a"}}},
        {"/propertyNames/not"},
        [{"b": 1}],
        [{"ab": 1}],
    ),
    (
        "propertyNames of a long maxLength",
        {"type": "object", "propertyNames": {"maxLength": 20_000}},
        {"/propertyNames/maxLength"},
        [{"b": 1}],
        [{"b" * 20_001: 1}],
    ),
    (
        "propertyNames with a condition",
        {"type": "object", "propertyNames": {"if": {"pattern": "^a"}, "then": {"maxLength": 1}}},
        {"/propertyNames/if"},
        [{"a": 1, "bb": 1}],
        [{"ab": 1}],
    ),
    (
        "propertyNames of a pattern and lengths that no one pattern says",
        {"type": "object", "propertyNames": {"pattern": "^[a-z]+(-[a-z]+)*$", "maxLength": 4}},
        {"/propertyNames"},
        [{"a-b": 1}],
        [{"a-bcd": 1}],
    ),
    (
        "lengths of an email",
        {**STRING, "format": "email", "pattern": "@example\\.com$"},
        {"/format"},
        ["a.b@example.com"],
        ["a" * 65 + "@example.com"],
    ),
    (
        "lengths beside two patterns",
        {**STRING, "pattern": "@.*\\.edu$", "maxLength": 10, "allOf": [{"pattern": "^[^@]+@[^@]+$"}]},
        {"/maxLength"},
        ["a@b.edu"],
        ["abcdefg@b.edu"],
    ),
    ("a long maxLength", {**STRING, "maxLength": 20_000}, {"/maxLength"}, ["x" * 15_000], ["x" * 20_001]),
]


@pytest.mark.parametrize(
    ("schema", "pointers", "good", "bad"), [row[1:] for row in VETOED], ids=[row[0] for row in VETOED]
)
def test_what_no_grammar_holds_is_named_by_its_pointer_and_by_its_path_in_the_receipt(
    schema: Any, pointers: set[str], good: list[Any], bad: list[Any]
) -> None:
    """F7: nothing is dropped in silence."""
    checked = check_schema(schema, "r")
    assert checked.vetoed == pointers
    assert sum(entry.enforcement is Enforcement.VETO for entry in checked.entries) == len(pointers)
    assert [value for value in [*good, *bad] if not allows_text(checked, written(value))] == []
    assert [value for value in bad if allows_value(checked, value)] == []
    assert [value for value in good if not allows_value(checked, value)] == []


def test_contains_asks_for_as_many_items_and_unique_items_for_no_more_than_there_are_values() -> None:
    assert check_schema({"type": "array", "contains": STRING, "minContains": 2}, "r").schema["minItems"] == 2
    unique = {"type": "array", "items": {"enum": ["a", "b"]}, "uniqueItems": True}
    assert check_schema(unique, "r").schema["maxItems"] == 2


def test_the_source_is_what_a_validator_reads_and_every_vetoed_pointer_leads_to_a_keyword_of_it() -> None:
    draft_4 = {
        "$schema": "http://json-schema.org/draft-04/schema#",
        "definitions": {"tags": {"id": "#tags", "items": [STRING], "additionalItems": False, "uniqueItems": True}},
        "properties": {"t": {"$ref": "#tags"}, "n": {"minimum": 1, "exclusiveMinimum": True, "x-own": 5}},
        "dependencies": {"n": ["t"]},
    }
    checked = check_schema(draft_4, "r")
    valid = jsonschema_rs.Draft202012Validator(checked.source)
    assert valid.is_valid({"t": ["a"], "n": 2})
    for value in ({"t": [1]}, {"t": ["a", "b"]}, {"t": [], "n": 1}, {"n": 2}):
        assert not valid.is_valid(value)
        assert not allows_value(checked, value)
    assert "x-own" not in written(checked.source)


def test_closed_arguments_are_closed_in_the_source_too() -> None:
    checked = check_arguments_schema(an_object({"a": {"uniqueItems": True}}), "p", open_objects=False)
    assert checked.source["additionalProperties"] is False  # type: ignore[index]
    assert checked.vetoed == {"/properties/a/uniqueItems"}


def test_an_object_inside_a_negation_or_a_condition_is_not_closed() -> None:
    """Closing there would admit more."""
    schema = an_object({"a": an_object({"b": INTEGER})}, **{"not": an_object({"a": an_object({"b": {"const": 1}})})})
    checked = check_arguments_schema(schema, "p", open_objects=False)
    original = jsonschema_rs.Draft202012Validator(schema)
    values = [{}, {"a": {}}, {"a": {"b": 1}}, {"a": {"b": 2}}, {"a": {"c": 1}}]
    assert [value for value in values if allows_value(checked, value) and not original.is_valid(value)] == []
    assert allows_value(checked, {"a": {"b": 2}})


DRAFT_7 = "http://json-schema.org/draft-07/schema#"
DRAFT_2019_09 = "https://json-schema.org/draft/2019-09/schema"
OLDER = [
    (DRAFT_7, "prefixItems", {"type": "array", "items": [INTEGER], "prefixItems": [STRING]}, [1], ["a"]),
    (DRAFT_7, "prefixItems", {"type": "array", "prefixItems": [STRING], "items": INTEGER}, [1], ["a"]),
    (DRAFT_2019_09, "prefixItems", {"type": "array", "items": [INTEGER], "prefixItems": [STRING]}, [1], ["a"]),
    (DRAFT_7, "minContains", {"type": "array", "contains": {"const": 1}, "minContains": 0}, [1], [2]),
]


@pytest.mark.parametrize(("draft", "keyword", "schema", "good", "bad"), OLDER)
def test_a_newer_keyword_takes_nothing_from_what_an_older_draft_asks(
    draft: str, keyword: str, schema: Any, good: Any, bad: Any
) -> None:
    declared = {"$schema": draft, **schema}
    assert allows(declared, good)
    assert not allows(declared, bad)
    entries = {entry.path: entry.enforcement for entry in check_schema(declared, "response").entries}
    assert entries[f"response.{keyword}"] is Enforcement.ANNOTATION


def test_a_discriminators_mapping_ties_each_branch_to_its_tags() -> None:
    schema = {
        "oneOf": [{"$ref": "#/$defs/cat"}, {"$ref": "#/$defs/dog"}],
        "discriminator": {"propertyName": "kind", "mapping": {"c": "#/$defs/cat", "d": "#/$defs/dog"}},
        "$defs": {name: an_object({"kind": STRING, name: INTEGER}, required=["kind"]) for name in ("cat", "dog")},
    }
    assert allows(schema, {"kind": "c", "cat": 1})
    assert not allows(schema, {"kind": "c", "cat": "x"})
    assert not allows(schema, {"kind": "x"})
    assert check_schema(schema, "r").vetoed == frozenset()
    details = {entry.path: entry.detail for entry in check_schema(schema, "r").entries}
    assert details["r.oneOf[1]"] == "kind is one of its mapped names, as OpenAPI has it"


# --- Lenient, and strict about formats


LENIENT: list[tuple[str, Any, str, Any]] = [
    ("a pattern", {"properties": {"a": {"pattern": "(?=a)", "type": "string"}}}, "r.properties.a.pattern", {"a": "b"}),
    ("a remote reference", {"properties": {"a": {"$ref": "http://x/y"}}}, "r.properties.a.$ref", {"a": 1}),
    ("inside a negation", {"not": {"properties": {"a": {"pattern": "(?=a)"}}}}, "r.not.properties.a.pattern", {"a": 1}),
]


@pytest.mark.parametrize(("schema", "path", "value"), [row[1:] for row in LENIENT], ids=[row[0] for row in LENIENT])
def test_lenient_drops_what_would_be_refused_and_names_it(schema: Any, path: str, value: Any) -> None:
    """F7: off unless asked for."""
    with pytest.raises(SchemaError) as caught:
        check_schema(schema, "r")
    assert caught.value.param == path
    checked = check_schema(schema, "r", lenient=True)
    assert [entry.path for entry in checked.entries if entry.enforcement is Enforcement.LENIENT] == [path]
    assert allows_value(checked, value)


@pytest.mark.parametrize(
    "schema", [{"type": "txt"}, False, {"required": ["a"], "properties": {"a": False}, "type": "object"}]
)
def test_lenient_takes_no_schema_that_is_none_or_that_nothing_satisfies(schema: Any) -> None:
    with pytest.raises(SchemaError):
        check_schema(schema, "r", lenient=True)


@pytest.mark.parametrize(("count", "vetoed"), [(50, set()), (60, {"/not"})])
def test_many_numbers_that_a_number_must_not_be_are_left_to_the_veto(count: int, vetoed: set[str]) -> None:
    """F7."""
    schema = {**INTEGER, "minimum": 0, "maximum": 70, "not": {"enum": list(range(count))}}
    assert check_schema(schema, "r").vetoed == vetoed
    assert [number for number in range(71) if allows(schema, number)] == list(range(count, 71))


def test_strict_formats_refuses_a_format_that_no_draft_knows_by_its_path() -> None:
    """F7."""
    with pytest.raises(SchemaError) as caught:
        check_schema(an_object({"a": {"format": "phone"}}), "r", strict_formats=True)
    assert caught.value.param == "r.properties.a.format"
    allowed = str(caught.value).rpartition("allowed are ")[2].split(", ")
    assert {"date", "int32", "byte"} <= {*allowed}
    for name in allowed:
        check_schema({"format": name}, "r", strict_formats=True)
    assert allows(an_object({"a": {"format": "int32"}}), {"a": 5}, strict_formats=True)


# --- Limits


LIMITS: list[tuple[str, Any, SchemaLimits, str]] = [
    ("max_bytes", {"description": "x" * 100}, SchemaLimits(max_bytes=100), "r"),
    ("max_enum", {"items": {"enum": list(range(11))}}, SchemaLimits(max_enum=10), "r.items.enum"),
    ("max_properties", an_object(AB), SchemaLimits(max_properties=1), "r.properties"),
    ("max_length", {**STRING, "minLength": 11}, SchemaLimits(max_length=10), "r.minLength"),
    ("max_items", {"items": {"minItems": 11}}, SchemaLimits(max_items=10), "r.items.minItems"),
    ("max_subschemas", an_object(AB), SchemaLimits(max_subschemas=2), "r"),
    ("max_compiled", an_object(AB), SchemaLimits(max_compiled=1), "r"),
    ("max_depth", an_object(AB), SchemaLimits(max_depth=2), "r"),
]


@pytest.mark.parametrize(("schema", "limits", "path"), [row[1:] for row in LIMITS], ids=[row[0] for row in LIMITS])
def test_past_a_limit_a_schema_is_refused_by_path_and_below_it_is_good(
    schema: Any, limits: SchemaLimits, path: str, request: pytest.FixtureRequest
) -> None:
    """F25."""
    with pytest.raises(SchemaError) as caught:
        check_schema(schema, "r", limits=limits)
    assert caught.value.param == path
    assert request.node.callspec.id in str(caught.value)
    check_schema(schema, "r")


def test_what_rewriting_would_make_too_much_of_goes_to_the_veto() -> None:
    """F25: 20 dependencies are a million cases."""
    names = [f"p{number}" for number in range(40)]
    schema = an_object(dict.fromkeys(names, INTEGER), dependentRequired={names[i]: [names[i + 20]] for i in range(20)})
    checked = check_schema(schema, "r")
    assert checked.vetoed == {"/dependentRequired"}
    assert allows_value(checked, {"p0": 1, "p20": 1})
    assert not allows_value(checked, {"p0": 1})


LARGE: list[tuple[str, Any, Any, Any]] = [
    (
        "2,000 optional properties",
        an_object({f"p{i}": INTEGER for i in range(2000)}),
        {"p5": 1, "p1999": 2},
        {"p5": "x"},
    ),
    ("an enum of 10,000", {"enum": [f"value {i}" for i in range(10_000)]}, "value 9999", "value 10000"),
    ("minItems 1,000", {"type": "array", "items": INTEGER, "minItems": 1000}, [1] * 1000, [1] * 999),
    ("maxLength 100,000", {**STRING, "maxLength": 100_000}, "x" * 20_000, "x" * 100_001),
]


@pytest.mark.parametrize(("schema", "good", "bad"), [row[1:] for row in LARGE], ids=[row[0] for row in LARGE])
def test_large_schemas_work(schema: Any, good: Any, bad: Any) -> None:
    """F4, F25."""
    assert allows(schema, good)
    assert not allows(schema, bad)
