"""What a veto refuses, and with which character: never what may still become valid, and never later than told here."""

import itertools
import json
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import MatcherError, SchemaError, VetoError
from engine.grammars.veto import MAX_OPEN, Veto
from tests.grammars.turns import INTEGER, STRING, an_object, written
from tests.grammars.vetoes import (
    SCHEMAS_AND_VALUES,
    VALUES,
    VETOED,
    ends,
    is_valid,
    passes,
    refused_at,
    veto_of,
    vetoed_in,
    written_up_to,
)

UNIQUE = {"type": "array", "uniqueItems": True}
NOT_FIVE = {"type": "integer", "not": {"const": 5}}


def refused_after(schema: Any, text: str) -> str | None:
    """The text up to and with the character that is vetoed; None where none is."""
    position = refused_at(veto_of(schema), text)
    return None if position is None else text[: position + 1]


# --- The laws


@given(pair=SCHEMAS_AND_VALUES, places=st.lists(st.integers(1, 40), max_size=8))
@settings(max_examples=300, deadline=None)
def test_a_text_passes_if_and_only_if_its_value_is_valid_however_it_is_cut(
    pair: tuple[Any, Any], places: list[int]
) -> None:
    schema, value = pair
    veto, text = Veto(schema, {"", *vetoed_in(schema)}), written(value)
    bounds = [0, *sorted({place for place in places if place < len(text)}), len(text)]
    cut = [text[start:end] for start, end in itertools.pairwise(bounds)]
    verdict = is_valid(schema, value)
    assert passes(veto, [text]) == passes(veto, list(text)) == passes(veto, cut) == verdict


def certain_errors(schema: Any, value: Any) -> Iterator[jsonschema.ValidationError]:
    """Errors by vetoed keywords that no branch of a union stands before."""
    for error in jsonschema.Draft202012Validator(schema).iter_errors(value):
        *before, keyword = error.absolute_schema_path
        if keyword in VETOED and not {"anyOf", *VETOED} & set(before):
            yield error


@given(pair=SCHEMAS_AND_VALUES)
@settings(max_examples=300, deadline=None)
def test_no_value_that_certainly_breaks_a_vetoed_keyword_is_closed(pair: tuple[Any, Any]) -> None:
    schema, value = pair
    text, end_of = written(value), ends(value)
    for error in certain_errors(schema, value):
        is_number = isinstance(error.instance, (int, float)) and not isinstance(error.instance, bool)
        last = end_of[tuple(error.absolute_path)] + is_number  # a number is complete with the character after it
        position = refused_at(veto_of(schema), text)
        assert position is not None
        assert position <= last


@given(pair=SCHEMAS_AND_VALUES, place=st.integers(0, 40), other=VALUES)
@settings(max_examples=300, deadline=None)
def test_a_copy_goes_its_own_way(pair: tuple[Any, Any], place: int, other: Any) -> None:
    schema, value = pair
    veto, text = veto_of(schema), written(value)
    refused = refused_at(veto, text)
    place = min(place, len(text) if refused is None else refused)
    original = written_up_to(veto, text[:place])
    for ending in (written(other), text[place:], text[place:]):
        copy = original.copy()
        assert copy.must_look_ahead == original.must_look_ahead
        try:
            copy.feed(ending)
            copy.finish()
        except MatcherError:
            passed = False
        else:
            passed = True
        if ending == text[place:]:
            assert passed == passes(veto, [text])


# --- Where a value is judged


@pytest.mark.parametrize(
    ("schema", "text", "vetoed"),
    [
        (an_object({"n": NOT_FIVE}), '{"n": 5}', '{"n": 5}'),
        (an_object({"n": NOT_FIVE}), '{"n": 5, "m": 1}', '{"n": 5,'),
        (an_object({"n": NOT_FIVE}), '{"n": 55}', None),
        ({"items": NOT_FIVE}, "[1, 5, 2]", "[1, 5,"),
        ({"items": {"not": {"const": True}}}, "[true, 1]", "[true"),
        ({"items": {"not": {"const": "ab"}}}, '["ab"]', '["ab"'),
        ({"items": {"not": {"const": "ab"}}}, '["abc"]', None),
        ({"items": {"not": {"const": [1]}}}, "[[1], 2]", "[[1]"),
        (an_object({"a": {"not": {"required": ["x"]}}}), '{"a": {"x": 1}, "b": 1}', '{"a": {"x": 1}'),
        ({"not": {"required": ["x"]}}, '{"x": 1}', '{"x": 1}'),
        ({"type": "object", "propertyNames": {"maxLength": 1}}, '{"ab": 1}', '{"ab": 1}'),
    ],
)
def test_a_value_is_judged_with_its_last_character(schema: Any, text: str, vetoed: str | None) -> None:
    assert refused_after(schema, text) == vetoed


