"""Schemas that are refused before they can do harm: malformed, endless, inexact or too deep."""

import json
import math
import socket
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import SchemaError
from engine.grammars.json_schema import check_schema
from engine.grammars.schema_dialects import DIALECTS
from engine.grammars.schema_limits import DEFAULT_LIMITS
from engine.grammars.schema_literals import MAX_EXACT
from engine.grammars.schema_walk import LIST_OF_SCHEMAS, MAP_OF_SCHEMAS, ONE_SCHEMA
from tests.grammars.turns import INTEGER, STRING, allows, allows_arguments, allows_text, an_object


def refused_at(schema: Any, path: str = "response") -> str:
    with pytest.raises(SchemaError) as caught:
        check_schema(schema, path)
    assert str(caught.value).startswith(caught.value.param), "the text names the path too"
    return caught.value.param


def nested(levels: int, leaf: Any = STRING) -> Any:
    schema = leaf
    for _ in range(levels):
        schema = an_object({"a": schema})
    return schema


# --- Schemas that are not schemas


@pytest.mark.parametrize(
    ("schema", "where"),
    [
        ({"type": "txt"}, ".type"),
        ({"type": []}, ".type"),
        ({"properties": {"a": {"type": 5}}}, ".properties.a.type"),
        ({"properties": {"a b": {"minLength": -1}}}, '.properties["a b"].minLength'),
        ({"properties": None}, ".properties"),
        ({"properties": []}, ".properties"),
        ({"properties": {"a": "string"}}, ".properties.a"),
        ({"required": "a"}, ".required"),
        ({"required": ["a", "a"]}, ".required"),
        ({"enum": "a"}, ".enum"),
        ({"anyOf": []}, ".anyOf"),
        ({"anyOf": [True, {"items": 5}]}, ".anyOf[1].items"),
        ({"multipleOf": 0}, ".multipleOf"),
        ({"$defs": {"a": []}}, ".$defs"),
        ({"dependentSchemas": {"a": ["b"]}}, ".dependentSchemas"),
        ({"maximum": "5"}, ".maximum"),
        ({"pattern": 5}, ".pattern"),
        ({"$ref": 5}, ".$ref"),
        ({"oneOf": [{"$ref": True}, {"type": "null"}]}, ".oneOf[0].$ref"),
        (5, ""),
        (None, ""),
        ([], ""),
    ],
    ids=str,
)
def test_what_the_metaschema_refuses_is_refused_by_its_path(schema: Any, where: str) -> None:
    """F5."""
    assert refused_at(schema) == f"response{where}"


@pytest.mark.parametrize("draft", [{}, *({"$schema": each.metaschema} for each in DIALECTS)], ids=str)
@pytest.mark.parametrize(
    ("keyword", "holds"),
    [
        *((each, lambda fault: fault) for each in sorted(ONE_SCHEMA - {"additionalItems"})),
        *((each, lambda fault: [fault]) for each in sorted(LIST_OF_SCHEMAS)),
        *((each, lambda fault: {"a": fault}) for each in sorted(MAP_OF_SCHEMAS)),
    ],
)
def test_a_fault_below_any_keyword_is_refused_by_its_path_whether_or_not_the_draft_knows_the_keyword(
    keyword: str, holds: Callable[[Any], Any], draft: Any
) -> None:
    """F5."""
    schema = {**draft, "if": True, keyword: holds({"minLength": "x"})}
    assert refused_at(schema).startswith(f"response.{keyword}")


def test_a_fault_in_what_only_a_reference_leads_to_is_refused_by_its_path() -> None:
    """F5."""
    assert refused_at({"$ref": "#/components/a", "components": {"a": {"type": 5}}}) == "response.components.a.type"


def test_a_type_that_there_is_not_is_told_which_there_are() -> None:
    with pytest.raises(
        SchemaError, match="'strin' is not one of array, boolean, integer, null, number, object, string"
    ):
        check_schema({"type": "strin"}, "r")


