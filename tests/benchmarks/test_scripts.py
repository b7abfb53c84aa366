"""What the benchmark scripts share, and the pure parts of each: options, tool sets, summaries, verdicts."""

import argparse
import signal
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from mlx import nn

from benchmarks import batch, host_step, idle_memory, long_string, overlap, tool_choice, tools_overhead, ttft
from benchmarks.batch_modes import BatchRun
from benchmarks.grammar_processors import MaskProcessor
from benchmarks.host_clock import PARTS, HostClock, HostStep, steady
from benchmarks.intervals import Interval
from benchmarks.matmuls import product_seconds, weight_layers
from benchmarks.models import load_model
from benchmarks.peer_modes import CallRun, call_schema
from benchmarks.peers import summary as peers_summary
from benchmarks.script import engine_options, interval_text, script_parser, sizes, until_stopped, write_result
from benchmarks.tool_choice import Named
from benchmarks.tool_sets import draw_tools, renamed
from benchmarks.ttft import FirstToken
from engine.engine import Engine
from engine.types import Tool, ToolChoiceBy
from tests.benchmarks.report_results import interval
from tests.fakes import CALCULATE, REQUIRED, SEARCH, USER, fake_loaded


def parsed(*arguments: str) -> argparse.Namespace:
    return script_parser("a script").parse_args(arguments)


def host_step_of(rows: int, **seconds: float) -> HostStep:
    return HostStep(rows, dict.fromkeys(PARTS, 0.0) | seconds, 0.0)


# As scripts


def test_every_script_can_be_run_by_its_path() -> None:
    """Python then puts benchmarks/ first, where neither the engine nor the package `benchmarks` lies."""
    scripts = {path.name: path.read_text() for path in Path(batch.__file__).parent.glob("*.py")}
    runnable = {name for name, text in scripts.items() if '\nif __name__ == "__main__":' in text}
    by_path = {name for name, text in scripts.items() if '\nif __name__ == "__main__" and not __package__:' in text}
    assert "finetune.py" in runnable == by_path


# Options


def test_engine_options_are_read_as_their_own_types() -> None:
    options = parsed("--engine", "prefill_chunk=256", "--engine", "drafts=False", "--engine", "kv_bits=null")
    assert engine_options(options) == {"prefill_chunk": 256, "drafts": False, "kv_bits": None}


def test_an_engine_option_that_does_not_exist_is_refused_by_name() -> None:
    with pytest.raises(SystemExit, match="EngineConfig has no 'speed'"):
        engine_options(parsed("--engine", "speed=9"))


@pytest.mark.parametrize(("text", "expected"), [("1,10,50", (1, 10, 50)), ("8", (8,))])
def test_sizes_are_read_from_a_list(text: str, expected: tuple[int, ...]) -> None:
    assert sizes(text) == expected


@pytest.mark.parametrize("text", ["", "0", "1,-2", "a", "1;2"])
def test_sizes_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        sizes(text)


def test_an_interval_is_written_with_its_bounds() -> None:
    assert interval_text({"median": 1.0, "low": 0.5, "high": 2.0}, 1) == "1.0 (0.5 to 2.0)"


@pytest.mark.parametrize("name", ["random:huge", "random:tiny-3bit"])
def test_a_random_model_of_no_known_shape_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="no random model"):
        load_model(name)


# Stopping


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_work_after_what_is_under_way(number: signal.Signals) -> None:
    done = []
    for one in until_stopped(range(5)):
        if one == 2:
            signal.raise_signal(number)
        done.append(one)
    assert done == [0, 1, 2]


def test_a_second_signal_is_treated_as_ever() -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    try:
        work = until_stopped(range(5))
        next(work)
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


def test_after_the_work_signals_are_treated_as_ever() -> None:
    before = signal.getsignal(signal.SIGTERM)
    assert list(until_stopped("ab")) == ["a", "b"]
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_result_is_written_in_one_move(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "other.json").write_text("another's")
    write_result({"benchmark": "ttft"}, tmp_path / "folder" / "ttft.json")
    assert sorted(path.name for path in (tmp_path / "folder").iterdir()) == ["other.json", "ttft.json"]
    with pytest.raises(TypeError):
        write_result({"benchmark": object()}, tmp_path / "folder" / "ttft.json")
    assert (tmp_path / "folder" / "ttft.json").read_text() == '{\n "benchmark": "ttft"\n}\n'


# Tool sets


