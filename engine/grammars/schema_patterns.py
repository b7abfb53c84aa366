"""Regular expressions of JSON Schema, written so that the grammar library and validators read them alike.

ECMA-262 is read and a smaller dialect is written, in which every class is spelled out: \\d, \\w, \\s and the dot mean
what ECMA-262 says. What has no equal there (look-around, back-references, word boundaries) is a ValueError.
"""

import functools
import re

import jsonschema_rs

ANY = "(?s:.)"  # one character of any kind
LAST = 0x10FFFF
MAX_REPEATS = 10_000
SURROGATES = (0xD800, 0xDFFF)
Ranges = list[tuple[int, int]]

DIGITS: Ranges = [(0x30, 0x39)]
WORD: Ranges = [(0x30, 0x39), (0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A)]
SPACE: Ranges = [
    (0x09, 0x0D),
    (0x20, 0x20),
    (0xA0, 0xA0),
    (0x1680, 0x1680),
    (0x2000, 0x200A),
    (0x2028, 0x2029),
    (0x202F, 0x202F),
    (0x205F, 0x205F),
    (0x3000, 0x3000),
    (0xFEFF, 0xFEFF),
]
LINE_ENDS: Ranges = [(0x0A, 0x0A), (0x0D, 0x0D), (0x2028, 0x2029)]
CLASSES = {"d": DIGITS, "w": WORD, "s": SPACE}
CONTROLS = {"n": 0x0A, "r": 0x0D, "t": 0x09, "v": 0x0B, "f": 0x0C}
QUANTIFIER = re.compile(r"(?:[*+?]|\{[0-9]+(?:,[0-9]*)?\})\??")
HEX = (re.compile(r"x([0-9a-fA-F]{2})"), re.compile(r"u([0-9a-fA-F]{4})"), re.compile(r"u\{([0-9a-fA-F]{1,6})\}"))
PROPERTY = re.compile(r"[pP]\{[A-Za-z_]+(?:=[A-Za-z_]+)?\}")
GROUP = re.compile(r"\((?:\?(?::|i:|P?<[A-Za-z_][A-Za-z0-9_]*>))?")


def canonical(pattern: str) -> str:
    """The same pattern in the smaller dialect. Raises ValueError that says what cannot be held."""
    return _Reader(pattern).read()


@functools.lru_cache(maxsize=1024)
def _matcher(pattern: str) -> jsonschema_rs.Draft202012Validator:
    return jsonschema_rs.Draft202012Validator({"pattern": pattern})


def matches(pattern: str, text: str) -> bool:
    """Whether the canonical pattern matches somewhere in the text, as JSON Schema asks."""
    return _matcher(pattern).is_valid(text)


def matches_all(pattern: str) -> bool:
    """Whether every text matches: the canonical pattern has no anchors and matches the empty text."""
    without_classes = re.sub(r"\\.|\[(?:\\.|[^\]])*\]", "", pattern)
    return not {"^", "$"} & set(without_classes) and matches(pattern, "")


def all_but(values: frozenset[str]) -> str:
    """A pattern of every string except these."""
    trie: dict[str, dict] = {}  # type: ignore[type-arg]
    for value in sorted(values):
        node = trie
        for character in value:
            node = node.setdefault(character, {})
        node[""] = {}
    return f"^(?:{_not_in(trie)})$"


def _not_in(trie: dict) -> str:  # type: ignore[type-arg]
    """What may follow so that the whole is none of the trie's strings."""
    first = [character for character in trie if character]
    other = "[^" + "".join(map(_member, map(ord, first))) + "]" if first else ANY
    ways = [f"{other}{ANY}*"] + [f"{quoted(character)}(?:{_not_in(trie[character])})" for character in first]
    return "|".join([*ways, *([] if "" in trie else [""])])


def of_length(low: int, high: int | None) -> str:
    """A pattern of all strings that have so many characters."""
    return f"^{ANY}{{{low},{'' if high is None else high}}}$"


def quoted(text: str) -> str:
    """A pattern of exactly this text."""
    return "".join(_member(ord(each)) for each in text)


def either(patterns: list[str]) -> str:
    return "|".join(f"(?:{pattern})" for pattern in patterns)


