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
    for arguments in ({}, {"a": 1}, {"b": "x", "d": 1}):
        assert not holds(family, parameters, arguments)
    # Gemma's come in the order of their names; however they are given, they are written so.
    assert holds(family, parameters, {"b": "x", "a": 1}) == (family is GEMMAS)
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


VALUES_OF_ALL_TYPES = [
    None,
    True,
    -1.5,
    0,
    "a 'b' \"c\" \\ \n 日本 😀",
    [],
    {},
    [1, [None, "x"]],
    {"k": {"l": [False]}},
]
DEEP: list[tuple[Any, list[Any], list[Any]]] = [  # a property's schema, values that it allows, values that it does not
    ({}, VALUES_OF_ALL_TYPES, []),
    (True, VALUES_OF_ALL_TYPES, []),
    ({"type": "object"}, [{}, {"a": 1, "b c": [True, {"d": None}]}], [[], 1, "x"]),
    ({"type": "array"}, [[], [1, "two", [3], {"four": 4}]], [{}, 1, "x"]),
    ({"type": "array", "items": INTEGER, "maxItems": 1}, [[], [1]], [[1, 2]]),
    ({"type": "array", "items": INTEGER, "minItems": 1, "maxItems": 1}, [[1]], [[], [1, 2]]),
    ({"type": "array", "maxItems": 0}, [[]], [[1]]),
    ({"type": "array", "prefixItems": [INTEGER, STRING], "maxItems": 3}, [[], [1], [1, "a"], [1, "a", None]], [["a"]]),
    (
        {"type": "object", "minProperties": 1, "maxProperties": 2},
        [{"a": 1}, {"a": 1, "b": 2}],
        [{}, dict.fromkeys("abc")],
    ),
    ({"type": "object", "patternProperties": {"^n_": INTEGER}}, [{"n_a": 1, "x": 1}], [{"n_a": "x"}]),
    ({**POINT, "additionalProperties": INTEGER}, [{"x": 1}, {"x": 1, "z": 2}], [{"x": 1, "z": "2"}, {"z": 2}]),
    ({"enum": [[1, "a"], {"k": "v", "n": None}, "s"]}, [[1, "a"], {"k": "v", "n": None}, "s"], [[1], "a", {}]),
    ({**STRING, "pattern": "^a|b$"}, ["ax", "xb"], ["xa", "bx"]),
    ({**STRING, "allOf": [{"pattern": "^a"}, {"pattern": "b$"}]}, ["ab", "axb"], ["a", "b"]),
]


@pytest.mark.parametrize("family", [PYTHONIC, GEMMAS], ids=["pythonic", "gemma"])
@pytest.mark.parametrize(("schema", "good", "bad"), DEEP, ids=lambda value: json.dumps(value)[:40])
def test_literals_hold_any_json_value(family: ToolFormat, schema: Any, good: list[Any], bad: list[Any]) -> None:
    """F5, F7."""
    parameters = an_object({"p": schema}, required=["p"])
    for value in good:
        if family is GEMMAS and "b c" in json.dumps(value):
            continue  # its keys have no quotes
        assert holds(family, parameters, {"p": value}), value
    for value in bad:
        assert not holds(family, parameters, {"p": value}), value


@pytest.mark.parametrize("family", [PYTHONIC, GEMMAS], ids=["pythonic", "gemma"])
def test_literals_hold_arguments_that_are_not_closed(family: ToolFormat) -> None:
    parameters = an_object({"a": INTEGER}, required=["a"], additionalProperties=STRING)
    assert holds(family, parameters, {"a": 1})
    assert holds(family, parameters, {"a": 1, "other": "x", "another": "y"})
    assert not holds(family, parameters, {"a": 1, "other": 2})
    assert not holds(family, parameters, {"other": "x"})
    receipt = setting_of(family, parameters).turn.receipt
    assert any("letters, digits and _" in entry.detail for entry in receipt.entries)