def test_the_same_seed_draws_the_same_tools_and_none_twice() -> None:
    pool = [Tool(f"tool_{number}", "", {}) for number in range(30)]
    drawn = draw_tools(pool, 10, seed=3)
    assert drawn == draw_tools(pool, 10, seed=3) != draw_tools(pool, 10, seed=4)
    assert len({tool.name for tool in drawn}) == 10


def test_renamed_tools_share_neither_names_nor_properties_with_the_others() -> None:
    (first, second) = (renamed([SEARCH], tag)[0] for tag in ("a", "b"))
    assert first.name != second.name
    assert not set(first.parameters["properties"]) & set(second.parameters["properties"])
    assert first.parameters["required"] == ["query_a"]


# The host's clock


def test_the_parts_of_a_step_are_those_of_the_decoding_thread_and_add_up() -> None:
    clock = HostClock()
    with clock.installed(), Engine(fake_loaded()) as engine:
        engine.chat([USER], tools=[CALCULATE], tool_choice=REQUIRED, max_tokens=64)
    steps = steady(clock.steps, num_rows=1, skip=0)
    assert steps
    assert all(step.seconds["mask"] > 0 and step.seconds["python"] > 0 for step in steps)
    assert all(step.besides_forward_s == sum(step.seconds.values()) - step.seconds["forward"] for step in steps)


def test_the_clock_leaves_everything_as_it_was() -> None:
    before = mx.eval, mx.async_eval
    with HostClock().installed():
        assert mx.eval is not before[0]
    assert (mx.eval, mx.async_eval) == before


def test_a_step_is_steady_where_it_and_the_one_before_had_all_rows() -> None:
    steps = [host_step_of(rows) for rows in (0, 1, 2, 2, 2, 1, 2)]
    assert steady(steps, num_rows=2, skip=0) == steps[3:5]
    assert steady(steps, num_rows=2, skip=1) == steps[4:5]


# Summaries and verdicts


def test_a_host_step_is_judged_without_the_forward_pass() -> None:
    steps = [host_step_of(1, forward=0.009, mask=0.0002, python=0.0004)] * 20
    row = host_step.summary("constrained", 1, steps, seed=0)
    assert row["besides_forward_ms"]["median"] == pytest.approx(0.6)
    assert list(host_step.targets([row]).values()) == ["holds"]


def test_free_rows_and_larger_batches_have_no_host_target() -> None:
    steps = [host_step_of(1, python=0.5)] * 20
    rows = [host_step.summary("free", 1, steps, 0), host_step.summary("constrained", 2, steps, 0)]
    assert host_step.targets(rows) == {}


def test_a_batch_that_was_never_seen_whole_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="no step of 4 free rows"):
        host_step.summary("free", 4, [], 0)


def test_compile_targets_are_those_of_the_numbers_that_were_measured() -> None:
    row = {"compile_ms": interval(9.0), "compile_cached_ms": interval(0.1)}
    found = tools_overhead.targets([{"tools": 0}, {"tools": 7, **row}, {"tools": 10, **row}, {"tools": 50, **row}])
    assert found == {
        "compiling 10 tools: at most 5 ms": "fails",
        "10 tools, cached: rounds to 0 ms": "holds",
        "compiling 50 tools: at most 15 ms": "holds",
        "50 tools, cached: rounds to 0 ms": "holds",
    }


def test_memory_is_judged_for_each_state() -> None:
    rows: list[dict[str, Any]] = [
        {"state": "waiting", "kilobytes": interval(93.0)},
        {"state": "running", "kilobytes": interval(150.0)},
    ]
    assert list(idle_memory.targets(rows).values()) == ["holds", "fails"]


def test_a_constraint_that_slows_down_by_a_tenth_misses_its_target() -> None:
    slow, fast = ([{"free": 0.04, "constrained": 0.04 * factor}] * 15 for factor in (1.1, 1.0))
    verdicts = [list(long_string.summary(pairs, 0)["targets"].values()) for pairs in (slow, fast)]
    assert verdicts == [["fails"], ["holds"]]


def test_the_warm_ratio_is_that_of_each_pair() -> None:
    pairs = [(FirstToken(seconds, 100, 0), FirstToken(seconds / 20, 100, 95)) for seconds in (1.0, 8.0, 2.0)]
    found = ttft.summary(pairs, 0)
    assert found["ratio"] == Interval(0.05, 0.05, 0.05).to_json()
    assert found["cached_tokens"] == {"cold": 0.0, "warm": 95.0}
    assert list(found["targets"].values()) == ["holds"]


