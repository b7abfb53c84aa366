"""The accuracy benchmark's verdicts, modes, runs and figures; the model is a fake."""

import io
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from rich.console import Console

from benchmarks import retrieval
from benchmarks.bfcl import load_answers, load_entries
from benchmarks.bfcl_checker import fault_of
from benchmarks.intervals import bootstrap_balanced, wilson
from benchmarks.tool_accuracy import ask_all, ask_batch, judged, main, read_results, run_of
from benchmarks.tool_accuracy_report import show, speed, summaries
from benchmarks.tool_answers import Asked, InProcess, Mode, OverHttp, Written, invalid_calls, read_calls
from benchmarks.tool_cases import Half, ToolCase, own_cases, own_fault
from engine.engine import Engine
from engine.grammars.tool_formats import HERMES, PLAIN
from engine.types import Message, Role, Tool
from tests.api.servers import call_text, served
from tests.benchmarks.needed import needs_data
from tests.fakes import CALCULATE, SEARCH, fake_that_writes

ANSWER = {"name": "calculate", "arguments": {"expression": {"value": 6}}}
RIGHT = {"name": "calculate", "arguments": {"expression": "2 * 3"}}
SETTINGS: dict[str, Any] = {
    "model": "fake",
    "mode": "required",
    "options": {},
    "engine_options": {},
    "max_tokens": 60,
    "temperature": 0,
    "seed": 0,
    "batch": 2,
    "over_http": True,
}


def own_case(id_: str = "own_0", **expected: Any) -> ToolCase:
    entry = {**ANSWER, **expected}
    said = (Message(Role.USER, "What is 2 * 3?"),)
    return ToolCase(id_, "own", Half.REPORT, said, (CALCULATE, SEARCH), (entry["name"],), (entry,))


class Scripted:
    """Answers with what it is told, and remembers what it was asked."""

    def __init__(self, *calls: dict[str, Any]) -> None:
        self.calls = calls
        self.asked: list[str] = []

    def answer(self, cases: Sequence[ToolCase], mode: Mode) -> list[Written]:
        assert mode is Mode.REQUIRED
        self.asked += [case.id for case in cases]
        return [Written(self.calls, completion_tokens=5) for _ in cases]


# Verdicts.


@pytest.mark.parametrize(
    ("calls", "fault"),
    [
        ([RIGHT], None),
        ([{"name": "calculate", "arguments": {"expression": "5 + 1"}}], None),
        ([{"name": "calculate", "arguments": {"expression": "5"}}], "value:expression"),
        ([{"name": "calculate", "arguments": {"expression": "5 +"}}], "value:expression"),
        ([{"name": "calculate", "arguments": {}}], "missing:expression"),
        ([{"name": "calculate", "arguments": {"expression": "6", "digits": 2}}], "needless:digits"),
        ([{"name": "web_search", "arguments": {"query": "2 * 3"}}], "wrong_func_name"),
        ([RIGHT, RIGHT], "wrong_count"),
        ([], "wrong_count"),
    ],
)
def test_calls_are_judged_beside_what_the_own_data_accept(calls: list[dict[str, Any]], fault: str | None) -> None:
    assert own_fault(calls, ANSWER) == fault


@pytest.mark.parametrize(("value", "is_right"), [("BERLIN.", True), ("Bonn", False), (True, False), (1, False)])
def test_text_is_right_whatever_its_case(value: object, is_right: bool) -> None:
    expected = {"name": "f", "arguments": {"city": ["Berlin", "Berlin, Germany"]}, "optional": {"days": [1]}}
    found = own_fault([{"name": "f", "arguments": {"city": value}}], expected)
    assert (found is None) is is_right
    assert own_fault([{"name": "f", "arguments": {"city": "Berlin", "days": True}}], expected) == "value:days"


@needs_data
def test_the_leaderboards_checker_names_what_is_wrong() -> None:
    entry, answers = (load(CATEGORY)["simple_python_0"] for load in (load_entries, load_answers))
    area = "calculate_triangle_area"

    def fault(*calls: tuple[str, dict[str, Any]]) -> str | None:
        written = [{"name": name, "arguments": arguments} for name, arguments in calls]
        return fault_of(CATEGORY, entry["function"], written, answers)

    assert fault((area, {"base": 10, "height": 5})) is None
    assert fault((area, {"base": 10, "height": 5, "unit": "units"})) is None
    assert fault((area, {"base": 10, "height": 6})) == "value_error:others"
    assert fault((area, {"base": 10})) == "simple_function_checker:missing_required"
    assert fault(("area", {"base": 10, "height": 5})) == "simple_function_checker:wrong_func_name"
    assert fault() == "simple_function_checker:wrong_count"


