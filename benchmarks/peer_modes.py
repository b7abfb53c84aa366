"""One tool call by each loop: ours, and mlx_lm.stream_generate with a grammar in a logits processor.

All loops run on one model object, from the same prompt, greedily. llguidance has the very grammar of the engine. The
grammars of xgrammar and outlines are JSON schemas of the call's object, for they have no turn grammar of ours: their
calls have no markers around them, so that they write a few tokens less. Ours has compact JSON, theirs as well.

outlines' own MLX kernel needs Metal, as llguidance's does; all masks are applied by the same compiled function here.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from mlx_lm.generate import stream_generate
from numpy.typing import NDArray

from benchmarks.bfcl import Case
from benchmarks.grammar_processors import MaskProcessor, llguidance_processor
from benchmarks.modes import mlx_lm_tokenizer
from benchmarks.tracing import wait_until_idle
from engine.config import EngineConfig
from engine.engine import Engine
from engine.events import StopReason
from engine.grammars.llguidance_backend import LLGuidanceCompiler
from engine.grammars.turn import build_turn
from engine.model import LoadedModel, MLXModel
from engine.tokenizer import Tokenizer
from engine.types import Request, Tool, ToolChoice, ToolChoiceMode

OURS = "toolmask"
FREE = "mlx_lm_free"
PROCESSORS = ("mlx_lm_llguidance", "mlx_lm_xgrammar", "mlx_lm_outlines")
PEER_MODES = (OURS, "toolmask_one_by_one", FREE, *PROCESSORS)
SEPARATORS = (", ", ": ")
WHITESPACE = " ?"  # outlines' pattern; its own default lets a model write spaces for ever

Prepare = Callable[[Request], MaskProcessor]


@dataclass(frozen=True, slots=True)
class CallRun:
    """One call, or as many free tokens."""

    num_tokens: int
    is_complete: bool
    prepare_s: float  # of it: compiling the grammar; of ours it is not told apart
    seconds: float  # everything: grammar, prompt, decoding


class NotMeasured(Exception):  # noqa: N818  # it says so in the result; it is no fault
    """A peer cannot do this here."""


def call_schema(tools: Sequence[Tool]) -> dict[str, Any]:
    """The JSON schema of the object that a call of one of these tools is."""
    calls = [
        {
            "type": "object",
            "properties": {"name": {"const": tool.name}, "arguments": _closed(tool.parameters or {"type": "object"})},
            "required": ["name", "arguments"],
            "additionalProperties": False,
        }
        for tool in tools
    ]
    return calls[0] if len(calls) == 1 else {"anyOf": calls}


def _closed(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {**schema, "additionalProperties": False} if schema.get("properties") else dict(schema)


class Loops:
    """One model object and every loop that could be had."""

    def __init__(self, loaded: LoadedModel, max_tokens: int, options: Mapping[str, Any]) -> None:
        """options: of the engine's configuration."""
        assert isinstance(loaded.model, MLXModel)
        self._module, self._max_tokens = loaded.model.module, max_tokens
        self._tokenizer = loaded.tokenizer
        self._mlx_tokenizer = mlx_lm_tokenizer(loaded.tokenizer)
        self._eos_ids = sorted(loaded.tokenizer.eos_ids)
        self._engine = Engine(loaded, config=EngineConfig(**options))
        one_by_one = EngineConfig(**{**options, "fast_forward": False})
        self._engines = {OURS: self._engine, "toolmask_one_by_one": Engine(loaded, config=one_by_one)}
        self._counting = Engine(loaded, config=EngineConfig(**options))
        self._compiler = LLGuidanceCompiler(loaded.tokenizer.backend_json(), eos_ids=self._eos_ids)
        self._prepare: dict[str, Prepare] = {}
        self.not_measured: dict[str, str] = {}  # mode -> why
        self._add("mlx_lm_llguidance", lambda: self._llguidance)
        self._add("mlx_lm_xgrammar", lambda: _xgrammar(self._tokenizer, loaded.model.vocab_size))
        self._add("mlx_lm_outlines", lambda: _outlines(self._tokenizer))

    def _add(self, mode: str, make: Callable[[], Prepare]) -> None:
        try:
            self._prepare[mode] = make()
        except ImportError as error:
            self.not_measured[mode] = f"not installed: {error}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        for engine in (*self._engines.values(), self._counting):
            engine.close()

    def num_tokens(self, case: Case) -> int:
        """How many tokens the case has; by an engine of its own, so that no measured one has seen it before."""
        return max(self._run_engine(self._counting, self._request(case)).num_tokens, 2)

    @property
    def modes(self) -> tuple[str, ...]:
        return tuple(mode for mode in PEER_MODES if mode not in self.not_measured)

    def run(self, mode: str, case: Case, num_tokens: int) -> CallRun:
        """Decode once. num_tokens: of the free mode. Raises NotMeasured where a peer refuses the case's schema."""
        request = self._request(case)
        wait_until_idle()
        if mode in self._engines:
            return self._run_engine(self._engines[mode], request)
        return self._run_mlx_lm(mode, request, num_tokens)

    def _request(self, case: Case) -> Request:
        return Request(
            messages=case.messages,
            tools=case.tools,
            tool_choice=ToolChoice(ToolChoiceMode.REQUIRED),
            parallel_tool_calls=False,
            max_tokens=self._max_tokens,
        )

    def _run_engine(self, engine: Engine, request: Request) -> CallRun:
        start = time.perf_counter()
        completion = engine.submit(request).completion()
        seconds = time.perf_counter() - start
        num_tokens = completion.usage.completion_tokens + (completion.stop_reason is StopReason.EOS)
        return CallRun(num_tokens, completion.stop_reason is not StopReason.LENGTH, 0.0, seconds)

    def _run_mlx_lm(self, mode: str, request: Request, num_tokens: int) -> CallRun:
        start = time.perf_counter()
        prompt = self._engine.render_prompt(request)
        prepared = time.perf_counter()
        processors = []
        if mode != FREE:
            try:
                processors.append(self._prepare[mode](request))
            except (ValueError, RuntimeError, TypeError) as error:  # whatever the peer says of a schema
                raise NotMeasured(f"{type(error).__name__}: {error}"[:200]) from error
        prepare_s = time.perf_counter() - prepared
        limit = num_tokens if mode == FREE else self._max_tokens
        count, ended = 0, False
        for response in stream_generate(
            self._module, self._mlx_tokenizer, prompt, max_tokens=limit, logits_processors=processors
        ):
            count += 1
            ended = mode != FREE and response.token in self._eos_ids
            if ended:
                break
        return CallRun(count, ended, prepare_s, time.perf_counter() - start)

    def _llguidance(self, request: Request) -> MaskProcessor:
        turn = build_turn(request, self._engine.tool_format, self._tokenizer.unspellable)
        matcher = turn.compile(self._compiler)
        assert matcher is not None
        return llguidance_processor(matcher, self._eos_ids)


