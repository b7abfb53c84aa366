"""One JSON value, read from text that comes in pieces: text in, events out.

All state that grows is persistent: containers are linked outwards, and what they hold lies in a few blocks of growing
size, which are never changed. So a copy costs the same at every point, and n characters cost O(n log n), in however
many pieces they come and however many values they are.
"""

import enum
import json
import math
import operator
import re
from collections.abc import Callable, Mapping, Sized
from typing import Any, NamedTuple, NoReturn, Self, TypeVar

from engine.errors import MatcherError, VetoError

Block = TypeVar("Block", bound=Sized)

_SPACE = " \t\n\r"
_IN_STRING = re.compile(r'[^"\\]*+(?:\\.[^"\\]*+)*+', re.DOTALL)
_IN_SCALAR = re.compile(r"[-+.0-9A-Za-z]*+")
_WORDS = {"true": True, "false": False, "null": None}  # they end with their last letter; numbers with what follows


class Opened(NamedTuple):
    """An object or an array begins."""

    is_object: bool


class Named(NamedTuple):
    """The name of an object's next member is complete."""

    name: str
    is_repeated: bool  # the object has a member of this name already


class Separated(NamedTuple):
    """A comma: another member or item must follow."""

    in_object: bool


class Closed(NamedTuple):
    """A value is complete: a scalar, or the innermost object or array."""

    value: Any


JsonEvent = Opened | Named | Separated | Closed


class _State(enum.Enum):
    """What may come next."""

    VALUE = enum.auto()
    FIRST_ITEM = enum.auto()  # or the array's end
    FIRST_NAME = enum.auto()  # or the object's end
    NAME = enum.auto()
    COLON = enum.auto()
    COMMA = enum.auto()  # or the end of what is open
    IN_NAME = enum.auto()
    IN_STRING = enum.auto()
    IN_SCALAR = enum.auto()  # a number or a word
    DONE = enum.auto()


_VALUE_COMES = (_State.VALUE, _State.FIRST_ITEM)
_NAME_COMES = (_State.NAME, _State.FIRST_NAME)


class _Frame(NamedTuple):
    """An open object or array. Never changed: a new one takes its place."""

    outer: "_Frame | None"
    is_object: bool
    items: tuple[tuple[Any, ...], ...] = ()  # of an array, in blocks
    members: tuple[dict[str, Any], ...] = ()  # of an object, in blocks
    name: str = ""  # of the member that is open

    def with_value(self, value: Any) -> "_Frame":
        if self.is_object:
            return self._replace(members=grown(self.members, {self.name: value}, operator.or_))
        return self._replace(items=grown(self.items, (value,), operator.add))

    def value(self) -> Any:
        if self.is_object:
            return {name: value for block in self.members for name, value in block.items()}
        return [value for block in self.items for value in block]


def grown(blocks: tuple[Block, ...], new: Block, merge: Callable[[Block, Block], Block]) -> tuple[Block, ...]:
    """The blocks and a new one, merged so that each is more than twice as long as the next.

    So there are at most log2(n) + 1 of them for n elements, which are copied O(n log n) times in all. What was a block
    before is not changed.
    """
    while blocks and len(blocks[-1]) <= 2 * len(new):
        new = merge(blocks[-1], new)
        blocks = blocks[:-1]
    return (*blocks, new)


