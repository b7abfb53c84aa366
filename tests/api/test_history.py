"""Calls and results in the conversation that a client sends: what OpenAI's API refuses is refused, by path."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.api.servers import MODEL, LiveServer, function_tool, served

USER = {"role": "user", "content": "Hi"}
FLAT = {"type": "function", **function_tool("f")["function"]}


@pytest.fixture(scope="module")
def server() -> Iterator[LiveServer]:
    with served() as server:
        yield server


def calls(*ids: str) -> dict[str, Any]:
    written = [{"id": each, "type": "function", "function": {"name": "f", "arguments": "{}"}} for each in ids]
    return {"role": "assistant", "content": None, "tool_calls": written}


def custom_call(call_id: str) -> dict[str, Any]:
    call = {"id": call_id, "type": "custom", "custom": {"name": "sql", "input": "x"}}
    return {"role": "assistant", "content": None, "tool_calls": [call]}


def result(call_id: str) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": call_id, "content": "1"}


GOOD = {
    "one": [USER, calls("a"), result("a")],
    "two in another order": [USER, calls("a", "b"), result("b"), result("a"), USER],
    "a custom one": [USER, custom_call("a"), result("a")],
    "the same id in two turns": [USER, calls("a"), result("a"), calls("a"), result("a")],
    "with the tool's name, as Instructor sends it": [USER, calls("a"), {**result("a"), "name": "f"}],
    "with a custom tool's name": [USER, custom_call("a"), {**result("a"), "name": "sql"}],
}


@pytest.mark.parametrize("messages", GOOD.values(), ids=GOOD)
def test_a_call_with_its_result_is_taken(server: LiveServer, messages: list[dict[str, Any]]) -> None:
    assert server.chat(messages=messages).status_code == 200


BAD: dict[str, tuple[list[dict[str, Any]], str, str]] = {
    "no call": ([USER, result("a")], "messages[1].tool_call_id", "there is none"),
    "another id": ([USER, calls("a", "b"), result("c")], "messages[2].tool_call_id", "'a', 'b'"),
    "a second result": ([USER, calls("a"), result("a"), result("a")], "messages[3].tool_call_id", "there is none"),
    "a result too late": ([USER, calls("a"), result("a"), USER, result("a")], "messages[4].tool_call_id", "none"),
    "no result": ([USER, calls("a"), USER], "messages[1].tool_calls[0].id", "before messages[2]"),
    "one of two": ([USER, calls("a", "b"), result("a"), USER], "messages[1].tool_calls[1].id", "'b'"),
    "no result at the end": ([USER, calls("a")], "messages[1].tool_calls[0].id", "at the end"),
    "two alike": ([USER, calls("a", "a"), result("a")], "messages[1].tool_calls[1].id", "messages[1].tool_calls[0].id"),
    "another tool's name": ([USER, calls("a"), {**result("a"), "name": "g"}], "messages[2].name", "'f'"),
    "many calls": ([USER, calls(*"abcdefg"), result("x")], "messages[2].tool_call_id", "'d', and 3 more"),
}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize(("messages", "param", "word"), BAD.values(), ids=BAD)
def test_a_call_without_its_result_or_a_result_without_its_call_is_named(
    server: LiveServer, messages: list[dict[str, Any]], param: str, word: str, stream: bool
) -> None:
    response = server.chat(messages=messages, stream=stream)
    assert response.status_code == 400, response.text
    error = response.json()["error"]
    assert error["param"] == param
    assert word in error["message"]


def test_what_a_chat_would_refuse_is_not_counted_either(server: LiveServer) -> None:
    response = server.http.post("/v1/tokenize", json={"messages": [USER, result("a")]})
    assert (response.status_code, response.json()["error"]["param"]) == (400, "messages[1].tool_call_id")


# Responses.


def function_call(call_id: str) -> dict[str, Any]:
    return {"type": "function_call", "call_id": call_id, "name": "f", "arguments": "{}"}


def output(call_id: str, kind: str = "function") -> dict[str, Any]:
    return {"type": f"{kind}_call_output", "call_id": call_id, "output": "1"}


def respond(server: LiveServer, **body: Any) -> Any:
    return server.http.post("/v1/responses", json={"model": MODEL, "max_output_tokens": 40, **body})


@pytest.mark.parametrize(
    "items",
    [
        [USER, function_call("a"), output("a")],
        [USER, function_call("a"), function_call("b"), output("b"), output("a")],
        [USER, function_call("a"), output("a"), function_call("a"), output("a"), USER],
        [USER, {"type": "custom_tool_call", "call_id": "a", "name": "sql", "input": "x"}, output("a", "custom_tool")],
    ],
    ids=["one", "two", "the same id in two turns", "a custom one"],
)
def test_an_item_with_its_output_is_taken(server: LiveServer, items: list[dict[str, Any]]) -> None:
    assert respond(server, input=items).status_code == 200


BAD_ITEMS: dict[str, tuple[list[dict[str, Any]], str, str]] = {
    "no call": ([USER, output("a")], "input[1].call_id", "there is none"),
    "another id": ([USER, function_call("a"), output("b")], "input[2].call_id", "'a'"),
    "the other kind": ([USER, function_call("a"), output("a", "custom_tool")], "input[2].call_id", "there is none"),
    "a call after its output": ([USER, output("a"), function_call("a")], "input[1].call_id", "there is none"),
    "no output": ([USER, function_call("a"), USER], "input[1].call_id", "function_call_output"),
    "two alike": ([USER, function_call("a"), function_call("a"), output("a")], "input[2].call_id", "input[1].call_id"),
}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize(("items", "param", "word"), BAD_ITEMS.values(), ids=BAD_ITEMS)
def test_an_item_without_its_output_or_an_output_without_its_item_is_named(
    server: LiveServer, items: list[dict[str, Any]], param: str, word: str, stream: bool
) -> None:
    response = respond(server, input=items, stream=stream)
    assert response.status_code == 400, response.text
    error = response.json()["error"]
    assert error["param"] == param
    assert word in error["message"]


def test_the_calls_of_the_response_before_must_be_answered(server: LiveServer) -> None:
    choice = {"tools": [FLAT], "tool_choice": "required", "parallel_tool_calls": False, "max_output_tokens": 200}
    first = respond(server, input="Hi", **choice).json()
    (call,) = first["output"]
    more = {"previous_response_id": first["id"]}
    for forgotten in ("Go on.", [USER]):
        error = respond(server, input=forgotten, **more).json()["error"]
        assert error["param"] == "input"
        assert call["call_id"] in error["message"]
    assert respond(server, input=[output("other")], **more).json()["error"]["param"] == "input[0].call_id"
    assert respond(server, input=[output(call["call_id"])], **more).status_code == 200
