"""Engine: one model, one decoding thread, many generations."""

import atexit
import logging
import queue
import secrets
import threading
import uuid
from collections.abc import Iterable, Iterator
from collections.abc import Sequence as Rows
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

import mlx.core as mx

from engine.catalog import OnProgress
from engine.checks import shown
from engine.config import EngineConfig
from engine.errors import (
    ContextLengthError,
    EngineClosedError,
    GenerationError,
    GrammarError,
    MatcherError,
    QueueFullError,
    RequestError,
)
from engine.grammars.llguidance_backend import LLGuidanceCompiler
from engine.grammars.tool_formats import ToolFormat, detect_format
from engine.grammars.turn import Turn, build_turn
from engine.grammars.turn_parser import TurnParser
from engine.model import LoadedModel, load
from engine.output import OutputStream, collect
from engine.prompt import render_prompt
from engine.requests import AnyMessage, AnyTool, AnyToolChoice, to_messages, to_stop, to_tool_choice, to_tools
from engine.sampling.sampler import choice_key
from engine.scheduler import Scheduler
from engine.sequence import Sequence
from engine.step import Progress, Stepper
from engine.types import (
    Completion,
    Enforcement,
    Event,
    Finished,
    Grammar,
    LogprobsDelta,
    Receipt,
    ReceiptEntry,
    Request,
    SamplingParams,
    StopReason,
    TextDelta,
    ToolChoiceMode,
)

logger = logging.getLogger(__name__)

MAX_SEED = 2**63


class Generation:
    """A running request: iterate its Events, or cancel it. One consumer."""

    def __init__(self, sequence: Sequence, output: OutputStream, receipt: Receipt, wake: "threading.Condition") -> None:
        self._sequence = sequence
        self._output = output
        self._receipt = receipt
        self._wake = wake
        self._events: queue.SimpleQueue[Event | Exception] = queue.SimpleQueue()
        self._taken: list[Event] = []  # by the consumer
        self._ended = False  # for the consumer
        self._failure: Exception | None = None
        self.cancelled = False

    def __iter__(self) -> Iterator[Event]:
        return self

    def __next__(self) -> Event:
        """The next event; waits for it. Raises GenerationError or EngineClosedError where the generation failed."""
        if self._ended:
            raise StopIteration
        event = self._events.get()
        self._ended = isinstance(event, (Finished, Exception))
        if isinstance(event, Exception):
            self._failure = event
            raise event
        self._taken.append(event)
        return event

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.cancel()

    def cancel(self) -> None:
        """Stop within a step. The last event is then Finished with CANCELLED; after the end this does nothing."""
        with self._wake:
            self.cancelled = True
            self._wake.notify()

    def completion(self) -> Completion:
        """Wait for the end; all events as one value, those that were already taken too. Raises as iteration does."""
        for _ in self:
            pass
        if self._failure is not None:
            raise self._failure
        completion = collect(self._taken)
        has_none = completion.logprobs is None and self._sequence.sampling.top_logprobs is not None
        return replace(completion, logprobs=()) if has_none else completion  # asked for, of an answer without tokens

    # From here on: for the engine only.

    def report(self, progress: Progress) -> bool:
        """Pass on what a step did. Returns whether the generation has ended."""
        try:
            if progress.error is not None:
                raise progress.error
            return self._pass_on(progress)
        except Exception as error:  # whatever reading the output back raised: it must end this sequence only
            self._sequence.stop_reason = StopReason.FAILED
            is_ours = isinstance(error, GenerationError)
            self.abort(error if is_ours else GenerationError(f"the output cannot be read back: {error}"))
            return True

    def _pass_on(self, progress: Progress) -> bool:
        sequence = self._sequence
        events = self._output.feed(progress.tokens)
        for event in events:
            self._events.put(event)
        if progress.logprobs:
            self._events.put(LogprobsDelta(tuple(progress.logprobs)))
        is_free = self._has_text and sequence.request.response is None
        sequence.in_free_text = self._output.in_text and is_free
        if self._output.stopped:
            sequence.stop_reason = StopReason.STOP_STRING
        if not sequence.is_done and not self._output.stopped:
            return False
        self._finish()
        return True

    @property
    def _has_text(self) -> bool:
        return self._sequence.request.tool_choice.mode is not ToolChoiceMode.REQUIRED

    def abort(self, error: Exception | None = None) -> None:
        """End now: by this error, or as cancelled."""
        if error is not None:
            self._events.put(error)
            return
        self._sequence.stop_reason = StopReason.CANCELLED
        self._finish()

    def _finish(self) -> None:
        for event in self._output.finish():
            if self._has_text or not isinstance(event, TextDelta):  # where there is none, it is half a marker
                self._events.put(event)
        reason = self._sequence.stop_reason
        assert reason is not None
        if self._output.stopped and reason is not StopReason.CANCELLED:  # by text that was held back
            reason = StopReason.STOP_STRING
        self._events.put(Finished(reason, self._sequence.usage, self._sequence.seed, self._receipt))


