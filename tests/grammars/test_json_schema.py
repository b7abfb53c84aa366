"""Every keyword of a schema is enforced, annotated in the receipt, or refused by its path (F5, F6, F7)."""

import json
import math
import socket
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import GrammarError, SchemaError
from engine.events import Enforcement
from engine.grammars.json_schema import (
    DRAFTS,
    FORMATS,
    MAX_EXACT,
    NO_ARGUMENTS,
    REFUSED,
    REFUSED_FORMATS,
    check_arguments_schema,
    check_schema,
)
from engine.grammars.schema_walk import MAX_DEPTH, child_path
from tests.grammars.turns import INTEGER, STRING, allows, allows_arguments, allows_text, an_object

PATH = "tools[0].parameters"
VALUES: dict[str, Any] = {  # a value that each refused keyword may have
    **dict.fromkeys(("not", "if", "then", "else", "contains", "propertyNames"), STRING),
    **dict.fromkeys(("unevaluatedItems", "unevaluatedProperties"), False),
    **{keyword: {"a": STRING} for keyword in ("dependentSchemas", "dependencies")},
    **dict.fromkeys(("minContains", "maxContains"), 1),
    **dict.fromkeys(("$dynamicRef", "$recursiveRef"), "#"),
    "dependentRequired": {"a": ["b"]},
    "uniqueItems": True,
    "additionalItems": False,
}

# Where a schema may stand inside another, and the path that leads there.
PLACES: list[tuple[str, Any]] = [
    ("", lambda inner: inner),
    (".properties.a", lambda inner: an_object({"a": inner})),
    ('.properties["a b"]', lambda inner: an_object({"a b": inner})),
    (".properties.not", lambda inner: an_object({"not": inner})),
    ('.patternProperties["^x"]', lambda inner: {"patternProperties": {"^x": inner}}),
    (".additionalProperties", lambda inner: {"additionalProperties": inner}),
    (".items", lambda inner: {"items": inner}),
    (".prefixItems[1]", lambda inner: {"prefixItems": [True, inner]}),
    (".anyOf[1]", lambda inner: {"anyOf": [STRING, inner]}),
    (".allOf[0]", lambda inner: {"allOf": [inner]}),
    (".oneOf[0]", lambda inner: {"oneOf": [inner]}),
    (".$defs.unused", lambda inner: {"$defs": {"unused": inner}}),
    (".definitions.unused", lambda inner: {"definitions": {"unused": inner}}),
    (".items.anyOf[0].properties.b", lambda inner: {"items": {"anyOf": [an_object({"b": inner})]}}),
]


def refused_at(schema: Any, path: str = "response") -> str:
    with pytest.raises(SchemaError) as caught:
        check_schema(schema, path)
    assert str(caught.value).startswith(caught.value.param), "the text names the path too"
    return caught.value.param


def receipt(schema: Any, enforcement: Enforcement) -> list[str]:
    checked = check_arguments_schema(schema, PATH, open_objects=False)
    return [entry.path for entry in checked.entries if entry.enforcement is enforcement]


def nested(levels: int, leaf: Any = STRING) -> Any:
    schema = leaf
    for _ in range(levels):
        schema = an_object({"a": schema})
    return schema


# --- Paths


@pytest.mark.parametrize(
    ("key", "path"),
    [
        ("name", "p.name"),
        ("$defs", "p.$defs"),
        ("snake_case-1", "p.snake_case-1"),
        ("größe", "p.größe"),
        ("a b", 'p["a b"]'),
        ("a.b", 'p["a.b"]'),
        ("", 'p[""]'),
        (0, "p[0]"),
    ],
)
def test_a_path_has_a_dot_before_plain_names_and_brackets_around_all_others(key: str | int, path: str) -> None:
    assert child_path("p", key) == path


@pytest.mark.parametrize(("where", "place"), PLACES, ids=[where or "top" for where, _ in PLACES])
@pytest.mark.parametrize("keyword", sorted(REFUSED))
def test_a_keyword_that_no_grammar_holds_is_refused_by_its_path_wherever_it_stands(
    keyword: str, where: str, place: Any
) -> None:
    """F7."""
    assert refused_at(place({keyword: VALUES[keyword]})) == f"response{where}.{keyword}"


