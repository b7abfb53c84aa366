"""F7: every keyword of JSON Schema draft 2020-12 is enforced or refused; formats likewise, or they are annotations."""

import base64
import json
import re
from typing import Any

import jsonschema_rs
import pytest
from jsonschema_specifications import REGISTRY

from tests.field.surfaces import Surface, called, tool, wanted

SHORT = {"type": "string", "maxLength": 6}
BYTE = {"type": "string", "format": "byte"}
SHORT_ITEMS = {"enum": ["a", "b", "c"]}
SMALL = {"type": "integer", "minimum": 0, "maximum": 9}
XY = {
    "type": "object",
    "properties": {"kind": {"enum": ["x", "y"]}, "more": SMALL},
    "required": ["kind"],
    "additionalProperties": False,
}
AB = {"type": "object", "properties": {"a": {"const": 1}, "b": {"const": 2}}, "additionalProperties": False}
IF_X = {"properties": {"kind": {"const": "x"}}}

# A schema of a value for each keyword that may refuse one, short enough for a model of noise.
KEYWORDS: dict[str, Any] = {
    "$dynamicRef": {"$defs": {"n": {"$dynamicAnchor": "n", **SMALL}}, "$dynamicRef": "#n"},
    "$ref": {"type": "array", "items": {"$ref": "#/properties/v/$defs/n"}, "minItems": 1, "$defs": {"n": SMALL}},
    "additionalProperties": {**AB, "additionalProperties": {"const": 3}, "maxProperties": 3},
    "allOf": {"allOf": [{"type": "integer", "minimum": 3}, {"multipleOf": 5}, {"maximum": 20}]},
    "anyOf": {"anyOf": [{"const": "a"}, {"type": "boolean"}, SMALL]},
    "const": {"const": {"a": [1, "x", None]}},
    "contains": {"type": "array", "items": SMALL, "contains": {"const": 5}, "maxItems": 3},
    "dependentRequired": {**XY, "required": [], "dependentRequired": {"kind": ["more"]}},
    "dependentSchemas": {**XY, "required": [], "dependentSchemas": {"kind": {"required": ["more"]}}},
    "else": {**XY, "if": IF_X, "else": {"required": ["more"]}},
    "enum": {"enum": [1, "a", None, [True], {"b": 2}]},
    "exclusiveMaximum": {"type": "number", "minimum": 0, "exclusiveMaximum": 3},
    "exclusiveMinimum": {"type": "number", "exclusiveMinimum": 0, "maximum": 3},
    "if": {**XY, "if": IF_X, "then": {"required": ["more"]}, "else": False},
    "items": {"type": "array", "items": SHORT_ITEMS, "minItems": 1, "maxItems": 3},
    "maxContains": {"type": "array", "items": SMALL, "contains": {"const": 5}, "maxContains": 1, "maxItems": 4},
    "maxItems": {"type": "array", "items": SHORT_ITEMS, "maxItems": 2},
    "maxLength": {"type": "string", "maxLength": 4},
    "maxProperties": {"type": "object", "additionalProperties": {"const": 1}, "maxProperties": 2},
    "maximum": {"type": "integer", "maximum": 3, "minimum": -3},
    "minContains": {"type": "array", "items": SMALL, "contains": {"minimum": 5}, "minContains": 2, "maxItems": 4},
    "minItems": {"type": "array", "items": SHORT_ITEMS, "minItems": 3, "maxItems": 5},
    "minLength": {"type": "string", "minLength": 12, "maxLength": 14},
    "minProperties": {**AB, "minProperties": 1},
    "minimum": {"type": "integer", "minimum": 995, "maximum": 1005},
    "multipleOf": {"type": "integer", "multipleOf": 7, "minimum": 0, "maximum": 999},
    "not": {**SHORT_ITEMS, "not": {"const": "b"}},
    "oneOf": {"oneOf": [{**SMALL, "multipleOf": 3}, {**SMALL, "multipleOf": 5}]},
    "pattern": {"type": "string", "pattern": "^[A-Z]{2}[0-9]?$"},
    "patternProperties": {
        "type": "object",
        "propertyNames": {"enum": ["a1", "b1"]},
        "patternProperties": {"^a": SMALL, "1$": {"multipleOf": 2}},
        "additionalProperties": False,
        "minProperties": 1,
    },
    "prefixItems": {"type": "array", "prefixItems": [{"const": 1}, SHORT], "items": False, "minItems": 2},
    "properties": XY,
    "propertyNames": {"type": "object", "propertyNames": {"pattern": "^[a-c]$"}, "additionalProperties": {"const": 1}},
    "required": {**AB, "required": ["b"]},
    "then": {**XY, "if": IF_X, "then": {"required": ["more"]}},
    "type": {"type": ["boolean", "null"]},
    "unevaluatedItems": {"type": "array", "anyOf": [{"prefixItems": [SMALL]}], "unevaluatedItems": False},
    "unevaluatedProperties": {
        "allOf": [{"type": "object", "properties": {"a": SMALL}}],
        "unevaluatedProperties": False,
    },
    "uniqueItems": {"type": "array", "items": SHORT_ITEMS, "minItems": 2, "uniqueItems": True},
}


