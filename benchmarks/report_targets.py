"""The targets, and what the results say of them."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from benchmarks.intervals import MIN_PAIRS, Interval, verdict
from benchmarks.script import interval_text

Results = Mapping[str, Mapping[str, Any]]
Find = Callable[[Mapping[str, Any]], Mapping[str, float] | None]
NOT_MEASURED = "not measured"


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a result must have so that a target can be judged by it."""

    model: str  # that the target speaks of
    count: Callable[[Mapping[str, Any]], int]  # of the values behind its intervals
    what: str = "pairs"
    least: int = MIN_PAIRS
    num_cases: int | None = None  # of the whole workload
    drafts: bool | None = None  # whether guesses were made, where the script makes none unless it is asked to

    def shortfall(self, result: Mapping[str, Any]) -> str | None:
        """What it lacks, in words; None where it can be judged."""
        found, count, cases = [], self.count(result), result.get("cases")
        if count < self.least:
            found.append(f"{count} {self.what}, at least {self.least} are needed")
        if result["model"] != self.model:
            found.append(f"the model is {result['model']}, not {self.model}")
        if self.num_cases is not None and cases != self.num_cases:
            found.append(f"the cases are {cases}, not {self.num_cases}")
        wanted, options = self._wanted_options, {**self._unless_asked, **result.get("engine_options", {})}
        if options != wanted:
            found.append(f"the engine's options are {_options(options)}, not {_options(wanted)}")
        return f"not decided: {'; '.join(found)}" if found else None

    @property
    def _wanted_options(self) -> dict[str, bool]:
        return {} if self.drafts is None else {"drafts": self.drafts}

    @property
    def _unless_asked(self) -> dict[str, bool]:
        return {} if self.drafts is None else {"drafts": False}


def _options(options: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in options.items()) or "as they come"


@dataclass(frozen=True, slots=True)
class Target:
    """A quantity that should be at most, or at least, so much."""

    what: str
    result: str  # the benchmark's name
    find: Find  # its interval in the result; None where it is not there
    limit: float
    at_least: bool = False
    digits: int = 3

    @property
    def wanted(self) -> str:
        return f"{'>=' if self.at_least else '<='} {self.limit:g}"

    def row(self, results: Results) -> tuple[str, str, str, str]:
        """What, the target, what was measured, whether it holds."""
        found = self.find(results[self.result]) if self.result in results else None
        if found is None:
            return self.what, self.wanted, NOT_MEASURED, NOT_MEASURED
        shortfall = EVIDENCE[self.result].shortfall(results[self.result])
        return self.what, self.wanted, interval_text(found, self.digits), shortfall or self.judge(Interval(**found))

    def judge(self, interval: Interval) -> str:
        if not self.at_least:
            return verdict(interval, self.limit)
        return verdict(Interval(-interval.median, -interval.high, -interval.low), -self.limit)


def judged(results: Results) -> Iterator[tuple[str, str, str, str]]:
    """A row for each target; of the forward passes, counts instead of an interval."""
    for target in TARGETS:
        yield target.row(results)
    yield _passes(results)
    yield _speedup(results)


def _passes(results: Results) -> tuple[str, str, str, str]:
    what = "a tool call without drafts: forward passes for its tokens"
    if "decode" not in results:
        return what, "1 - forced share", NOT_MEASURED, NOT_MEASURED
    counts = results["decode"]["counts"]["constrained_ff"]
    tokens, passes = counts["tokens"], counts["forward_passes"]
    bound = tokens - counts["forced_tokens"]
    # A prompt longer than a chunk has passes of its own, which give no token.
    found = EVIDENCE["decode"].shortfall(results["decode"]) or ("holds" if passes <= bound else "fails")
    return what, f"{bound} (tokens that were not forced)", f"{passes} for {tokens}", found


def _speedup(results: Results) -> tuple[str, str, str, str]:
    what = "8 concurrent / 1, free tokens per second"
    rows = {row["batch"]: row for row in results.get("batch", {}).get("rows", ())}
    if not {1, 8} <= rows.keys():
        return what, "near the products' own", NOT_MEASURED, NOT_MEASURED
    one, eight = (rows[size]["modes"]["toolmask_free"]["tokens_per_s"]["median"] for size in (1, 8))
    return what, f"near {rows[8]['product_speedup']:g}, the products' own", f"{eight / one:.2f}", "has no limit"


