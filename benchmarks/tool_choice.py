"""What it costs that whole names choose the tool of a call, instead of tokens.

    python benchmarks/tool_choice.py            a table
    python benchmarks/tool_choice.py --json     and, as the last line, the result as JSON

Timed is a required call from its submission to its tool's name, with tools whose prompt and prior an earlier request
has read, and a question of its own. Both ways take turns at coming first in a pair. What the prior takes once is told
apart: the first request with other tools, by names and by tokens.
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
from rich.progress import Progress

from benchmarks.environment import environment
from benchmarks.intervals import bootstrap_median
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
from benchmarks.tool_sets import draw_tools, renamed, tool_pool
from benchmarks.tracing import wait_until_idle
from engine.config import EngineConfig
from engine.engine import Engine
from engine.events import Decided, ToolCallStart
from engine.types import Message, Request, Role, Tool, ToolChoice, ToolChoiceBy, ToolChoiceMode

WAYS = (ToolChoiceBy.TOKENS, ToolChoiceBy.LIKELIHOOD)


@dataclass(frozen=True, slots=True)
class Named:
    """When a call's tool was known, and the passes beyond the answer's that a decision took."""

    seconds: float
    passes: int


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    loaded = load_model(options.model, seed=options.seed)
    config = EngineConfig(**engine_options(options))
    with Engine(loaded, config=config) as engine, progress_bar() as progress:
        rows = [measure(engine, count, options, progress) for count in until_stopped(options.tools)]
    asked = {"seed": options.seed, "pairs": options.pairs, "engine_options": engine_options(options)}
    result = {"benchmark": "tool_choice", **environment(loaded), **asked, "rows": rows}
    hand_over(result, options, lambda console: show(result, console))


def _parser() -> argparse.ArgumentParser:
    parser = script_parser("What it costs that whole names choose a call's tool.")
    parser.add_argument("--tools", type=sizes, default=(2, 10, 50), help="numbers of tools, as in 2,10 (%(default)s)")
    parser.add_argument("--pairs", type=int, default=15, help="of a call by tokens and one by names (%(default)s)")
    return parser


def measure(engine: Engine, count: int, options: argparse.Namespace, progress: Progress) -> dict[str, Any]:
    """One number of tools."""
    drawn = draw_tools(tool_pool(), count, options.seed)
    # Names of its own: else the second way would begin with the prompt that the first one has read.
    of_way = {by: renamed(drawn, tag) for by, tag in zip(WAYS, ("a", "b"), strict=True)}
    first = {by: _named(engine, tools, 0, by) for by, tools in of_way.items()}
    found: dict[ToolChoiceBy, list[Named]] = {by: [] for by in WAYS}
    for number in progress.track(range(1, options.pairs + 1), description=f"{count} tools"):
        for by in WAYS if number % 2 else reversed(WAYS):
            found[by].append(_named(engine, of_way[by], number, by))
    return {"tools": count, **summary(first, found, options.seed)}


def _named(engine: Engine, tools: tuple[Tool, ...], number: int, by: ToolChoiceBy) -> Named:
    message = Message(Role.USER, f"What is the area of a circle with radius {number}?")
    request = Request((message,), tools=tools, tool_choice=ToolChoice(ToolChoiceMode.REQUIRED), tool_choice_by=by)
    wait_until_idle()
    start = time.perf_counter()
    passes = 0
    with engine.submit(request) as generation:
        for event in generation:
            if isinstance(event, Decided):
                passes = event.decision.passes
            if isinstance(event, ToolCallStart):
                return Named(time.perf_counter() - start, passes)
    raise AssertionError("a required call has a name")


def summary(first: dict[ToolChoiceBy, Named], found: dict[ToolChoiceBy, list[Named]], seed: int) -> dict[str, Any]:
    """Medians, and of each pair the ratio."""
    pairs = zip(found[ToolChoiceBy.LIKELIHOOD], found[ToolChoiceBy.TOKENS], strict=True)
    return {
        "first_seconds": {by.value: round(one.seconds, 4) for by, one in first.items()},
        "first_passes": first[ToolChoiceBy.LIKELIHOOD].passes,
        "passes": found[ToolChoiceBy.LIKELIHOOD][-1].passes,
        "seconds": {
            by.value: bootstrap_median([one.seconds for one in each], seed).to_json() for by, each in found.items()
        },
        "ratio": bootstrap_median([names.seconds / tokens.seconds for names, tokens in pairs], seed).to_json(),
    }


def show(result: dict[str, Any], console: Console) -> None:
    columns = (
        "tools",
        "by tokens, s",
        "by names, s",
        "names / tokens",
        "passes",
        "first by tokens, s",
        "by names, s",
        "passes",
    )
    rows = [
        (
            str(row["tools"]),
            *(interval_text(row["seconds"][by.value]) for by in WAYS),
            interval_text(row["ratio"], 2),
            str(row["passes"]),
            *(f"{row['first_seconds'][by.value]:.2f}" for by in WAYS),
            str(row["first_passes"]),
        )
        for row in result["rows"]
    ]
    title = f"from a request to its tool's name, {result['pairs']} pairs"
    console.print(table_of(title, columns, rows))
    warn_of_few(console, result["pairs"])


if __name__ == "__main__":
    main()
