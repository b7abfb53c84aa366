"""What benchmarks/decode.py counts and how it compares; with a tiny random model, the whole way."""

import itertools
import json
from dataclasses import replace
from pathlib import Path

import mlx.core as mx
import pytest

from benchmarks import decode
from benchmarks.bfcl import Case
from benchmarks.decode_report import count, ratio_intervals, same_tokens, summary, targets
from benchmarks.intervals import Interval, bootstrap_median, verdict
from benchmarks.modes import Bench
from benchmarks.runs import Mode, Recording, Run, engine_run, mlx_lm_run
from benchmarks.tracing import Pass, PassRecorder, Stamp, TracedToken, agreement
from engine.events import Finished, Receipt, StopReason, Usage
from engine.model import LoadedModel, MLXModel, load
from engine.types import Message, Role, Tool
from tests.tiny_models import CONFIG, random_weights, write_folder

CASE = Case(
    "simple_python_0",
    (Message(Role.USER, "Find the area of a circle with radius 2."),),
    (Tool("area", "Area of a circle.", {"type": "object", "properties": {"r": {"type": "integer", "maximum": 9}}}),),
)


def stamp(wall_s: float) -> Stamp:
    return Stamp(wall_s, 2 * wall_s, wall_s / 2)


def recording(tokens: list[TracedToken], passes: list[tuple[float, int]], end_s: float) -> Recording:
    start = stamp(0.0)
    return Recording(tokens, [Pass(*one) for one in passes], start, start, stamp(end_s))


def finished(reason: StopReason, *, prompt: int, forced: int = 0) -> Finished:
    return Finished(reason, Usage(prompt, 0, forced, 0), 0, Receipt())


def run(mode: Mode, *, decode_s: float = 1.0, num_passes: int = 10, tokens: tuple[int, ...] = (1, 2)) -> Run:
    return Run(
        case_id="case",
        mode=mode,
        tokens=tokens,
        num_tokens=11,
        num_later_tokens=10,
        num_forced=0,
        num_passes=num_passes,
        num_unread_passes=0,
        num_positions=30,
        request_s=2 * decode_s,
        decode_s=decode_s,
        later_s=decode_s,
        cpu_s=decode_s,
        host_s=decode_s,
    )


def rounds_of(*ratios: float) -> list[dict[Mode, Run]]:
    """mlx-lm takes a second; the others take the ratio."""
    seconds = [dict.fromkeys(Mode, ratio) | {Mode.MLX_LM_FREE: 1.0} for ratio in ratios]
    return [{mode: run(mode, decode_s=decode_s) for mode, decode_s in one.items()} for one in seconds]


# Intervals


def test_the_interval_of_equal_values_is_that_value() -> None:
    assert bootstrap_median([0.5] * 15) == Interval(0.5, 0.5, 0.5)


def test_an_interval_holds_the_median_and_narrows_with_more_values() -> None:
    few, many = (bootstrap_median([index / size for index in range(size)]) for size in (15, 150))
    assert few.low < few.median < few.high
    assert few.low < many.low < many.high < few.high


def test_the_same_seed_draws_the_same_interval() -> None:
    values = [1.0, 2.0, 4.0, 8.0, 16.0]
    assert bootstrap_median(values, seed=3) == bootstrap_median(values, seed=3)


def test_a_median_of_nothing_is_an_error() -> None:
    with pytest.raises(ValueError, match="empty"):
        bootstrap_median([])


@pytest.mark.parametrize(
    ("low", "high", "said"), [(0.4, 0.6, "holds"), (0.61, 0.7, "fails"), (0.5, 0.7, "not decided by this run")]
)
def test_an_interval_that_spans_the_limit_decides_nothing(low: float, high: float, said: str) -> None:
    assert verdict(Interval(0.65, low, high), at_most=0.6) == said


# What counts


