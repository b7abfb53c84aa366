"""Made-up requests over a tool set: such as a tool answers, and such as none of the offered ones does."""

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass

from engine.checks import is_integer, shown
from engine.errors import ConfigError
from engine.finetuning.phrases import ask_for
from engine.finetuning.small_talk import REFUSALS, SMALL_TALK
from engine.finetuning.values import ArgumentsDrawer
from engine.types import Message, Request, Role, Tool, ToolCall

TEXT_SHARE = 0.3  # of the examples that are answered by text
MAX_OFFERED = 2  # tools of one request
CHAT_SHARE = 0.6  # of the texts: small talk; the others say that no tool does what is asked


@dataclass(frozen=True, slots=True)
class Example:
    """A request and its answer: one call, or a text."""

    request: Request
    call: ToolCall | None = None
    text: str | None = None


def draw_examples(tools: Sequence[Tool], count: int, seed: int) -> list[Example]:
    """So many examples; the same seed draws the same ones. Raises ConfigError and SchemaError, naming the tool."""
    if not is_integer(count) or count < 1:
        raise ConfigError(f"examples is {shown(count)}; it must be an integer, 1 or more")
    if not tools:
        raise ConfigError("tools is empty; training needs one at least")
    drawers = [ArgumentsDrawer(tool, f"tools[{number}]") for number, tool in enumerate(tools)]
    return [_example(drawers, number, random.Random(f"{seed}/{number}")) for number in range(count)]


def _example(drawers: Sequence[ArgumentsDrawer], number: int, source: random.Random) -> Example:
    if source.random() < TEXT_SHARE:
        return _text_example(drawers, source)
    wanted = drawers[number % len(drawers)]
    arguments = wanted.draw(source)
    call = ToolCall(f"call_{number}", wanted.tool.name, json.dumps(arguments, ensure_ascii=False))
    return Example(_request(ask_for(wanted.tool, arguments, source), _offered(wanted, drawers, source), source), call)


def _text_example(drawers: Sequence[ArgumentsDrawer], source: random.Random) -> Example:
    """Small talk, or what only a tool that is not offered could do."""
    wanted = source.choice(drawers)
    others = [drawer for drawer in drawers if drawer is not wanted]
    if not others or source.random() < CHAT_SHARE:
        question, answer = source.choice(SMALL_TALK)
        return Example(_request(question, _offered(wanted, drawers, source), source), text=answer)
    offered = source.sample(others, min(source.randint(1, MAX_OFFERED), len(others)))
    asked = ask_for(wanted.tool, wanted.draw(source), source)
    return Example(_request(asked, [drawer.tool for drawer in offered], source), text=source.choice(REFUSALS))


def _offered(wanted: ArgumentsDrawer, drawers: Sequence[ArgumentsDrawer], source: random.Random) -> list[Tool]:
    others = [drawer.tool for drawer in drawers if drawer is not wanted]
    return [wanted.tool, *source.sample(others, min(source.randint(0, MAX_OFFERED - 1), len(others)))]


def _request(asked: str, tools: list[Tool], source: random.Random) -> Request:
    source.shuffle(tools)
    return Request((Message(Role.USER, asked),), tools=tuple(tools))
