"""Texts that lead to a short end. A grammar's mask shows what may come next, not what leads where; a schema does."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from engine.grammars.literals import as_json
from engine.grammars.regex_shape import json_size, plain_size, shape_of
from engine.grammars.schema_walk import each_schema


@dataclass(frozen=True, slots=True)
class ClosingHints:
    """Hints for the search for a closing path. A hint that does not help costs time only."""

    strings: tuple[str, ...] = ()  # whole JSON strings as they are written, without the first quote, with the last
    anywhere: tuple[str, ...] = ()  # what ends a stretch of almost free text, wherever in it that is written
    outside: tuple[str, ...] = ()  # the same of text that is no value, such as reasoning
    ends: tuple[str, ...] = ()  # what ends a turn's calls; else one more call might follow, and one more

    def __add__(self, other: "ClosingHints") -> "ClosingHints":
        return together((self, other))


def together(hints: Sequence[ClosingHints]) -> ClosingHints:
    """All of them, each text once."""
    return ClosingHints(
        strings=_once(text for each in hints for text in each.strings),
        anywhere=_once(text for each in hints for text in each.anywhere),
        outside=_once(text for each in hints for text in each.outside),
        ends=_once(text for each in hints for text in each.ends),
    )


def _once(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(texts))


def schema_hints(schema: Any) -> ClosingHints:
    """Of a schema's objects the required names, of its enums the shortest string, of its patterns a shortest match."""
    strings: list[str] = []
    ends: list[str] = []
    for each in each_schema(schema):
        strings += each.get("required", ())
        if "enum" in each:
            strings += _shortest(value for value in each["enum"] if isinstance(value, str))
        strings += [each["const"]] if isinstance(each.get("const"), str) else []
        if "pattern" in each:
            shape = shape_of(each["pattern"], json_size, anchored=False)
            if shape is not None and shape.shortest is not None:
                strings.append(shape.shortest)
                ends += shape.ends
    return ClosingHints(
        strings=tuple(dict.fromkeys(_inside(text) for text in strings)),
        anywhere=tuple(dict.fromkeys(_inside(text) for text in ends if text)),
    )


def regex_hints(regex: str) -> ClosingHints:
    """Of a regex that stands in a grammar for itself: what ends its stretches of almost free text."""
    shape = shape_of(regex, plain_size, anchored=True)
    return ClosingHints(anywhere=() if shape is None else tuple(end for end in shape.ends if end))


def _shortest(texts: Iterable[str]) -> list[str]:
    found = min(texts, key=lambda text: (len(text), text), default=None)
    return [] if found is None else [found]


def _inside(text: str) -> str:
    return as_json(text)[1:]
