"""An engine as a model of the Outlines library: outlines.Generator(model, type) runs on it, with our masks.

Answers are text, in the form that Outlines gives to the type; engine.structured gives values.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

from outlines.inputs import Chat
from outlines.models import VLLMOffline
from outlines.models.base import Model, ModelTypeAdapter

from engine.checks import check, shown
from engine.engine import Engine
from engine.errors import RequestError
from engine.outlines_terms import outlines_output
from engine.output_types import FREE_TEXT, OutputType
from engine.requests import AnyMessage
from engine.structured import Prompt, batch, generate, stream
from engine.types import SamplingParams

_SAMPLING = tuple(field.name for field in dataclasses.fields(SamplingParams))


class ToolmaskTypeAdapter(ModelTypeAdapter):
    """What Outlines gives, as what engine.structured takes."""

    def format_input(self, model_input: Any) -> str | list[AnyMessage]:
        """A prompt, or a Chat's messages. Raises RequestError for anything else."""
        if isinstance(model_input, Chat):
            return list(model_input.messages)
        check("model_input", model_input, "a string or an outlines Chat", holds=isinstance(model_input, str))
        prompt: str = model_input
        return prompt

    def format_output_type(self, output_type: Any = None) -> OutputType[str]:
        """The type's text form; None is free text. Raises RequestError that names the type."""
        return FREE_TEXT if output_type is None else outlines_output(output_type)


class ToolmaskModel(Model):
    """Answers through an engine; closing that is the caller's.

    Inference arguments are `max_tokens` and the fields of SamplingParams, by name. Raises as engine.structured does.
    """

    type_adapter: ToolmaskTypeAdapter

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.type_adapter = ToolmaskTypeAdapter()

    def generate(self, model_input: Any, output_type: Any = None, **inference_kwargs: Any) -> str:
        """The answer's text."""
        prompt, output = self._inputs(model_input, output_type)
        sampling, max_tokens = _options(inference_kwargs)
        return generate(self.engine, prompt, output, sampling=sampling, max_tokens=max_tokens)

    def generate_batch(self, model_input: list[Any], output_type: Any = None, **inference_kwargs: Any) -> list[str]:
        """The answers' texts, in the order of the prompts."""
        prompts = [self.type_adapter.format_input(each) for each in model_input]
        output = self.type_adapter.format_output_type(output_type)
        sampling, max_tokens = _options(inference_kwargs)
        return batch(self.engine, prompts, output, sampling=sampling, max_tokens=max_tokens)

    def generate_stream(self, model_input: Any, output_type: Any = None, **inference_kwargs: Any) -> Iterator[str]:
        """The answer's text, in pieces. Leaving the iterator cancels what is left."""
        prompt, output = self._inputs(model_input, output_type)
        sampling, max_tokens = _options(inference_kwargs)
        length = 0
        with stream(self.engine, prompt, output, sampling=sampling, max_tokens=max_tokens) as texts:
            for text in texts:
                if piece := text[length:]:
                    yield piece
                length = len(text)

    def _inputs(self, model_input: Any, output_type: Any) -> tuple[Prompt, OutputType[str]]:
        return self.type_adapter.format_input(model_input), self.type_adapter.format_output_type(output_type)


# Outlines takes no models but its own: a Generator asks whether the model is one of a list of classes. This is one of
# those that are given the output type as it is, run here, and answer batches; only its name is used.
VLLMOffline.register(ToolmaskModel)


def from_engine(engine: Engine) -> ToolmaskModel:
    """The engine as a model of Outlines."""
    return ToolmaskModel(engine)


def _options(given: dict[str, Any]) -> tuple[SamplingParams, int | None]:
    for name in given:
        if name not in ("max_tokens", *_SAMPLING):
            allowed = ", ".join(("max_tokens", *_SAMPLING))
            raise RequestError(f"{shown(name)} is no inference argument; allowed are {allowed}", param=name)
    max_tokens = given.get("max_tokens")
    return SamplingParams(**{name: value for name, value in given.items() if name != "max_tokens"}), max_tokens
