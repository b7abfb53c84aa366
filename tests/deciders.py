"""Fakes whose probabilities of a call are given, so that what is said of a decision can be asserted to the digit."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from engine.config import EngineConfig
from engine.decision_options import TOKENS_DECIDE, DecisionOptions
from engine.engine import Engine
from engine.events import Completion, Decision
from engine.model import LoadedModel
from tests.fakes import CALCULATE, EOS, SEARCH, USER, fake_loaded, scripted

ASSISTANT = "<|im_start|>assistant\n"
MARKER = "<tool_call>"
REST = -40.0  # of the tokens that a script does not speak of

TOOLS = (CALCULATE, SEARCH)
AS_ASKED = EngineConfig(decision=TOKENS_DECIDE)  # no default decides
ALONE = EngineConfig(drafts=False, prompt_cache_memory=0, decision=TOKENS_DECIDE)
each_kind = pytest.mark.parametrize("hermes", [False, True], ids=["plain", "hermes"])
LOOK = DecisionOptions()
CALL, TEXT = DecisionOptions(tool_call_threshold=0.0), DecisionOptions(tool_call_threshold=1.0)


@dataclass
class Script:
    """What is said behind each beginning of a turn: text -> the next token's text -> its probability."""

    loaded: LoadedModel
    said: Mapping[str, Mapping[str, float]]
    default: Mapping[str, float] = field(default_factory=lambda: {EOS: 1.0})
    by_prompt: Callable[[str], Mapping[str, Mapping[str, float]]] | None = None

    def __call__(self, tokens: Sequence[int]) -> Mapping[int, float]:
        tokenizer = self.loaded.tokenizer
        prompt, _, written = tokenizer.decode(tokens).rpartition(ASSISTANT)
        said = self.said if self.by_prompt is None else self.by_prompt(prompt)
        following = said.get(written, self.default)
        probable = {tokenizer.encode(text)[0]: math.log(share) for text, share in following.items()}
        return {**dict.fromkeys(range(tokenizer.num_tokens), REST), **probable}


def decider(
    said: Mapping[str, Mapping[str, float]],
    *,
    hermes: bool,
    reasons: bool = False,
    by_prompt: Callable[[str], Mapping[str, Mapping[str, float]]] | None = None,
) -> LoadedModel:
    """A fake that says these, and ends its turn behind all else."""
    loaded = fake_loaded(hermes=hermes, reasons=reasons)
    return scripted(loaded, Script(loaded, said, by_prompt=by_prompt))


def pieces(loaded: LoadedModel, text: str) -> list[str]:
    """The tokens of a text, each as text."""
    return [loaded.tokenizer.decode([token]) for token in loaded.tokenizer.encode(text)]


def marker_then_text(p: float, *, hermes: bool, after: str = "", text: str = "Y") -> dict[str, Mapping[str, float]]:
    """Behind `after`: the marker's first token with probability p, its others surely, or else a text of one token."""
    first, *others = pieces(fake_loaded(hermes=hermes), MARKER)
    said: dict[str, Mapping[str, float]] = {after: {first: p, text: 1 - p}}
    written = after + first
    for piece in others:
        said[written] = {piece: 1.0}
        written += piece
    return said


# Asking them.


def answered(loaded: LoadedModel, decision: DecisionOptions | None = None, **options: Any) -> Completion:
    options = {"tools": TOOLS, "max_tokens": 100, "parallel_tool_calls": False} | options
    with Engine(loaded, config=ALONE) as engine:
        return engine.chat([USER], decision=decision, **options)


def decided(completion: Completion) -> Decision:
    assert completion.decision is not None
    return completion.decision


def called(completion: Completion) -> bool:
    """Whether the turn is a call, and nothing before it."""
    return bool(completion.tool_calls) and completion.text is None


THOUGHT = "<think>\nHm.\n</think>\n\n"


def thinking(p: float, *, hermes: bool, thought: str = THOUGHT) -> dict[str, Mapping[str, float]]:
    loaded, written = fake_loaded(hermes=hermes, reasons=True), ""
    said: dict[str, Mapping[str, float]] = {}
    for piece in pieces(loaded, thought):
        said[written] = {piece: 1.0}
        written += piece
    return said | marker_then_text(p, hermes=hermes, after=thought)
