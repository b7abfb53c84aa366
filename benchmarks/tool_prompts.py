"""Which way of showing tools serves a model best that was never trained for them?

Runs every variant of the plain family's instructions over data/tool_requests.json with `required` and greedy
decoding, and counts right tools and right calls, with 95 % Wilson intervals. The winner is PLAIN's default.

    python -m benchmarks.tool_prompts --json results.json
"""

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

if __name__ == "__main__" and not __package__:
    # As a script. In place of benchmarks/ itself, whose names should not stand beside the standard library's.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from rich.console import Console
from rich.progress import track

from benchmarks.intervals import wilson
from benchmarks.tool_cases import is_accepted
from engine.engine import Engine
from engine.events import Completion
from engine.grammars.tool_format import ToolFormat
from engine.grammars.tool_formats import PLAIN
from engine.tool_display import ToolStyle

DATA = Path(__file__).parent / "data" / "tool_requests.json"
MAX_TOKENS = 64


def variants() -> dict[str, ToolFormat]:
    """The ways of showing tools that were compared."""
    return {
        name: replace(PLAIN, instructions=instructions, tool_style=style)
        for name, (instructions, style) in VARIANTS.items()
    }


VARIANTS = {
    "json, example": (
        "You can call these tools, one JSON object a line:\n{tools}\n\n"
        "To call a tool, write its name and arguments like this:\n{example}",
        ToolStyle.JSON,
    ),
    "json, no example": (
        "You can call these tools, one JSON object a line:\n{tools}\n\n"
        "To call a tool, write <tool_call> and a JSON object with its name and arguments.",
        ToolStyle.JSON,
    ),
    "signatures, example": (
        "You can call these tools:\n{tools}\n\nTo call a tool, write its name and arguments like this:\n{example}",
        ToolStyle.SIGNATURES,
    ),
    "signatures, no example": (
        "You can call these tools:\n{tools}\n\n"
        "To call a tool, write <tool_call> and a JSON object with its name and arguments.",
        ToolStyle.SIGNATURES,
    ),
    "signatures, example first": (
        "You answer with a tool call, like this:\n{example}\n\nThe tools are:\n{tools}",
        ToolStyle.SIGNATURES,
    ),
    "signatures, copy the values": (
        "You are a function calling assistant. You can call these functions:\n{tools}\n\n"
        "Answer the user with one call. Copy the values from the request into the arguments. Example:\n{example}",
        ToolStyle.SIGNATURES,
    ),
}


def is_right(call: Mapping[str, Any], expected: Mapping[str, Any]) -> bool:
    """Whether a call has the tool and every listed argument; see the data's `about`."""
    arguments = call["arguments"]
    return call["name"] == expected["name"] and all(
        name in arguments and is_accepted(arguments[name], accepted) for name, accepted in expected["arguments"].items()
    )


def run(model: str, names: list[str], limit: int | None) -> dict[str, Any]:
    """Counts by variant."""
    data = json.loads(DATA.read_text())
    tools = {tool["name"]: tool for tool in data["tools"]}
    requests = data["requests"][:limit]
    results = {}
    for name in names:
        with Engine(model, tool_format=variants()[name]) as engine:
            calls = [
                _call(engine, request, tools)
                for request in track(requests, description=name, console=Console(stderr=True))
            ]
        results[name] = _summary(calls, requests)
    return results


def _call(engine: Engine, request: Mapping[str, Any], tools: Mapping[str, Any]) -> dict[str, Any] | None:
    completion: Completion = engine.chat(
        [{"role": "user", "content": request["message"]}],
        tools=[tools[name] for name in request["tools"]],
        tool_choice="required",
        parallel_tool_calls=False,
        max_tokens=MAX_TOKENS,
    )
    if not completion.tool_calls:
        return None  # cut off
    call = completion.tool_calls[0]
    return {"name": call.name, "arguments": call.parsed_arguments()}


def _summary(calls: list[dict[str, Any] | None], requests: list[dict[str, Any]]) -> dict[str, Any]:
    pairs = list(zip(calls, requests, strict=True))
    right = sum(call is not None and is_right(call, request) for call, request in pairs)
    return {
        "requests": len(requests),
        "complete": sum(call is not None for call in calls),
        "right_tool": sum(call is not None and call["name"] == request["name"] for call, request in pairs),
        "right_call": right,
        "interval": [round(bound, 3) for bound in wilson(right, len(requests))],
        "calls": calls,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--variant", action="append", choices=list(VARIANTS), help="all by default")
    parser.add_argument("--limit", type=int, help="only the first requests")
    parser.add_argument("--json", type=Path, help="write the results, calls included, into this file")
    arguments = parser.parse_args()
    results = run(arguments.model, arguments.variant or list(VARIANTS), arguments.limit)
    for name, result in results.items():
        counts = {key: value for key, value in result.items() if key != "calls"}
        print(json.dumps({"variant": name, **counts}))
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
