"""Engine: one model, one decoding thread, many generations."""

import atexit
import functools
import secrets
import uuid
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

from engine.catalog import OnProgress
from engine.checks import check, is_integer, shown
from engine.config import EngineConfig
from engine.decoding import Decoder, EngineLoad
from engine.errors import (
    ConfigError,
    ContextLengthError,
    GrammarError,
    MatcherError,
    RequestError,
)
from engine.events import Completion, Enforcement, Event, Receipt, ReceiptEntry
from engine.generation import Deliver, Generation, Run
from engine.grammars.llguidance_backend import LLGuidanceCompiler
from engine.grammars.tool_formats import ToolFormat, detect_format
from engine.grammars.turn import Turn, build_turn
from engine.grammars.turn_parser import TurnParser
from engine.model import LoadedModel, load
from engine.output import OutputStream
from engine.prompt import render_prompt
from engine.requests import AnyMessage, AnyTool, AnyToolChoice, to_messages, to_stop, to_tool_choice, to_tools
from engine.sampling.sampler import choice_key
from engine.sequence import Sequence
from engine.types import CustomTool, Grammar, GrammarKind, Request, SamplingParams

MAX_SEED = 2**63


class Engine:
    """A model that answers requests. Any thread may submit; the arrays belong to one thread of its own."""

    def __init__(
        self,
        model: str | Path | LoadedModel,
        *,
        config: EngineConfig | None = None,
        adapter_path: str | Path | None = None,
        tool_format: ToolFormat | None = None,
        draft_model: str | Path | LoadedModel | None = None,
        on_progress: OnProgress | None = None,
    ) -> None:
        """model: a name (hub id, folder, GGUF file, "smollm2-135m") or a loaded model.

        tool_format: None detects the family by the chat template. Raises ModelError and ConfigError.
        """
        _check_options(model, config, adapter_path, draft_model)
        self.config = config or EngineConfig()
        if not isinstance(model, LoadedModel):
            model = load(model, cache_dir=self.config.cache_dir, adapter_path=adapter_path, on_progress=on_progress)
        self.loaded = model
        tokenizer = model.tokenizer
        self.tool_format = tool_format or detect_format(tokenizer.chat_template)
        self._compiler = LLGuidanceCompiler(tokenizer.backend_json(), eos_ids=sorted(tokenizer.eos_ids))
        if isinstance(draft_model, (str, Path)):
            draft_model = load(draft_model, cache_dir=self.config.cache_dir, on_progress=on_progress)
        self._decoder = Decoder(model, self._compiler, self.config, draft_model)
        self.context_length = self._decoder.context_length  # tokens that prompt and answer may have
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
        return self._decoder.start(runs)

    def submit(self, request: Request, *, choice_index: int = 0, deliver: Deliver | None = None) -> Generation:
        """Start a generation. Everything that the caller can get wrong is raised here, as RequestError.

        choice_index: which of the request's n choices this is. deliver: is given each event, or the error that ends
        the generation, on the decoding thread, and must not block; iterating the generation is then not possible. Where
        it raises, the generation ends and nothing more is delivered. Without it, dropping the generation cancels it.
        """
        (generation,) = self._decoder.start([self._admit(request, choice_index, deliver)])
        return generation

    def render_prompt(self, request: Request) -> list[int]:
        """The token ids that the request's messages and tools become. Raises RequestError."""
        return render_prompt(request, self.tool_format, self.loaded.tokenizer)

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

    def _admit(self, request: Request, choice_index: int, deliver: Deliver | None) -> Run:
        tokenizer = self.loaded.tokenizer
        self._check_token_ids(request)
        turn = build_turn(request, self.tool_format, tokenizer.unspellable)
        self._check_special_ids(request, turn)
        matcher = turn.compile(self._compiler)
        prompt = self.render_prompt(request)
        if not prompt:
            raise RequestError("the chat template makes an empty prompt of these messages", param="messages")
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
        return Run(sequence, self._output(request, turn), _receipt(request, turn), deliver)

    def _output(self, request: Request, turn: Turn) -> OutputStream:
        tokenizer = self.loaded.tokenizer
        turn_id = uuid.uuid4().hex[:20]
        parser = TurnParser(
            self.tool_format,
            has_calls=turn.has_calls,
            marker_is_special=self.tool_format.marker in tokenizer.unspellable,
            call_id=lambda index: f"call_{turn_id}{index}",
            has_response=request.response is not None,
            custom_names=frozenset(tool.name for tool in request.callable_tools if isinstance(tool, CustomTool)),
            input_end_is_special=self.tool_format.input_end in tokenizer.unspellable,
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
        context = self.context_length
        room = context - num_prompt
        if room < 1:
            limit = "the model's context" if context == self.loaded.model.context_length else "kv_memory"
            raise ContextLengthError(
                f"the prompt has {num_prompt} tokens; {limit} has {context}, one of them for the answer",
                param="messages" if request.prompt is None else "prompt",
            )
        if request.max_tokens is not None and request.max_tokens > room:
            raise ContextLengthError(
                f"max_tokens is {shown(request.max_tokens)}; the prompt's {num_prompt} tokens leave room for {room}",
                param="max_tokens",
            )
        return request.max_tokens or room


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


def _seed(sampling: SamplingParams) -> int:
    return secrets.randbelow(MAX_SEED) if sampling.seed is None else sampling.seed


def _receipt(request: Request, turn: Turn) -> Receipt:
    entries = list(turn.receipt.entries)
    if request.tools and turn.source is not None:
        entries.insert(0, ReceiptEntry("tool_choice", Enforcement.GRAMMAR, request.tool_choice.mode.value))
    if turn.has_calls or request.response is not None:
        given = {"stop": request.stop, "stop_token_ids": request.stop_token_ids}
        for param in (param for param, value in given.items() if value):
            entries.append(ReceiptEntry(param, Enforcement.NARROWED, "matched in free text only"))
    return Receipt(tuple(entries))
