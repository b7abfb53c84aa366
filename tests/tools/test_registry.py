"""A typed function becomes a tool: its name, its description and its JSON schema."""

import enum
import math
from collections.abc import Callable
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field

from engine.errors import ConfigError
from engine.tools import BUILT_IN_TOOLS, ToolRegistry, execute_tool, tool


class Unit(enum.Enum):
    CELSIUS = "celsius"
    FAHRENHEIT = "fahrenheit"


class Book(BaseModel):
    """A printed book."""

    title: str
    year: int = 2000


@tool
def get_weather(city: str, days: Annotated[int, Field(ge=1, le=7)] = 1, unit: Unit = Unit.CELSIUS) -> str:
    """Forecast the weather.

    Looks ahead up to a week.

    Args:
        city: The city's name,
            in English.
        days: How many days ahead.

    Returns:
        The forecast, as text.
    """
    return f"{city}/{days}/{unit.name}"


def properties_of(function: Callable[..., Any]) -> dict[str, Any]:
    parameters = tool(function).definition.parameters
    assert parameters is not None
    return dict(parameters["properties"])


# The definition.


def test_a_definition_has_the_name_the_prose_and_a_closed_schema() -> None:
    assert get_weather.definition.name == "get_weather"
    assert get_weather.definition.description == "Forecast the weather.\n\nLooks ahead up to a week."
    assert get_weather.definition.parameters == {
        "type": "object",
        "properties": {
            "city": {"type": "string", "description": "The city's name, in English."},
            "days": {
                "type": "integer",
                "minimum": 1,
                "maximum": 7,
                "default": 1,
                "description": "How many days ahead.",
            },
            "unit": {"$ref": "#/$defs/Unit", "default": "celsius"},
        },
        "required": ["city"],
        "additionalProperties": False,
        "$defs": {"Unit": {"type": "string", "enum": ["celsius", "fahrenheit"]}},
    }


def test_a_tool_is_still_the_function() -> None:
    assert get_weather("Rome", days=3) == "Rome/3/CELSIUS"


def test_titles_go_but_a_property_named_title_stays() -> None:
    def add_book(title: str, book: Book, options: dict[str, Literal["title"]]) -> None: ...

    parameters = tool(add_book).definition.parameters
    assert parameters is not None
    assert parameters["properties"]["title"] == {"type": "string"}
    assert parameters["$defs"]["Book"]["properties"] == {
        "title": {"type": "string"},
        "year": {"type": "integer", "default": 2000},
    }
    assert parameters["properties"]["options"]["additionalProperties"] == {"type": "string", "const": "title"}
    assert "title" not in parameters
    assert "title" not in parameters["$defs"]["Book"]


def test_a_literal_becomes_an_enum() -> None:
    def paint(color: Literal["red", "blue"]) -> None: ...

    assert properties_of(paint) == {"color": {"type": "string", "enum": ["red", "blue"]}}


def test_a_function_without_parameters_has_no_schema() -> None:
    @tool
    def now() -> str:
        """Tell the time."""
        return "noon"

    assert now.definition.parameters is None
    assert now.execute("{}") == {"success": True, "result": "noon"}
    assert now.execute('{"zone": 1}') == {"success": False, "error": "argument 'zone' is not known; allowed: none"}


GOOGLE = """Add.

    Args:
        first: The first
            number.
        second (int): The second: a number.
    """
NUMPY = """Add.

    Parameters
    ----------
    first : int
        The first
        number.
    second : {1, 2}, optional
        The second: a number.
    """
SPHINX = """Add.

    :param first: The first
        number.
    :param int second: The second: a number."""


@pytest.mark.parametrize("docstring", [GOOGLE, NUMPY, SPHINX], ids=["google", "numpy", "sphinx"])
def test_descriptions_are_read_from_every_docstring_style(docstring: str) -> None:
    def add(first: int, second: int = 1) -> int:
        return first + second

    add.__doc__ = docstring
    assert tool(add).definition.description == "Add."
    assert {name: schema["description"] for name, schema in properties_of(add).items()} == {
        "first": "The first number.",
        "second": "The second: a number.",
    }


