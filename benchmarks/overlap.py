"""How much host work is hidden behind a forward pass: what masks and the next pass's graph can gain at most.

    python benchmarks/overlap.py            a table
    python benchmarks/overlap.py --json     and, as the last line, the result as JSON

A pass of one token is launched and its token waited for, as a step does; in every second pass the host is kept busy for
`--work-ms` between the two. What the busy passes take longer is what the device did not hide. The launch itself is
timed too: where the device's queue is short, most of the pass is over when the launch returns, and what is left is the
time behind which work can hide. Wall time, in alternating pairs, on the thread that owns the arrays.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if __name__ == "__main__" and not __package__:
    # As a script. In place of benchmarks/ itself, whose names should not stand beside the standard library's.
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    import engine  # noqa: F401  # chooses the BLAS, before anything imports mlx

import mlx.core as mx
from rich.console import Console

from benchmarks.environment import environment
from benchmarks.intervals import bootstrap_median
from benchmarks.models import load_model
from benchmarks.script import hand_over, interval_text, progress_bar, script_parser, table_of
from engine.device_thread import in_own_thread
from engine.model import Chunk, LoadedModel

WARM_UP = 5  # pairs


@dataclass(frozen=True, slots=True)
class Pass:
    """Seconds of one pass: until the launch returned, waiting for the token, and all of it with the work between."""

    launch_s: float
    wait_s: float
    whole_s: float


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    loaded, runs = in_own_thread(lambda: _measured(options))
    asked = {"seed": options.seed, "pairs": options.pairs, "work_ms": options.work_ms}
    result = {"benchmark": "overlap", **environment(loaded), **asked, **summary(runs, options.seed)}
    hand_over(result, options, lambda console: show(result, console))


def _parser() -> argparse.ArgumentParser:
    parser = script_parser("How much host work is hidden behind a forward pass.")
    parser.add_argument("--pairs", type=int, default=40, help="of an idle and a busy pass (%(default)s)")
    parser.add_argument("--work-ms", type=float, default=5.0, help="host work of a busy pass (%(default)g)")
    parser.add_argument("--prompt", type=int, default=64, help="tokens before the passes (%(default)s)")
    return parser


def _measured(options: argparse.Namespace) -> tuple[LoadedModel, list[tuple[Pass, Pass]]]:
    loaded = load_model(options.model, seed=options.seed)
    cache = loaded.model.make_memory().make_cache()

    def launch(tokens: list[int]) -> mx.array:
        logits = loaded.model.forward([Chunk(tokens, cache, num_logits=1)])
        mx.async_eval(logits)
        return mx.argmax(logits[-1])

    mx.eval(launch(list(range(options.prompt))))
    with progress_bar() as progress:
        numbers = progress.track(range(options.pairs + WARM_UP), description="pairs")
        work_s = options.work_ms / 1000
        pairs = [(timed(launch, mx.eval, 0.0), timed(launch, mx.eval, work_s)) for _ in numbers]
    return loaded, pairs[WARM_UP:]


def timed(launch: Callable[[list[int]], mx.array], wait: Callable[[mx.array], object], work_s: float) -> Pass:
    """One pass, with the host busy for work_s between launching it and waiting."""
    start = time.perf_counter()
    token = launch([1])
    launched = time.perf_counter()
    while time.perf_counter() < launched + work_s:
        pass
    before = time.perf_counter()
    wait(token)
    end = time.perf_counter()
    return Pass(launched - start, end - before, end - start)


def summary(pairs: Sequence[tuple[Pass, Pass]], seed: int) -> dict[str, Any]:
    """Milliseconds, medians with their intervals. exposed_ms: what the work added to a pass, within each pair."""
    columns = {
        "launch_ms": [idle.launch_s for idle, _ in pairs],
        "wait_ms": [idle.wait_s for idle, _ in pairs],
        "wait_after_work_ms": [busy.wait_s for _, busy in pairs],
        "whole_ms": [idle.whole_s for idle, _ in pairs],
        "exposed_ms": [busy.whole_s - idle.whole_s for idle, busy in pairs],
    }
    return {
        name: bootstrap_median([1e3 * value for value in values], seed).to_json() for name, values in columns.items()
    }


def show(result: dict[str, Any], console: Console) -> None:
    rows = [
        (words, interval_text(result[name], 2))
        for words, name in (
            ("launching a pass of one token", "launch_ms"),
            ("waiting for its token", "wait_ms"),
            (f"waiting, after {result['work_ms']:g} ms of work", "wait_after_work_ms"),
            ("the whole pass", "whole_ms"),
            ("what the work adds to it", "exposed_ms"),
        )
    ]
    console.print(table_of("medians (95 % bootstrap intervals), milliseconds of wall time", ("", "ms"), rows))


if __name__ == "__main__":
    main()
