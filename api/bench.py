"""`toolmask bench`: how fast a model is on this machine, free and constrained.

Each round offers tools that no earlier prompt had. The first token of an answer is timed twice: cold, then warm, where
only the question is another. Then a required call is decoded, and free text from the same prompt, as many tokens at
most. Decoding is timed from the first sampled token to the last one, so the prompt is no part of it.
"""

import importlib.metadata
import json
import platform
import resource
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from engine.blas import load_blas  # first: the engine chooses the BLAS, before mlx is imported

# isort: split
import mlx.core as mx
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from api.bench_tools import bench_tools
from api.loading import load_shown
from engine.engine import Engine
from engine.errors import BudgetError, ConfigError, ContextLengthError
from engine.events import Usage
from engine.model import LanguageModel, LoadedModel
from engine.tokenizer import Detokenizer, Tokenizer
from engine.types import Message, Request, Role, Tool, ToolChoice, ToolChoiceMode

QUESTIONS = ("What will the weather be in Lisbon tomorrow?", "Wake me up at half past six.")
REQUIRED = ToolChoice(ToolChoiceMode.REQUIRED)
MIN_TOKENS = 64  # of an answer: the shortest call has 32 of the embedded model's tokens, and other families write more


@dataclass(frozen=True, slots=True)
class Answer:
    """One request, timed."""

    usage: Usage
    first_s: float  # until the first sampled token
    decode_s: float  # from then to the end
    num_decoded: int  # tokens thereafter
    mask_s: float
    num_drafted: int = 0  # tokens that were guessed
    num_accepted: int = 0  # of them, those that were right

    @property
    def tokens_per_s(self) -> float | None:
        """None where nothing came after the first sampled token."""
        return self.num_decoded / self.decode_s if self.num_decoded else None


@dataclass(frozen=True, slots=True)
class Round:
    """What one set of tools was asked."""

    cold: Answer
    warm: Answer
    call: Answer
    free: Answer


def run_bench(
    model: str,
    *,
    rounds: int,
    max_tokens: int,
    as_json: bool,
    adapter: str | None = None,
    draft_model: str | None = None,
) -> None:
    """Measure and print: a table, and the same as one line of JSON where that is asked for. Raises EngineError."""
    for name, value, low in (("rounds", rounds, 1), ("max-tokens", max_tokens, MIN_TOKENS)):
        if value < low:
            raise ConfigError(f"--{name} is {value}; it must be {low} or more")
    notes = Console(stderr=True)
    mx.reset_peak_memory()
    loaded = load_shown(model, notes, adapter)
    drafter = None if draft_model is None else load_shown(draft_model, notes)
    found = measure(loaded, rounds, max_tokens, notes, drafter=drafter)
    asked = {"draft_model": None if drafter is None else drafter.name, "max_tokens": max_tokens}
    result = {**environment(loaded), **asked, **summary(found), **peak_memory()}
    Console().print(table(result))
    if as_json:
        print(json.dumps(result), flush=True)


def environment(loaded: LoadedModel) -> dict[str, Any]:
    """Where it was measured."""
    packages = ("toolmask", "mlx", "mlx-lm", "llguidance")
    return {
        "model": loaded.name,
        "machine": f"{platform.system()} {platform.machine()}",
        "device": str(mx.default_device().type).removeprefix("DeviceType."),
        "blas": load_blas().name,
        "versions": {package: importlib.metadata.version(package) for package in packages},
    }


class _Watch:
    """When forward passes were launched and tokens known, of one generation at a time."""

    def __init__(self) -> None:
        self.launches_s: list[float] = []
        self.tokens_s: list[float] = []

    def clear(self) -> None:
        self.launches_s, self.tokens_s = [], []

    @property
    def sampled_s(self) -> list[float]:
        """Of the tokens that a forward pass gave. What is forced at the start comes before the first."""
        return [stamp for stamp in self.tokens_s if self.launches_s and stamp > self.launches_s[0]]


class _WatchedTokenizer(Tokenizer):
    """A copy of a tokenizer that notes when each token is detokenized."""

    def __init__(self, original: Tokenizer, watch: _Watch) -> None:
        vars(self).update(vars(original))
        self.watch = watch

    def detokenizer(self) -> Detokenizer:
        return _WatchedDetokenizer(self)


class _WatchedDetokenizer(Detokenizer):
    def __init__(self, tokenizer: _WatchedTokenizer) -> None:
        super().__init__(tokenizer)
        self._watch = tokenizer.watch

    def feed(self, token_id: int) -> str:
        self._watch.tokens_s.append(time.perf_counter())
        return super().feed(token_id)


class _WatchedModel:
    """A model that notes when each forward pass is launched. All else is the model's own."""

    def __init__(self, original: LanguageModel, watch: _Watch) -> None:
        self._original, self._watch = original, watch

    def __getattr__(self, name: str) -> Any:
        return getattr(self._original, name)

    def forward(self, *args: Any, **kwargs: Any) -> mx.array:
        self._watch.launches_s.append(time.perf_counter())
        return self._original.forward(*args, **kwargs)


def measure(
    loaded: LoadedModel, rounds: int, max_tokens: int, notes: Console, *, drafter: LoadedModel | None = None
) -> list[Round]:
    """All rounds, after one that warms up. Raises ConfigError where the drafter does not fit, or no call would."""
    watch = _Watch()
    model = cast("LanguageModel", _WatchedModel(loaded.model, watch))
    watched = LoadedModel(loaded.name, model, _WatchedTokenizer(loaded.tokenizer, watch))
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Engine(watched, draft_model=drafter) as engine, Progress(*columns, console=notes) as progress:
        _check_budget(engine, f"x{rounds}", max_tokens)
        task = progress.add_task("rounds, the first to warm up", total=rounds + 1)
        found = []
        for number in progress.track(range(rounds + 1), task_id=task):
            found.append(_round(engine, watch, f"r{number}", max_tokens))
    return found[1:]


