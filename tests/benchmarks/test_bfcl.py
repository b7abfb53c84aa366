"""BFCL's documents become schemas that the engine takes, and the committed ids are the seeded draw."""

import json

import pytest

from benchmarks.bfcl import (
    CATEGORIES,
    DECODE_CATEGORIES,
    DECODE_IDS,
    DECODE_SEED,
    WITHOUT_A_CALL,
    decode_cases,
    draw_ids,
    load_cases,
    to_case,
    to_json_schema,
)
from engine.errors import RequestError
from engine.grammars.tool_format import ToolFormat
from engine.grammars.tool_formats import HERMES, PLAIN
from engine.grammars.turn import build_turn
from engine.types import Request, Role, ToolChoice, ToolChoiceMode
from tests.benchmarks.needed import needs_data


@pytest.mark.parametrize(
    ("bfcl", "expected"),
    [
        ({"type": "dict"}, {"type": "object"}),
        ({"type": "float", "description": "d"}, {"type": "number", "description": "d"}),
        ({"type": "tuple", "items": {"type": "float"}}, {"type": "array", "items": {"type": "number"}}),
        ({"type": "any", "description": "d"}, {"description": "d"}),
        ({"description": "no type"}, {"description": "no type"}),
        ({"type": "string", "optional": True}, {"type": "string"}),
        ({"type": "array", "items": {"type": "any"}}, {"type": "array", "items": {}}),
        (
            {"type": "dict", "properties": {"a": {"type": "dict", "properties": {"b": {"type": "float"}}}}},
            {"type": "object", "properties": {"a": {"type": "object", "properties": {"b": {"type": "number"}}}}},
        ),
        (  # names of properties are no keywords
            {"type": "dict", "properties": {"type": {"type": "string"}, "optional": {"type": "float"}}},
            {"type": "object", "properties": {"type": {"type": "string"}, "optional": {"type": "number"}}},
        ),
    ],
)
def test_types_become_those_of_json_schema_at_every_depth(bfcl: dict[str, object], expected: dict[str, object]) -> None:
    assert to_json_schema(bfcl) == expected


def test_a_line_becomes_messages_and_tools() -> None:
    parameters = {"type": "dict", "properties": {"x": {"type": "integer"}}, "required": ["x"]}
    entry = {
        "id": "simple_python_7",
        "question": [[{"role": "user", "content": "Square 3."}]],
        "function": [{"name": "math.square", "description": "Squares.", "parameters": parameters}],
    }
    case = to_case(entry)
    assert case.id == "simple_python_7"
    assert [(message.role, message.content) for message in case.messages] == [(Role.USER, "Square 3.")]
    assert case.tools[0].name == "math.square"
    assert case.tools[0].parameters == {**parameters, "type": "object"}


def test_a_draw_takes_the_categories_in_turn_and_depends_on_the_seed_alone() -> None:
    available = {"a": [f"a_{index}" for index in range(40)], "b": [f"b_{index}" for index in range(40)]}
    drawn = draw_ids(available, 0)
    assert [id_[0] for id_ in drawn] == ["a", "b"] * 15
    assert len(set(drawn)) == 30
    assert drawn == draw_ids({name: ids[::-1] for name, ids in available.items()}, 0)
    assert drawn != draw_ids(available, 1)


def test_fifteen_ids_of_each_category_are_committed() -> None:
    ids = json.loads(DECODE_IDS.read_text())
    assert len(set(ids)) == len(ids) == 30
    assert [sum(id_.startswith(f"{category}_") for id_ in ids) for category in DECODE_CATEGORIES] == [15, 15]


@needs_data
def test_the_committed_ids_are_the_seeded_draw() -> None:
    available = {category: list(load_cases(category)) for category in DECODE_CATEGORIES}
    assert json.loads(DECODE_IDS.read_text()) == draw_ids(available, DECODE_SEED)
    assert [case.id for case in decode_cases()] == json.loads(DECODE_IDS.read_text())


@needs_data
@pytest.mark.parametrize("family", [PLAIN, HERMES], ids=lambda family: family.name)
@pytest.mark.parametrize("category", CATEGORIES)
def test_the_engine_takes_the_tools_of_every_case_but_those_that_are_listed(category: str, family: ToolFormat) -> None:
    """Of the large categories every tenth case."""
    by_id = load_cases(category)
    step = 1 if category in DECODE_CATEGORIES else 10
    cases = [by_id[id_] for id_ in sorted({*list(by_id)[::step], *(by_id.keys() & WITHOUT_A_CALL)})]
    required = ToolChoice(ToolChoiceMode.REQUIRED)
    refused = set()
    for case in cases:
        try:
            request = Request(messages=case.messages, tools=case.tools, tool_choice=required)
            assert build_turn(request, family, {}).has_calls
        except RequestError:
            refused.add(case.id)
    assert refused == by_id.keys() & WITHOUT_A_CALL
