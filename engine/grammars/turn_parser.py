"""One turn's text, read back: text in, Events out. No I/O, no ids; the same ToolFormat wrote the grammar.

A state is a method that takes what it can from the buffer; where it changes the state, that may have more to take.
A call ends where its arguments end, never where a marker is seen.
"""

import string
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Self

from engine.errors import MatcherError
from engine.events import ReasoningDelta, TextDelta, ToolCallDelta, ToolCallEnd, ToolCallStart
from engine.grammars.marks import Marks, held_back
from engine.grammars.tool_format import Opening, Reasoning, ToolFormat, split_at_id
from engine.types import JsonObject

__all__ = ["ParsedEvent", "TurnParser", "held_back"]

ParsedEvent = TextDelta | ReasoningDelta | ToolCallStart | ToolCallDelta | ToolCallEnd
NAME_CHARACTERS = string.ascii_letters + string.digits + "_.-"  # of tools; engine.types checks them
State = Callable[["TurnParser"], Iterator[ParsedEvent]]


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
        schemas: Mapping[str, JsonObject] | None = None,
        opening: Opening = Opening.NONE,
    ) -> None:
        """has_calls: whether the turn may call at all; if not, everything but its reasoning is text.

        special_tokens: spellings of the tokens that are one symbol each, so that their spelling in text means nothing.
        has_response: whether text is bound by a grammar. Then only a turn that begins with the marker calls.
        custom_names: tools that take raw input. schemas: of the other tools' arguments, as the grammar has them.
        opening: whether the turn begins with reasoning, or inside of it.
        """
        self._marks = Marks(family.literals, special_tokens)
        self._family = family.rewritten(self._marks.of_literal)
        self._ways = (self._family, *self._family.other_ways)  # of opening a call
        self._has_calls = has_calls
        self._call_id = call_id
        self._has_response = has_response
        self._custom_names = custom_names
        self._schemas = schemas or {}
        self._may_reason = opening is Opening.BEFORE
        self._buffer = ""
        self._num_calls = 0
        self._is_custom = False
        self._reader = self._family.arguments.reader({})
        self._blank_lines = ""  # at the reasoning's end so far
        self._answer_end = ""  # of text behind reasoning
        self._has_reasoned = False
        self._state: State = TurnParser._reasoning if opening is Opening.INSIDE else TurnParser._start

    def copy(self) -> Self:
        """An independent parser in the same state."""
        other = object.__new__(type(self))  # copy.copy does the same four times as slowly
        other.__dict__ |= self.__dict__
        other._reader = self._reader.copy()
        return other

    @property
    def in_text(self) -> bool:
        """Whether the turn is in free text, or may still become it."""
        return self._state in (TurnParser._start, TurnParser._text, TurnParser._preamble)

    @property
    def in_reasoning(self) -> bool:
        """Whether the turn is inside of its reasoning, or of what follows it."""
        return self._state in (TurnParser._reasoning, TurnParser._after_reasoning)

    @property
    def is_undecided(self) -> bool:
        """Whether what was written may be the beginning of reasoning, of text or of a call."""
        return self._state == TurnParser._start and self._buffer != ""

    def feed(self, text: str, *, special: bool = False) -> list[ParsedEvent]:
        """Take more text. special: it is the spelling of one special token."""
        self._buffer += self._marks.of_token(text) if special else text
        return self._run()

    def finish(self, *, cut: bool = False) -> list[ParsedEvent]:
        """The text that was held back in case it began a marker. A call that was cut off is dropped.

        cut: the turn did not end by itself. Beside a response, the beginning of a marker is then one that was cut.
        """
        text, self._buffer = self._marks.spelled(self._buffer), ""
        is_tag = self._family.text_begin and self._state == TurnParser._start
        is_call = self._state == TurnParser._start and self._family.calls_are_all and not self._has_response
        is_cut = is_call or (cut and self._has_response)
        is_text = self.in_text and not is_tag and not (is_cut and self._has_calls)
        return [TextDelta(text)] if text and is_text else []

    def _run(self) -> list[ParsedEvent]:
        events: list[ParsedEvent] = []
        state: State | None = None
        while state != self._state:  # a state that changed may leave something for the next
            state = self._state
            events.extend(state(self))
        return events

    # Before calls.

    def _start(self) -> Iterator[ParsedEvent]:
        """What the turn, or the rest of it, begins with tells what it is; anything else is text."""
        if (found := self._begun_by(self._beginnings())) is None:
            return
        literal, state = found
        self._buffer = self._buffer[len(literal) :]
        if state == TurnParser._open:
            self._family = next(way for way in self._ways if way.marker == literal)
        # A marker that is not the turn's beginning is text in these.
        is_text = state == TurnParser._text
        self._has_calls &= not (is_text and (self._has_response or self._family.calls_are_all or literal != ""))
        self._may_reason = False
        self._state = state
        yield from ()

    def _beginnings(self) -> Iterator[tuple[str, State]]:
        family = self._family
        if self._may_reason:
            yield self._reasoning_literals.begin, TurnParser._reasoning
        if self._has_calls:
            if family.preamble is not None:
                yield family.preamble.begin, TurnParser._preamble
            if self._has_response or family.calls_are_all or family.text_begin:
                yield from ((way.marker, TurnParser._open) for way in self._ways)
        if family.text_begin:
            yield family.text_begin, TurnParser._text

    def _begun_by(self, choices: Iterator[tuple[str, State]]) -> tuple[str, State] | None:
        """The one of the literals that the buffer begins with; none of them is text. None while that is open."""
        for literal, state in choices:
            if self._buffer.startswith(literal):
                return literal, state
            if literal.startswith(self._buffer):
                return None
        return "", TurnParser._text

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
            self._state = TurnParser._start
            self._answer_end = "" if self._has_response else self._reasoning_literals.answer_end
        yield from ()

    def _text(self) -> Iterator[ParsedEvent]:
        marker = self._family.marker if self._has_calls else ""
        text, found = self._up_to(marker, self._answer_end)
        if text:
            yield TextDelta(self._marks.spelled(text))
        if found:
            self._state = TurnParser._open if found == marker else TurnParser._over

    def _preamble(self) -> Iterator[ParsedEvent]:
        assert self._family.preamble is not None
        text, found = self._up_to(self._family.preamble.end)
        if text:
            yield TextDelta(self._marks.spelled(text))
        if found:
            self._state = TurnParser._after_preamble

    def _after_preamble(self) -> Iterator[ParsedEvent]:
        assert self._family.preamble is not None
        if self._skip(self._family.preamble.after):
            self._state = TurnParser._marker
        yield from ()

    def _marker(self) -> Iterator[ParsedEvent]:
        """Where only a call can come. The ways to open one differ in their first character."""
        begun = (way for way in self._ways if self._buffer and way.marker.startswith(self._buffer[0]))
        self._family = next(begun, self._family)
        if self._skip(self._family.marker):
            self._state = TurnParser._open
        yield from ()

    def _up_to(self, *literals: str) -> tuple[str, str]:
        """Take the text before the first of the literals, and that; without it, what cannot be its beginning.

        An empty literal is none. Returns the text, and which it was: nothing for none.
        """
        wanted = [literal for literal in literals if literal]
        starts = [(at, literal) for literal in wanted if (at := self._buffer.find(literal)) >= 0]
        held = max((held_back(self._buffer, literal) for literal in wanted), default=0)
        at, found = min(starts, default=(len(self._buffer) - held, ""))
        text, self._buffer = self._buffer[:at], self._buffer[at + len(found) :]
        return text, found

    # Calls.

    def _open(self) -> Iterator[ParsedEvent]:
        if self._skip(self._family.calls_begin + self._family.before_name):
            self._state = TurnParser._name
        yield from ()

    def _name(self) -> Iterator[ParsedEvent]:
        """Up to the first character that no name has: a family may write nothing between name and arguments."""
        end = len(self._buffer) - len(self._buffer.lstrip(NAME_CHARACTERS))
        if end == len(self._buffer):
            return
        name, self._buffer = self._buffer[:end], self._buffer[end:]
        self._is_custom = name in self._custom_names
        self._reader = self._family.arguments.reader(self._schemas.get(name, {}))
        self._state = TurnParser._header
        yield ToolCallStart(self._num_calls, self._call_id(self._num_calls), name, self._is_custom)

    def _header(self) -> Iterator[ParsedEvent]:
        """Between the name and the arguments."""
        before = self._family.before_input if self._is_custom else self._family.before_arguments
        if self._skip_with_id(before):
            self._state = TurnParser._input if self._is_custom else TurnParser._arguments
        yield from ()

    def _input(self) -> Iterator[ParsedEvent]:
        """Raw input of a custom tool."""
        text, found = self._up_to(self._family.input_end)
        if text:
            yield ToolCallDelta(self._num_calls, self._marks.spelled(text))
        if found:
            self._state = TurnParser._end

    def _arguments(self) -> Iterator[ParsedEvent]:
        text, self._buffer = self._buffer, ""
        read = self._reader.feed(text)
        if read.json:
            yield ToolCallDelta(self._num_calls, self._marks.spelled(read.json))
        if read.rest is not None:
            self._buffer, self._state = read.rest, TurnParser._end

    def _end(self) -> Iterator[ParsedEvent]:
        if self._skip_with_id(self._family.after_input if self._is_custom else self._family.end):
            self._num_calls += 1
            self._state = TurnParser._next_call
            yield ToolCallEnd(self._num_calls - 1)

    def _next_call(self) -> Iterator[ParsedEvent]:
        """Another call, or the end of them."""
        again, over = self._family.separator + self._family.before_name, self._family.calls_end
        written = self._marks.spelled(self._buffer)
        if over and self._marks.spelled(over).startswith(written[: len(self._marks.spelled(over))]):
            if self._skip(over):
                self._state = TurnParser._over
        elif self._skip(again):
            self._state = TurnParser._name
        yield from ()

    def _over(self) -> Iterator[ParsedEvent]:
        if self._buffer:
            raise MatcherError(f"the turn's text goes on after its calls: {self._marks.spelled(self._buffer)!r}")
        yield from ()

    def _skip_with_id(self, literal: str) -> bool:
        """As _skip, of a literal that may have an id in it."""
        first, *others = split_at_id(literal)
        if not others:
            return self._skip(first)
        (last,) = others
        end = self._buffer.find(last, len(first))
        if not self._buffer.startswith(first) or end < 0:
            return False
        self._buffer = self._buffer[end + len(last) :]
        return True

    def _skip(self, literal: str) -> bool:
        """Take the literal off the buffer once it is there whole. Nothing else can come: its spelling will do."""
        if self._buffer.startswith(literal):
            self._buffer = self._buffer[len(literal) :]
            return True
        written, literal = self._marks.spelled(self._buffer), self._marks.spelled(literal)
        if written.startswith(literal):
            self._buffer = written[len(literal) :]
            return True
        if not literal.startswith(written):
            raise MatcherError(f"the turn's text left its format: {written!r} where {literal!r} must be")
        return False