@each_other
def test_arguments_as_a_whole_may_be_bound_together(family: ToolFormat) -> None:
    """F7."""
    parameters = an_object({"a": INTEGER, "b": STRING}, dependentRequired={"a": ["b"]})
    for arguments in ({}, {"b": "x"}, {"a": 1, "b": "x"}):
        assert holds(family, parameters, arguments)
    assert not holds(family, parameters, {"a": 1})


@each_other
def test_an_argument_may_refer_to_the_arguments(family: ToolFormat) -> None:
    parameters = an_object({"n": INTEGER, "next": {"$ref": "#"}}, required=["n"], additionalProperties=False)
    assert holds(family, parameters, {"n": 1, "next": {"n": 2, "next": {"n": 3}}})
    assert not holds(family, parameters, {"n": 1, "next": {"next": {"n": 3}}})


PYTHONS: list[tuple[Any, str, Any]] = [  # a schema, a value as templates write it, what it means
    (STRING, "'Paris'", "Paris"),
    (STRING, "'it\\'s \"so\"\\n'", 'it\'s "so"\n'),
    (STRING, "'a\x7f'", "a\x7f"),
    ({**STRING, "maxLength": 2}, "'ab'", "ab"),
    ({**STRING, "maxLength": 2}, "'a\x7f'", "a\x7f"),
    ({**STRING, "pattern": "^a+$"}, "'aa'", "aa"),
    ({**STRING, "pattern": "^a.$"}, "'a\x7f'", "a\x7f"),
    ({"enum": ["a", "b"]}, "'b'", "b"),
    ({"type": ["boolean", "null"]}, "true", True),
    ({"type": ["boolean", "null"]}, "None", None),
    ({"type": ["boolean", "null"]}, "null", None),
    ({"type": "object"}, "{'a': [True, 'x'], \"b\": null}", {"a": [True, "x"], "b": None}),
    ({"type": "object"}, "{'\x7f': 'a\x7f', \"\x7fb\": 1}", {"\x7f": "a\x7f", "\x7fb": 1}),
    ({"type": "array"}, "['a', \"b\", 1.5, {}]", ["a", "b", 1.5, {}]),
]


@pytest.mark.parametrize(("schema", "written", "value"), PYTHONS, ids=lambda value: str(value)[:30])
def test_python_is_read_with_either_quotes_and_either_words(schema: Any, written: str, value: Any) -> None:
    """LFM2.5's template writes strings in single quotes and objects as JSON."""
    setting = setting_of(PYTHONIC, an_object({"p": schema}, required=["p"]))
    tokens = setting.encode(f"<|tool_call_start|>[f(p={written})]<|tool_call_end|>")
    assert setting.accepts(tokens)
    assert reading_of(setting.read(tokens)).calls == (("f", {"p": value}),)


@pytest.mark.parametrize("family", [TAGGED, GEMMAS], ids=["tagged", "gemma"])
@pytest.mark.parametrize("schema", [STRING, {**STRING, "maxLength": 3}, {**STRING, "pattern": "^a.c$"}], ids=str)
def test_a_string_that_is_written_as_it_is_may_have_a_control_character(family: ToolFormat, schema: Any) -> None:
    """F23. JSON's strings leave them out: docs/schemas.md."""
    for text in ("a\x7fc", "a\x01c", "a\x00c"):
        assert holds(family, an_object({"p": schema}, required=["p"]), {"p": text})


@pytest.mark.parametrize("wrong", ["'abc'", "'a", "'a\"", "'\\x41'", "'\n'"])
def test_python_in_single_quotes_is_bound_by_the_schema_too(wrong: str) -> None:
    setting = setting_of(PYTHONIC, an_object({"p": {**STRING, "maxLength": 2}}, required=["p"]))
    assert not setting.accepts(setting.encode(f"<|tool_call_start|>[f(p={wrong})]<|tool_call_end|>"))


