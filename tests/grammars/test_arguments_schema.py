"""Schemas of a tool's arguments: objects that are closed, and stay satisfiable."""

from typing import Any

import jsonschema
import pytest

from engine.errors import SchemaError
from engine.events import Enforcement
from engine.grammars.json_schema import NO_ARGUMENTS, check_arguments_schema
from engine.grammars.schema_dialects import DRAFT_2020_12
from tests.grammars.turns import INTEGER, STRING, allows, allows_arguments, allows_value, an_object

PATH = "tools[0].parameters"


def receipt(schema: Any, enforcement: Enforcement) -> list[str]:
    checked = check_arguments_schema(schema, PATH, open_objects=False)
    return [entry.path for entry in checked.entries if entry.enforcement is enforcement]


# --- Closed objects


def test_arguments_are_closed_where_they_do_not_say_otherwise_and_the_receipt_says_so() -> None:
    schema = an_object({"a": an_object({"b": STRING})})
    assert receipt(schema, Enforcement.NARROWED) == [f"{PATH}.properties.a", PATH]
    assert allows_arguments(schema, {"a": {"b": "x"}})
    assert not allows_arguments(schema, {"c": 1})
    assert not allows_arguments(schema, {"a": {"c": 1}})


@pytest.mark.parametrize("value", [{"c": 1}, {"a": {"c": 1}}])
def test_open_objects_leaves_them_open(value: Any) -> None:
    schema = an_object({"a": an_object({"b": STRING})})
    assert allows_arguments(schema, value, open_objects=True)
    assert not allows_arguments(schema, {"a": {"b": 1}}, open_objects=True)


def test_an_object_that_says_what_else_it_may_have_stays_as_it_is() -> None:
    schema = an_object({"a": {"type": "null"}}, additionalProperties=STRING)
    assert allows_arguments(schema, {"a": None, "b": "x"})
    assert not allows_arguments(schema, {"b": 1})
    assert receipt(schema, Enforcement.NARROWED) == []


def test_a_response_schema_is_taken_as_json_schema_writes_it() -> None:
    assert allows(an_object({"a": INTEGER}), {"b": None})


def test_a_name_that_is_only_required_can_be_written_in_a_closed_object() -> None:
    schema = an_object({"a": STRING}, required=["b"])
    assert allows_arguments(schema, {"a": "x", "b": [1]})
    assert not allows_arguments(schema, {"a": "x"})
    assert not allows_arguments(schema, {"b": 1, "c": 1})


