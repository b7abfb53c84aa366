"""Four ways to keep the keys and values of rows that decode together, on one model, alternating.

    python benchmarks/caches.py            a table
    python benchmarks/caches.py --json     and, as the last line, the result as JSON

Slots (engine/slots.py) against mlx-lm's BatchKVCache, which pads on the left and rolls where rows advance by unequal
numbers of tokens, against a pass for each width that occurs (each with a BatchKVCache of its own, whose rows never
change: the best case), and against a pass for each row with mlx-lm's KVCache. Two workloads: one token a row, as plain
decoding has it; and 1 to 4 tokens a row, as forced tokens make them. A row's width is drawn once, which favours a pass
for each width: else its rows would have to change places from step to step.

What is timed is the step of all layers without the head, which costs the same in all; prompts of unequal length, and
those only, are read before. Every way must give the same hidden states, or there is no result. Times are taken by
the clock and as CPU time of all threads; the second says something on a busy machine too, if the BLAS has one thread
(MKL_NUM_THREADS=1), since it else waits by spinning.
"""

import argparse
import copy
import itertools
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

if __name__ == "__main__" and not __package__:
    # As a script. In place of benchmarks/ itself, whose names should not stand beside the standard library's.
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    import engine  # noqa: F401  # chooses the BLAS, before anything imports mlx

import mlx.core as mx
import numpy as np
from mlx import nn
from mlx_lm.models.cache import BatchKVCache, KVCache
from rich.console import Console
from rich.table import Table

from benchmarks.environment import environment
from benchmarks.intervals import bootstrap_median
from engine.cache import Part
from engine.config import default_cache_dir
from engine.memory import SlotMemory
from engine.model import MLXModel, load

Tokens = Sequence[Sequence[int]]  # a row's new tokens each
Seconds = dict[str, list[float]]  # by way, a step each
Prompts = Sequence[list[KVCache]]  # a row's layers each, with its prompt
TABLE_WIDTH = 130
MAX_DIFFERENCE = 1e-2  # of hidden states, float32, after all steps
WORKLOADS = {"one token a row": 1, "1 to 4 tokens a row": 4}


class Way(Protocol):
    """A way to keep rows, filled with the rows' prompts."""

    def step(self, tokens: Tokens) -> list[mx.array]:
        """Append each row's tokens; the last hidden state (D,) of each. Lazy."""


class InSlots:
    """engine/slots.py."""

    name = "slots"

    def __init__(self, trunk: nn.Module, prompts: Prompts) -> None:
        self._trunk = trunk
        memory = SlotMemory(len(prompts[0]))
        self._caches = [memory.make_cache() for _ in prompts]
        for cache, layers in zip(self._caches, prompts, strict=True):
            planes = [list(layer.keys_and_values()) for layer in layers]
            cache.write([(Part(planes, 0), layers[0].offset)])

    def step(self, tokens: Tokens) -> list[mx.array]:
        slots = self._caches[0].memory.together(self._caches)
        slots.open({cache.row.index: len(row) for cache, row in zip(self._caches, tokens, strict=True)})
        hidden = self._trunk(padded(tokens), cache=slots.layers)
        for cache, row in zip(self._caches, tokens, strict=True):
            cache.row.num_tokens += len(row)
        return [hidden[index, len(row) - 1] for index, row in enumerate(tokens)]


class InBatchCache:
    """mlx-lm's BatchKVCache; after a ragged step it rolls each row's padding to the left."""

    name = "BatchKVCache"

    def __init__(self, trunk: nn.Module, prompts: Prompts) -> None:
        self._trunk = trunk
        self._layers = [BatchKVCache.merge(list(rows)) for rows in zip(*prompts, strict=True)]

    def step(self, tokens: Tokens) -> list[mx.array]:
        width = max(map(len, tokens))
        is_ragged = min(map(len, tokens)) < width
        if is_ragged:
            for layer in self._layers:
                layer.prepare(right_padding=[width - len(row) for row in tokens])
        hidden = self._trunk(padded(tokens), cache=self._layers)
        if is_ragged:
            for layer in self._layers:
                layer.finalize()
        return [hidden[index, len(row) - 1] for index, row in enumerate(tokens)]


