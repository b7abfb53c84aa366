"""How often tool_retrieval offers the tool that a request wants, out of all the functions of four categories of BFCL.

    python benchmarks/retrieval.py --json

No model runs: each case of a half is asked of the one set of all their tools.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

if __name__ == "__main__" and not __package__:
    # As a script. In place of benchmarks/ itself, whose names should not stand beside the standard library's.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks.intervals import wilson
from benchmarks.script import sizes
from benchmarks.tool_cases import Half, ToolCase, bfcl_cases
from engine.retrieval import with_retrieved_tools
from engine.types import OfferedTool, Request

CATEGORIES = ("simple_python", "multiple", "live_simple", "live_multiple")  # those whose answer is one call
PER_CATEGORY = 200
LIMITS = (1, 3, 5, 10, 20)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="How often retrieval offers the tool that a request wants.")
    parser.add_argument("--half", type=Half, choices=list(Half), default=Half.REPORT, help="of BFCL (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the halves (%(default)s)")
    parser.add_argument("--limits", type=sizes, default=LIMITS, help="how many tools are offered (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print the result as one line of JSON, last")
    options = parser.parse_args(arguments)
    cases = bfcl_cases(dict.fromkeys(CATEGORIES, PER_CATEGORY), options.half, options.seed)
    result = {"benchmark": "retrieval", "half": options.half.value, **recall(cases, options.limits)}
    for row in result["rows"]:
        print(
            f"{row['limit']:4} of {result['tools']} tools: {row['share']:.1%} ({row['low']:.1%} to {row['high']:.1%})"
        )
    if options.json:
        print(json.dumps(result))


def recall(cases: Sequence[ToolCase], limits: Sequence[int]) -> dict[str, Any]:
    """The share of the cases whose tool is offered, by how many are, and the time that choosing takes."""
    by_name: dict[str, OfferedTool] = {tool.name: tool for case in cases for tool in case.tools}
    tools, rows = tuple(by_name.values()), []
    began = time.perf_counter()
    for limit in limits:
        hits = sum(case.expected[0] in offered(case, tools, limit) for case in cases)
        low, high = wilson(hits, len(cases))
        share = hits / len(cases)
        rows.append({"limit": limit, "share": round(share, 4), "low": round(low, 4), "high": round(high, 4)})
    seconds = (time.perf_counter() - began) / len(cases) / len(limits)
    return {"cases": len(cases), "tools": len(tools), "rows": rows, "ms_a_request": round(1000 * seconds, 1)}


def offered(case: ToolCase, tools: tuple[OfferedTool, ...], limit: int) -> set[str]:
    request = with_retrieved_tools(Request(messages=case.messages, tools=tools, tool_retrieval=limit))
    return {tool.name for tool in request.callable_tools}


if __name__ == "__main__":
    main()
