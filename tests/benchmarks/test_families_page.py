"""docs/families.md is what the script writes."""

import json
from dataclasses import replace

import pytest

from benchmarks.families_page import PAGE, page
from benchmarks.family_engine_walks import RESULTS as ENGINE_RESULTS
from benchmarks.family_engine_walks import judged, request_of
from benchmarks.family_walks import NUM_WALKS, RESULTS, chosen_families
from engine.errors import GenerationError, RequestError
from engine.events import Completion, Receipt, StopReason, Usage
from engine.grammars.tool_formats import HERMES, TOOL_FORMATS
from engine.types import ToolCall, ToolChoice


def test_the_page_is_written_from_the_families() -> None:
    assert PAGE.read_text() == page(json.loads(RESULTS.read_text()), json.loads(ENGINE_RESULTS.read_text()))


def test_committed_walks_through_the_engine_broke_nothing() -> None:
    rows = json.loads(ENGINE_RESULTS.read_text())
    assert set(rows) == {family.name for family in TOOL_FORMATS}
    for name, row in rows.items():
        assert row["walks"] == 4 * NUM_WALKS, name
        assert row["failures"] == 0, name
        assert row["calls"] > NUM_WALKS, name


def test_a_walk_that_breaks_a_rule_is_counted() -> None:
    request = request_of("named", 1)
    arguments = {"wrong": '{"days": 3}', "right": '{"city": "Paris"}'}
    name = request.tools[0].name
    calls = {each: ToolCall("id", name, text) for each, text in arguments.items()}
    named = replace(request, tool_choice=ToolChoice.named(name))
    assert judged(HERMES, "required", named, answer(calls["wrong"]))["failures"] == 1
    assert judged(HERMES, "required", named, answer(calls["right"]))["failures"] == 0
    assert judged(HERMES, "required", named, answer())["failures"] == 1
    assert judged(HERMES, "one at a time", named, answer(calls["right"], calls["right"]))["failures"] == 1
    assert judged(HERMES, "auto", named, GenerationError("it broke"))["failures"] == 1
    assert judged(HERMES, "auto", named, RequestError("no", param="tools"))["refused"] == 1


def answer(*calls: ToolCall) -> Completion:
    usage = Usage(prompt_tokens=1, completion_tokens=1, forced_tokens=0, forward_passes=1)
    return Completion(None, calls, StopReason.EOS, usage, 0, Receipt(()), ())


def test_walks_are_of_the_families_that_are_named() -> None:
    every = [family.name for family in TOOL_FORMATS]
    assert chosen_families("walks", []) == every
    assert chosen_families("walks", ["plain", "hermes"]) == ["hermes", "plain"]


@pytest.mark.parametrize("arguments", [["hermes", "helpless"], ["--helpless"], ["Hermes"]], ids=" ".join)
def test_walks_of_a_family_that_is_none_are_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        chosen_families("walks", arguments)
    assert stopped.value.code == 2
    said = capsys.readouterr().err
    assert arguments[-1] in said
    assert arguments[-1].startswith("-") or all(family.name in said for family in TOOL_FORMATS)


def test_every_family_has_committed_walks() -> None:
    rows = json.loads(RESULTS.read_text())
    assert set(rows) == {family.name for family in TOOL_FORMATS}
    for name, row in rows.items():
        assert row["walks"] == 4 * NUM_WALKS, name
        assert row["failures"] == 0, name
        assert row["complete_calls"] > NUM_WALKS, name