class Engine:
    """A model that answers requests. Any thread may submit; the arrays belong to one thread of its own."""

    def __init__(
        self,
        model: str | LoadedModel,
        *,
        config: EngineConfig | None = None,
        adapter_path: Path | None = None,
        tool_format: ToolFormat | None = None,
        on_progress: OnProgress | None = None,
    ) -> None:
        """model: a name (hub id, folder, GGUF file, "smollm2-135m") or a loaded model.

        tool_format: None detects the family by the chat template. Raises ModelError.
        """
        self.config = config or EngineConfig()
        if isinstance(model, str):
            model = load(model, cache_dir=self.config.cache_dir, adapter_path=adapter_path, on_progress=on_progress)
        self.loaded = model
        tokenizer = model.tokenizer
        self.tool_format = tool_format or detect_format(tokenizer.chat_template)
        self._compiler = LLGuidanceCompiler(tokenizer.backend_json(), eos_ids=sorted(tokenizer.eos_ids))
        self._stepper = Stepper(model, self._compiler, prefill_chunk=self.config.prefill_chunk)
        self._scheduler = Scheduler(self.config.max_running, self.config.max_waiting)
        self._generations: dict[Sequence, Generation] = {}
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
        sampling: SamplingParams | None = None,
        stop: str | Iterable[str] = (),
        max_tokens: int | None = None,
    ) -> Completion:
        """The whole answer to a conversation. Raises RequestError before the first token, GenerationError after."""
        generation = self.stream(
            messages,
            tools=tools,
            tool_choice=tool_choice,
            parallel_tool_calls=parallel_tool_calls,
            response=response,
            sampling=sampling,
            stop=stop,
            max_tokens=max_tokens,
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
        sampling: SamplingParams | None = None,
        stop: str | Iterable[str] = (),
        max_tokens: int | None = None,
    ) -> Generation:
        """The answer's events as they come; in a `with` statement, leaving it cancels what is left."""
        return self.submit(
            Request(
                messages=to_messages(messages),
                tools=to_tools(tools),
                tool_choice=to_tool_choice(tool_choice),
                parallel_tool_calls=parallel_tool_calls,
                response=response,
                sampling=SamplingParams() if sampling is None else sampling,
                stop=to_stop(stop),
                max_tokens=max_tokens,
            )
        )

    def submit(self, request: Request) -> Generation:
        """Start a generation. Everything that the caller can get wrong is raised here, as RequestError."""
        generation, sequence = self._admit(request)
        ended = generation.report(Progress(tokens=list(sequence.output)))
        with self._wake:
            if self._closed:
                raise EngineClosedError("the engine is closed")
            if ended:  # every token was forced
                return generation
            if self._scheduler.is_full:
                raise QueueFullError(f"{self.config.max_waiting} requests wait already")
            self._generations[sequence] = generation
            self._scheduler.add(sequence)
            self._wake.notify()
        return generation

    def render_prompt(self, request: Request) -> list[int]:
        """The token ids that the request's messages and tools become. Raises RequestError."""
        return render_prompt(request, self.tool_format, self.loaded.tokenizer)

    def close(self) -> None:
        """End the decoding thread. Generations that still run raise EngineClosedError."""
        with self._wake:
            self._closed = True
            self._wake.notify()
        self._thread.join()
        atexit.unregister(self.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _admit(self, request: Request) -> tuple[Generation, Sequence]:
        tokenizer = self.loaded.tokenizer
        self._check_token_ids(request)
        turn = build_turn(request, self.tool_format, tokenizer.unspellable)
        matcher = turn.compile(self._compiler)
        prompt = self.render_prompt(request)
        if not prompt:
            raise RequestError("the chat template makes an empty prompt of these messages", param="messages")
        seed = secrets.randbelow(MAX_SEED) if request.sampling.seed is None else request.sampling.seed
        try:
            sequence = Sequence(
                request=request,
                prompt=prompt,
                key=choice_key(seed, 0),
                seed=seed,
                max_tokens=self._max_tokens(request, len(prompt)),
                eos_ids=tokenizer.eos_ids,
                matcher=matcher,
                fast_forward=self.config.fast_forward,
            )
        except MatcherError as error:  # what is forced from the start on is asked for here: a grammar may be too large
            param = "tools" if request.response is None else "response"
            raise GrammarError(f"{param} cannot be enforced: {error}", param=param) from error
        return Generation(sequence, self._output(request, turn), _receipt(request, turn), self._wake), sequence

    def _output(self, request: Request, turn: Turn) -> OutputStream:
        tokenizer = self.loaded.tokenizer
        turn_id = uuid.uuid4().hex[:20]
        parser = TurnParser(
            self.tool_format,
            has_calls=turn.has_calls,
            marker_is_special=self.tool_format.marker in tokenizer.unspellable,
            call_id=lambda index: f"call_{turn_id}{index}",
            has_response=request.response is not None,
        )
        stop = request.stop if request.response is None else ()
        special_ids = frozenset(tokenizer.unspellable.values())
        return OutputStream(tokenizer.detokenizer(), parser, stop=stop, special_ids=special_ids)

    def _check_token_ids(self, request: Request) -> None:
        num_tokens = self.loaded.tokenizer.num_tokens
        given: dict[str, Iterable[int]] = {
            "logit_bias": request.sampling.logit_bias,
            "stop_token_ids": request.stop_token_ids,
            "prompt": request.prompt or (),
        }
        for param, ids in given.items():
            for token in ids:
                if not 0 <= token < num_tokens:
                    raise RequestError(f"{param} has token {shown(token)}; ids are 0 to {num_tokens - 1}", param=param)

    def _max_tokens(self, request: Request, num_prompt: int) -> int:
        context = self.loaded.model.context_length
        room = context - num_prompt
        if room < 1:
            raise ContextLengthError(
                f"the prompt has {num_prompt} tokens; the model's context has {context}, one of them for the answer",
                param="messages" if request.prompt is None else "prompt",
            )
        if request.max_tokens is not None and request.max_tokens > room:
            raise ContextLengthError(
                f"max_tokens is {shown(request.max_tokens)}; the prompt's {num_prompt} tokens leave room for {room}",
                param="max_tokens",
            )
        return request.max_tokens or room

    # The decoding thread.

    def _decode(self) -> None:
        try:
            while batch := self._next_batch():
                for sequence, progress in zip(batch, self._step(batch), strict=True):
                    if self._generations[sequence].report(progress):
                        self._forget(sequence)
        finally:  # also where this thread dies of a bug: nobody may wait for it in vain
            self._abort_all()
            mx.clear_streams()  # MLX aborts the process when a thread ends with streams of its own

    def _next_batch(self) -> list[Sequence]:
        """Wait for work. Empty only when the engine closes."""
        with self._wake:
            while not self._closed:
                self._drop_cancelled()
                if batch := self._scheduler.next_step():
                    return batch
                self._wake.wait()
            return []

    def _abort_all(self) -> None:
        with self._wake:
            self._closed = True
            for sequence, generation in self._generations.items():
                self._scheduler.remove(sequence)
                generation.abort(EngineClosedError("the engine was closed while this ran"))
            self._generations.clear()

    def _drop_cancelled(self) -> None:
        for sequence, generation in list(self._generations.items()):
            if generation.cancelled:
                self._scheduler.remove(sequence)
                del self._generations[sequence]
                generation.abort()

    def _step(self, batch: Rows[Sequence]) -> list[Progress]:
        try:
            return self._stepper.step(batch)
        except Exception as error:  # whatever the device raised: it must end these sequences, not the engine
            logger.exception("a step failed")
            failure = GenerationError(f"the forward pass failed: {error}")
            return [Progress(error=failure) for _ in batch]

    def _forget(self, sequence: Sequence) -> None:
        with self._wake:
            self._scheduler.remove(sequence)
            del self._generations[sequence]


def _receipt(request: Request, turn: Turn) -> Receipt:
    entries = list(turn.receipt.entries)
    if request.tools and turn.source is not None:
        entries.insert(0, ReceiptEntry("tool_choice", Enforcement.GRAMMAR, request.tool_choice.mode.value))
    if request.stop and (turn.has_calls or request.response is not None):
        entries.append(ReceiptEntry("stop", Enforcement.NARROWED, "matched in free text only"))
    return Receipt(tuple(entries))