def _inverse(interval: Mapping[str, float]) -> dict[str, float]:
    """Of a time that is compared, the speed."""
    return {"median": 1 / interval["median"], "low": 1 / interval["high"], "high": 1 / interval["low"]}


def _row(key: str, value: object, find: Find) -> Find:
    """The quantity of the row whose `key` is the value."""

    def found(result: Mapping[str, Any]) -> Mapping[str, float] | None:
        rows = [row for row in result["rows"] if row[key] == value]
        return find(rows[0]) if rows else None

    return found


def _one_constrained_row(result: Mapping[str, Any]) -> Mapping[str, float] | None:
    rows = _constrained_rows_alone(result)
    return rows[0]["besides_forward_ms"] if rows else None


def _constrained_rows_alone(result: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [row for row in result["rows"] if row["batch"] == 1 and row["kind"] == "constrained"]


EMBEDDED = "smollm2-135m"
_PAIRS = Evidence(EMBEDDED, lambda result: result["pairs"])
_CASES = replace(_PAIRS, num_cases=30)
EVIDENCE: Mapping[str, Evidence] = {
    "decode": replace(_CASES, drafts=False),
    "decode_drafts": replace(_CASES, drafts=True),
    "long_string": _PAIRS,
    "ttft": _PAIRS,
    "batch": Evidence(EMBEDDED, lambda result: min((row["groups"] for row in result["rows"]), default=0)),
    # Of the host's work, which a vocabulary of 128,256 shows and the weights do not.
    "tools_overhead": Evidence("random:tiny", lambda result: result["repeats"], "compiles"),
    "host_step": Evidence(
        "random:prose",
        lambda result: min((row["steps"] for row in _constrained_rows_alone(result)), default=0),
        "steps",
    ),
    # Memory hardly varies; each group is of many sequences.
    "idle_memory": Evidence(
        "random:tiny", lambda result: min((len(row["groups"]) for row in result["rows"]), default=0), "groups", least=5
    ),
}

COMPILE_LIMITS_MS = {1: 2, 10: 5, 50: 15, 200: 75}
ROUNDS_TO_0_MS = 0.5

TARGETS: tuple[Target, ...] = (
    Target(
        "free decoding: tokens per second, ours / mlx-lm's",
        "decode",
        lambda result: _inverse(result["ratios"]["toolmask_free"]),
        1.0,
        at_least=True,
    ),
    Target(
        "constrained without a forced token: tokens per second, to our own free",
        "long_string",
        lambda result: result["speed_ratio"],
        0.98,
        at_least=True,
    ),
    Target(
        "a tool call without drafts: time, to mlx-lm's for as many free tokens",
        "decode",
        lambda result: result["ratios"]["constrained_ff"],
        0.5,
    ),
    Target("the same with drafts", "decode_drafts", lambda result: result["ratios"]["constrained_ff"], 0.4),
    Target("warm / cold time to the first token, 20 tools", "ttft", lambda result: result["ratio"], 0.1),
    Target(
        "8 concurrent tool calls: time, ours / BatchGenerator's",
        "batch",
        _row("batch", 8, lambda row: row["time_ratio"]["calls"]),
        0.6,
    ),
    *(
        Target(
            f"compiling the grammar of {count} tools, ms",
            "tools_overhead",
            _row("tools", count, lambda row: row["compile_ms"]),
            ms,
            digits=2,
        )
        for count, ms in COMPILE_LIMITS_MS.items()
    ),
    *(
        Target(
            f"the same for {count} tools, cached, ms (rounds to 0)",
            "tools_overhead",
            _row("tools", count, lambda row: row["compile_cached_ms"]),
            ROUNDS_TO_0_MS,
            digits=2,
        )
        for count in COMPILE_LIMITS_MS
    ),
    Target("host CPU time per step besides the forward pass, batch of 1, ms", "host_step", _one_constrained_row, 1.0),
    *(
        Target(
            f"memory per {state} sequence beside its keys and values, kB",
            "idle_memory",
            _row("state", state, lambda row: row["kilobytes"]),
            100.0,
            digits=1,
        )
        for state in ("waiting", "running")
    ),
)
