"""What a client gets wrong is told by name, with the path of the parameter, before the first byte of a stream."""

import gzip
import json
from collections.abc import Iterator
from typing import Any

import pytest

from api.convert.chat import ChatStream
from api.routes import responses
from api.schemas.unsupported import UNSUPPORTED
from tests.api.servers import (
    WEATHER,
    LiveServer,
    chat_body,
    connected,
    custom_tool,
    events_of,
    function_tool,
    head,
    is_idle,
    served,
    wait_until,
)


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
    ({"tools": [{"type": "function", "name": "f"}]}, "tools[0].name", '"function": {"name"'),
    ({"tool_choice": {"type": "function", "name": "f"}}, "tool_choice.name", '"function": {"name"'),
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


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "Hi", "name": None}]}),
        ("/v1/responses", {"input": "Hi"}),
        ("/v1/completions", {"prompt": "Hi", "max_tokens": 4}),
    ],
    ids=["chat", "responses", "completions"],
)
def test_a_null_asks_for_nothing_of_an_option_of_openai_but_names_what_nobody_knows(
    server: LiveServer, path: str, body: dict[str, Any]
) -> None:
    nulls = {**dict.fromkeys(UNSUPPORTED), "model": "fake", **body}
    assert server.http.post(path, json=nulls).status_code == 200
    refused = server.http.post(path, json={**nulls, "frobnicate": None})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "frobnicate")


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


JSON = "application/json"
CHAT = b'"model": "fake", "messages": [{"role": "user", "content": "Hi"}]'
UNREADABLE: list[tuple[bytes, str, str]] = [  # the body, its type, and a word that the error must have
    (b"{", JSON, "at character 1"),
    (b"{" + CHAT + b"} x", JSON, "Extra data"),
    (b'{"model": "\xff"}', JSON, "UTF-8: byte 11"),
    (b"\xff\xfe", JSON, "not valid"),
    (b"[" * 100_000, JSON, "nested too deeply"),
    (b'{"a":' * 100_000, JSON, "nested too deeply"),
    (b"{" + CHAT + b', "seed": 1' + b"0" * 5000 + b"}", JSON, "more than 4300 digits"),
]
NO_OBJECT = [
    (b"", JSON),
    (b"[]", JSON),
    (b"null", JSON),
    (b"{" + CHAT + b"}", "text/plain"),
    (b"a=b", "multipart/form-data"),
]


@pytest.mark.parametrize(("body", "content_type", "word"), UNREADABLE, ids=lambda value: repr(value)[:40])
def test_a_body_that_cannot_be_read_says_why(server: LiveServer, body: bytes, content_type: str, word: str) -> None:
    response = server.http.post("/v1/chat/completions", content=body, headers={"content-type": content_type})
    error = response.json()["error"]
    assert (response.status_code, error["type"], error["code"]) == (400, "invalid_request_error", "invalid_json")
    assert word in error["message"]


@pytest.mark.parametrize(("body", "content_type"), NO_OBJECT, ids=lambda value: repr(value)[:40])
def test_a_body_that_is_no_object_is_told_what_it_must_be(server: LiveServer, body: bytes, content_type: str) -> None:
    response = server.http.post("/v1/chat/completions", content=body, headers={"content-type": content_type})
    error = response.json()["error"]
    assert (response.status_code, error["type"], error["code"]) == (400, "invalid_request_error", "invalid_body")
    assert "Content-Type: application/json" in error["message"]


