"""Engine: one model, one decoding thread, many generations."""

import atexit
import functools
import logging
import secrets
import threading
import uuid
from collections.abc import Callable, Iterable
from collections.abc import Sequence as Rows
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Self

import mlx.core as mx

from engine.catalog import OnProgress
from engine.checks import check, is_integer, shown
from engine.config import EngineConfig
from engine.errors import (
    ConfigError,
    ContextLengthError,
    EngineClosedError,
    GenerationError,
    GrammarError,
    MatcherError,
    QueueFullError,
    RequestError,
)
from engine.events import Completion, Enforcement, Event, Receipt, ReceiptEntry
from engine.generation import Deliver, Generation, Run
from engine.grammars.llguidance_backend import LLGuidanceCompiler
from engine.grammars.matcher import Matcher
from engine.grammars.reasoning_budget import ReasoningBudget, reasoning_tags
from engine.grammars.tool_format import Opening, ToolFormat
from engine.grammars.tool_formats import detect, format_named
from engine.grammars.turn import Turn, TurnBuilder
from engine.grammars.turn_parser import TurnParser
from engine.model import LoadedModel, load
from engine.output import OutputStream
from engine.prompt import render_prompt
from engine.requests import AnyMessage, AnyTool, AnyToolChoice, to_messages, to_stop, to_tool_choice, to_tools
from engine.sampling.sampler import choice_key
from engine.scheduler import Scheduler
from engine.sequence import Sequence
from engine.step import Progress, Stepper
from engine.template_skills import skills_of
from engine.types import CustomTool, Grammar, GrammarKind, JsonObject, Request, SamplingParams

logger = logging.getLogger(__name__)