@pytest.mark.parametrize("draft", [dialect.metaschema + end for dialect in DIALECTS for end in ("", "#")])
def test_the_drafts_from_6_on_are_known(draft: str) -> None:
    assert allows({"$schema": draft, **INTEGER}, 1)


@pytest.mark.parametrize(
    "draft", ["http://json-schema.org/draft-03/schema#", "http://127.0.0.1:1/schema", "", 7, None, ["x"]]
)
def test_another_schema_dialect_is_refused_without_asking_the_network(
    draft: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "socket", lambda *_: pytest.fail("asked the network"))
    assert refused_at({"$schema": draft}) == "response.$schema"


@pytest.mark.parametrize("value", [{1, 2}, object(), math.nan, math.inf, "\ud800"], ids=repr)
def test_a_value_that_json_cannot_write_is_refused(value: Any) -> None:
    with pytest.raises(SchemaError) as caught:
        check_schema({"const": value}, "response")
    assert caught.value.param == "response"


# --- References


@pytest.mark.parametrize(
    "reference",
    ["http://127.0.0.1:1/y", "http://127.0.0.1:1/y#/$defs/a", "other.json", "//host/x", "file:///etc/passwd"],
)
def test_a_reference_out_of_the_schema_is_refused_by_its_path_without_asking_the_network(
    reference: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "socket", lambda *_: pytest.fail("asked the network"))
    schema = an_object({"a": {"$ref": reference}}, **{"$id": "http://127.0.0.1:1/x", "$defs": {"a": STRING}})
    assert refused_at(schema) == "response.properties.a.$ref"


@pytest.mark.parametrize(
    "reference",
    [
        "#/$defs/b",
        "#/$defs",
        "#/properties",
        "#no-anchor",
        "#/properties/k/const",
        "#/properties/k/const/a",
        "#/x-own/default",
        "#/$defs/a/",
        "#/prefixItems/9",
    ],
)
def test_a_reference_to_what_is_no_schema_in_here_is_refused_by_its_path(reference: str) -> None:
    """F7."""
    schema = an_object(
        {"a": {"$ref": reference}, "k": {"const": {"a": {"type": "string"}}}},
        **{"$defs": {"a": STRING}, "x-own": {"default": "a"}, "prefixItems": [STRING]},
    )
    assert refused_at(schema) == "response.properties.a.$ref"


ID = "http://example.com/root"
LOCAL_REFERENCES: list[tuple[str, Any]] = [
    ("an anchor", {"$ref": "#n", "$defs": {"a": {"$anchor": "n", **INTEGER}}}),
    ("its own $id", {"$id": ID, "$ref": f"{ID}#/$defs/a", "$defs": {"a": INTEGER}}),
    ("its own $id, relative", {"$id": ID, "$ref": "root#/$defs/a", "$defs": {"a": INTEGER}}),
    ("an inner $id", {"$ref": "http://x/y", "$defs": {"a": {"$id": "http://x/y", **INTEGER}}}),
    (
        "from an inner $id",
        {"$ref": "#/$defs/a", "$defs": {"a": {"$id": "x", "$ref": "#/$defs/b", "$defs": {"b": INTEGER}}}},
    ),
    ("a place that no keyword names", {"$ref": "#/components/a", "components": {"a": INTEGER}}),
    ("the one dynamic anchor", {"$dynamicRef": "#n", "$defs": {"a": {"$dynamicAnchor": "n", **INTEGER}}}),
    (
        "a draft-4 id",
        {
            "$schema": "http://json-schema.org/draft-04/schema",
            "allOf": [{"$ref": "#n"}],
            "definitions": {"a": {"id": "#n", **INTEGER}},
        },
    ),
]


@pytest.mark.parametrize("schema", [row[1] for row in LOCAL_REFERENCES], ids=[row[0] for row in LOCAL_REFERENCES])
def test_a_reference_that_stays_inside_is_followed(schema: Any) -> None:
    assert allows(schema, 1)
    assert not allows(schema, "a")


