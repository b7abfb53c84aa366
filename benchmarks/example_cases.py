"""Made-up requests for the built-in tools, each asked with their schemas' `examples` and with these left out.

What an example in a schema is worth to a model that is shown one, request by request. The examples themselves were
chosen on requests of the same forms, with other numbers and topics.
"""

import random
from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.tool_cases import Half, ToolCase
from engine.tools import BUILT_IN_TOOLS, execute_tool
from engine.types import JsonObject, Message, Role, Tool

WITHOUT = "_no_example"  # behind a tool's name, the category of the requests without
PER_FORM = 10
ANY_NUMBER = list(range(1, 21))  # of results: no request says how many
TOOLS = {tool.name: tool for tool in BUILT_IN_TOOLS.definitions}

# What is said, and an expression of the same value; of three numbers below 100, and the square of the first one.
CALCULATIONS = (
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

SEARCHES = (
    "Search the web for {topic}",
    "Find information about {topic}",
    "Look up {topic} online.",
    "Can you search for {topic}?",
    "Please google {topic} for me",
)
TOPICS = (
    "beginner yoga classes",
    "the height of Mount Kenya",
    "used camera lenses",
    "the Treaty of Versailles",
    "train tickets to Vienna",
    "how to prune roses",
    "Frida Kahlo",
    "heat pump subsidies",
    "film festivals in Toronto",
    "sourdough starter problems",
)


def example_cases(seed: int) -> list[ToolCase]:
    """PER_FORM requests of each form for each built-in tool, all of them with and without examples.

    The same seed makes the same ones. Each is asked of one tool.
    """
    asked = {"calculate": list(_calculations(random.Random(seed))), "web_search": list(_searches())}
    return [
        _case(f"{category}_{number}", category, tool, said, accepted)
        for name, requests in asked.items()
        for category, tool in ((name, TOOLS[name]), (name + WITHOUT, without_examples(TOOLS[name])))
        for number, (said, accepted) in enumerate(requests)
    ]


def _calculations(rng: random.Random) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for _ in range(PER_FORM):
        for said, expression in CALCULATIONS:
            numbers = {name: rng.randint(2, 99) for name in "abc"}
            numbers["square"] = numbers["a"] ** 2
            value = execute_tool("calculate", {"expression": expression.format(**numbers)})["result"]
            yield said.format(**numbers), {"expression": {"value": value}}


def _searches() -> Iterator[tuple[str, Mapping[str, Any]]]:
    for topic in TOPICS:
        for said in SEARCHES:
            yield said.format(topic=topic), {"query": [topic, topic.removeprefix("the ")]}


def without_examples(tool: Tool) -> Tool:
    """The tool without the `examples` of its properties."""
    parameters: JsonObject = tool.parameters or {}
    properties = {
        name: {keyword: value for keyword, value in schema.items() if keyword != "examples"}
        for name, schema in parameters["properties"].items()
    }
    return Tool(tool.name, tool.description, {**parameters, "properties": properties})


def _case(id_: str, category: str, tool: Tool, said: str, accepted: Mapping[str, Any]) -> ToolCase:
    answer = {"name": tool.name, "arguments": accepted, "optional": {"num_results": ANY_NUMBER}}
    return ToolCase(id_, category, Half.REPORT, (Message(Role.USER, said),), (tool,), (tool.name,), (answer,))
