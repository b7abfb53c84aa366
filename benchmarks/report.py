"""One report of the committed results: a Markdown table of the targets, the figures, and plots.

    python benchmarks/report.py                       of benchmarks/results, into benchmarks/results/report
    python benchmarks/report.py FOLDER --out FOLDER   of other results

Reads one JSON file a benchmark, named after it, as `--out` wrote it; decode_drafts.json is benchmarks/decode.py with
drafts switched on. What is missing is called not measured, and the files that it would stand in are named. The plots
need matplotlib, which the extra `bench` installs; `--no-plots` does without.
"""

import argparse
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

if __name__ == "__main__" and not __package__:
    # As a script. In place of benchmarks/ itself, whose names should not stand beside the standard library's.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks.report_targets import judged
from benchmarks.script import RESULTS, interval_text

BENCHMARKS = (
    "decode",
    "decode_drafts",
    "long_string",
    "tools_overhead",
    "host_step",
    "overlap",
    "idle_memory",
    "batch",
    "ttft",
    "peers",
    "servers",
)
SCRIPTS = {"decode_drafts": "decode"}  # where the file is not called as the script is
Results = Mapping[str, Mapping[str, Any]]


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    results = read_results(options.results)
    if not results:
        raise SystemExit(f"{options.results} has no results; its files are called {_file_names(BENCHMARKS)}")
    options.out.mkdir(parents=True, exist_ok=True)
    plots = _draw(results, options.out) if options.plots else []
    report = options.out / "report.md"
    report.write_text(markdown(results, plots))
    print(report)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="A report of the committed results.")
    parser.add_argument("results", type=Path, nargs="?", default=RESULTS, help="folder of JSON files")
    parser.add_argument("--out", type=Path, default=RESULTS / "report", help="folder of the report (%(default)s)")
    parser.add_argument("--no-plots", dest="plots", action="store_false", help="the Markdown only")
    return parser


def read_results(folder: Path) -> dict[str, dict[str, Any]]:
    """The results that are there, by benchmark."""
    paths = {name: folder / f"{name}.json" for name in BENCHMARKS}
    return {name: _read(name, path) for name, path in paths.items() if path.is_file()}


def _read(name: str, path: Path) -> dict[str, Any]:
    """Raises SystemExit where the file cannot be read, is another benchmark's or lacks what the report says of it."""
    try:
        result = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise SystemExit(f"{path} is no JSON: {error}") from error
    if not isinstance(result, dict) or "benchmark" not in result:
        raise SystemExit(f"{path} is no result of a benchmark: it has no key 'benchmark'")
    if result["benchmark"] != (script := SCRIPTS.get(name, name)):
        raise SystemExit(f"{path} is no result of benchmarks/{script}.py, but of {result['benchmark']!r}")
    try:
        markdown({name: result})
    except KeyError as error:
        raise SystemExit(f"{path} is no whole result of benchmarks/{script}.py: it lacks the key {error}") from error
    except (TypeError, ValueError, AttributeError, ZeroDivisionError) as error:
        raise SystemExit(f"{path} is no whole result of benchmarks/{script}.py: {error}") from error
    return result


def _draw(results: Results, folder: Path) -> list[str]:
    try:
        from benchmarks.plots import draw_all  # noqa: PLC0415  # matplotlib is optional
    except ModuleNotFoundError as error:
        install = "pip install '.[bench]' installs it, --no-plots does without"
        raise SystemExit(f"the plots need {error.name}: {install}") from error
    try:
        return draw_all(results, folder)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise SystemExit(f"the results lack what a plot needs: {error!r}; --no-plots does without") from error


def _file_names(names: Iterable[str]) -> str:
    return ", ".join(f"{name}.json" for name in names)


def markdown(results: Results, plots: Sequence[str] = ()) -> str:
    """The whole report. plots: names of files beside it."""
    sections = [
        "# Benchmarks",
        _environments(results),
        "## Targets",
        _table(("what", "target", "measured", "verdict"), [list(row) for row in judged(results)]),
        "An interval is the 95 % bootstrap interval of the median. A target holds where the interval excludes its "
        "failure; one that spans the limit decides nothing, nor does one of few values, of a part of the workload or "
        "of another model than the target's.",
        *_missing(results),
        *(_section(title, results[name], rows) for name, (title, rows) in SECTIONS.items() if name in results),
    ]
    if plots:
        sections += ["## Plots", *(f"![{Path(name).stem.replace('_', ' ')}]({name})" for name in plots)]
    return "\n\n".join(sections) + "\n"


def _missing(results: Results) -> list[str]:
    names = [f"`{name}.json`" for name in BENCHMARKS if name not in results]
    return [f"Not there, so not measured: {', '.join(names)}."] if names else []


def _environments(results: Results) -> str:
    """Where the results come from; what differs between them is listed for each."""
    rows = [
        [name, one["model"], one["machine"], one["device"], one["blas"], ", ".join(one["dtypes"]), _versions(one)]
        for name, one in results.items()
    ]
    return _table(("result", "model", "machine", "device", "BLAS", "weights", "versions"), rows)


def _versions(result: Mapping[str, Any]) -> str:
    return ", ".join(f"{package} {version}" for package, version in result["versions"].items())


def _section(title: str, result: Mapping[str, Any], rows: Any) -> str:
    header, *body = rows(result)
    return f"## {title}\n\n{_table(header, body)}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)


# --- The figures of each benchmark, as rows, the header first