def test_a_dynamic_anchor_that_stands_twice_is_refused_where_it_is_asked_for() -> None:
    twice = {"a": {"$dynamicAnchor": "n", **INTEGER}, "b": {"$dynamicAnchor": "n", **STRING}}
    assert refused_at({"$dynamicRef": "#n", "$defs": twice}) == "response.$dynamicRef"


ENDLESS: list[tuple[str, Any, str]] = [
    ("to itself", {"$ref": "#"}, ".$ref"),
    ("of a property to itself", an_object({"a": {"$ref": "#/properties/a"}}), ".properties.a.$ref"),
    ("in a ring", {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}, ".$ref"),
    ("through allOf", an_object({"a": {"allOf": [{"$ref": "#/properties/a"}, STRING]}}), ".properties.a.allOf[0].$ref"),
    ("through required", an_object({"n": {"$ref": "#"}}, required=["n"]), ".properties.n.$ref"),
    ("through items", {"type": "array", "items": {"$ref": "#"}, "minItems": 1}, ".items.$ref"),
    (
        "through prefixItems",
        {"type": "array", "prefixItems": [STRING, {"$ref": "#"}], "minItems": 2},
        ".prefixItems[1].$ref",
    ),
    (
        "through every branch",
        {"anyOf": [an_object({"n": {"$ref": "#"}}, required=["n"])]},
        ".anyOf[0].properties.n.$ref",
    ),
    ("to nothing", {"$ref": "#/$defs/a", "$defs": {"a": False}}, ".$ref"),
]


@pytest.mark.parametrize(("schema", "where"), [row[1:] for row in ENDLESS], ids=[row[0] for row in ENDLESS])
def test_a_reference_that_never_ends_is_refused_by_its_path_and_not_in_the_middle_of_a_turn(
    schema: Any, where: str
) -> None:
    assert refused_at(schema) == f"response{where}"


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        (an_object({"n": {"$ref": "#"}}), {"n": {"n": {}}}),
        ({"type": "array", "items": {"$ref": "#"}}, [[], [[]]]),
        ({"anyOf": [INTEGER, {"type": "array", "items": {"$ref": "#"}, "minItems": 1}]}, [[1], 2]),
        (an_object({"n": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}}, required=["n"]), {"n": {"n": None}}),
        ({"type": ["object", "string"], "properties": {"n": {"$ref": "#"}}, "required": ["n"]}, {"n": {"n": "x"}}),
    ],
)
def test_a_recursion_that_can_end_is_good(schema: Any, value: Any) -> None:
    assert allows(schema, value)


# --- Numbers and characters that the grammar library would change


@pytest.mark.parametrize(
    "value",
    [0, -1, 1.0, -0.0, 0.1, 1e-9, -1.5, 3.141592653589793, 1 / 3, 0.5, MAX_EXACT, -MAX_EXACT, 12345678.25, 1e15],
)
def test_a_number_can_be_asked_for_exactly(value: float) -> None:
    checked = check_schema({"const": value}, "response")
    assert allows_text(checked, "0.000000001" if value == 1e-9 else json.dumps(int(value) if value % 1 == 0 else value))


@pytest.mark.parametrize(
    "value", [-(2**63), 2**63, 2**64, 10**40, 1e30, 1.5e300, 123456789.12345679, 5e-324, 0.1 + 0.2]
)
@pytest.mark.parametrize("place", [lambda v: {"const": v}, lambda v: {"enum": ["a", {"b": [v]}]}])
def test_a_number_that_would_become_its_neighbour_is_refused(value: float, place: Any) -> None:
    """-(2**63) ended the process: llguidance 1.9.1 negates it."""
    schema = place(value)
    assert refused_at(schema) == f"response.{next(iter(schema))}"