@pytest.mark.parametrize("name", sorted(REFUSED | {"format", "$ref", "const", "enum", "$schema", "$id", "type"}))
def test_a_property_may_have_the_name_of_any_keyword(name: str) -> None:
    """F7: keywords are told by their position."""
    schema = an_object({name: {"type": "string", "enum": ["x"]}}, required=[name])
    assert allows_arguments(schema, {name: "x"})
    assert not allows_arguments(schema, {name: "y"})
    assert not allows_arguments(schema, {})


@pytest.mark.parametrize("value", [{"not": {}}, {"$ref": "nowhere"}, [{"uniqueItems": True}]])
def test_what_looks_like_a_keyword_inside_a_value_is_a_value(value: Any) -> None:
    assert allows({"const": value}, value)
    assert allows({"enum": [value, 1], "default": value, "examples": [value]}, value)


@pytest.mark.parametrize(
    "schema", [{"uniqueItems": False}, {"additionalItems": True}, {"unevaluatedItems": True}], ids=str
)
def test_a_keyword_with_the_value_by_which_it_asserts_nothing_is_good(schema: Any) -> None:
    assert allows(schema, [1, 1])


@pytest.mark.parametrize("name", sorted(REFUSED_FORMATS))
def test_a_format_of_the_draft_that_no_grammar_holds_is_refused_by_its_path(name: str) -> None:
    """F7."""
    assert refused_at(an_object({"a": {"type": "string", "format": name}})) == "response.properties.a.format"


def test_an_array_of_schemas_as_items_is_refused_by_its_path() -> None:
    draft_7 = {"$schema": "http://json-schema.org/draft-07/schema#", "properties": {"a": {"items": [STRING]}}}
    assert refused_at(draft_7) == "response.properties.a.items"


# --- What is enforced: accept lists and reject lists

