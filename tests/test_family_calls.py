"""A call that a model writes of its own accord, in `auto`, comes out as a call: in every family, however large."""

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from engine.config import EngineConfig
from engine.engine import Engine
from engine.grammars.tool_format import ToolFormat
from engine.grammars.tool_formats import TOOL_FORMATS
from engine.model import LoadedModel
from engine.types import Tool
from tests.fakes import USER, FakeModel
from tests.families import small_vocabulary

TEMPLATE = "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}assistant:"
KINDS: list[tuple[Any, Any]] = [
    ({"type": "string"}, "Par"),
    ({"type": "integer"}, 5),
    ({"enum": ["aa", "bb"]}, "bb"),
    ({"type": "object", "properties": {"y": {"type": "string"}}, "required": ["y"]}, {"y": "q"}),
]


@dataclass
class Scripted(FakeModel):
    """Writes one text, and goes on with it from wherever it was led to."""

    script: tuple[int, ...] = ()

    def logits_after(self, tokens: list[int]) -> np.ndarray:
        written = max(n for n in range(len(self.script)) if tuple(tokens[len(tokens) - n :]) == self.script[:n])
        logits = np.zeros(self.vocab_size)
        logits[self.script[written]] = 1000
        return logits


def tool_and_arguments(size: int) -> tuple[Tool, dict[str, Any]]:
    names = [f"argument_{number}" for number in range(size)]
    kinds = [KINDS[number % len(KINDS)] for number in range(size)]
    properties = {name: schema for name, (schema, _) in zip(names, kinds, strict=True)}
    parameters = {"type": "object", "properties": properties, "required": names}
    return Tool("book_trip", "", parameters), {name: value for name, (_, value) in zip(names, kinds, strict=True)}


@pytest.mark.parametrize("size", [1, 6])
@pytest.mark.parametrize(
    ("family", "way"),
    [(family, way) for family in TOOL_FORMATS for way in (family, *family.other_ways)],
    ids=lambda family: family.name,
)
def test_a_call_that_the_model_writes_comes_out(family: ToolFormat, way: ToolFormat, size: int) -> None:
    """F2, F9: neither the search's limits nor a way out of text take the call's beginning away where it fits."""
    tool, arguments = tool_and_arguments(size)
    tokenizer = small_vocabulary(family.name).with_template(TEMPLATE)
    written = tokenizer.encode_parts(["", way.write_call(tool.name, json.dumps(arguments))])
    model = Scripted(tokenizer.num_tokens, script=(*written, min(tokenizer.eos_ids)))
    config = EngineConfig(prompt_cache_memory=0)
    with Engine(LoadedModel("fake", model, tokenizer), config=config, tool_format=family.name) as engine:
        answer = engine.chat([USER], tools=[tool], parallel_tool_calls=False, max_tokens=4 * len(written))
    (call,) = answer.tool_calls
    assert json.loads(call.arguments) == arguments
