"""How often a model calls, calls the right tool, and fills it right: BFCL and requests of our own, in three modes.

    python benchmarks/tool_accuracy.py --out benchmarks/results/tool_accuracy.json
    python benchmarks/tool_accuracy.py --half tune --mode required --category simple_python=50 --out tune.json
    python benchmarks/tool_accuracy.py --cases own --option calibrate=true --out own.json
    python benchmarks/tool_accuracy.py --cases examples --mode required --out examples.json
    python benchmarks/tool_accuracy.py --base-url http://127.0.0.1:8000/v1 --model NAME --out server.json
    python benchmarks/tool_accuracy.py --table --out benchmarks/results/tool_accuracy.json

Answers are saved after each batch, by case, mode, model and options: the same command goes on where it was stopped, and
a larger sample asks only for what is new. The cases and their halves are benchmarks/tool_cases.py's and
benchmarks/example_cases.py's, the three modes benchmarks/tool_answers.py's. `--option` sets what stands under
`toolmask` in a chat request.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

if __name__ == "__main__" and not __package__:
    # As a script. In place of benchmarks/ itself, whose names should not stand beside the standard library's.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import httpx
from rich.console import Console

from benchmarks.bfcl import CATEGORIES
from benchmarks.environment import environment, peak_memory, size_of
from benchmarks.example_cases import example_cases
from benchmarks.models import load_model
from benchmarks.script import engine_options, progress_bar, script_parser
from benchmarks.tool_accuracy_report import show, summaries
from benchmarks.tool_answers import Answerer, Asked, InProcess, Mode, OverHttp, Written, invalid_calls
from benchmarks.tool_cases import Half, ToolCase, bfcl_cases, default_counts, own_cases
from engine.config import EngineConfig
from engine.engine import Engine

CASES = ("bfcl", "own", "examples")
MAX_TEXT_CHARS = 300  # of an answer's text that is kept
Results = dict[str, Any]


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    results = read_results(options.out)
    if not options.table:
        cases = chosen_cases(options)
        with _answerer(options) as (answerer, model):
            for mode in options.mode or list(Mode):
                ask_all(answerer, cases, results, _settings(options, model, mode), options.out)
    console = Console(soft_wrap=True, width=None if sys.stdout.isatty() else 160)
    show(results, console)
    if options.json:
        print(json.dumps({"benchmark": "tool_accuracy", "runs": summaries(results)}), flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = script_parser("How often a model calls, calls the right tool, and fills it right.")
    parser.add_argument("--cases", choices=CASES, default="bfcl", help="what is asked (%(default)s)")
    count_help = "of BFCL, with how many cases, as in simple_python=50; repeatable; all of them by default"
    parser.add_argument("--category", action="append", type=_counted, metavar="NAME=COUNT", help=count_help)
    parser.add_argument("--half", type=Half, choices=list(Half), default=Half.REPORT, help="of BFCL (%(default)s)")
    parser.add_argument("--mode", action="append", type=Mode, choices=list(Mode), help="repeatable; all by default")
    option_help = "of the requests' toolmask options, the value as JSON; repeatable"
    parser.add_argument("--option", action="append", default=[], type=_option, metavar="NAME=JSON", help=option_help)
    parser.add_argument("--max-tokens", type=_positive, default=192, help="of an answer (%(default)s)")
    parser.add_argument("--temperature", type=float, default=0.0, help="of an answer, drawn with --seed (%(default)s)")
    parser.add_argument("--batch", type=_positive, default=16, help="requests at once (%(default)s)")
    parser.add_argument("--base-url", help="of an OpenAI-compatible server that is asked instead of an own engine")
    parser.add_argument("--api-key", default="none", help="for that server")
    parser.add_argument("--table", action="store_true", help="ask nothing; print what --out has")
    return parser


def _counted(text: str) -> tuple[str, int]:
    name, _, count = text.partition("=")
    if name not in CATEGORIES or not count.isdecimal() or int(count) < 1:
        known = ", ".join(CATEGORIES)
        raise argparse.ArgumentTypeError(f"{text!r} must be NAME=COUNT; the names are {known}")
    return name, int(count)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} must be 1 or more")
    return int(text)


def _option(text: str) -> tuple[str, Any]:
    name, _, value = text.partition("=")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        raise argparse.ArgumentTypeError(f"{text!r} must be NAME=JSON") from None


def chosen_cases(options: argparse.Namespace) -> list[ToolCase]:
    """What the options ask for."""
    if options.cases == "own":
        return own_cases()
    if options.cases == "examples":
        return example_cases(options.seed)
    return bfcl_cases(dict(options.category or default_counts()), options.half, options.seed)


@contextmanager
def _answerer(options: argparse.Namespace) -> Iterator[tuple[Answerer, dict[str, Any]]]:
    """Who answers, and what is known of the model."""
    asked = Asked(options.max_tokens, dict(options.option), options.temperature, options.seed)
    if options.base_url is not None:
        headers = {"authorization": f"Bearer {options.api_key}"}
        with httpx.Client(base_url=options.base_url, headers=headers) as http:
            yield OverHttp(http, options.model, asked), {"model": options.model}
        return
    loaded = load_model(options.model, seed=options.seed)
    config = EngineConfig(**{"max_running": options.batch, **engine_options(options)})
    with Engine(loaded, config=config) as engine:
        yield InProcess(engine, asked), {**environment(loaded), **size_of(loaded)}


# Results.


def _settings(options: argparse.Namespace, model: Mapping[str, Any], mode: Mode) -> dict[str, Any]:
    return {
        **model,
        "mode": mode.value,
        "options": dict(options.option),
        "engine_options": engine_options(options),
        "max_tokens": options.max_tokens,
        "temperature": options.temperature,
        "seed": options.seed,
        "batch": options.batch,
        "over_http": options.base_url is not None,
    }


KEY = ("model", "mode", "options", "engine_options", "max_tokens", "temperature", "seed", "over_http")


def run_of(results: Results, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The run of these settings, begun now or before."""
    runs: list[dict[str, Any]] = results["runs"]
    found = next((run for run in runs if all(run.get(name, 0) == settings[name] for name in KEY)), None)
    if found is None:
        found = {"seconds": 0.0, "peak_bytes": 0, "mlx_peak_bytes": 0, "answers": {}}
        runs.append(found)
    answers = found.pop("answers")  # last, behind what was asked
    found |= settings
    found["answers"] = answers
    return found