def test_the_pass_that_nobody_reads_is_counted_and_named() -> None:
    tokens = [TracedToken(token, stamp(2.0 + token)) for token in range(3)]
    passes = [(0.0, 9), (1.0, 1), (1.5, 1), (2.5, 1), (3.5, 1)]  # 9 + 1 of the prompt, then one ahead of each token
    measured = mlx_lm_run("case", recording(tokens, passes, end_s=4.5), num_prompt=10)
    assert (measured.num_passes, measured.num_unread_passes, measured.num_positions) == (5, 1, 13)
    assert measured.decode_s == 2.0  # from the first token to the last
    assert measured.decode_s_per_token == 1.0
    assert measured.cpu_s_per_token == 2.0


def test_forced_tokens_pay_for_their_share_of_the_prompts_pass() -> None:
    with_prompt = [TracedToken(token, stamp(0.0)) for token in range(5)]
    by_step = [TracedToken(5, stamp(3.0)), TracedToken(6, stamp(3.0)), TracedToken(7, stamp(4.0))]
    passes = [(1.0, 15 + 5), (3.5, 2)]
    end = finished(StopReason.GRAMMAR_END, prompt=15, forced=6)
    measured = engine_run("case", Mode.CONSTRAINED_FF, recording(with_prompt + by_step, passes, end_s=4.0), end)
    assert measured.num_tokens == 8
    assert measured.later_s == 1.0
    assert measured.decode_s == 1.0 + 2.0 * 5 / 20
    assert measured.num_later_tokens == 1  # token 6 came with the prompt's pass


def test_a_sampled_end_of_turn_counts_as_a_token() -> None:
    tokens = [TracedToken(5, stamp(3.0)), TracedToken(6, stamp(4.0))]
    passes = [(1.0, 10), (3.5, 1), (4.5, 1)]
    end = finished(StopReason.EOS, prompt=10)
    measured = engine_run("case", Mode.CONSTRAINED, recording(tokens, passes, end_s=5.0), end)
    assert (measured.num_tokens, measured.num_later_tokens, measured.later_s) == (3, 2, 2.0)


def test_a_run_that_ends_with_the_prompts_pass_has_no_time_per_later_token() -> None:
    end = finished(StopReason.GRAMMAR_END, prompt=10, forced=1)
    tokens = [TracedToken(5, stamp(3.0)), TracedToken(6, stamp(3.0))]
    measured = engine_run("case", Mode.CONSTRAINED_FF, recording(tokens, [(1.0, 10)], end_s=3.0), end)
    assert measured.later_s_per_token is None


def test_outputs_agree_up_to_a_token_that_one_side_may_not_write() -> None:
    assert agreement([1, 2, 3], [1, 2, 3])
    assert not agreement([1, 2, 3], [1, 4, 3])
    assert agreement([1, 9, 3], [1, 4, 5], barred=frozenset({9}))
    assert not agreement([2, 9, 3], [1, 4, 5], barred=frozenset({9}))


# What is said of it


def test_ratios_are_of_pairs() -> None:
    slow_case = {mode: run(mode, decode_s=10.0 if mode is Mode.MLX_LM_FREE else 5.0) for mode in Mode}
    found = ratio_intervals([*rounds_of(0.5, 0.5), slow_case], lambda one: one.decode_s_per_token, seed=0)
    assert found[Mode.CONSTRAINED_FF] == Interval(0.5, 0.5, 0.5)


def test_counts_are_sums() -> None:
    counts = count(rounds_of(1.0, 1.0, 1.0), Mode.CONSTRAINED)
    assert (counts.tokens, counts.forward_passes, counts.positions, counts.tokens_per_pass) == (33, 30, 90, 1.1)


def test_modes_that_disagree_are_named() -> None:
    rounds = rounds_of(1.0)
    rounds[0][Mode.CONSTRAINED] = run(Mode.CONSTRAINED, tokens=(1, 3))
    found = same_tokens(rounds, frozenset())
    assert found["constrained_as_constrained_ff"] == {"rounds": 0, "not_in": ["case"]}
    assert found["toolmask_free_as_mlx_lm_free"] == {"rounds": 1, "not_in": []}


