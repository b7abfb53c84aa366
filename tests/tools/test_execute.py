"""Whatever a model writes as arguments becomes a result or one line of error; nothing is raised."""

import asyncio
import datetime
import enum
import json
import math
import sys
from dataclasses import dataclass
from typing import Annotated, Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from engine.tools import ToolError, execute_tool, tool


class Unit(enum.Enum):
    CELSIUS = "celsius"
    FAHRENHEIT = "fahrenheit"


class Book(BaseModel):
    title: str
    year: int = 2000


@dataclass
class Point:
    x: float
    y: float


@tool
def get_weather(city: str, days: Annotated[int, Field(ge=1, le=7)] = 1, unit: Unit = Unit.CELSIUS) -> str:
    return f"{city}/{days}/{unit.name}"


def error_of(result: Any) -> str:
    assert result["success"] is False
    assert set(result) == {"success", "error"}
    assert result["error"]
    assert "\n" not in result["error"]
    assert "Traceback" not in result["error"]
    return str(result["error"])


# Arguments in.


@pytest.mark.parametrize(
    "arguments", ['{"city": "Rome", "unit": "fahrenheit"}', {"city": "Rome", "unit": "fahrenheit"}]
)
def test_arguments_may_be_a_mapping_or_its_json_text(arguments: Any) -> None:
    assert get_weather.execute(arguments) == {"success": True, "result": "Rome/1/FAHRENHEIT"}


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ("{}", "argument 'city' is missing"),
        ('{"city": 5}', "argument 'city': Input should be a valid string (got 5)"),
        ('{"city": "a", "days": 9}', "argument 'days': Input should be less than or equal to 7 (got 9)"),
        ('{"city": "a", "unit": "K"}', "argument 'unit': Input should be 'celsius' or 'fahrenheit' (got 'K')"),
        ('{"city": "a", "zip": 1}', "argument 'zip' is not known; allowed: city, days, unit"),
        ('{"city": ', "the arguments are not valid JSON: EOF while parsing a value at line 1 column 9"),
        ("", "the arguments are not valid JSON: EOF while parsing a value at line 1 column 0"),
        ("[]", "the arguments must be a JSON object"),
        (["a"], "the arguments must be a JSON object, not list"),
        (None, "the arguments must be a JSON object, not NoneType"),
    ],
)
def test_wrong_arguments_are_a_failure_that_says_which_and_what_is_allowed(arguments: Any, error: str) -> None:
    assert error_of(get_weather.execute(arguments)) == error


def test_only_a_few_of_many_faults_are_listed() -> None:
    arguments = {f"argument_{i}": i for i in range(10)}  # our own field names are not a way in either
    assert error_of(get_weather.execute(arguments)).endswith("; and 8 more")


def test_arguments_arrive_as_the_annotated_types() -> None:
    seen: list[Any] = []

    @tool
    def take(  # noqa: PLR0917
        book: Book, point: Point, unit: Unit, day: datetime.date, tags: set[str], later: "list[Book] | None" = None
    ) -> None:
        seen.extend([book, point, unit, day, tags, later])

    arguments = {
        "book": {"title": "Emma", "year": 1815},
        "point": {"x": 1, "y": 2},
        "unit": "celsius",
        "day": "2024-02-29",
        "tags": ["a", "b", "a"],
        "later": [{"title": "Persuasion"}],
    }
    assert take.execute(json.dumps(arguments)) == {"success": True, "result": None}
    assert seen[:3] == [Book(title="Emma", year=1815), Point(1.0, 2.0), Unit.CELSIUS]
    assert seen[3:] == [datetime.date(2024, 2, 29), {"a", "b"}, [Book(title="Persuasion")]]


def test_a_fault_inside_a_nested_value_is_named_by_its_path() -> None:
    @tool
    def lend(books: list[Book]) -> None: ...

    error = error_of(lend.execute({"books": [{"title": "a"}, {"title": 5}]}))
    assert error == "argument 'books.1.title': Input should be a valid string (got 5)"


def test_a_number_written_as_a_string_is_taken_and_nan_is_not() -> None:
    @tool
    def half(n: float) -> float:
        return n / 2

    assert half.execute('{"n": "5"}') == {"success": True, "result": 2.5}
    assert "finite" in error_of(half.execute('{"n": NaN}'))


def test_positional_only_and_keyword_only_parameters_are_both_passed() -> None:
    @tool
    def subtract(a: int, /, b: int = 1, *, negate: bool = False) -> int:
        return (b - a) if negate else (a - b)

    assert subtract.execute({"a": 5, "negate": True}) == {"success": True, "result": -4}