@pytest.mark.parametrize("value", [MAX_EXACT + 1, -(2**60) - 1, 2**60, 9 * 10**18])
@pytest.mark.parametrize("place", [lambda v: {"const": v}, lambda v: {"enum": ["a", v]}])
def test_an_integer_that_the_grammar_would_change_is_left_to_the_veto(value: int, place: Any) -> None:
    schema = place(value)
    (keyword,) = schema
    checked = check_schema(schema, "response")
    assert checked.vetoed == {f"/{keyword}"}
    assert checked.source[keyword] == schema[keyword]


@pytest.mark.parametrize("kind", ["integer", "number"])
@pytest.mark.parametrize(
    ("low", "high"), [(-(2**63), 2**63 - 1), (-(2**53) - 1, 2**53 + 1), (-1e308, 1e308), (-(10**30), 10**30)]
)
def test_a_bound_beyond_exact_numbers_moves_inward_and_the_receipt_says_so(kind: str, low: float, high: float) -> None:
    schema = {"type": kind, "minimum": low, "maximum": high}
    assert allows(schema, MAX_EXACT)
    assert not allows(schema, MAX_EXACT + 1)
    assert allows(schema, -MAX_EXACT)
    assert [entry.path for entry in check_schema(schema, "r").entries] == ["r.minimum", "r.maximum"]


@pytest.mark.parametrize(
    ("keyword", "value"), [("minimum", 2**53 + 1), ("maximum", -(2**60)), ("exclusiveMinimum", 1e30)]
)
def test_a_bound_beyond_exact_numbers_that_cannot_move_is_refused(keyword: str, value: float) -> None:
    assert refused_at({"type": "integer", keyword: value}) == f"response.{keyword}"


@pytest.mark.parametrize("value", [9973, 86400, 9973000, 1000003, 99991, 1.23456])
def test_a_multiple_that_needs_too_large_a_grammar_is_left_to_the_veto(value: float) -> None:
    """F25: the grammar library takes seconds to compile it, or gives up in the midst of a number."""
    checked = check_schema({"type": "number", "multipleOf": value}, "response")
    assert checked.vetoed == {"/multipleOf"}
    assert allows_text(checked, "1.5") == (value % 1 != 0)


@pytest.mark.parametrize(
    ("keywords", "listed"),
    [
        ({"multipleOf": 0.01, "minimum": 0.005, "maximum": 0.015}, [0.01]),
        ({"multipleOf": 0.1, "minimum": 0.3, "maximum": 0.3}, [0.3]),
        ({"multipleOf": 0.1, "minimum": -0.25, "exclusiveMaximum": -0.1}, [-0.2]),
        ({"multipleOf": 2.5, "exclusiveMinimum": 2.5, "maximum": 8}, [5, 7.5]),
        ({"multipleOf": 0.05, "minimum": 0.1, "maximum": 0.2}, [0.1, 0.15, 0.2]),
    ],
)
def test_a_few_multiples_of_a_fraction_are_the_numbers_that_there_are(keywords: Any, listed: list[float]) -> None:
    assert check_schema({"type": "number", **keywords}, "response").schema == {"enum": listed}


def test_many_multiples_of_a_fraction_lie_between_bounds_that_are_multiples_too() -> None:
    checked = check_schema({"type": "number", "multipleOf": 0.01, "minimum": 0.005, "maximum": 99.999}, "response")
    assert (checked.schema["minimum"], checked.schema["maximum"]) == (0.01, 99.99)
    assert all(allows_text(checked, text) for text in ("0.01", "0.07", "1", "99.99"))
    assert not any(allows_text(checked, text) for text in ("0", "0.005", "99.995", "100"))


@pytest.mark.parametrize("value", [60, 3600, 5000, 0.01, 0.0001])
def test_a_usual_multiple_is_good(value: float) -> None:
    assert allows({"type": "number", "multipleOf": value}, 60 * 3600 * 125 * 1111)
    assert not allows({"type": "number", "multipleOf": value}, 0.00001)


