"""The cases of benchmarks/tool_accuracy.py: BFCL's by category and half, and requests of our own.

Each case knows what is wrong with the calls that answer it. Which half of a category a case is in, and its place in the
sample, depend on the seed and its id alone: a larger sample holds every smaller one. Tuning looks at one half, what is
reported comes from the other.
"""

import enum
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.bfcl import CATEGORIES, WITHOUT_A_CALL, load_answers, load_entries, to_case
from benchmarks.bfcl_checker import fault_of
from engine.catalog import OnProgress
from engine.tools import BUILT_IN_TOOLS, execute_tool
from engine.types import Message, Role, Tool

OWN = "own"
OWN_REQUESTS = Path(__file__).parent / "data" / "own_requests.json"

JsonCall = Mapping[str, Any]  # name, and arguments as a mapping


class Half(enum.StrEnum):
    """What a case may be used for."""

    TUNE = "tune"
    REPORT = "report"


@dataclass(frozen=True, slots=True)
class ToolCase:
    """One request with its tools, and what answers it."""

    id: str
    category: str
    half: Half
    messages: tuple[Message, ...]
    tools: tuple[Tool, ...]
    expected: tuple[str, ...]  # the names of the calls that answer it; none: no call does
    answers: Sequence[Mapping[str, Any]] = field(repr=False)
    functions: Sequence[Mapping[str, Any]] = field(default=(), repr=False)  # of BFCL, as its file has them

    @property
    def is_parallel(self) -> bool:
        """Whether it is of a kind whose requests want several calls at once."""
        return "parallel" in self.category

    def fault(self, calls: Sequence[JsonCall]) -> str | None:
        """What is wrong with these calls, in a word; None where they answer the request."""
        if self.category in CATEGORIES:
            return fault_of(self.category, self.functions, calls, self.answers)
        return own_fault(calls, self.answers[0])


def bfcl_cases(
    counts: Mapping[str, int], half: Half, seed: int, on_progress: OnProgress | None = None
) -> list[ToolCase]:
    """So many cases of each category, or all that the half has; none of WITHOUT_A_CALL.

    Raises ModelNotFoundError where they cannot be had.
    """
    found: list[ToolCase] = []
    for category, count in counts.items():
        entries, answers = load_entries(category, on_progress=on_progress), load_answers(category)
        ids = [id_ for id_ in shuffled(entries, seed) if half_of(id_, seed) is half and id_ not in WITHOUT_A_CALL]
        found += [_bfcl_case(entries[id_], category, half, answers.get(id_, [])) for id_ in ids[:count]]
    return found


def _bfcl_case(entry: Mapping[str, Any], category: str, half: Half, answers: Sequence[Mapping[str, Any]]) -> ToolCase:
    case, expected = to_case(entry), tuple(name for answer in answers for name in answer)
    return ToolCase(case.id, category, half, case.messages, case.tools, expected, answers, entry["function"])


def half_of(id_: str, seed: int) -> Half:
    return (Half.TUNE, Half.REPORT)[_draw(id_, seed) % 2]


def shuffled(ids: Sequence[str] | Mapping[str, Any], seed: int) -> list[str]:
    """The ids in the order in which they are drawn."""
    return sorted(ids, key=lambda id_: _draw(id_, seed) // 2)


def _draw(id_: str, seed: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed} {id_}".encode()).digest()[:8])


def default_counts() -> dict[str, int]:
    """What the report has of each category."""
    return {category: 100 if category in ("simple_python", "irrelevance") else 25 for category in CATEGORIES}


def own_cases() -> list[ToolCase]:
    """All requests of our own. They are in the half that is reported: nothing is tuned on them."""
    data = json.loads(OWN_REQUESTS.read_text())
    tools = {tool.name: tool for tool in (*BUILT_IN_TOOLS.definitions, *(Tool(**each) for each in data["tools"]))}
    return [
        ToolCase(
            request["id"],
            OWN,
            Half.REPORT,
            (Message(Role.USER, request["message"]),),
            tuple(tools[name] for name in request["tools"]),
            (request["name"],),
            (request,),
        )
        for request in data["requests"]
    ]


def own_fault(calls: Sequence[JsonCall], expected: Mapping[str, Any]) -> str | None:
    """What is wrong with the calls beside the data's entry; see its `about`."""
    if len(calls) != 1:
        return "wrong_count"
    (call,) = calls
    if call["name"] != expected["name"]:
        return "wrong_func_name"
    arguments, needed, optional = call["arguments"], expected["arguments"], expected.get("optional", {})
    if missing := needed.keys() - arguments.keys():
        return f"missing:{min(missing)}"
    for name, value in arguments.items():
        accepted = needed.get(name, optional.get(name))
        if accepted is None:
            return f"needless:{name}"
        if not is_accepted(value, accepted):
            return f"value:{name}"
    return None


def is_accepted(written: Any, accepted: Any) -> bool:
    """Whether a value is among those of the data, or the expression has the value that is wanted."""
    if isinstance(accepted, Mapping):
        result = execute_tool("calculate", {"expression": written})
        return result["success"] and math.isclose(result["result"], accepted["value"])
    return any(_plain(written) == _plain(each) and _is_bool(written) == _is_bool(each) for each in accepted)


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool)


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return value.strip().rstrip(".").lower() if isinstance(value, str) else value
