"""A pattern and bounds of a text's length as one pattern, where all but one of its parts have one length only."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from engine.grammars.schema_patterns import ANY

CHARACTER = r"\\[pP]\{[^}]*\}|\\u\{[0-9A-F]+\}|\\.|\[\^?(?:\\.|[^\]])*\]|\(\?s:\.\)|[^\\\[\](){}|^$*+?.]"
TIMES = r"\{(?P<least>\d+)(?P<comma>,(?P<most>\d*))?\}|(?P<sign>[*+?])"
PART = re.compile(f"(?P<character>{CHARACTER})(?:{TIMES})?", re.DOTALL)
SIGNS: dict[str, tuple[int, int | None]] = {"*": (0, None), "+": (1, None), "?": (0, 1)}


@dataclass(frozen=True, slots=True)
class _Part:
    """One kind of character, so often."""

    character: str
    least: int
    most: int | None  # None: without end

    def __str__(self) -> str:
        return f"{self.character}{{{self.least},{'' if self.most is None else self.most}}}"


def with_lengths(pattern: str, low: int, high: int | None) -> str | None:
    """A pattern of what matches the canonical pattern and has so many characters; None where this does not say it."""
    try:
        parts = list(_parts(pattern))
    except ValueError:
        return None
    open_parts = [position for position, part in enumerate(parts) if part.least != part.most]
    if len(open_parts) != 1:
        return None
    (at,) = open_parts
    around = sum(part.least for part in parts) - parts[at].least
    bounds = [each for each in (parts[at].most, None if high is None else high - around) if each is not None]
    least, most = max(parts[at].least, low - around), min(bounds, default=None)
    if most is not None and most < least:
        return None
    parts[at] = replace(parts[at], least=least, most=most)
    return f"^{''.join(map(str, parts))}$"


def _parts(pattern: str) -> Iterator[_Part]:
    """From one end of the text to the other. Raises ValueError for groups, alternatives and flags."""
    at = 1 if pattern.startswith("^") else 0
    if not at:
        yield _Part(ANY, 0, None)
    while found := PART.match(pattern, at):
        at = found.end()
        yield _Part(found["character"], *_times(found))
    if pattern[at:] not in ("", "$"):
        raise ValueError("not a row of characters")
    if at == len(pattern):
        yield _Part(ANY, 0, None)


def _times(found: re.Match[str]) -> tuple[int, int | None]:
    if found["sign"]:
        return SIGNS[found["sign"]]
    if found["least"] is None:
        return 1, 1
    least = int(found["least"])
    if found["comma"] is None:
        return least, least
    return least, int(found["most"]) if found["most"] else None