@pytest.mark.parametrize(
    ("rest", "param", "word"),
    [
        (b'"messages": [{"role": "user", "content": "\\ud800"}]', "messages[0].content", "lone surrogates"),
        (b'"model": "\\ud800"', "model", "lone surrogates"),
        (b'"\\ud800": 1', "\\ud800", "lone surrogate"),
        (b'"toolmask": {"\\ud800": 1}', "toolmask.\\ud800", "lone surrogate"),
        (b'"messages": [{"role": "user", "content": "x", "a\\ud800": 1}]', "messages[0].a\\ud800", "lone surrogate"),
        (b'"metadata": {"\\ud800": "x"}', "metadata", "lone surrogates"),
        (
            b'"tools": [{"type": "function", "function": {"name": "\\ud800"}}]',
            "tools[0].function.name",
            "lone surrogate",
        ),
        (b'"temperature": NaN', "temperature", "finite"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_a_value_or_a_name_that_no_text_or_number_can_be_is_named(
    server: LiveServer, rest: bytes, param: str, word: str
) -> None:
    body = b"{" + CHAT + b", " + rest + b"}"
    response = server.http.post("/v1/chat/completions", content=body, headers={"content-type": JSON})
    error = response.json()["error"]
    assert (response.status_code, error["param"], error["code"]) == (400, param, "invalid_value")
    assert word in error["message"]


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


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/models"),
        ("GET", "/v1/models/fake"),
        ("GET", "/v1/models/load"),
        ("GET", "/v1/tools"),
        ("GET", "/v1/responses/resp_1"),
        ("DELETE", "/v1/responses/resp_1"),
        ("GET", "/health"),
        ("GET", "/metrics"),
        ("POST", "/v1/chat/completions"),
        ("POST", "/v1/tokenize"),
    ],
)
def test_a_query_parameter_is_refused_by_name_everywhere(server: LiveServer, method: str, path: str) -> None:
    response = server.http.request(method, f"{path}?limit=x", json=chat_body() if method == "POST" else None)
    error = response.json()["error"]
    assert (response.status_code, error["param"], error["code"]) == (400, "limit", "unsupported_parameter")


def test_a_body_that_is_too_long_is_a_413_by_its_header_or_as_it_comes(server: LiveServer) -> None:
    body = json.dumps(chat_body(messages=user("x" * 2**21))).encode()
    headers = {"content-type": "application/json"}
    told = server.http.post("/v1/chat/completions", content=body, headers=headers)
    pieces = (body[start : start + 2**16] for start in range(0, len(body), 2**16))
    chunked = server.http.post("/v1/chat/completions", content=pieces, headers=headers)
    for response in (told, chunked):
        assert (response.status_code, response.json()["error"]["code"]) == (413, "body_too_large")


@pytest.mark.parametrize("more", [(), ("expect: 100-continue",)], ids=["plain", "expect"])
def test_a_body_that_is_too_long_by_its_head_is_refused_before_it_comes_and_a_shutdown_does_not_wait(
    more: tuple[str, ...],
) -> None:
    with served(max_body_bytes=1000, request_timeout_s=1000) as server:
        client = connected(server)
        client.sendall(head(10**9, "/v1/chat/completions", *more))
        answer = b""
        while b"body_too_large" not in answer:
            answer += client.recv(2**16)
        assert answer.startswith(b"HTTP/1.1 413 ")
        assert b"connection: close" in answer.lower()
    assert client.recv(1) == b""
    client.close()


@pytest.mark.parametrize("encoding", ["gzip", "identity, br"])
def test_a_compressed_body_is_a_415_that_says_so(server: LiveServer, encoding: str) -> None:
    headers = {"content-type": JSON, "content-encoding": encoding}
    content = gzip.compress(json.dumps(chat_body()).encode())
    error = server.http.post("/v1/chat/completions", content=content, headers=headers)
    assert (error.status_code, error.json()["error"]["code"]) == (415, "unsupported_encoding")
    assert "compressed bodies are not read" in error.json()["error"]["message"]
    plain = {**headers, "content-encoding": "identity"}
    assert server.http.post("/v1/chat/completions", json=chat_body(), headers=plain).status_code == 200


def test_a_schema_that_is_bad_does_not_stop_the_next_request(server: LiveServer) -> None:
    """F5, F25."""
    assert server.chat(tools=[pattern_tool("(?=x)")]).status_code == 400
    assert server.chat().status_code == 200


def fail(*_: object, **__: object) -> None:
    raise KeyError("secret")


def test_what_nobody_foresaw_is_a_500_without_internals_and_with_every_header(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    origin = "https://app.example"
    with served(cors_origins=(origin,)) as server:
        monkeypatch.setattr(type(server.manager), "known", property(fail))
        response = server.http.get("/v1/models", headers={"origin": origin})
    assert (response.status_code, response.json()["error"]["code"]) == (500, "internal_error")
    assert "secret" not in response.text
    assert response.headers["x-request-id"].startswith("req_")
    assert response.headers["access-control-allow-origin"] == origin
    assert "secret" in caplog.text


def test_a_stream_that_fails_of_a_bug_of_ours_says_so(server: LiveServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ChatStream, "chunks", fail)
    *chunks, last = events_of(server.chat(stream=True))
    assert (chunks, last["error"]["code"]) == ([], "internal_error")
    assert "secret" not in str(last)
    wait_until(lambda: is_idle(server))


def test_a_request_that_fails_before_its_answer_is_begun_leaves_nothing_behind(
    server: LiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(responses, "ResponseAnswer", fail)  # made when the model is at work already
    assert server.http.post("/v1/responses", json={"model": "fake", "input": "Hi"}).status_code == 500
    wait_until(lambda: is_idle(server))
