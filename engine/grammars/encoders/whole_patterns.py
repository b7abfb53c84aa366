"""A JSON schema's pattern, which matches anywhere in a string, as a regex of the whole string."""

import re
from collections.abc import Iterator

from engine.grammars.literals import regex_literal
from engine.grammars.schema_walk import refusal

ANY = "(?s:.*)"


def whole_regex(pattern: str, path: str, *, before: str = "", after: str = "") -> str:
    """A terminal for the strings that the pattern matches; before, after: literal text around them.

    pattern: in the dialect of engine.grammars.schema_patterns. SchemaError, by path, where ^ or $ stand inside of it.
    """
    ways = "|".join(_whole(each, path) for each in _choices(pattern))
    return regex_literal(f"{re.escape(before)}({ways}){re.escape(after)}")


def _whole(pattern: str, path: str) -> str:
    """One choice of a pattern, extended to the string's ends where it is not anchored there."""
    if (inner := _inside_of_group(pattern)) is not None:
        return "|".join(_whole(each, path) for each in _choices(inner))
    plain = _plain(pattern)
    begins, ends = plain.startswith("^"), plain.endswith("$")
    end = len(pattern) - ends
    if re.search(r"[\^$]", plain[begins:end]):
        raise refusal(path, "in this model's format, ^ and $ can stand at the ends of a pattern's choices only")
    return ("" if begins else ANY) + f"({pattern[begins:end]})" * (begins < end) + ("" if ends else ANY)


def _plain(pattern: str) -> str:
    """The pattern, as long as before, with nothing that is escaped or in a class."""
    return re.sub(r"\\.|\[(?:\\.|[^\]])*\]", lambda found: "x" * len(found[0]), pattern, flags=re.DOTALL)


def _choices(pattern: str) -> Iterator[str]:
    """The pattern cut at each | that is in no group."""
    depth, start = 0, 0
    for at, character in enumerate(_plain(pattern)):
        depth += {"(": 1, ")": -1}.get(character, 0)
        if character == "|" and depth == 0:
            yield pattern[start:at]
            start = at + 1
    yield pattern[start:]


def _inside_of_group(pattern: str) -> str | None:
    """What is in the group that the pattern is; None where it is more than one plain group."""
    depth = 0
    for at, character in enumerate(_plain(pattern)):
        depth += {"(": 1, ")": -1}.get(character, 0)
        if depth == 0:
            return pattern[3:at] if pattern.startswith("(?:") and at == len(pattern) - 1 else None
    return None
