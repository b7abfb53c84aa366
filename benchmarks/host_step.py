"""CPU time of the decoding thread per step, by part and batch size, over a model that costs the device next to nothing.

    python benchmarks/host_step.py            a table
    python benchmarks/host_step.py --json     and, as the last line, the result as JSON

The model is `random:prose`: one small layer, a vocabulary of 128,256 tokens, and strings that do not end. Rows are
free, or inside a string argument of a required call, where nothing is forced. How the parts are told apart stands in
benchmarks/host_clock.py; prompts and the first steps are left out, and there are no drafts. It is CPU time, so that
waiting for the device, or for another process, does not count; filling the masks of a batch is also given as wall time,
for llguidance's threads do it.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

if __name__ == "__main__" and not __package__:
    # As a script. In place of benchmarks/ itself, whose names should not stand beside the standard library's.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from rich.console import Console

from benchmarks.environment import environment
from benchmarks.host_clock import PARTS, HostClock, HostStep, steady
from benchmarks.intervals import Interval, bootstrap_median, verdict
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
)
from engine.config import EngineConfig
from engine.engine import Engine
from engine.model import LoadedModel
from engine.types import Message, Request, Role, SamplingParams, Tool, ToolChoice, ToolChoiceMode

MAX_HOST_MS = 1.0
SKIPPED_STEPS = 5
SPARE_STEPS = 32  # beyond those that are kept: prompts that wait for one another, and the skipped ones
MESSAGE = Message(Role.USER, "Write a long story about a lighthouse keeper.")
WRITE = Tool(
    "write_story",
    "Publish a story.",
    {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]},
)
KINDS = ("free", "constrained")


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    loaded = load_model(options.model, seed=options.seed)
    work = [(kind, size) for kind in KINDS for size in options.batches]
    with progress_bar() as progress:
        rows = [
            measure(loaded, kind, size, options.steps, options)
            for kind, size in until_stopped(progress.track(work, description="batches"))
        ]
    asked = {"seed": options.seed, "steps": options.steps, "engine_options": engine_options(options)}
    result = {"benchmark": "host_step", **environment(loaded), **asked, "rows": rows, "targets": targets(rows)}
    hand_over(result, options, lambda console: show(result, console))


def _parser() -> argparse.ArgumentParser:
    parser = script_parser("CPU time of the decoding thread per step.", model="random:prose")
    parser.add_argument("--batches", type=sizes, default=(1, 2, 4, 8, 16), help="batch sizes, as in 1,2,4")
    parser.add_argument("--steps", type=int, default=200, help="steps that are kept of each (%(default)s)")
    return parser


def measure(loaded: LoadedModel, kind: str, size: int, num_steps: int, options: argparse.Namespace) -> dict[str, Any]:
    """The steps of one batch: as many rows of one kind, all decoding."""
    config = EngineConfig(**{"max_running": size, "drafts": False, **engine_options(options)})
    clock = HostClock()
    with clock.installed(), Engine(loaded, config=config) as engine:
        requests = [_request(kind, seed) for seed in range(size)]
        generations = [engine.submit(request) for request in requests]
        for _ in generations[0]:
            if len(clock.steps) >= num_steps + SPARE_STEPS:
                break
        for generation in generations:
            generation.cancel()
    return summary(kind, size, steady(clock.steps, size, SKIPPED_STEPS)[:num_steps], options.seed)


def _request(kind: str, seed: int) -> Request:
    sampling = SamplingParams(temperature=1.0, seed=seed)  # greedy, a random model repeats one token
    if kind == "free":
        return Request((MESSAGE,), sampling=sampling)
    required = ToolChoice(ToolChoiceMode.REQUIRED)
    return Request((MESSAGE,), tools=(WRITE,), tool_choice=required, sampling=sampling)


def summary(kind: str, size: int, steps: Sequence[HostStep], seed: int) -> dict[str, Any]:
    """Medians with their intervals, in milliseconds."""
    if not steps:
        raise RuntimeError(f"no step of {size} {kind} rows was seen; more --steps may help")
    parts = {part: bootstrap_median([1e3 * step.seconds[part] for step in steps], seed).to_json() for part in PARTS}
    besides = bootstrap_median([1e3 * step.besides_forward_s for step in steps], seed)
    mask = bootstrap_median([1e3 * step.mask_wall_s for step in steps], seed)
    return {
        "kind": kind,
        "batch": size,
        "steps": len(steps),
        "ms_by_part": parts,
        "besides_forward_ms": besides.to_json(),
        "mask_wall_ms": mask.to_json(),
    }


def targets(rows: Sequence[dict[str, Any]]) -> dict[str, str]:
    """Of a batch of one, constrained. Empty where that was not measured."""
    alone = [row["besides_forward_ms"] for row in rows if row["batch"] == 1 and row["kind"] == "constrained"]
    if not alone:
        return {}
    text = f"host CPU time per step besides the forward pass, batch of 1: at most {MAX_HOST_MS} ms"
    return {text: verdict(Interval(**alone[0]), MAX_HOST_MS)}


def show(result: dict[str, Any], console: Console) -> None:
    columns = ("rows", "batch", "steps", *(f"{part} ms" for part in PARTS), "besides forward ms", "mask, wall ms")
    rows = [
        (
            row["kind"],
            str(row["batch"]),
            str(row["steps"]),
            *(f"{row['ms_by_part'][part]['median']:.3f}" for part in PARTS),
            interval_text(row["besides_forward_ms"]),
            f"{row['mask_wall_ms']['median']:.3f}",
        )
        for row in result["rows"]
    ]
    console.print(table_of("CPU time of the decoding thread per step, medians", columns, rows))
    for target, holds in result["targets"].items():
        console.print(f"{target}: [bold]{holds}[/bold]")


if __name__ == "__main__":
    main()
