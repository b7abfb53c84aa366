"""Special tokens in the midst of text: each is one character that no text has, so that a marker is found as a string.

A lone surrogate stands for a token: UTF-8 has none, so that what a model spells is never taken for the token.
"""

from collections.abc import Collection, Iterable

FIRST_MARK = 0xD800
NUM_MARKS = 0x800


class Marks:
    """The special tokens that some literals are made of."""

    def __init__(self, literals: Iterable[str], special_tokens: Collection[str]) -> None:
        """special_tokens: their spellings. Those that no literal has are left out."""
        text = "\n".join(literals)
        used = sorted((token for token in special_tokens if token in text), key=len, reverse=True)
        assert len(used) <= NUM_MARKS
        self._marks = {token: chr(FIRST_MARK + number) for number, token in enumerate(used)}

    def of_token(self, spelling: str) -> str:
        """A special token as it was written."""
        return self._marks.get(spelling, spelling)

    def of_literal(self, literal: str) -> str:
        """A literal, each special token in it as its mark."""
        for token, mark in self._marks.items():
            literal = literal.replace(token, mark)
        return literal

    def spelled(self, text: str) -> str:
        """The text with the tokens' spellings in place of their marks."""
        for token, mark in self._marks.items():
            text = text.replace(mark, token)
        return text


def held_back(text: str, marker: str) -> int:
    """How many characters at the text's end may be the beginning of the marker."""
    for length in range(min(len(text), len(marker) - 1), 0, -1):
        if text.endswith(marker[:length]):
            return length
    return 0
