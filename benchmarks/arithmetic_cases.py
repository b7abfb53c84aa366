"""Made-up requests to calculate something: with the built-in tool, and with its schema's `examples` left out.

What an example in a schema is worth to a model that is shown one. Each request is asked of both, so that they can be
compared one by one. The example itself was chosen on requests of the same forms with other numbers.
"""

import random

from benchmarks.tool_cases import Half, ToolCase
from engine.tools import BUILT_IN_TOOLS, execute_tool
from engine.types import JsonObject, Message, Role, Tool

WITH_EXAMPLE, WITHOUT_EXAMPLE = "arithmetic", "arithmetic_no_example"
PER_FORM = 10
CALCULATE = next(tool for tool in BUILT_IN_TOOLS.definitions if tool.name == "calculate")

# What is said, and an expression of the same value; of three numbers below 100, and the square of the first one.
FORMS = (
    ("What is {a} + {b} - {c}?", "{a} + {b} - {c}"),
    ("Compute sqrt({square}) * {b}", "{a} * {b}"),
    ("What is {a} times {b}?", "{a} * {b}"),
    ("Calculate ({a} + {b}) / {c}", "({a} + {b}) / {c}"),
    ("How much is {a}.5 * {b}?", "{a}.5 * {b}"),
    ("Please work out {a} ^ 2 - {b}.", "{square} - {b}"),
    ("Subtract {a} from 1{b}.", "1{b} - {a}"),
    ("What is the sum of {a}, {b} and {c}?", "{a} + {b} + {c}"),
    ("Divide {a}0 by {b}", "{a}0 / {b}"),
    ("Evaluate {a} * {b} + {c} * {a}", "{a} * {b} + {c} * {a}"),
    ("Find the square root of {square}", "{a}"),
    ("{a} - {b} = ?", "{a} - {b}"),
)


def arithmetic_cases(seed: int) -> list[ToolCase]:
    """PER_FORM requests of each form, all of them with each of the two tools. The same seed makes the same ones."""
    rng = random.Random(seed)
    asked = [_filled(form, rng) for _ in range(PER_FORM) for form in FORMS]
    tools = {WITH_EXAMPLE: CALCULATE, WITHOUT_EXAMPLE: without_examples(CALCULATE)}
    return [
        _case(f"{category}_{number}", category, tool, said, expression)
        for category, tool in tools.items()
        for number, (said, expression) in enumerate(asked)
    ]


def _filled(form: tuple[str, str], rng: random.Random) -> tuple[str, str]:
    numbers = {name: rng.randint(2, 99) for name in "abc"}
    said, expression = (text.format(**numbers, square=numbers["a"] ** 2) for text in form)
    return said, expression


def without_examples(tool: Tool) -> Tool:
    """The tool without the `examples` of its properties."""
    parameters: JsonObject = tool.parameters or {}
    properties = {
        name: {keyword: value for keyword, value in schema.items() if keyword != "examples"}
        for name, schema in parameters["properties"].items()
    }
    return Tool(tool.name, tool.description, {**parameters, "properties": properties})


def _case(id_: str, category: str, tool: Tool, said: str, expression: str) -> ToolCase:
    value = execute_tool("calculate", {"expression": expression})["result"]
    answer = {"name": tool.name, "arguments": {"expression": {"value": value}}}
    return ToolCase(id_, category, Half.REPORT, (Message(Role.USER, said),), (tool,), (tool.name,), (answer,))
