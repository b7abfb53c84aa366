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

DECODE_CATEGORIES = ("simple_python", "multiple")

# By category: the sha256 of its cases, and of what is accepted as their answers. Without the latter no call answers it.
CATEGORIES: dict[str, tuple[str, str | None]] = {
    "simple_python": (
        "82dd63ba502eb2520c6b5d1d9a5c4b590e03ff261565175561f6228a367d1991",
        "90cd5bc653690ee8e459b5b3f3fc9458606f7f3fcbf795bb51b7dc581f8c86dc",
    ),
    "multiple": (
        "aef168155ebd74b7ac2401198b201343bc7d16d7a3d7e0d4e6d8ee82c6969b2a",
        "244e00ce9395df948bcafc7bee64e8f9c87ef70887587d83cae45b13699f3047",
    ),
    "parallel": (
        "19f51a82eff42e5d62541aa500115a056eb78f437c2ba1f10415fd7c8e5dda84",
        "8a6aa19c1adddc6a5a2f7e40f9dbf30cc7e95815e7b830c90589ab318229e0f0",
    ),
    "parallel_multiple": (
        "8863ea8433239f55c5f016154cf0830853c89f693c6ea270396a2fa121960579",
        "5ebf24f458c1f16300c05505d83d6f0a1b68b79be273a033febd0d4f840507e3",
    ),
    "irrelevance": ("2b6ed4c2e992cdcf5f1678a701851f944bef7550ee026ed1ddb89efed5be01a6", None),
    "live_simple": (
        "1af2ac87dca47556db7b7e37e51e28b459a38b594e3c7b3c792b4903598ca0c4",
        "fec9cfa9744a936f9126981e85a2023da1e63e273eafebc81923a1162fad70ce",
    ),
    "live_multiple": (
        "fd8ccfad4d911420d0e3341dbe2fff77d1d341da934248b9bb2bda24ab3a10c8",
        "97e90d59c5bd76c55a2920ce93e5566e9046307d3f558578f085f9d3a56c3084",
    ),
    "live_irrelevance": ("6559fda2beaceb609a2cd2e504c65b4a56cb448e1ef88fddfd199e163d163349", None),
}

# Cases that no call can be required of: they offer no tool, or say of an array that it is one of some strings.
WITHOUT_A_CALL = frozenset(
    {
        "live_simple_71-35-0",
        "live_irrelevance_120-9-0",
        "live_irrelevance_121-9-1",
        "live_irrelevance_122-9-2",
        "live_irrelevance_123-9-3",
        "live_irrelevance_428-103-0",
    }
)

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
    return in_wheel(f"data/BFCL_v4_{category}.json", CATEGORIES[category][0])


def in_wheel(member: str, sha256: str) -> WheelAsset:
    """A file of the package, by its path inside of it."""
    return WheelAsset(
        package="bfcl-eval",
        version="2026.3.23",
        sha256="3bb6dfa5f0c68ad403c9ec50b00db2bb3b4cc9b38ab1ff33f48fe30d853d3a0a",
        num_bytes=1_925_664,
        member=f"bfcl_eval/{member}",
        member_sha256=sha256,
    )


def load_cases(category: str, cache_dir: Path | None = None, on_progress: OnProgress | None = None) -> dict[str, Case]:
    """All cases of a category by their ids, in the file's order. Raises ModelNotFoundError where they cannot be had."""
    return {id_: to_case(entry) for id_, entry in load_entries(category, cache_dir, on_progress).items()}


def load_entries(
    category: str, cache_dir: Path | None = None, on_progress: OnProgress | None = None
) -> dict[str, dict[str, Any]]:
    """The same as the file has them."""
    return _by_id(asset(category).fetch(cache_dir or default_cache_dir(), on_progress))


def load_answers(category: str, cache_dir: Path | None = None) -> dict[str, list[dict[str, Any]]]:
    """The calls that answer each case, by its id: name to parameter to accepted values. Empty where none does."""
    sha256 = CATEGORIES[category][1]
    if sha256 is None:
        return {}
    member = in_wheel(f"data/possible_answer/BFCL_v4_{category}.json", sha256)
    # In a folder of their own: the cache goes by the file's name, which the cases have too.
    path = member.fetch((cache_dir or default_cache_dir()) / "possible_answer")
    return {id_: entry["ground_truth"] for id_, entry in _by_id(path).items()}


def _by_id(path: Path) -> dict[str, dict[str, Any]]:
    entries = (json.loads(line) for line in path.read_text().splitlines())
    return {entry["id"]: entry for entry in entries}


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
    by_category = {category: load_cases(category, on_progress=on_progress) for category in DECODE_CATEGORIES}
    if seed == DECODE_SEED:
        ids = json.loads(DECODE_IDS.read_text())
    else:
        ids = draw_ids({category: list(cases) for category, cases in by_category.items()}, seed)
    every = {id_: case for cases in by_category.values() for id_, case in cases.items()}
    return [every[id_] for id_ in ids]
