"""Numbers and formats: no spelling of an invalid value can be written; what is left out stands in the receipt (F7)."""

import itertools
import json
import re
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.checks import is_json_object
from engine.events import Enforcement
from engine.grammars.json_schema import check_schema
from engine.grammars.schema_formats import OWN_FORMATS
from engine.grammars.schema_numbers import LARGEST_INTEGER, LARGEST_NUMBER
from engine.types import ToolCall
from tests.grammars.turns import INTEGER, STRING, allows, allows_text, an_object

NUMBER = {"type": "number"}
SIDES = list(itertools.product(("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")))
DATES = (
    ["2024-02-29", "2000-02-29", "2023-12-31", "0001-01-01"],
    ["2023-02-29", "1900-02-29", "0000-01-01", "2023-04-31"],
)
TIMES = (["23:59:59Z", "00:00:00.5+14:00"], ["23:59:60Z", "24:00:00Z", "00:60:00Z", "12:00:00", "12:00:00+24:00"])
LONG_NAME = ".".join(["a" * 31] * 7 + ["b" * 29])  # 253 characters
OWN: dict[str, tuple[list[str], list[str]]] = {  # more than tests/grammars/test_json_schema.py has of every format
    "date": DATES,
    "time": TIMES,
    "date-time": (
        [f"{DATES[0][0]}T{each}" for each in TIMES[0]] + [f"{each}T{TIMES[0][0]}" for each in DATES[0]],
        [f"{DATES[0][0]}T{each}" for each in TIMES[1]] + [f"{each}T{TIMES[0][0]}" for each in DATES[1]],
    ),
    "idn-email": (["a+b.c@d-e.example"], ["a@b@c", "é@b.c"]),
    "idn-hostname": (["a-b.example.com"], ["a..b", "é.com"]),
    "iri": (["https://example.com:80/a/b?c=d#e"], ["https://", "example.com", "https://a b"]),
    "uri-reference": (["/a/b?c=d#e", "a", "../b", "https://a.b/c"], ["", "a b", "a%zz", "#a#b"]),
    "iri-reference": (["/a/b?c=d#e"], ["a b", "a%zz"]),
    "uri-template": (["/a/{b}/{?c,d}", ""], ["{", "{}", "{a"]),
    "json-pointer": (["", "/", "/a~1b/0"], ["a", "/~"]),
    "relative-json-pointer": (["0#", "10/a"], ["", "#", "/a", "00"]),
    "regex": ([r"^a\d+[xyz]*$", ""], ["a**", "(", "a)", "["]),
    "hostname": (["a-b.example.com", "1.a", LONG_NAME], [LONG_NAME + "a", "xn--a", "a-.b", "a.", "a_b", ""]),
    "email": (
        ["a+b.c@d-e.example", "a" * 32 + "@b"],
        ["a" * 65 + "@b", "a..b@c", ".a@b", "a@xn--a", f"a@b.{LONG_NAME}"],
    ),
}


def spellings(number: float) -> set[str]:
    texts = (
        {f"{number:g}", f"{number:.1f}", f"{number:.2f}", f"{number:.3f}"} if number * 4 % 1 == 0 else {repr(number)}
    )
    texts = {text for text in texts if float(text) == number}
    return texts | {f"-{text}" for text in texts if number == 0}


def narrowed(schema: Any) -> list[str]:
    return [each.path for each in check_schema(schema, "r").entries if each.enforcement is Enforcement.NARROWED]


# --- Bounds


def test_no_spelling_of_an_excluded_bound_is_admitted_and_values_inside_are() -> None:
    """llguidance 1.9.1 admits 0 as greater than 0 where the maximum is below 1."""
    grid = [quarter / 4 for quarter in range(-48, 49, 3)]
    for low, width, (lower, upper) in itertools.product(grid, (0.25, 0.5, 0.75, 1, 4), SIDES):
        high = low + width
        checked = check_schema({**NUMBER, lower: low, upper: high}, "r")
        for bound, keyword in ((low, lower), (high, upper)):
            for text in spellings(bound):
                assert "exclusive" not in keyword or not allows_text(checked, text), (low, high, lower, upper, text)
        middle = (low + high) / 2
        assert any(allows_text(checked, text) for text in spellings(middle)), (low, high, lower, upper)
        for outside in (low - 0.25, high + 0.25):
            assert not any(allows_text(checked, text) for text in spellings(outside)), (low, high, lower, upper)