def _decode(result: Mapping[str, Any]) -> list[list[str]]:
    columns = ["mode", "tokens", "forced share", "forward passes", "guesses, right of all", "ms a token"]
    rows = [[*columns, "time a token, to mlx-lm's"]]
    for mode, counts in result["counts"].items():
        ratio = result["ratios"].get(mode)
        share, passes = f"{counts['forced_share']:.1%}", str(counts["forward_passes"])
        ms = interval_text(result["ms_per_token"][mode], 1)
        guesses = _guesses(result) if mode == "constrained_ff" else ""
        speed = "1" if ratio is None else interval_text(ratio)
        rows.append([mode, str(counts["tokens"]), share, passes, guesses, ms, speed])
    return rows


def _guesses(result: Mapping[str, Any]) -> str:
    drafts = result.get("drafts", {"guessed": 0})
    return f"{drafts['right']} of {drafts['guessed']}" if drafts["guessed"] else ""


def _long_string(result: Mapping[str, Any]) -> list[list[str]]:
    sides = [[side, interval_text(found, 2)] for side, found in result["ms_per_token"].items()]
    return [["", "ms a token"], *sides, ["constrained / free, tokens per second", interval_text(result["speed_ratio"])]]


def _tools_overhead(result: Mapping[str, Any]) -> list[list[str]]:
    rows = [
        ["tools", "compile ms", "of it llguidance", "cached ms", "mask ms", "mask p95 ms", "host besides forward ms"]
    ]
    for row in result["rows"]:
        keys = ("compile_ms", "compile_ms_of_it_llguidance", "compile_cached_ms")
        compiled = [interval_text(row[key], 2) if key in row else "" for key in keys]
        mask, besides = interval_text(row["mask_ms"]), interval_text(row["host_besides_forward_ms"])
        rows.append([str(row["tools"]), *compiled, mask, f"{row['mask_p95_ms']:.3f}", besides])
    return rows


def _host_step(result: Mapping[str, Any]) -> list[list[str]]:
    rows = [["rows", "batch", "forward ms", "mask ms", "sample ms", "python ms", "besides forward ms"]]
    for row in result["rows"]:
        parts = [f"{row['ms_by_part'][part]['median']:.3f}" for part in ("forward", "mask", "sample", "python")]
        rows.append([row["kind"], str(row["batch"]), *parts, interval_text(row["besides_forward_ms"])])
    return rows


def _overlap(result: Mapping[str, Any]) -> list[list[str]]:
    rows = {
        "launching a pass of one token": "launch_ms",
        "waiting for its token": "wait_ms",
        f"waiting, after {result['work_ms']:g} ms of work": "wait_after_work_ms",
        "the whole pass": "whole_ms",
        "what the work adds to it": "exposed_ms",
    }
    return [["", "wall ms"], *([words, interval_text(result[key], 1)] for words, key in rows.items())]


def _idle_memory(result: Mapping[str, Any]) -> list[list[str]]:
    rows = [[row["state"], str(row["sequences"]), interval_text(row["kilobytes"], 1)] for row in result["rows"]]
    return [["sequences that are", "measured", "kB each, beside keys and values"], *rows]


def _batch(result: Mapping[str, Any]) -> list[list[str]]:
    rows = [["batch", "mode", "tokens/s", "latency s", "time, ours to BatchGenerator's", "products' own speed-up"]]
    for row in result["rows"]:
        for mode, found in row["modes"].items():
            who, kind = mode.rsplit("_", 1)
            ratio = interval_text(row["time_ratio"][kind]) if who == "toolmask" else "1"
            speeds = interval_text(found["tokens_per_s"], 1), interval_text(found["latency_s"], 2)
            rows.append([str(row["batch"]), mode, *speeds, ratio, str(row["product_speedup"])])
    return rows


def _ttft(result: Mapping[str, Any]) -> list[list[str]]:
    rows = [["", "seconds", "prompt tokens", "of them cached"]]
    for side in ("cold", "warm"):
        counts = (str(result[key][side]) for key in ("prompt_tokens", "cached_tokens"))
        rows.append([side, interval_text(result["seconds"][side]), *counts])
    return rows


def _peers(result: Mapping[str, Any]) -> list[list[str]]:
    rows = [["loop", "cases", "complete", "tokens", "seconds a call", "compiling s", "ours / it"]]
    for mode, found in result["modes"].items():
        counts = [str(found[key]) for key in ("cases", "complete", "tokens")]
        times = [interval_text(found["seconds"], 2), f"{found['compile_s']['median']:.3f}"]
        rows.append([mode, *counts, *times, interval_text(found["ours_to_it"])])
    rows += [[mode, "not measured", "", "", "", "", why] for mode, why in result["not_measured"].items()]
    return rows


def _servers(result: Mapping[str, Any]) -> list[list[str]]:
    rows = [["server", "requests", "clients", "latency s", "tokens/s"]]
    for row in result["rows"]:
        speeds = interval_text(row["latency_s"], 2), interval_text(row["tokens_per_s"], 1)
        rows.append([row["server"], row["kind"], str(row["clients"]), *speeds])
    return rows


SECTIONS = {
    "decode": ("One call, beside mlx-lm on the same model object", _decode),
    "decode_drafts": ("The same with drafts", _decode),
    "long_string": ("A constraint that forces nothing", _long_string),
    "tools_overhead": ("What more tools cost, 128,256 tokens of vocabulary", _tools_overhead),
    "host_step": ("CPU time of the decoding thread per step", _host_step),
    "overlap": ("Host work behind a forward pass", _overlap),
    "idle_memory": ("Memory of a sequence", _idle_memory),
    "batch": ("Many calls at once", _batch),
    "ttft": ("Time to the first token", _ttft),
    "peers": ("Time per call by loop", _peers),
    "servers": ("Over HTTP", _servers),
}


if __name__ == "__main__":
    main()