MAX_SEED = 2**63
MAX_TOKENS_OF_TAG = 32  # of a prompt's end: enough to see whether it opens the reasoning


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
        tool_format: ToolFormat | str | None = None,
        on_progress: OnProgress | None = None,
    ) -> None:
        """model: a name (hub id, folder, GGUF file, "smollm2-135m") or a loaded model.

        tool_format: a family or its name; None detects it. Raises ModelError and ConfigError.
        """
        _check_options(model, config, adapter_path)
        self.config = config or EngineConfig()
        family = format_named(tool_format) if isinstance(tool_format, str) else tool_format
        if not isinstance(model, LoadedModel):
            model = load(model, cache_dir=self.config.cache_dir, adapter_path=adapter_path, on_progress=on_progress)
        self.loaded = model
        tokenizer = model.tokenizer
        self.tool_format = family or _detected(model)
        self._skills = skills_of(tokenizer, self.tool_format)
        if not self._skills.shows_tools:
            logger.info("%s: its chat template does not show tools; the system message describes them", model.name)
        self._compiler = LLGuidanceCompiler(tokenizer.backend_json(), eos_ids=sorted(tokenizer.eos_ids))
        self._stepper = Stepper(
            model,
            self._compiler,
            prefill_chunk=self.config.prefill_chunk,
            marker_ids=tokenizer.ids_in(self.tool_format.literals) - tokenizer.eos_ids,
        )
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
        seed = _seed(request.sampling)
        seeded = replace(request, sampling=replace(request.sampling, seed=seed))
        to_each = [None if deliver is None else functools.partial(deliver, index) for index in range(n)]
        runs = [self._admit(seeded, index, to_index) for index, to_index in enumerate(to_each)]
        return self._start(runs)

    def submit(self, request: Request, *, choice_index: int = 0, deliver: Deliver | None = None) -> Generation:
        """Start a generation. Everything that the caller can get wrong is raised here, as RequestError.

        choice_index: which of the request's n choices this is. deliver: is given each event, or the error that ends
        the generation, on the decoding thread, and must not block; iterating the generation is then not possible. Where
        it raises, the generation ends and nothing more is delivered. Without it, dropping the generation cancels it.
        """
        (generation,) = self._start([self._admit(request, choice_index, deliver)])
        return generation

    def render_prompt(self, request: Request) -> list[int]:
        """The token ids that the request's messages and tools become. Raises RequestError."""
        return render_prompt(request, self.tool_format, self.loaded.tokenizer, self._skills)

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

    def _admit(self, request: Request, choice_index: int, deliver: Deliver | None) -> Run:
        tokenizer = self.loaded.tokenizer
        self._check_token_ids(request)
        builder = TurnBuilder(request, self.tool_format, tokenizer.unspellable)
        prompt = self.render_prompt(request)
        if not prompt:
            raise RequestError("the chat template makes an empty prompt of these messages", param="messages")
        opening = self._opening(request, prompt)
        turn = builder.build(opening)
        self._check_special_ids(request, turn)
        matcher = self._with_budget(request, turn.compile(self._compiler), opening)
        seed = _seed(request.sampling)
        try:
            sequence = Sequence(
                request=request,
                prompt=prompt,
                key=choice_key(seed, choice_index),
                seed=seed,
                max_tokens=self._max_tokens(request, len(prompt)),
                eos_ids=tokenizer.eos_ids,
                matcher=matcher,
                fast_forward=self.config.fast_forward,
            )
        except MatcherError as error:  # what is forced from the start on is asked for here: a grammar may be too large
            param = "tools" if request.response is None else "response"
            raise GrammarError(f"{param} cannot be enforced: {error}", param=param) from error
        return Run(sequence, self._output(request, turn, opening), _receipt(request, turn, opening), deliver)

    def _opening(self, request: Request, prompt: list[int]) -> Opening:
        """Whether the turn begins with reasoning. After a prompt of the caller's own tokens it does not."""
        reasoning, tokenizer = self.tool_format.reasoning, self.loaded.tokenizer
        if reasoning is None or request.prompt is not None:
            return Opening.NONE
        end = tokenizer.decode(prompt[-MAX_TOKENS_OF_TAG:])
        return reasoning.opening(end, may_open=reasoning.is_in(tokenizer.chat_template))

    def _with_budget(self, request: Request, matcher: Matcher | None, opening: Opening) -> Matcher | None:
        reasoning, budget = self.tool_format.reasoning, request.reasoning_budget
        if budget is None:
            return matcher
        if matcher is None or reasoning is None or opening is Opening.NONE:
            raise RequestError("reasoning_budget stands here, but this turn has no reasoning", param="reasoning_budget")
        begin = reasoning.begin if opening is Opening.BEFORE else ""
        return ReasoningBudget(matcher, reasoning_tags(begin, reasoning.end, self.loaded.tokenizer), budget)

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

    def _output(self, request: Request, turn: Turn, opening: Opening) -> OutputStream:
        tokenizer = self.loaded.tokenizer
        turn_id = uuid.uuid4().hex[:20]
        parser = TurnParser(
            self.tool_format,
            has_calls=turn.has_calls,
            special_tokens=tokenizer.unspellable,
            call_id=lambda index: f"call_{turn_id}{index}",
            has_response=request.response is not None,
            custom_names=frozenset(tool.name for tool in request.callable_tools if isinstance(tool, CustomTool)),
            schemas=turn.schemas,
            opening=opening,
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

    def _check_special_ids(self, request: Request, turn: Turn) -> None:
        """Special tokens are masked wherever no grammar names them: an option about one of them would do nothing."""
        tokenizer = self.loaded.tokenizer
        masked = tokenizer.special_ids - tokenizer.eos_ids - self._named_ids(request, turn)
        given = {"logit_bias": request.sampling.logit_bias, "stop_token_ids": request.stop_token_ids}
        for param, ids in given.items():
            for token in ids:
                if token in masked:
                    text = tokenizer.token_bytes(token).decode(errors="replace")
                    raise RequestError(f"{param} has {token}, {shown(text)}: it can never be written", param=param)

    def _named_ids(self, request: Request, turn: Turn) -> frozenset[int]:
        """Special tokens that the turn's grammar may name; of a caller's own Lark grammar, all."""
        if turn.source is None:
            return frozenset()
        tokenizer = self.loaded.tokenizer
        custom = [tool.format for tool in request.callable_tools if isinstance(tool, CustomTool)]
        if any(each is not None and each.kind is GrammarKind.LARK for each in (request.response, *custom)):
            return tokenizer.special_ids
        return frozenset(id_ for id_ in tokenizer.special_ids if f"<[{id_}]>" in turn.source)

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


def _detected(model: LoadedModel) -> ToolFormat:
    detected = detect(model.tokenizer.chat_template, model.tokenizer.added)
    logger.info("%s: tool format %s: %s", model.name, detected.family.name, detected.why)
    return detected.family


def _seed(sampling: SamplingParams) -> int:
    return secrets.randbelow(MAX_SEED) if sampling.seed is None else sampling.seed


def _receipt(request: Request, turn: Turn, opening: Opening) -> Receipt:
    entries = list(turn.receipt.entries)
    if request.tools and turn.source is not None:
        entries.insert(0, ReceiptEntry("tool_choice", Enforcement.GRAMMAR, request.tool_choice.mode.value))
    if turn.has_calls or request.response is not None or opening is not Opening.NONE:
        given = {"stop": request.stop, "stop_token_ids": request.stop_token_ids}
        for param in (param for param, value in given.items() if value):
            entries.append(ReceiptEntry(param, Enforcement.NARROWED, "matched in free text only"))
    return Receipt(tuple(entries))
