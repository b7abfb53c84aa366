"""Does an adapter that was trained on made-up requests help with tools that it has not seen?

Trains on data/finetune_tools.json and asks, before and after, data/tool_requests.json: other tools, and requests that
people wrote. Three questions, greedy: `required` (is the call right?), `auto` (is there one, and is it right?), and
`irrelevance`, where the same requests come with tools that do not help (does it stay text?). Each part is kept in --out
as soon as it is there, and a run goes on from it.

    python benchmarks/finetune.py --out benchmarks/results/finetune.json --adapter ADAPTER_FOLDER
    python benchmarks/finetune.py --decision default --out default.json --adapter ADAPTER_FOLDER
"""

import argparse
import json
import random
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

if __name__ == "__main__" and not __package__:
    # As a script. In place of benchmarks/ itself, whose names should not stand beside the standard library's.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np
from rich.console import Console

from benchmarks.script import hand_over, progress_bar, script_parser, table_of
from benchmarks.tool_prompts import DATA, is_right, wilson
from engine.config import EngineConfig, default_cache_dir
from engine.decision_options import TOKENS_DECIDE
from engine.engine import Engine
from engine.events import Completion, TextDelta
from engine.finetuning.examples import draw_examples
from engine.finetuning.training import LoRASettings, train_adapter
from engine.finetuning.writing import ExampleWriter
from engine.grammars.tool_formats import detect
from engine.model import load
from engine.requests import to_tools

TOOLS = Path(__file__).parent / "data" / "finetune_tools.json"
PARTS = ("before", "training", "after")
MODES = ("required", "auto", "irrelevance")
DECISIONS = {"tokens": TOKENS_DECIDE, "default": None}
MAX_TOKENS = 64
NUM_AT_ONCE = 4  # requests: more would compute the same prompts anew
MAX_TEXT_CHARS = 60  # of an answer that counts as text
NUM_RESAMPLES = 10_000
SETTINGS = LoRASettings(rank=8, num_layers=8, learning_rate=5e-4, batch_size=2, iterations=90)
NUM_EXAMPLES = 500
MAX_LENGTH = 144  # tokens of an example: this runs on two cores

Outcome = dict[str, Any]


def unhelpful(request: Mapping[str, Any], tools: Mapping[str, Any], source: random.Random) -> list[str]:
    """Two tools that have nothing to do with the request. A search could do something with any."""
    names = [name for name in tools if name != "web_search"]
    pairs = [names[position : position + 2] for position in range(0, len(names) - 1, 2)]  # few: prompts are shared
    return source.choice([pair for pair in pairs if not {*pair} & {*request["tools"], request["name"]}])


def ask(engine: Engine, mode: str, data: Mapping[str, Any], seed: int) -> list[Outcome]:
    """What becomes of each request."""
    tools = {tool["name"]: tool for tool in data["tools"]}
    source = random.Random(seed)
    asked = []
    for request in data["requests"]:
        names = unhelpful(request, tools, source) if mode == "irrelevance" else request["tools"]
        asked.append((engine, mode, request, [tools[name] for name in names]))
    with ThreadPoolExecutor(NUM_AT_ONCE) as threads, progress_bar() as bar:
        answers = threads.map(lambda each: _outcome(_answer(*each), each[2]), asked)
        return list(bar.track(answers, total=len(asked), description=mode))


def _answer(engine: Engine, mode: str, request: Mapping[str, Any], tools: list[Any]) -> Completion:
    """The turn. Once it has written so much text it counts as text, and is not waited for."""
    generation = engine.stream(
        [{"role": "user", "content": request["message"]}],
        tools=tools,
        tool_choice="required" if mode == "required" else "auto",
        parallel_tool_calls=False,
        max_tokens=MAX_TOKENS,
    )
    num_chars = 0
    for event in generation:
        num_chars += len(event.text) if isinstance(event, TextDelta) else 0
        if num_chars > MAX_TEXT_CHARS:
            generation.cancel()
    return generation.completion()


def _outcome(completion: Completion, request: Mapping[str, Any]) -> Outcome:
    if not completion.tool_calls:
        return {"called": False, "right_tool": False, "right_call": False, "text": completion.text}
    call = completion.tool_calls[0]
    written = {"name": call.name, "arguments": call.parsed_arguments()}
    return {
        "called": True,
        "right_tool": call.name == request["name"],
        "right_call": is_right(written, request),
        "call": written,
    }


def evaluate(options: argparse.Namespace, adapter: Path | None, data: Mapping[str, Any]) -> dict[str, list[Outcome]]:
    config = EngineConfig(decision=DECISIONS[options.decision])
    with Engine(options.model, adapter_path=adapter, config=config) as engine:
        return {mode: ask(engine, mode, data, options.seed) for mode in MODES}


def train(model: str, adapter: Path, seed: int) -> dict[str, Any]:
    tools = list(to_tools(json.loads(TOOLS.read_text())["tools"]))
    loaded = load(model, cache_dir=default_cache_dir())
    tokenizer = loaded.tokenizer
    family = detect(tokenizer.chat_template, tokenizer.added, tokenizer.tekken_version).family
    examples = draw_examples(tools, NUM_EXAMPLES, seed)
    written = ExampleWriter(tokenizer, family).write_all(examples, MAX_LENGTH)
    wall, cpu = time.perf_counter(), time.process_time()
    losses = train_adapter(loaded, written, SETTINGS, adapter)
    return {
        "settings": asdict(SETTINGS),
        "tools": len(tools),
        "examples": len(written),
        "calls": sum(each.tool is not None for each in written),
        "losses": [round(loss, 4) for loss in losses],
        "wall_s": round(time.perf_counter() - wall, 1),
        "cpu_s": round(time.process_time() - cpu, 1),
    }