def test_a_number_alone_is_judged_where_its_text_ends() -> None:
    assert refused_at(veto_of(NOT_FIVE), "5") == 1
    assert refused_at(veto_of(NOT_FIVE), "50") is None


def test_what_applies_only_perhaps_is_judged_with_the_value_around_it() -> None:
    schema = an_object({"a": {"anyOf": [an_object({"t": UNIQUE}), an_object({"t": {"maxItems": 1}})]}})
    assert refused_after(schema, '{"a": {"t": [1, 1]}}') == '{"a": {"t": [1, 1]}'
    assert refused_after(schema, '{"a": {"t": [1, 2]}}') is None
    assert refused_after(schema, '{"a": {"t": [1]}}') is None


@pytest.mark.parametrize(
    ("draft", "is_refused"),
    [
        ("https://json-schema.org/draft/2020-12/schema", True),
        ("https://json-schema.org/draft/2019-09/schema", True),
        ("http://json-schema.org/draft-07/schema#", False),
        ("http://json-schema.org/draft-06/schema#", False),
    ],
)
def test_the_schema_is_read_by_the_draft_that_it_names(draft: str, is_refused: bool) -> None:
    """Before 2019-09 there was no maxContains, and nothing counted beside a $ref."""
    most = {"$schema": draft, "contains": {"const": 1}, "maxContains": 1}
    assert (refused_after(most, "[1, 1]") is not None) is is_refused
    beside = {"$schema": draft, "$defs": {"d": {}}, "items": {"$ref": "#/$defs/d", "not": {"const": 1}}}
    assert (refused_after(beside, "[1]") is not None) is is_refused


def test_the_roots_definitions_hold_wherever_they_are_referred_to() -> None:
    tree = {"type": "object", "properties": {"tags": UNIQUE, "next": {"$ref": "#/$defs/tree"}}}
    schema = {"$ref": "#/$defs/tree", "$defs": {"tree": tree}}
    assert refused_after(schema, '{"next": {"next": {"tags": [1, 1') is None
    assert refused_after(schema, '{"next": {"next": {"tags": [1, 1]') == '{"next": {"next": {"tags": [1, 1]'
    assert refused_after(schema, '{"next": {"next": {"tags": [1, 2]}}}') is None


@pytest.mark.parametrize("name", ["a/b", "m~n", "100 %", "ä€", '"', "", "a b", "#", "$ref"])
def test_a_member_of_any_name_is_judged(name: str) -> None:
    schema = an_object({name: {"not": {"const": 1}}})
    value = {name: 1}
    assert refused_after(schema, written(value)) == written(value)
    assert refused_after(schema, written({name: 2})) is None


def test_formats_are_judged_too() -> None:
    schema = {"contains": {"format": "date"}}
    assert refused_after(schema, '["2024-02-30"]') == '["2024-02-30"]'
    assert refused_after(schema, '["2024-02-29"]') is None


def test_whatever_is_vetoed_the_whole_value_is_judged_once_more() -> None:
    """F2: nothing rests on the checks that come earlier, nor on the grammar."""
    source = an_object({"a": INTEGER, "b": UNIQUE}, required=["a"])
    veto = Veto(source, {"/properties/b/uniqueItems"})
    assert refused_at(veto, '{"b": []}') == len('{"b": []}') - 1
    assert refused_at(veto, '{"a": "x"}') == len('{"a": "x"}') - 1
    assert refused_at(veto, '{"a": 1}') is None


def test_a_schema_that_no_validator_can_be_made_of_is_refused_before_anything_is_written() -> None:
    with pytest.raises(SchemaError):
        Veto({"not": {"$ref": "#/$defs/nowhere"}}, {"/not"})
    with pytest.raises(SchemaError):
        Veto({"type": 5, "not": {}}, {"/not"})


# --- Names that repeat


@pytest.mark.parametrize("veto", [Veto({}), Veto(True), Veto({"not": {"const": 1}}, {"/not"})])
@pytest.mark.parametrize(
    ("text", "vetoed"),
    [
        ('{"a": 1, "a": 2}', '{"a": 1, "a"'),
        ('{"a": 1, "ab": 2, "a": 3}', '{"a": 1, "ab": 2, "a"'),
        ('[{"b": {"a": 1, "a": 2}}]', '[{"b": {"a": 1, "a"'),
        ('{"\\n": 1, "\\n": 2}', '{"\\n": 1, "\\n"'),
        ('[{"a": {"a": 1}}, {"a": 1}]', None),
    ],
)
def test_a_name_that_its_object_has_already_is_vetoed_at_its_closing_quote(
    veto: Veto, text: str, vetoed: str | None
) -> None:
    """Readers take the last of two: the value that was checked first would be lost."""
    position = refused_at(veto, text)
    assert (None if position is None else text[: position + 1]) == vetoed