def test_every_keyword_of_the_draft_that_refuses_values_has_its_case() -> None:
    """F7."""
    vocabularies = ("applicator", "unevaluated", "validation")
    meta = "https://json-schema.org/draft/2020-12/meta/"
    stated = {name for each in vocabularies for name in REGISTRY.contents(meta + each)["properties"]}
    assert stated | {"$ref", "$dynamicRef"} == KEYWORDS.keys()
    assert [keyword for keyword, schema in KEYWORDS.items() if f'"{keyword}"' not in json.dumps(schema)] == []


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("keyword", KEYWORDS)
def test_every_keyword_is_enforced(noise: Surface, keyword: str, seed: int) -> None:
    """F7: there, keywords were ignored in silence."""
    offered = tool({"v": KEYWORDS[keyword]}, "v")
    answer = called(noise, offered, seed=seed)
    assert answer.error is None
    jsonschema_rs.validate(offered["function"]["parameters"], answer.arguments[0])


DRAFT_FORMATS = (
    *("date", "time", "date-time", "duration", "email", "idn-email", "hostname", "idn-hostname", "ipv4", "ipv6"),
    *("uri", "uri-reference", "iri", "iri-reference", "uuid", "uri-template", "json-pointer", "relative-json-pointer"),
    "regex",
)


def test_the_drafts_own_formats_are_enforced(noise: Surface) -> None:
    """F7."""
    offered = tool({name: {"type": "string", "format": name} for name in DRAFT_FORMATS}, *DRAFT_FORMATS)
    (arguments,) = called(noise, offered, max_tokens=900).arguments
    validator = jsonschema_rs.Draft202012Validator(offered["function"]["parameters"], validate_formats=True)
    validator.validate(arguments)


NUMBERS = {"int32": -(2**31), "int64": -(2**63), "float": -3.5e38, "double": -1.8e308}  # and the least that each allows


@pytest.mark.parametrize("number", ["99999999999999999999", "1.5", "-1e400"])
def test_formats_of_openapi_are_enforced(parrot: Surface, number: str) -> None:
    """F7."""
    offered = tool({**{name: {"type": "number", "format": name} for name in NUMBERS}, "byte": BYTE}, *NUMBERS, "byte")
    numbers = ", ".join(f'"{name}": {number}' for name in NUMBERS)
    (arguments,) = called(parrot, offered, messages=wanted(f'{{{numbers}, "byte": "a?b"}}'), max_tokens=400).arguments
    base64.b64decode(arguments.pop("byte"), validate=True)
    for name, value in arguments.items():
        assert NUMBERS[name] <= value < -NUMBERS[name]
        assert isinstance(value, int) or not name.startswith("int") or value.is_integer()


def test_strict_formats_refuses_what_else_is_an_annotation(noise: Surface) -> None:
    """F7."""
    answer = called(noise, tool({"a": {**SHORT, "format": "colour"}}, "a"), toolmask={"strict_formats": True})
    assert re.fullmatch(r"tools\[0\](\.function)?\.parameters\.properties\.a\.format", answer.param or "")


def test_a_format_that_the_draft_does_not_know_is_an_annotation_in_the_receipt(noise: Surface) -> None:
    """F7."""
    answer = called(noise, tool({"a": {**SHORT, "format": "colour"}}, "a"))
    assert [how for path, how in answer.receipt if path.endswith("properties.a.format")] == ["annotation"]
