"""Memory that a sequence takes while it waits, beside its keys and values.

    python benchmarks/idle_memory.py            a table
    python benchmarks/idle_memory.py --json     and, as the last line, the result as JSON

Many sequences are submitted and the decoding thread is held still between two steps: once while all of them wait for
their turn, once after they have written some tokens. Of those that wait, what the process has grown by is divided by
their number; of those that run, what it gives back once they have ended: the grammar library's tables grow with what is
written, but are shared by all sequences of a grammar and stay. Without what MLX has allocated (keys, values, logits and
its cache of freed buffers); benchmarks/process_memory.py says how it is counted. The first group of sequences is left
out: it pays for what all of them share.
"""

import argparse
import itertools
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

if __name__ == "__main__" and not __package__:
    # As a script. In place of benchmarks/ itself, whose names should not stand beside the standard library's.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from rich.console import Console
from rich.progress import Progress

from benchmarks.environment import environment
from benchmarks.host_step import MESSAGE, WRITE
from benchmarks.intervals import Interval, bootstrap_median, verdict
from benchmarks.models import load_model
from benchmarks.process_memory import MEASURE, bytes_beside_mlx, reexec_with_malloc
from benchmarks.script import (
    engine_options,
    hand_over,
    interval_text,
    progress_bar,
    script_parser,
    table_of,
    until_stopped,
)
from benchmarks.tool_sets import draw_tools, tool_pool
from engine.config import EngineConfig
from engine.engine import Engine
from engine.events import Event
from engine.model import LoadedModel
from engine.types import Message, Request, Role, SamplingParams, Tool, ToolChoice, ToolChoiceMode

MAX_KB = 100.0
EVENTS_OF_EACH = 3  # that a running sequence has delivered before it counts
STATES = ("waiting", "running")
REQUIRED = ToolChoice(ToolChoiceMode.REQUIRED)

Tools = tuple[Tool, ...]


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    loaded = load_model(options.model, seed=options.seed)
    with progress_bar() as progress:
        rows = [measure(loaded, state, options, progress) for state in until_stopped(STATES)]
    asked = {
        "measure": MEASURE,
        "seed": options.seed,
        "tools": options.tools,
        "engine_options": engine_options(options),
    }
    result = {"benchmark": "idle_memory", **environment(loaded), **asked, "rows": rows, "targets": targets(rows)}
    hand_over(result, options, lambda console: show(result, console))


def _parser() -> argparse.ArgumentParser:
    parser = script_parser("Memory per idle sequence, beside its keys and values.", model="random:tiny")
    parser.add_argument("--sequences", type=int, default=64, help="of one group (%(default)s)")
    parser.add_argument(
        "--groups", type=int, default=5, help="groups after the first; each gives a value (%(default)s)"
    )
    parser.add_argument("--tools", type=int, default=10, help="that each sequence offers (%(default)s)")
    return parser


class _Reached:
    """A deliver callback that says when so many events have come."""

    def __init__(self, num_events: int) -> None:
        self._happened = threading.Event()
        self._left = num_events
        self._failure: Exception | None = None

    def __call__(self, event: Event | Exception) -> None:
        self._left -= 1
        if isinstance(event, Exception):
            self._failure = event
        if self._left == 0 or self._failure is not None:
            self._happened.set()

    def wait(self) -> None:
        """Raises what a generation failed by."""
        self._happened.wait()
        if self._failure is not None:
            raise self._failure


class _Hold(_Reached):
    """Holds the decoding thread at the first event, until it is released.

    Of a call whose opening is forced, that event comes between two steps: nothing that a step needs is in memory.
    """

    def __init__(self) -> None:
        super().__init__(num_events=1)
        self._released = threading.Event()

    def __call__(self, event: Event | Exception) -> None:
        super().__call__(event)
        self._released.wait()

    def release(self) -> None:
        self._released.set()


@contextmanager
def _held(engine: Engine) -> Iterator[None]:
    """The decoding thread, between two steps."""
    hold = _Hold()
    holding = engine.submit(Request((MESSAGE,), tools=(WRITE,), tool_choice=REQUIRED), deliver=hold)
    hold.wait()
    try:
        yield
    finally:
        holding.cancel()
        hold.release()


def measure(loaded: LoadedModel, state: str, options: argparse.Namespace, progress: Progress) -> dict[str, Any]:
    """Kilobytes of each sequence, a value a group."""
    total = options.sequences * (options.groups + 1)
    limits = {"max_running": 1 if state == "waiting" else total + 1, "max_waiting": total + 1, "prompt_cache_memory": 0}
    tools = draw_tools(tool_pool(), options.tools, options.seed)
    groups = progress.track(range(options.groups + 1), description=state)
    with Engine(loaded, config=EngineConfig(**{**limits, **engine_options(options)})) as engine:
        if state == "waiting":
            sizes = [after - before for before, after in itertools.pairwise(_waiting(engine, tools, groups, options))]
        else:
            sizes = list(_running(engine, tools, groups, options))
    kilobytes = [size / options.sequences / 1000 for size in sizes]
    interval = bootstrap_median(kilobytes[1:], options.seed)
    rounded = [round(value, 2) for value in kilobytes]
    return {"state": state, "sequences": total, "kilobytes": interval.to_json(), "groups": rounded}


def _waiting(engine: Engine, tools: Tools, groups: Iterable[int], options: argparse.Namespace) -> Iterator[int]:
    """Bytes in use before the first group and after each, none of which gets its turn."""
    kept = []
    with _held(engine):
        yield bytes_beside_mlx()
        for group in groups:
            kept += [engine.submit(request, deliver=_Reached(1)) for request in _requests(tools, group, options)]
            yield bytes_beside_mlx()
        for generation in kept:
            generation.cancel()


def _running(engine: Engine, tools: Tools, groups: Iterable[int], options: argparse.Namespace) -> Iterator[int]:
    """Bytes that each group gives back when it ends; all of its sequences have written something."""
    for group in groups:
        reached = _Reached(options.sequences * EVENTS_OF_EACH)
        kept = [engine.submit(request, deliver=reached) for request in _requests(tools, group, options)]
        reached.wait()
        with _held(engine):
            before = bytes_beside_mlx()
        for generation in kept:
            generation.cancel()
        del kept, generation
        with _held(engine):  # the next step, before which cancelled sequences are dropped
            pass
        with _held(engine):
            yield before - bytes_beside_mlx()


def _requests(tools: Tools, group: int, options: argparse.Namespace) -> list[Request]:
    seeds = range(group * options.sequences, (group + 1) * options.sequences)
    return [_request(tools, seed) for seed in seeds]


def _request(tools: Tools, seed: int) -> Request:
    message = Message(Role.USER, f"Question {seed}: do what is needed.")
    return Request((message,), tools=tools, tool_choice=REQUIRED, sampling=SamplingParams(temperature=1.0, seed=seed))


def targets(rows: Sequence[dict[str, Any]]) -> dict[str, str]:
    text = "memory of a {} sequence beside its keys and values: at most {:g} kB"
    return {text.format(row["state"], MAX_KB): verdict(Interval(**row["kilobytes"]), MAX_KB) for row in rows}


def show(result: dict[str, Any], console: Console) -> None:
    rows = [(row["state"], str(row["sequences"]), interval_text(row["kilobytes"], 1)) for row in result["rows"]]
    title = f"memory per sequence beside its keys and values, {result['tools']} tools offered"
    console.print(table_of(title, ("state", "sequences", "kB each"), rows))
    for target, holds in result["targets"].items():
        console.print(f"{target}: [bold]{holds}[/bold]")


if __name__ == "__main__":
    reexec_with_malloc()
    main()