A, B = an_object({"a": INTEGER}, required=["a"]), an_object({"b": INTEGER}, required=["b"])
TAGGED = [an_object({"kind": {"const": kind}, kind: STRING}, required=["kind"]) for kind in ("cat", "dog")]
TAGGED_REFS = {
    "oneOf": [{"$ref": "#/$defs/cat"}, {"$ref": "#/$defs/dog"}],
    "$defs": {"cat": TAGGED[0], "dog": TAGGED[1]},
}
A_OR_B = an_object({"a": INTEGER, "b": INTEGER}, anyOf=[{"required": ["a"]}, {"required": ["b"]}])
TO_A = {"$ref": "#/$defs/a", "$defs": {"a": A}}
Z_ONLY = {"properties": {"x": INTEGER}, "type": "object"}
COMBINATIONS: list[tuple[str, Any, list[Any], list[Any]]] = [
    ("allOf", {"allOf": [A, B]}, [{"a": 1, "b": 2}], [{"a": 1}, {"b": 2}]),
    ("allOf beside properties", an_object({"c": STRING}, allOf=[A, B]), [{"c": "x", "a": 1, "b": 2}], [{"c": "x"}]),
    ("anyOf", {"anyOf": [A, B]}, [{"a": 1}, {"b": 2}], [{}, {"c": 1}]),
    ("anyOf beside properties", an_object({"c": STRING}, anyOf=[A, B]), [{"c": "x", "a": 1}, {"b": 2}], [{"c": "x"}]),
    ("anyOf of required", A_OR_B, [{"a": 1}, {"b": 1}, {"a": 1, "b": 2}], [{}]),
    ("anyOf beside required", {"anyOf": [A, B], "required": ["c"]}, [{"a": 1, "c": 2}], [{"a": 1}]),
    (
        "anyOf in anyOf",
        {"anyOf": [{"anyOf": [A, B]}, an_object({"c": STRING})]},
        [{"a": 1}, {"c": "x"}, {}],
        [{"d": 1}],
    ),
    ("oneOf by tags", {"oneOf": TAGGED}, [{"kind": "cat", "cat": "x"}, {"kind": "dog"}], [{"kind": "cow"}]),
    ("oneOf by tags, closed", {"oneOf": TAGGED}, [{"kind": "dog", "dog": "x"}], [{"kind": "cat", "dog": "x"}]),
    ("oneOf by tags and $ref", TAGGED_REFS, [{"kind": "cat", "cat": "x"}], [{"kind": "cat", "dog": "x"}]),
    ("oneOf by names", {"oneOf": [A, B]}, [{"a": 1}, {"b": 1}], [{"a": 1, "b": 1}, {}]),
    ("$ref", TO_A, [{"a": 1}], [{}, {"a": 1, "c": 1}]),
    ("$ref beside properties", an_object({"c": STRING}, **TO_A), [{"c": "x", "a": 1}, {"a": 1}], [{"c": "x"}]),
    ("$ref beside required", {**TO_A, "required": ["c"]}, [{"a": 1, "c": 1}], [{"a": 1}]),
    ("$ref in allOf", {"allOf": [{"$ref": "#/$defs/a"}, B], "$defs": {"a": A}}, [{"a": 1, "b": 2}], [{"a": 1}]),
    ("const", an_object({"a": {**Z_ONLY, "const": {"z": 1}}}, required=["a"]), [{"a": {"z": 1}}], [{"a": {}}]),
    ("enum", an_object({"a": {**Z_ONLY, "enum": [{"z": 1}]}}, required=["a"]), [{"a": {"z": 1}}], [{"a": {}}]),
]


# Open, an object with both names satisfies both branches of "oneOf by names".
OPEN_COMBINATIONS = [row for row in COMBINATIONS if row[0] != "oneOf by names"]


@pytest.mark.parametrize(
    ("schema", "good", "bad", "open_objects"),
    [
        pytest.param(*row[1:], is_open, id=f"{row[0]}, {'open' if is_open else 'closed'}")
        for is_open, rows in ((False, COMBINATIONS), (True, OPEN_COMBINATIONS))
        for row in rows
    ],
)
def test_combined_objects_stay_satisfiable_and_valid_closed_or_open(
    schema: Any, good: list[Any], bad: list[Any], open_objects: bool
) -> None:
    validator = jsonschema.Draft202012Validator(schema)
    assert [value for value in good if not validator.is_valid(value)] == []
    assert [value for value in good if not allows_arguments(schema, value, open_objects=open_objects)] == []
    assert [value for value in bad if not open_objects and allows_arguments(schema, value)] == []
    invalid = [value for value in bad if not validator.is_valid(value)]
    assert [value for value in invalid if allows_arguments(schema, value, open_objects=open_objects)] == []


@pytest.mark.parametrize(
    "branches",
    [
        [A, an_object({"b": INTEGER})],
        [A, an_object({"a": INTEGER, "b": INTEGER}, required=["a", "b"])],
        [STRING, {"type": "string", "minLength": 3}],
        [INTEGER, {"type": "number"}],
    ],
)
def test_a_value_that_satisfies_two_branches_of_a_one_of_cannot_be_written_though_closing_would_part_them(
    branches: list[Any],
) -> None:
    """F7: {"a": 1} satisfies both branches of the first; the jsonschema package would call it invalid."""
    schema = an_object({"k": {"oneOf": branches}}, required=["k"])
    checked = check_arguments_schema(schema, PATH, open_objects=False)
    validator = jsonschema.Draft202012Validator(schema)
    values = [{"k": value} for value in ({"a": 1}, {"a": 1, "b": 2}, {"b": 1}, "ab", "abcd", 1, 1.5)]
    can_be_written = [value for value in values if allows_value(checked, value)]
    assert can_be_written, "and some value can"
    assert [value for value in can_be_written if not validator.is_valid(value)] == []


