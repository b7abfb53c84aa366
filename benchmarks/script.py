"""What every benchmark script shares: its options, its progress bar, its way to stop, and where its result goes."""

import argparse
import json
import os
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from benchmarks.intervals import MIN_PAIRS, Interval
from engine.config import EngineConfig

TABLE_WIDTH = 130
T = TypeVar("T")

STOPPING = (signal.SIGINT, signal.SIGTERM)
RESULTS = Path(__file__).parent / "results"


def script_parser(description: str, *, model: str = "smollm2-135m") -> argparse.ArgumentParser:
    """The options that all scripts have. model: its default."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--json", action="store_true", help="print the result as one line of JSON, last")
    parser.add_argument("--out", type=Path, help="write the result there too")
    parser.add_argument("--model", default=model, help="name, folder, GGUF file, hub id or random:SHAPE (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of every draw and of the bootstrap (%(default)s)")
    engine_help = "an option of EngineConfig for our side, such as prefill_chunk=256; repeatable"
    parser.add_argument("--engine", action="append", default=[], metavar="NAME=VALUE", help=engine_help)
    return parser


def engine_options(options: argparse.Namespace) -> dict[str, Any]:
    """What --engine sets, read as Python's and JSON's own literals. Raises SystemExit where no such option exists."""
    known = {field.name for field in fields(EngineConfig)}
    found: dict[str, Any] = {}
    for text in options.engine:
        name, _, value = text.partition("=")
        if name not in known:
            raise SystemExit(f"--engine {text}: EngineConfig has no {name!r}; it has {', '.join(sorted(known))}")
        try:
            found[name] = json.loads(value.lower() if value in ("True", "False") else value)
        except json.JSONDecodeError:
            found[name] = value
    return found


def sizes(text: str) -> tuple[int, ...]:
    """The argument type of "1,10,50"."""
    try:
        found = tuple(int(part) for part in text.split(","))
    except ValueError:
        found = ()
    if not found or min(found) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of positive integers, as in 1,10,50")
    return found


def progress_bar() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=Console(stderr=True))


def until_stopped(work: Iterable[T]) -> Iterator[T]:
    """The work, up to what is under way at Ctrl-C or SIGTERM, so that the result has what was measured by then.

    The first piece is always done. A second signal ends the program. For the main thread.
    """
    is_stopped = False

    def stop(number: int, frame: FrameType | None) -> None:
        del number, frame
        nonlocal is_stopped
        is_stopped = True
        put_back()

    def put_back() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    before = {number: signal.signal(number, stop) for number in STOPPING}
    try:
        for one in work:
            yield one
            if is_stopped:
                return
    finally:
        put_back()


def hand_over(result: Mapping[str, Any], options: argparse.Namespace, show: Callable[[Console], None]) -> None:
    """Tables for people, the file of --out, and the line of --json."""
    console = Console(soft_wrap=True)
    if not console.is_terminal:
        console.width = TABLE_WIDTH
    show(console)
    if options.out is not None:
        write_result(result, options.out)
    if options.json:
        print(json.dumps(result), flush=True)


def write_result(result: Mapping[str, Any], path: Path) -> None:
    """In one move: whoever reads the file finds the whole of it, or what was there before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    part.write_text(json.dumps(result, indent=1) + "\n")
    os.replace(part, path)


def warn_of_few(console: Console, num_pairs: int) -> None:
    if num_pairs < MIN_PAIRS:
        console.print(f"Only {num_pairs} pairs; intervals want {MIN_PAIRS} or more.")


def table_of(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """A table whose numbers stand on the right."""
    table = Table(title=title)
    for number, name in enumerate(columns):
        table.add_column(name, justify="left" if number == 0 else "right")
    for row in rows:
        table.add_row(*row)
    return table


def interval_text(interval: Mapping[str, float] | Interval, digits: int = 3) -> str:
    values = interval.to_json() if isinstance(interval, Interval) else interval
    median, low, high = (f"{values[name]:.{digits}f}" for name in ("median", "low", "high"))
    return f"{median} ({low} to {high})"