@pytest.mark.parametrize("value", ["\x00", "a\x1fb", "\x7f", {"k": ["\x01"]}])
def test_a_value_with_a_control_character_that_is_never_written_is_refused(value: Any) -> None:
    """F23: it can be written with \\u only."""
    assert refused_at({"enum": ["a", value]}) == "response.enum"


# --- Objects of which a reader sees fewer properties than were written


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "minProperties": 2},
        {"type": "object", "minProperties": 2, "additionalProperties": INTEGER},
        {"type": "object", "minProperties": 2, "patternProperties": {"^x": INTEGER}, "additionalProperties": False},
        an_object({"a": INTEGER}, minProperties=3, required=["a"], additionalProperties=True),
    ],
)
def test_a_number_of_properties_that_one_name_written_twice_would_reach_is_left_to_the_veto(schema: Any) -> None:
    """F7: {"a": 1, "a": 2} is one property to whoever reads it."""
    assert check_schema(schema, "response").vetoed == {"/minProperties"}


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"type": "object", "minProperties": 1}, {"x": 1}),
        (an_object({"a": INTEGER}, minProperties=2, required=["a"]), {"a": 1, "b": 1}),
        (an_object({"a": INTEGER, "b": INTEGER}, minProperties=2, required=["a", "b"]), {"a": 1, "b": 1}),
    ],
)
def test_a_number_of_properties_that_needs_different_names_is_good(schema: Any, value: Any) -> None:
    assert allows(schema, value)
    assert not allows(schema, {})


# --- Depth


@pytest.mark.parametrize("levels", [1, 32, 64, (DEFAULT_LIMITS.max_depth - 2) // 2])
def test_schemas_inside_schemas_are_good_up_to_the_limit(levels: int) -> None:
    value: Any = "x"
    for _ in range(levels):
        value = {"a": value}
    assert allows_arguments(nested(levels), value)


@pytest.mark.parametrize(
    "schema",
    [
        nested(DEFAULT_LIMITS.max_depth // 2 + 1),
        nested(50_000),
        {"const": json.loads("[" * 400 + "]" * 400)},
        {"x-deep": json.loads("[" * 400 + "]" * 400)},
    ],
    ids=["just beyond", "50,000 levels", "a value", "an annotation"],
)
def test_deeper_ones_are_refused_without_a_recursion_error(schema: Any) -> None:
    """F25."""
    assert refused_at(schema) == "response"


@pytest.mark.parametrize(
    "link", [lambda ref: ref, lambda ref: an_object({"x": ref}), lambda ref: {"anyOf": [ref, STRING]}]
)
def test_a_chain_of_definitions_that_would_overflow_the_librarys_stack_is_refused(link: Any) -> None:
    """F25: a thousand links ended the process (llguidance 1.9.1)."""

    def chain(length: int) -> Any:
        definitions = {f"d{i}": link({"$ref": f"#/$defs/d{i + 1}"}) for i in range(length)}
        return {"$ref": "#/$defs/d0", "$defs": {**definitions, f"d{length}": STRING}}

    assert refused_at(chain(1500)) == "response"
    checked = check_schema(chain(200), "response")
    assert allows_text(checked, "{}" if link(True) == an_object({"x": True}) else '"x"')


NAMES = [
    *sorted(ONE_SCHEMA | LIST_OF_SCHEMAS | MAP_OF_SCHEMAS),
    "type",
    "properties",
    "items",
    "anyOf",
    "oneOf",
    "$ref",
    "$defs",
    "enum",
    "minimum",
    "$id",
]
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.sampled_from(["object", "#", "#/$defs"]))
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
    max_leaves=12,
)


@given(ANYTHING)
def test_whatever_is_given_as_a_schema_is_taken_or_refused_by_a_path(schema: Any) -> None:
    try:
        refused = None
        check_schema(schema, "response")
    except SchemaError as error:
        refused = error.param
    assert refused is None or refused.startswith("response")
