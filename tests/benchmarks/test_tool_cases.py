"""What the accuracy benchmark asks: BFCL's halves, requests of our own, and those for the built-in tools."""

import json
from pathlib import Path

import pytest

from benchmarks import tool_accuracy
from benchmarks.bfcl import CATEGORIES
from benchmarks.example_cases import WITHOUT, example_cases
from benchmarks.tool_answers import invalid_calls
from benchmarks.tool_cases import Half, ToolCase, bfcl_cases, half_of, own_cases, shuffled
from engine.tools import BUILT_IN_TOOLS
from tests.benchmarks.needed import needs_data


def test_halves_and_order_depend_on_the_seed_and_the_id_alone() -> None:
    ids = [f"case_{number}" for number in range(400)]
    assert [half_of(id_, 0) for id_ in ids] == [half_of(id_, 0) for id_ in ids]
    assert 150 < sum(half_of(id_, 0) is Half.TUNE for id_ in ids) < 250
    assert shuffled(ids, 0) == shuffled(ids[::-1], 0) != shuffled(ids, 1)


@needs_data
def test_a_larger_sample_holds_the_smaller_one_and_the_halves_share_nothing() -> None:
    small, large = (bfcl_cases({"multiple": count}, Half.TUNE, 0) for count in (5, 20))
    other = bfcl_cases({"multiple": 200}, Half.REPORT, 0)
    assert [case.id for case in large][:5] == [case.id for case in small]
    assert len(large) == 20
    assert not {case.id for case in large} & {case.id for case in other}


@needs_data
@pytest.mark.parametrize("category", CATEGORIES)
def test_each_category_has_enough_cases_in_each_half(category: str) -> None:
    wanted = tool_accuracy.default_counts()[category]
    for half in Half:
        assert len(bfcl_cases({category: wanted}, half, 0)) == wanted


@needs_data
def test_a_call_is_wanted_in_every_category_but_two() -> None:
    wanted = {case.category: bool(case.expected) for case in bfcl_cases(dict.fromkeys(CATEGORIES, 3), Half.TUNE, 0)}
    assert [category for category, calls in wanted.items() if not calls] == ["irrelevance", "live_irrelevance"]


def test_the_own_requests_are_the_users_two_tests_and_forty_more() -> None:
    cases = own_cases()
    asked = [case.messages[0].content for case in cases]
    assert asked[:2] == ["Calculate 15 * 23 + 47", "Use the calculator tool to compute sqrt(144) + 2^3"]
    assert len(set(asked)) == len(cases) == 42
    assert all(case.expected[0] in {tool.name for tool in case.tools} for case in cases)


@pytest.mark.parametrize("case", own_cases(), ids=lambda case: case.id)
def test_every_own_request_has_a_right_call_that_its_tool_takes(case: ToolCase) -> None:
    (entry,) = case.answers
    arguments = {
        name: str(accepted["value"]) if isinstance(accepted, dict) else accepted[0]
        for name, accepted in {**entry["arguments"], **entry.get("optional", {})}.items()
    }
    call = {"name": entry["name"], "arguments": arguments}
    assert invalid_calls([call], case.tools) == []
    assert case.fault([call]) is None


def test_no_own_request_is_among_those_that_tuning_has_seen() -> None:
    seen = json.loads((Path(tool_accuracy.__file__).parent / "data" / "tool_requests.json").read_text())
    own = json.loads((Path(tool_accuracy.__file__).parent / "data" / "own_requests.json").read_text())
    tuned = {request["message"].lower() for request in seen["requests"]}
    assert not tuned & {request["message"].lower() for request in own["requests"]}


def test_each_built_in_tool_is_asked_with_its_examples_and_without() -> None:
    by_category: dict[str, list[ToolCase]] = {}
    for case in example_cases(3):
        by_category.setdefault(case.category, []).append(case)
    assert example_cases(3) == [case for cases in by_category.values() for case in cases] != example_cases(4)
    for name, count in (("calculate", 120), ("web_search", 50)):
        shown, bare = by_category[name], by_category[name + WITHOUT]
        assert [case.messages for case in shown] == [case.messages for case in bare]
        assert len(shown) == len({case.id for case in [*shown, *bare]}) / 2 == count
        (tool,), (plain,) = shown[0].tools, bare[0].tools
        assert tool in BUILT_IN_TOOLS.definitions
        assert '"examples"' in json.dumps(tool.parameters)
        assert '"examples"' not in json.dumps(plain.parameters)


@pytest.mark.parametrize("case", example_cases(0)[::17], ids=lambda case: case.id)
def test_a_request_for_a_built_in_tool_is_answered_by_its_value(case: ToolCase) -> None:
    ((name, accepted),) = case.answers[0]["arguments"].items()
    right, wrong = (str(accepted["value"]), "0.5") if name == "expression" else (accepted[0], "it")
    assert case.fault([{"name": case.expected[0], "arguments": {name: right}}]) is None
    assert case.fault([{"name": case.expected[0], "arguments": {name: wrong}}]) == f"value:{name}"