CATEGORY = "simple_python"


@needs_data
def test_of_parallel_calls_the_order_does_not_matter() -> None:
    entry, answers = (load("parallel")["parallel_0"] for load in (load_entries, load_answers))
    calls = [
        {"name": "spotify.play", "arguments": {"artist": artist, "duration": minutes}}
        for artist, minutes in (("Maroon 5", 15), ("Taylor Swift", 20))
    ]
    assert fault_of("parallel", entry["function"], calls, answers) is None
    assert fault_of("parallel", entry["function"], calls[:1], answers) is not None


def test_any_call_is_one_too_many_where_none_answers() -> None:
    assert fault_of("irrelevance", [], [], []) is None
    assert fault_of("irrelevance", [], [RIGHT], []) == "needless_call"


@pytest.mark.parametrize(
    ("call", "is_valid"),
    [
        (RIGHT, True),
        ({"name": "calculate", "arguments": {"expression": 6}}, False),
        ({"name": "calculate", "arguments": {}}, False),
        ({"name": "nothing", "arguments": {}}, False),
    ],
)
def test_a_call_is_valid_where_its_tool_is_offered_and_takes_it(call: dict[str, Any], is_valid: bool) -> None:
    assert (invalid_calls([call], (CALCULATE, SEARCH)) == []) is is_valid


@pytest.mark.parametrize(
    ("written", "mode", "is_valid"),
    [
        (Written((RIGHT,)), Mode.REQUIRED, True),
        (Written(text="Six."), Mode.REQUIRED, False),
        (Written(text="Six."), Mode.AUTO, True),
        (Written(is_broken=True), Mode.FREE, False),
        (Written(refusal="no"), Mode.AUTO, False),
    ],
)
def test_an_answer_is_valid_where_its_mode_holds(written: Written, mode: Mode, is_valid: bool) -> None:
    assert judged(own_case(), written, mode)["valid"] is is_valid


@pytest.mark.parametrize(
    "written", [Written(refusal="no"), Written((RIGHT,), is_broken=True)], ids=["refused", "broken"]
)
@pytest.mark.parametrize("category", ["own", "irrelevance"])
def test_what_was_refused_or_cannot_be_read_is_never_right(written: Written, category: str) -> None:
    case = replace(own_case(), category=category)
    assert judged(case, written, Mode.AUTO)["fault"] is not None


# Answers.


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (call_text("calculate", '{"expression": "6"}'), ([("calculate", {"expression": "6"})], False)),
        ("Well. " + call_text("calculate", "{}"), ([("calculate", {})], False)),
        (call_text("calculate", "{}") + " and so on", ([("calculate", {})], False)),
        ("It is 6.", ([], False)),
        ('{"name": "calculate", "arguments": {}}', ([], False)),
        ("<tool_call> calculate", ([], True)),
        ('<tool_call>\n{"name": "calculate", "arguments": {"a": ', ([], True)),
        ('<tool_call>\n{"name": "calculate", "arguments": {a: 1}}', ([], True)),
    ],
)
@pytest.mark.parametrize("family", [PLAIN, HERMES], ids=lambda family: family.name)
def test_free_text_is_read_by_the_familys_own_parser(family: Any, text: str, expected: Any) -> None:
    calls, is_broken = read_calls(text, family, (CALCULATE,))
    assert ([(call["name"], call["arguments"]) for call in calls], is_broken) == expected


@pytest.mark.parametrize("mode", Mode)
def test_in_process_and_over_http_the_same_is_answered(mode: Mode) -> None:
    loaded = fake_that_writes(call_text("calculate", '{"expression": "2 * 3"}'))
    with Engine(loaded) as engine:
        (own,) = InProcess(engine, Asked(90)).answer([own_case()], mode)
    with served(loaded) as server:
        server.http.base_url = f"{server.url}/v1/"
        (other,) = OverHttp(server.http, "fake", Asked(90)).answer([own_case()], mode)
    assert own.calls == other.calls == (RIGHT,)
    assert own.completion_tokens == other.completion_tokens > 0