class _Reader:
    """One pass over one pattern: reads ECMA-262, writes the smaller dialect."""

    def __init__(self, pattern: str) -> None:
        self._text = pattern
        self._at = 0
        self._depth = 0

    def read(self) -> str:
        written: list[str] = []
        if self._text.startswith("(?i)"):
            written, self._at = ["(?i)"], 4
        while self._at < len(self._text):
            written.append(self._piece())
        if self._depth:
            raise ValueError("a group is not closed")
        return "".join(written)

    def _piece(self) -> str:
        mark = self._text[self._at]
        if mark == "(":
            return self._open()
        if mark == ")":
            return self._close()
        if mark in "|^$":
            self._at += 1
            return mark
        if mark in "*+?":
            raise ValueError(f"there is nothing that {mark!r} could repeat")
        return self._atom(mark) + self._quantifier()

    def _open(self) -> str:
        group = GROUP.match(self._text, self._at)
        assert group is not None
        if self._text.startswith("(?", self._at) and len(group[0]) == 1:
            raise ValueError("look-around and other groups that begin with (? cannot be enforced")
        self._at, self._depth = group.end(), self._depth + 1
        return "(?i:" if group[0] == "(?i:" else "(?:"

    def _close(self) -> str:
        self._at, self._depth = self._at + 1, self._depth - 1
        if self._depth < 0:
            raise ValueError("a group is closed that was not opened")
        return ")" + self._quantifier()

    def _quantifier(self) -> str:
        found = QUANTIFIER.match(self._text, self._at)
        if found is None:
            return ""
        self._at = found.end()
        if any(int(count) > MAX_REPEATS for count in re.findall("[0-9]+", found[0])):
            raise ValueError(f"more than {MAX_REPEATS} repetitions need too large a grammar")
        if self._text[self._at : self._at + 1] in ("*", "+"):
            raise ValueError("a possessive quantifier cannot be enforced")
        return found[0].removesuffix("?") or found[0]

    def _atom(self, mark: str) -> str:
        if mark == "[":
            return self._class()
        self._at += 1
        if mark == ".":
            return "[^" + _members(LINE_ENDS) + "]"
        if mark == "{" and self._text.startswith(",", self._at):
            raise ValueError("{,n} is no quantifier; write {0,n}")
        if mark != "\\":
            return _member(ord(mark))
        one, ranges, raw = self._escape(inside=False)
        if raw:
            return raw
        return _member(one) if one is not None else f"[{_members(ranges)}]"

    def _class(self) -> str:
        self._at += 1
        negated = self._text.startswith("^", self._at)
        self._at += negated
        written: list[str] = []
        while not self._text.startswith("]", self._at):
            written.append(self._range())
        self._at += 1
        if not written:
            raise ValueError("a character class must not be empty")
        return f"[{'^' if negated else ''}{''.join(written)}]"

    def _range(self) -> str:
        low, ranges, raw = self._class_atom()
        if low is None or not self._text.startswith("-", self._at) or self._text.startswith("-]", self._at):
            return raw or (_members(ranges) if low is None else _member(low))
        before, self._at = self._at, self._at + 1
        high, _, _ = self._class_atom()
        if high is None:  # as in [a-\d]: the hyphen is itself
            self._at = before
            return _member(low)
        if high < low:
            raise ValueError("a range in a character class runs backwards")
        return _members([(low, high)])

    def _class_atom(self) -> tuple[int | None, Ranges, str]:
        if self._at >= len(self._text):
            raise ValueError("a character class is not closed")
        mark = self._text[self._at]
        # Mere characters to ECMA-262, but whoever writes these means more by them.
        if self._text[self._at : self._at + 2] in ("[:", "[.", "[=", "&&", "--", "~~"):
            raise ValueError("a character class must not have [:, &&, -- or ~~ in it")
        self._at += 1
        return self._escape(inside=True) if mark == "\\" else (ord(mark), [], "")

    def _escape(self, *, inside: bool) -> tuple[int | None, Ranges, str]:
        """What a backslash stands before: a character, or ranges of them, or a Unicode property as it is."""
        mark = self._text[self._at : self._at + 1]
        if mark.lower() in CLASSES and mark:
            self._at += 1
            ranges = CLASSES[mark.lower()]
            return None, ranges if mark.islower() else _complement(ranges), ""
        if found := PROPERTY.match(self._text, self._at):
            self._at = found.end()
            return None, [], f"\\{found[0]}"
        for form in HEX:
            if found := form.match(self._text, self._at):
                self._at = found.end()
                return self._joined(int(found[1], 16)), [], ""
        return self._plain_escape(mark, inside=inside), [], ""

    def _plain_escape(self, mark: str, *, inside: bool) -> int:
        self._at += 1
        if mark in CONTROLS:
            return CONTROLS[mark]
        if mark == "b" and inside:
            return 0x08
        if mark == "0" and not self._text[self._at : self._at + 1].isdecimal():
            return 0
        if mark == "c" and self._text[self._at : self._at + 1].isalpha():
            self._at += 1
            return ord(self._text[self._at - 1].upper()) - 64
        if not mark or (mark.isascii() and mark.isalnum()):
            known = r"\d, \w, \s, \p{...}, code points and escaped signs can, and ^ and $ at an end"
            raise ValueError(f"the escape \\{mark} cannot be enforced; {known}")
        return ord(mark)

    def _joined(self, code: int) -> int:
        """A code point, of two escapes where they are a surrogate pair."""
        if not SURROGATES[0] <= code <= SURROGATES[1]:
            return code
        low = re.compile(r"\\u([dD][c-fC-F][0-9a-fA-F]{2})").match(self._text, self._at)
        if low is None or code >= 0xDC00:
            raise ValueError("a lone surrogate cannot be enforced")
        self._at = low.end()
        return 0x10000 + (code - 0xD800) * 0x400 + int(low[1], 16) - 0xDC00


def _complement(ranges: Ranges) -> Ranges:
    start, found = 0, []
    for low, high in [*ranges, SURROGATES] if ranges[-1][1] < SURROGATES[0] else _with_surrogates(ranges):
        if start < low:
            found.append((start, low - 1))
        start = high + 1
    return [*found, (start, LAST)]


def _with_surrogates(ranges: Ranges) -> Ranges:
    return sorted([*ranges, SURROGATES])


def _member(code: int) -> str:
    """One character, as it is written inside and outside of classes."""
    character = chr(code)
    if character.isascii() and (character.isalnum() or character in " _<>=!@#%&:;,\"'`~"):
        return f"\\{character}" if character in "&~#" else character
    if character.isascii() and character.isprintable():
        return f"\\{character}"
    return character if character.isprintable() else f"\\u{{{code:X}}}"


def _members(ranges: Ranges) -> str:
    return "".join(_member(low) + (f"-{_member(high)}" if high > low else "") for low, high in ranges)