@pytest.mark.parametrize(
    ("schema", "excluded", "inside"),
    [
        ({"allOf": [{**NUMBER, "exclusiveMinimum": 0}, {"maximum": 0.5}]}, "0", "0.25"),
        ({**NUMBER, "exclusiveMaximum": 0, "anyOf": [{"minimum": -0.5}, {"maximum": -9}]}, "-0", "-0.25"),
        ({"$ref": "#/$defs/n", "maximum": 1.5, "$defs": {"n": {**NUMBER, "exclusiveMinimum": 1}}}, "1", "1.25"),
        ({"type": ["number", "null"], "exclusiveMinimum": 10, "maximum": 10.25}, "10", "10.1"),
        ({**NUMBER, "exclusiveMinimum": 0, "exclusiveMaximum": 1e-9}, "0", "0.0000000005"),
        ({"type": ["number", "null"], "exclusiveMinimum": 5, "maximum": 5.0000005}, "5", "5.0000003"),
        ({**NUMBER, "exclusiveMinimum": -1e-9, "exclusiveMaximum": 0}, "0", "-0.0000000005"),
        ({**NUMBER, "exclusiveMinimum": 5_000_000, "exclusiveMaximum": 5_000_000.5}, "5000000", "5000000.25"),
        ({"exclusiveMinimum": 5_000_000, "exclusiveMaximum": 5_000_003, "allOf": [NUMBER]}, "5000000", "5000002"),
    ],
)
def test_a_bound_stays_excluded_when_the_other_stands_elsewhere(schema: Any, excluded: str, inside: str) -> None:
    checked = check_schema(schema, "r")
    assert not allows_text(checked, excluded)
    assert allows_text(checked, inside)


def test_a_bound_that_had_to_move_stands_in_the_receipt_and_no_other_does() -> None:
    assert narrowed({**NUMBER, "exclusiveMinimum": 0, "maximum": 0.5}) == ["r.exclusiveMinimum"]
    assert narrowed({**NUMBER, "minimum": -0.5, "exclusiveMaximum": 0}) == ["r.exclusiveMaximum"]
    assert narrowed({**NUMBER, "exclusiveMinimum": 0, "exclusiveMaximum": 1}) == []
    assert narrowed({**INTEGER, "exclusiveMinimum": 0, "exclusiveMaximum": 1.5}) == []


@pytest.mark.parametrize(
    "schema",
    [
        NUMBER,
        INTEGER,
        {"type": ["null", "number"]},
        {**NUMBER, "minimum": 0},
        {**INTEGER, "exclusiveMinimum": 0},
        {**INTEGER, "multipleOf": 2},
        {"minimum": 0},
    ],
)
def test_numbers_without_bounds_are_finite_and_no_longer_than_readers_take(schema: Any) -> None:
    checked = check_schema(schema, "r")
    largest = LARGEST_INTEGER if schema.get("type") == "integer" else LARGEST_NUMBER
    for text in ("1" * 5000, "1e999", "1E5", str(largest + 2)):
        assert not allows_text(checked, text), text
    assert all(allows_text(checked, text) for text in ("2", "120", str(largest)))
    assert narrowed(schema) == ["r"]


@pytest.mark.parametrize("bounds", [{}, {"minimum": 0.5}, {"exclusiveMinimum": 0, "maximum": 1e15}])
@pytest.mark.parametrize(
    ("step", "large", "beyond"),
    [(2.5, 99999999999997.5, "4551281164155102.5"), (1.1, 99999999999997.9, "3206129545428477.8")],
)
def test_multiples_of_a_fraction_are_no_longer_than_what_is_read_as_written(
    step: float, large: float, beyond: str, bounds: Any
) -> None:
    """F7: read as float64, a longer one becomes a neighbour, which is no multiple."""
    schema = {**NUMBER, "multipleOf": step, **bounds}
    assert not jsonschema_rs.is_valid(schema, json.loads(beyond))
    checked = check_schema(schema, "r")
    assert (allows_text(checked, str(large)), allows_text(checked, beyond)) == (True, False)
    assert jsonschema_rs.is_valid(schema, large)
    assert narrowed(schema) == ["r"]


