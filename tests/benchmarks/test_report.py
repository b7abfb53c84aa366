"""benchmarks/report.py: what it says of results that are there, that are missing, and that miss a target."""

import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import report
from benchmarks.report import markdown, read_results
from benchmarks.report_targets import NOT_MEASURED, TARGETS, Target, judged
from benchmarks.script import RESULTS
from tests.benchmarks.report_results import (
    all_results,
    batch,
    decode,
    host_step,
    idle_memory,
    interval,
    long_string,
    tools_overhead,
    ttft,
    write,
)


def verdicts(results: dict[str, dict[str, Any]]) -> dict[str, str]:
    return {what: found for what, _, _, found in judged(results)}


def one_target(*, limit: float, at_least: bool) -> Target:
    return Target("speed", "ttft", lambda result: result["ratio"], limit, at_least=at_least)


@pytest.mark.parametrize(
    ("ratio", "at_least", "expected"),
    [
        ({"median": 0.5, "low": 0.4, "high": 0.6}, False, "holds"),
        ({"median": 1.5, "low": 1.4, "high": 1.6}, False, "fails"),
        ({"median": 1.0, "low": 0.9, "high": 1.1}, False, "not decided by this run"),
        ({"median": 1.5, "low": 1.4, "high": 1.6}, True, "holds"),
        ({"median": 0.5, "low": 0.4, "high": 0.6}, True, "fails"),
        ({"median": 1.0, "low": 0.9, "high": 1.1}, True, "not decided by this run"),
    ],
)
def test_a_target_holds_only_where_the_whole_interval_keeps_it(
    ratio: dict[str, float], at_least: bool, expected: str
) -> None:
    row = one_target(limit=1.0, at_least=at_least).row({"ttft": {**ttft(), "ratio": ratio}})
    assert row[3] == expected


def test_a_target_without_a_result_is_not_measured() -> None:
    row = one_target(limit=1.0, at_least=False).row({})
    assert row[2:] == (NOT_MEASURED, NOT_MEASURED)


def test_a_target_whose_row_was_left_out_is_not_measured() -> None:
    only_small = {**batch(), "rows": [row for row in batch()["rows"] if row["batch"] < 8]}
    assert verdicts({"batch": only_small})["8 concurrent tool calls: time, ours / BatchGenerator's"] == NOT_MEASURED