def test_with_nothing_vetoed_nothing_but_names_is_judged() -> None:
    assert refused_at(Veto(an_object({"a": INTEGER})), '{"a": "x"}') is None


# --- Arrays, before they are complete


@pytest.mark.parametrize(
    ("schema", "text", "vetoed"),
    [
        (UNIQUE, "[1, 2, 1, 3]", "[1, 2, 1,"),
        (UNIQUE, "[1, 2, 12]", None),
        (UNIQUE, "[1, 1.0]", "[1, 1.0]"),
        (UNIQUE, "[1, true, null, false, 0]", None),
        (UNIQUE, '["a", "b", "a"]', '["a", "b", "a"'),
        (UNIQUE, '[{"a": 1, "b": [2]}, {"b": [2.0], "a": 1}]', '[{"a": 1, "b": [2]}, {"b": [2.0], "a": 1}'),
        (UNIQUE, '[[], {}, "", [[]], ["array"], "array"]', None),
        ({**UNIQUE, "items": {"enum": ["a", "b"]}}, '["b", "a", "', '["b", "a",'),
        ({**UNIQUE, "items": {"type": "boolean"}}, "[true, false, t", "[true, false,"),
        ({**UNIQUE, "items": {"type": ["null", "boolean"]}}, "[true, false, n", None),
        ({**UNIQUE, "items": {"const": [1]}}, "[[1], [", "[[1],"),
        ({**UNIQUE, "items": {"enum": [1, 1.0]}}, "[1, ", "[1,"),
        ({**UNIQUE, "items": {"enum": ["a", 5], "type": "string"}}, '["a", ', '["a",'),
        ({**UNIQUE, "items": {"allOf": [{"enum": [1, 2]}, {"not": {"const": 2}}]}}, "[1, ", "[1,"),
        ({**UNIQUE, "prefixItems": [{}], "items": {"enum": [1, 2]}}, '["x", 1, 2, ', '["x", 1, 2,'),
        ({**UNIQUE, "prefixItems": [{}], "items": {"enum": [1, 2]}}, "[1, 2, ", "[1, 2,"),
        ({**UNIQUE, "prefixItems": [{}], "items": {"enum": [1, 2]}}, '["x", 1, ', None),
        ({"allOf": [UNIQUE, {"items": {"enum": [1]}}]}, "[1, ", "[1,"),
        ({"contains": {"const": 1}, "maxContains": 1}, "[1, 0, 1, 2]", "[1, 0, 1,"),
        ({"contains": {"const": 1}, "maxContains": 0, "minContains": 0}, "[0, 1]", "[0, 1]"),
        ({"contains": {"const": "x"}, "maxItems": 2}, '["a", "b"]', '["a", "b"'),
        ({"contains": {"const": "x"}, "minContains": 2, "maxItems": 3}, '["a", "b", "x"]', '["a", "b"'),
        ({"contains": {"const": "x"}, "minContains": 0, "maxItems": 1}, '["a"]', None),
        ({"contains": {"const": "x"}, "maxItems": 0}, "[]", "[]"),
        ({"allOf": [{"contains": {"const": "x"}}, {"maxItems": 1}]}, '["a", ', '["a"'),
        ({"contains": True, "maxContains": 1}, '["a", "b", ', '["a", "b"'),
        ({"contains": {"$ref": "#/$defs/d"}, "maxItems": 1, "$defs": {"d": {"const": 0}}}, "[1,", "[1,"),
    ],
)
def test_an_array_that_can_no_longer_be_valid_goes_no_further(schema: Any, text: str, vetoed: str | None) -> None:
    assert refused_after(schema, text) == vetoed


# --- Looking ahead


def test_ways_to_the_end_are_looked_for_while_what_is_judged_is_open_or_may_come() -> None:
    veto = veto_of(an_object({"s": STRING, "t": UNIQUE}))
    text = '{"s": "ab", "t": ["x", 1], "u": 1}'
    told = "^^^       ^^^^^^^^^^^^^^ ^^^^     "  # below each character: whether, once it is written
    ahead = (written_up_to(veto, text[: end + 1]).must_look_ahead for end in range(len(text)))
    assert "".join("^" if must_look_ahead else " " for must_look_ahead in ahead) == told


def test_nothing_is_looked_for_where_nothing_is_judged_and_names_are_free() -> None:
    text = '{"a": [1, {"b": "c"}], "d": 1}'
    for schema in ({}, an_object({"a": {}, "z": STRING}, additionalProperties=False)):
        assert not any(written_up_to(Veto(schema), text[:end]).must_look_ahead for end in range(len(text) + 1))


