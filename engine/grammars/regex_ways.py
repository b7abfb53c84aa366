"""A regex as its outermost alternatives, so that anchors inside of its first and last groups stand at their ends.

`(?:^|,)a(?:;|$)` is `^a;`, `^a$`, `,a;` or `,a$`. Only groups at either end are opened: elsewhere an anchor asks for
what stands beside it.
"""

import re
from collections.abc import Iterator

PART = re.compile(r"\\.|\[\^?(?:\\.|[^\]])*\]|[()|^$]", re.DOTALL)
OPENS = "(?:"
REPEATS = ("*", "+", "?", "{")
MAX_OPENED = 16  # alternatives in a group that is opened


def ways_of(regex: str) -> list[str]:
    """Together they match what the regex matches. Flags that stand before a regex are no part of it."""
    found: list[str] = []
    for way in _alternatives(regex):
        opened = _opened(way)
        found += [way] if opened is None else [each for part in opened for each in ways_of(part)]
    return found


def _parts(regex: str) -> Iterator[tuple[str, int, int]]:
    """What is no plain character, where it stands, and how deep in groups; a parenthesis is outside of its own."""
    depth = 0
    for part in PART.finditer(regex):
        depth -= part[0] == ")"
        yield part[0], part.start(), depth
        depth += part[0] == "("


def _alternatives(regex: str) -> list[str]:
    cuts = [at for mark, at, depth in _parts(regex) if mark == "|" and depth == 0]
    return [regex[start + 1 : stop] for start, stop in zip([-1, *cuts], [*cuts, len(regex)], strict=True)]


def _opened(way: str) -> list[str] | None:
    """The alternatives of the first or the last group, each in its place; None where neither has an anchor."""
    opens = [at for mark, at, depth in _parts(way) if mark == "(" and depth == 0]
    closes = [at + 1 for mark, at, depth in _parts(way) if mark == ")" and depth == 0]
    for start, stop in zip(opens[:1] + opens[-1:], closes[:1] + closes[-1:], strict=False):
        is_outer = (start == 0 and not way.startswith(REPEATS, stop)) or stop == len(way)
        if not is_outer or not way.startswith(OPENS, start):
            continue
        inner = way[start + len(OPENS) : stop - 1]
        options = _alternatives(inner)
        has_anchor = any(mark in ("^", "$") for mark, _, _ in _parts(inner))
        if has_anchor and len(options) <= MAX_OPENED:
            return [way[:start] + option + way[stop:] for option in options]
    return None
