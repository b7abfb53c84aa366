"""How one model family writes reasoning, text and tool calls: a frozen object that the grammar and the parser read."""

import enum
import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

from engine.decision_options import TOKENS_DECIDE, DecisionOptions
from engine.grammars.encoders.arguments import Arguments
from engine.grammars.encoders.json_arguments import JsonArguments
from engine.tool_display import EXAMPLE_FIRST, ToolStyle
from engine.types import ToolCall, ToolChoiceBy

JSON_ARGUMENTS = JsonArguments()
ID = "{id}"  # in a literal: where the model writes an id of the call


@dataclass(frozen=True, slots=True)
class Block:
    """Text between tags: reasoning, say. All fields are literal text.

    A block is: begin, any text without end, end, after. Markers of calls inside it are its text.
    """

    begin: str
    end: str
    after: str = ""  # between the block and what follows it


@dataclass(frozen=True, slots=True)
class Reasoning(Block):
    """How a family writes what it thinks before it answers."""

    history_key: str = "reasoning_content"  # of a message, where the chat template looks for it
    has_own_end: bool = True  # whether nothing but reasoning ends so
    answer_end: str = ""  # ends the text behind the reasoning, and the turn; the model may leave it out

    def is_in(self, chat_template: str | None) -> bool:
        """Whether models of this chat template reason so."""
        tags = (self.begin.strip(), self.end.strip())
        return any(tag in (chat_template or "") for tag in tags)

    def opening(self, prompt: str, *, may_open: bool) -> "Opening":
        """Where a turn after this prompt begins. may_open: whether the model reasons at all."""
        end = prompt.rstrip()
        if end.endswith(self.begin.strip()):
            return Opening.INSIDE
        is_over = end.endswith(("" if self.has_own_end else self.begin) + (self.end + self.after).rstrip())
        return Opening.BEFORE if may_open and not is_over else Opening.NONE


class Opening(enum.StrEnum):
    """Where a turn begins."""

    NONE = "none"  # after the reasoning, or there is none
    BEFORE = "before"  # the model may open its reasoning
    INSIDE = "inside"  # the prompt has opened it already


THINK = Reasoning(begin="<think>", end="</think>", after="\n\n")


@dataclass(frozen=True, slots=True)
class CallIds:
    """The ids of calls in a family that writes them. An index counts a conversation's calls, from 0 on."""

    pattern: str  # a regex of what the model writes in the place of {id}
    written: str  # by us, in that place; {name}, {index} and {digest} are filled in
    history: str  # likewise, of a message for the chat template

    def of(self, name: str, index: int) -> str:
        """What stands in the place of {id} in this call."""
        return self.written.format(name=name, index=index, digest=_digest(f"{name}{index}"))

    def of_history(self, call: ToolCall, index: int) -> str:
        """A call's id in a message for the chat template."""
        return self.history.format(name=call.name, index=index, digest=_digest(f"{call.id}{call.name}{index}"))


def _digest(text: str) -> str:
    """9 letters and digits, always the same for the same text."""
    return hashlib.sha256(text.encode()).hexdigest()[:9]