def test_what_whole_names_cost_is_the_ratio_of_each_pair() -> None:
    tokens = [Named(seconds, 0) for seconds in (1.0, 8.0, 2.0)]
    found = {ToolChoiceBy.TOKENS: tokens, ToolChoiceBy.LIKELIHOOD: [Named(1.5 * each.seconds, 3) for each in tokens]}
    first = {ToolChoiceBy.TOKENS: Named(9.0, 0), ToolChoiceBy.LIKELIHOOD: Named(9.5, 7)}
    row = tool_choice.summary(first, found, 0)
    assert row["ratio"] == Interval(1.5, 1.5, 1.5).to_json()
    assert (row["passes"], row["first_passes"]) == (3, 7)


def test_a_required_call_s_tool_is_timed_in_both_ways() -> None:
    with Engine(fake_loaded()) as engine:
        tokens, names = (tool_choice._named(engine, (CALCULATE, SEARCH), 1, by) for by in tool_choice.WAYS)
    assert tokens.passes == 0
    assert names.passes == 1  # the prior's prompt
    assert min(tokens.seconds, names.seconds) > 0


def test_a_batch_is_compared_within_its_group() -> None:
    def run(seconds: float) -> BatchRun:
        return BatchRun(80, 8, seconds, (seconds,) * 8)

    groups = [
        {"toolmask_calls": run(n), "mlx_lm_calls": run(2 * n), "toolmask_free": run(n), "mlx_lm_free": run(n)}
        for n in (1.0, 5.0, 3.0)
    ]
    row = batch.summary(8, groups, {1: 0.5, 8: 1.0}, seed=0)
    assert row["time_ratio"]["calls"]["median"] == 0.5
    assert row["product_speedup"] == 4.0
    assert list(batch.targets([row]).values()) == ["holds"]
    assert batch.targets([{**row, "batch": 4}]) == {}


def test_a_peer_is_compared_over_the_cases_that_it_took() -> None:
    ours, theirs = CallRun(40, True, 0.0, 1.0), CallRun(44, False, 0.1, 4.0)
    found = peers_summary([{"toolmask": ours, "mlx_lm_outlines": theirs}, {"toolmask": ours}], 0)
    outlines = found["modes"]["mlx_lm_outlines"]
    assert (outlines["cases"], outlines["complete"], outlines["ours_to_it"]["median"]) == (1, 0, 0.25)


def test_of_several_tools_the_call_is_one() -> None:
    assert "anyOf" not in call_schema([SEARCH])
    names = [call["properties"]["name"] for call in call_schema([SEARCH, CALCULATE])["anyOf"]]
    assert names == [{"const": "web_search"}, {"const": "calculate"}]


# What the peers run with


def test_a_mask_processor_follows_the_tokens_and_ends_with_an_end_of_turn() -> None:
    taken: list[int] = []

    def fill(row: Any) -> None:
        row[0] = 0b0110

    processor = MaskProcessor(taken.append, fill, lambda: len(taken) == 2, eos_ids=[3])
    logits = mx.zeros((1, 4))
    allowed = [
        [token for token, logit in enumerate(processor(mx.array(tokens), logits)[0].tolist()) if logit == 0]
        for tokens in ([9], [9, 1], [9, 1, 2], [9, 1, 2, 3])
    ]
    assert (allowed, taken) == ([[1, 2], [1, 2], [3], [3]], [1, 2])


def test_the_weights_of_a_tied_head_are_a_product_too() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(10, 4)
            self.linear = nn.QuantizedLinear(64, 32, group_size=32, bits=4)

    found = [(method, width) for _, method, width in weight_layers(Tied())]
    assert sorted(found) == [("__call__", 64), ("as_linear", 4)]
    assert all(seconds > 0 for seconds in product_seconds(Tied(), [1, 2]).values())


# Overlap


def test_what_work_adds_to_a_pass_is_taken_within_each_pair() -> None:
    pairs = [(overlap.Pass(0.04, 0.010, 0.050), overlap.Pass(0.04, 0.006, 0.0505)) for _ in range(15)]
    found = overlap.summary(pairs, seed=0)
    assert (found["wait_ms"]["median"], found["wait_after_work_ms"]["median"]) == (10.0, 6.0)
    assert found["exposed_ms"]["median"] == 0.5


def test_the_host_is_busy_between_launch_and_wait() -> None:
    stamps: list[str] = []

    def launch(tokens: list[int]) -> mx.array:
        stamps.append("launch")
        return mx.array(tokens)

    found = overlap.timed(launch, lambda _: stamps.append("wait"), work_s=0.002)
    assert stamps == ["launch", "wait"]
    assert found.whole_s - found.launch_s - found.wait_s >= 0.002
