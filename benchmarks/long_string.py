"""What a constraint costs where it forces nothing: a long string argument, beside our own free decoding.

    python benchmarks/long_string.py            a table
    python benchmarks/long_string.py --json     and, as the last line, the result as JSON

Both sides have the same prompt and write as many tokens, without drafts; the free one takes no notice of end-of-turn
tokens, as in benchmarks/modes.py. The string has a least length, so that it cannot end within the tokens that count.
Time runs from the first sampled token to the last; pairs alternate in which side goes first. That nothing was forced is
seen in the forward passes: as many as tokens.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

if __name__ == "__main__" and not __package__:
    # As a script. In place of benchmarks/ itself, whose names should not stand beside the standard library's.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from rich.console import Console

from benchmarks.environment import environment
from benchmarks.intervals import Interval, bootstrap_median, verdict
from benchmarks.models import load_model
from benchmarks.script import (
    engine_options,
    hand_over,
    interval_text,
    progress_bar,
    script_parser,
    table_of,
    until_stopped,
    warn_of_few,
)
from benchmarks.tracing import EndlessTokenizer, PassRecorder, TracedToken, TracingTokenizer, wait_until_idle
from engine.config import EngineConfig
from engine.engine import Engine
from engine.model import LoadedModel, MLXModel
from engine.types import Message, Request, Role, Tool, ToolChoice, ToolChoiceMode

MIN_SPEED = 0.98  # ours constrained / ours free, tokens per second
SUBJECTS = ("a lighthouse keeper", "a lost key", "two rivers", "the first snow", "a slow train", "an old map")
BYTES_PER_TOKEN = 12  # more than any text has on average: the string does not end before so many tokens


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    loaded = load_model(options.model, seed=options.seed)
    with _Sides(loaded, options) as sides, progress_bar() as progress:
        sides.measure("free", 0), sides.measure("constrained", 0)  # warms up
        pairs = [
            sides.pair(number) for number in until_stopped(progress.track(range(options.pairs), description="pairs"))
        ]
    asked = {"seed": options.seed, "tokens": options.tokens, "engine_options": engine_options(options)}
    result = {"benchmark": "long_string", **environment(loaded), **asked, **summary(pairs, options.seed)}
    hand_over(result, options, lambda console: show(result, console))


def _parser() -> argparse.ArgumentParser:
    parser = script_parser("What a constraint costs where it forces nothing.")
    parser.add_argument("--pairs", type=int, default=15, help="alternating pairs (%(default)s)")
    parser.add_argument("--tokens", type=int, default=64, help="of each side (%(default)s)")
    return parser


class _Sides:
    """One loaded model, decoded freely and inside a string."""

    def __init__(self, loaded: LoadedModel, options: argparse.Namespace) -> None:
        assert isinstance(loaded.model, MLXModel)
        config = EngineConfig(**{"drafts": False, **engine_options(options)})
        self._module, self._num_tokens = loaded.model.module, options.tokens
        self._recorder = PassRecorder()
        self._tokenizers = {
            "free": EndlessTokenizer(loaded.tokenizer),
            "constrained": TracingTokenizer(loaded.tokenizer),
        }
        self._engines = {
            name: Engine(LoadedModel(loaded.name, loaded.model, tokenizer), config=config)
            for name, tokenizer in self._tokenizers.items()
        }

    def __enter__(self) -> "_Sides":
        return self

    def __exit__(self, *error: object) -> None:
        for engine in self._engines.values():
            engine.close()

    def pair(self, number: int) -> dict[str, float]:
        """Seconds per token of both sides."""
        order = ("free", "constrained") if number % 2 == 0 else ("constrained", "free")
        return {name: self.measure(name, number) for name in order}

    def measure(self, side: str, number: int) -> float:
        """Seconds per token after the first. Raises RuntimeError where fewer passes than tokens were needed."""
        trace = self._decode(side, self._request(side, number))
        first, last = trace[0].stamp.wall_s, trace[-1].stamp.wall_s
        num_passes = sum(first < one.launched_s < last for one in self._recorder.passes)
        if num_passes < len(trace) - 1:
            raise RuntimeError(f"{side}: {len(trace) - 1} tokens in {num_passes} passes; some were forced")
        return (last - first) / (len(trace) - 1)

    def _request(self, side: str, number: int) -> Request:
        message = Message(Role.USER, f"Write a long story about {SUBJECTS[number % len(SUBJECTS)]}.")
        text = {"type": "string", "minLength": BYTES_PER_TOKEN * self._num_tokens}
        tool = Tool("write_story", "Publish a story.", {"properties": {"text": text}, "required": ["text"]})
        required = Request((message,), tools=(tool,), tool_choice=ToolChoice(ToolChoiceMode.REQUIRED))
        if side == "constrained":
            return required
        return Request(prompt=tuple(self._engines["constrained"].render_prompt(required)))

    def _decode(self, side: str, request: Request) -> list[TracedToken]:
        """The sampled tokens."""
        tokenizer = self._tokenizers[side]
        tokenizer.trace = trace = []
        self._recorder.clear()
        wait_until_idle()
        with self._recorder.installed(self._module):
            generation = self._engines[side].submit(request)
            for _ in generation:
                if len(self._sampled(trace)) >= self._num_tokens:
                    break
            generation.cancel()
            list(generation)
        return self._sampled(trace)[: self._num_tokens]

    def _sampled(self, trace: Sequence[TracedToken]) -> list[TracedToken]:
        """Those behind the opening, which is forced before the first pass."""
        passes = self._recorder.passes
        return [token for token in trace if token.stamp.wall_s > passes[0].launched_s] if passes else []


def summary(pairs: Sequence[dict[str, float]], seed: int) -> dict[str, Any]:
    """Speeds, and the ratio of the pairs."""
    speed = bootstrap_median([pair["free"] / pair["constrained"] for pair in pairs], seed)
    ms = {
        name: bootstrap_median([1e3 * pair[name] for pair in pairs], seed).to_json() for name in ("free", "constrained")
    }
    return {"pairs": len(pairs), "ms_per_token": ms, "speed_ratio": speed.to_json(), "targets": targets(speed)}


def targets(speed: Interval) -> dict[str, str]:
    slowdown = Interval(1 / speed.median, 1 / speed.high, 1 / speed.low)
    text = f"constrained without a forced token: at least {MIN_SPEED} of our own free speed"
    return {text: verdict(slowdown, 1 / MIN_SPEED)}


def show(result: dict[str, Any], console: Console) -> None:
    rows = [(name, interval_text(value, 2)) for name, value in result["ms_per_token"].items()]
    rows.append(("constrained / free, tokens per second", interval_text(result["speed_ratio"])))
    title = f"{result['tokens']} tokens, {result['pairs']} pairs: medians (95 % bootstrap intervals)"
    console.print(table_of(title, ("", "ms a token"), rows))
    for target, holds in result["targets"].items():
        console.print(f"{target}: [bold]{holds}[/bold]")
    warn_of_few(console, result["pairs"])


if __name__ == "__main__":
    main()