@dataclass(frozen=True, slots=True)
class OtherOpening:
    """Another way to open a call, which a model may choose: marker, the tool's name, before_arguments. Literal text.

    Then come the arguments and the family's end, and the turn ends: such a call is its turn's only one.
    """

    marker: str
    before_arguments: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolFormat:
    """One family's way of writing. All fields but the first ones are literal text, as it stands in the vocabulary.

    A turn's calls are: marker, calls_begin, call, separator, call, ..., calls_end; then the turn ends.
    A call is: before_name, the tool's name, before_arguments, the arguments, end.
    A custom tool's call is: before_name, name, before_input, the raw input, input_end, after_input.
    What is written or forced by us is written so; where a call is the model's choice, it may open it in another way.
    Text is: text_begin, the text. Before calls it is a preamble, where the family has one, or else just the text.
    """

    name: str
    models: str = ""
    source: str = ""  # where the format was read
    template_signs: tuple[str, ...] = ()  # a chat template with all of these has this format
    tokens: tuple[str, ...] = ()  # so has a model whose vocabulary has all of these, if its template writes no calls
    tekken_versions: tuple[str, ...] = ()  # so has a model whose tekken.json is of one of these

    marker: str  # opens the calls, and only this does; often a single special token
    calls_begin: str = ""  # between it and the first call
    before_name: str = ""
    before_arguments: str
    end: str
    separator: str = ""  # between two calls, what opens the next one included
    calls_end: str = ""
    arguments: Arguments = JSON_ARGUMENTS
    before_input: str = ""  # of a custom tool's call, in place of before_arguments; then comes its raw input
    input_end: str = ""  # ends a custom tool's input: text, or one token; none: custom tools cannot be called
    after_input: str = ""
    call_ids: CallIds | None = None
    parallel: bool = True  # whether a turn may have several calls
    other_openings: tuple[OtherOpening, ...] = ()  # of functions' calls, in families that mark text by text_begin
    # Whether calls are the whole turn: the marker counts at the turn's start only, and no text begins with its first
    # character, whatever blanks stand before it: models write the same call in more spellings than the format's.
    calls_are_all: bool = False
    other_markers: tuple[str, ...] = ()  # open calls elsewhere, in other programs' formats: no text begins with them
    text_begin: str = ""
    preamble: Block | None = None
    reasoning: Reasoning | None = THINK  # where the chat template has it

    # Around a tool's result, where the chat template does not know tools; {name} of the tool.
    response_begin: str = "<tool_response>\n"
    response_end: str = "\n</tool_response>"
    # Shown to models whose chat template does not show tools, unless the request has a tool_display; {tools}, {example}
    # and {marker} are filled in. Of the ways that benchmarks/tool_prompts.py compares, the one with most right calls.
    instructions: str = EXAMPLE_FIRST
    tool_style: ToolStyle = ToolStyle.SIGNATURES
    # How a turn that may have either becomes a call or text, where neither request nor engine says so.
    decision: DecisionOptions = TOKENS_DECIDE
    # How the tool of a turn's first call is chosen of several, if the turn is calibrated and the request does not say.
    tool_choice_by: ToolChoiceBy = ToolChoiceBy.TOKENS

    def __post_init__(self) -> None:
        if self.tool_choice_by is ToolChoiceBy.LIKELIHOOD and not self.before_arguments:
            raise ValueError(f"{self.name} cannot choose tools by likelihood: nothing in it ends a name")
        if not self.other_openings:
            return
        blocks = [block.begin for block in (self.preamble, self.reasoning) if block is not None]
        others = [opening.marker[:1] for opening in self.other_openings]
        first = {text[:1] for text in (self.marker, self.text_begin, *blocks)}
        if not self.text_begin or not all(others) or len(first.union(others)) < len(first) + len(others):
            raise ValueError(f"the other openings of {self.name} must begin as nothing else in a turn does")

    @property
    def other_ways(self) -> "tuple[ToolFormat, ...]":
        """The same with each of the other openings in the place of its own."""
        return tuple(
            replace(
                self,
                marker=each.marker,
                calls_begin="",
                before_name="",
                before_arguments=each.before_arguments,
                separator="",
                calls_end="",
                parallel=False,
                other_openings=(),
            )
            for each in self.other_openings
        )

    @property
    def sign(self) -> str:
        """With what a call begins, and no free text beside tools."""
        return self.marker[0] if self.calls_are_all else self.marker

    @property
    def barred_beginnings(self) -> tuple[str, ...]:
        """With what no free text begins beside tools, blanks before it or not; markers that no text has left out."""
        return (*((self.sign,) if self.calls_are_all else ()), *self.other_markers)

    @property
    def literals(self) -> tuple[str, ...]:
        """Everything that it writes between what a request brings."""
        return tuple(_strings(self))

    def rewritten(self, rewrite: Callable[[str], str]) -> "ToolFormat":
        """The same with each literal rewritten."""
        family: ToolFormat = _rewritten(self, rewrite)
        return family

    def write_call(self, name: str, arguments: str) -> str:
        """A whole call, alone in its turn, as the model would write it. arguments: JSON text."""
        return self._whole([self._call(name, arguments, 0)])

    def write_input(self, name: str, text: str) -> str:
        """A whole call of a custom tool, alone in its turn, as the model would write it."""
        return self._whole([self._input(name, text, 0)])

    def write_calls(self, calls: tuple[ToolCall, ...], *, num_before: int = 0) -> str:
        """A turn's calls as the model would write them; nothing where there are none.

        num_before: calls that earlier turns of the conversation have.
        """
        written = [
            (self._input if call.custom else self._call)(call.name, call.arguments, index)
            for index, call in enumerate(calls, num_before)
        ]
        return self._whole(written) if calls else ""

    def _whole(self, calls: list[str]) -> str:
        return f"{self.marker}{self.calls_begin}{self.separator.join(calls)}{self.calls_end}"

    def _call(self, name: str, arguments: str, index: int) -> str:
        before, end = (self._with_id(literal, name, index) for literal in (self.before_arguments, self.end))
        return f"{self.before_name}{name}{before}{self.arguments.write(arguments)}{end}"

    def _input(self, name: str, text: str, index: int) -> str:
        before = self._with_id(self.before_input, name, index)
        return f"{self.before_name}{name}{before}{text}{self.input_end}{self.after_input}"

    def _with_id(self, literal: str, name: str, index: int) -> str:
        return literal if self.call_ids is None else literal.replace(ID, self.call_ids.of(name, index))


NOT_WRITTEN = frozenset({"name", "models", "source", "instructions", "history_key", "pattern", "written", "history"})


def _strings(literals: Any) -> Iterator[str]:
    for field in fields(literals):
        value = getattr(literals, field.name)
        if type(value) is str and field.name not in NOT_WRITTEN:
            yield value
        for part in value if isinstance(value, tuple) else (value,):
            if is_dataclass(part):
                yield from _strings(part)


def _rewritten(literals: Any, rewrite: Callable[[str], str]) -> Any:
    changed: dict[str, Any] = {}
    for field in fields(literals):
        value = getattr(literals, field.name)
        if is_dataclass(value):
            changed[field.name] = _rewritten(value, rewrite)
        elif isinstance(value, tuple):
            changed[field.name] = tuple(_rewritten(part, rewrite) if is_dataclass(part) else part for part in value)
        elif type(value) is str and field.name not in NOT_WRITTEN:
            changed[field.name] = rewrite(value)
    return replace(literals, **changed)


def split_at_id(literal: str) -> tuple[str, ...]:
    """The literal's parts around the ids in it."""
    return tuple(re.split(re.escape(ID), literal))