def read_results(path: Path | None) -> Results:
    """What was saved there. Without a path, nothing is saved. Raises SystemExit where something else is there."""
    found: Results = {"benchmark": "tool_accuracy", "runs": []}
    if path is None or not path.is_file():
        return found
    try:
        saved: Results = json.loads(path.read_text())
    except ValueError as error:
        raise SystemExit(f"{path} is no JSON: {error}") from error
    if not isinstance(saved, dict) or not isinstance(saved.get("runs"), list):
        raise SystemExit(f"{path} has no results of this script")
    return saved


def save(results: Results, path: Path) -> None:
    """In one move, so that a stop in its midst loses nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".part")
    beside.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    beside.replace(path)


def ask_all(
    answerer: Answerer, cases: Sequence[ToolCase], results: Results, settings: Mapping[str, Any], out: Path | None
) -> None:
    """Ask what has no answer yet under these settings; the results get the answers, and are saved batch by batch."""
    run, batch = run_of(results, settings), settings["batch"]
    missing = [case for case in cases if case.id not in run["answers"]]
    with progress_bar() as progress:
        task = progress.add_task(f"{run['mode']} {run['options'] or ''}", total=len(missing))
        for start in range(0, len(missing), batch):
            asked = missing[start : start + batch]
            ask_batch(answerer, asked, Mode(run["mode"]), run)
            progress.advance(task, len(asked))
            if out is not None:
                save(results, out)


def ask_batch(answerer: Answerer, cases: Sequence[ToolCase], mode: Mode, run: dict[str, Any]) -> None:
    began = time.perf_counter()
    written = answerer.answer(cases, mode)
    run["seconds"] += round(time.perf_counter() - began, 3)
    run["answers"] |= {case.id: judged(case, each, mode) for case, each in zip(cases, written, strict=True)}
    if not run["over_http"]:
        run |= {name: max(run[name], peak) for name, peak in peak_memory().items()}


def fault_in(case: ToolCase, written: Written) -> str | None:
    """What is wrong with an answer. One that was refused, or has a call that cannot be read, is never right."""
    if written.refusal is not None:
        return "refused"
    return "broken" if written.is_broken else case.fault(written.calls)


def judged(case: ToolCase, written: Written, mode: Mode) -> dict[str, Any]:
    """An answer as it is kept, with what is wrong with it."""
    invalid = invalid_calls(written.calls, case.tools)
    lacks_call = mode is Mode.REQUIRED and not written.calls
    kept: dict[str, Any] = {
        "category": case.category,
        "half": case.half.value,
        "expected": list(case.expected),
        "calls": [dict(call) for call in written.calls],
        "valid": not (invalid or lacks_call or written.is_broken or written.refusal),
        "fault": fault_in(case, written),
        "tokens": [
            written.prompt_tokens,
            written.completion_tokens,
            written.forced_tokens,
            written.forward_passes,
        ],
    }
    if written.text:
        kept["text"] = written.text[:MAX_TEXT_CHARS]
    given = {"broken": written.is_broken or None, "refusal": written.refusal, "toolmask": written.toolmask}
    return kept | {name: value for name, value in given.items() if value is not None}


if __name__ == "__main__":
    main()
