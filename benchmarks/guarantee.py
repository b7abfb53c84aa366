"""The guarantee under fire: random walks through random schemas, within budgets from the least upward.

    python benchmarks/guarantee.py                       20,000 walks through random schemas
    python benchmarks/guarantee.py --sample FILE         the same through the schemas of a MaskBench sample
    python benchmarks/guarantee.py --json                and, as the last line, the result as JSON

Exits with 1 where an answer was invalid or incomplete, or a walk failed. What a walk is: benchmarks/guarantee_walks.py.
"""

import argparse
import gzip
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

if __name__ == "__main__" and not __package__:
    # As a script. In place of benchmarks/ itself, whose names should not stand beside the standard library's.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from benchmarks.guarantee_schemas import random_schema
from benchmarks.guarantee_walks import GOOD, Walk, Walker
from engine.catalog import resolve
from engine.config import default_cache_dir
from engine.gguf import read_gguf
from engine.tokenizer import Tokenizer

NUM_WALKS = 20_000
WALKS_A_SCHEMA = 10
MAX_SHOWN = 20
SCHEMAS_A_SAVE = 20


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    tally = Tally(Walker(_embedded_tokenizer()))
    with _progress() as progress:
        task = progress.add_task("walking", total=options.walks)
        for schema_id, schema in _schemas(options.sample, options.seed):
            if tally.num_walks >= options.walks:
                break
            tally.walk(schema_id, schema, options)
            progress.update(task, completed=tally.num_walks)
            if options.out is not None and tally.num_schemas % SCHEMAS_A_SAVE == 0:
                _save(options.out, _result(options, tally))  # a long run that is interrupted has not been in vain
    tally.walker.close()
    result = _result(options, tally)
    print(json.dumps(result, indent=1))
    if options.out is not None:
        _save(options.out, result)
    if options.json:
        print(json.dumps(result), flush=True)
    return 1 if tally.bad else 0


@dataclass(slots=True)
class Tally:
    """What the walks came to, so far."""

    walker: Walker
    num_schemas: int = 0
    num_walks: int = 0
    bad: list[Walk] = field(default_factory=list)

    def walk(self, schema_id: str, schema: dict[str, Any], options: argparse.Namespace) -> None:
        """Walk through one schema."""
        self.num_schemas += 1
        for walk in self.walker.walks(schema_id, schema, num_walks=options.walks_a_schema, seed=options.seed):
            self.num_walks += 1
            self.bad += [walk] if walk.outcome not in GOOD else []


def _save(path: Path, result: dict[str, Any]) -> None:
    path.write_text(json.dumps(result, indent=1) + "\n")


def _result(options: argparse.Namespace, tally: Tally) -> dict[str, Any]:
    coverage_of = tally.walker.coverage
    counters = {each.name: getattr(coverage_of, each.name) for each in fields(coverage_of)}
    coverage = {name: dict(counter.most_common(MAX_SHOWN)) for name, counter in counters.items()}
    shown = [
        {name: value for name, value in asdict(walk).items() if name not in ("values", "enforcements")}
        for walk in tally.bad
    ]
    return {
        "benchmark": "guarantee",
        "schemas": "random" if options.sample is None else options.sample.name,
        "seed": options.seed,
        "num_schemas": tally.num_schemas,
        "num_schemas_refused": tally.walker.num_refused,
        "num_walks": tally.num_walks,
        "num_bad": len(tally.bad),
        "bad": shown[:MAX_SHOWN],
        "coverage": coverage,
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Random walks through random schemas, within tight budgets.")
    parser.add_argument("--json", action="store_true", help="print the result as one line of JSON, last")
    parser.add_argument("--out", type=Path, help="write the result there too")
    parser.add_argument("--sample", type=Path, help="schemas of a MaskBench sample (.jsonl.gz) instead of random ones")
    parser.add_argument("--walks", type=int, default=NUM_WALKS)
    parser.add_argument("--walks-a-schema", type=int, default=WALKS_A_SCHEMA)
    parser.add_argument("--seed", type=int, default=0)
    return parser


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True))


def _schemas(sample: Path | None, seed: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Without end where they are random."""
    if sample is None:
        number = seed * 1_000_000
        while True:
            yield f"random {number}", random_schema(number)
            number += 1
    with gzip.open(sample, "rt") as lines:
        for line in lines:
            row = json.loads(line)
            if isinstance(row["schema"], dict):
                yield row["id"], row["schema"]


def _embedded_tokenizer() -> Tokenizer:
    asset = resolve("smollm2-135m").asset
    assert asset is not None
    return Tokenizer.from_gguf(read_gguf(asset.fetch(default_cache_dir(), None)).vocabulary)


if __name__ == "__main__":
    sys.exit(main())