class JsonStream:
    """Reads one JSON value. Once it has raised, it is of no more use.

    Raises MatcherError for text that no JSON value has there, VetoError for numbers that readers do not read.
    """

    __slots__ = ("_escaped", "_frame", "_lexeme", "_state")

    def __init__(self) -> None:
        self._state = _State.VALUE
        self._frame: _Frame | None = None
        self._lexeme: tuple[str, ...] = ()  # the string or scalar that is open, as written, in blocks
        self._escaped = False  # the open string's last character is a backslash that escapes the next

    def copy(self) -> Self:
        """An independent reader in the same state."""
        twin = object.__new__(type(self))
        twin._state, twin._frame, twin._lexeme, twin._escaped = self._state, self._frame, self._lexeme, self._escaped
        return twin

    @property
    def is_open_number(self) -> bool:
        """Whether the whole value is a number so far: nothing but the text's end tells that it is complete."""
        return self._state is _State.IN_SCALAR and self._frame is None

    @property
    def begun(self) -> str:
        """The string or scalar that is open, as far as it is written."""
        quote = '"' if self._state in (_State.IN_STRING, _State.IN_NAME) else ""
        return quote + "".join(self._lexeme)

    def has_member(self, name: str) -> bool:
        """Whether the innermost object has a complete member of this name."""
        return self._frame is not None and any(name in block for block in self._frame.members)

    def texts_for(self, value: Any) -> tuple[str, ...]:
        """What would write the value here, or what is left of it; a name, where a name must come.

        Of two, the text's style tells which; none where nothing can, or something else is begun.
        """
        text = json.dumps(value, ensure_ascii=False)
        if self._state in (*_VALUE_COMES, *_NAME_COMES):
            return text, f" {text}"
        if self._state in (_State.IN_STRING, _State.IN_NAME, _State.IN_SCALAR):
            rest = text.removeprefix(self.begun)
            return (rest,) if rest and len(rest) < len(text) else ()
        return ()

    def texts_after(self, value: Any) -> tuple[str, ...]:
        """What would write the value, or a name, behind the one that is complete here, or may be."""
        if self._state in (_State.COMMA, _State.IN_SCALAR):
            return (f", {json.dumps(value, ensure_ascii=False)}",)
        return ()

    def feed(self, text: str) -> list[JsonEvent]:
        """Take more text. Where the text is cut makes no difference."""
        events: list[JsonEvent] = []
        position = 0
        while position < len(text):
            position = self._READ[self._state](self, text, position, events)
        return events

    def finish(self) -> list[JsonEvent]:
        """The text has ended. Raises MatcherError where the value has not."""
        events: list[JsonEvent] = []
        if self.is_open_number:
            self._close_scalar(events)
        if self._state is not _State.DONE:
            raise MatcherError("the text ends inside its JSON value")
        return events

    # Each of these takes what it can from the position on, and returns where it stopped.

    def _string(self, text: str, position: int, events: list[JsonEvent]) -> int:
        start = position
        if self._escaped:
            self._escaped, position = False, position + 1
        found = _IN_STRING.match(text, position)
        assert found is not None
        end = found.end()
        if end == len(text) or text[end] == "\\":
            self._escaped = end < len(text)
            self._lexeme = grown(self._lexeme, text[start:], operator.add)
            return len(text)
        string = _read(f'"{self._take_lexeme()}{text[start:end]}"')
        if self._state is _State.IN_NAME:
            self._close_name(string, events)
        else:
            self._close(string, events)
        return end + 1

    def _scalar(self, text: str, position: int, events: list[JsonEvent]) -> int:
        found = _IN_SCALAR.match(text, position)
        assert found is not None
        end = found.end()
        if end > position:
            self._lexeme = grown(self._lexeme, text[position:end], operator.add)
        if end < len(text) or self._is_word():
            self._close_scalar(events)
        return end

    def _is_word(self) -> bool:
        # Long numbers are not joined: the first block is the longest.
        return len(self._lexeme[0]) <= len("false") and "".join(self._lexeme) in _WORDS

    def _between(self, text: str, position: int, events: list[JsonEvent]) -> int:
        """One character outside strings and scalars."""
        character = text[position]
        if character in _SPACE:
            return position + 1
        if self._state in _VALUE_COMES and character not in "]}:,":
            return self._begin_value(character, position, events)
        if character == '"' and self._state in _NAME_COMES:
            self._state = _State.IN_NAME
        elif character == ":" and self._state is _State.COLON:
            self._state = _State.VALUE
        elif character == "," and self._state is _State.COMMA:
            self._separate(events)
        elif character == self._end_mark():
            self._close_container(events)
        else:
            self._refuse(character)
        return position + 1

    def _begin_value(self, character: str, position: int, events: list[JsonEvent]) -> int:
        if character in "{[":
            is_object = character == "{"
            self._frame = _Frame(self._frame, is_object)
            self._state = _State.FIRST_NAME if is_object else _State.FIRST_ITEM
            events.append(Opened(is_object))
        elif character == '"':
            self._state = _State.IN_STRING
        elif _IN_SCALAR.fullmatch(character):
            self._state = _State.IN_SCALAR
            return position
        else:
            self._refuse(character)
        return position + 1

    def _end_mark(self) -> str | None:
        """What would close the innermost container here."""
        if self._frame is None:
            return None
        first = _State.FIRST_NAME if self._frame.is_object else _State.FIRST_ITEM
        if self._state not in (_State.COMMA, first):
            return None
        return "}" if self._frame.is_object else "]"

    def _separate(self, events: list[JsonEvent]) -> None:
        assert self._frame is not None, "after the whole value, nothing is awaited"
        self._state = _State.NAME if self._frame.is_object else _State.VALUE
        events.append(Separated(self._frame.is_object))

    def _close_name(self, name: str, events: list[JsonEvent]) -> None:
        assert self._frame is not None
        events.append(Named(name, any(name in block for block in self._frame.members)))
        self._frame = self._frame._replace(name=name)
        self._state = _State.COLON

    def _close_scalar(self, events: list[JsonEvent]) -> None:
        text = self._take_lexeme()
        self._close(_WORDS[text] if text in _WORDS else _read(text), events)

    def _close_container(self, events: list[JsonEvent]) -> None:
        assert self._frame is not None
        closed = self._frame
        self._frame = closed.outer
        self._close(closed.value(), events)

    def _close(self, value: Any, events: list[JsonEvent]) -> None:
        if self._frame is None:
            self._state = _State.DONE
        else:
            self._frame = self._frame.with_value(value)
            self._state = _State.COMMA
        events.append(Closed(value))

    def _take_lexeme(self) -> str:
        text, self._lexeme = "".join(self._lexeme), ()
        return text

    def _refuse(self, character: str) -> NoReturn:
        raise MatcherError(f"the text is no JSON: {character!r} cannot stand there")

    _READ: Mapping[_State, Callable[["JsonStream", str, int, list[JsonEvent]], int]] = {
        **dict.fromkeys(_State, _between),
        _State.IN_NAME: _string,
        _State.IN_STRING: _string,
        _State.IN_SCALAR: _scalar,
    }


def _read(text: str) -> Any:
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise MatcherError(f"the text is no JSON: {error}") from None
    except ValueError:  # an integer of thousands of digits
        value = math.inf
    if isinstance(value, float) and not math.isfinite(value):
        raise VetoError("a number is too large to be read")
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise MatcherError(f"the text is no JSON: {name}")
