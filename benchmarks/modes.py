"""Four ways to decode with one loaded model.

Which tokens. The constrained run with fast-forward decides how many tokens a case has, its end-of-turn token included
where one is sampled; both free runs write exactly as many. For that they take no notice of end-of-turn tokens: mlx-lm
by a tokenizer wrapper without any, toolmask by a tokenizer to which they are tokens like others. Either tests each
token against a set as before, so the path is the one that users have. All modes start from the same prompt ids. The
constrained ones may write one call: these categories of BFCL ask for one, and a small model that goes on repeats
itself, which would flatter fast-forward.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self, cast

import mlx.core as mx
import tokenizers
from mlx_lm.generate import generation_stream, stream_generate
from mlx_lm.tokenizer_utils import BPEStreamingDetokenizer, SPMStreamingDetokenizer, TokenizerWrapper
from transformers import PreTrainedTokenizerFast

from benchmarks.bfcl import Case
from benchmarks.runs import Mode, Recording, Run, engine_run, mlx_lm_run
from benchmarks.tracing import (
    EndlessTokenizer,
    PassRecorder,
    Stamp,
    TracedToken,
    TracingTokenizer,
    wait_until_idle,
)
from engine.config import EngineConfig
from engine.engine import Engine
from engine.events import Finished
from engine.model import LoadedModel, MLXModel
from engine.tokenizer import Tokenizer
from engine.types import Request, ToolChoice, ToolChoiceMode

# What is measured is decoding: no guesses, and every run reads its prompt, as mlx-lm's does.
DECODING = EngineConfig(drafts=False, prompt_cache_memory=0)
ONE_BY_ONE = replace(DECODING, fast_forward=False)


@dataclass(frozen=True, slots=True)
class Drafts:
    """What was guessed in constrained_ff, also while the cases' tokens were counted."""

    guessed: int  # tokens
    right: int  # of them


class Bench:
    """One model object and what runs it."""

    def __init__(self, loaded: LoadedModel, max_tokens: int, options: Mapping[str, Any] | None = None) -> None:
        """loaded: by mlx-lm's classes. max_tokens: the most that a case may have. options: of EngineConfig."""
        assert isinstance(loaded.model, MLXModel)
        self._module = loaded.model.module
        self._max_tokens = max_tokens
        self._recorder = PassRecorder()
        self._mlx_tokenizer = mlx_lm_tokenizer(loaded.tokenizer)
        endless = EndlessTokenizer(loaded.tokenizer)
        self.barred_ids = endless.special_ids  # mlx-lm may write them in free text, toolmask does not
        # What the target leaves out: drafts, and prompts that an earlier run had computed. mlx-lm keeps none either.
        plain: dict[str, Any] = {"drafts": False, "prompt_cache_memory": 0}
        chosen = EngineConfig(**{**plain, **(options or {})})
        one_by_one = EngineConfig(**{**plain, "fast_forward": False})
        self._engines = {
            Mode.TOOLMASK_FREE: _engine(loaded, endless, EngineConfig(**plain)),
            Mode.CONSTRAINED: _engine(loaded, TracingTokenizer(loaded.tokenizer), one_by_one),
            Mode.CONSTRAINED_FF: _engine(loaded, TracingTokenizer(loaded.tokenizer), chosen),
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        for engine in self._engines.values():
            engine.close()

    @property
    def drafts(self) -> Drafts:
        work = self._engines[Mode.CONSTRAINED_FF].load_now().work
        return Drafts(work.num_drafted, work.num_accepted)

    def run(self, mode: Mode, case: Case, num_tokens: int) -> Run:
        """Decode once. num_tokens: how many a free mode writes; the others stop by themselves."""
        request = self._request(case)
        if not mode.is_free:
            return self._run_engine(mode, case, request)
        prompt = self._engines[Mode.CONSTRAINED].render_prompt(request)
        if mode is Mode.MLX_LM_FREE:
            return self._run_mlx_lm(case, prompt, num_tokens)
        return self._run_engine(mode, case, Request(prompt=tuple(prompt), max_tokens=num_tokens))

    def num_tokens(self, case: Case) -> int:
        """How many tokens the case has; a whole run, which also warms up."""
        return self.run(Mode.CONSTRAINED_FF, case, 0).num_tokens

    def _request(self, case: Case) -> Request:
        return Request(
            messages=case.messages,
            tools=case.tools,
            tool_choice=ToolChoice(ToolChoiceMode.REQUIRED),
            parallel_tool_calls=False,
            max_tokens=self._max_tokens,
        )

    def _run_engine(self, mode: Mode, case: Case, request: Request) -> Run:
        engine = self._engines[mode]
        tokenizer = cast("TracingTokenizer", engine.loaded.tokenizer)
        tokenizer.trace = []
        self._recorder.clear()
        wait_until_idle()
        with self._recorder.installed(self._module):
            start = Stamp.now()
            generation = engine.submit(request)
            submitted = Stamp.now()
            (finished,) = (event for event in generation if isinstance(event, Finished))
            end = Stamp.now()
        return engine_run(
            case.id, mode, Recording(tokenizer.trace, self._recorder.passes, start, submitted, end), finished
        )

    def _run_mlx_lm(self, case: Case, prompt: Sequence[int], num_tokens: int) -> Run:
        trace: list[TracedToken] = []
        self._recorder.clear()
        wait_until_idle()
        with self._recorder.installed(self._module):
            start = Stamp.now()
            for response in stream_generate(self._module, self._mlx_tokenizer, list(prompt), max_tokens=num_tokens):
                trace.append(TracedToken(response.token, Stamp.now()))
            end = Stamp.now()
            mx.synchronize(generation_stream)  # a pass is still under way
        return mlx_lm_run(case.id, Recording(trace, self._recorder.passes, start, start, end), len(prompt))


def _engine(loaded: LoadedModel, tokenizer: TracingTokenizer, config: EngineConfig) -> Engine:
    return Engine(LoadedModel(loaded.name, loaded.model, tokenizer), config=config)


def mlx_lm_tokenizer(tokenizer: Tokenizer) -> TokenizerWrapper:
    """The same vocabulary as mlx_lm.load would wrap it, with the detokenizer that it would choose, and without eos."""
    text = tokenizer.backend_json()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizers.Tokenizer.from_str(text))
    is_byte_level = json.loads(text)["decoder"]["type"] == "ByteLevel"
    return TokenizerWrapper(fast, BPEStreamingDetokenizer if is_byte_level else SPMStreamingDetokenizer)
