"""The options of the toolmask key that decide how tools are shown, and which."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.api.servers import LiveServer, events_of, function_tool, served
from tests.fakes import fake_loaded, fake_that_writes

SAID = [{"role": "user", "content": "How is the weather?"}]
TOOLS = [
    function_tool("calculate", {"type": "object", "properties": {}}, description="Compute."),
    function_tool("get_weather", {"type": "object", "properties": {}}, description="The forecast."),
]
FLAT = [{"type": "function", **tool["function"]} for tool in TOOLS]


@pytest.fixture(scope="module")
def server() -> Iterator[LiveServer]:
    with served(fake_that_writes("Rain.")) as server:
        yield server


def num_tokens(server: LiveServer, **toolmask: Any) -> int:
    body = {"messages": SAID, "tools": TOOLS, "toolmask": toolmask}
    count: int = server.http.post("/v1/tokenize", json=body).raise_for_status().json()["count"]
    return count


def responded(server: LiveServer, **body: Any) -> httpx.Response:
    asked = {"model": "fake", "input": "How is the weather?", "tools": FLAT, "max_output_tokens": 12}
    return server.http.post("/v1/responses", json={**asked, **body})


def test_an_answer_says_which_tools_were_offered(server: LiveServer) -> None:
    options = {"tool_retrieval": 1}
    whole = server.chat(messages=SAID, tools=TOOLS, toolmask=options).json()
    streamed = events_of(server.chat(messages=SAID, tools=TOOLS, toolmask=options, stream=True))
    response = responded(server, toolmask=options).json()
    said = [whole["toolmask"], *(event["toolmask"] for event in streamed if "toolmask" in event), response["toolmask"]]
    assert [each["offered_tools"] for each in said] == [["get_weather"]] * 3


def test_nothing_is_said_of_the_offer_where_nothing_was_chosen(server: LiveServer) -> None:
    assert "offered_tools" not in server.chat(messages=SAID, tools=TOOLS).json()["toolmask"]


def test_a_count_of_tokens_is_that_of_the_tools_that_are_offered(server: LiveServer) -> None:
    assert num_tokens(server, tool_retrieval=1) < num_tokens(server, tool_retrieval=2) == num_tokens(server)


def test_each_part_of_a_display_reaches_the_prompt(server: LiveServer) -> None:
    displays = [{}, {"style": "json"}, {"example": False}, {"order": "tools_first"}, {"place": "after"}]
    counts = [num_tokens(server, tool_display=display) for display in displays]
    prompts = {
        tuple(server.http.post("/v1/tokenize", json=body).json()["tokens"])
        for body in ({"messages": SAID, "tools": TOOLS, "toolmask": {"tool_display": each}} for each in displays)
    }
    assert counts[0] == num_tokens(server)
    assert len(prompts) == len(displays)


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"tool_retrieval": 0}, "toolmask.tool_retrieval"),
        ({"tool_display": {"style": "xml"}}, "toolmask.tool_display.style"),
        ({"tool_display": {"colour": "red"}}, "toolmask.tool_display.colour"),
    ],
)
def test_an_option_that_is_none_is_refused_by_its_path(server: LiveServer, options: Any, param: str) -> None:
    error = server.chat(messages=SAID, tools=TOOLS, toolmask=options).json()["error"]
    assert error["param"] == param


def test_a_template_that_shows_tools_itself_refuses_a_display_by_its_path() -> None:
    with served(fake_loaded(hermes=True)) as server:
        answers = [
            server.chat(messages=SAID, tools=TOOLS, toolmask={"tool_display": {}}),
            responded(server, toolmask={"tool_display": {}}),
        ]
    for answer in answers:
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "toolmask.tool_display")