def test_a_default_given_as_a_field_is_used() -> None:
    @tool
    def count(n: int = Field(5, ge=2)) -> int:
        return n

    assert count.execute({}) == {"success": True, "result": 5}
    assert "greater than or equal to 2" in error_of(count.execute({"n": 1}))


# Results out.


def test_results_become_plain_json_values() -> None:
    @tool
    def find() -> Any:
        return {"book": Book(title="Emma"), "at": Point(1, 2), "on": datetime.date(2024, 1, 1), "unit": Unit.CELSIUS}

    assert find.execute({}) == {
        "success": True,
        "result": {
            "book": {"title": "Emma", "year": 2000},
            "at": {"x": 1.0, "y": 2.0},
            "on": "2024-01-01",
            "unit": "celsius",
        },
    }


def name_of_type(value: object) -> str:
    return type(value).__name__


@pytest.mark.parametrize("value", [object(), math.nan, [math.inf], "\ud800", 10**5000, {"f": print}], ids=name_of_type)
def test_a_result_that_json_cannot_write_is_a_failure(value: Any) -> None:
    @tool
    def give() -> Any:
        return value

    assert error_of(give.execute({})).startswith("the tool's result cannot be written as JSON: ")


class UnprintableError(Exception):
    def __str__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize(
    ("raised", "error"),
    [
        (KeyError("city"), "KeyError: 'city'"),
        (ValueError("two\n  lines"), "ValueError: two lines"),
        (ValueError(), "ValueError"),
        (ToolError("the shop is closed"), "the shop is closed"),
        (ValueError("\ud800"), "ValueError: \\ud800"),
        (UnprintableError(), "UnprintableError"),
        (asyncio.CancelledError(), "CancelledError"),
    ],
)
def test_an_exception_in_the_function_is_a_failure_of_one_line(raised: BaseException, error: str) -> None:
    @tool
    def fail() -> None:
        raise raised

    assert error_of(fail.execute({})) == error


def test_a_long_error_is_clipped() -> None:
    @tool
    def fail() -> None:
        raise ToolError("x" * 10_000)

    assert len(error_of(fail.execute({}))) == 500


def test_a_keyboard_interrupt_is_not_swallowed() -> None:
    @tool
    def wait() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        wait.execute({})


@tool
async def fetch(page: int) -> int:
    await asyncio.sleep(0)
    return 10 // page


def test_an_async_function_runs_to_its_end() -> None:
    assert fetch.execute({"page": 2}) == {"success": True, "result": 5}
    assert error_of(fetch.execute({"page": 0})).startswith("ZeroDivisionError")


def test_an_async_function_may_be_executed_inside_a_running_loop() -> None:
    async def serve() -> Any:
        return fetch.execute({"page": 5})

    assert asyncio.run(serve()) == {"success": True, "result": 2}


# Laws.

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda children: st.lists(children) | st.dictionaries(st.text(), children),
    max_leaves=8,
)
SOME_ARGUMENTS = st.fixed_dictionaries(
    {"city": st.text() | JSON_VALUES},
    optional={
        "days": st.integers(0, 8) | JSON_VALUES,
        "unit": st.sampled_from(["celsius", "fahrenheit", "kelvin"]) | JSON_VALUES,
        "other": JSON_VALUES,
    },
)


@settings(deadline=None)
@given(st.text() | JSON_VALUES, JSON_VALUES | SOME_ARGUMENTS | JSON_VALUES.map(json.dumps))
def test_executing_never_raises_and_always_answers_in_json(name: Any, arguments: Any) -> None:
    for result in (execute_tool(name, arguments), get_weather.execute(arguments)):
        json.dumps(result, allow_nan=False).encode()
        assert set(result) == ({"success", "result"} if result["success"] else {"success", "error"})


SCHEMA = jsonschema.Draft202012Validator(dict(get_weather.definition.parameters or {}))


@settings(deadline=None)
@given(SOME_ARGUMENTS)
def test_what_the_schema_allows_is_executed(arguments: dict[str, Any]) -> None:
    if SCHEMA.is_valid(arguments):
        assert get_weather.execute(arguments)["success"]


def test_a_tool_that_exits_is_a_failure() -> None:
    @tool
    def leave() -> None:
        sys.exit(3)

    @tool
    async def leave_later() -> None:
        sys.exit("enough")

    assert leave.execute("{}") == {"success": False, "error": "SystemExit: 3"}
    assert leave_later.execute("{}") == {"success": False, "error": "SystemExit: enough"}