def _tools(request: Request) -> list[Tool]:
    return [tool for tool in request.tools if isinstance(tool, Tool)]


def _xgrammar(tokenizer: Tokenizer, vocab_size: int) -> Prepare:
    import torch  # noqa: PLC0415  # of the peers' environment only
    import xgrammar  # noqa: PLC0415

    eos_ids = sorted(tokenizer.eos_ids)
    info = xgrammar.TokenizerInfo.from_huggingface(tokenizer.fast, vocab_size=vocab_size, stop_token_ids=eos_ids)
    compiler = xgrammar.GrammarCompiler(info)

    def prepare(request: Request) -> MaskProcessor:
        schema = json.dumps(call_schema(_tools(request)))
        grammar = compiler.compile_json_schema(schema, any_whitespace=False, separators=SEPARATORS)
        matcher = xgrammar.GrammarMatcher(grammar)

        def accept(token: int) -> None:
            if not matcher.accept_token(token):
                raise RuntimeError(f"xgrammar refused token {token}, which its mask allowed")

        def fill(row: NDArray[np.int32]) -> None:
            matcher.fill_next_token_bitmask(torch.from_numpy(row)[None])

        return MaskProcessor(accept, fill, matcher.is_terminated, eos_ids)

    return prepare


def _outlines(tokenizer: Tokenizer) -> Prepare:
    from outlines.backends.outlines_core import OutlinesCoreBackend  # noqa: PLC0415
    from outlines_core import Guide, Index  # noqa: PLC0415
    from outlines_core.json_schema import build_regex_from_schema  # noqa: PLC0415

    fast, eos_ids = tokenizer.fast, sorted(tokenizer.eos_ids)
    vocabulary = OutlinesCoreBackend.create_outlines_core_vocabulary(
        fast.get_vocab(), fast.eos_token_id, fast.eos_token, lambda token: fast.convert_tokens_to_string([token])
    )

    def prepare(request: Request) -> MaskProcessor:
        regex = build_regex_from_schema(json.dumps(call_schema(_tools(request))), WHITESPACE)
        guide = Guide(Index(regex, vocabulary))

        def accept(token: int) -> None:
            guide.advance(token_id=token, return_tokens=False)

        def fill(row: NDArray[np.int32]) -> None:
            guide.write_mask_into(row.ctypes.data, row.size, row.itemsize)

        return MaskProcessor(accept, fill, guide.is_finished, eos_ids)

    return prepare
