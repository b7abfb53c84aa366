"""Time per tool call by loop: ours, and mlx-lm with outlines, xgrammar or llguidance in a logits processor.

    python benchmarks/peers.py --setup      make the peers' environment, .peers, and run there
    python benchmarks/peers.py --json       and, as the last line, the result as JSON

Without --setup, only what is installed is measured; the result says what was not, and why. `--setup` takes options of
pip behind `--`, such as `--setup -- --extra-index-url https://download.pytorch.org/whl/cpu` for torch without CUDA.

Each case of BFCL is decoded by every loop in a row, in an order that rotates; ratios are taken within a case. Time is
that of a whole call: grammar, prompt, decoding. How the loops differ stands in benchmarks/peer_modes.py;
benchmarks/servers.py measures mlx_lm.server over HTTP.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

if __name__ == "__main__" and not __package__:
    # As a script. In place of benchmarks/ itself, whose names should not stand beside the standard library's.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from rich.console import Console

from benchmarks.bfcl import Case, decode_cases
from benchmarks.environment import environment
from benchmarks.intervals import bootstrap_median
from benchmarks.models import load_model
from benchmarks.peer_modes import FREE, OURS, CallRun, Loops, NotMeasured
from benchmarks.peer_venv import FOLDER, python_of_peers, set_up
from benchmarks.script import (
    engine_options,
    hand_over,
    interval_text,
    progress_bar,
    script_parser,
    table_of,
    until_stopped,
    warn_of_few,
)

Round = Mapping[str, CallRun]


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    if options.setup and Path(sys.prefix) != FOLDER:
        _run_among_peers(options.pip_options, arguments)
        return
    loaded = load_model(options.model, seed=options.seed)
    cases = decode_cases(options.seed)[: options.cases]
    refused: dict[str, list[str]] = {}
    with Loops(loaded, options.max_tokens, engine_options(options)) as loops, progress_bar() as progress:
        task = progress.add_task("cases", total=len(cases))
        rounds = list(until_stopped(progress.track(decode_all(loops, cases, refused), task_id=task)))
    asked = {"seed": options.seed, "max_tokens": options.max_tokens, "engine_options": engine_options(options)}
    found = summary(rounds, options.seed)
    missing = {"not_measured": loops.not_measured, "refused": refused}
    result = {"benchmark": "peers", **environment(loaded), **asked, **found, **missing}
    hand_over(result, options, lambda console: show(result, console))


def _parser() -> argparse.ArgumentParser:
    parser = script_parser("Time per tool call by loop.")
    parser.add_argument("--cases", type=int, default=30, help="of BFCL, the first so many (%(default)s)")
    parser.add_argument("--max-tokens", type=int, default=96, help="the most of one call (%(default)s)")
    parser.add_argument("--setup", action="store_true", help="make the peers' environment first, and run there")
    parser.add_argument("pip_options", nargs="*", help="behind --, for pip")
    return parser


def _run_among_peers(pip_options: Sequence[str], arguments: Sequence[str] | None) -> None:
    set_up(tuple(pip_options))
    given = [argument for argument in (sys.argv[1:] if arguments is None else arguments) if argument != "--setup"]
    own = given[: given.index("--")] if "--" in given else given
    script = str(Path(__file__).resolve())
    done = subprocess.run([str(python_of_peers()), script, *own], check=False, env={**os.environ})
    raise SystemExit(done.returncode)


def decode_all(loops: Loops, cases: Sequence[Case], refused: dict[str, list[str]]) -> Iterator[Round]:
    """Every case in every mode. refused: what a peer says of the schemas that it does not take."""
    order = list(loops.modes)
    for case in cases:
        num_tokens = loops.num_tokens(case)
        found: dict[str, CallRun] = {}
        for mode in order:
            try:
                found[mode] = loops.run(mode, case, num_tokens)
            except NotMeasured as why:
                refused.setdefault(mode, []).append(f"{case.id}: {why}")
        order = order[1:] + order[:1]
        yield found


def summary(rounds: Sequence[Round], seed: int) -> dict[str, Any]:
    """Per mode: counts, seconds, and how long ours takes of its time in the same case."""
    modes = {
        mode: [one for one in rounds if mode in one] for mode in dict.fromkeys(mode for one in rounds for mode in one)
    }
    return {
        "pairs": len(rounds),
        "modes": {mode: _mode_summary(mode, found, seed) for mode, found in modes.items()},
    }


def _mode_summary(mode: str, rounds: Sequence[Round], seed: int) -> dict[str, Any]:
    runs = [one[mode] for one in rounds]
    return {
        "cases": len(runs),
        "complete": sum(run.is_complete for run in runs),
        "tokens": sum(run.num_tokens for run in runs),
        "seconds": bootstrap_median([run.seconds for run in runs], seed).to_json(),
        "compile_s": bootstrap_median([run.prepare_s for run in runs], seed).to_json(),
        "ours_to_it": bootstrap_median([one[OURS].seconds / one[mode].seconds for one in rounds], seed).to_json(),
    }


def show(result: Mapping[str, Any], console: Console) -> None:
    columns = ("loop", "cases", "complete", "tokens", "seconds a call", "of it compiling", "ours / it")
    rows = [
        (
            mode,
            str(found["cases"]),
            "" if mode == FREE else str(found["complete"]),
            str(found["tokens"]),
            interval_text(found["seconds"], 2),
            "" if mode.startswith("toolmask") else f"{found['compile_s']['median']:.3f}",
            interval_text(found["ours_to_it"]),
        )
        for mode, found in result["modes"].items()
    ]
    console.print(table_of("whole calls: medians (95 % bootstrap intervals)", columns, rows))
    for mode, why in result["not_measured"].items():
        console.print(f"{mode} was not measured: {why}")
    for mode, cases in result["refused"].items():
        console.print(f"{mode} refused {len(cases)} cases: {cases[0]}")
    warn_of_few(console, result["pairs"])


if __name__ == "__main__":
    main()
