"""One turn's text, read back: text in, Events out. No I/O, no tokens; the same ToolFormat wrote the grammar.

A state is a method that takes what it can from the buffer and says whether there may be more to take.
A call ends where its JSON ends, never where a marker is seen.
"""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from typing import Self

from engine.errors import MatcherError
from engine.events import TextDelta, ToolCallDelta, ToolCallEnd, ToolCallStart
from engine.grammars.tool_formats import ToolFormat

ParsedEvent = TextDelta | ToolCallStart | ToolCallDelta | ToolCallEnd
State = Callable[[], Iterator[ParsedEvent]]


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
        marker_is_special: bool,
        call_id: Callable[[int], str],
        has_response: bool = False,
        custom_names: Collection[str] = (),
        input_end_is_special: bool = False,
    ) -> None:
        """has_calls: whether the turn may call at all; if not, everything is text.

        marker_is_special: whether the marker is a token of its own, so that its spelling in text means nothing.
        has_response: whether text is bound by a grammar. Then only a turn that begins with the marker calls.
        custom_names: tools that take raw input; input_end_is_special: whether what ends it is a token of its own.
        """
        self._family = family
        self._has_calls = has_calls
        self._marker_is_special = marker_is_special
        self._call_id = call_id
        self._has_response = has_response
        self._custom_names = custom_names
        self._input_end_is_special = input_end_is_special
        self._buffer = ""
        self._num_calls = 0
        self._scanner = _JsonScanner()
        self._state: State = self._text

    @property
    def in_text(self) -> bool:
        """Whether the turn is in free text, or may still become it."""
        return self._state == self._text

    def copy(self) -> Self:
        """An independent parser in the same state."""
        twin = object.__new__(type(self))
        twin.__dict__ |= self.__dict__
        twin._scanner = replace(self._scanner)
        twin._state = getattr(twin, self._state.__name__)  # a method of the twin's own
        return twin

    def feed(self, text: str, *, special: bool = False) -> list[ParsedEvent]:
        """Take more text. special: it is the spelling of one special token."""
        may_call = self._has_calls and self._marker_is_special and self.in_text
        if special and may_call and text == self._family.marker:
            return [*self.finish(), *self._open_call()]
        if special and self._state == self._special_input and text == self._family.input_end:
            return self._end_call()
        self._buffer += text
        return self._run()

    def finish(self, *, cut: bool = False) -> list[ParsedEvent]:
        """The text that was held back in case it began a marker. A call that was cut off is dropped.

        cut: the turn did not end by itself. Beside a response, the beginning of a marker is then one that was cut.
        """
        text, self._buffer = self._buffer, ""
        is_text = self.in_text and not (cut and self._has_response and self._has_calls)
        return [TextDelta(text)] if text and is_text else []

    def _run(self) -> list[ParsedEvent]:
        events: list[ParsedEvent] = []
        state: State | None = None
        while state != self._state:  # a state that changed may leave something for the next
            state = self._state
            events.extend(state())
        return events

    def _open_call(self) -> list[ParsedEvent]:
        self._state = self._before_name
        return self._run()

    def _end_call(self) -> list[ParsedEvent]:
        self._num_calls += 1
        self._state = self._next_call
        return [ToolCallEnd(self._num_calls - 1)]

    def _text(self) -> Iterator[ParsedEvent]:
        marker = self._family.marker
        if self._has_response and not marker.startswith(self._buffer[: len(marker)]):
            self._has_calls = False
        if not self._has_calls or self._marker_is_special:
            length, found = len(self._buffer), False
        else:
            start = self._buffer.find(marker)
            found = start >= 0
            length = start if found else len(self._buffer) - held_back(self._buffer, marker)
        text, self._buffer = self._buffer[:length], self._buffer[length:]
        if text:
            yield TextDelta(text)
        if found:
            self._buffer = self._buffer[len(marker) :]
            self._state = self._before_name

    def _before_name(self) -> Iterator[ParsedEvent]:
        if self._skip(self._family.before_name):
            self._state = self._name
        return iter(())

    def _name(self) -> Iterator[ParsedEvent]:
        end = min((self._buffer.find(each) for each in self._delimiters() if each in self._buffer), default=None)
        if end is None:
            return
        name, self._buffer = self._buffer[:end], self._buffer[end:]
        custom = name in self._custom_names
        self._skip(self._family.before_input if custom else self._family.before_arguments)
        self._scanner = _JsonScanner()
        self._state = self._input_state() if custom else self._arguments
        yield ToolCallStart(self._num_calls, self._call_id(self._num_calls), name, custom)

    def _delimiters(self) -> tuple[str, str]:
        return self._family.before_arguments, self._family.before_input

    def _input_state(self) -> State:
        return self._special_input if self._input_end_is_special else self._text_input

    def _special_input(self) -> Iterator[ParsedEvent]:
        """Raw input whose end is a token: `feed` sees it."""
        text, self._buffer = self._buffer, ""
        if text:
            yield ToolCallDelta(self._num_calls, text)

    def _text_input(self) -> Iterator[ParsedEvent]:
        end = self._family.input_end
        text, found, rest = self._buffer.partition(end)
        if not found:
            length = len(text) - held_back(text, end)
            text, rest = text[:length], text[length:]
        self._buffer = rest
        if text:
            yield ToolCallDelta(self._num_calls, text)
        if found:
            yield from self._end_call()

    def _arguments(self) -> Iterator[ParsedEvent]:
        end = self._scanner.end(self._buffer)
        arguments, self._buffer = self._buffer[:end], self._buffer[len(self._buffer) if end is None else end :]
        if arguments:
            yield ToolCallDelta(self._num_calls, arguments)
        if end is not None:
            self._state = self._end

    def _end(self) -> Iterator[ParsedEvent]:
        if self._skip(self._family.end):
            yield from self._end_call()

    def _next_call(self) -> Iterator[ParsedEvent]:
        if self._skip(self._family.separator + self._family.marker):
            self._state = self._before_name
        return iter(())

    def _skip(self, literal: str) -> bool:
        """Take the literal off the buffer once it is there whole."""
        if self._buffer.startswith(literal):
            self._buffer = self._buffer[len(literal) :]
            return True
        if not literal.startswith(self._buffer):
            raise MatcherError(f"the turn's text left its format: {self._buffer!r} where {literal!r} must be")
        return False
