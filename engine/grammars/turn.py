"""One grammar for a whole assistant turn: free text, calls of the offered tools, a response schema.

auto        TEXT | text-before-a-call call (separator call)*
required    call (separator call)*
none        text in which the marker cannot be written
response    the response alone, or a call instead of it

Calls begin with the family's marker. Beside a response they can only be the whole turn, and the response cannot begin
so: one look at the turn's start tells which it is, and a marker inside the response is the response's own.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from engine.errors import GrammarError, MatcherError, SchemaError
from engine.events import Enforcement, Receipt, ReceiptEntry
from engine.grammars.custom_tools import input_grammar, may_write
from engine.grammars.json_schema import CheckedSchema, check_arguments_schema, check_schema
from engine.grammars.lark_source import check_callers
from engine.grammars.literals import ANY_TEXT, regex_literal, string_literal
from engine.grammars.matcher import GrammarCompiler, Matcher
from engine.grammars.strict import check_strict
from engine.grammars.tool_formats import ToolFormat
from engine.types import CustomTool, GrammarKind, Request, Tool, ToolChoiceMode

MAX_WORDS = 2**15  # of a bitmask: a million tokens


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a turn's grammar, compiled alone to see whether it is to blame."""

    param: str  # the tool or response that it belongs to
    path: str  # its own
    source: str
    may_outgrow: bool = False  # a regex that may be too large, which shows only at its first character
    may_be_empty: bool = False  # a grammar that may allow no text, which shows only where nothing stands before it

    def compiles(self, compiler: GrammarCompiler) -> bool:
        """Whether any text satisfies it."""
        try:
            compiler.compile(self.source, param=self.path)
        except GrammarError:
            return False
        return True

    def check(self, compiler: GrammarCompiler) -> Matcher:
        """A matcher at the part's start, or past its first token where it may outgrow. Raises GrammarError."""
        try:
            matcher = compiler.compile(self.source, param=self.path)
            if self.may_outgrow:
                matcher.accept([_first_allowed(matcher)])
        except GrammarError as error:
            raise GrammarError(str(error), param=self.param) from None
        except MatcherError as error:
            raise GrammarError(f"{self.path} cannot be enforced: {error}", param=self.param) from None
        return matcher


@dataclass(frozen=True, slots=True)
class Turn:
    """What one turn may write."""

    source: str | None  # the grammar, as GrammarCompiler takes it; None: anything
    parts: tuple[Part, ...]  # inner ones first, and the response last
    probes: tuple[Part, ...]  # each compiles only if a custom tool's grammar may write what ends its input
    marker: str  # what opens a call, as a grammar
    receipt: Receipt
    has_calls: bool
    has_response: bool  # text is bound by a grammar

    def compile(self, compiler: GrammarCompiler) -> Matcher | None:
        """A matcher at the turn's start. Raises GrammarError that names the one tool or response to blame."""
        if self.source is None:
            return None
        try:
            matcher = compiler.compile(self.source, param="tools" if self.has_calls else "response")
        except GrammarError:
            for part in self.parts:
                part.check(compiler)
            raise
        for part in self.parts:
            if part.may_outgrow or part.may_be_empty:
                part.check(compiler)
        for probe in self.probes:
            if probe.compiles(compiler):
                raise may_write("<", probe.param)
        if self.has_calls and self.has_response:
            self._check_response(compiler)
        return matcher

    def _check_response(self, compiler: GrammarCompiler) -> None:
        opening = compiler.compile(f"start: {self.marker}", param="tools").forced_tokens()
        if self.parts[-1].check(compiler).validate(opening) == len(opening):
            reason = "it could begin as a call of a tool does; both cannot be offered together"
            raise GrammarError(f"response cannot be enforced: {reason}", param="response")


def _first_allowed(matcher: Matcher) -> int:
    row = np.zeros(MAX_WORDS, dtype=np.int32)
    matcher.fill_bitmask(row)
    return int(np.unpackbits(row.view(np.uint8), bitorder="little").argmax())


def build_turn(request: Request, family: ToolFormat, special_tokens: Mapping[str, int]) -> Turn:
    """The grammar of the turn that answers the request.

    special_tokens: ids of the tokens that are written as one and can never be spelled.
    Raises SchemaError or GrammarError, naming the tool or response by path.
    """
    return _TurnBuilder(request, family, special_tokens).build()


