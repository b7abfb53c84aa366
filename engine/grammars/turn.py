"""One grammar for a whole assistant turn: free text, calls of the offered tools, a response schema.

auto        TEXT | text-before-a-call call (separator call)*
required    call (separator call)*
none        text in which the marker cannot be written
response    the response alone, or a call instead of it

Each of them may follow a block of reasoning, which ends where its end tag is whole; or begin inside of one, where the
prompt has opened it.

Calls begin with the family's marker. Where that may begin a text, no text beside tools begins with its first character:
models write such calls in more spellings than one. Behind reasoning, text may have an end of its own, in some families.

Beside a response, calls can only be the whole turn, and it cannot begin so: one look at the turn's start tells
which it is, and a marker inside the response is the response's own.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from engine.errors import GrammarError, RequestError
from engine.events import Enforcement, Receipt, ReceiptEntry
from engine.grammars.closing_bounds import ClosingBound, longest_closing
from engine.grammars.closing_hints import ClosingHints
from engine.grammars.custom_tools import input_grammar, may_write
from engine.grammars.encoders.json_objects import json_rules
from engine.grammars.json_schema import CheckedSchema, check_schema
from engine.grammars.lark_source import check_callers
from engine.grammars.literals import ANY_TEXT, SpecialTerminals, regex_literal, string_literal
from engine.grammars.matcher import GrammarCompiler, Matcher
from engine.grammars.other_calls import opened_otherwise, other_calls
from engine.grammars.strict import check_strict
from engine.grammars.tool_format import Opening, ToolFormat, split_at_id
from engine.grammars.tool_schemas import SchemaOptions, ToolSchemas
from engine.grammars.turn_closing import TurnClosing, hints_of
from engine.grammars.turn_parts import Part, VetoedPart
from engine.types import CustomTool, Grammar, GrammarKind, JsonObject, Request, Tool, ToolChoiceMode

MAX_TOOLS = 1024

_REASONING = {Opening.NONE: "", Opening.BEFORE: "reasoning?", Opening.INSIDE: "reasoning_rest"}


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
    bound: ClosingBound | None = None  # on what completes the turn, from any of its states; None: not known
    hints: ClosingHints = field(default_factory=ClosingHints)  # at what completes it
    vetoed: tuple[VetoedPart, ...] = ()  # what the grammar does not hold alone
    reasoning_begin: str | None = None  # what may open reasoning, where that is ordinary text
    has_text_begin: bool = False  # the family marks text, so that no response is taken for a call
    schemas: Mapping[str, JsonObject] = field(default_factory=dict)  # of the arguments, by the tool's name

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
                raise may_write("<", probe.path)
        if self.has_response and self.has_calls and not self.has_text_begin:
            self._check_response(compiler, self.marker, "a call of a tool does; both cannot be offered together")
        if self.has_response and not self.has_text_begin and self.reasoning_begin is not None:
            begin = string_literal(self.reasoning_begin)
            self._check_response(compiler, begin, "the model's reasoning does")
        return matcher

    def _check_response(self, compiler: GrammarCompiler, begin: str, what: str) -> None:
        opening = compiler.compile(f"start: {begin}", param="tools").forced_tokens()
        if self.parts[-1].check(compiler).validate(opening) == len(opening):
            raise GrammarError(f"response cannot be enforced: it could begin as {what}", param="response")


def build_turn(
    request: Request, family: ToolFormat, special_tokens: Mapping[str, int], opening: Opening = Opening.NONE
) -> Turn:
    """The grammar of the turn that answers the request. As TurnBuilder, in one go."""
    return TurnBuilder(request, family, special_tokens).build(opening)


class TurnBuilder:
    """Checks a request's tools and response before its prompt is rendered; then builds the turn that follows it."""

    def __init__(
        self,
        request: Request,
        family: ToolFormat,
        special_tokens: Mapping[str, int],
        schemas: ToolSchemas | None = None,
    ) -> None:
        """special_tokens: ids of the tokens that are written as one and can never be spelled. schemas: of tools that
        were read before, for the same family.

        Raises RequestError: SchemaError or GrammarError, naming the tool or response by path, or for too many tools.
        """
        if len(request.tools) > MAX_TOOLS:
            raise RequestError(f"tools has {len(request.tools)} tools; the limit is {MAX_TOOLS}", param="tools")
        self._request = request
        self._family = family
        self._special_tokens = special_tokens
        self._terminals = SpecialTerminals(special_tokens)
        self._read_schemas = schemas or ToolSchemas(family.arguments)
        self._entries: list[ReceiptEntry] = []
        self._subgrammars: list[dict[str, object]] = []
        self._parts: list[Part] = []
        self._probes: list[Part] = []
        self._schemas: dict[str, JsonObject] = {}
        self._vetoed: list[VetoedPart] = []
        self._closing = TurnClosing()
        self._has_calls = bool(request.callable_tools)
        self._other_calls: dict[str, str] = {}  # rules
        self._note_text()
        self._call_rules = self._calls() if self._has_calls else []
        self._response_rules: list[str] = []
        self._response_body = self._response()

    def build(self, opening: Opening) -> Turn:
        """opening: where the prompt leaves the turn."""
        return Turn(
            source=self._source(opening),
            parts=tuple(self._parts),
            probes=tuple(self._probes),
            marker=self._terminals(self._family.marker),
            receipt=Receipt(tuple(self._entries)),
            has_calls=self._has_calls,
            has_response=self._request.response is not None and not self._must_call,
            reasoning_begin=self._reasoning_text(opening),
            has_text_begin=bool(self._family.text_begin),
            schemas=self._schemas,
            bound=self._closing.bound(self._family, [tool.name for tool in self._request.callable_tools]),
            hints=self._closing.hints,
            vetoed=tuple(self._vetoed),
        )

    @property
    def _options(self) -> SchemaOptions:
        return SchemaOptions(self._request.open_objects, self._request.lenient, self._request.strict_formats)

    @property
    def _must_call(self) -> bool:
        return self._request.tool_choice.mode is ToolChoiceMode.REQUIRED

    def _source(self, opening: Opening) -> str | None:
        body = self._body(opening)
        if not body:
            return None
        answer = self._answer(opening)
        start = f"start: {_REASONING[opening]} body"
        if answer:
            start += f" | {_REASONING[opening].removesuffix('?')} answer"
        return self._assemble([start, *self._reasoning(opening), *body, *answer, *self._response_rules])

    def _reasoning(self, opening: Opening) -> list[str]:
        if opening is Opening.NONE:
            return []
        literals = self._family.reasoning
        assert literals is not None
        inside = f"reasoning_rest: reasoning_text {self._terminals(literals.after)}"
        rules = [inside, *self._ended("reasoning_text", literals.end)]
        if opening is Opening.BEFORE:
            rules.append(f"reasoning: {self._terminals(literals.begin)} reasoning_rest")
        return rules

    def _answer(self, opening: Opening) -> list[str]:
        """Text behind reasoning, and what ends it, where the family has that; not of a turn that has no free text."""
        if not (end := self._answer_end(opening)) or self._must_call or self._response_body:
            return []
        text = self._text(opening, marker=bool(self._request.tools))
        if self._begins_with_token(end):
            return [f"answer: TEXT {self._terminals(end)}"]
        return [text.replace("TEXT", "ANSWER", 1), f"answer[suffix={string_literal(end)}]: ANSWER"]

    def _answer_end(self, opening: Opening) -> str:
        reasoning = self._family.reasoning
        return "" if reasoning is None or opening is Opening.NONE else reasoning.answer_end

    def _ended(self, name: str, end: str) -> list[str]:
        """A rule for any text before an end, and the end: the text ends as soon as the end is whole."""
        if self._begins_with_token(end):
            text = f"{name.upper()}: {ANY_TEXT} & ~({ANY_TEXT} {string_literal(end)} {ANY_TEXT})"
            return [f"{name}: {name.upper()} {self._terminals(end)}", text]
        return [f"{name}[suffix={string_literal(end)}]: {ANY_TEXT}"]

    def _begins_with_token(self, text: str) -> bool:
        return any(text.startswith(token) for token in self._special_tokens)

    def _reasoning_text(self, opening: Opening) -> str | None:
        """With what text the reasoning may begin, where that is no token: no other text may begin so."""
        literals = self._family.reasoning
        if opening is not Opening.BEFORE or literals is None:
            return None
        return self._before_tokens(literals.begin) or None

    def _before_tokens(self, text: str) -> str:
        """The text up to the first special token in it."""
        return min((text.partition(token)[0] for token in self._special_tokens), key=len, default=text)

    def _body(self, opening: Opening) -> list[str]:
        response, begin = self._response_body, self._terminals(self._family.text_begin)
        if not self._has_calls:
            if response:
                return [f"body: {begin} {response}"]
            is_free = not self._request.tools and opening is Opening.NONE and not begin
            return [] if is_free else [f"body: {begin} TEXT", self._text(opening, marker=bool(self._request.tools))]
        marker = self._terminals(self._family.marker)
        if self._must_call:
            start = [f"body: {marker} calls"]
        elif response:
            start = [f"body: {begin} {response} | {self._opened(self._marker_beside_json)}"]
        else:
            start = self._text_then_calls(marker, opening)
        return [*start, *self._call_rules]

    @property
    def _marker_beside_json(self) -> str:
        """A marker that is JSON in the response's own lexemes: the lexer is greedy, and goes on through longer ones."""
        if not self._family.calls_are_all:
            return self._terminals(self._family.marker)
        keys = re.findall(r'"\w+": ', self._family.marker)
        # Our own rules have a key and its sign as one, the library's as two.
        is_one = any(string_literal(key) in rule for key in keys for rule in self._response_rules)
        key = r'"\w+": ' if is_one else r'"\w+"|: '
        pieces = re.findall(rf"[\[{{]|{key}|.+", self._family.marker)
        return " ".join(map(self._terminals, pieces))

    def _opened(self, marker: str) -> str:
        """Calls in any of the family's ways."""
        return " | ".join([f"{marker} calls", *self._other_calls])

    def _text_then_calls(self, marker: str, opening: Opening) -> list[str]:
        text = self._text(opening, marker=True)
        if begin := self._terminals(self._family.text_begin):
            preamble = "preamble?" if self._family.preamble is not None else ""
            return [f"body: {begin} TEXT | {preamble} ({self._opened(marker)})", text, *self._preamble()]
        if self._family.calls_are_all:
            return [f"body: TEXT | {marker} calls", text]
        if self._begins_with_token(self._family.marker):
            return [f"body: TEXT | TEXT? {marker} calls", text]
        # A terminal that ends as soon as the marker is whole. One that merely excluded the marker would swallow
        # the marker's beginning and then forbid its end, because the lexer is greedy.
        text = self._text(opening, marker=False)
        return [
            "body: TEXT | before_call calls",
            f"before_call[suffix={string_literal(self._family.marker)}]: BEFORE_CALL",
            text.replace("TEXT", "BEFORE_CALL", 1),
            text,
        ]

    def _preamble(self) -> list[str]:
        block = self._family.preamble
        if block is None:
            return []
        whole = f"preamble: {self._terminals(block.begin)} preamble_text {self._terminals(block.after)}"
        return [whole, *self._ended("preamble_text", block.end)]

    def _text(self, opening: Opening, *, marker: bool) -> str:
        """Any text; marker: without the family's marker."""
        text = f"TEXT: {ANY_TEXT}"
        if marker and not self._family.calls_are_all:
            # Where the marker is a token, this is about its spelling: read back by a template, it would be the token.
            text += f" & ~({ANY_TEXT} {string_literal(self._spelled_marker)} {ANY_TEXT})"
        if self._request.tools and (barred := self._family.barred_beginnings):
            text += rf" & ~(/\s*/ ({' | '.join(map(string_literal, barred))}) {ANY_TEXT})"
        if end := self._answer_end(opening):
            assert self._family.reasoning is not None
            text += f" & ~({ANY_TEXT} {string_literal(end)} {ANY_TEXT})"
            text += f" & ~({string_literal(self._family.reasoning.after)} {ANY_TEXT})"
        begin = self._reasoning_text(opening)
        return text if begin is None else text + f" & ~({string_literal(begin)} {ANY_TEXT})"

    @property
    def _spelled_marker(self) -> str:
        """What opens a call, as text: its first token alone where it begins with one."""
        marker = self._family.marker
        return next((token for token in self._special_tokens if marker.startswith(token)), marker)

    def _calls(self) -> list[str]:
        family = self._family
        self._note_parallel()
        one_call = not (self._request.parallel_tool_calls and family.parallel) or self._request.tool_choice.exactly_one
        more = "" if one_call else f" ({self._terminals(family.separator)} call)*"
        allowed = {tool.name for tool in self._request.callable_tools}
        offered = {position: tool for position, tool in enumerate(self._request.tools) if tool.name in allowed}
        otherwise = opened_otherwise(self._request, family, offered)
        rules = [
            f"calls: {self._terminals(family.calls_begin)} call{more} {self._terminals(family.calls_end)}",
            "call: " + " | ".join(f"call_{position}" for position in offered),
        ]
        if family.call_ids is not None:
            rules.append(f"CALL_ID: /{family.call_ids.pattern}/")
        for position, tool in offered.items():
            is_custom = isinstance(tool, CustomTool)
            before = family.before_input if is_custom else family.before_arguments
            header = self._with_id(f"{family.before_name}{tool.name}{before}")
            body = (
                self._input(tool, position, rules)
                if isinstance(tool, CustomTool)
                else self._arguments(tool, position, rules)
            )
            if position in otherwise:
                rules.append(f"rest_{position}: {body}")
                body = f"rest_{position}"
            rules.append(f"call_{position}: {header} {body}")
        self._other_calls = other_calls(family, otherwise, self._with_id)
        return [*rules, *(f"{name}: {rule}" for name, rule in self._other_calls.items())]

    def _note_parallel(self) -> None:
        if (
            self._request.parallel_tool_calls
            and not self._family.parallel
            and not self._request.tool_choice.exactly_one
        ):
            detail = "the model's format has one call a turn"
            self._entries.append(ReceiptEntry("parallel_tool_calls", Enforcement.NARROWED, detail))

    def _note_text(self) -> None:
        barred = self._family.barred_beginnings
        if self._request.tools and barred and not self._must_call:
            detail = f"text cannot begin with {' or '.join(barred)}"
            self._entries.append(ReceiptEntry("tool_choice", Enforcement.NARROWED, detail))

    def _with_id(self, literal: str) -> str:
        return " CALL_ID ".join(map(self._terminals, split_at_id(literal)))

    def _arguments(self, tool: Tool, position: int, rules: list[str]) -> str:
        read = self._read_schemas.of(tool.parameters, position, self._options, self._terminals)
        path, checked, found = read.path, read.checked, read.grammar
        if tool.strict:
            check_strict(tool.parameters, path)
        self._json(checked, path, tool.name)
        self._closing.add_schema(checked, found.bound, read.hints)
        self._entries.extend(found.entries)
        if found.rules:
            self._parts.append(Part(path, "\n".join([f"start: {found.body} END", 'END: "."', *found.rules])))
        rules.extend(found.rules)
        assert isinstance(checked.schema, dict)
        self._schemas[tool.name] = checked.schema
        return f"{found.body} {self._with_id(self._family.end)}"

    def _input(self, tool: CustomTool, position: int, rules: list[str]) -> str:
        path, end = f"tools[{position}].format", self._family.input_end
        if not end:
            reason = f"the model's format, {self._family.name}, has no way to call a custom tool"
            raise GrammarError(f"tools[{position}] cannot be enforced: {reason}", param=f"tools[{position}]")
        end_token = self._special_tokens.get(end)
        found = input_grammar(tool, end=end, end_token=end_token, name=f"input_{position}", path=path)
        rules.extend(found.rules)
        self._parts.append(Part(path, found.source, may_be_empty=tool.format is not None))
        self._probes += [Part(path, probe) for probe in found.probes]
        if tool.format is not None:
            self._note_held(path, tool.format.kind.value)
        self._entries += found.entries
        self._add_input_closing(tool.format)
        self._closing.add_end(end, end_token)
        if found.subgrammar is not None:
            self._subgrammars.append({"name": f"input_{position}", "lark_grammar": found.subgrammar})
        return f"{found.body} {self._terminals(self._family.after_input)}"

    def _add_input_closing(self, written: Grammar | None) -> None:
        if written is None:
            self._closing.add_texts([""])  # it may end anywhere
        elif written.kind is GrammarKind.REGEX:
            self._closing.add_regex(written.source)
        else:
            self._closing.add_unknown()

    def _response(self) -> str | None:
        grammar = self._request.response
        if grammar is None:
            return None
        if grammar.kind is not GrammarKind.JSON_SCHEMA:
            self._note_held("response", grammar.kind.value)
        match grammar.kind:
            case GrammarKind.JSON_SCHEMA:
                lenient, strict = self._options.lenient, self._options.strict_formats
                schema = json.loads(grammar.source)
                checked = check_schema(schema, "response", lenient=lenient, strict_formats=strict)
                self._closing.add_schema(checked, longest_closing(checked.schema), hints_of(checked))
                return self._response_json(checked)
            case GrammarKind.CHOICE:
                options = _options(grammar.source)
                self._closing.add_texts(options)
                return self._subgrammar("start: " + " | ".join(map(string_literal, options)))
            case GrammarKind.REGEX:
                self._closing.add_regex(grammar.source)
                return self._subgrammar(f"start: {regex_literal(grammar.source)}")
            case GrammarKind.LARK:
                self._closing.add_unknown()
                check_callers(grammar.source, "response")
                return self._subgrammar(grammar.source)

    def _response_json(self, checked: CheckedSchema) -> str:
        self._json(checked, "response", None)
        found = json_rules(checked.schema)
        if found is None:
            return checked.lark()
        self._response_rules = list(found.rules)
        return found.body

    def _json(self, checked: CheckedSchema, path: str, tool: str | None) -> None:
        self._note_held(path, "all of the schema that no other entry names")
        self._entries.extend(checked.entries)
        if checked.vetoed:
            self._vetoed.append(VetoedPart(path, checked, tool))
        for where, pattern in checked.patterns.items():
            string = CheckedSchema({"type": "string", "pattern": pattern})
            self._parts.append(Part(where, string, may_outgrow="{" in pattern))
        self._parts.append(Part(path, checked))

    def _note_held(self, path: str, what: str) -> None:
        self._entries.append(ReceiptEntry(path, Enforcement.GRAMMAR, what))

    def _subgrammar(self, lark: str) -> str:
        """A grammar of its own, so that its rules' names cannot meet ours."""
        self._parts.append(Part("response", lark))
        name = f"part_{len(self._subgrammars)}"
        self._subgrammars.append({"name": name, "lark_grammar": lark})
        return f"@{name}"

    def _assemble(self, rules: list[str]) -> str:
        lark = "%llguidance {}\n" + "\n".join(dict.fromkeys(rules)) + "\n"  # tools may share some
        if not self._subgrammars:
            return lark
        return json.dumps({"grammars": [{"name": "turn", "lark_grammar": lark}, *self._subgrammars]})


def _options(source: str) -> list[str]:
    options: list[str] = list(dict.fromkeys(json.loads(source)))
    if not options or "" in options:
        raise GrammarError("a choice must have at least one option, and no empty one", param="response")
    return options