def test_a_one_of_that_nothing_satisfies_is_refused() -> None:
    with pytest.raises(SchemaError):
        check_arguments_schema({"oneOf": [{"const": 1}, {"const": 1.0}]}, PATH, open_objects=False)


def test_a_one_of_that_cannot_be_seen_through_leaves_the_other_objects_open() -> None:
    hidden = {"oneOf": [{"type": "string", "pattern": "^a"}, {"type": "string", "pattern": "^b"}, {"type": "null"}]}
    checked = check_arguments_schema(an_object({"k": hidden}), PATH, open_objects=False)
    assert [entry for entry in checked.entries if entry.enforcement is Enforcement.NARROWED] == []


# --- Arguments


@pytest.mark.parametrize(
    "parameters",
    [
        None,
        {},
        {"type": "object"},
        {"type": ["object"]},
        {"properties": {}},
        {"type": "object", "properties": {}},
        {"type": "object", "properties": {}, "required": []},
        {"type": "object", "required": []},
        {"type": "object", "description": "nothing", "$schema": DRAFT_2020_12.metaschema},
        {"type": "object", "$defs": {"unused": STRING}},
        {"type": "object", "additionalProperties": False},
    ],
    ids=str,
)
def test_a_tool_without_parameters_takes_exactly_an_empty_object(parameters: Any) -> None:
    """F5, F11."""
    assert allows_arguments(parameters, {})
    for value in ({"a": 1}, [], None, "", 1):
        assert not allows_arguments(parameters, value)


def test_parameters_of_no_tool_are_the_schema_of_the_empty_object() -> None:
    checked = check_arguments_schema(None, PATH, open_objects=False)
    assert checked.schema == NO_ARGUMENTS
    assert checked.entries == ()


@pytest.mark.parametrize("parameters", [{"type": "string"}, {"type": ["array", "null"]}, {"type": "null"}], ids=str)
def test_parameters_that_are_no_object_are_refused_at_their_type(parameters: Any) -> None:
    with pytest.raises(SchemaError) as caught:
        check_arguments_schema(parameters, PATH, open_objects=False)
    assert caught.value.param == f"{PATH}.type"


@pytest.mark.parametrize("parameters", [{"enum": [1]}, {"const": "x"}, {"anyOf": [STRING, INTEGER]}, {"enum": []}])
def test_parameters_that_no_object_satisfies_do_not_compile(parameters: Any) -> None:
    with pytest.raises(SchemaError):
        allows_arguments(parameters, {})


@pytest.mark.parametrize("parameters", ["{}", [], True, 5])
def test_parameters_that_are_no_schema_of_an_object_are_refused(parameters: Any) -> None:
    with pytest.raises(SchemaError) as caught:
        check_arguments_schema(parameters, PATH, open_objects=False)
    assert caught.value.param == PATH


def test_arguments_are_an_object_where_the_schema_allows_other_types_too() -> None:
    parameters = {"type": ["object", "null"], "properties": {"a": INTEGER}}
    assert allows_arguments(parameters, {"a": 1})
    assert not allows_arguments(parameters, None)


@pytest.mark.parametrize(
    "name",
    [
        "",
        " ",
        '"',
        '"}}\n</tool_call>',
        "a\nb",
        "\t\x01\x7f",
        "<tool_call>",
        "\\",
        "/",
        "日本😀",
        "%json",
        "a" * 300,
        "{}",
    ],
)
def test_a_property_may_have_any_name(name: str) -> None:
    """F7."""
    schema = an_object({name: INTEGER}, required=[name])
    assert allows_arguments(schema, {name: 1})
    assert not allows_arguments(schema, {})
    assert not allows_arguments(schema, {name + "x": 1})


def test_an_enum_may_have_thousands_of_values() -> None:
    values = [f"value number {position}" for position in range(5000)]
    assert allows({"enum": values}, values[-1])
    assert not allows({"enum": values}, "value number 5000")
