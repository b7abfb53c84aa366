"""What a pattern's shortest match is: in which case its letters are written, and where its anchors stand."""

import pytest

from engine.grammars.regex_shape import json_size, shape_of
from engine.grammars.schema_patterns import canonical, matches

SHORTEST = [
    # the pattern, and the bytes of its shortest match
    ("wifi", 4),
    ("(?i)wifi", 4),
    ("(?i:wi)fi", 4),
    ("^(?i:[^a-y])$", 1),
    ("(^ab|cd$)", 2),
    ("(^|,)a", 1),
    ("a(;|$)", 1),
    ("(^|x)ab(y|z|$)", 2),
    ("((^a$)|(^b$))", 1),
    ("(^|a(b|$))", 0),
    ("(a|b)*(c|d)", 1),
    ("(^$|^[a-z]{3}$)", 0),
    ("((^ab$|^c$))", 1),
    ("(^a[)(]$)", 2),
]


@pytest.mark.parametrize(("pattern", "num_bytes"), SHORTEST)
def test_the_shortest_match_matches_and_has_so_many_bytes(pattern: str, num_bytes: int) -> None:
    regex = canonical(pattern)
    shape = shape_of(regex, json_size, anchored=False)
    assert shape is not None
    assert shape.shortest is not None
    assert matches(regex, shape.shortest)
    assert shape.num_bytes == num_bytes == len(shape.shortest) <= shape.longest_rest


def test_a_class_that_excludes_a_letter_excludes_it_in_either_case_where_case_is_ignored() -> None:
    shape = shape_of("(?i)^[^0-9a-z]$", json_size, anchored=False)
    assert shape is not None
    assert shape.shortest is not None
    assert not shape.shortest.isalnum()


@pytest.mark.parametrize("pattern", ["(?:a$)b", "a(?:^b|c)", "(?:a$)+", "(?:^a)*", "x(?:^a|b)y", "(?i"])
def test_anchors_in_the_midst_are_not_understood(pattern: str) -> None:
    assert shape_of(pattern, json_size, anchored=False) is None
