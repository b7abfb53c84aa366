"""One grammar for a whole assistant turn: free text, calls of the offered tools, a response schema.

auto        TEXT | text-before-a-call call (separator call)*
required    call (separator call)*
none        text in which the marker cannot be written
response    the response alone, or a call instead of it
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

from engine.errors import GrammarError
from engine.grammars.json_schema import CheckedSchema, check_arguments_schema, check_schema
from engine.grammars.matcher import GrammarCompiler, Matcher
from engine.grammars.tool_formats import ToolFormat
from engine.types import GrammarKind, Receipt, ReceiptEntry, Request, ToolChoiceMode

ANY_TEXT = "/(?s:.*)/"


@dataclass(frozen=True, slots=True)
class Turn:
    """What one turn may write."""

    source: str | None  # the grammar, as GrammarCompiler takes it; None: anything
    parts: Mapping[str, str]  # path into the request -> the grammar of that tool or response alone
    receipt: Receipt
    has_calls: bool

    def compile(self, compiler: GrammarCompiler) -> Matcher | None:
        """A matcher at the turn's start. Raises GrammarError that names the one tool or response to blame."""
        if self.source is None:
            return None
        try:
            return compiler.compile(self.source, param="tools")
        except GrammarError:
            for path, source in self.parts.items():
                compiler.compile(source, param=path)
            raise


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
        self._parts: dict[str, str] = {}

    def build(self) -> Turn:
        has_calls = bool(self._request.callable_tools)
        rules = self._rules(has_calls)
        source = self._assemble(rules) if rules else None
        return Turn(source, self._parts, Receipt(tuple(self._entries)), has_calls)

    def _rules(self, has_calls: bool) -> list[str]:
        response = self._response()
        if not has_calls:
            if response:
                return [f"start: {response}"]
            return self._text_without_calls() if self._request.tools else []
        required = self._request.tool_choice.mode is ToolChoiceMode.REQUIRED
        marker = self._terminals(self._family.marker)
        if required:
            start = [f"start: {marker} calls"]
        elif response:
            start = [f"start: {response} | {marker} calls"]
        else:
            start = self._text_then_calls(marker)
        return [*start, *self._calls()]

    def _text_then_calls(self, marker: str) -> list[str]:
        if self._family.marker in self._special_tokens:
            return [f"start: TEXT | TEXT? {marker} calls", f"TEXT: {ANY_TEXT}"]
        # A terminal that ends as soon as the marker is whole. One that merely excluded the marker would swallow
        # the marker's beginning and then forbid its end, because the lexer is greedy.
        return [
            "start: TEXT | before_call calls",
            f"before_call[suffix={json.dumps(self._family.marker)}]: {ANY_TEXT}",
            f"TEXT: {ANY_TEXT}",
        ]

    def _text_without_calls(self) -> list[str]:
        if self._family.marker in self._special_tokens:
            return []  # special tokens are masked out of free text as it is
        marker = json.dumps(self._family.marker)
        return ["start: TEXT", f"TEXT: {ANY_TEXT} & ~({ANY_TEXT} {marker} {ANY_TEXT})"]

    def _calls(self) -> list[str]:
        one_call = not self._request.parallel_tool_calls or self._request.tool_choice.exactly_one
        more = "" if one_call else f" ({self._terminals(self._family.separator + self._family.marker)} call)*"
        allowed = self._request.callable_tools
        offered = {position: tool for position, tool in enumerate(self._request.tools) if tool in allowed}
        rules = [f"calls: call{more}", "call: " + " | ".join(f"call_{position}" for position in offered)]
        for position, tool in offered.items():
            path = f"tools[{position}].parameters"
            checked = check_arguments_schema(tool.parameters, path, open_objects=self._request.open_objects)
            before = f"{self._family.before_name}{tool.name}{self._family.before_arguments}"
            arguments = self._json(checked, path)
            rules.append(f"call_{position}: {self._terminals(before)} {arguments} {self._terminals(self._family.end)}")
        return rules

    def _response(self) -> str | None:
        grammar = self._request.response
        if grammar is None:
            return None
        match grammar.kind:
            case GrammarKind.JSON_SCHEMA:
                return self._json(check_schema(json.loads(grammar.source), "response"), "response")
            case GrammarKind.CHOICE:
                return self._subgrammar(_choice_lark(grammar.source))
            case GrammarKind.REGEX:
                return self._subgrammar(f"start: {_regex_literal(grammar.source)}")
            case GrammarKind.LARK:
                return self._subgrammar(grammar.source)

    def _json(self, checked: CheckedSchema, path: str) -> str:
        self._entries.extend(checked.entries)
        self._parts[path] = f"start: {checked.lark()}"
        return checked.lark()

    def _subgrammar(self, lark: str) -> str:
        """A grammar of its own, so that its rules' names cannot meet ours."""
        self._parts["response"] = lark
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
        return json.dumps(text, ensure_ascii=False) if text else ""

    def _assemble(self, rules: list[str]) -> str:
        lark = "%llguidance {}\n" + "\n".join(rules) + "\n"
        if not self._subgrammars:
            return lark
        return json.dumps({"grammars": [{"name": "turn", "lark_grammar": lark}, *self._subgrammars]})


def _choice_lark(source: str) -> str:
    options = json.loads(source)
    if not options or "" in options:
        raise GrammarError("a choice must have at least one option, and no empty one", param="response")
    return "start: " + " | ".join(json.dumps(option, ensure_ascii=False) for option in dict.fromkeys(options))


def _regex_literal(pattern: str) -> str:
    """The pattern between Lark's slashes: bare slashes escaped, escaped pairs left as they are."""
    escapes = {"/": "\\/", "\n": "\\n"}
    return "/" + re.sub(r"\\.|/|\n", lambda found: escapes.get(found[0], found[0]), pattern, flags=re.DOTALL) + "/"