@pytest.mark.parametrize(
    ("result", "what"),
    [
        (tools_overhead(compile_ms=40), "compiling the grammar of 200 tools, ms"),
        (host_step(besides_ms=1.5), "host CPU time per step besides the forward pass, batch of 1, ms"),
        (batch(ratio=0.8), "8 concurrent tool calls: time, ours / BatchGenerator's"),
        (ttft(ratio=0.9), "warm / cold time to the first token, 20 tools"),
        (long_string(ratio=0.9), "constrained without a forced token: tokens per second, to our own free"),
        (idle_memory(kilobytes=150), "memory per running sequence beside its keys and values, kB"),
        (decode(ratio=0.7), "a tool call without drafts: time, to mlx-lm's for as many free tokens"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_missed_target_is_called_missed(result: dict[str, Any], what: str) -> None:
    name = result["benchmark"]
    assert (verdicts(all_results())[what], verdicts({name: result})[what]) == ("holds", "fails")


def test_of_a_time_ratio_the_speed_is_judged() -> None:
    slower = {**decode(), "ratios": {"toolmask_free": interval(1.25), "constrained_ff": interval(0.3)}}
    (row,) = (target.row({"decode": slower}) for target in TARGETS if target.what.startswith("free decoding"))
    assert row[2:] == ("0.800 (0.762 to 0.842)", "fails")


def test_more_passes_than_tokens_that_were_sampled_miss_the_bound() -> None:
    counts = {"tokens": 100, "forced_tokens": 60, "forward_passes": 41}
    decoded = decode()
    what = "a tool call without drafts: forward passes for its tokens"
    found = verdicts({"decode": {**decoded, "counts": {"constrained_ff": counts}}})[what]
    fewer = verdicts({"decode": {**decoded, "counts": {"constrained_ff": {**counts, "forward_passes": 40}}}})[what]
    assert (found, fewer) == ("fails", "holds")


def test_every_target_is_judged_where_all_results_are_there() -> None:
    """As many as the project has: with the passes, and the speed of eight at once, which has no limit."""
    found = list(verdicts(all_results()).values())
    assert len(found) == len(TARGETS) + 2
    assert NOT_MEASURED not in found


@pytest.mark.parametrize(
    ("change", "verdict"),
    [
        ({"pairs": 1}, "not decided: 1 pairs, at least 15 are needed"),
        ({"pairs": 14}, "not decided: 14 pairs, at least 15 are needed"),
        ({"pairs": 15}, "holds"),
        ({"model": "random:tiny"}, "not decided: the model is random:tiny, not smollm2-135m"),
        ({"cases": 1}, "not decided: the cases are 1, not 30"),
        (
            {"pairs": 1, "cases": 1, "model": "x"},
            "not decided: 1 pairs, at least 15 are needed; the model is x, not smollm2-135m; the cases are 1, not 30",
        ),
    ],
)
def test_few_pairs_another_model_and_a_part_of_the_workload_decide_nothing(change: Any, verdict: str) -> None:
    for ratio in (0.3, 0.9):
        found = verdicts({"decode": {**decode(ratio), **change}})
        time, passes = (
            found[f"a tool call without drafts: {what}"] for what in (TIME, "forward passes for its tokens")
        )
        assert (time, passes) == (("fails" if verdict == "holds" and ratio == 0.9 else verdict), verdict)


@pytest.mark.parametrize(
    ("name", "options", "verdict"),
    [
        ("decode", {"drafts": False}, "holds"),
        ("decode", {"drafts": True}, "not decided: the engine's options are drafts=True, not drafts=False"),
        ("decode_drafts", {"drafts": True}, "holds"),
        ("decode_drafts", {}, "not decided: the engine's options are drafts=False, not drafts=True"),
        ("long_string", {"kv_bits": 8}, "not decided: the engine's options are kv_bits=8, not as they come"),
    ],
)
def test_other_options_of_the_engine_than_the_target_s_decide_nothing(
    name: str, options: dict[str, Any], verdict: str
) -> None:
    result = {**(long_string(0.999) if name == "long_string" else decode(0.35)), "engine_options": options}
    (what,) = (target.what for target in TARGETS if target.result == name and not target.what.startswith("free"))
    assert verdicts({name: result})[what] == verdict


TIME = "time, to mlx-lm's for as many free tokens"


@pytest.mark.parametrize(
    ("result", "few"),
    [
        ({**ttft(), "pairs": 2}, "2 pairs, at least 15"),
        ({**long_string(), "pairs": 2}, "2 pairs, at least 15"),
        ({**batch(), "rows": [{**row, "groups": 3} for row in batch()["rows"]]}, "3 pairs, at least 15"),
        ({**tools_overhead(), "repeats": 4}, "4 compiles, at least 15"),
        ({**host_step(), "rows": [{**row, "steps": 9} for row in host_step()["rows"]]}, "9 steps, at least 15"),
        ({**idle_memory(), "rows": [{**row, "groups": [1]} for row in idle_memory()["rows"]]}, "1 groups, at least 5"),
    ],
    ids=lambda value: value["benchmark"] if isinstance(value, dict) else "",
)
def test_every_result_of_few_values_decides_nothing(result: dict[str, Any], few: str) -> None:
    found = {verdict for verdict in verdicts({result["benchmark"]: result}).values() if verdict != NOT_MEASURED}
    assert found - {"has no limit"} == {f"not decided: {few} are needed"}


def test_files_that_are_missing_are_named() -> None:
    results = all_results()
    del results["overlap"], results["ttft"]
    assert "Not there, so not measured: `overlap.json`, `ttft.json`." in markdown(results)
    assert "Not there" not in markdown(all_results())


@pytest.mark.parametrize("text", ['{"benchmark": "ttft", "pa', "[]", "{}"])
def test_a_file_that_is_no_result_is_refused_by_name(text: str, tmp_path: Path) -> None:
    (tmp_path / "ttft.json").write_text(text)
    with pytest.raises(SystemExit, match=r"ttft\.json is no"):
        report.main([str(tmp_path), "--no-plots"])


WITHOUT_PAIRS = {key: value for key, value in decode().items() if key != "pairs"}


@pytest.mark.parametrize(
    ("result", "lack"),
    [
        ({"benchmark": "decode"}, "it lacks the key 'model'"),
        (WITHOUT_PAIRS, "it lacks the key 'pairs'"),
        ({**decode(), "ratios": {"toolmask_free": 3}}, "not subscriptable"),
        ({**decode(), "ms_per_token": []}, "list indices"),
    ],
)
def test_a_result_that_is_not_whole_is_refused_in_one_line_that_says_what_it_lacks(
    result: dict[str, Any], lack: str, tmp_path: Path
) -> None:
    write({"decode": result}, tmp_path)
    with pytest.raises(SystemExit, match=rf"decode\.json is no whole result of benchmarks/decode\.py: .*{lack}"):
        report.main([str(tmp_path), "--no-plots"])


def test_the_result_of_another_benchmark_is_refused(tmp_path: Path) -> None:
    write({"batch": {**batch(), "benchmark": "caches"}}, tmp_path)
    with pytest.raises(SystemExit, match=r"batch\.json is no result of benchmarks/batch\.py, but of 'caches'"):
        report.main([str(tmp_path), "--no-plots"])


def test_without_what_draws_the_plots_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "benchmarks.plots", raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    write({"ttft": ttft()}, tmp_path)
    with pytest.raises(SystemExit, match=r"need matplotlib: pip install '\.\[bench\]' installs it, --no-plots does"):
        report.main([str(tmp_path), "--out", str(tmp_path / "report")])


def test_the_report_has_a_table_for_every_result_and_the_reason_for_what_was_not_measured() -> None:
    text = markdown(all_results(), ["latency_by_concurrency.png"])
    for line in (
        "## Many calls at once",
        "## Over HTTP",
        "| waiting, after 5 ms of work | 2.0 (1.9 to 2.1) |",
        "| running | 384 | 40.0 (38.0 to 42.0) |",
        "| constrained / free, tokens per second | 1.000 (0.990 to 1.010) |",
        "| constrained_ff | 1377 | 61.6% | 529 | 60 of 302 | 21.0 (19.9 to 22.1) | 0.350 (0.343 to 0.357) |",
        "| mlx_lm_outlines | not measured |  |  |  |  | not installed: No module named 'outlines_core' |",
        "| warm | 1.000 (0.950 to 1.050) | 2101.0 | 2070.0 |",
        "![latency by concurrency](latency_by_concurrency.png)",
    ):
        assert line in text


def test_every_table_has_as_many_cells_in_each_line() -> None:
    tables = [block.splitlines() for block in markdown(all_results()).split("\n\n") if block.startswith("|")]
    assert [len({line.count("|") for line in table}) for table in tables] == [1] * len(tables)


def test_results_are_read_from_a_folder_and_the_report_is_written(tmp_path: Path) -> None:
    (tmp_path / "unrelated.json").write_text("{}")
    write(all_results(), tmp_path)
    assert read_results(tmp_path) == all_results()
    report.main([str(tmp_path), "--out", str(tmp_path / "report"), "--no-plots"])
    assert (tmp_path / "report" / "report.md").read_text() == markdown(read_results(tmp_path))


def test_a_folder_without_results_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"has no results; its files are called decode\.json, decode_drafts\.json, "):
        report.main([str(tmp_path), "--no-plots"])


def test_the_committed_results_can_be_reported() -> None:
    assert "## Targets" in markdown(read_results(RESULTS))


def test_every_plot_is_drawn_as_png_and_svg(tmp_path: Path) -> None:
    plots = pytest.importorskip("benchmarks.plots")
    names = plots.draw_all(all_results(), tmp_path)
    assert len(names) == len(plots.PLOTS)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        f"{name}.{suffix}" for name in plots.PLOTS for suffix in ("png", "svg")
    )


def test_a_plot_without_a_result_is_left_out(tmp_path: Path) -> None:
    plots = pytest.importorskip("benchmarks.plots")
    assert plots.draw_all({"batch": batch()}, tmp_path) == ["tokens_per_second_by_batch.png"]
