"""Random walks of a noise model through schemas, within budgets from the least upward: what came of each.

A walk takes one schema, as a tool's arguments or as the response, and a budget. The least budget is asked of the engine
itself: a request with max_tokens 1 is refused with it. An answer counts as valid only if jsonschema-rs says so, with
formats asserted.
"""

import json
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import jsonschema_rs

from benchmarks.random_model import MOODS, random_model
from engine.config import EngineConfig
from engine.engine import Engine
from engine.errors import BudgetError, GenerationError, RequestError
from engine.events import Completion, StopReason
from engine.grammars.tool_formats import PLAIN
from engine.tokenizer import Tokenizer
from engine.types import Grammar, Message, Request, Role, SamplingParams, Tool, ToolChoice, ToolChoiceMode

SHAPES = ("response", "required", "named", "auto", "two_tools")
COLD = EngineConfig(prompt_cache_memory=0)  # noise depends on its position only
MAX_TOKENS = 120  # of a walk whose budget is not near
ENGINE_SEEDS = range(2)


@dataclass(frozen=True, slots=True)
class Walk:
    """One request and what came of it."""

    schema_id: str
    shape: str
    mood: str  # of the model
    seed: int
    max_tokens: int
    least: int  # 0 where any budget will do
    outcome: str = ""  # "valid", "text", or what went wrong
    detail: str = ""
    num_tokens: int = 0
    enforcements: frozenset[str] = frozenset()
    values: tuple[Any, ...] = ()


GOOD = ("valid", "text")


@dataclass(slots=True)
class Coverage:
    """What the walks have seen, counted."""

    outcomes: Counter[str] = field(default_factory=Counter)
    shapes: Counter[str] = field(default_factory=Counter)
    moods: Counter[str] = field(default_factory=Counter)
    enforcements: Counter[str] = field(default_factory=Counter)
    budgets: Counter[str] = field(default_factory=Counter)
    values: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)  # reasons, by schema and shape

    def add(self, walk: Walk) -> None:
        self.outcomes[walk.outcome] += 1
        self.shapes[walk.shape] += 1
        self.moods[walk.mood] += 1
        self.enforcements.update(walk.enforcements)
        distance = walk.max_tokens - walk.least
        self.budgets["least" if distance == 0 else "least + 1 to 8" if distance <= 8 else "more"] += 1
        self.budgets["used up"] += walk.num_tokens == walk.max_tokens
        for value in walk.values:
            self.values.update(_kinds(value))


def _kinds(value: Any) -> Iterator[str]:
    """The kinds of values in a value, and whether containers are empty."""
    if isinstance(value, dict):
        yield "object" if value else "empty object"
        for each in value.values():
            yield from _kinds(each)
    elif isinstance(value, list):
        yield ("empty array", "array of one")[len(value)] if len(value) < 2 else "longer array"
        for each in value:
            yield from _kinds(each)
    else:
        yield "empty string" if value == "" else type(value).__name__


class Walker:
    """Engines of every mood over one vocabulary."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._engines = {
            mood: Engine(random_model(tokenizer, seed=number, mood=mood), tool_format=PLAIN, config=COLD)
            for number, mood in enumerate(MOODS)
        }
        self.coverage = Coverage()
        self.num_refused = 0  # schemas that are refused in some shape

    def close(self) -> None:
        for engine in self._engines.values():
            engine.close()

    def walks(self, schema_id: str, schema: dict[str, Any], *, num_walks: int, seed: int) -> Iterator[Walk]:
        """Walks through one schema; none of a shape in which it is refused."""
        rng = random.Random(f"{schema_id} {seed}")
        validator = jsonschema_rs.validator_for(schema, validate_formats=True)
        shapes = SHAPES if schema.get("type") == "object" else SHAPES[:1]
        budgets = {shape: self._least(_request(schema, shape, 0)) for shape in shapes[:num_walks]}
        self.num_refused += None in budgets.values()
        possible = [shape for shape, least in budgets.items() if least is not None]
        for number in range(num_walks if possible else 0):
            shape, mood = possible[number % len(possible)], rng.choice(list(MOODS))
            least = budgets[shape] or 0
            begun = Walk(schema_id, shape, mood, rng.randrange(2**32), _budget(least, rng), least)
            request = replace(_request(schema, shape, begun.seed), max_tokens=begun.max_tokens)
            walk = _walked(begun, request, self._engines[mood], validator)
            self.coverage.add(walk)
            yield walk

    def _least(self, request: Request) -> int | None:
        """The least budget; 0 where a request with one token is taken, None where no budget will do."""
        try:
            self._engines["noise"].submit(replace(request, max_tokens=1)).cancel()
        except BudgetError as error:
            return error.least
        except RequestError as error:
            self.coverage.refused[_reason(error)] += 1
            return None
        return 0


def _walked(begun: Walk, request: Request, engine: Engine, validator: jsonschema_rs.Validator) -> Walk:
    try:
        completion = engine.submit(request).completion()
    except RequestError as error:
        return replace(begun, outcome="refused though it has its least budget", detail=str(error))
    except GenerationError as error:
        return replace(begun, outcome="error", detail=str(error))
    values = tuple(_values(completion, begun.shape))
    outcome, detail = _judge(completion, begun.shape, values, validator)
    return replace(
        begun,
        outcome=outcome,
        detail=detail,
        num_tokens=completion.usage.completion_tokens,
        enforcements=frozenset(entry.enforcement.value for entry in completion.receipt.entries),
        values=values,
    )


def _request(schema: dict[str, Any], shape: str, seed: int) -> Request:
    messages = (Message(Role.USER, "hi"),)
    sampling = SamplingParams(temperature=1.0, seed=seed)
    if shape == "response":
        return Request(messages=messages, response=Grammar.json_schema(schema), sampling=sampling)
    tools = (Tool("walk", "", schema), *((Tool("other"),) if shape == "two_tools" else ()))
    choices = {"auto": ToolChoice(), "named": ToolChoice.named("walk")}
    choice = choices.get(shape, ToolChoice(ToolChoiceMode.REQUIRED))
    return Request(messages=messages, tools=tools, tool_choice=choice, open_objects=True, sampling=sampling)


def _budget(least: int, rng: random.Random) -> int:
    """From the least upward: often just that, or little more."""
    more = rng.choice([0, 0, 1, rng.randrange(2, 9), rng.randrange(9, 60), MAX_TOKENS])
    return max(least + more, 1)


def _values(completion: Completion, shape: str) -> Iterator[Any]:
    if shape == "response":
        try:
            yield json.loads(completion.text or "")
        except ValueError:
            return
    for call in completion.tool_calls:
        if call.name == "walk":
            yield json.loads(call.arguments)


def _judge(
    completion: Completion, shape: str, values: Sequence[Any], validator: jsonschema_rs.Validator
) -> tuple[str, str]:
    invalid = [value for value in values if not validator.is_valid(value)]
    if invalid:
        return "invalid", json.dumps(invalid[0], ensure_ascii=False)
    if shape == "response":
        return ("valid", "") if values else ("cut off", completion.text or "")
    if completion.tool_calls:
        late = completion.stop_reason is StopReason.LENGTH
        return ("ends by length", "") if late else ("valid", "")
    return ("text", "") if shape == "auto" else ("no call", completion.text or "")


def _reason(error: RequestError) -> str:
    text = str(error)
    return text.partition(": ")[2] or text
