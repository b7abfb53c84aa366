"""Many calls at once, beside mlx-lm's BatchGenerator on the same model object.

    python benchmarks/batch.py                        tables
    python benchmarks/batch.py --json                 and, as the last line, the result as JSON
    python benchmarks/batch.py --batches 8            the target's batch only

Groups of BFCL cases are decoded as tool calls, one required call each: by the engine through `submit`, and by
BatchGenerator, whose rows have llguidance in a logits processor each, with the very grammar that the engine has.
Everything counts from handing a group over to its last token: grammars, prompts, decoding. Their questions alone,
without tools, are answered freely, --max-tokens each, so that decoding is nearly all of it. Latency is that of each
request in its group. The order of the four alternates from group to group, and the engine is a new one each time, so
that it has seen no prompt and no grammar before.

How much a batch can gain is bounded by the products of its weights: these are timed alone, with as many rows.
"""

import argparse
import itertools
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

if __name__ == "__main__" and not __package__:
    # As a script. In place of benchmarks/ itself, whose names should not stand beside the standard library's.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from rich.console import Console

from benchmarks.batch_modes import BATCH_MODES, Batches, BatchRun
from benchmarks.bfcl import Case, decode_cases
from benchmarks.environment import environment
from benchmarks.intervals import Interval, bootstrap_median, verdict
from benchmarks.matmuls import product_seconds
from benchmarks.models import load_model
from benchmarks.script import (
    engine_options,
    hand_over,
    interval_text,
    progress_bar,
    script_parser,
    sizes,
    table_of,
    until_stopped,
    warn_of_few,
)
from engine.model import MLXModel

MAX_TIME_RATIO = 0.6
TARGET_BATCH = 8


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    loaded = load_model(options.model, seed=options.seed)
    cases = decode_cases(options.seed)
    work = [
        (size, number) for number in range(options.groups) for size in options.batches
    ]  # a stop leaves some of each
    runs: dict[int, list[Mapping[str, BatchRun]]] = {size: [] for size in options.batches}
    options_of_engine = engine_options(options)
    batches = Batches(loaded, max(options.batches), options.max_tokens, options_of_engine)
    with batches, progress_bar() as progress:
        batches.warm_up(cases[0])
        for size, number in until_stopped(progress.track(work, description="groups")):
            runs[size].append(batches.run_all(_group(cases, size, number), number))
    assert isinstance(loaded.model, MLXModel)
    products = product_seconds(loaded.model.module, options.batches)
    asked = {"seed": options.seed, "max_tokens": options.max_tokens, "engine_options": options_of_engine}
    rows = [summary(size, runs[size], products, options.seed) for size in options.batches if runs[size]]
    result = {"benchmark": "batch", **environment(loaded), **asked, "rows": rows, "targets": targets(rows)}
    hand_over(result, options, lambda console: show(result, console))


def _parser() -> argparse.ArgumentParser:
    parser = script_parser("Many calls at once, beside mlx-lm's BatchGenerator.")
    parser.add_argument("--batches", type=sizes, default=(1, 2, 4, 8), help="calls at once, as in 1,8")
    parser.add_argument("--groups", type=int, default=15, help="of each size; each gives a pair (%(default)s)")
    parser.add_argument("--max-tokens", type=int, default=96, help="the most of one call (%(default)s)")
    return parser


def _group(cases: Sequence[Case], size: int, number: int) -> list[Case]:
    """The next cases, from the beginning again after the last."""
    return list(itertools.islice(itertools.cycle(cases), size * number % len(cases), size * number % len(cases) + size))


def summary(
    size: int, groups: Sequence[Mapping[str, BatchRun]], products: Mapping[int, float], seed: int
) -> dict[str, Any]:
    """One batch size: speeds, latencies, ratios of pairs, and the hardware's own bound."""
    modes = {mode: _mode_summary([group[mode] for group in groups], seed) for mode in BATCH_MODES}
    ratios = {
        kind: bootstrap_median(
            [group[f"toolmask_{kind}"].seconds / group[f"mlx_lm_{kind}"].seconds for group in groups], seed
        ).to_json()
        for kind in ("calls", "free")
    }
    bound = size / products[size] * products[min(products)] / min(products)  # of the smallest batch, row by row
    return {
        "batch": size,
        "groups": len(groups),
        "modes": modes,
        "time_ratio": ratios,
        "product_speedup": round(bound, 3),
    }


def _mode_summary(runs: Sequence[BatchRun], seed: int) -> dict[str, Any]:
    latencies = [latency for run in runs for latency in run.latencies_s]
    return {
        "tokens": sum(run.num_tokens for run in runs),
        "complete": sum(run.num_complete for run in runs),
        "tokens_per_s": bootstrap_median([run.num_tokens / run.seconds for run in runs], seed).to_json(),
        "latency_s": bootstrap_median(latencies, seed).to_json(),
    }


def targets(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Of the batch that has one. Empty where it was not measured."""
    text = f"{TARGET_BATCH} concurrent tool calls: total time at most {MAX_TIME_RATIO} of BatchGenerator's"
    rows = [row for row in rows if row["batch"] == TARGET_BATCH]
    return {text: verdict(Interval(**rows[0]["time_ratio"]["calls"]), MAX_TIME_RATIO)} if rows else {}


def show(result: Mapping[str, Any], console: Console) -> None:
    rows = [
        (
            str(row["batch"]),
            mode,
            str(found["tokens"]),
            str(found["complete"]),
            interval_text(found["tokens_per_s"], 1),
            interval_text(found["latency_s"], 2),
        )
        for row in result["rows"]
        for mode, found in row["modes"].items()
    ]
    columns = ("batch", "mode", "tokens", "complete", "tokens/s", "latency s")
    console.print(table_of("medians over groups (95 % bootstrap intervals)", columns, rows))
    ratios = [
        (
            str(row["batch"]),
            *(interval_text(row["time_ratio"][kind]) for kind in ("calls", "free")),
            str(row["product_speedup"]),
        )
        for row in result["rows"]
    ]
    console.print(
        table_of("time, ours / BatchGenerator's", ("batch", "calls", "free", "products' own speed-up"), ratios)
    )
    for target, holds in result["targets"].items():
        console.print(f"{target}: [bold]{holds}[/bold]")
    warn_of_few(console, min(row["groups"] for row in result["rows"]))


if __name__ == "__main__":
    main()
