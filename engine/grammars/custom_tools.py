"""The input of a custom tool inside a call: raw text, under a grammar of its own, up to what ends the call.

Where the end is a special token, text cannot spell it. Where it is text, the input must not contain it: any text and
regexes are narrowed so, and a Lark grammar that might write its first character is refused.
"""

from dataclasses import dataclass

from engine.errors import GrammarError
from engine.events import Enforcement, ReceiptEntry
from engine.grammars.lark_source import check_callers, literals
from engine.grammars.literals import ANY_TEXT, regex_literal, string_literal
from engine.types import CustomTool, GrammarKind


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
    check_callers(source, path)
    if end_token is not None:
        return InputGrammar((), f"@{name} <[{end_token}]>", source, subgrammar=source)
    first = end[0]
    probes = []
    for kind, text in literals(source, path):
        if kind == "string" and (first in text or "\\x" in text or "\\u" in text):
            raise may_write(first, path)
        if kind == "regex":
            probes.append(f"start: TEXT\nTEXT: {text} & ({ANY_TEXT} {string_literal(first)} {ANY_TEXT})")
    return InputGrammar((), f"@{name} {string_literal(end)}", source, subgrammar=source, probes=tuple(probes))


def may_write(character: str, path: str) -> GrammarError:
    """The refusal of a grammar that may write the character with which a call's end begins."""
    reason = f"it may write {character!r}, with which this model's format ends a call"
    return GrammarError(f"{path} cannot be enforced: {reason}", param=path)
