"""Engine: one model, one decoding thread, many generations."""

import atexit
import functools
import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

from engine.admission import Admission, seed_of
from engine.best_of import BestOf, sampled
from engine.calibration import Calibration
from engine.catalog import OnProgress
from engine.checks import check, is_integer, shown
from engine.config import EngineConfig
from engine.decision_options import DecisionOptions
from engine.decoding import Decoder, EngineLoad
from engine.errors import ConfigError
from engine.events import Completion, Event
from engine.generation import Deliver, Generation, OnProbe, ReadyRun
from engine.grammars.llguidance_backend import LLGuidanceCompiler
from engine.grammars.tool_format import ToolFormat
from engine.grammars.tool_formats import detect, format_named
from engine.model import LoadedModel, load
from engine.requests import (
    AnyMessage,
    AnyTool,
    AnyToolChoice,
    to_messages,
    to_stop,
    to_tool_choice,
    to_tool_choice_by,
    to_tools,
)
from engine.routes import Routes
from engine.tool_display import ToolDisplay
from engine.types import Grammar, JsonObject, Request, SamplingParams, ToolChoiceBy

logger = logging.getLogger(__name__)


class Engine:
    """A model that answers requests. Any thread may submit; the arrays belong to one thread of its own."""

    def __init__(
        self,
        model: str | Path | LoadedModel,
        *,
        config: EngineConfig | None = None,
        adapter_path: str | Path | None = None,
        tool_format: ToolFormat | str | None = None,
        draft_model: str | Path | LoadedModel | None = None,
        routes: Routes | None = None,
        on_progress: OnProgress | None = None,
    ) -> None:
        """model: a name (hub id, folder, GGUF file, "smollm2-135m") or a loaded model.

        tool_format: a family or its name; None detects it. routes: are tried before the model is asked.
        Raises ModelError and ConfigError.
        """
        _check_options(model, config, adapter_path, draft_model)
        if not isinstance(routes, Routes | None):
            raise ConfigError(f"routes is {shown(routes)}; it must be Routes")
        self._routes = routes
        self.config = config or EngineConfig()
        family = format_named(tool_format) if isinstance(tool_format, str) else tool_format
        if not isinstance(model, LoadedModel):
            model = load(model, cache_dir=self.config.cache_dir, adapter_path=adapter_path, on_progress=on_progress)
        self.loaded = model
        tokenizer = model.tokenizer
        self.tool_format = family or _detected(model)
        self._compiler = LLGuidanceCompiler(tokenizer.backend_json(), eos_ids=sorted(tokenizer.eos_ids))
        if isinstance(draft_model, (str, Path)):
            draft_model = load(draft_model, cache_dir=self.config.cache_dir, on_progress=on_progress)
        marker_ids = tokenizer.ids_in(self.tool_format.literals) - tokenizer.eos_ids
        self._decoder = Decoder(model, self._compiler, self.config, drafter=draft_model, marker_ids=marker_ids)
        self.context_length = self._decoder.context_length  # tokens that prompt and answer may have
        self._admission = Admission(
            model,
            self.tool_format,
            self._compiler,
            self.config,
            context_length=self.context_length,
            can_take_back=self._decoder.can_take_back,
        )
        self._calibration = Calibration(self._admission, self._decoder)
        if not self._admission.shows_tools:
            logger.info("%s: its chat template does not show tools; the system message describes them", model.name)
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
        decision: DecisionOptions | None = None,
        tool_choice_by: ToolChoiceBy | str | None = None,
        optional_bias: float | None = None,
        template_options: JsonObject | None = None,
        tool_display: ToolDisplay | None = None,
        tool_retrieval: int | None = None,
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
            decision=decision,
            tool_choice_by=tool_choice_by,
            optional_bias=optional_bias,
            template_options=template_options,
            tool_display=tool_display,
            tool_retrieval=tool_retrieval,
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
        decision: DecisionOptions | None = None,
        tool_choice_by: ToolChoiceBy | str | None = None,
        optional_bias: float | None = None,
        template_options: JsonObject | None = None,
        tool_display: ToolDisplay | None = None,
        tool_retrieval: int | None = None,
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
                decision=decision,
                tool_choice_by=to_tool_choice_by(tool_choice_by),
                optional_bias=optional_bias,
                template_options={} if template_options is None else template_options,
                tool_display=tool_display,
                tool_retrieval=tool_retrieval,
            )
        )

    def submit_choices(
        self,
        request: Request,
        n: int,
        deliver: Callable[[int, Event | Exception], None] | None = None,
        on_probe: OnProbe | None = None,
    ) -> list[Generation]:
        """Start n generations of one request that differ in their noise only. All of them, or none and an error."""
        most = self.config.max_waiting
        check("n", n, f"an integer from 1 to {most}", holds=is_integer(n) and 0 < n <= most)
        seed = seed_of(request.sampling)
        seeded = replace(request, sampling=replace(request.sampling, seed=seed))
        to_each = [None if deliver is None else functools.partial(deliver, index) for index in range(n)]
        if routed := self._routed(seeded, to_each):
            return routed
        runs = [self._admission.admit(seeded, index, to_index) for index, to_index in enumerate(to_each)]
        self._calibration.calibrate(request, runs, on_probe)
        return self._decoder.start(runs)

    def submit(
        self,
        request: Request,
        *,
        choice_index: int = 0,
        deliver: Deliver | None = None,
        on_probe: OnProbe | None = None,
    ) -> Generation:
        """Start a generation. Everything that the caller can get wrong is raised here, as RequestError.

        choice_index: which of the request's n choices this is. deliver: is given each event, or the error that ends
        the generation, on the decoding thread, and must not block; iterating the generation is then not possible. Where
        it raises, the generation ends and nothing more is delivered. Without it, dropping the generation cancels it.
        on_probe: is given the pass that this waits for where the decision is calibrated and the prior is not known;
        to cancel that from another thread ends the waiting, with GenerationError.
        """
        if routed := self._routed(request, [deliver]):
            return routed[0]
        run = self._admission.admit(request, choice_index, deliver)
        self._calibration.calibrate(request, [run], on_probe)
        (generation,) = self._decoder.start([run])
        return generation

    def submit_best(
        self, request: Request, best_of: int, deliver: Deliver | None = None, on_probe: OnProbe | None = None
    ) -> Generation:
        """Start so many samples of one answer, and give the likeliest; its events come when all have ended.

        best_of: 2 to 16. As submit otherwise; the temperature must be above 0.
        """
        request_of_each = sampled(request, best_of)
        if routed := self._routed(request, [deliver]):
            return routed[0]
        seeded = replace(
            request_of_each, sampling=replace(request_of_each.sampling, seed=seed_of(request_of_each.sampling))
        )
        best = BestOf(best_of, deliver, asks_logprobs=request.sampling.top_logprobs is not None)
        best.runs = [
            self._admission.admit(seeded, index, functools.partial(best.take, index)) for index in range(best_of)
        ]
        self._calibration.calibrate(request, best.runs, on_probe)
        self._decoder.start(list(best.runs))
        return self._decoder.generation(best)

    def _routed(self, request: Request, to_each: Sequence[Deliver | None]) -> list[Generation]:
        """The answers of a direct route; none where the model is to answer. Raises as submit does."""
        call = None if self._routes is None else self._routes.match(request)
        if call is None:
            return []
        self._admission.admit(request, 0, None)  # what is wrong with a request is told whatever its message says
        seed, asks_logprobs = seed_of(request.sampling), request.sampling.top_logprobs is not None
        runs = [ReadyRun(call.events(seed), deliver, asks_logprobs=asks_logprobs) for deliver in to_each]
        return [Generation(run, threading.Condition()) for run in runs]

    def render_prompt(self, request: Request) -> list[int]:
        """The token ids that the request's messages and tools become. Raises RequestError."""
        return self._admission.render_prompt(request)

    def load_now(self) -> EngineLoad:
        """How busy the engine is. Cheap; any thread may ask."""
        return self._decoder.load_now()

    def close(self) -> None:
        """End the decoding thread. Generations that still run raise EngineClosedError.

        A callback may call this; it does not wait for its own thread.
        """
        if self._decoder.close():
            atexit.unregister(self.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def _check_options(model: object, config: EngineConfig | None, adapter_path: object, draft_model: object) -> None:
    if not isinstance(model, (str, Path, LoadedModel)):
        raise ConfigError(f"model is {shown(model)}; it must be a name, a path or a LoadedModel")
    if not isinstance(config, EngineConfig | None):
        raise ConfigError(f"config is {shown(config)}; it must be an EngineConfig")
    if not isinstance(draft_model, (str, Path, LoadedModel | None)):
        raise ConfigError(f"draft_model is {shown(draft_model)}; it must be a name, a path or a LoadedModel")
    if draft_model is not None and config is not None and not config.drafts:
        raise ConfigError("draft_model stands beside drafts=False, which makes no use of it")
    if adapter_path is not None and isinstance(model, LoadedModel):
        raise ConfigError("adapter_path stands beside a model that is loaded already; give it to load()")


def _detected(model: LoadedModel) -> ToolFormat:
    detected = detect(model.tokenizer.chat_template, model.tokenizer.added, model.tokenizer.tekken_version)
    logger.info("%s: tool format %s: %s", model.name, detected.family.name, detected.why)
    return detected.family