ENFORCED: list[tuple[str, Any, list[Any], list[Any]]] = [
    ("true", True, [1, "a", None, [], {}], []),
    ("type", STRING, ["", "a", "é日本😀", 'quote " slash \\ /', "line\nend\ttab"], [1, None, {}]),
    ("types", {"type": ["string", "null"]}, ["a", None], [1, True]),
    ("integer", INTEGER, [0, -1, 10**30], [1.5, "1"]),
    ("number", {"type": "number"}, [0, -1.5, 1e-9, 1e300], ["1", True]),
    ("minimum and maximum", {"type": "integer", "minimum": -3, "maximum": 10}, [-3, 0, 10], [-4, 11, 100]),
    ("exclusive", {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}, [0.001, 0.999], [0, 1, 1.5]),
    ("multipleOf", {"type": "integer", "multipleOf": 7}, [0, 7, -14, 7000], [1, 8]),
    ("multipleOf a fraction", {"type": "number", "multipleOf": 0.25}, [0.25, 1.75, 3], [0.3, 1.1]),
    (
        "minLength and maxLength",
        {"type": "string", "minLength": 2, "maxLength": 3},
        ["ab", "日本語", "😀😀"],
        ["a", "abcd"],
    ),
    ("lengths as floats", {"type": "string", "minLength": 2.0}, ["ab"], ["a"]),
    ("enum", {"enum": ["a", 1, None, [1, {"b": 2}]]}, ["a", 1, None, [1, {"b": 2}]], ["b", 2, [], [1]]),
    (
        "enum of hard strings",
        {"enum": ['"', "\\", "\n", "</tool_call>", "{", "'"]},
        ['"', "\\", "\n", "</tool_call>"],
        ["", "x"],
    ),
    ("const", {"const": {"a": [1.5, "é"]}}, [{"a": [1.5, "é"]}], [{"a": [1.5]}, {}]),
    ("const of a whole float", {"const": 1.0}, [1], [2]),
    ("const of type integer", {"type": "integer", "const": 3.0}, [3], [4]),
    ("enum against type", {"type": "integer", "enum": [1.0, "a", 2]}, [1, 2], ["a"]),
    ("items", {"type": "array", "items": INTEGER}, [[], [1], [1, 2]], [["a"], [1, "a"], 1]),
    ("minItems and maxItems", {"type": "array", "minItems": 1, "maxItems": 2}, [[1], ["a", None]], [[], [1, 2, 3]]),
    (
        "prefixItems",
        {"type": "array", "prefixItems": [STRING, INTEGER], "items": False},
        [["a", 1], ["a"]],
        [[1], ["a", 1, 2]],
    ),
    ("properties", an_object({"a": INTEGER}), [{}, {"a": 1}, {"b": "x"}, {"a": 1, "b": 2}], [{"a": "x"}, []]),
    ("required", an_object({"a": INTEGER}, required=["a"]), [{"a": 1}], [{}, {"b": 1}]),
    (
        "additionalProperties",
        an_object({"a": STRING}, additionalProperties=INTEGER),
        [{"a": "x", "b": 1}],
        [{"b": "x"}],
    ),
    ("no additionalProperties", an_object({"a": STRING}, additionalProperties=False), [{}, {"a": ""}], [{"b": 1}]),
    (
        "patternProperties",
        {"type": "object", "patternProperties": {"^n": INTEGER}, "additionalProperties": False},
        [{"n1": 1}],
        [{"n1": "x"}, {"m": 1}],
    ),
    (
        "maxProperties",
        an_object({"a": INTEGER, "b": INTEGER}, maxProperties=1, additionalProperties=False),
        [{}, {"a": 1}, {"b": 1}],
        [{"a": 1, "b": 1}],
    ),
    (
        "minProperties",
        an_object({"a": INTEGER, "b": INTEGER}, minProperties=1, additionalProperties=False),
        [{"a": 1}, {"b": 1}],
        [{}],
    ),
    ("anyOf", {"anyOf": [STRING, {"type": "integer", "minimum": 5}]}, ["a", 5], [4, None]),
    ("allOf", {"allOf": [{"type": "integer"}, {"minimum": 2}, {"maximum": 3}]}, [2, 3], [1, 4]),
    ("oneOf of types", {"oneOf": [STRING, INTEGER]}, ["a", 1], [None]),
    ("oneOf of constants", {"oneOf": [{"const": "a"}, {"const": "b"}]}, ["a", "b"], ["c"]),
    ("$ref", {"$ref": "#/$defs/n", "$defs": {"n": INTEGER}}, [1], ["a"]),
    ("$ref with escapes", {"$ref": "#/$defs/a~1b%20c~0d", "$defs": {"a/b c~d": INTEGER}}, [1], ["a"]),
    (
        "$ref by position",
        {"items": {"$ref": "#/prefixItems/0"}, "prefixItems": [INTEGER], "type": "array"},
        [[1, 2]],
        [["a"]],
    ),
    ("$ref beside keywords", {"$ref": "#/$defs/n", "minimum": 2, "$defs": {"n": INTEGER}}, [2], [1, "a"]),
    (
        "recursion",
        an_object({"v": INTEGER, "next": {"$ref": "#"}}, additionalProperties=False),
        [{"v": 1, "next": {"next": {}}}],
        [{"next": {"v": "x"}}, {"next": 1}],
    ),
]


@pytest.mark.parametrize(("schema", "good", "bad"), [row[1:] for row in ENFORCED], ids=[row[0] for row in ENFORCED])
def test_exactly_the_valid_values_can_be_written(schema: Any, good: list[Any], bad: list[Any]) -> None:
    """F7. The lists agree with the jsonschema package."""
    validator = jsonschema.Draft202012Validator(schema)
    assert [value for value in good if not validator.is_valid(value)] == []
    assert [value for value in bad if validator.is_valid(value)] == []
    assert [value for value in good if not allows(schema, value)] == []
    assert [value for value in bad if allows(schema, value)] == []


