"""What a client gets wrong is told by name, with the path of the parameter, before the first byte of a stream."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.api.servers import WEATHER, LiveServer, chat_body, custom_tool, function_tool, served


@pytest.fixture(scope="module")
def server() -> Iterator[LiveServer]:
    with served(max_body_bytes=2 * 2**20) as server:
        yield server


def user(content: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": content}]


def pattern_tool(pattern: str) -> dict[str, Any]:
    return function_tool("f", {"type": "object", "properties": {"when": {"type": "string", "pattern": pattern}}})


def after_call(call: dict[str, Any]) -> list[dict[str, Any]]:
    return [*user("Hi"), {"role": "assistant", "content": None, "tool_calls": [call]}]


NAMED = {"type": "function", "function": {"name": "absent"}}
SCHEMA = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object", "minProperties": "1"}}}

# option -> its value, and the path and a word that the error must have
REFUSED: list[tuple[dict[str, Any], str, str]] = [
    # Unknown and unsupported options, by name.
    ({"frobnicate": 1}, "frobnicate", "not supported"),
    ({"functions": []}, "functions", "use tools"),
    ({"function_call": "auto"}, "function_call", "use tool_choice"),
    ({"reasoning_effort": "low"}, "reasoning_effort", "chat template reads"),
    ({"web_search_options": {}}, "web_search_options", "web_search"),
    ({"prediction": {}}, "prediction", "not supported"),
    ({"top_k": 3}, "top_k", "under toolmask"),
    ({"toolmask": {"mystery": 1}}, "toolmask.mystery", "not supported"),
    ({"stream_options": {"other": 1}}, "stream_options.other", "not supported"),
    ({"stream_options": {"include_usage": True}, "stream": False}, "stream_options", "stream"),
    ({"store": True}, "store", "False"),
    ({"service_tier": "flex"}, "service_tier", "default"),
    ({"modalities": ["audio"]}, "modalities[0]", "text"),
    # Messages.
    ({"messages": []}, "messages", "at least 1"),
    ({"messages": "Hi"}, "messages", "list"),
    ({"messages": user(5)}, "messages[0].content", "string"),
    ({"messages": user([])}, "messages[0].content", "at least 1"),
    ({"messages": user([{"type": "image_url", "image_url": {"url": "x"}}])}, "messages[0].content[0]", "text"),
    ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0]", "robot"),
    ({"messages": [{"role": "user"}]}, "messages[0].content", "missing"),
    ({"messages": [*user("x"), {"role": "assistant"}]}, "messages[1].content", "tool_calls"),
    ({"messages": [{"role": "user", "content": "x", "name": "Ann"}]}, "messages[0].name", "not supported"),
    ({"messages": [*user("x"), {"role": "tool", "content": "x"}]}, "messages[1].tool_call_id", "missing"),
    (
        {"messages": after_call({"id": "1", "type": "function", "function": {"name": "f", "arguments": "{"}})},
        "messages[1].tool_calls[0].function.arguments",
        "JSON object",
    ),
    (
        {"messages": after_call({"id": "1", "type": "function", "function": {"name": "f g", "arguments": "{}"}})},
        "messages[1].tool_calls[0].function.name",
        "pattern",
    ),
    # Tools.
    ({"tools": [function_tool("f" * 65)]}, "tools[0].function.name", "pattern"),
    ({"tools": [function_tool("f", []), WEATHER]}, "tools[0].function.parameters", "dictionary"),
    ({"tools": [function_tool("f", {"type": "array"})]}, "tools[0].function.parameters.type", "object"),
    ({"tools": [WEATHER, custom_tool("sql", "(")]}, "tools[1].custom.format.grammar.definition", ""),
    ({"tools": [custom_tool("sql", "start: (", "lark")]}, "tools[0].custom.format.grammar.definition", ""),
    ({"tools": [custom_tool("sql", "a", "ebnf")]}, "tools[0].custom.format.grammar.syntax", "lark"),
    ({"tools": [custom_tool("sql", "a"), function_tool("sql")]}, "tools[1].function.name", "differ"),
    (
        {"tools": [function_tool("f", {"type": "object", "properties": {}}, strict=True)]},
        "tools[0].function.parameters",
        "additionalProperties",
    ),
    ({"tools": [WEATHER, WEATHER]}, "tools[1].function.name", "differ"),
    ({"tools": [WEATHER, WEATHER, WEATHER, pattern_tool("(?=x)")][3:]}, "tools[0].function.parameters", "pattern"),
    ({"tools": ["no_such_tool"]}, "tools[0]", "calculate"),
    ({"tools": [{"type": "retrieval"}]}, "tools[0]", "retrieval"),
    ({"tools": [{"type": "function"}]}, "tools[0].function", "missing"),
    ({"tool_choice": "required"}, "tool_choice", "no tool"),
    ({"tool_choice": "always", "tools": [WEATHER]}, "tool_choice", "auto"),
    ({"tool_choice": NAMED, "tools": [WEATHER]}, "tool_choice", "absent"),
    (
        {"tool_choice": {"type": "custom", "custom": {"name": "get_weather"}}, "tools": [WEATHER]},
        "tool_choice",
        "function",
    ),
    (
        {"tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "none", "tools": []}}},
        "tool_choice.allowed_tools.mode",
        "required",
    ),
    ({"tool_execution": "server", "tools": [WEATHER]}, "tools[0]", "server"),
    ({"tool_execution": "server", "tools": ["calculate"], "n": 2}, "n", "1"),
    # The answer's form.
    ({"response_format": {"type": "xml"}}, "response_format", "xml"),
    ({"response_format": SCHEMA}, "response_format.json_schema.schema.minProperties", ""),
    ({"toolmask": {"regex": "("}}, "toolmask.regex", ""),
    ({"toolmask": {"grammar": "start: ("}}, "toolmask.grammar", ""),
    ({"toolmask": {"choice": [""]}}, "toolmask.choice", ""),
    ({"toolmask": {"choice": []}}, "toolmask.choice", "at least 1"),
    ({"toolmask": {"regex": "a", "choice": ["a"]}}, "toolmask.choice", "toolmask.regex"),
    ({"toolmask": {"regex": "a"}, "response_format": {"type": "json_object"}}, "toolmask.regex", "response_format"),
    # Numbers.
    ({"max_tokens": 0}, "max_tokens", "1"),
    ({"max_tokens": "5"}, "max_tokens", "integer"),
    ({"max_tokens": 3.5}, "max_tokens", "integer"),
    ({"max_tokens": 5, "max_completion_tokens": 6}, "max_tokens", "max_completion_tokens"),
    ({"max_tokens": 10**9}, "max_tokens", "room"),
    ({"max_tokens": None, "max_completion_tokens": 10**9}, "max_completion_tokens", "room"),
    ({"temperature": -1}, "temperature", "0"),
    ({"temperature": True}, "temperature", "number"),
    ({"top_p": 0}, "top_p", "0"),
    ({"n": 0}, "n", "1"),
    ({"seed": -1}, "seed", "0"),
    ({"seed": 2**63}, "seed", ""),
    ({"presence_penalty": 3}, "presence_penalty", "2"),
    ({"toolmask": {"top_k": -1}}, "toolmask.top_k", "0"),
    ({"logprobs": True, "top_logprobs": 21}, "top_logprobs", "20"),
    ({"top_logprobs": 2}, "top_logprobs", "logprobs"),
    ({"logit_bias": {"hello": 1}}, "logit_bias", "token ids"),
    ({"logit_bias": {"5": 101}}, "logit_bias.5", "100"),
    ({"logit_bias": {"99999": 1}}, "logit_bias", "99999"),
    ({"stop": ["a", "b", "c", "d", "e"]}, "stop", "4"),
    ({"stop": ""}, "stop", "at least 1"),
    ({"stop": ["a", ""]}, "stop[1]", "at least 1"),
]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize(("options", "param", "word"), REFUSED, ids=lambda value: json.dumps(value)[:60])
def test_a_mistake_is_a_400_that_names_the_parameter(
    server: LiveServer, options: dict[str, Any], param: str, word: str, stream: bool
) -> None:
    response = server.chat(**{"stream": stream, **options})
    assert response.status_code == 400, response.text
    assert response.headers["content-type"] == "application/json"
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    assert error["param"].startswith(param)
    assert word in error["message"]


NAN_SCHEMA = {"name": "x", "schema": {"type": "number", "minimum": float("nan")}}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (
            "/v1/chat/completions",
            {"messages": user("Hi"), "response_format": {"type": "json_schema", "json_schema": NAN_SCHEMA}},
        ),
        ("/v1/responses", {"input": "Hi", "text": {"format": {"type": "json_schema", **NAN_SCHEMA}}}),
    ],
    ids=["chat", "responses"],
)
def test_a_number_that_json_does_not_have_is_a_400(server: LiveServer, path: str, body: dict[str, Any]) -> None:
    content = json.dumps({"model": "fake", **body})
    response = server.http.post(path, content=content, headers={"content-type": "application/json"})
    assert (response.status_code, response.json()["error"]["param"][-6:]) == (400, "schema")


@pytest.mark.parametrize("missing", ["model", "messages"])
def test_what_is_missing_is_named(server: LiveServer, missing: str) -> None:
    body = chat_body()
    del body[missing]
    error = server.http.post("/v1/chat/completions", json=body).json()["error"]
    assert (error["param"], error["code"]) == (missing, "missing_required_parameter")


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"", "application/json"),
        (b"{", "application/json"),
        (b"[]", "application/json"),
        (b"null", "application/json"),
        (b"\xff\xfe", "application/json"),
        (b"[" * 100_000, "application/json"),
        (json.dumps(chat_body()).encode(), "text/plain"),
        (json.dumps(chat_body()).encode(), "application/x-www-form-urlencoded"),
        (b'{"model": "fake", "messages": [{"role": "user", "content": "\\ud800"}]}', "application/json"),
        (b'{"model": "fake", "messages": [], "\\ud800": 1}', "application/json"),
        (b'{"model": "\\ud800", "messages": [{"role": "user", "content": "Hi"}]}', "application/json"),
        (b'{"model": "fake", "messages": [{"role": "user", "content": "Hi"}], "temperature": NaN}', "application/json"),
        (
            b'{"model": "fake", "messages": [{"role": "user", "content": "Hi"}], "seed": 1' + b"0" * 5000 + b"}",
            "application/json",
        ),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_a_body_that_is_no_request_is_a_400(server: LiveServer, body: bytes, content_type: str) -> None:
    response = server.http.post("/v1/chat/completions", content=body, headers={"content-type": content_type})
    assert response.status_code == 400, response.text
    assert response.json()["error"]["type"] == "invalid_request_error"
    assert response.json()["error"]["message"]


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v1/nothing", 404, "unknown_url"),
        ("POST", "/", 404, "unknown_url"),
        ("GET", "/v1/chat/completions", 405, "method_not_allowed"),
        ("DELETE", "/v1/models/fake", 405, "method_not_allowed"),
        ("GET", "/v1/models/other", 404, "model_not_found"),
        ("GET", "/v1/models/org/other", 404, "model_not_found"),
    ],
)
def test_an_unknown_path_or_method_is_told_in_the_same_shape(
    server: LiveServer, method: str, path: str, status: int, code: str
) -> None:
    response = server.http.request(method, path)
    assert (response.status_code, response.json()["error"]["code"]) == (status, code)


def test_a_body_that_is_too_long_is_a_413_by_its_header_or_as_it_comes(server: LiveServer) -> None:
    body = json.dumps(chat_body(messages=user("x" * 2**21))).encode()
    headers = {"content-type": "application/json"}
    told = server.http.post("/v1/chat/completions", content=body, headers=headers)
    pieces = (body[start : start + 2**16] for start in range(0, len(body), 2**16))
    chunked = server.http.post("/v1/chat/completions", content=pieces, headers=headers)
    for response in (told, chunked):
        assert (response.status_code, response.json()["error"]["code"]) == (413, "body_too_large")


def test_a_schema_that_is_bad_does_not_stop_the_next_request(server: LiveServer) -> None:
    """F5, F25."""
    assert server.chat(tools=[pattern_tool("(?=x)")]).status_code == 400
    assert server.chat().status_code == 200


def test_what_nobody_foresaw_is_a_500_without_internals(server: LiveServer, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise KeyError("secret")

    monkeypatch.setattr(server.manager, "_known", property(fail))
    response = server.http.get("/v1/models")
    assert (response.status_code, response.json()["error"]["code"]) == (500, "internal_error")
    assert "secret" not in response.text