class _TurnBuilder:
    def __init__(self, request: Request, family: ToolFormat, special_tokens: Mapping[str, int]) -> None:
        self._request = request
        self._family = family
        self._special_tokens = special_tokens
        self._entries: list[ReceiptEntry] = []
        self._subgrammars: list[dict[str, object]] = []
        self._parts: list[Part] = []
        self._probes: list[Part] = []

    def build(self) -> Turn:
        has_calls = bool(self._request.callable_tools)
        rules = self._rules(has_calls)
        return Turn(
            source=self._assemble(rules) if rules else None,
            parts=tuple(self._parts),
            probes=tuple(self._probes),
            marker=self._terminals(self._family.marker),
            receipt=Receipt(tuple(self._entries)),
            has_calls=has_calls,
            has_response=self._request.response is not None and not self._must_call,
        )

    @property
    def _must_call(self) -> bool:
        return self._request.tool_choice.mode is ToolChoiceMode.REQUIRED

    def _rules(self, has_calls: bool) -> list[str]:
        calls = self._calls() if has_calls else []
        response = self._response()
        if not calls:
            if response:
                return [f"start: {response}"]
            return self._text_without_calls() if self._request.tools else []
        marker = self._terminals(self._family.marker)
        if self._must_call:
            start = [f"start: {marker} calls"]
        elif response:
            start = [f"start: {response} | {marker} calls"]
        else:
            start = self._text_then_calls(marker)
        return [*start, *calls]

    def _text_then_calls(self, marker: str) -> list[str]:
        if self._family.marker in self._special_tokens:
            return [f"start: TEXT | TEXT? {marker} calls", self._text_without_marker()]
        # A terminal that ends as soon as the marker is whole. One that merely excluded the marker would swallow
        # the marker's beginning and then forbid its end, because the lexer is greedy.
        return [
            "start: TEXT | before_call calls",
            f"before_call[suffix={string_literal(self._family.marker)}]: {ANY_TEXT}",
            f"TEXT: {ANY_TEXT}",
        ]

    def _text_without_calls(self) -> list[str]:
        return ["start: TEXT", self._text_without_marker()]

    def _text_without_marker(self) -> str:
        # Where the marker is a token, this is about its spelling: read back by a chat template, it would be the token.
        return f"TEXT: {ANY_TEXT} & ~({ANY_TEXT} {string_literal(self._family.marker)} {ANY_TEXT})"

    def _calls(self) -> list[str]:
        one_call = not self._request.parallel_tool_calls or self._request.tool_choice.exactly_one
        more = "" if one_call else f" ({self._terminals(self._family.separator + self._family.marker)} call)*"
        allowed = self._request.callable_tools
        offered = {position: tool for position, tool in enumerate(self._request.tools) if tool in allowed}
        rules = [f"calls: call{more}", "call: " + " | ".join(f"call_{position}" for position in offered)]
        for position, tool in offered.items():
            is_custom = isinstance(tool, CustomTool)
            before = self._family.before_input if is_custom else self._family.before_arguments
            header = self._terminals(f"{self._family.before_name}{tool.name}{before}")
            body = (
                self._input(tool, position, rules) if isinstance(tool, CustomTool) else self._arguments(tool, position)
            )
            rules.append(f"call_{position}: {header} {body}")
        return rules

    def _arguments(self, tool: Tool, position: int) -> str:
        path = f"tools[{position}].parameters"
        asked = self._request
        checked = check_arguments_schema(
            tool.parameters,
            path,
            open_objects=asked.open_objects,
            lenient=asked.lenient,
            strict_formats=asked.strict_formats,
        )
        if tool.strict:
            check_strict(tool.parameters, path)
        return f"{self._json(checked, path)} {self._terminals(self._family.end)}"

    def _input(self, tool: CustomTool, position: int, rules: list[str]) -> str:
        path, end = f"tools[{position}].format", self._family.input_end
        found = input_grammar(
            tool, end=end, end_token=self._special_tokens.get(end), name=f"input_{position}", path=path
        )
        rules.extend(found.rules)
        self._parts.append(Part(path, path, found.source, may_be_empty=tool.format is not None))
        self._probes += [Part(path, path, probe) for probe in found.probes]
        self._entries += found.entries
        if found.subgrammar is not None:
            self._subgrammars.append({"name": f"input_{position}", "lark_grammar": found.subgrammar})
        return found.body

    def _response(self) -> str | None:
        grammar = self._request.response
        if grammar is None:
            return None
        match grammar.kind:
            case GrammarKind.JSON_SCHEMA:
                asked = self._request
                schema = json.loads(grammar.source)
                checked = check_schema(schema, "response", lenient=asked.lenient, strict_formats=asked.strict_formats)
                return self._json(checked, "response")
            case GrammarKind.CHOICE:
                return self._subgrammar(_choice_lark(grammar.source))
            case GrammarKind.REGEX:
                return self._subgrammar(f"start: {regex_literal(grammar.source)}")
            case GrammarKind.LARK:
                check_callers(grammar.source, "response")
                return self._subgrammar(grammar.source)

    def _json(self, checked: CheckedSchema, path: str) -> str:
        if checked.vetoed:  # nothing checks values as they close yet
            first = next(entry for entry in checked.entries if entry.enforcement is Enforcement.VETO)
            raise SchemaError(f"{first.path}: this keyword cannot be enforced", param=first.path)
        self._entries.extend(checked.entries)
        for where, pattern in checked.patterns.items():
            string = CheckedSchema({"type": "string", "pattern": pattern})
            self._parts.append(Part(path, where, f"start: {string.lark()}", may_outgrow="{" in pattern))
        self._parts.append(Part(path, path, f"start: {checked.lark()}"))
        return checked.lark()

    def _subgrammar(self, lark: str) -> str:
        """A grammar of its own, so that its rules' names cannot meet ours."""
        self._parts.append(Part("response", "response", lark))
        name = f"part_{len(self._subgrammars)}"
        self._subgrammars.append({"name": name, "lark_grammar": lark})
        return f"@{name}"

    def _terminals(self, text: str) -> str:
        """The text as a sequence of literals, special tokens among them by their ids."""
        for token, token_id in self._special_tokens.items():
            before, found, after = text.partition(token)
            if found:
                around = (self._terminals(before), f"<[{token_id}]>", self._terminals(after))
                return " ".join(part for part in around if part)
        return string_literal(text) if text else ""

    def _assemble(self, rules: list[str]) -> str:
        lark = "%llguidance {}\n" + "\n".join(rules) + "\n"
        if not self._subgrammars:
            return lark
        return json.dumps({"grammars": [{"name": "turn", "lark_grammar": lark}, *self._subgrammars]})


def _choice_lark(source: str) -> str:
    options = json.loads(source)
    if not options or "" in options:
        raise GrammarError("a choice must have at least one option, and no empty one", param="response")
    return "start: " + " | ".join(string_literal(option) for option in dict.fromkeys(options))
