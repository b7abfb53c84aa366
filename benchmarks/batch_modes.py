"""Four ways to decode a group of cases at once: calls and free text, by the engine and by mlx-lm's BatchGenerator."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from mlx_lm.generate import BatchGenerator

from benchmarks.bfcl import Case
from benchmarks.grammar_processors import MaskProcessor, llguidance_processor
from benchmarks.tracing import EndlessTokenizer, wait_until_idle
from engine.config import EngineConfig
from engine.engine import Engine
from engine.events import Event, Finished, StopReason
from engine.grammars.llguidance_backend import LLGuidanceCompiler
from engine.grammars.turn import build_turn
from engine.model import LoadedModel, MLXModel
from engine.types import Request, ToolChoice, ToolChoiceMode

BATCH_MODES = ("toolmask_calls", "mlx_lm_calls", "toolmask_free", "mlx_lm_free")


@dataclass(frozen=True, slots=True)
class BatchRun:
    """One group, decoded once."""

    num_tokens: int  # of the output, end-of-turn tokens included where they were sampled
    num_complete: int  # calls that ended by themselves
    seconds: float  # from handing the group over to its last token
    latencies_s: tuple[float, ...]  # of each case


class _Ends:
    """A deliver callback that notes when each generation ended."""

    def __init__(self, num_generations: int) -> None:
        self._left = num_generations
        self._found: list[tuple[float, Finished]] = []
        self._failure: Exception | None = None
        self._all = threading.Event()

    def __call__(self, event: Event | Exception) -> None:
        if isinstance(event, Exception):
            self._failure = event
            self._all.set()
        elif isinstance(event, Finished):
            self._found.append((time.perf_counter(), event))
            if len(self._found) == self._left:
                self._all.set()

    def wait(self) -> list[tuple[float, Finished]]:
        """In the order of their ends. Raises what one of them failed by."""
        self._all.wait()
        if self._failure is not None:
            raise self._failure
        return self._found


class Batches:
    """One model object and what runs groups on it."""

    def __init__(self, loaded: LoadedModel, max_running: int, max_tokens: int, options: Mapping[str, Any]) -> None:
        """options: of the engine's configuration."""
        assert isinstance(loaded.model, MLXModel)
        self._loaded, self._module, self._max_tokens = loaded, loaded.model.module, max_tokens
        self._endless = LoadedModel(loaded.name, loaded.model, EndlessTokenizer(loaded.tokenizer))
        self._config = EngineConfig(**{"max_running": max_running, **options})
        self._eos_ids = sorted(loaded.tokenizer.eos_ids)
        self._rendering = Engine(loaded, config=self._config)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._rendering.close()

    def warm_up(self, case: Case) -> None:
        self._rendering.submit(self._request(case)).completion()

    def run_all(self, cases: Sequence[Case], number: int) -> dict[str, BatchRun]:
        """The group in every mode. number: of the group; the order alternates with it."""
        requests = [self._request(case) for case in cases]
        prompts = [self._rendering.render_prompt(request) for request in requests]
        questions = [self._rendering.render_prompt(Request(case.messages)) for case in cases]
        free = [Request(prompt=tuple(question), max_tokens=self._max_tokens) for question in questions]
        lengths = [self._max_tokens] * len(cases)
        modes: dict[str, Callable[[], BatchRun]] = {
            "toolmask_calls": lambda: self._run_engine(self._loaded, requests),
            "mlx_lm_calls": lambda: self._run_mlx_lm(prompts, lengths, requests),
            "toolmask_free": lambda: self._run_engine(self._endless, free),
            "mlx_lm_free": lambda: self._run_mlx_lm(questions, lengths, None),
        }
        order = BATCH_MODES if number % 2 == 0 else tuple(reversed(BATCH_MODES))
        return {mode: modes[mode]() for mode in order}

    def _request(self, case: Case) -> Request:
        return Request(
            messages=case.messages,
            tools=case.tools,
            tool_choice=ToolChoice(ToolChoiceMode.REQUIRED),
            parallel_tool_calls=False,
            max_tokens=self._max_tokens,
        )

    def _run_engine(self, loaded: LoadedModel, requests: Sequence[Request]) -> BatchRun:
        """By a new engine: no grammar and no prompt of the group has been seen before."""
        with Engine(loaded, config=self._config) as engine:
            wait_until_idle()
            ends = _Ends(len(requests))
            start = time.perf_counter()
            for request in requests:
                engine.submit(request, deliver=ends)
            finished = ends.wait()
        latencies = tuple(stamp - start for stamp, _ in finished)
        cut = sum(event.stop_reason is StopReason.LENGTH for _, event in finished)
        num_tokens = sum(event.usage.completion_tokens + (event.stop_reason is StopReason.EOS) for _, event in finished)
        return BatchRun(num_tokens, len(requests) - cut, max(latencies), latencies)

    def _run_mlx_lm(
        self, prompts: Sequence[Sequence[int]], lengths: Sequence[int], requests: Sequence[Request] | None
    ) -> BatchRun:
        """requests: whose grammars bind the rows; None: free text that no token ends."""
        tokenizer = self._loaded.tokenizer
        compiler = LLGuidanceCompiler(tokenizer.backend_json(), eos_ids=self._eos_ids)
        wait_until_idle()
        start = time.perf_counter()
        processors = None if requests is None else [[self._processor(request, compiler)] for request in requests]
        stop_tokens = None if requests is None else [[token] for token in self._eos_ids]
        generator = BatchGenerator(self._module, stop_tokens=stop_tokens)
        generator.insert([list(prompt) for prompt in prompts], max_tokens=list(lengths), logits_processors=processors)
        num_tokens, num_complete, latencies = 0, 0, []
        while len(latencies) < len(prompts):
            for response in generator.next_generated():
                num_tokens += 1
                if response.finish_reason is not None:
                    latencies.append(time.perf_counter() - start)
                    num_complete += response.finish_reason == "stop"
        seconds = time.perf_counter() - start
        generator.close()
        return BatchRun(num_tokens, num_complete, seconds, tuple(latencies))

    def _processor(self, request: Request, compiler: LLGuidanceCompiler) -> MaskProcessor:
        turn = build_turn(request, self._rendering.tool_format, self._loaded.tokenizer.unspellable)
        matcher = turn.compile(compiler)
        assert matcher is not None
        return llguidance_processor(matcher, self._eos_ids)
