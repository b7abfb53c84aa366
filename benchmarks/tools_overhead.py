"""What more tools cost: compiling their grammar, the mask of each step, the host's CPU time of each step.

    python benchmarks/tools_overhead.py            a table
    python benchmarks/tools_overhead.py --json     and, as the last line, the result as JSON

Tools are functions of BFCL. The vocabulary has 128,256 tokens (Llama 3.1's), the model is `random:tiny`, which costs
the device next to nothing and writes calls that go everywhere. Compiling is everything between the request and its
matcher: the turn's grammar as text, then llguidance; its CPU time stands beside, for machines that are shared. It is
cold where each repetition has tools whose names and properties no cache has seen, and cached where the same request
comes again. Decoding is one required call after another, sampled with seeds and without drafts, timed by
benchmarks/host_clock.py; "0 tools" are free rows.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if __name__ == "__main__" and not __package__:
    # As a script. In place of benchmarks/ itself, whose names should not stand beside the standard library's.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np
from rich.console import Console
from rich.progress import Progress

from benchmarks.environment import environment
from benchmarks.host_clock import HostClock, HostStep, steady
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
from benchmarks.tool_sets import draw_tools, renamed, tool_pool
from engine.config import EngineConfig
from engine.engine import Engine
from engine.grammars.llguidance_backend import LLGuidanceCompiler
from engine.grammars.tool_format import Opening
from engine.grammars.turn_cache import Turns
from engine.types import Message, Request, Role, SamplingParams, Tool, ToolChoice, ToolChoiceMode

MAX_COMPILE_MS = {1: 2.0, 10: 5.0, 50: 15.0, 200: 75.0}
MAX_CACHED_MS = 0.5  # what rounds to 0
MESSAGE = Message(Role.USER, "Do what is needed.")
CALL_TOKENS = 512  # the most of one call; nearly all end by themselves


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    loaded = load_model(options.model, seed=options.seed)
    config = EngineConfig(**{"max_running": 1, "drafts": False, **engine_options(options)})
    pool = tool_pool()
    with progress_bar() as progress, Engine(loaded, config=config) as engine:
        counts = until_stopped((0, *options.tools))
        rows = [measure(engine, pool, count, options, progress) for count in counts]
    asked = {"seed": options.seed, "repeats": options.repeats, "engine_options": engine_options(options)}
    result = {"benchmark": "tools_overhead", **environment(loaded), **asked, "rows": rows, "targets": targets(rows)}
    hand_over(result, options, lambda console: show(result, console))


def _parser() -> argparse.ArgumentParser:
    parser = script_parser("What more tools cost.", model="random:tiny")
    parser.add_argument("--tools", type=sizes, default=(1, 10, 50, 200), help="numbers of tools, as in 1,10,50")
    parser.add_argument("--repeats", type=int, default=25, help="compiles of each kind (%(default)s)")
    parser.add_argument("--steps", type=int, default=300, help="decoding steps for each number (%(default)s)")
    return parser


def measure(
    engine: Engine, pool: Sequence[Tool], count: int, options: argparse.Namespace, progress: Progress
) -> dict[str, Any]:
    """One number of tools."""
    row: dict[str, Any] = {"tools": count}
    if count:
        row |= _compile_times(engine, pool, count, options, progress)
    steps = _decode(engine, draw_tools(pool, count, options.seed), options, progress)
    besides = [1e3 * step.besides_forward_s for step in steps]
    mask = [1e3 * step.mask_wall_s for step in steps]
    return {
        **row,
        "steps": len(steps),
        "mask_ms": bootstrap_median(mask, options.seed).to_json(),
        "mask_p95_ms": round(float(np.percentile(mask, 95)), 4),
        "host_besides_forward_ms": bootstrap_median(besides, options.seed).to_json(),
    }


def _compile_times(
    engine: Engine, pool: Sequence[Tool], count: int, options: argparse.Namespace, progress: Progress
) -> dict[str, Any]:
    # A compiler of its own: the engine's may be compiling, and holds what was compiled.
    tokenizer = engine.loaded.tokenizer
    compiler = LLGuidanceCompiler(tokenizer.backend_json(), eos_ids=sorted(tokenizer.eos_ids))
    turns = Turns(engine.tool_format, tokenizer.unspellable)
    cold, cached = [], []
    for repeat in progress.track(range(options.repeats), description=f"compiling {count}"):
        tools = renamed(draw_tools(pool, count, options.seed + repeat), f"r{repeat}")
        cold.append(_compile_ms(turns, compiler, tools))
        cached.append(_compile_ms(turns, compiler, tools))
    columns = {"compile_ms": cold, "compile_cached_ms": cached}
    found: dict[str, Any] = {}
    for name, runs in columns.items():
        found[name] = bootstrap_median([run.text_ms + run.grammar_ms for run in runs], options.seed).to_json()
        found[f"{name}_of_it_llguidance"] = bootstrap_median([run.grammar_ms for run in runs], options.seed).to_json()
        found[f"{name}_cpu"] = bootstrap_median([run.cpu_ms for run in runs], options.seed).to_json()
    return found


@dataclass(frozen=True, slots=True)
class Compile:
    """Milliseconds: the turn's grammar as text, then as a matcher; and of CPU time for both."""

    text_ms: float
    grammar_ms: float
    cpu_ms: float