def test_options_reach_the_request_and_a_bad_one_is_a_refusal() -> None:
    with Engine(fake_that_writes("Six.")) as engine:
        bad = InProcess(engine, Asked(60, {"tool_display": {"style": "json"}, "tool_retrieval": 0}))
        with pytest.raises(ValueError, match="tool_retrieval"):
            bad.answer([own_case()], Mode.AUTO)
        (tight,) = InProcess(engine, Asked(2)).answer([own_case()], Mode.REQUIRED)
    assert tight.refusal is not None
    assert "max_tokens" in tight.refusal


def test_best_of_draws_so_many_samples_and_at_temperature_0_it_is_refused() -> None:
    case = replace(own_case(), tools=(CALCULATE,))  # this model says the same of any request: it would draw the tool
    with Engine(fake_that_writes(call_text("calculate", '{"expression": "2 * 3"}'))) as engine:
        asked = Asked(90, {"best_of": 3}, temperature=0.7, seed=1)
        (alone,) = InProcess(engine, replace(asked, options={})).answer([case], Mode.REQUIRED)
        (best,) = InProcess(engine, asked).answer([case], Mode.REQUIRED)
        (greedy,) = InProcess(engine, replace(asked, temperature=0)).answer([case], Mode.REQUIRED)
    assert best.calls == alone.calls == (RIGHT,)
    assert best.completion_tokens == 3 * alone.completion_tokens
    assert greedy.refusal is not None
    assert "temperature" in greedy.refusal


@pytest.mark.parametrize("status", [401, 404, 429, 503])
def test_a_server_that_would_answer_another_time_stops_the_run_instead_of_counting_as_wrong(status: int) -> None:
    http = httpx.Client(transport=saying(status), base_url="http://x/v1/")
    with http, pytest.raises(SystemExit, match=f"answered {status}: told"):
        OverHttp(http, "m", Asked(9)).answer([own_case()], Mode.AUTO)


@pytest.mark.parametrize("status", [400, 422, 500])
def test_a_request_that_a_server_does_not_take_is_a_refusal(status: int) -> None:
    with httpx.Client(transport=saying(status), base_url="http://x/v1/") as http:
        (written,) = OverHttp(http, "m", Asked(9)).answer([own_case()], Mode.AUTO)
    assert written.refusal == f"{status}: told"


def saying(status: int) -> httpx.MockTransport:
    return httpx.MockTransport(lambda _: httpx.Response(status, text="told"))


