"""Three ways of writing arguments: what each can hold is enforced and read back, what it cannot is refused by path."""

import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import GrammarError, SchemaError
from engine.grammars.tool_formats import GEMMA4, LFM2, MINIMAX, ToolFormat
from engine.types import Tool, ToolChoice
from tests.families import Setting, reading_of
from tests.grammars.turns import INTEGER, STRING, an_object

TAGGED, PYTHONIC, GEMMAS = MINIMAX, LFM2, GEMMA4
each_other = pytest.mark.parametrize("family", [TAGGED, PYTHONIC, GEMMAS], ids=["tagged", "pythonic", "gemma"])


def setting_of(family: ToolFormat, parameters: Any) -> Setting:
    return Setting(family, (Tool("f", "", parameters),), choice=ToolChoice.named("f"))


def holds(family: ToolFormat, parameters: Any, arguments: Any) -> bool:
    """Whether the arguments can be written; if so, they are read back."""
    setting = setting_of(family, parameters)
    tokens = setting.encode(family.write_call("f", json.dumps(arguments, ensure_ascii=False)))
    if not setting.accepts(tokens):
        return False
    assert reading_of(setting.read(tokens)).calls == (("f", arguments),)
    return True


POINT = an_object({"x": {"type": "number"}, "name": STRING}, required=["x"], additionalProperties=False)
GOOD: list[tuple[Any, Any, Any]] = [  # a property's schema, a value that it allows, one that it does not
    (STRING, "a b", 5),
    ({**STRING, "maxLength": 3}, "abc", "abcd"),
    ({**STRING, "minLength": 2}, "ab", "a"),
    ({**STRING, "pattern": "^[a-z]+$"}, "abc", "ABC"),
    ({**STRING, "pattern": "o+"}, "foot", "fat"),
    ({**STRING, "pattern": "^(a|b)"}, "bx", "cx"),
    ({**STRING, "format": "date"}, "2026-02-28", "2026-02-30"),
    ({**STRING, "format": "ipv4"}, "10.0.0.255", "10.0.0.256"),
    ({"enum": ["red", "green"]}, "red", "blue"),
    ({"const": "only"}, "only", "other"),
    (INTEGER, -12, "x"),
    ({**INTEGER, "minimum": 3, "maximum": 5}, 4, 6),
    ({"enum": [1, 2]}, 2, 3),
    ({"type": "boolean"}, True, "maybe"),
    ({"type": ["boolean", "null"]}, None, 7),
    ({"type": ["string", "null"]}, None, 7),
    ({"anyOf": [{**STRING, "maxLength": 4}, {"type": "null"}]}, "nu", "nulls"),
    ({"type": "array", "items": INTEGER, "maxItems": 2}, [1, 2], [1, 2, 3]),
    ({"type": "array", "items": STRING, "minItems": 1}, ["a", "b c"], []),
    (POINT, {"x": 1.5, "name": "here"}, {"name": "here"}),
    ({"type": "array", "items": POINT}, [{"x": 1}, {"x": 2, "name": ""}], [{"y": 1}]),
]


@each_other
@pytest.mark.parametrize(("schema", "good", "bad"), GOOD, ids=lambda value: json.dumps(value)[:40])
def test_a_schema_is_enforced_and_its_values_are_read_back(
    family: ToolFormat, schema: Any, good: Any, bad: Any
) -> None:
    """F7."""
    if family is TAGGED and isinstance(bad, int) and schema.get("type") in ("string", ["string", "null"]):
        bad = "</parameter>"  # between tags, 5 is the string "5"
    parameters = an_object({"p": schema}, required=["p"])
    assert holds(family, parameters, {"p": good})
    assert not holds(family, parameters, {"p": bad})


@each_other
def test_optional_arguments_come_in_the_schemas_order_or_not_at_all(family: ToolFormat) -> None:
    """F22, F28."""
    parameters = an_object({"a": INTEGER, "b": STRING, "c": INTEGER}, required=["b"])
    for arguments in ({"b": "x"}, {"a": 1, "b": "x"}, {"b": "x", "c": 2}, {"a": 1, "b": "x", "c": 2}):
        assert holds(family, parameters, arguments)
    for arguments in ({}, {"a": 1}, {"b": "x", "a": 1}, {"b": "x", "d": 1}):
        assert not holds(family, parameters, arguments)
    assert holds(family, an_object({"a": INTEGER, "b": INTEGER}), {})