class ByWidth:
    """A pass for each width that occurs, over rows that have had this width from the first step on."""

    name = "a pass per width"

    def __init__(self, trunk: nn.Module, prompts: Prompts) -> None:
        self._make = lambda rows: InBatchCache(trunk, [prompts[row] for row in rows])
        self._groups: dict[int, InBatchCache] = {}
        self._rows: dict[int, list[int]] = {}

    def step(self, tokens: Tokens) -> list[mx.array]:
        if not self._groups:
            for row, new in enumerate(tokens):
                self._rows.setdefault(len(new), []).append(row)
            self._groups = {width: self._make(rows) for width, rows in self._rows.items()}
        found: dict[int, mx.array] = {}
        for width, group in self._groups.items():
            rows = self._rows[width]
            found |= dict(zip(rows, group.step([tokens[row] for row in rows]), strict=True))
        return [found[row] for row in range(len(tokens))]


class OneByOne:
    """A pass for each row, in mlx-lm's KVCache."""

    name = "a pass per row"

    def __init__(self, trunk: nn.Module, prompts: Prompts) -> None:
        self._trunk = trunk
        self._rows = copy.deepcopy(prompts)

    def step(self, tokens: Tokens) -> list[mx.array]:
        passes = zip(self._rows, tokens, strict=True)
        return [self._trunk(mx.array([row]), cache=layers)[0, -1] for layers, row in passes]


WAYS = (InSlots, InBatchCache, ByWidth, OneByOne)


def padded(tokens: Tokens) -> mx.array:
    """(B, L), the shorter rows filled up on the right."""
    width = max(map(len, tokens))
    return mx.array([[*row, *[0] * (width - len(row))] for row in tokens])


def read_prompt(trunk: nn.Module, num_layers: int, prompt: Sequence[int]) -> list[KVCache]:
    layers = [KVCache() for _ in range(num_layers)]
    mx.eval(trunk(mx.array([prompt]), cache=layers))
    return layers


def draw_steps(num_rows: int, max_width: int, num_steps: int, seed: int) -> list[list[list[int]]]:
    """Per step and row, its tokens. A row keeps its width from step to step, so that ByWidth needs no regrouping."""
    random = np.random.default_rng(seed)
    widths = random.integers(1, max_width, size=num_rows, endpoint=True)
    return [[random.integers(1000, size=width).tolist() for width in widths] for _ in range(num_steps)]


def measure(model: MLXModel, num_rows: int, max_width: int, options: argparse.Namespace) -> dict[str, Any]:
    """Milliseconds of a step for each way, and their ratio to the slots', pair by pair."""
    trunk = model.module.model
    num_layers = len(model.module.layers)
    random = np.random.default_rng(options.seed)
    lengths = [max(1, options.context - 16 * row) for row in range(num_rows)]
    prompts = [read_prompt(trunk, num_layers, random.integers(1000, size=length).tolist()) for length in lengths]
    steps = draw_steps(num_rows, max_width, options.steps, options.seed)
    ways: dict[str, Way] = {way.name: way(trunk, prompts) for way in WAYS}
    wall: Seconds = {name: [] for name in ways}
    cpu: Seconds = {name: [] for name in ways}
    for step in timed_steps(ways, steps, wall, cpu):
        check_same(step)
    return {
        "rows": num_rows,
        "max_width": max_width,
        "ms": {name: round(1e3 * float(np.median(taken)), 2) for name, taken in wall.items()},
        "cpu_ms": {name: round(1e3 * float(np.median(taken)), 2) for name, taken in cpu.items()},
        "ratio_to_slots": ratios(wall, options.seed),
        "cpu_ratio_to_slots": ratios(cpu, options.seed),
    }