FORMAT_VALUES = {
    "date-time": (["2020-02-29T12:00:00Z", "1999-12-31T23:59:59.5+01:00"], ["2020-02-30T12:00:00Z", "2020-01-01"]),
    "time": (["12:00:00Z", "23:59:59.25-05:30"], ["24:00:00Z", "noon"]),
    "date": (["2020-02-29"], ["2020-02-30", "2020-13-01", "20-1-1"]),
    "duration": (["P1D", "PT36H", "P1Y2M3DT4H5M6S"], ["1D", "P", "P1"]),
    "email": (["a@b.c", "first.last@example.com"], ["a", "@b", "a@"]),
    "hostname": (["a", "a.b-c.example"], ["-a", "a..b", "a" * 64]),
    "ipv4": (["1.2.3.4", "255.255.255.255"], ["256.1.1.1", "1.2.3"]),
    "ipv6": (["::1", "2001:db8::ff00:42:8329"], ["1:2", ":::"]),
    "uuid": (["123e4567-e89b-12d3-a456-426614174000"], ["123e4567", "g23e4567-e89b-12d3-a456-426614174000"]),
    "uri": (["http://example.com/a?b#c", "urn:isbn:1"], ["example", "//a"]),
}


def test_every_enforced_format_has_values_below() -> None:
    assert FORMAT_VALUES.keys() == FORMATS


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_a_format_that_is_enforced_admits_its_values_and_no_others(name: str) -> None:
    """F7."""
    schema = {"type": "string", "format": name}
    good, bad = FORMAT_VALUES[name]
    assert [value for value in good if not allows(schema, value)] == []
    assert [value for value in bad if allows(schema, value)] == []


PATTERNS: list[tuple[str, list[str], list[str]]] = [
    ("b+", ["b", "abc", "xbbx", 'b"\n'], ["", "ac"]),
    ("^b+", ["b", "bbc"], ["ab"]),
    ("b+$", ["ab"], ["ba"]),
    ("^a|b$", ["ax", "xb", "a"], ["xax"]),
    ("^$", [""], ["a"]),
    ("", ["", "a"], []),
    (r"^\d{2}$", ["12"], ["1", "123", "١٢"]),
    (r"^\w+$", ["a_1"], ["é", "a b"]),
    (r"^\s$", [" ", "\n", "\u00a0"], ["a"]),
    ("^.$", ["a", "😀", '"'], ["\n", "ab"]),
    (r"^\/a/$", ["/a/"], ["a"]),
    (r"^\\$", ["\\"], ["/"]),
    ('^"$', ['"'], ["'"]),
    (r"^\u00e9\x41$", ["éA"], ["e"]),
    (r"^\p{L}+$", ["é日"], ["1"]),
    (r"^[\w.-]+@[a-z]{2,5}$", ["a.b-c@xyz"], ["@xyz", "a@x"]),
    (r"^[^\]]$", ["["], ["]"]),
    ("^(?:a|(b))c?$", ["a", "bc"], ["c"]),
]


@pytest.mark.parametrize(("pattern", "good", "bad"), PATTERNS, ids=[row[0] or "empty" for row in PATTERNS])
def test_a_pattern_matches_as_json_schema_says(pattern: str, good: list[str], bad: list[str]) -> None:
    """F6."""
    schema = {"type": "string", "pattern": pattern}
    assert [value for value in good if not allows(schema, value)] == []
    assert [value for value in bad if allows(schema, value)] == []


@pytest.mark.parametrize("pattern", ["^(?=a)b", "(?<!a)b", r"^(a)\1$", r"\bfoo\b", "a$b", "(", "[a", "a{,2}", "*"])
def test_a_pattern_that_cannot_be_held_is_refused_before_the_first_token(pattern: str) -> None:
    """F6."""
    with pytest.raises(GrammarError):
        allows({"type": "string", "pattern": pattern}, "")


@pytest.mark.parametrize("pattern", ["[a-z&&[^b]]", "[[:alpha:]]", "[a--b]", "[a~~b]", "[]", "x[^]y"])
def test_a_character_class_that_the_library_reads_otherwise_is_refused_by_its_path(pattern: str) -> None:
    """F6: these are operations on sets to Rust's regexes, and mere characters to JSON Schema's."""
    assert refused_at({"type": "string", "pattern": pattern}) == "response.pattern"


