"""What a caller's Lark grammar is made of, as far as must be known without compiling it."""

import re
from collections.abc import Iterator

from engine.errors import GrammarError

# Strings, regexes and comments, in the order in which a reader meets them.
_PIECES = re.compile(
    r'(?P<string>"(?:\\.|[^"\\])*")|(?P<regex>/(?:\\.|[^/\\\n])+/[a-z]*)|(?P<comment>(?://|\#)[^\n]*)', re.DOTALL
)
# Special tokens are no text, and other grammars' names are ours.
_NOT_FOR_CALLERS = re.compile(r"[<@]")
# What can bring in characters that stand in no string or regex: complements, ranges, JSON, other grammars.
_OPAQUE = re.compile(r"~|\.\.|%json|%regex|%import(?!\s+common\.(?:WS|WS_INLINE|INT|NUMBER|FLOAT|WORD|LETTER|DIGIT)\b)")


def check_callers(source: str, path: str) -> None:
    """Refuse special tokens and references to other grammars. Raises GrammarError that names path."""
    for kind, text in _split(source):
        if kind == "between" and (found := _NOT_FOR_CALLERS.search(text)):
            reason = "special tokens and other grammars cannot be referred to"
            raise GrammarError(f"{path} cannot be enforced: {reason} ({found[0]!r})", param=path)


def literals(source: str, path: str) -> Iterator[tuple[str, str]]:
    """Its strings and regexes, as ("string" or "regex", text with quotes or slashes).

    Every character that the grammar can write stands in one of them; where that cannot be told, GrammarError.
    """
    for kind, text in _split(source):
        if kind == "between" and (opaque := _OPAQUE.search(text)):
            reason = f"{opaque[0]!r} in it may write what ends a call; with this model's format it is not allowed"
            raise GrammarError(f"{path} cannot be enforced: {reason}", param=path)
        if kind in ("string", "regex"):
            yield kind, text


def _split(source: str) -> Iterator[tuple[str, str]]:
    position = 0
    for found in _PIECES.finditer(source):
        yield "between", source[position : found.start()]
        position = found.end()
        assert found.lastgroup is not None
        yield found.lastgroup, found[0]
    yield "between", source[position:]