def test_multiples_that_all_lie_further_out_than_that_are_left_to_the_veto() -> None:
    assert check_schema({**NUMBER, "multipleOf": 0.05, "minimum": 10**15}, "r").vetoed == {"/multipleOf"}
    assert check_schema({**NUMBER, "multipleOf": 0.05, "maximum": 10**15}, "r").vetoed == frozenset()


def test_listed_numbers_and_bounded_numbers_stay_as_they_are() -> None:
    for schema in ({"enum": [1, 2]}, {**NUMBER, "minimum": 0, "maximum": 5}, STRING):
        assert narrowed(schema) == []
        assert check_schema(schema, "r").schema == schema


# --- Formats


@pytest.mark.parametrize("name", OWN_FORMATS)
def test_a_format_of_our_own_pattern_admits_valid_values_only_and_the_receipt_says_so(name: str) -> None:
    schema = {**STRING, "format": name}
    good, bad = OWN[name]
    assert [value for value in good if not allows(schema, value)] == []
    assert [value for value in bad if allows(schema, value)] == []
    assert narrowed(an_object({"a": schema})) == ["r.properties.a.format"]


@pytest.mark.parametrize("name", OWN_FORMATS)
@settings(deadline=None, max_examples=50)
@given(data=st.data())
def test_what_the_pattern_of_a_format_admits_validators_take(name: str, data: st.DataObject) -> None:
    own = OWN_FORMATS[name]
    # Hypothesis lets $ match before a line's end too; the pattern in the grammar does not.
    value = data.draw(st.from_regex(re.compile(own.pattern.removesuffix("$") + r"\Z")))
    valid = jsonschema_rs.validator_for({**STRING, "format": name}, validate_formats=True)
    assert len(value) > (own.max_length or 1000) or valid.is_valid(value)


def test_every_day_of_the_years_is_admitted_as_the_calendar_has_it() -> None:
    valid = jsonschema_rs.validator_for({**STRING, "format": "date"}, validate_formats=True)
    pattern = re.compile(OWN_FORMATS["date"].pattern)
    for year, month, day in itertools.product((1, 4, 100, 400, 1900, 2000, 2023, 2024, 9999), range(14), range(33)):
        text = f"{year:04}-{month:02}-{day:02}"
        assert bool(pattern.match(text)) == valid.is_valid(text), text


def test_a_format_holds_beside_a_pattern() -> None:
    schema = {**STRING, "format": "date", "pattern": "^2024", "allOf": [{"pattern": "-01$"}]}
    assert allows(schema, "2024-02-01")
    for value in ("2023-02-01", "2024-02-02", "2024-13-01"):
        assert not allows(schema, value)


def test_the_length_of_a_formatted_string_may_be_bounded_further() -> None:
    schema = {**STRING, "format": "hostname", "maxLength": 3, "minLength": 2}
    assert allows(schema, "a.b")
    assert not allows(schema, "a")
    assert not allows(schema, "a.bc")


# --- Whether text is a JSON object


@pytest.mark.parametrize("arguments", ['{"a": ' + "1" * 5000 + "}", '{"a": ' * 3000 + "1e999" + "}" * 3000])
def test_a_call_may_hold_numbers_and_nesting_that_python_does_not_read(arguments: str) -> None:
    assert ToolCall("id", "name", arguments).arguments == arguments


@settings(max_examples=200)
@given(
    st.lists(
        st.sampled_from(["{", "}", "[", "]", ":", ",", '"a"', "-1.5e+3", "01", "null", " ", '"\\u00e9\\n"']), max_size=8
    )
)
def test_text_is_a_json_object_when_the_json_module_reads_one(parts: list[str]) -> None:
    for text in ("".join(parts), "{" + "".join(parts) + "}", '{"a": ' + "".join(parts) + "}"):
        try:
            expected = isinstance(json.loads(text), dict)
        except ValueError:
            expected = False
        assert is_json_object(text) == expected


@pytest.mark.parametrize(
    "text", ['{"a": NaN}', '{"a": "\n"}', '{"a": "\\x"}', "\u00a0{}", '{"a": 1.}', "{} {}", '{"a"']
)
def test_what_is_not_quite_json_is_none(text: str) -> None:
    assert not is_json_object(text)