def _check_budget(engine: Engine, tag: str, max_tokens: int) -> None:
    """Before anything is measured. tag: of no round, and as long as that of the last one."""
    try:
        engine.submit(_required_call(bench_tools(tag), max_tokens)).cancel()
    except BudgetError as error:
        raise ConfigError(f"--max-tokens is {max_tokens}; this model's shortest call has {error.least}") from error
    except ContextLengthError as error:
        raise ConfigError(
            f"the request with {len(bench_tools(tag))} tools is too long for this model: {error}"
        ) from error


def _required_call(tools: tuple[Tool, ...], max_tokens: int) -> Request:
    message = Message(Role.USER, QUESTIONS[0])
    return Request((message,), tools=tools, tool_choice=REQUIRED, parallel_tool_calls=False, max_tokens=max_tokens)


def _round(engine: Engine, watch: _Watch, tag: str, max_tokens: int) -> Round:
    tools = bench_tools(tag)
    first, second = (Request((Message(Role.USER, text),), tools=tools, max_tokens=1) for text in QUESTIONS)
    cold, warm = _ask(engine, watch, first), _ask(engine, watch, second)
    required = _required_call(tools, max_tokens)
    call = _ask(engine, watch, required)
    prompt = tuple(engine.render_prompt(required))
    free = _ask(engine, watch, Request(prompt=prompt, max_tokens=max(call.usage.completion_tokens, 2)))
    return Round(cold, warm, call, free)


def _ask(engine: Engine, watch: _Watch, request: Request) -> Answer:
    watch.clear()
    before = engine.load_now().work
    start = time.perf_counter()
    usage = engine.submit(request).completion().usage
    end = time.perf_counter()
    work = engine.load_now().work
    sampled = watch.sampled_s
    first = sampled[0] if sampled else end
    return Answer(
        usage,
        first - start,
        end - first,
        max(len(sampled) - 1, 0),
        work.mask_s - before.mask_s,
        work.num_drafted - before.num_drafted,
        work.num_accepted - before.num_accepted,
    )


def summary(rounds: Sequence[Round]) -> dict[str, Any]:
    """Medians with the least and the most over rounds. A quantity that no round had is None."""
    calls = [one.call.usage for one in rounds]
    return {
        "rounds": len(rounds),
        "prompt_tokens": round(statistics.mean(one.cold.usage.prompt_tokens for one in rounds)),
        "cached_tokens_warm": round(statistics.mean(one.warm.usage.cached_tokens for one in rounds)),
        "free_tokens_per_s": _spread([one.free.tokens_per_s for one in rounds]),
        "constrained_tokens_per_s": _spread([one.call.tokens_per_s for one in rounds]),
        "forced_share": round(
            sum(usage.forced_tokens for usage in calls) / sum(usage.completion_tokens for usage in calls), 4
        ),
        "drafted_tokens": sum(one.call.num_drafted for one in rounds),
        "accepted_tokens": sum(one.call.num_accepted for one in rounds),
        "mask_ms_per_pass": _spread([1e3 * one.call.mask_s / one.call.usage.forward_passes for one in rounds]),
        "ttft_cold_s": _spread([one.cold.first_s for one in rounds]),
        "ttft_warm_s": _spread([one.warm.first_s for one in rounds]),
    }


def _spread(values: Sequence[float | None]) -> dict[str, float] | None:
    known = [value for value in values if value is not None]
    if not known:
        return None
    found = {"median": statistics.median(known), "least": min(known), "most": max(known)}
    return {name: round(value, 4) for name, value in found.items()}


def peak_memory() -> dict[str, int]:
    """Bytes: of what MLX allocated, and of the whole process."""
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return {"peak_mlx_bytes": mx.get_peak_memory(), "peak_resident_bytes": resident}


def table(result: Mapping[str, Any]) -> Table:
    """A result for people."""
    shown = Table("", "median", "least to most", title=f"{result['model']} on {result['machine']}, {result['device']}")
    rows = (
        ("free, tokens per second", "free_tokens_per_s", 1),
        ("constrained, tokens per second", "constrained_tokens_per_s", 1),
        ("mask, ms per forward pass", "mask_ms_per_pass", 3),
        ("first token, cold, seconds", "ttft_cold_s", 3),
        ("first token, warm, seconds", "ttft_warm_s", 3),
    )
    for words, key, digits in rows:
        shown.add_row(words, *_cells(result[key], digits))
    shown.add_row("forced share of a call's tokens", f"{result['forced_share']:.0%}", "")
    shown.add_row("tokens guessed, of them right", str(result["drafted_tokens"]), str(result["accepted_tokens"]))
    shown.add_row(
        "prompt tokens, of them cached when warm", str(result["prompt_tokens"]), str(result["cached_tokens_warm"])
    )
    for words, key in (("peak memory, MLX", "peak_mlx_bytes"), ("peak memory, process", "peak_resident_bytes")):
        shown.add_row(words, f"{result[key] / 2**30:.2f} GiB", "")
    return shown


def _cells(spread: Mapping[str, float] | None, digits: int) -> tuple[str, str]:
    if spread is None:
        return "not measured", ""
    median, least, most = (f"{spread[name]:.{digits}f}" for name in ("median", "least", "most"))
    return median, f"{least} to {most}"