@pytest.mark.parametrize("pattern", [r"[\[\]]", r"[a&b-]", r"\[a&&b\]", r"[\w\-\-.]"])
def test_the_same_characters_outside_a_class_or_escaped_are_good(pattern: str) -> None:
    check_schema({"type": "string", "pattern": pattern}, "response")


# --- Style


@pytest.mark.parametrize(
    "text",
    [
        '{"a":"x"}',
        '{ "a": "x"}',
        '{"a": "x" }',
        '{"a" : "x"}',
        '{"a":  "x"}',
        '{"a": "x","b": "y"}',
        '{"a": "x",\n"b": "y"}',
        "{\n}",
        ' {"a": "x"}',
        '{"a": "x"}\n',
    ],
)
def test_white_space_is_fixed(text: str) -> None:
    """F3."""
    checked = check_schema(an_object({"a": STRING, "b": STRING}, additionalProperties=False), "response")
    assert not allows_text(checked, text)
    assert allows_text(checked, '{"a": "x", "b": "y"}')


@pytest.mark.parametrize("text", [r'"\u00e9"', r'"\ud83d\ude00"', r'"\ud800"', r'"\/"', '"\x01"', '"\n"'])
def test_a_string_has_no_escape_where_utf8_can_be_written(text: str) -> None:
    """F23."""
    checked = check_schema(STRING, "response")
    assert not allows_text(checked, text)
    assert allows_text(checked, json.dumps('é😀/\n\r\t\b\f"\\', ensure_ascii=False))


def test_properties_come_in_the_order_of_the_schema() -> None:
    """F22."""
    schema = an_object({"z": INTEGER, "a": INTEGER, "m": INTEGER})
    assert allows_arguments(schema, {"z": 1, "a": 2, "m": 3})
    assert allows_arguments(schema, {"z": 1, "m": 3})
    assert not allows_arguments(schema, {"a": 2, "z": 1})


def test_a_schema_cannot_change_the_style() -> None:
    """F3: not even by the key that the grammar library reads."""
    style = {"x-guidance": {"whitespace_flexible": True}}
    checked = check_schema(an_object({"a": {**INTEGER, **style}}, **style), "response")
    assert not allows_text(checked, '{"a":1}')
    assert allows_text(checked, '{"a": 1}')


# --- Annotations


def test_what_asserts_nothing_is_named_in_the_receipt() -> None:
    """F7."""
    schema = an_object(
        {"a": {**STRING, "description": "d", "default": "x", "nullable": True, "format": "phone"}, "title": STRING},
        title="t",
        **{"$comment": "c", "x-vendor": {"not": {}}},
    )
    assert receipt(schema, Enforcement.ANNOTATION) == [
        f"{PATH}.properties.a.description",
        f"{PATH}.properties.a.default",
        f"{PATH}.properties.a.nullable",
        f"{PATH}.properties.a.format",
        f"{PATH}.title",
        f"{PATH}.$comment",
        f"{PATH}.x-vendor",
    ]


@pytest.mark.parametrize("name", ["phone", "int128", "uri-scheme", ""])
def test_a_format_that_no_draft_knows_is_an_annotation(name: str) -> None:
    """F7."""
    assert allows({"type": "string", "format": name}, "anything")


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
    schema = an_object({"a": INTEGER}, additionalProperties=STRING)
    assert allows_arguments(schema, {"a": 1, "b": "x"})
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
        [{"const": 1}, {"const": 1.0}],
    ],
)
def test_a_one_of_whose_branches_one_value_may_satisfy_is_refused_though_closing_would_part_them(
    branches: list[Any],
) -> None:
    """F7: {"a": 1} satisfies both branches of the first; the jsonschema package would call it invalid."""
    with pytest.raises(GrammarError):
        allows_arguments(an_object({"k": {"oneOf": branches}}), {})


