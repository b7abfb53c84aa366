"""Cases of the Berkeley Function Calling Leaderboard as the engine's messages and tools.

The data come from the wheel of `bfcl-eval` (Apache-2.0), checked by sha256; neither the package nor what it depends on
is installed. Its function documents name types as Python does; here they become JSON Schema.
"""

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.catalog import OnProgress, WheelAsset
from engine.config import default_cache_dir
from engine.types import Message, Role, Tool

DECODE_IDS = Path(__file__).parent / "data" / "bfcl_decode_ids.json"
DECODE_SEED = 0  # the one whose draw is committed
CASES_PER_CATEGORY = 15

CATEGORIES = {
    "simple_python": "82dd63ba502eb2520c6b5d1d9a5c4b590e03ff261565175561f6228a367d1991",
    "multiple": "aef168155ebd74b7ac2401198b201343bc7d16d7a3d7e0d4e6d8ee82c6969b2a",
}

# Those of BFCL's types that JSON Schema calls otherwise. "any" is no type at all: every value will do.
JSON_TYPES = {"dict": "object", "float": "number", "tuple": "array"}


@dataclass(frozen=True, slots=True)
class Case:
    """One question with the tools that are offered for it."""

    id: str
    messages: tuple[Message, ...]
    tools: tuple[Tool, ...]


def asset(category: str) -> WheelAsset:
    """Where the cases of a category come from."""
    return WheelAsset(
        package="bfcl-eval",
        version="2026.3.23",
        sha256="3bb6dfa5f0c68ad403c9ec50b00db2bb3b4cc9b38ab1ff33f48fe30d853d3a0a",
        num_bytes=1_925_664,
        member=f"bfcl_eval/data/BFCL_v4_{category}.json",
        member_sha256=CATEGORIES[category],
    )


def load_cases(category: str, cache_dir: Path | None = None, on_progress: OnProgress | None = None) -> dict[str, Case]:
    """All cases of a category by their ids, in the file's order. Raises ModelNotFoundError where they cannot be had."""
    path = asset(category).fetch(cache_dir or default_cache_dir(), on_progress)
    entries = [json.loads(line) for line in path.read_text().splitlines()]
    return {entry["id"]: to_case(entry) for entry in entries}


def to_case(entry: Mapping[str, Any]) -> Case:
    """One line of a BFCL file. Of its question the first turn; these categories have no other."""
    (turn,) = entry["question"]
    messages = tuple(Message(Role(message["role"]), message["content"]) for message in turn)
    tools = tuple(
        Tool(function["name"], function["description"], to_json_schema(function["parameters"]))
        for function in entry["function"]
    )
    return Case(entry["id"], messages, tools)


def to_json_schema(schema: Mapping[str, Any]) -> dict[str, Any]:
    """A BFCL parameter document with JSON Schema's types, at every depth. `optional`, no keyword, goes."""
    converted = {key: value for key, value in schema.items() if key not in ("type", "optional")}
    kind = schema.get("type", "any")
    if kind != "any":
        converted = {"type": JSON_TYPES.get(kind, kind), **converted}
    if "properties" in schema:
        properties = schema["properties"].items()
        converted["properties"] = {name: to_json_schema(value) for name, value in properties}
    if "items" in schema:
        converted["items"] = to_json_schema(schema["items"])
    return converted


def draw_ids(available: Mapping[str, Sequence[str]], seed: int, per_category: int = CASES_PER_CATEGORY) -> list[str]:
    """Ids drawn from each category, in turn: one of the first, one of the second, one of the first ..."""
    generator = random.Random(seed)
    drawn = [generator.sample(sorted(ids), per_category) for ids in available.values()]
    return [id_ for ids in zip(*drawn, strict=True) for id_ in ids]


def decode_cases(seed: int = DECODE_SEED, on_progress: OnProgress | None = None) -> list[Case]:
    """The cases of benchmarks/decode.py: those of the committed file, or another seed's draw."""
    by_category = {category: load_cases(category, on_progress=on_progress) for category in CATEGORIES}
    if seed == DECODE_SEED:
        ids = json.loads(DECODE_IDS.read_text())
    else:
        ids = draw_ids({category: list(cases) for category, cases in by_category.items()}, seed)
    every = {id_: case for cases in by_category.values() for id_, case in cases.items()}
    return [every[id_] for id_ in ids]