REFUSED: list[tuple[Any, str, list[ToolFormat]]] = [
    ({"type": ["string", "integer"]}, ".properties.p", [TAGGED]),
    ({"anyOf": [STRING, {"type": "array"}]}, ".properties.p", [TAGGED]),
    ({"oneOf": [STRING, INTEGER]}, ".properties.p", [TAGGED]),
    ({}, ".properties.p", [TAGGED]),
    ({"minimum": 3}, ".properties.p", [TAGGED]),
    ({**STRING, "pattern": "(a^)b"}, ".properties.p.pattern", [TAGGED, GEMMAS]),
    ({**STRING, "format": "ipv6"}, ".properties.p.format", [TAGGED, GEMMAS]),
    ({"allOf": [STRING, {"format": "ipv6"}]}, ".properties.p", [TAGGED, GEMMAS]),
    ({"$ref": "#/definitions/host"}, ".properties.p", [TAGGED, GEMMAS]),
    ({"enum": ["</parameter>", "a"]}, ".properties.p", [TAGGED]),
]


@pytest.mark.parametrize(("schema", "where", "families"), REFUSED, ids=lambda value: str(value)[:40])
def test_what_a_way_of_writing_cannot_hold_is_refused_by_path(
    schema: Any, where: str, families: list[ToolFormat]
) -> None:
    """F7: nothing is dropped in silence, and the path is one that the caller wrote."""
    definitions = {"host": {**STRING, "format": "ipv6"}}
    for family in families:
        with pytest.raises((SchemaError, GrammarError)) as caught:
            setting_of(family, an_object({"p": schema}, required=["p"], definitions=definitions)).matcher()
        assert caught.value.param == f"tools[0].parameters{where}"
        assert str(caught.value).startswith(f"tools[0].parameters{where}: ")


@pytest.mark.parametrize(
    ("family", "name"),
    [(TAGGED, 'a"b'), (TAGGED, "<a>"), (TAGGED, ""), (PYTHONIC, "a b"), (PYTHONIC, "a-b"), (GEMMAS, "1a")],
    ids=str,
)
def test_a_name_that_would_not_read_back_is_refused(family: ToolFormat, name: str) -> None:
    with pytest.raises(SchemaError) as caught:
        setting_of(family, an_object({name: INTEGER})).matcher()
    assert caught.value.param.startswith("tools[0].parameters.properties")


def test_arguments_that_are_not_closed_are_refused_between_tags() -> None:
    for parameters in ({"type": "object", "additionalProperties": INTEGER}, an_object({}, additionalProperties=True)):
        with pytest.raises(SchemaError) as caught:
            setting_of(TAGGED, parameters).matcher()
        assert caught.value.param.startswith("tools[0].parameters")


def test_an_argument_that_is_a_string_in_one_case_and_not_in_another_is_refused_between_tags() -> None:
    cases = [{"properties": {"p": STRING}}, {"properties": {"p": INTEGER}}]
    with pytest.raises(SchemaError) as caught:
        setting_of(TAGGED, {"type": "object", "oneOf": cases}).matcher()
    assert caught.value.param == "tools[0].parameters"


def test_between_tags_a_string_that_may_be_null_cannot_be_the_word() -> None:
    parameters = an_object({"p": {"anyOf": [{"enum": ["null", "a"]}, {"type": "boolean"}]}}, required=["p"])
    assert holds(TAGGED, parameters, {"p": "null"})
    nullable = an_object({"p": {"anyOf": [{"enum": ["true", "a"]}, {"enum": [False]}]}}, required=["p"])
    assert holds(TAGGED, nullable, {"p": "a"})
    assert not holds(TAGGED, nullable, {"p": "true"})
    details = [entry.detail for entry in setting_of(TAGGED, nullable).turn.receipt.entries]
    assert "strings cannot be true, false" in details


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
