"""Schemas as JSON Schema writes them: what is enforced is enforced, and the rest is named by its path."""

import json
from typing import Any

import jsonschema
import pytest

from engine.errors import RequestError, SchemaError
from engine.events import Enforcement
from engine.grammars.json_schema import check_arguments_schema, check_schema
from engine.grammars.schema_formats import FORMATS
from engine.grammars.schema_walk import LIST_OF_SCHEMAS, MAP_OF_SCHEMAS, ONE_SCHEMA, child_path
from tests.grammars.turns import INTEGER, STRING, allows, allows_arguments, allows_text, an_object

PATH = "tools[0].parameters"
REFUSED: list[tuple[str, Any]] = [  # keywords with values that nothing here can hold
    ("pattern", "^(?=a)b"),
    ("pattern", r"^(a)\1$"),
    ("$ref", "http://example.com/schema"),
    ("$ref", "#/$defs/missing"),
    ("const", "a\x00b"),
    ("enum", ["a", 2**63 + 1]),
    ("minimum", 1e300),
]

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
@pytest.mark.parametrize(("keyword", "value"), REFUSED, ids=str)
def test_what_nothing_can_hold_is_refused_by_its_path_wherever_it_stands(
    keyword: str, value: Any, where: str, place: Any
) -> None:
    """F7."""
    assert refused_at(place({keyword: value})) == f"response{where}.{keyword}"


@pytest.mark.parametrize(
    "name",
    sorted(
        ONE_SCHEMA | LIST_OF_SCHEMAS | MAP_OF_SCHEMAS | {"format", "$ref", "const", "enum", "$schema", "$id", "type"}
    ),
)
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


# --- What is enforced: accept lists and reject lists

ENFORCED: list[tuple[str, Any, list[Any], list[Any]]] = [
    ("true", True, [1, "a", None, [], {}], []),
    ("type", STRING, ["", "a", "é日本😀", 'quote " slash \\ /', "line\nend\ttab"], [1, None, {}]),
    ("types", {"type": ["string", "null"]}, ["a", None], [1, True]),
    ("integer", INTEGER, [0, -1, 10**15], [1.5, "1"]),
    ("number", {"type": "number"}, [0, -1.5, 0.001, 1e15], ["1", True]),
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
    "idn-email": (["a@b.c"], ["a", "@b"]),
    "idn-hostname": (["a.b-c.example"], ["-a", "a..b"]),
    "iri": (["https://example.com/a?b#c"], ["example", "//a"]),
    "uri-reference": (["/a/b?c#d", "a/b", "#top", "http://example.com/a"], ["a b", "\\a"]),
    "iri-reference": (["/a/b?c#d", "a/b"], ["a b", "\\a"]),
    "uri-template": (["/a/{id}/b{?q,r}", "a"], ["/a/{id", "}"]),
    "json-pointer": (["", "/a/0/~0~1", "/é"], ["a", "/~2"]),
    "relative-json-pointer": (["0", "1/a", "12#"], ["/a", "01", "-1"]),
    "regex": ([r"^[a-z]+$", r"a.b\d*"], ["(", "[", "a**"]),
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
    (r"^[\w-.]$", ["-", ".", "a"], ["+"]),
    ("^[^[]$", ["]", "a"], ["["]),
    ("^x{2$", ["x{2"], ["xx"]),
    (r"^\ud83d\ude00$", ["😀"], ["a"]),
    (r"^[^\S]$", [" ", "\ufeff"], ["a", "\u0085"]),
    ("^(?<year>[0-9]+?)$", ["1", "12"], ["a"]),
    ("(?i)^a$", ["a", "A"], ["b"]),
    ("^.$", ["é"], ["\u2028", "\n"]),
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
    with pytest.raises(RequestError):
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
        f"{PATH}.properties.a.format",
        f"{PATH}.title",
        f"{PATH}.$comment",
        f"{PATH}.x-vendor",
    ]


@pytest.mark.parametrize("name", ["phone", "int128", "uri-scheme", ""])
def test_a_format_that_no_draft_knows_is_an_annotation(name: str) -> None:
    """F7."""
    assert allows({"type": "string", "format": name}, "anything")


def test_what_several_branches_narrow_at_one_place_is_one_entry() -> None:
    checked = check_schema({"oneOf": [{**INTEGER, "minimum": 5}, {**INTEGER, "maximum": 2}]}, "r")
    (entry,) = [entry for entry in checked.entries if entry.path == "r"]
    assert entry.detail.count("numbers have") == 2
