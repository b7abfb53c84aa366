"""One turn's text, read back: text in, Events out. No I/O, no ids; the same ToolFormat wrote the grammar.

A state is a method that takes what it can from the buffer and says whether there may be more to take.
A call ends where its JSON ends, never where a marker is seen.
"""

import copy
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Self

from engine.errors import MatcherError
from engine.events import ReasoningDelta, TextDelta, ToolCallDelta, ToolCallEnd, ToolCallStart
from engine.grammars.marks import Marks
from engine.grammars.tool_formats import Opening, Reasoning, ToolFormat

ParsedEvent = TextDelta | ReasoningDelta | ToolCallStart | ToolCallDelta | ToolCallEnd
State = Callable[["TurnParser"], Iterator[ParsedEvent]]


@dataclass(slots=True)
class _JsonScanner:
    """Finds the end of one JSON object or array in text that comes in pieces."""

    depth: int = 0
    in_string: bool = False
    escaped: bool = False

    def end(self, text: str) -> int | None:
        """The position after the value's last character; None where it does not end in this piece."""
        for position, character in enumerate(text):
            if self.in_string:
                self._inside_string(character)
            elif character == '"':
                self.in_string = True
            elif character in "{[":
                self.depth += 1
            elif character in "}]":
                self.depth -= 1
                if self.depth == 0:
                    return position + 1
        return None

    def _inside_string(self, character: str) -> None:
        if self.escaped:
            self.escaped = False
        elif character == "\\":
            self.escaped = True
        elif character == '"':
            self.in_string = False


def held_back(text: str, marker: str) -> int:
    """How many characters at the text's end may be the beginning of the marker."""
    for length in range(min(len(text), len(marker) - 1), 0, -1):
        if text.endswith(marker[:length]):
            return length
    return 0