@pytest.mark.parametrize("family", [PYTHONIC, GEMMAS], ids=["pythonic", "gemma"])
def test_a_schema_that_refers_to_itself_is_held_by_literals(family: ToolFormat) -> None:
    tree = an_object(
        {"name": STRING, "children": {"type": "array", "items": {"$ref": "#/$defs/tree"}}},
        required=["name"],
        additionalProperties=False,
    )
    parameters = an_object({"root": {"$ref": "#/$defs/tree"}}, required=["root"], **{"$defs": {"tree": tree}})
    assert holds(family, parameters, {"root": {"name": "a", "children": [{"name": "b"}, {"name": "c"}]}})
    assert not holds(family, parameters, {"root": {"children": []}})


@pytest.mark.parametrize("family", [PYTHONIC, GEMMAS], ids=["pythonic", "gemma"])
def test_literals_tell_a_string_from_a_number(family: ToolFormat) -> None:
    parameters = an_object({"id": {"type": ["string", "integer"]}}, required=["id"])
    assert holds(family, parameters, {"id": "5"})
    assert holds(family, parameters, {"id": 5})


REFUSED: list[tuple[Any, str, list[ToolFormat]]] = [
    ({"type": ["string", "integer"]}, ".properties.p", [TAGGED]),
    ({"anyOf": [STRING, {"type": "array"}]}, ".properties.p", [TAGGED]),
    ({}, ".properties.p", [TAGGED]),
    ({**STRING, "pattern": "a^b"}, ".properties.p.pattern", [TAGGED, GEMMAS]),
    ({**STRING, "format": "ipv6"}, ".properties.p.format", [TAGGED, GEMMAS]),
    ({"enum": ["</parameter>", "a"]}, ".properties.p", [TAGGED]),
    ({"enum": ['<|"|>', "a"]}, ".properties.p", [GEMMAS]),
    ({"type": "object", "patternProperties": {"^a": INTEGER}}, ".properties.p.patternProperties", [PYTHONIC, GEMMAS]),
    ({"allOf": [{"type": "object"}, {"minProperties": 1}]}, ".properties.p.minProperties", [PYTHONIC, GEMMAS]),
    ({"type": "object", "minProperties": 1}, ".properties.p.minProperties", [PYTHONIC, GEMMAS]),
]


@pytest.mark.parametrize(("schema", "where", "families"), REFUSED, ids=lambda value: str(value)[:40])
def test_what_a_way_of_writing_cannot_hold_is_refused_by_path(
    schema: Any, where: str, families: list[ToolFormat]
) -> None:
    """F7: nothing is dropped in silence."""
    for family in families:
        with pytest.raises((SchemaError, GrammarError)) as caught:
            setting_of(family, an_object({"p": schema}, required=["p"])).matcher()
        assert caught.value.param == f"tools[0].parameters{where}"


@pytest.mark.parametrize(
    ("family", "name"),
    [(TAGGED, 'a"b'), (TAGGED, "<a>"), (TAGGED, ""), (PYTHONIC, "a b"), (PYTHONIC, "a-b"), (GEMMAS, "1a")],
    ids=str,
)
def test_a_name_that_would_not_read_back_is_refused(family: ToolFormat, name: str) -> None:
    with pytest.raises(SchemaError) as caught:
        setting_of(family, an_object({name: INTEGER})).matcher()
    assert caught.value.param.startswith("tools[0].parameters.properties")


@each_other
def test_arguments_that_are_not_closed_are_refused(family: ToolFormat) -> None:
    for parameters in ({"type": "object", "additionalProperties": INTEGER}, an_object({}, additionalProperties=True)):
        with pytest.raises(SchemaError) as caught:
            setting_of(family, parameters).matcher()
        assert caught.value.param.startswith("tools[0].parameters")


def test_a_tagged_string_cannot_contain_its_close_tag_and_the_receipt_says_so() -> None:
    """F20."""
    setting = setting_of(TAGGED, an_object({"p": STRING}))
    assert not holds(TAGGED, an_object({"p": STRING}), {"p": "a</parameter>b"})
    details = [entry.detail for entry in setting.turn.receipt.entries]
    assert "strings cannot contain </parameter>" in details


TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc"))).filter(
    # Spelled tokens are test_families' matter.
    lambda text: not re.search(r"<\|?/?[a-z_:\"]+\|?>|<\|im", text) and text not in ("null", "True", "False")
)
VALUES = st.fixed_dictionaries(
    {"s": TEXTS, "n": st.integers(-(10**9), 10**9), "l": st.lists(TEXTS, max_size=3), "o": st.none() | TEXTS}
)


@each_other
@given(arguments=VALUES)
@settings(deadline=None, max_examples=30)
def test_any_text_is_read_back_as_it_was_written(family: ToolFormat, arguments: Any) -> None:
    """F23."""
    parameters = an_object(
        {"s": STRING, "n": INTEGER, "l": {"type": "array", "items": STRING}, "o": {"type": ["string", "null"]}},
        required=["s", "n", "l", "o"],
    )
    assert holds(family, parameters, {name: arguments[name] for name in "snlo"})