def _compile_ms(turns: Turns, compiler: LLGuidanceCompiler, tools: tuple[Tool, ...]) -> Compile:
    request = _request(tools, 0)
    start, cpu = time.perf_counter(), time.thread_time()
    known = turns.of(request).at(Opening.NONE)
    written = time.perf_counter()
    known.compile(compiler)
    known.is_sound = True
    grammar_ms, cpu_ms = 1e3 * (time.perf_counter() - written), 1e3 * (time.thread_time() - cpu)
    return Compile(1e3 * (written - start), grammar_ms, cpu_ms)


def _request(tools: tuple[Tool, ...], seed: int) -> Request:
    choice = ToolChoice(ToolChoiceMode.REQUIRED) if tools else ToolChoice()
    sampling = SamplingParams(temperature=1.0, seed=seed)
    return Request(
        (MESSAGE,),
        tools=tools,
        tool_choice=choice,
        parallel_tool_calls=False,
        sampling=sampling,
        max_tokens=CALL_TOKENS,
    )


def _decode(engine: Engine, tools: tuple[Tool, ...], options: argparse.Namespace, progress: Progress) -> list[HostStep]:
    """Steps of one call after another."""
    clock, kept = HostClock(), list[HostStep]()
    task = progress.add_task(f"decoding with {len(tools)}", total=options.steps)
    with clock.installed():
        for seed in range(options.seed, options.seed + 1000):
            clock.clear()
            generation = engine.submit(_request(tools, seed))
            for _ in generation:
                if len(clock.steps) > options.steps:
                    generation.cancel()
            kept += steady(clock.steps, num_rows=1, skip=0)
            progress.update(task, completed=min(len(kept), options.steps))
            if len(kept) >= options.steps:
                break
    return kept[: options.steps]


def targets(rows: Sequence[dict[str, Any]]) -> dict[str, str]:
    """The numbers of tools that have a target, as far as they were measured."""
    found = {}
    for row in rows:
        if (limit := MAX_COMPILE_MS.get(row["tools"])) is not None:
            cold, cached = Interval(**row["compile_ms"]), Interval(**row["compile_cached_ms"])
            found[f"compiling {row['tools']} tools: at most {limit:g} ms"] = verdict(cold, limit)
            found[f"{row['tools']} tools, cached: rounds to 0 ms"] = verdict(cached, MAX_CACHED_MS)
    return found


def show(result: dict[str, Any], console: Console) -> None:
    columns = (
        "tools",
        "compile ms",
        "of it llguidance",
        "CPU ms",
        "cached ms",
        "mask ms",
        "mask p95",
        "besides forward ms",
    )
    rows = [
        (
            str(row["tools"]),
            interval_text(row["compile_ms"], 2) if "compile_ms" in row else "",
            interval_text(row["compile_ms_of_it_llguidance"], 2) if "compile_ms" in row else "",
            f"{row['compile_ms_cpu']['median']:.2f}" if "compile_ms" in row else "",
            interval_text(row["compile_cached_ms"], 2) if "compile_ms" in row else "",
            interval_text(row["mask_ms"]),
            f"{row['mask_p95_ms']:.3f}",
            interval_text(row["host_besides_forward_ms"]),
        )
        for row in result["rows"]
    ]
    console.print(table_of("medians (95 % bootstrap intervals)", columns, rows))
    for target, holds in result["targets"].items():
        console.print(f"{target}: [bold]{holds}[/bold]")


if __name__ == "__main__":
    main()
