"""Time to the first token with many tools in the prompt: cold, and where an earlier request had the same tools.

    python benchmarks/ttft.py            a table
    python benchmarks/ttft.py --json     and, as the last line, the result as JSON

Each pair is a request with tools whose names no prompt has had before (cold), then one with the same tools and another
question (warm). The tool choice is `auto`, so that the first event is the first sampled token: a required call's
opening is forced, and is there before the prompt has been read. How much of the prompt an earlier request had computed
is the engine's own count, usage.cached_tokens. Where the model's decision is calibrated by default, the pass for that
is part of the cold time, and reads nearly all of the prompt: so a cold request counts that much as cached.
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

from rich.console import Console

from benchmarks.environment import environment
from benchmarks.intervals import Interval, bootstrap_median, verdict
from benchmarks.models import load_model
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
from benchmarks.tool_sets import draw_tools, renamed, tool_pool
from benchmarks.tracing import wait_until_idle
from engine.config import EngineConfig
from engine.engine import Engine
from engine.events import Finished
from engine.types import Message, Request, Role, Tool

MAX_WARM_RATIO = 0.1
QUESTIONS = ("What is the area of a circle with radius 7?", "How far is it from Lisbon to Porto by train?")


@dataclass(frozen=True, slots=True)
class FirstToken:
    """When the first event came, and what the prompt was."""

    seconds: float
    prompt_tokens: int
    cached_tokens: int


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    loaded = load_model(options.model, seed=options.seed)
    pool = tool_pool()
    with Engine(loaded, config=EngineConfig(**engine_options(options))) as engine, progress_bar() as progress:
        _first_token(engine, draw_tools(pool, 1, options.seed), QUESTIONS[0])  # warms up
        pairs = []
        for number in until_stopped(progress.track(range(options.pairs), description="pairs")):
            tools = renamed(draw_tools(pool, options.tools, options.seed + number), f"p{number}")
            cold, warm = (_first_token(engine, tools, question) for question in QUESTIONS)
            pairs.append((cold, warm))
    asked = {"seed": options.seed, "tools": options.tools, "engine_options": engine_options(options)}
    result = {"benchmark": "ttft", **environment(loaded), **asked, **summary(pairs, options.seed)}
    hand_over(result, options, lambda console: show(result, console))


def _parser() -> argparse.ArgumentParser:
    parser = script_parser("Time to the first token, cold and warm.")
    parser.add_argument("--pairs", type=int, default=15, help="of a cold and a warm request (%(default)s)")
    parser.add_argument("--tools", type=int, default=20, help="in the prompt (%(default)s)")
    return parser


def _first_token(engine: Engine, tools: tuple[Tool, ...], question: str) -> FirstToken:
    wait_until_idle()
    start = time.perf_counter()
    generation = engine.submit(Request((Message(Role.USER, question),), tools=tools, max_tokens=None))
    next(generation)
    seconds = time.perf_counter() - start
    generation.cancel()
    (finished,) = (event for event in generation if isinstance(event, Finished))
    return FirstToken(seconds, finished.usage.prompt_tokens, finished.usage.cached_tokens)


def summary(pairs: Sequence[tuple[FirstToken, FirstToken]], seed: int) -> dict[str, Any]:
    ratio = bootstrap_median([warm.seconds / cold.seconds for cold, warm in pairs], seed)
    sides = dict(zip(("cold", "warm"), zip(*pairs, strict=True), strict=True))
    return {
        "pairs": len(pairs),
        "seconds": {
            name: bootstrap_median([one.seconds for one in found], seed).to_json() for name, found in sides.items()
        },
        "prompt_tokens": {name: _mean([one.prompt_tokens for one in found]) for name, found in sides.items()},
        "cached_tokens": {name: _mean([one.cached_tokens for one in found]) for name, found in sides.items()},
        "ratio": ratio.to_json(),
        "targets": targets(ratio),
    }


def _mean(values: Sequence[int]) -> float:
    return round(sum(values) / len(values), 1)


def targets(ratio: Interval) -> dict[str, str]:
    return {f"warm: at most {MAX_WARM_RATIO} of the cold time": verdict(ratio, MAX_WARM_RATIO)}


def show(result: dict[str, Any], console: Console) -> None:
    rows = [
        (
            name,
            interval_text(result["seconds"][name]),
            *(str(result[key][name]) for key in ("prompt_tokens", "cached_tokens")),
        )
        for name in ("cold", "warm")
    ]
    title = f"time to the first token, {result['tools']} tools, {result['pairs']} pairs"
    console.print(table_of(title, ("", "seconds", "prompt tokens", "of them cached"), rows))
    console.print(f"warm / cold: {interval_text(result['ratio'])}")
    for target, holds in result["targets"].items():
        console.print(f"{target}: [bold]{holds}[/bold]")
    warn_of_few(console, result["pairs"])


if __name__ == "__main__":
    main()