class TurnParser:
    """Reads one assistant turn. What the turn's grammar lets through, this reads back."""

    def __init__(
        self,
        family: ToolFormat,
        *,
        has_calls: bool,
        special_tokens: Collection[str],
        call_id: Callable[[int], str],
        has_response: bool = False,
        custom_names: Collection[str] = (),
        opening: Opening = Opening.NONE,
    ) -> None:
        """has_calls: whether the turn may call at all; if not, everything but its reasoning is text.

        special_tokens: spellings of the tokens that are one symbol each, so that their spelling in text means nothing.
        has_response: whether text is bound by a grammar. Then only a turn that begins with the marker calls.
        custom_names: tools that take raw input. opening: whether the turn begins with reasoning, or inside of it.
        """
        self._marks = Marks(family.literals, special_tokens)
        self._family = family.rewritten(self._marks.of_literal)
        self._has_calls = has_calls
        self._call_id = call_id
        self._has_response = has_response
        self._custom_names = custom_names
        self._buffer = ""
        self._num_calls = 0
        self._scanner = _JsonScanner()
        self._blank_lines = ""  # at the reasoning's end so far
        self._has_reasoned = False
        self._state: State = _FIRST_STATES[opening]

    def copy(self) -> Self:
        """An independent parser in the same state."""
        other = copy.copy(self)
        other._scanner = copy.copy(self._scanner)
        return other

    @property
    def in_text(self) -> bool:
        """Whether the turn is in free text, or may still become it."""
        return self._state in (TurnParser._start, TurnParser._text)

    def feed(self, text: str, *, special: bool = False) -> list[ParsedEvent]:
        """Take more text. special: it is the spelling of one special token."""
        self._buffer += self._marks.of_token(text) if special else text
        return self._run()

    def finish(self, *, cut: bool = False) -> list[ParsedEvent]:
        """The text that was held back in case it began a marker. A call that was cut off is dropped.

        cut: the turn did not end by itself. Beside a response, the beginning of a marker is then one that was cut.
        """
        text, self._buffer = self._marks.spelled(self._buffer), ""
        is_text = self.in_text and not (cut and self._has_response and self._has_calls)
        return [TextDelta(text)] if text and is_text else []

    def _run(self) -> list[ParsedEvent]:
        events: list[ParsedEvent] = []
        state: State | None = None
        while state != self._state:  # a state that changed may leave something for the next
            state = self._state
            events.extend(state(self))
        return events

    def _end_call(self) -> list[ParsedEvent]:
        self._num_calls += 1
        self._state = TurnParser._next_call
        return [ToolCallEnd(self._num_calls - 1)]

    def _start(self) -> Iterator[ParsedEvent]:
        begin = self._reasoning_literals.begin
        if self._buffer.startswith(begin):
            self._buffer = self._buffer[len(begin) :]
            self._state = TurnParser._reasoning
        elif not begin.startswith(self._buffer):
            self._state = TurnParser._text
        return iter(())

    @property
    def _reasoning_literals(self) -> Reasoning:
        assert self._family.reasoning is not None
        return self._family.reasoning

    def _reasoning(self) -> Iterator[ParsedEvent]:
        """Whatever comes before the block's end; blank lines around it are left out."""
        text, found = self._up_to(self._reasoning_literals.end)
        text = self._blank_lines + self._marks.spelled(text)
        shown = text.rstrip("\n")
        self._blank_lines = text[len(shown) :]
        shown = shown if self._has_reasoned else shown.lstrip("\n")
        if shown:
            self._has_reasoned = True
            yield ReasoningDelta(shown)
        if found:
            self._state = TurnParser._after_reasoning

    def _after_reasoning(self) -> Iterator[ParsedEvent]:
        if self._skip(self._reasoning_literals.after):
            self._state = TurnParser._text
        return iter(())

    def _text(self) -> Iterator[ParsedEvent]:
        marker = self._family.marker
        if self._has_response and not marker.startswith(self._buffer[: len(marker)]):
            self._has_calls = False
        if self._has_calls:
            text, found = self._up_to(marker)
        else:
            text, found, self._buffer = self._buffer, False, ""
        if text:
            yield TextDelta(self._marks.spelled(text))
        if found:
            self._state = TurnParser._before_name

    def _up_to(self, literal: str) -> tuple[str, bool]:
        """Take the text before the literal, and the literal; without it, what cannot be its beginning."""
        text, found, rest = self._buffer.partition(literal)
        if not found:
            length = len(text) - held_back(text, literal)
            text, rest = text[:length], text[length:]
        self._buffer = rest
        return text, bool(found)

    def _before_name(self) -> Iterator[ParsedEvent]:
        if self._skip(self._family.before_name):
            self._state = TurnParser._name
        return iter(())

    def _name(self) -> Iterator[ParsedEvent]:
        end = min((self._buffer.find(each) for each in self._delimiters() if each in self._buffer), default=None)
        if end is None:
            return
        name, self._buffer = self._buffer[:end], self._buffer[end:]
        custom = name in self._custom_names
        self._skip(self._family.before_input if custom else self._family.before_arguments)
        self._scanner = _JsonScanner()
        self._state = TurnParser._input if custom else TurnParser._arguments
        yield ToolCallStart(self._num_calls, self._call_id(self._num_calls), name, custom)

    def _delimiters(self) -> tuple[str, str]:
        return self._family.before_arguments, self._family.before_input

    def _input(self) -> Iterator[ParsedEvent]:
        """Raw input of a custom tool."""
        text, found = self._up_to(self._family.input_end)
        if text:
            yield ToolCallDelta(self._num_calls, self._marks.spelled(text))
        if found:
            yield from self._end_call()

    def _arguments(self) -> Iterator[ParsedEvent]:
        end = self._scanner.end(self._buffer)
        arguments, self._buffer = self._buffer[:end], self._buffer[len(self._buffer) if end is None else end :]
        if arguments:
            yield ToolCallDelta(self._num_calls, self._marks.spelled(arguments))
        if end is not None:
            self._state = TurnParser._end

    def _end(self) -> Iterator[ParsedEvent]:
        if self._skip(self._family.end):
            yield from self._end_call()

    def _next_call(self) -> Iterator[ParsedEvent]:
        if self._skip(self._family.separator + self._family.marker):
            self._state = TurnParser._before_name
        return iter(())

    def _skip(self, literal: str) -> bool:
        """Take the literal off the buffer once it is there whole. Nothing else can come: its spelling will do."""
        written, literal = self._marks.spelled(self._buffer), self._marks.spelled(literal)
        if written.startswith(literal):
            self._buffer = written[len(literal) :]
            return True
        if not literal.startswith(written):
            raise MatcherError(f"the turn's text left its format: {written!r} where {literal!r} must be")
        return False


_FIRST_STATES: dict[Opening, State] = {
    Opening.NONE: TurnParser._text,
    Opening.BEFORE: TurnParser._start,
    Opening.INSIDE: TurnParser._reasoning,
}
