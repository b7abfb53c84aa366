"""Engine: one model, one decoding thread, many generations."""

import atexit
import functools
import logging
import threading
from collections.abc import Callable, Iterable
from collections.abc import Sequence as Rows
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Self

import mlx.core as mx

from engine.admission import Admission, seed_of
from engine.catalog import OnProgress
from engine.checks import check, is_integer, shown
from engine.config import EngineConfig
from engine.errors import (
    ConfigError,
    EngineClosedError,
    GenerationError,
    QueueFullError,
)
from engine.events import Completion, Event
from engine.generation import Deliver, Generation, Run
from engine.grammars.llguidance_backend import LLGuidanceCompiler
from engine.grammars.tool_format import ToolFormat
from engine.grammars.tool_formats import detect_format
from engine.model import LoadedModel, load
from engine.requests import AnyMessage, AnyTool, AnyToolChoice, to_messages, to_stop, to_tool_choice, to_tools
from engine.scheduler import Scheduler
from engine.sequence import Sequence
from engine.step import Progress, Stepper
from engine.types import Grammar, JsonObject, Request, SamplingParams

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EngineLoad:
    """How busy an engine is."""

    num_running: int  # sequences in turn
    num_waiting: int  # sequences that wait for one to end
    mask_seconds: float  # of host time spent filling masks, since the start


