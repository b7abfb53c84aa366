"""Decoding speed beside mlx-lm, on the same model object, in one process, alternating.

    python benchmarks/decode.py            tables
    python benchmarks/decode.py --json     and, as the last line, the result as JSON
    python benchmarks/decode.py --engine drafts=true    with drafts, in the last of the four ways below

The workload: 30 cases of BFCL (benchmarks/data/bfcl_decode_ids.json), one call required, greedy. Every case is decoded
by mlx_lm.stream_generate without constraint, by toolmask without constraint, by toolmask constrained one token a
forward pass, and by toolmask constrained with fast-forward: the same prompt and the same number of tokens each. What
counts as time, and why, stands in benchmarks/runs.py; how the tokens are made the same, in benchmarks/modes.py.

The exit status says whether the measurement was made, not what it found.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

if __name__ == "__main__" and not __package__:
    # As a script. In place of benchmarks/ itself, whose names should not stand beside the standard library's.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.bfcl import DECODE_SEED, Case, decode_cases
from benchmarks.decode_report import Round, show, summary
from benchmarks.environment import environment
from benchmarks.modes import Bench
from benchmarks.runs import Mode, Run
from benchmarks.script import engine_options, until_stopped, write_result
from engine.config import default_cache_dir
from engine.model import load

NUM_CASES = 30
TABLE_WIDTH = 130


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    with _progress() as progress:
        task = progress.add_task("loading the model", total=None)
        loaded = load(options.model, cache_dir=default_cache_dir())
        cases = decode_cases(options.seed)[: options.cases]
        progress.update(task, description="decoding", total=len(cases) * options.repeats)
        with Bench(loaded, options.max_tokens, engine_options(options)) as bench:
            rounds = list(until_stopped(progress.track(decode_all(bench, cases, options.repeats), task_id=task)))
            drafted = bench.drafts
    # Those that were decoded: a signal ends the work earlier.
    num_cases = len({run.case_id for one in rounds for run in one.values()})
    asked = {"seed": options.seed, "cases": num_cases, "repeats": options.repeats, "max_tokens": options.max_tokens}
    asked |= {"engine_options": engine_options(options)}
    result = {"benchmark": "decode", **environment(loaded), **asked, **summary(rounds, bench.barred_ids, options.seed)}
    result |= {"drafts": asdict(drafted)}
    _report(result, rounds, options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Decoding speed beside mlx-lm's, on the same model object.")
    parser.add_argument("--json", action="store_true", help="print the result as one line of JSON, last")
    parser.add_argument("--out", type=Path, help="write the result there too, with every run")
    parser.add_argument("--model", default="smollm2-135m", help="name, folder, GGUF file or hub id")
    parser.add_argument("--cases", type=int, default=NUM_CASES, choices=range(1, NUM_CASES + 1), metavar="N")
    parser.add_argument("--repeats", type=int, default=1, help="rounds over all cases; each gives a pair a case")
    parser.add_argument("--max-tokens", type=int, default=96, help="the most that a case may have")
    parser.add_argument("--seed", type=int, default=DECODE_SEED, help="of the draw of cases and of the bootstrap")
    engine_help = "an option of EngineConfig for constrained_ff, such as drafts=true; repeatable"
    parser.add_argument("--engine", action="append", default=[], metavar="NAME=VALUE", help=engine_help)
    return parser


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=Console(stderr=True))


def decode_all(bench: Bench, cases: Sequence[Case], repeats: int) -> Iterator[Round]:
    """Every case in every mode. Within a round the modes alternate; from round to round their order rotates."""
    orders = list(Mode)
    for _ in range(repeats):
        for case in cases:
            num_tokens = bench.num_tokens(case)
            yield {mode: bench.run(mode, case, num_tokens) for mode in orders}
            orders = orders[1:] + orders[:1]


def _report(result: dict[str, Any], rounds: Sequence[Round], options: argparse.Namespace) -> None:
    console = Console(soft_wrap=True)
    if not console.is_terminal:
        console.width = TABLE_WIDTH
    show(result, console)
    if options.out is not None:
        runs = [_without_tokens(run) for one in rounds for run in one.values()]
        write_result({**result, "runs": runs}, options.out)
    if options.json:
        print(json.dumps(result), flush=True)


def _without_tokens(run: Run) -> dict[str, Any]:
    return {name: value for name, value in asdict(run).items() if name != "tokens"}


if __name__ == "__main__":
    main()
