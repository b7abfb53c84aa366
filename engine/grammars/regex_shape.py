"""What a regex's shortest match is, and how far from a match a text can be that began as one.

The rule: read what is surely understood, and say None for the rest. A text that began as a match stands at one place or
several of the regex; from each place the rest of the regex is a way to end, so the longest of these rests bounds them.
"""

import itertools
import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from engine.grammars.regex_ways import ways_of

MAX_BYTES = 100_000  # of a shortest match; a longer one is not understood
ASCII = frozenset(range(0x80))
WORD = frozenset(byte for byte in ASCII if chr(byte).isalnum() or byte == ord("_"))
CLASSES = {"d": frozenset(range(0x30, 0x3A)), "w": WORD, "s": frozenset(b" \t\n\r\v\f")}
ESCAPED = {"n": "\n", "r": "\r", "t": "\t", "f": "\f", "v": "\v"}
ALMOST_ALL = 90  # characters of ASCII
MAX_ENDS = 16
GLOBAL_FLAGS = re.compile(r"\(\?([si]+)\)")
OPEN_CHARACTER = 3  # bytes that an open character or escape still needs

SizeOf = Callable[[str], int | None]
"""The bytes that a character takes where the text is written; None where it cannot be."""


@dataclass(frozen=True, slots=True)
class Shape:
    """Of a regex, or of a part of one."""

    shortest: str | None  # a match in the fewest bytes; None: nothing matches
    num_bytes: int  # of the shortest match, as it is written
    longest_rest: int  # bytes from any place inside to an end, by the shortest way; num_bytes at least
    ends: tuple[str, ...] = ()  # what may follow where almost any character may stand: the shortest ways to an end


@dataclass(frozen=True, slots=True)
class _Set:
    """Characters: those of ASCII exactly; of the others one, if there are any."""

    ascii: frozenset[int]
    other: str | None  # empty: it is not known which

    def inverted(self) -> "_Set":
        return _Set(ASCII - self.ascii, "\u00e9" if self.other is None else "")


class _NotUnderstoodError(Exception):
    pass


def json_size(character: str) -> int | None:
    """In a JSON string in our style: escaped where it must be, else UTF-8."""
    if character in '"\\\n\r\t\b\f':
        return 2
    return None if character < " " or character == "\x7f" else len(character.encode())


def plain_size(character: str) -> int | None:
    return len(character.encode())


def shape_of(regex: str, size_of: SizeOf, *, anchored: bool) -> Shape | None:
    """None where the regex is not understood: where an anchor stands in its midst, say.

    anchored: whether it must match all of the text; else it is searched for, as JSON Schema's patterns are.
    """
    flags = GLOBAL_FLAGS.match(regex)
    prefix = flags[0] if flags else ""
    try:
        ways = ways_of(regex.removeprefix(prefix))
        return _one_of([_Reader(prefix + way, size_of).whole(anchored=anchored) for way in ways])
    except (_NotUnderstoodError, RecursionError):
        return None


NOTHING = Shape(None, 0, 0)
EMPTY = Shape("", 0, 0)
ANYTHING = Shape("", 0, OPEN_CHARACTER, ("",))


def _in_a_row(parts: Iterable[Shape]) -> Shape:
    shortest, num_bytes, rest = "", 0, 0
    ends: tuple[str, ...] = ()
    for part in parts:
        if part.shortest is None:
            return NOTHING
        # Inside the parts before, this one is still to come.
        rest = max(rest + part.num_bytes, part.longest_rest)
        ends = _unlike((*(end + part.shortest for end in ends), *part.ends))
        shortest, num_bytes = shortest + part.shortest, num_bytes + part.num_bytes
        if num_bytes > MAX_BYTES:
            raise _NotUnderstoodError
    return Shape(shortest, num_bytes, rest, ends)


def _unlike(ends: Iterable[str]) -> tuple[str, ...]:
    return tuple(itertools.islice(dict.fromkeys(ends), MAX_ENDS))


def _one_of(options: Iterable[Shape]) -> Shape:
    possible = [option for option in options if option.shortest is not None]
    if not possible:
        return NOTHING
    best = min(possible, key=lambda option: option.num_bytes)
    ends = _unlike(end for option in possible for end in option.ends)
    return Shape(best.shortest, best.num_bytes, max(option.longest_rest for option in possible), ends)


def _repeated(part: Shape, least: int, most: int | None) -> Shape:
    if part.shortest is None or most == 0:
        return EMPTY if least == 0 else NOTHING
    if least * max(part.num_bytes, 1) > MAX_BYTES:
        raise _NotUnderstoodError
    num_bytes = least * part.num_bytes
    more = max(least - 1, 0)
    ends = tuple(end + part.shortest * more for end in part.ends)
    return Shape(part.shortest * least, num_bytes, part.longest_rest + more * part.num_bytes, ends)