def test_where_names_are_limited_a_way_to_the_end_is_looked_for_while_one_is_written() -> None:
    """All names that the object may have may be used up."""
    veto = Veto({"patternProperties": {"^[ab]$": {}}, "additionalProperties": False})
    told = {text: written_up_to(veto, text).must_look_ahead for text in ("", "{", '{"', '{"a"', '{"a": 1', '{"a": 1,')}
    assert told == {"": False, "{": True, '{"': True, '{"a"': False, '{"a": 1': False, '{"a": 1,': True}


def test_deep_inside_a_value_what_is_opened_must_be_closed_in_time() -> None:
    veto = Veto({})
    assert not written_up_to(veto, "[" * (MAX_OPEN // 2)).must_look_ahead
    assert written_up_to(veto, "[" * (MAX_OPEN // 2 + 1)).must_look_ahead
    assert refused_at(veto, "[" * MAX_OPEN + "1" + "]" * MAX_OPEN) is None
    assert refused_at(veto, "[" * (MAX_OPEN + 1)) == MAX_OPEN


def test_the_deepest_values_are_compared_too() -> None:
    deep = '{"a": ' * (MAX_OPEN - 1) + "1" + "}" * (MAX_OPEN - 1)
    other = deep.replace("1", "2")
    assert refused_after(UNIQUE, f"[{deep}, {other}, {deep}") == f"[{deep}, {other}, {deep}"
    assert refused_after(UNIQUE, f"[{deep}, {other}]") is None


def test_half_a_surrogate_pair_cannot_be_judged_and_is_vetoed() -> None:
    assert refused_after(an_object({"a": {"not": {"const": 1}}}), '{"a": "\\ud800"}') == '{"a": "\\ud800"'


def test_text_that_is_no_json_is_no_veto() -> None:
    with pytest.raises(MatcherError) as raised:
        written_up_to(Veto({}), "{]")
    assert not isinstance(raised.value, VetoError)


def test_one_veto_serves_many_values_at_once() -> None:
    veto = veto_of(an_object({"a": UNIQUE}))
    one, other = veto.start(), veto.start()
    one.feed('{"a": [1, ')
    other.feed('{"a": [2, ')
    one.feed("2]}")
    with pytest.raises(VetoError):
        other.feed("2]}")


def test_the_same_value_read_by_json_is_what_was_judged() -> None:
    schema = {"not": {"const": {"ä\n": ["😀", 1.5, None]}}}
    for text in (json.dumps({"ä\n": ["😀", 1.5, None]}), '{"ä\\n":["😀",15e-1,null]}'):
        assert refused_after(schema, text) == text


# --- What had better follow

CONTAINS = {"type": "array", "contains": {"const": {"a": 1, "b": "zed"}}}
EXAMPLES = {"/contains": [{"a": 1, "b": "zed"}]}


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("[", '{"a": 1, "b": "zed"}'),
        ("[1,", ' {"a": 1, "b": "zed"}'),
        ("[1", ', {"a": 1, "b": "zed"}'),
        ("[{", '"a"'),
        ('[{"', 'a"'),
        ('[{"a": ', "1"),
        ('[{"a": 1', ', "b"'),
        ('[{"b": "z', 'ed"'),
    ],
)
def test_an_example_leads_on_from_anywhere_inside_of_it(text: str, wanted: str) -> None:
    veto = Veto(CONTAINS, {"/contains"}, EXAMPLES)
    assert wanted in written_up_to(veto, text).wanted


@pytest.mark.parametrize("text", ['[{"a": 1, "b": "zed"}', '[{"a": 1, "b": "zed"}, ', "[]"])
def test_what_is_there_is_not_wanted_again(text: str) -> None:
    veto = Veto({**CONTAINS, "minContains": 0 if text == "[]" else 1}, {"/contains"}, EXAMPLES)
    assert written_up_to(veto, text).wanted == ()


def test_items_that_are_there_already_are_no_examples_of_others() -> None:
    veto = Veto(UNIQUE, {"/uniqueItems"}, {"/uniqueItems": [1, 2, 3]})
    assert "3" in written_up_to(veto, "[1, 2,").wanted
    assert not {"1", "2"} & set(written_up_to(veto, "[1, 2,").wanted)


@pytest.mark.parametrize(
    ("begun", "whole"), [("", "86400"), ("1", "172800"), ("-", "-86400"), ("-9", "-950400"), ("86400", "86400")]
)
def test_a_number_goes_on_to_be_a_multiple(begun: str, whole: str) -> None:
    veto = Veto({"type": "integer", "multipleOf": 86400, "not": {"const": 0}}, {"/multipleOf"})
    rests = written_up_to(veto, begun).wanted
    assert whole == begun or whole.removeprefix(begun) in rests