def test_a_one_of_that_cannot_be_seen_through_leaves_the_other_objects_open() -> None:
    hidden = {"oneOf": [{"type": "string", "pattern": "^a"}, {"type": "string", "pattern": "^b"}, INTEGER]}
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
        {"type": "object", "description": "nothing", "$schema": DRAFTS[0]},
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
    with pytest.raises(GrammarError):
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
        ({"maximum": "5"}, ".maximum"),
        ({"pattern": 5}, ".pattern"),
        ({"$ref": 5}, ".$ref"),
        (5, ""),
        (None, ""),
        ([], ""),
    ],
    ids=str,
)
def test_what_the_metaschema_refuses_is_refused_by_its_path(schema: Any, where: str) -> None:
    """F5."""
    assert refused_at(schema) == f"response{where}"


@pytest.mark.parametrize("draft", [draft + end for draft in DRAFTS for end in ("", "#")])
def test_the_drafts_from_6_on_are_known(draft: str) -> None:
    assert allows({"$schema": draft, **INTEGER}, 1)


@pytest.mark.parametrize(
    "draft", ["http://json-schema.org/draft-04/schema#", "http://127.0.0.1:1/schema", "", 7, None, ["x"]]
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
    ["http://127.0.0.1:1/x", "http://127.0.0.1:1/x#/$defs/a", "other.json", "//host/x", "file:///etc/passwd", ""],
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
        "#anchor",
        "#/x-own",
        "#/properties/k/const",
        "#/$defs/a/",
        "#/prefixItems/9",
    ],
)
def test_a_reference_to_what_is_no_schema_in_here_is_refused_by_its_path(reference: str) -> None:
    """F7: what is behind it was not looked at."""
    schema = an_object(
        {"a": {"$ref": reference}, "k": {"const": {"uniqueItems": True}}},
        **{"$defs": {"a": {"$anchor": "anchor", **STRING}}, "x-own": STRING, "prefixItems": [STRING]},
    )
    assert refused_at(schema) == "response.properties.a.$ref"


def test_a_reference_that_begins_at_an_inner_id_is_refused_there() -> None:
    inner = {"$id": "http://example.com/inner", "$ref": "#/$defs/b", "$defs": {"b": INTEGER}}
    assert refused_at(an_object({"a": inner}, **{"$defs": {"b": STRING}})) == "response.properties.a.$id"


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
    "value", [MAX_EXACT + 1, -(2**63), 2**64, 10**40, 1e30, 1.5e300, 123456789.12345679, 5e-324, 0.1 + 0.2]
)
@pytest.mark.parametrize("place", [lambda v: {"const": v}, lambda v: {"enum": ["a", {"b": [v]}]}])
def test_a_number_that_would_become_its_neighbour_is_refused(value: float, place: Any) -> None:
    """-(2**63) ended the process: llguidance 1.9.1 negates it."""
    schema = place(value)
    assert refused_at(schema) == f"response.{next(iter(schema))}"


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


@pytest.mark.parametrize("value", [9973000, 1000003, 99991, 1.23456])
def test_a_multiple_whose_grammar_takes_seconds_to_compile_is_refused(value: float) -> None:
    """F25."""
    assert refused_at({"type": "number", "multipleOf": value}) == "response.multipleOf"


@pytest.mark.parametrize("value", [60, 3600, 500000, 9999, 0.01, 0.0001])
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
def test_a_number_of_properties_that_one_name_written_twice_would_reach_is_refused(schema: Any) -> None:
    """F7: {"a": 1, "a": 2} is one property to whoever reads it."""
    assert refused_at(schema) == "response.minProperties"


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


@pytest.mark.parametrize("levels", [1, 32, (MAX_DEPTH - 2) // 2])
def test_schemas_inside_schemas_are_good_up_to_the_limit(levels: int) -> None:
    value: Any = "x"
    for _ in range(levels):
        value = {"a": value}
    assert allows_arguments(nested(levels), value)


@pytest.mark.parametrize(
    "schema",
    [
        nested(MAX_DEPTH // 2),
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


NAMES = [*sorted(REFUSED), "type", "properties", "items", "anyOf", "oneOf", "$ref", "$defs", "enum", "minimum", "$id"]
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