class _Reader:
    """Reads one regex from left to right."""

    def __init__(self, regex: str, size_of: SizeOf) -> None:
        self._regex, self._size_of = regex, size_of
        self._at = 0
        self._dot_is_all = False
        self._ignores_case = False

    def whole(self, *, anchored: bool) -> Shape:
        """Of a regex without outermost alternatives."""
        if flags := GLOBAL_FLAGS.match(self._regex):
            self._dot_is_all, self._ignores_case = "s" in flags[1], "i" in flags[1]
            self._at = flags.end()
        # With what may stand around it.
        before = EMPTY if self._takes("^") or anchored else ANYTHING
        inner = self._sequence()
        after = EMPTY if self._takes("$") or anchored else ANYTHING
        if self._at < len(self._regex):
            raise _NotUnderstoodError
        return _in_a_row((before, inner, after))

    def _takes(self, text: str) -> bool:
        if self._regex.startswith(text, self._at):
            self._at += len(text)
            return True
        return False

    def _next(self) -> str:
        if self._at == len(self._regex):
            raise _NotUnderstoodError
        self._at += 1
        return self._regex[self._at - 1]

    def _sequence(self) -> Shape:
        parts: list[Shape] = []
        while self._at < len(self._regex) and self._regex[self._at] not in "|)$":
            parts.append(self._times(self._atom()))
        return _in_a_row(parts)

    def _times(self, part: Shape) -> Shape:
        found = re.compile(r"[*+?]|\{(\d+)(,(\d*))?\}").match(self._regex, self._at)
        if found is None:
            return part
        self._at = found.end()
        if not self._takes("?") and self._regex.startswith(("+", "*", "{"), self._at):
            raise _NotUnderstoodError
        if found[0] in "*?":
            return _repeated(part, 0, None if found[0] == "*" else 1)
        if found[0] == "+":
            return _repeated(part, 1, None)
        least = int(found[1])
        most = least if found[2] is None else int(found[3]) if found[3] else None
        if most is not None and most < least:
            raise _NotUnderstoodError
        return _repeated(part, least, most)

    def _atom(self) -> Shape:
        char = self._next()
        if char == "(":
            return self._group()
        if char == "[":
            return self._of_set(self._class())
        if char == ".":
            return self._of_set(_Set(ASCII if self._dot_is_all else ASCII - {10}, "\u00e9"))
        if char == "\\":
            return self._of_set(self._escape())
        if char in "^*+?{":
            raise _NotUnderstoodError
        return self._of_set(_single(char))

    def _group(self) -> Shape:
        before = self._dot_is_all, self._ignores_case
        if self._takes("?"):
            found = re.compile(r"([si]*):|P?<[A-Za-z_]\w*>").match(self._regex, self._at)
            if found is None:
                raise _NotUnderstoodError
            self._at = found.end()
            self._dot_is_all |= "s" in (found[1] or "")
            self._ignores_case |= "i" in (found[1] or "")
        options = [self._sequence()]
        while self._takes("|"):
            options.append(self._sequence())
        if not self._takes(")"):
            raise _NotUnderstoodError
        self._dot_is_all, self._ignores_case = before
        return _one_of(options)

    def _escape(self) -> _Set:
        char = self._next()
        if char.lower() in CLASSES:
            inside = CLASSES[char.lower()]
            return _Set(inside if char.islower() else ASCII - inside, "")
        if char in ESCAPED:
            return _single(ESCAPED[char])
        if char == "u" and (braced := re.compile(r"\{([0-9A-Fa-f]{1,6})\}").match(self._regex, self._at)):
            self._at = braced.end()
            if int(braced[1], 16) > sys.maxunicode:
                raise _NotUnderstoodError
            return _single(chr(int(braced[1], 16)))
        if char in "xu":
            width = 2 if char == "x" else 4
            digits = self._regex[self._at : self._at + width]
            if not re.fullmatch(f"[0-9A-Fa-f]{{{width}}}", digits):
                raise _NotUnderstoodError
            self._at += width
            return _single(chr(int(digits, 16)))
        if char.isalnum():
            raise _NotUnderstoodError
        return _single(char)

    def _class(self) -> _Set:
        inverts = self._takes("^")
        ascii_, other = frozenset[int](), None
        while True:
            char = self._next()
            if char == "]":
                break
            if char == "[":
                raise _NotUnderstoodError
            item = self._escape() if char == "\\" else _single(char)
            if self._regex.startswith("-", self._at) and not self._regex.startswith("-]", self._at):
                item = self._range(item)
            ascii_, other = ascii_ | item.ascii, item.other if other is None else other
        if inverts and self._ignores_case:
            ascii_ |= {ord(each) for code in ascii_ for each in (chr(code).lower(), chr(code).upper())}
        found = _Set(ascii_, other)
        return found.inverted() if inverts else found

    def _range(self, first: _Set) -> _Set:
        self._at += 1
        char = self._next()
        last = self._escape() if char == "\\" else _single(char)
        low, high = _only(first), _only(last)
        if low > high or char == "[":
            raise _NotUnderstoodError
        return _Set(ASCII & frozenset(range(low, min(high + 1, 0x80))), chr(high) if high >= 0x80 else None)

    def _of_set(self, found: _Set) -> Shape:
        # Letters and digits first: among equals they read best.
        candidates = [chr(code) for code in sorted(found.ascii, key=lambda code: (not chr(code).isalnum(), code))]
        candidates += [found.other] if found.other else []
        sizes = [(size, char) for char in candidates if (size := self._size_of(char)) is not None]
        if not sizes and found.other is not None:
            raise _NotUnderstoodError
        if not sizes:
            return NOTHING
        size, char = min(sizes, key=lambda pair: pair[0])
        ends = ("",) if len(found.ascii) >= ALMOST_ALL else ()
        return Shape(char, size, max(size, OPEN_CHARACTER), ends)


def _single(char: str) -> _Set:
    if "\ud800" <= char <= "\udfff":
        raise _NotUnderstoodError
    return _Set(frozenset({ord(char)}), None) if ord(char) < 0x80 else _Set(frozenset(), char)


def _only(found: _Set) -> int:
    codes = [*found.ascii, *(map(ord, found.other or ""))]
    if len(codes) != 1:
        raise _NotUnderstoodError
    return codes[0]
