"""Random walks through every family's grammar, 100 a mode: what is let through is read back, and the schemas hold.

    python -m benchmarks.family_walks [FAMILY ...]

Writes results/families.json; families that are not named keep their rows. The walks are those of the test suite, which
does 5 a mode: seeded, so that a walk that fails fails again. benchmarks/family_engine_walks.py walks through the whole
engine, with more tools.
"""

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

if __name__ == "__main__" and not __package__:
    # As a script. In place of benchmarks/ itself, whose names should not stand beside the standard library's.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import jsonschema

from engine.errors import EngineError
from engine.grammars.tool_formats import TOOL_FORMATS
from tests.families import OWN_VOCABULARY, Setting, Walk, Walker, settings_of
from tests.test_family_walks import check, second_look, unseen

RESULTS = Path(__file__).parent / "results" / "families.json"
NUM_WALKS = 100  # a mode


def main() -> None:
    names = chosen_families("Walks at random through families' grammars.", sys.argv[1:])
    rows: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    for family in TOOL_FORMATS:
        if family.name not in names:
            continue
        start, failures = time.process_time(), Counter[str]()
        modes = {mode: list(walks(mode, setting, failures)) for mode, setting in settings_of(family)}
        rows[family.name] = row(family.name, modes, failures) | {"cpu_s": round(time.process_time() - start, 1)}
        if missing := unseen(family, modes):
            rows[family.name]["never_seen"] = missing
        RESULTS.write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n")
        print(family.name, rows[family.name], flush=True)


def chosen_families(description: str, arguments: Sequence[str]) -> list[str]:
    """The names on the command line, in the order of TOOL_FORMATS; all where there are none.

    Raises SystemExit for a name that no family has, and says which there are.
    """
    parser, names = argparse.ArgumentParser(description=description), [family.name for family in TOOL_FORMATS]
    parser.add_argument("families", nargs="*", metavar="FAMILY", help=f"of {', '.join(names)} (all)")
    chosen = parser.parse_args(arguments).families
    for name in chosen:
        if name not in names:
            parser.error(f"no family is named {name!r}; there are {', '.join(names)}")
    return [name for name in names if name in chosen] if chosen else names


def walks(mode: str, setting: Setting, failures: Counter[str]) -> Iterator[Walk]:
    """Walks that hold; what the others broke is counted."""
    for seed in range(NUM_WALKS):
        try:
            walk = Walker(setting, seed).walk()
            check(mode, walk)
        except (AssertionError, EngineError, ValueError, jsonschema.ValidationError) as error:
            failures[f"{mode}, seed {seed}: {error}"[:200]] += 1
        else:
            yield walk


def row(name: str, modes: dict[str, list[Walk]], failures: Counter[str]) -> dict[str, Any]:
    """What the walks of one family came to."""
    every = [walk for walks in modes.values() for walk in walks]
    looks = Counter(look(walk) for walk in every)
    found: dict[str, Any] = {
        "vocabulary": OWN_VOCABULARY.get(name, "small, with the family's tokens"),
        "walks": len(every) + failures.total(),
        "tokens": sum(len(walk.tokens) for walk in every),
        "ended_by_themselves": sum(walk.is_whole for walk in every),
        "complete_calls": sum(len(walk.reading.calls) for walk in every),
        "walks_with_text": sum(bool(walk.reading.said) for walk in every),
        "walks_with_reasoning": sum(bool(walk.reading.thought) for walk in every),
        "walks_with_two_calls": sum(len(walk.reading.calls) > 1 for walk in every),
        "read_by_mlx_lm_too": looks["same"],
        "read_otherwise_by_mlx_lm": looks["otherwise"],
        "failures": failures.total(),
    }
    return found | ({"failed": sorted(failures)} if failures else {})


def look(walk: Walk) -> str:
    """How mlx-lm's parser reads the walk, where it can be asked."""
    try:
        return "same" if second_look(walk) else "not asked"
    except (AssertionError, ValueError):
        return "otherwise"


if __name__ == "__main__":
    main()
