"""Large, small and strange: bodies of a megabyte, 128 tools, long names, no parameters, no tools, every alphabet."""

import json
from collections.abc import Iterator

import pytest

from tests.api.servers import MODEL, LiveServer, call_text, fake_that_answers, function_tool, served
from tests.fakes import fake_loaded, fake_model

NAME = "a_-." * 16
TEXTS = [
    "\N{GRINNING FACE}\N{ZERO WIDTH JOINER}\N{WOMAN}",
    "\N{CJK UNIFIED IDEOGRAPH-6F22}\N{CJK UNIFIED IDEOGRAPH-5B57}",
    "e\N{COMBINING ACUTE ACCENT} \N{RIGHT-TO-LEFT MARK}\N{HEBREW LETTER ALEF}",
    '"quotes" \\ backslash \t tab \n line',
    "\u2028\u2029\x85\x7f",
]


def test_a_megabyte_of_messages_is_read() -> None:
    model = fake_loaded()
    fake_model(model).context_length = 4 * 2**20
    with served(model) as server:
        tokens = server.http.post("/v1/tokenize", json={"messages": [{"role": "user", "content": "a " * 2**19}]})
        assert tokens.json()["count"] > 2**19
        too_long = server.chat(messages=[{"role": "user", "content": "a " * 2**20}], max_tokens=2**22)
        assert (too_long.status_code, too_long.json()["error"]["code"]) == (400, "context_length_exceeded")


def test_a_megabyte_of_input_is_answered_by_a_response() -> None:
    model = fake_that_answers(lambda _: "Yes.")
    fake_model(model).context_length = 4 * 2**20
    with served(model) as server:
        body = {"model": MODEL, "input": "a " * 2**19, "max_output_tokens": 8}
        first = server.http.post("/v1/responses", json=body).json()
        assert first["output"][0]["content"][0]["text"] == "Yes."
        assert first["usage"]["input_tokens"] > 2**19


VALUES = [f"number {number} of many values, each of which has {'so ' * 6}many letters" for number in range(2**14)]
MANY_NAMES = {"type": "object", "properties": {f"property_{number}": {"type": "string"} for number in range(2**15)}}


def test_a_schema_of_a_megabyte_binds_chats_and_responses(server: LiveServer) -> None:
    named = {"name": "x", "schema": {"enum": VALUES, "description": "x" * 2**16}}
    assert len(json.dumps(named)) > 2**20
    chat = server.chat(response_format={"type": "json_schema", "json_schema": named}, max_tokens=90).json()
    assert json.loads(chat["choices"][0]["message"]["content"]) in VALUES
    body = {
        "model": MODEL,
        "input": "Hi",
        "text": {"format": {"type": "json_schema", **named}},
        "max_output_tokens": 90,
    }
    response = server.http.post("/v1/responses", json=body).json()
    assert json.loads(response["output"][0]["content"][0]["text"]) in VALUES


def test_a_schema_of_a_megabyte_that_is_too_much_is_refused_and_the_next_request_answered(server: LiveServer) -> None:
    """F25."""
    assert len(json.dumps(MANY_NAMES)) > 2**20
    error = server.chat(response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": MANY_NAMES}})
    assert (error.status_code, error.json()["error"]["param"]) == (400, "response_format.json_schema.schema.properties")
    assert "32768 is more than the limit" in error.json()["error"]["message"]
    assert server.chat().status_code == 200


@pytest.fixture(scope="module")
def server() -> Iterator[LiveServer]:
    def reply(prompt: str) -> str:
        question = prompt.rpartition("<|im_start|>user\n")[2].partition("<|im_end|>")[0]
        return call_text(question.removeprefix("call "), "{}") if question.startswith("call ") else question

    model = fake_that_answers(reply)
    fake_model(model).context_length = 2**16
    with served(model) as server:
        yield server


@pytest.mark.parametrize("text", TEXTS, ids=ascii)
def test_every_alphabet_comes_back_as_it_was_sent(server: LiveServer, text: str) -> None:
    """F23."""
    body = {"messages": [{"role": "user", "content": [{"type": "text", "text": text}]}], "max_tokens": 200}
    response = server.chat(**body)
    assert response.json()["choices"][0]["message"]["content"] == text
    assert "\\ud8" not in response.text.lower()


def test_128_tools_are_offered_and_the_last_is_called(server: LiveServer) -> None:
    tools = [function_tool(f"tool_{i}", {"type": "object", "properties": {}}) for i in range(128)]
    answer = server.chat(messages=[{"role": "user", "content": "call tool_127"}], tools=tools, max_tokens=200).json()
    (call,) = answer["choices"][0]["message"]["tool_calls"]
    assert (call["function"]["name"], call["function"]["arguments"]) == ("tool_127", "{}")


@pytest.mark.parametrize("parameters", [None, {}, {"type": "object"}, {"type": "object", "properties": {}}], ids=str)
def test_a_tool_of_64_characters_without_parameters_is_called_with_none(
    server: LiveServer, parameters: dict[str, object] | None
) -> None:
    """F5."""
    messages = [{"role": "user", "content": f"call {NAME}"}]
    answer = server.chat(messages=messages, tools=[function_tool(NAME, parameters)], max_tokens=200).json()
    (call,) = answer["choices"][0]["message"]["tool_calls"]
    assert (len(NAME), call["function"]) == (64, {"name": NAME, "arguments": "{}"})


@pytest.mark.parametrize("options", [{"tools": []}, {"tools": None}, {"tools": [], "tool_choice": "auto"}], ids=str)
def test_an_empty_list_of_tools_is_no_tools(server: LiveServer, options: dict[str, object]) -> None:
    answer = server.chat(messages=[{"role": "user", "content": "call x"}], **options, max_tokens=60).json()
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert "tool_calls" not in answer["choices"][0]["message"]


def test_every_option_may_be_null(server: LiveServer) -> None:
    page = server.http.get("/openapi.json").json()
    names = set(page["components"]["schemas"]["ChatRequest"]["properties"]) - {"model", "messages"}
    assert server.chat(**dict.fromkeys(names)).status_code == 200


def test_an_answer_goes_back_as_it_came(server: LiveServer) -> None:
    first = server.chat(messages=[{"role": "user", "content": "call f"}], tools=[function_tool("f")], max_tokens=99)
    message = first.json()["choices"][0]["message"]
    result = {"role": "tool", "tool_call_id": message["tool_calls"][0]["id"], "content": json.dumps({"ok": True})}
    messages = [{"role": "user", "content": "call f"}, message, result, {"role": "user", "content": "Good."}]
    answer = server.chat(messages=messages, tools=[function_tool("f")], max_tokens=99).json()
    assert answer["choices"][0]["message"]["content"] == "Good."
