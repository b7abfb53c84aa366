"""Sequences and the step function by themselves, without an engine."""

from collections.abc import Sequence as Rows
from typing import Any

from engine.grammars.llguidance_backend import LLGuidanceCompiler
from engine.model import LoadedModel
from engine.sequence import Sequence
from engine.step import Progress, Stepper
from engine.types import Request
from tests.fakes import EOS, USER, FailingCompiler

NEVER_ENDS = {EOS: -(10**6)}


def compiler_of(loaded: LoadedModel) -> LLGuidanceCompiler:
    return FailingCompiler(loaded.tokenizer.backend_json(), eos_ids=sorted(loaded.tokenizer.eos_ids))


def make_sequence(
    loaded: LoadedModel, *, grammar: str | None = None, text: str = "hi there", **options: object
) -> Sequence:
    """A sequence that is bound by a Lark grammar, or by none. text: its prompt."""
    compiler = compiler_of(loaded)
    return Sequence(
        request=Request(messages=(USER,), **options),
        prompt=loaded.tokenizer.encode(text),
        key=1,
        seed=1,
        max_tokens=40,
        eos_ids=loaded.tokenizer.eos_ids,
        matcher=None if grammar is None else compiler.compile(grammar, param="grammar"),
        fast_forward=True,
    )


def run(stepper: Stepper, sequences: Rows[Sequence]) -> list[list[Progress]]:
    """Step until all are done or failed; each one's progress."""
    progress: list[list[Progress]] = [[] for _ in sequences]
    while running := [index for index, sequence in enumerate(sequences) if not sequence.is_done]:
        for index, each in zip(
            running, stepper.step([sequences[index] for index in running], max_chunk=512), strict=True
        ):
            progress[index].append(each)
    return progress


def stepper_of(loaded: LoadedModel, **options: Any) -> Stepper:
    return Stepper(loaded, compiler_of(loaded), **options)