def test_an_indented_block_under_another_heading_belongs_to_the_description() -> None:
    def roll() -> int:
        """Roll a die.

        Rules:
            Six sides.
        """
        return 4

    assert tool(roll).definition.description == "Roll a die.\n\nRules: Six sides."


def test_a_field_description_wins_over_the_docstring() -> None:
    def greet(name: Annotated[str, Field(description="from the field")]) -> None:
        """Greet.

        Args:
            name: from the docstring
            nobody: is not a parameter
        """

    assert properties_of(greet) == {"name": {"type": "string", "description": "from the field"}}


def test_a_default_that_json_cannot_write_is_left_out_of_the_schema() -> None:
    def measure(limit: float = math.inf, marker: Any = object) -> float:  # noqa: ARG001
        return min(limit, 5.0)

    assert properties_of(measure) == {"limit": {"type": "number"}, "marker": {}}
    assert tool(measure).execute("{}") == {"success": True, "result": 5.0}


def test_names_that_pydantic_claims_are_allowed_as_parameters() -> None:
    @tool
    def shadow(schema: int, copy: int, model_config: int, _private: int, argument_0: int = 5) -> list[int]:
        return [schema, copy, model_config, _private, argument_0]

    arguments = {"schema": 1, "copy": 2, "model_config": 3, "_private": 4}
    assert shadow.execute(arguments) == {"success": True, "result": [1, 2, 3, 4, 5]}


def unannotated(city) -> None: ...  # type: ignore[no-untyped-def]


def star_args(*cities: str) -> None: ...


def star_kwargs(**cities: str) -> None: ...


def undefined(city: "Citty") -> None: ...  # type: ignore[name-defined]  # noqa: F821


def no_schema(days: int, city: Callable[[], str]) -> None: ...


def bad_pattern(days: int, city: Annotated[str, Field(pattern="(")]) -> None: ...


@pytest.mark.parametrize(
    ("function", "named"),
    [
        (unannotated, "city"),
        (star_args, "*cities"),
        (star_kwargs, "**cities"),
        (undefined, "Citty"),
        (no_schema, "'city'"),
        (bad_pattern, "'city'"),
    ],
)
def test_what_no_schema_can_describe_is_refused_by_function_and_parameter(
    function: Callable[..., Any], named: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        tool(function)
    assert function.__name__ in str(caught.value)
    assert named in str(caught.value)


def test_a_function_without_a_usable_name_is_refused() -> None:
    with pytest.raises(ConfigError, match="<lambda>"):
        tool(lambda: None)


# The registry.


def test_a_registry_offers_tools_in_order_and_takes_plain_functions() -> None:
    def late() -> None: ...

    registry = ToolRegistry([get_weather, late])
    assert [definition.name for definition in registry.definitions] == ["get_weather", "late"]


def test_register_is_a_decorator() -> None:
    registry = ToolRegistry()

    @registry.register
    def double(n: int) -> int:
        return 2 * n

    assert double(4) == 8
    assert registry.execute("double", '{"n": 4}') == {"success": True, "result": 8}


def test_two_tools_of_one_name_are_refused() -> None:
    registry = ToolRegistry([get_weather])
    with pytest.raises(ConfigError, match="two tools are called 'get_weather'"):
        registry.register(get_weather)


def test_an_unknown_tool_is_a_failure_that_names_the_registered_ones() -> None:
    assert execute_tool("calculator", "{}") == {
        "success": False,
        "error": "there is no tool 'calculator'; registered: calculate, web_search",
    }


def test_execute_tool_runs_the_built_in_tools_unless_a_registry_is_given() -> None:
    assert execute_tool("calculate", {"expression": "sqrt(144) + 2**3"}) == {"success": True, "result": 20.0}
    assert execute_tool("get_weather", {"city": "Rome"}, ToolRegistry([get_weather]))["success"]
    assert [definition.name for definition in BUILT_IN_TOOLS.definitions] == ["calculate", "web_search"]