class Engine:
    """A model that answers requests. Any thread may submit; the arrays belong to one thread of its own."""

    def __init__(
        self,
        model: str | Path | LoadedModel,
        *,
        config: EngineConfig | None = None,
        adapter_path: str | Path | None = None,
        tool_format: ToolFormat | None = None,
        on_progress: OnProgress | None = None,
    ) -> None:
        """model: a name (hub id, folder, GGUF file, "smollm2-135m") or a loaded model.

        tool_format: None detects the family by the chat template. Raises ModelError and ConfigError.
        """
        _check_options(model, config, adapter_path)
        self.config = config or EngineConfig()
        if not isinstance(model, LoadedModel):
            model = load(model, cache_dir=self.config.cache_dir, adapter_path=adapter_path, on_progress=on_progress)
        self.loaded = model
        tokenizer = model.tokenizer
        self.tool_format = tool_format or detect_format(tokenizer.chat_template, tokenizer.added)
        self._compiler = LLGuidanceCompiler(tokenizer.backend_json(), eos_ids=sorted(tokenizer.eos_ids))
        self._admission = Admission(model, self.tool_format, self._compiler, self.config)
        self._stepper = Stepper(model, self._compiler, prefill_chunk=self.config.prefill_chunk)
        self._scheduler = Scheduler(self.config.max_running, self.config.max_waiting)
        self._runs: dict[Sequence, Run] = {}
        self._new: list[Run] = []  # what is forced at their start has not been reported
        self._wake = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._decode, name="toolmask-decoding", daemon=True)
        self._thread.start()
        atexit.register(self.close)  # a daemon thread that holds MLX streams aborts the interpreter's exit

    def chat(
        self,
        messages: Iterable[AnyMessage],
        *,
        tools: Iterable[AnyTool] = (),
        tool_choice: AnyToolChoice = "auto",
        parallel_tool_calls: bool = True,
        response: Grammar | None = None,
        lenient: bool = False,
        strict_formats: bool = False,
        sampling: SamplingParams | None = None,
        stop: str | Iterable[str] = (),
        max_tokens: int | None = None,
        reasoning_budget: int | None = None,
        template_options: JsonObject | None = None,
    ) -> Completion:
        """The whole answer to a conversation. Raises RequestError before the first token, GenerationError after."""
        generation = self.stream(
            messages,
            tools=tools,
            tool_choice=tool_choice,
            parallel_tool_calls=parallel_tool_calls,
            response=response,
            lenient=lenient,
            strict_formats=strict_formats,
            sampling=sampling,
            stop=stop,
            max_tokens=max_tokens,
            reasoning_budget=reasoning_budget,
            template_options=template_options,
        )
        with generation:  # an interrupt while this waits must not leave the model running
            return generation.completion()

    def stream(
        self,
        messages: Iterable[AnyMessage],
        *,
        tools: Iterable[AnyTool] = (),
        tool_choice: AnyToolChoice = "auto",
        parallel_tool_calls: bool = True,
        response: Grammar | None = None,
        lenient: bool = False,
        strict_formats: bool = False,
        sampling: SamplingParams | None = None,
        stop: str | Iterable[str] = (),
        max_tokens: int | None = None,
        reasoning_budget: int | None = None,
        template_options: JsonObject | None = None,
    ) -> Generation:
        """The answer's events as they come; in a `with` statement, leaving it cancels what is left."""
        return self.submit(
            Request(
                messages=to_messages(messages),
                tools=to_tools(tools),
                tool_choice=to_tool_choice(tool_choice),
                parallel_tool_calls=parallel_tool_calls,
                response=response,
                lenient=lenient,
                strict_formats=strict_formats,
                sampling=SamplingParams() if sampling is None else sampling,
                stop=to_stop(stop),
                max_tokens=max_tokens,
                reasoning_budget=reasoning_budget,
                template_options={} if template_options is None else template_options,
            )
        )

    def submit_choices(
        self, request: Request, n: int, deliver: Callable[[int, Event | Exception], None] | None = None
    ) -> list[Generation]:
        """Start n generations of one request that differ in their noise only. All of them, or none and an error."""
        most = self.config.max_waiting
        check("n", n, f"an integer from 1 to {most}", holds=is_integer(n) and 0 < n <= most)
        seed = seed_of(request.sampling)
        seeded = replace(request, sampling=replace(request.sampling, seed=seed))
        to_each = [None if deliver is None else functools.partial(deliver, index) for index in range(n)]
        runs = [self._admission.admit(seeded, index, to_index) for index, to_index in enumerate(to_each)]
        return self._start(runs)

    def submit(self, request: Request, *, choice_index: int = 0, deliver: Deliver | None = None) -> Generation:
        """Start a generation. Everything that the caller can get wrong is raised here, as RequestError.

        choice_index: which of the request's n choices this is. deliver: is given each event, or the error that ends
        the generation, on the decoding thread, and must not block; iterating the generation is then not possible. Where
        it raises, the generation ends and nothing more is delivered. Without it, dropping the generation cancels it.
        """
        (generation,) = self._start([self._admission.admit(request, choice_index, deliver)])
        return generation

    def render_prompt(self, request: Request) -> list[int]:
        """The token ids that the request's messages and tools become. Raises RequestError."""
        return self._admission.render_prompt(request)

    def load_now(self) -> EngineLoad:
        """How busy the engine is. Cheap; any thread may ask."""
        with self._wake:
            running, waiting = len(self._scheduler.running), len(self._scheduler.waiting)
        return EngineLoad(running, waiting, self._stepper.mask_seconds)

    def close(self) -> None:
        """End the decoding thread. Generations that still run raise EngineClosedError.

        A callback may call this; it does not wait for its own thread.
        """
        with self._wake:
            self._closed = True
            self._wake.notify()
        if threading.current_thread() is self._thread:  # a callback closes its own engine
            return  # the thread ends after this step; whoever closes next waits for it
        self._thread.join()
        atexit.unregister(self.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _start(self, runs: list[Run]) -> list[Generation]:
        """Let all of them wait for their turn, or none and an error."""
        with self._wake:
            if self._closed:
                raise EngineClosedError("the engine is closed")
            for position, run in enumerate(runs):
                if self._scheduler.is_full:
                    for added in runs[:position]:
                        self._scheduler.remove(added.sequence)
                    most = f"{self.config.max_waiting} requests wait already"
                    raise QueueFullError(f"there is no place for all {len(runs)} choices" if position else most)
                self._scheduler.add(run.sequence)
            self._runs |= {run.sequence: run for run in runs}
            self._new += runs
            self._wake.notify()
        return [Generation(run, self._wake) for run in runs]

    # The decoding thread.

    def _decode(self) -> None:
        try:
            while not self._closed:
                self._work_once()
        finally:  # also where this thread dies of a bug: nobody may wait for it in vain
            self._abort_all()
            mx.clear_streams()  # MLX aborts the process when a thread ends with streams of its own

    def _work_once(self) -> None:
        # A function of its own, so that no local keeps a sequence and its cache alive while the engine waits.
        self._begin_new()
        self._drop_cancelled()
        batch = self._next_batch()
        for sequence, progress in zip(batch, self._step(batch), strict=True):
            self._report(self._runs[sequence], progress)

    def _next_batch(self) -> list[Sequence]:
        """Wait for work. Empty when the engine closes, or when the work is to begin a new run."""
        with self._wake:
            while not self._closed and not self._new:
                if batch := self._scheduler.next_step():
                    return batch
                self._wake.wait()
            return []

    def _abort_all(self) -> None:
        with self._wake:
            self._closed = True
            runs = list(self._runs.values())
        for run in runs:
            self._forget(run)
            run.fail(EngineClosedError("the engine was closed while this ran"))

    def _begin_new(self) -> None:
        """Report what is forced at the start. It may be the whole answer, and then no step is needed."""
        with self._wake:
            new, self._new = self._new, []
        for run in new:
            if run.sequence in self._runs:
                self._report(run, Progress(tokens=list(run.sequence.output)))

    def _drop_cancelled(self) -> None:
        with self._wake:
            cancelled = [run for run in self._runs.values() if run.cancelled]
        for run in cancelled:
            self._forget(run)
            run.cancel()

    def _report(self, run: Run, progress: Progress) -> None:
        if run.report(progress):
            self._forget(run)

    def _step(self, batch: Rows[Sequence]) -> list[Progress]:
        try:
            return self._stepper.step(batch)
        except Exception as error:  # whatever the device raised: it must end these sequences, not the engine
            logger.exception("a step failed")
            failure = GenerationError(f"the forward pass failed: {error}")
            return [Progress(error=failure) for _ in batch]

    def _forget(self, run: Run) -> None:
        with self._wake:
            self._scheduler.remove(run.sequence)
            del self._runs[run.sequence]


def _check_options(model: object, config: object, adapter_path: object) -> None:
    if not isinstance(model, (str, Path, LoadedModel)):
        raise ConfigError(f"model is {shown(model)}; it must be a name, a path or a LoadedModel")
    if not isinstance(config, EngineConfig | None):
        raise ConfigError(f"config is {shown(config)}; it must be an EngineConfig")
    if adapter_path is not None and isinstance(model, LoadedModel):
        raise ConfigError("adapter_path stands beside a model that is loaded already; give it to load()")
