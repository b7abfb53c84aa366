"""Made-up requests over a tool set: such as a tool answers, and such as none of the offered ones does."""

import json
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from engine.checks import is_integer, shown
from engine.errors import ConfigError
from engine.finetuning.small_talk import REFUSALS, SMALL_TALK
from engine.finetuning.values import ArgumentsDrawer
from engine.types import Message, Request, Role, Tool, ToolCall

TEXT_SHARE = 0.35  # of the examples that are answered by text
MAX_OFFERED = 2  # tools of one request

# {what}: the tool's description; {name}: its name in words; {pairs}: "city Oslo and days 3"; {values}: "Oslo, 3".
WITH_ARGUMENTS = (
    "{What}: {pairs}.",
    "Please {what}. The {pairs_are}.",
    "Can you {what}? {Pairs}.",
    "{What} for {values}",
    "{What} {values}",
    "{name} {values}",
    "{Values}: {what}, please.",
    "I want to {what} with {pairs}.",
    "I need {name} for {values}.",
    "{What}, {values}.",
)
WITHOUT_ARGUMENTS = ("{What}.", "Please {what}.", "Can you {what}?", "{name}, please.", "I want to {what}.")


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
    return Example(_request(_asked(wanted.tool, arguments, source), _offered(wanted, drawers, source), source), call)


def _text_example(drawers: Sequence[ArgumentsDrawer], source: random.Random) -> Example:
    """Small talk, or what only a tool that is not offered could do."""
    wanted = source.choice(drawers)
    others = [drawer for drawer in drawers if drawer is not wanted]
    if not others or source.random() < 0.5:
        question, answer = source.choice(SMALL_TALK)
        return Example(_request(question, _offered(wanted, drawers, source), source), text=answer)
    offered = source.sample(others, min(source.randint(1, MAX_OFFERED), len(others)))
    asked = _asked(wanted.tool, wanted.draw(source), source)
    return Example(_request(asked, [drawer.tool for drawer in offered], source), text=source.choice(REFUSALS))


def _offered(wanted: ArgumentsDrawer, drawers: Sequence[ArgumentsDrawer], source: random.Random) -> list[Tool]:
    others = [drawer.tool for drawer in drawers if drawer is not wanted]
    return [wanted.tool, *source.sample(others, min(source.randint(0, MAX_OFFERED - 1), len(others)))]


def _request(asked: str, tools: list[Tool], source: random.Random) -> Request:
    source.shuffle(tools)
    return Request((Message(Role.USER, asked),), tools=tuple(tools))


# What the user says.


def _asked(tool: Tool, arguments: dict[str, Any], source: random.Random) -> str:
    what = _what(tool)
    pairs = [f"{_words(name)} {_said(value)}" for name, value in arguments.items()]
    pairs_are = [f"{_words(name)} is {_said(value)}" for name, value in arguments.items()]
    values = ", ".join(_said(value) for value in arguments.values())
    parts = {
        "what": what,
        "name": _words(tool.name),
        "pairs": _listed(pairs),
        "pairs_are": _listed(pairs_are),
        "values": values,
    }
    parts |= {name.capitalize(): _capital(text) for name, text in parts.items()}
    text = source.choice(WITH_ARGUMENTS if arguments else WITHOUT_ARGUMENTS).format(**parts)
    return text if source.random() < 0.7 else _capital(text)


def _what(tool: Tool) -> str:
    """The description's first sentence as part of another; the name where there is none."""
    first = re.split(r"(?<=\w)\.(?:\s|$)|\n", tool.description.strip())[0].strip()
    return first[:1].lower() + first[1:] if first else _words(tool.name)


def _words(name: str) -> str:
    return re.sub(r"[_.\-]+", " ", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)).strip().lower()


def _said(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return _listed([_said(each) for each in value])
    if isinstance(value, dict):
        return _listed([f"{_words(name)} {_said(each)}" for name, each in value.items()])
    return "none" if value is None else str(value)


def _listed(parts: list[str]) -> str:
    return " and ".join([", ".join(parts[:-1]), parts[-1]]) if len(parts) > 1 else "".join(parts)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
