"""What is known of a value that is still being written."""

import pytest

from engine.output_types import partial_json


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a', {}),
        ('{"a": ', {}),
        ('{"a": "x', {"a": "x"}),
        ('{"a": "x 12', {"a": "x 12"}),
        ('{"a": "x\\', {"a": "x"}),
        ('{"a": "\\"1', {"a": '"1'}),
        ('{"a": "x\\\\", "b": 1', {"a": "x\\"}),
        ('{"a": 12', {}),
        ('{"a": 12,', {"a": 12}),
        ('{"a": 12}', {"a": 12}),
        ("[1, 2", [1]),
        ("[1, -", [1]),
        ("[1, 2.5e", [1]),
        ("[1, tru", [1]),
        ("[true", [True]),
        ('"ab', "ab"),
        ('"12', "12"),
    ],
)
def test_a_partial_value_has_what_is_known_and_no_unfinished_number(text: str, value: object) -> None:
    assert partial_json(text) == value


@pytest.mark.parametrize("text", ["", "1", "-", "12.5", "tr", "nul"])
def test_nothing_is_known_of_a_number_or_literal_that_may_go_on(text: str) -> None:
    with pytest.raises(ValueError, match="EOF"):
        partial_json(text)
