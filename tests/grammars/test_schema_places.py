"""Which subschemas certainly apply to a value, and which of them must be judged because the grammar leaves them out."""

import re
from collections.abc import Sequence
from typing import Any

import pytest

from engine.grammars.schema_places import Place, Places

UNIQUE = {"uniqueItems": True}
DRAFT_7 = {"$schema": "http://json-schema.org/draft-07/schema#"}
DRAFT_2019 = {"$schema": "https://json-schema.org/draft/2019-09/schema"}


def places_of(source: Any, vetoed: Sequence[str] = ()) -> Places:
    return Places(source, vetoed, lambda pattern, name: re.search(pattern, name) is not None)


def place_at(source: Any, path: Sequence[str | int], vetoed: Sequence[str] = ()) -> Place:
    places = places_of(source, vetoed)
    place = places.root
    for key in path:
        place = places.member(place, key) if isinstance(key, str) else places.item(place, key)
    return place


def applying(source: Any, *path: str | int) -> list[str]:
    return sorted(place_at(source, path).schemas)


# --- What applies


@pytest.mark.parametrize(
    ("source", "path", "pointers"),
    [
        ({}, [], [""]),
        (True, [], []),
        ({"properties": {"a": {}}}, ["a"], ["/properties/a"]),
        ({"properties": {"a": {}}}, ["b"], []),
        ({"properties": {"a": {}}, "additionalProperties": {}}, ["a"], ["/properties/a"]),
        ({"properties": {"a": {}}, "additionalProperties": {}}, ["b"], ["/additionalProperties"]),
        ({"patternProperties": {"^a": {}, "b$": {}}}, ["ab"], ["/patternProperties/^a", "/patternProperties/b$"]),
        ({"patternProperties": {"^a": {}}, "additionalProperties": {}}, ["ab"], ["/patternProperties/^a"]),
        ({"patternProperties": {"^a": {}}, "additionalProperties": {}}, ["b"], ["/additionalProperties"]),
        ({"properties": {"a": {}}, "patternProperties": {"a": {}}}, ["a"], ["/patternProperties/a", "/properties/a"]),
        ({"items": {}}, [7], ["/items"]),
        ({"prefixItems": [{}], "items": {}}, [0], ["/prefixItems/0"]),
        ({"prefixItems": [{}], "items": {}}, [1], ["/items"]),
        ({"prefixItems": [{}]}, [1], []),
        ({"additionalItems": {}}, [0], []),
        ({"properties": {"a": {"items": {"items": {}}}}}, ["a", 0, 0], ["/properties/a/items/items"]),
        ({"properties": {"a": True, "b": False}}, ["b"], []),
        ({"properties": {"a/b": {}, "m~n": {}}}, ["a/b"], ["/properties/a~1b"]),
        ({"properties": {"a/b": {}, "m~n": {}}}, ["m~n"], ["/properties/m~0n"]),
        (
            {"properties": {"properties": {"properties": {"a": {}}}}},
            ["properties", "a"],
            ["/properties/properties/properties/a"],
        ),
    ],
)
def test_members_and_items_are_followed_by_the_drafts_rules(source: Any, path: Any, pointers: list[str]) -> None:
    assert applying(source, *path) == pointers


@pytest.mark.parametrize(
    ("source", "path", "pointers"),
    [
        ({**DRAFT_7, "items": [{}], "additionalItems": {}}, [0], ["/items/0"]),
        ({**DRAFT_7, "items": [{}], "additionalItems": {}}, [1], ["/additionalItems"]),
        ({**DRAFT_7, "items": {}, "additionalItems": {}}, [1], ["/items"]),
        ({**DRAFT_7, "prefixItems": [{}], "items": {}}, [0], ["/items"]),
        ({**DRAFT_2019, "items": [{}], "additionalItems": {}}, [1], ["/additionalItems"]),
        ({**DRAFT_7, "$ref": "#/definitions/d", "properties": {"a": {}}, "definitions": {"d": {}}}, ["a"], []),
        ({**DRAFT_2019, "$ref": "#/$defs/d", "properties": {"a": {}}, "$defs": {"d": {}}}, ["a"], ["/properties/a"]),
    ],
)
def test_older_drafts_have_their_own_rules(source: Any, path: Any, pointers: list[str]) -> None:
    """An array of `items`, `additionalItems`, and (before 2019-09) nothing that counts beside a $ref."""
    assert applying(source, *path) == pointers


