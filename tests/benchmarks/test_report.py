"""benchmarks/report.py: what it says of results that are there, that are missing, and that miss a target."""

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
    row = one_target(limit=1.0, at_least=at_least).row({"ttft": {"ratio": ratio}})
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
    slower = {"ratios": {"toolmask_free": interval(1.25), "constrained_ff": interval(0.3)}, "counts": {}}
    (row,) = (target.row({"decode": slower}) for target in TARGETS if target.what.startswith("free decoding"))
    assert row[2:] == ("0.800 (0.762 to 0.842)", "fails")


def test_more_passes_than_tokens_that_were_sampled_miss_the_bound() -> None:
    counts = {"tokens": 100, "forced_tokens": 60, "forward_passes": 41}
    decoded = {"ratios": {"toolmask_free": interval(1), "constrained_ff": interval(0.3)}}
    what = "a tool call without drafts: forward passes for its tokens"
    found = verdicts({"decode": {**decoded, "counts": {"constrained_ff": counts}}})[what]
    fewer = verdicts({"decode": {**decoded, "counts": {"constrained_ff": {**counts, "forward_passes": 40}}}})[what]
    assert (found, fewer) == ("fails", "holds")


def test_every_target_is_judged_where_all_results_are_there() -> None:
    """As many as the project has: with the passes, and the speed of eight at once, which has no limit."""
    found = list(verdicts(all_results()).values())
    assert len(found) == len(TARGETS) + 2
    assert NOT_MEASURED not in found


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
    with pytest.raises(SystemExit, match="has no results"):
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
