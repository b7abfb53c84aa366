"""The input of a custom tool inside a call: raw text, under a grammar of its own, up to what ends the call.

Where the end is a special token, text cannot spell it. Where it is text, the input must not contain it: any text and
regexes are narrowed so, and a Lark grammar that might write its first character is refused.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from engine.errors import GrammarError
from engine.events import Enforcement, ReceiptEntry
from engine.grammars.literals import ANY_TEXT, regex_literal, string_literal
from engine.types import CustomTool, GrammarKind

# Strings, regexes and comments of a Lark grammar, in the order in which a reader meets them.
_PIECES = re.compile(
    r'(?P<string>"(?:\\.|[^"\\])*")|(?P<regex>/(?:\\.|[^/\\\n])+/[a-z]*)|(?P<comment>(?://|\#)[^\n]*)', re.DOTALL
)
# What can bring in characters that stand in no string or regex: complements, JSON, special tokens, other grammars.
_OPAQUE = re.compile(r"~|%json|%regex|@|<|%import(?!\s+common\.(?:WS|WS_INLINE|INT|NUMBER|FLOAT|WORD|LETTER|DIGIT)\b)")


@dataclass(frozen=True, slots=True)
class InputGrammar:
    """How one custom tool's input stands in the turn's grammar."""

    rules: tuple[str, ...]  # to be added to the turn's
    body: str  # the input and the call's end
    source: str  # the input alone, as a whole grammar
    subgrammar: str | None = None  # Lark source that `body` refers to as @{subgrammar}
    probes: tuple[str, ...] = ()  # grammars that must not compile: each is a way to write the end's first character
    entries: tuple[ReceiptEntry, ...] = ()


def input_grammar(tool: CustomTool, *, end: str, end_token: int | None, name: str, path: str) -> InputGrammar:
    """end: what ends the call; end_token: its id where it is one special token. name: for the rules.

    Raises GrammarError, naming path, for a Lark grammar that may write `end`.
    """
    grammar = tool.format
    if grammar is not None and grammar.kind is GrammarKind.LARK:
        return _lark(grammar.source, end=end, end_token=end_token, name=name, path=path)
    text = ANY_TEXT if grammar is None else regex_literal(grammar.source)
    if end_token is not None:
        return InputGrammar((f"{name.upper()}: {text}",), f"{name.upper()} <[{end_token}]>", f"start: {text}")
    without_end = f"{text} & ~({ANY_TEXT} {string_literal(end)} {ANY_TEXT})"
    rules = (f"{name.upper()}: {without_end}", f"{name}[suffix={string_literal(end)}]: {name.upper()}")
    entry = ReceiptEntry(path, Enforcement.NARROWED, f"the input cannot contain {end}")
    return InputGrammar(rules, name, f"start: TEXT\nTEXT: {without_end}", entries=(entry,))


def _lark(source: str, *, end: str, end_token: int | None, name: str, path: str) -> InputGrammar:
    if end_token is not None:
        return InputGrammar((), f"@{name} <[{end_token}]>", source, subgrammar=source)
    first = end[0]
    probes = []
    for kind, text in _pieces(source, path):
        if kind == "string" and (first in text or "\\x" in text or "\\u" in text):
            raise may_write(first, path)
        if kind == "regex":
            probes.append(f"start: TEXT\nTEXT: {text} & ({ANY_TEXT} {string_literal(first)} {ANY_TEXT})")
    return InputGrammar((), f"@{name} {string_literal(end)}", source, subgrammar=source, probes=tuple(probes))


def _pieces(source: str, path: str) -> Iterator[tuple[str, str]]:
    position = 0
    for found in _PIECES.finditer(source):
        _check_transparent(source[position : found.start()], path)
        position = found.end()
        assert found.lastgroup is not None
        yield found.lastgroup, found[0]
    _check_transparent(source[position:], path)


def _check_transparent(between: str, path: str) -> None:
    if opaque := _OPAQUE.search(between):
        reason = f"{opaque[0]!r} in it may write what ends a call; with this model's format it is not allowed"
        raise GrammarError(f"{path} cannot be enforced: {reason}", param=path)


def may_write(character: str, path: str) -> GrammarError:
    """The refusal of a grammar that may write the character with which a call's end begins."""
    reason = f"it may write {character!r}, with which this model's format ends a call"
    return GrammarError(f"{path} cannot be enforced: {reason}", param=path)