@pytest.mark.parametrize(
    ("source", "path", "pointers"),
    [
        ({"$ref": "#/$defs/d", "$defs": {"d": {}}}, [], ["", "/$defs/d"]),
        ({"$ref": "#/$defs/d", "$defs": {"d": {"items": {}}}}, [0], ["/$defs/d/items"]),
        ({"$ref": "#/$defs/d~1e%20f", "$defs": {"d/e f": {"items": {}}}}, [0], ["/$defs/d~1e f/items"]),
        ({"allOf": [{"items": {}}, {}], "items": {}}, [0], ["/allOf/0/items", "/items"]),
        (
            {"allOf": [{"$ref": "#/$defs/d"}], "$defs": {"d": {"allOf": [{"not": {}}]}}},
            [],
            ["", "/$defs/d", "/$defs/d/allOf/0", "/allOf/0"],
        ),
        ({"$ref": "#/$defs/d", "$defs": {"d": {"$ref": "#"}}}, [], ["", "/$defs/d"]),
        ({"items": {"$ref": "#"}}, [0, 0, 0], ["", "/items"]),
        ({"$ref": "#/$defs/d", "$defs": {"d": True}}, [], [""]),
    ],
)
def test_references_and_all_of_are_followed_in_place(source: Any, path: Any, pointers: list[str]) -> None:
    assert applying(source, *path) == pointers


@pytest.mark.parametrize(
    "keywords",
    [
        *({keyword: [{"items": {}}]} for keyword in ("anyOf", "oneOf")),
        *({keyword: {"items": {}}} for keyword in ("if", "then", "else", "not", "contains", "propertyNames")),
        *({keyword: {"a": {"items": {}}}} for keyword in ("dependentSchemas", "dependencies", "$defs")),
        *({"$ref": where, "$defs": {"d": {"$anchor": "d", "items": {}}}} for where in ("#d", "#/$defs/e", "other#/a")),
        {"$dynamicRef": "#/$defs/d", "$defs": {"d": {"items": {}}}},
        {"x-items": {"items": {}}},
        {"$ref": "#/$defs/d", "$defs": {"d": {"items": {}}, "e": {"$id": "https://example.com/e"}}},
    ],
)
def test_what_applies_only_perhaps_is_not_followed(keywords: Any) -> None:
    """Nor references whose target is not certain."""
    assert applying(keywords) == [""]
    assert applying(keywords, 0) == []


def test_the_same_subschemas_are_the_same_place_whatever_the_name() -> None:
    """So what is remembered is bounded by the schema, not by what is written."""
    places = places_of({"additionalProperties": {"items": {}}})
    assert len({id(places.member(places.root, f"n{number}")) for number in range(50)}) == 1


# --- What is judged


def judged(source: Any, vetoed: Sequence[str], *path: str | int) -> list[str]:
    return list(place_at(source, path, vetoed).judged)


def test_a_schema_that_has_a_vetoed_keyword_is_judged_where_its_value_is_and_nowhere_else() -> None:
    source = {"properties": {"a": {"items": UNIQUE}, "uniqueItems": UNIQUE}}
    vetoed = ["/properties/a/items/uniqueItems"]
    assert judged(source, vetoed, "a", 0) == ["/properties/a/items"]
    assert judged(source, vetoed) == judged(source, vetoed, "a") == judged(source, vetoed, "uniqueItems") == []
    assert judged(source, []) == judged(source, [], "a", 0) == []


