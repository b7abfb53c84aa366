"""What the runs of benchmarks/decode.py say: ratios of pairs, counts, whether the targets hold."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.intervals import MIN_PAIRS, Interval, bootstrap_median, verdict
from benchmarks.runs import Mode, Run
from benchmarks.tracing import agreement

Round = Mapping[Mode, Run]  # one case, decoded in every mode in a row: what is paired
Quantity = Callable[[Run], float | None]

BASELINE = Mode.MLX_LM_FREE
COMPARED = (Mode.TOOLMASK_FREE, Mode.CONSTRAINED, Mode.CONSTRAINED_FF)

MAX_CPU_RATIO_FREE = 1.10
MAX_RATIO_FF = 0.60

QUANTITIES: dict[str, Quantity] = {  # key of the result -> what is divided by mlx-lm's
    "ratios": lambda run: run.decode_s_per_token,
    "ratios_after_prompt_pass": lambda run: run.later_s_per_token,
    "ratios_whole_request": lambda run: run.request_s,
    "cpu_ratios": lambda run: run.cpu_s_per_token,
    "host_cpu_ratios": lambda run: run.host_s_per_token,
}
TITLES = {
    "ratios": "time per token",
    "ratios_after_prompt_pass": "same, without the prompt's pass",
    "ratios_whole_request": "whole request",
    "cpu_ratios": "CPU time per token",
    "host_cpu_ratios": "same, Python's threads only",
}


@dataclass(frozen=True, slots=True)
class Counts:
    """Sums over all rounds. They do not depend on the machine's load."""

    tokens: int
    forced_tokens: int
    forced_share: float
    forward_passes: int
    unread_passes: int
    positions: int
    tokens_per_pass: float


def summary(rounds: Sequence[Round], barred_ids: frozenset[int], seed: int) -> dict[str, Any]:
    """The result as JSON. barred_ids: what mlx-lm may write in free text and toolmask may not."""
    ratios = {name: ratio_intervals(rounds, quantity, seed) for name, quantity in QUANTITIES.items()}
    return {
        "pairs": len(rounds),
        **{name: {mode: interval.to_json() for mode, interval in found.items()} for name, found in ratios.items()},
        "ms_per_token": {mode: _ms_per_token(rounds, mode, seed).to_json() for mode in Mode},
        "counts": {mode: asdict(count(rounds, mode)) for mode in Mode},
        "same_tokens": same_tokens(rounds, barred_ids),
        "targets": targets(rounds, ratios),
    }


def ratio_intervals(rounds: Sequence[Round], quantity: Quantity, seed: int) -> dict[Mode, Interval]:
    """Each mode's median ratio to mlx-lm within the same round; rounds without the quantity are left out."""
    found: dict[Mode, Interval] = {}
    for mode in COMPARED:
        pairs = [(quantity(one[mode]), quantity(one[BASELINE])) for one in rounds]
        ratios = [ours / theirs for ours, theirs in pairs if ours is not None and theirs is not None]
        found[mode] = bootstrap_median(ratios, seed)
    return found


def _ms_per_token(rounds: Sequence[Round], mode: Mode, seed: int) -> Interval:
    return bootstrap_median([1e3 * one[mode].decode_s_per_token for one in rounds], seed)


def count(rounds: Sequence[Round], mode: Mode) -> Counts:
    """What one mode did in all rounds."""
    runs = [one[mode] for one in rounds]
    num_tokens, num_forced = sum(run.num_tokens for run in runs), sum(run.num_forced for run in runs)
    num_passes = sum(run.num_passes for run in runs)
    return Counts(
        tokens=num_tokens,
        forced_tokens=num_forced,
        forced_share=round(num_forced / num_tokens, 4),
        forward_passes=num_passes,
        unread_passes=sum(run.num_unread_passes for run in runs),
        positions=sum(run.num_positions for run in runs),
        tokens_per_pass=round(num_tokens / num_passes, 4),
    )


def same_tokens(rounds: Sequence[Round], barred_ids: frozenset[int]) -> dict[str, Any]:
    """In how many rounds two modes that should write the same did so, and the cases in which they did not."""
    free = [
        one[BASELINE].case_id
        for one in rounds
        if not agreement(one[BASELINE].tokens, one[Mode.TOOLMASK_FREE].tokens, barred_ids)
    ]
    constrained = [
        one[BASELINE].case_id for one in rounds if one[Mode.CONSTRAINED].tokens != one[Mode.CONSTRAINED_FF].tokens
    ]
    return {
        "toolmask_free_as_mlx_lm_free": {"rounds": len(rounds) - len(free), "not_in": free},
        "constrained_as_constrained_ff": {"rounds": len(rounds) - len(constrained), "not_in": constrained},
    }


def targets(rounds: Sequence[Round], ratios: Mapping[str, Mapping[Mode, Interval]]) -> dict[str, str]:
    """What is asked for, and whether it holds. An interval that spans the limit decides nothing."""
    as_many = all(one[Mode.TOOLMASK_FREE].num_passes <= one[BASELINE].num_passes for one in rounds)
    cpu, fast = ratios["cpu_ratios"][Mode.TOOLMASK_FREE], ratios["ratios"][Mode.CONSTRAINED_FF]
    return {
        "toolmask_free: no more forward passes than mlx-lm, in every round": "holds" if as_many else "fails",
        f"toolmask_free: CPU time a token at most {MAX_CPU_RATIO_FREE} of mlx-lm's": verdict(cpu, MAX_CPU_RATIO_FREE),
        f"constrained_ff: time a token at most {MAX_RATIO_FF} of mlx-lm's free": verdict(fast, MAX_RATIO_FF),
    }


# --- For people


def show(result: Mapping[str, Any], console: Console) -> None:
    """Tables of a summary."""
    console.print(_counts_table(result))
    console.print(_ratios_table(result))
    for name, found in result["same_tokens"].items():
        missing = f"; not in {', '.join(found['not_in'])}" if found["not_in"] else ""
        console.print(f"same tokens, {name}: {found['rounds']} of {result['pairs']} rounds{missing}")
    if guessed := result["drafts"]["guessed"]:
        console.print(f"{guessed} guessed tokens, {result['drafts']['right'] / guessed:.1%} of them right")
    for target, holds in result["targets"].items():
        console.print(f"{target}: [bold]{holds}[/bold]")
    if result["pairs"] < MIN_PAIRS:
        console.print(f"Only {result['pairs']} pairs; intervals want {MIN_PAIRS} or more.")


def _counts_table(result: Mapping[str, Any]) -> Table:
    columns = ("tokens", "forced", "share", "passes", "unread", "positions", "tokens/pass", "ms a token")
    table = Table("mode", *columns, title="counts over all rounds")
    for mode in Mode:
        cells = [str(value) for value in result["counts"][mode].values()]
        table.add_row(mode, *cells, _text(result["ms_per_token"][mode], digits=1))
    return table


def _ratios_table(result: Mapping[str, Any]) -> Table:
    title = f"ratio to {BASELINE}: median of {result['pairs']} pairs (95 % bootstrap interval)"
    table = Table("quantity", *COMPARED, title=title)
    for name, words in TITLES.items():
        table.add_row(words, *(_text(result[name][mode], digits=3) for mode in COMPARED))
    return table


def _text(interval: Mapping[str, float], *, digits: int) -> str:
    median, low, high = (f"{interval[name]:.{digits}f}" for name in ("median", "low", "high"))
    return f"{median} ({low} to {high})"
