"""Random walks through every family's grammar, 100 a mode: what is let through is read back, and the schemas hold.

    python -m benchmarks.family_walks [FAMILY ...]

Writes results/families.json; families that are not named keep their rows. The walks are those of the test suite, which
does 5 a mode: seeded, so that a walk that fails fails again.
"""

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from engine.grammars.tool_formats import TOOL_FORMATS
from tests.families import OWN_VOCABULARY, Setting, Walk, Walker, settings_of
from tests.test_family_walks import check, second_look, unseen

RESULTS = Path(__file__).parent / "results" / "families.json"
NUM_WALKS = 100  # a mode


def main() -> None:
    names = sys.argv[1:] or [family.name for family in TOOL_FORMATS]
    rows: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    for family in TOOL_FORMATS:
        if family.name not in names:
            continue
        start = time.process_time()
        modes = {mode: list(walks(mode, setting)) for mode, setting in settings_of(family)}
        rows[family.name] = row(family.name, modes) | {"cpu_s": round(time.process_time() - start, 1)}
        missing = unseen(family, modes)
        assert not missing, f"{family.name}: no walk had {', '.join(missing)}"
        RESULTS.write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n")
        print(family.name, rows[family.name], flush=True)


def walks(mode: str, setting: Setting) -> Iterator[Walk]:
    """Walks that were looked at; one that breaks a rule raises."""
    for seed in range(NUM_WALKS):
        walk = Walker(setting, seed).walk()
        check(mode, walk)
        yield walk


def row(name: str, modes: dict[str, list[Walk]]) -> dict[str, Any]:
    """What the walks of one family came to."""
    every = [walk for walks in modes.values() for walk in walks]
    return {
        "vocabulary": OWN_VOCABULARY.get(name, "small, with the family's tokens"),
        "walks": len(every),
        "tokens": sum(len(walk.tokens) for walk in every),
        "ended_by_themselves": sum(walk.is_whole for walk in every),
        "complete_calls": sum(len(walk.reading.calls) for walk in every),
        "walks_with_text": sum(bool(walk.reading.said) for walk in every),
        "walks_with_reasoning": sum(bool(walk.reading.thought) for walk in every),
        "walks_with_two_calls": sum(len(walk.reading.calls) > 1 for walk in every),
        "read_by_mlx_lm_too": sum(second_look(walk) for walk in every),
        "failures": 0,  # a failure ends the run
    }


if __name__ == "__main__":
    main()