def test_a_vetoed_keyword_in_a_definition_is_judged_wherever_that_is_referred_to() -> None:
    source = {
        "$defs": {"d": UNIQUE},
        "properties": {"a": {"$ref": "#/$defs/d"}, "b": {"allOf": [{"$ref": "#/$defs/d"}]}},
    }
    vetoed = ["/$defs/d/uniqueItems"]
    assert judged(source, vetoed, "a") == judged(source, vetoed, "b") == ["/$defs/d"]
    assert judged(source, vetoed) == []


@pytest.mark.parametrize(
    ("keywords", "pointer"),
    [
        *(({keyword: [{}, UNIQUE]}, f"/{keyword}/1/uniqueItems") for keyword in ("anyOf", "oneOf")),
        *(({keyword: UNIQUE}, f"/{keyword}/uniqueItems") for keyword in ("if", "then", "else", "not", "contains")),
        ({"dependentSchemas": {"x": UNIQUE}}, "/dependentSchemas/x/uniqueItems"),
        ({"anyOf": [{"properties": {"b": {"items": UNIQUE}}}]}, "/anyOf/0/properties/b/items/uniqueItems"),
        ({"not": {"$ref": "#/$defs/d"}}, "/$defs/d/items/uniqueItems"),
        ({"unevaluatedItems": UNIQUE}, "/unevaluatedItems/uniqueItems"),
    ],
)
def test_a_vetoed_keyword_that_applies_only_perhaps_is_judged_with_the_value_around_it(
    keywords: Any, pointer: str
) -> None:
    source = {"properties": {"a": keywords}, "$defs": {"d": {"items": UNIQUE}}}
    vetoed = [pointer if pointer.startswith("/$defs") else f"/properties/a{pointer}"]
    assert judged(source, vetoed, "a") == ["/properties/a"]
    assert judged(source, vetoed) == []


@pytest.mark.parametrize("reference", ["$dynamicRef", "$recursiveRef", "$ref"])
def test_where_a_reference_is_not_followed_everything_vetoed_may_be_behind_it(reference: str) -> None:
    source = {"properties": {"a": {reference: "#d"}}, "$defs": {"d": {"$anchor": "d", **UNIQUE}}}
    assert judged(source, ["/$defs/d/uniqueItems"], "a") == ["/properties/a"]
    assert judged(source, [], "a") == []


@pytest.mark.parametrize("pointer", ["/nowhere", "/properties/b/uniqueItems", "", "/allOf/3/not"])
def test_a_pointer_that_leads_to_nothing_is_judged_at_the_root(pointer: str) -> None:
    assert judged({"properties": {"a": UNIQUE}}, [pointer]) == [""]


def test_below_a_list_in_a_keyword_the_keywords_schema_is_the_one_that_is_judged() -> None:
    source = {"properties": {"a": {"dependentRequired": {"x": ["y"]}}}}
    assert judged(source, ["/properties/a/dependentRequired/x"], "a") == ["/properties/a"]


def test_a_place_leads_to_what_is_judged_in_or_below_it() -> None:
    source = {"properties": {"a": {"items": UNIQUE}, "b": {"items": {}}}}
    vetoed = ["/properties/a/items/uniqueItems"]
    for path, leads in (([], True), (["a"], True), (["a", 0], True), (["b"], False), (["b", 0], False)):
        assert place_at(source, path, vetoed).leads_to_judged is leads


@pytest.mark.parametrize(
    ("source", "limits"),
    [
        ({"properties": {"a": {}}, "additionalProperties": False}, False),
        ({"patternProperties": {"a": {}}}, True),
        ({"propertyNames": {}}, True),
        ({"unevaluatedProperties": False}, True),
        ({"anyOf": [{"if": {}, "then": {"patternProperties": {}}}]}, True),
        ({"$ref": "#/$defs/d", "$defs": {"d": {"propertyNames": {}}}}, True),
        ({"$defs": {"d": {"propertyNames": {}}}, "properties": {"a": {"propertyNames": {}}}}, False),
    ],
)
def test_a_place_tells_whether_a_schema_there_limits_the_names(source: Any, limits: bool) -> None:
    assert place_at(source, []).limits_names is limits