def test_one_round_with_more_passes_fails_the_target() -> None:
    rounds = rounds_of(0.5, 0.5)
    rounds[1][Mode.TOOLMASK_FREE] = run(Mode.TOOLMASK_FREE, num_passes=11)
    ratios = {name: ratio_intervals(rounds, lambda one: one.decode_s, 0) for name in ("ratios", "cpu_ratios")}
    assert list(targets(rounds, ratios).values()) == ["fails", "holds", "holds"]


def test_a_summary_is_json_with_the_ratios_of_all_three() -> None:
    result = json.loads(json.dumps(summary(rounds_of(0.5, 0.6, 0.7), frozenset(), seed=0)))
    assert result["ratios"].keys() == {"toolmask_free", "constrained", "constrained_ff"}
    assert all(interval.keys() == {"median", "low", "high"} for interval in result["ratios"].values())
    assert result["pairs"] == 3


# The whole way


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    config = {**CONFIG, "max_position_embeddings": 4096}
    folder = write_folder(tmp_path_factory.mktemp("models") / "tiny", config, random_weights(config))
    return load(str(folder), cache_dir=folder)


def test_every_call_of_the_module_is_recorded_and_the_module_is_as_before(tiny_model: LoadedModel) -> None:
    assert isinstance(tiny_model.model, MLXModel)
    module, recorder = tiny_model.model.module, PassRecorder()
    kind, before = type(module), module(mx.array([[1, 2, 3]]))
    with recorder.installed(module):
        during = module(mx.array([[1, 2, 3]]))
    assert [one.width for one in recorder.passes] == [3]
    assert type(module) is kind
    assert mx.array_equal(before, during)


def test_all_modes_write_the_same_number_of_tokens(tiny_model: LoadedModel) -> None:
    with Bench(tiny_model, max_tokens=64) as bench:
        (measured,) = decode.decode_all(bench, [CASE], repeats=1)
        barred_ids = bench.barred_ids
    assert len({one.num_tokens for one in measured.values()}) == 1
    free, theirs = measured[Mode.TOOLMASK_FREE], measured[Mode.MLX_LM_FREE]
    assert free.num_passes <= theirs.num_passes
    assert agreement(theirs.tokens, free.tokens, barred_ids)
    assert measured[Mode.CONSTRAINED].tokens == measured[Mode.CONSTRAINED_FF].tokens
    assert measured[Mode.CONSTRAINED_FF].num_passes < measured[Mode.CONSTRAINED].num_passes


def test_the_last_line_is_json(
    tiny_model: LoadedModel, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(decode, "load", lambda *_, **__: tiny_model)
    monkeypatch.setattr(decode, "decode_cases", lambda _: [CASE])
    decode.main(["--json", "--max-tokens", "64", "--out", str(tmp_path / "result.json")])
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["ratios"].keys() == {"toolmask_free", "constrained", "constrained_ff"}
    assert result["benchmark"] == "decode"
    assert result["drafts"] == {"guessed": 0, "right": 0}
    written = json.loads((tmp_path / "result.json").read_text())
    assert [one["mode"] for one in written.pop("runs")] == list(Mode)
    assert written == result


def test_work_that_is_stopped_counts_the_cases_that_were_decoded(
    tiny_model: LoadedModel, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(decode, "load", lambda *_, **__: tiny_model)
    monkeypatch.setattr(decode, "decode_cases", lambda _: [CASE, replace(CASE, id="not reached")])
    monkeypatch.setattr(decode, "until_stopped", lambda work: itertools.islice(work, 1))
    decode.main(["--json", "--max-tokens", "64"])
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (result["cases"], result["pairs"]) == (1, 1)


def test_the_order_of_the_modes_rotates() -> None:
    class Orders:
        def num_tokens(self, case: Case) -> int:
            del case
            return 11

        def run(self, mode: Mode, case: Case, num_tokens: int) -> Run:
            del case, num_tokens
            return run(mode)

    first_modes = [next(iter(one)) for one in decode.decode_all(Orders(), [CASE] * 5, repeats=1)]
    assert first_modes == [*Mode, Mode.MLX_LM_FREE]
