"""Patterns with lengths: what the one pattern matches is what the one before matches, in so many characters."""

import pytest

from engine.grammars.schema_lengths import with_lengths
from engine.grammars.schema_patterns import canonical, matches

TEXTS = [
    "",
    "a",
    "b",
    "ab",
    "x-",
    "x-a",
    "x-ab",
    "x-abc",
    "abc",
    "abcd",
    "a.b",
    "é😀",
    "é😀é",
    "\n",
    "a\nb",
    "$",
    "$$$",
    "]]",
]
BOUNDS = [(0, 2), (1, None), (2, 3), (3, 3), (4, None)]


@pytest.mark.parametrize(
    "pattern",
    [
        "^[a-z]+$",
        "^[a-z][a-z0-9]*$",
        "^x-",
        "b$",
        "^",
        "^.*$",
        "^\\$*$",
        "^[\\]]+$",
        "^\\u{1F600}+$",
        "^a{1,3}$",
        "^é😀+é$",
    ],
)
@pytest.mark.parametrize(("low", "high"), BOUNDS)
def test_a_pattern_with_lengths_matches_what_both_take(pattern: str, low: int, high: int | None) -> None:
    pattern = canonical(pattern)
    together = with_lengths(pattern, low, high)
    taken = [text for text in TEXTS if low <= len(text) and (high is None or len(text) <= high)]
    wanted = [text for text in taken if matches(pattern, text)]
    assert [text for text in TEXTS if together is not None and matches(together, text)] == wanted


@pytest.mark.parametrize("pattern", ["a", "^a+b+$", "^(ab)*$", "^a|b$", "(?i)^a*$", "^ab$", "^a{2}$"])
def test_where_no_one_part_decides_the_length_nothing_is_said(pattern: str) -> None:
    assert with_lengths(canonical(pattern), 1, 3) is None
