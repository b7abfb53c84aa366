"""The figures of benchmarks/tool_accuracy.py's answers, and their tables.

valid       of all answers: every call names an offered tool and fits its schema, none is broken off, and where a call
            was required there is one
calls       answers with a call, or with one that cannot be read
right tool  of the cases that a call answers: the calls name the tools that are wanted, no more and no fewer
right       by BFCL's AST checker, or the data of our own; where no call answers the case: that there is none
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.console import Console

from benchmarks.intervals import bootstrap_balanced, wilson
from benchmarks.script import table_of

Answer = Mapping[str, Any]
TWO_SIDES = ("simple_python", "irrelevance")  # a call is right for one, text for the other

METRICS: Mapping[str, Callable[[Answer], bool]] = {
    "valid": lambda answer: bool(answer["valid"]),
    "calls": lambda answer: bool(answer["calls"]) or "broken" in answer,
    "right_tool": lambda answer: sorted(call["name"] for call in answer["calls"]) == sorted(answer["expected"]),
    "right": lambda answer: answer["fault"] is None,
}


def summaries(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Each run's settings and figures, for each half that it has answers of."""
    found = []
    for run in results["runs"]:
        for half in sorted({answer["half"] for answer in run["answers"].values()}):
            answers = [answer for answer in run["answers"].values() if answer["half"] == half]
            settings = {name: value for name, value in run.items() if name != "answers"}
            found.append({**settings, "half": half, **summary(answers, run["seed"]), "speed": speed(run)})
    return found


def summary(answers: Sequence[Answer], seed: int) -> dict[str, Any]:
    """Figures by category, what was wrong how often, and the balanced accuracy where both its sides were asked."""
    by_category: dict[str, list[Answer]] = {}
    for answer in answers:
        by_category.setdefault(answer["category"], []).append(answer)
    figures = {
        category: {"cases": len(found), **{name: share_of(metric, found) for name, metric in METRICS.items()}}
        for category, found in by_category.items()
    }
    faults = {
        category: dict(Counter(answer["fault"] for answer in found if answer["fault"] is not None).most_common())
        for category, found in by_category.items()
    }
    refused = sum("refusal" in answer for answer in answers)
    return {"categories": figures, "faults": faults, "refused": refused, "balanced": balanced(by_category, seed)}


def share_of(metric: Callable[[Answer], bool], answers: Sequence[Answer]) -> dict[str, float]:
    hits = sum(map(metric, answers))
    low, high = wilson(hits, len(answers))
    return {"share": round(hits / len(answers), 4), "low": round(low, 4), "high": round(high, 4)}


def balanced(by_category: Mapping[str, Sequence[Answer]], seed: int) -> dict[str, float] | None:
    """How often a call or none is chosen rightly, both sides counting the same."""
    if not all(category in by_category for category in TWO_SIDES):
        return None
    called = [[METRICS["calls"](answer) for answer in by_category[category]] for category in TWO_SIDES]
    share, low, high = bootstrap_balanced(called[0], [not each for each in called[1]], seed)
    return {"share": round(share, 4), "low": round(low, 4), "high": round(high, 4)}


def speed(run: Mapping[str, Any]) -> float:
    """Tokens written a second, of all requests of a batch together."""
    tokens = sum(answer["tokens"][1] for answer in run["answers"].values())
    return round(tokens / run["seconds"], 1) if run["seconds"] else 0.0


# Tables.


def show(results: Mapping[str, Any], console: Console) -> None:
    found = summaries(results)
    if not found:
        console.print("nothing was answered yet")
        return
    console.print(table_of("models", MODEL_COLUMNS, [_model_row(each) for each in found]))
    rows = [row for each in found for row in _category_rows(each)]
    columns = ("run", "category", "cases", "valid", "calls", "right tool", "right", "what was wrong")
    console.print(table_of("shares (95 % intervals)", columns, rows))


MODEL_COLUMNS = ("model", "size", "mode", "half", "function calling", "call or text", "tokens/s", "at once", "memory")


def _model_row(found: Mapping[str, Any]) -> list[str]:
    categories = found["categories"]
    asked = [each for category, each in categories.items() if "irrelevance" not in category]
    cases = sum(each["cases"] for each in asked)
    right = round(sum(each["cases"] * each["right"]["share"] for each in asked))
    called = f"{right} of {cases} right" if cases else ""
    coin = "" if found["balanced"] is None else share_text(found["balanced"])
    return [
        str(found["model"]),
        _size(found),
        _name(found),
        found["half"],
        called,
        coin,
        f"{found['speed']:.1f}",
        str(found["batch"]),
        f"{found['peak_bytes'] / 2**20:.0f} MiB" if found["peak_bytes"] else "",
    ]


def _size(found: Mapping[str, Any]) -> str:
    if "parameters" not in found:
        return ""
    return f"{found['parameters'] / 1e6:.0f} M, {found['bytes'] / 2**20:.0f} MiB"


def _name(found: Mapping[str, Any]) -> str:
    options = ", ".join(f"{name}={value}" for name, value in found["options"].items())
    return f"{found['mode']} ({options})" if options else str(found["mode"])


def _category_rows(found: Mapping[str, Any]) -> list[list[str]]:
    return [
        [
            f"{_name(found)}, {found['half']}",
            category,
            str(figures["cases"]),
            *(share_text(figures[name]) for name in METRICS),
            ", ".join(f"{count} {fault.split(':')[-1]}" for fault, count in found["faults"][category].items()),
        ]
        for category, figures in found["categories"].items()
    ]


def share_text(figure: Mapping[str, float]) -> str:
    return f"{figure['share']:.0%} ({figure['low']:.0%} to {figure['high']:.0%})"