def test_a_server_that_is_not_there_is_named_in_one_line() -> None:
    def refuse(_: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    http = httpx.Client(transport=httpx.MockTransport(refuse), base_url="http://x/v1/")
    with http, pytest.raises(SystemExit, match="http://x/v1/ could not be asked: ConnectError: refused"):
        OverHttp(http, "m", Asked(9)).answer([own_case()], Mode.AUTO)


# Runs.


def test_what_was_answered_is_not_asked_again(tmp_path: Path) -> None:
    cases = [own_case(f"own_{number}") for number in range(5)]
    out = tmp_path / "out.json"
    first, second = Scripted(RIGHT), Scripted(RIGHT)
    ask_all(first, cases[:3], read_results(out), SETTINGS, out)
    ask_all(second, cases, read_results(out), SETTINGS, out)
    assert (first.asked, second.asked) == (["own_0", "own_1", "own_2"], ["own_3", "own_4"])
    (run,) = read_results(out)["runs"]
    assert len(run["answers"]) == 5


def test_another_mode_or_option_is_another_run() -> None:
    results: dict[str, Any] = {"runs": []}
    run_of(results, SETTINGS)
    run_of(results, {**SETTINGS, "mode": "auto"})
    run_of(results, {**SETTINGS, "options": {"tool_retrieval": 3}})
    run_of(results, {**SETTINGS, "temperature": 0.7})
    run_of(results, {**SETTINGS, "batch": 4})  # how many at once changes no answer
    assert len(results["runs"]) == 4


def test_each_batch_is_saved_at_once(tmp_path: Path) -> None:
    class Failing(Scripted):
        def answer(self, cases: Sequence[ToolCase], mode: Mode) -> list[Written]:
            if self.asked:
                raise RuntimeError("the power is gone")
            return super().answer(cases, mode)

    out = tmp_path / "out.json"
    with pytest.raises(RuntimeError):
        ask_all(Failing(), [own_case(f"own_{number}") for number in range(5)], read_results(out), SETTINGS, out)
    assert list(read_results(out)["runs"][0]["answers"]) == ["own_0", "own_1"]


def run_with(category: str, answers: Sequence[tuple[bool, str | None]]) -> dict[str, Any]:
    return {
        f"{category}_{number}": {
            "category": category,
            "half": "report",
            "expected": [] if category == "irrelevance" else ["calculate"],
            "calls": [RIGHT] if calls else [],
            "valid": True,
            "fault": fault,
            "tokens": [10, 5, 2, 3],
        }
        for number, (calls, fault) in enumerate(answers)
    }


def test_the_figures_count_what_they_say() -> None:
    answers = run_with("simple_python", [(True, None), (True, "value"), (False, "wrong_count"), (True, None)])
    answers |= run_with("irrelevance", [(False, None), (True, "needless_call")])
    run = {**SETTINGS, "seconds": 2.0, "peak_bytes": 2**30, "mlx_peak_bytes": 1, "answers": answers}
    (found,) = summaries({"runs": [run]})
    figures = found["categories"]["simple_python"]
    assert [figures[name]["share"] for name in ("valid", "calls", "right_tool", "right")] == [1.0, 0.75, 0.75, 0.5]
    assert found["categories"]["irrelevance"]["right"]["share"] == 0.5
    assert found["balanced"]["share"] == pytest.approx((0.75 + 0.5) / 2)
    assert found["faults"]["simple_python"] == {"value": 1, "wrong_count": 1}
    assert speed(run) == 15.0


def test_the_tables_have_each_run_and_category() -> None:
    run = {**SETTINGS, "parameters": 135_000_000, "bytes": 2**29, "seconds": 2.0, "peak_bytes": 2**30}
    run |= {"mlx_peak_bytes": 1, "answers": run_with("simple_python", [(True, None)])}
    console = Console(width=200, record=True, file=io.StringIO())
    show({"runs": [run]}, console)
    text = console.export_text()
    for part in ("135 M, 512 MiB", "1 of 1 right", "1024 MiB", "simple_python", "100% (21% to 100%)"):
        assert part in text


def test_no_results_make_no_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--table", "--out", str(tmp_path / "none.json"), "--json"])
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "nothing was answered yet"
    assert json.loads(said[-1]) == {"benchmark": "tool_accuracy", "runs": []}


@pytest.mark.parametrize("text", ["{", "[]", "{}"])
def test_a_file_that_has_no_results_is_left_alone(tmp_path: Path, text: str) -> None:
    (tmp_path / "out.json").write_text(text)
    with pytest.raises(SystemExit, match=r"out\.json"):
        main(["--table", "--out", str(tmp_path / "out.json")])
    assert (tmp_path / "out.json").read_text() == text


@pytest.mark.parametrize(
    "option",
    ["--category=nothing=5", "--category=multiple", "--option=a", "--option=a={", "--batch=0", "--max-tokens=-1"],
)
def test_an_option_that_cannot_be_read_is_refused(option: str) -> None:
    with pytest.raises(SystemExit):
        main([option])


def test_a_batch_adds_its_answers_and_its_time() -> None:
    results: dict[str, Any] = {"runs": []}
    run = run_of(results, SETTINGS)
    ask_batch(Scripted(RIGHT), [own_case()], Mode.REQUIRED, run)
    assert run["answers"]["own_0"]["fault"] is None
    assert run["seconds"] >= 0


# Intervals.


def test_a_wilson_interval_is_that_of_the_book() -> None:
    low, high = wilson(8, 10)
    assert (round(low, 3), round(high, 3)) == (0.490, 0.943)


def test_the_balanced_accuracy_counts_both_sides_the_same() -> None:
    share, low, high = bootstrap_balanced([True] * 30, [False] * 5 + [True] * 5)
    assert share == pytest.approx(0.75)
    assert 0.55 < low < share < high < 0.95
    assert bootstrap_balanced([True] * 3, [True] * 3) == (1.0, 1.0, 1.0)


def test_tools_of_own_cases_are_the_built_in_ones_where_the_data_have_none() -> None:
    tools = {tool.name: tool for case in own_cases() for tool in case.tools}
    assert isinstance(tools["calculate"], Tool)
    assert "pattern" in tools["calculate"].parameters["properties"]["expression"]


# Retrieval.


def test_the_recall_of_retrieval_is_the_share_of_cases_whose_tool_is_offered() -> None:
    asked = [own_case(), own_case(name="web_search")]  # both say: What is 2 * 3?
    found = retrieval.recall(asked, [1, 2])
    assert [row["share"] for row in found["rows"]] == [0.5, 1.0]
    assert (found["cases"], found["tools"]) == (2, 2)