# What the report says.

QUESTIONS = (
    ("required: right tool", "required", "right_tool", True),
    ("required: right call", "required", "right_call", True),
    ("auto: calls", "auto", "called", True),
    ("auto: right call", "auto", "right_call", True),
    ("irrelevance: stays text", "irrelevance", "called", False),
)


def held(outcomes: Mapping[str, Sequence[Outcome]], mode: str, key: str, wanted: bool) -> list[bool]:
    return [each[key] is wanted for each in outcomes[mode]]


def balanced(outcomes: Mapping[str, Sequence[Outcome]]) -> np.ndarray:
    """Per request: half a point for a call where a tool helps, half for a text where none does."""
    called = np.array(held(outcomes, "auto", "called", True), float)
    return (called + np.array(held(outcomes, "irrelevance", "called", False), float)) / 2


def difference(before: Sequence[float], after: Sequence[float], seed: int) -> dict[str, float]:
    """The mean change with its 95 % percentile bootstrap interval, over requests, paired."""
    changes = np.asarray(after, float) - np.asarray(before, float)
    drawn = np.random.default_rng(seed).integers(len(changes), size=(NUM_RESAMPLES, len(changes)))
    low, high = np.quantile(changes[drawn].mean(axis=1), [0.025, 0.975])
    return {"mean": round(float(changes.mean()), 3), "low": round(float(low), 3), "high": round(float(high), 3)}


def summary(
    before: Mapping[str, Sequence[Outcome]], after: Mapping[str, Sequence[Outcome]], seed: int
) -> list[Outcome]:
    rows = []
    for title, mode, key, wanted in QUESTIONS:
        pair = [held(outcomes, mode, key, wanted) for outcomes in (before, after)]
        shares = [
            {
                "share": round(sum(each) / len(each), 3),
                "interval": [round(end, 3) for end in wilson(sum(each), len(each))],
            }
            for each in pair
        ]
        change = difference([float(x) for x in pair[0]], [float(x) for x in pair[1]], seed)
        rows.append(
            {"question": title, "requests": len(pair[0]), "before": shares[0], "after": shares[1], "change": change}
        )
    means = [balanced(outcomes) for outcomes in (before, after)]
    rows.append(
        {
            "question": "auto: balanced accuracy",
            "requests": len(means[0]),
            "before": {"share": round(float(means[0].mean()), 3)},
            "after": {"share": round(float(means[1].mean()), 3)},
            "change": difference(means[0].tolist(), means[1].tolist(), seed),
        }
    )
    return rows


def show(result: Mapping[str, Any], console: Console) -> None:
    def cell(side: Mapping[str, Any]) -> str:
        interval = side.get("interval")
        return f"{side['share']:.3f}" + ("" if interval is None else f" ({interval[0]:.3f} to {interval[1]:.3f})")

    def change(row: Mapping[str, Any]) -> str:
        return "{mean:+.3f} ({low:+.3f} to {high:+.3f})".format(**row["change"])

    rows = [(row["question"], cell(row["before"]), cell(row["after"]), change(row)) for row in result["summary"]]
    title = f"{result['model']}, {result['summary'][0]['requests']} requests, tools not seen in training"
    console.print(table_of(title, ("", "before", "after", "change"), rows))


def main() -> None:
    parser = script_parser(__doc__.partition("\n")[0])
    parser.add_argument("--adapter", type=Path, required=True, help="folder for the adapter")
    parser.add_argument("--part", choices=PARTS, help="only this one; the others must be in --out")
    parser.add_argument("--limit", type=int, help="only the first requests")
    decision_help = "what decides call or text, and the tool: the model's tokens, or its format's default (%(default)s)"
    parser.add_argument("--decision", choices=DECISIONS, default="tokens", help=decision_help)
    options = parser.parse_args()
    result = run(options)
    if "summary" in result:
        hand_over(result, options, lambda console: show(result, console))


def run(options: argparse.Namespace) -> dict[str, Any]:
    kept: dict[str, Any] = json.loads(options.out.read_text()) if options.out and options.out.exists() else {}
    if kept and kept.get("decision") != options.decision:
        raise SystemExit(f"{options.out} has results of --decision {kept.get('decision')}, not {options.decision}")
    data = json.loads(DATA.read_text())
    data["requests"] = data["requests"][: options.limit]
    result: dict[str, Any] = {"model": options.model, "seed": options.seed, "decision": options.decision, **kept}
    for part in PARTS:
        if part in result or options.part not in (None, part):
            continue
        if part == "training":
            result[part] = train(options.model, options.adapter, options.seed)
        else:
            result[part] = evaluate(options, options.adapter if part == "after" else None, data)
        if options.out:
            options.out.write_text(json.dumps(result, indent=1) + "\n")
    if all(part in result for part in PARTS):
        result["summary"] = summary(result["before"], result["after"], options.seed)
    return result


if __name__ == "__main__":
    main()