def ratios(seconds: Seconds, seed: int) -> dict[str, Any]:
    """Each way's time by the slots' in the same step: the median with its interval."""
    own = seconds[InSlots.name]
    pairs = {name: zip(taken, own, strict=True) for name, taken in seconds.items()}
    return {name: bootstrap_median([a / b for a, b in each], seed).to_json() for name, each in pairs.items()}


def timed_steps(
    ways: dict[str, Way], steps: Sequence[Tokens], wall: Seconds, cpu: Seconds
) -> Iterator[dict[str, list[mx.array]]]:
    """Every step in every way; their order rotates. The first step warms up."""
    order = list(ways)
    for number, tokens in enumerate(steps):
        found = {}
        for name in order:
            start, cpu_start = time.perf_counter(), time.process_time()
            found[name] = ways[name].step(tokens)
            mx.eval(found[name])
            if number > 0:
                wall[name].append(time.perf_counter() - start)
                cpu[name].append(time.process_time() - cpu_start)
        yield found
        order = order[1:] + order[:1]


def check_same(found: dict[str, list[mx.array]]) -> None:
    expected = mx.stack(found[OneByOne.name])
    for name, states in found.items():
        difference = mx.abs(mx.stack(states) - expected).max().item()
        if not difference < MAX_DIFFERENCE * mx.abs(expected).max().item():
            raise RuntimeError(f"{name} gives other hidden states than a row alone: {difference}")


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    loaded = load(options.model, cache_dir=default_cache_dir())
    assert isinstance(loaded.model, MLXModel)
    found = [
        measure(loaded.model, num_rows, max_width, options)
        for max_width in WORKLOADS.values()
        for num_rows in options.rows
    ]
    asked = {"seed": options.seed, "steps": options.steps, "context": options.context, "load": options.load}
    asked["blas_threads"] = os.environ.get("MKL_NUM_THREADS", "all")
    result = {"benchmark": "caches", **environment(loaded), **asked, "measured": found}
    show(result, _console())
    if options.out is not None:
        options.out.write_text(json.dumps(result, indent=1) + "\n")
    if options.json:
        print(json.dumps(result), flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Ways to keep the keys and values of rows that decode together.")
    parser.add_argument("--json", action="store_true", help="print the result as one line of JSON, last")
    parser.add_argument("--out", type=Path, help="write the result there too")
    parser.add_argument("--model", default="smollm2-135m", help="name, folder, GGUF file or hub id; of llama's shape")
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--steps", type=int, default=21, help="of which the first warms up")
    parser.add_argument("--context", type=int, default=300, help="tokens of the longest row; each next is 16 shorter")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--load", default="unknown", help="what else the machine does; kept with the result")
    return parser


def _console() -> Console:
    console = Console(soft_wrap=True)
    if not console.is_terminal:
        console.width = TABLE_WIDTH
    return console


def show(result: dict[str, Any], console: Console) -> None:
    for (title, max_width), kind in itertools.product(WORKLOADS.items(), ("", "cpu_")):
        clock = "CPU milliseconds" if kind else "milliseconds"
        table = Table(title=f"{title}: {clock} a step (ratio to slots, 95 % interval)")
        table.add_column("rows", justify="right")
        for way in WAYS:
            table.add_column(way.name, justify="right")
        for one in result["measured"]:
            if one["max_width"] == max_width:
                table.add_row(str(one["rows"]), *[_cell(one, kind, way.name) for way in WAYS])
        console.print(table)


def _cell(one: dict[str, Any], kind: str, name: str) -> str:
    ratio = one[f"{kind}ratio_to_slots"][name]
    between = "" if name == InSlots.name else f" ({ratio['median']:.2f}, {ratio['low']:.2f} to {ratio['high']:.2f})"
    return f"{one[f'{kind}ms'][name]:.1f}{between}"


if __name__ == "__main__":
    main()
