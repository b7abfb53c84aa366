"""The JSON-Schema-Test-Suite's instances of draft 2020-12, as accept lists and reject lists.

tests/data/json_schema_test_suite is a copy of github.com/json-schema-org/JSON-Schema-Test-Suite (MIT), as the sdist of
jsonschema 4.26.0 has it: tests/draft2020-12 without what needs a network or other vocabularies.
"""

import itertools
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from engine.errors import RequestError
from engine.grammars.json_schema import CheckedSchema, check_schema
from tests.grammars.turns import allows_value

SUITE = Path(__file__).parent.parent / "data" / "json_schema_test_suite"
FILES = sorted(SUITE.rglob("*.json"))

# How many valid instances cannot be written, and why. A format is an annotation to the suite's `default` groups.
NARROWED = {"key order": 10, "number form": 16, "format": 55, "control character": 2}

REFUSED = {  # how many groups are refused, and why
    "leads to no schema": 8,
    "is a dynamic anchor in several places": 8,
    "no value satisfies it": 11,  # false schemas, and references to them
    "has a control character": 2,
}


def groups(file: Path) -> list[dict[str, Any]]:
    loaded: list[dict[str, Any]] = json.loads(file.read_text())
    return loaded


def enforced(files: Sequence[Path]) -> Iterator[tuple[CheckedSchema, list[dict[str, Any]]]]:
    for file in files:
        for group in groups(file):
            try:
                checked = check_schema(group["schema"], "schema")
                allows_value(checked, None)
            except RequestError:
                continue
            yield checked, group["tests"]


def why_not(checked: CheckedSchema, value: Any) -> str:
    """Why a valid value cannot be written; "unexplained" where nothing in the receipt says so."""
    numbers = [each for each in all_values(value) if isinstance(each, (int, float)) and not isinstance(each, bool)]
    if isinstance(value, dict) and any(allows_value(checked, each) for each in reordered(value)):
        return "key order"
    if any(float(each).is_integer() and (isinstance(each, float) or abs(each) > 2**53) for each in numbers):
        return "number form"
    if "format" in json.dumps(checked.source):
        return "format"
    if any(isinstance(each, str) and any(character < " " for character in each) for each in all_values(value)):
        return "control character"
    return "unexplained"


def all_values(value: Any) -> list[Any]:
    inside = value if isinstance(value, list) else value.values() if isinstance(value, dict) else ()
    return [value, *(inner for each in inside for inner in all_values(each))]


def reordered(value: dict[str, Any]) -> Iterator[dict[str, Any]]:
    return (dict(each) for each in itertools.permutations(value.items()) if list(each) != list(value.items()))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_no_invalid_instance_can_be_written(file: Path) -> None:
    """F7."""
    written = [
        test["data"]
        for checked, tests in enforced([file])
        for test in tests
        if not test["valid"] and allows_value(checked, test["data"])
    ]
    assert written == []


def test_valid_instances_can_be_written_but_for_what_the_receipt_lists() -> None:
    """F7: the counts are those of the suite; a rise means that something was narrowed anew."""
    reasons: Counter[str] = Counter()
    for checked, tests in enforced(FILES):
        for test in tests:
            if test["valid"] and not allows_value(checked, test["data"]):
                reasons[why_not(checked, test["data"])] += 1
    assert reasons == NARROWED


def test_the_groups_that_are_refused_are_those_that_are_known() -> None:
    reasons: Counter[str] = Counter()
    for file in FILES:
        for group in groups(file):
            try:
                check_schema(group["schema"], "schema")
            except RequestError as error:
                reasons[next((each for each in REFUSED if each in str(error)), str(error)[:120])] += 1
    assert reasons == REFUSED
