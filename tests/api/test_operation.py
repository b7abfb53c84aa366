"""For those who run the server: key, browsers, health, metrics, the access log, the OpenAPI page."""

import json
import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jsonschema_rs
import pytest
from prometheus_client.parser import text_string_to_metric_families

from api.app import create_app
from api.manager import ModelManager
from api.settings import ServerConfig
from engine.config import EngineConfig
from engine.errors import ConfigError
from tests.api.servers import MODEL, WEATHER, FakeLoader, LiveServer, call_text, fake_that_answers, served, wait_until
from tests.fakes import EOS, Gate, fake_loaded, with_hook

ORIGIN = "https://app.example"


@pytest.fixture(scope="module")
def locked() -> Iterator[LiveServer]:
    with served(fake_that_answers(lambda _: "Hello."), api_key="sk-1", cors_origins=(ORIGIN,)) as server:
        yield server


@pytest.mark.parametrize(
    ("method", "path", "needs_key"),
    [
        ("POST", "/v1/chat/completions", True),
        ("GET", "/v1/models", True),
        ("GET", "/v1/nothing", True),
        ("GET", "/metrics", True),
        ("GET", "/health", False),
        ("GET", "/openapi.json", False),
        ("GET", "/docs", False),
    ],
)
@pytest.mark.parametrize("header", ["", "Bearer", "Bearer sk-2", "Bearer sk-11", "sk-1", "Basic sk-1", "Bearer \xff"])
def test_without_the_key_there_is_no_answer(
    locked: LiveServer, method: str, path: str, needs_key: bool, header: str
) -> None:
    response = locked.http.request(method, path, headers={"authorization": header.encode("latin-1")})
    assert (response.status_code == 401) == needs_key
    if needs_key:
        assert response.json()["error"]["code"] == "invalid_api_key"
        assert "sk-1" not in response.text


def test_with_the_key_there_is_an_answer(locked: LiveServer) -> None:
    assert locked.chat().status_code == 200
    with locked.client() as client:
        assert [model.id for model in client.models.list()] == [MODEL]


@pytest.mark.parametrize("scheme", ["bearer", "BEARER"])
def test_the_scheme_of_the_key_has_no_case_but_the_key_has(locked: LiveServer, scheme: str) -> None:
    statuses = [
        locked.http.get("/v1/models", headers={"authorization": f"{scheme} {key}"}).status_code
        for key in ("sk-1", "SK-1")
    ]
    assert statuses == [200, 401]


def test_a_listed_origin_may_use_the_server_and_no_other(locked: LiveServer) -> None:
    ask = {"access-control-request-method": "POST", "access-control-request-headers": "authorization,content-type"}

    def preflight(origin: str) -> Any:
        return locked.http.options("/v1/chat/completions", headers={"origin": origin, **ask})

    assert preflight(ORIGIN).headers["access-control-allow-origin"] == ORIGIN
    assert "access-control-allow-origin" not in preflight("https://other.example").headers
    refused = locked.http.get("/v1/models", headers={"origin": ORIGIN, "authorization": "Bearer x"})
    assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (401, ORIGIN)


def test_without_a_list_no_origin_is_allowed() -> None:
    with served() as server:
        response = server.http.get("/v1/models", headers={"origin": ORIGIN})
        assert "access-control-allow-origin" not in response.headers


def metrics_of(server: LiveServer) -> dict[str, float]:
    families = text_string_to_metric_families(server.http.get("/metrics").text)
    return {
        sample.name + "".join(f"|{value}" for _, value in sorted(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }


def test_the_metrics_count_what_was_done() -> None:
    call = call_text("get_weather", '{"city": "Rome", "days": 1}')
    with served(fake_that_answers(lambda prompt: call if "get_weather" in prompt else "Hello.")) as server:
        usage = [
            server.chat(max_tokens=50, tools=[WEATHER], tool_choice="required", stream=False).json()["usage"],
            server.chat(max_tokens=50, n=2).json()["usage"],
        ]
        server.chat(stream=True)
        server.chat(frobnicate=1)
        server.http.get("/anything/else")
        metrics = metrics_of(server)
    assert metrics["toolmask_requests_total|POST|/v1/chat/completions|200"] == 3
    assert metrics["toolmask_requests_total|POST|/v1/chat/completions|400"] == 1
    assert metrics["toolmask_requests_total|GET|(none)|404"] == 1
    hello = usage[1]["completion_tokens"] // 2
    assert metrics["toolmask_completion_tokens_total"] == sum(each["completion_tokens"] for each in usage) + hello
    forced = usage[0]["completion_tokens_details"]["forced_tokens"]
    assert metrics["toolmask_forced_tokens_total"] == forced > 0
    assert metrics["toolmask_prompt_tokens_total"] == usage[0]["prompt_tokens"] + 2 * usage[1]["prompt_tokens"]
    assert metrics["toolmask_time_to_first_token_seconds_count"] == 3
    assert metrics["toolmask_time_per_token_seconds_count"] == 3
    assert metrics["toolmask_requests_in_flight"] == 0


def test_the_metrics_count_every_prompt_of_a_completion_once_however_many_answers_it_gets() -> None:
    with served() as server:
        body = {"model": MODEL, "prompt": ["One", "Twenty two", "Three hundred and thirty three"], "n": 2}
        usages = [server.http.post("/v1/completions", json=body).json()["usage"]]
        server.http.post("/v1/completions", json={**body, "stream": True})
        metrics = metrics_of(server)
    assert metrics["toolmask_prompt_tokens_total"] == 2 * usages[0]["prompt_tokens"]
    assert metrics["toolmask_completion_tokens_total"] == 2 * usages[0]["completion_tokens"]


def test_the_metrics_count_the_turns_between_which_the_server_ran_tools() -> None:
    call = call_text("calculate", '{"expression": "6 * 7"}')
    with served(fake_that_answers(lambda prompt: "Done." if "42.0" in prompt else call)) as server:
        usage = server.chat(tools=["calculate"], tool_execution="server", max_tokens=100).json()["usage"]
        metrics = metrics_of(server)
    assert metrics["toolmask_prompt_tokens_total"] == usage["prompt_tokens"] > 0
    assert metrics["toolmask_completion_tokens_total"] == usage["completion_tokens"] > 0
    assert metrics["toolmask_forced_tokens_total"] == usage["completion_tokens_details"]["forced_tokens"] > 0


def test_prompt_tokens_that_an_earlier_request_had_computed_are_counted() -> None:
    """F29: there, cached_tokens was always 0."""
    with served(fake_loaded(), engine_config=EngineConfig()) as server:
        first, second = (server.chat(tools=[WEATHER]).json()["usage"] for _ in range(2))
        metrics = metrics_of(server)
    known = [usage["prompt_tokens_details"]["cached_tokens"] for usage in (first, second)]
    assert known == [0, first["prompt_tokens"] - 1]
    assert metrics["toolmask_cached_prompt_tokens_total"] == known[1]


def test_the_metrics_tell_how_busy_the_engine_is() -> None:
    gate = Gate()
    model = with_hook(fake_loaded(bonus={EOS: -(10**6)}), gate)
    with served(model, engine_config=EngineConfig(max_running=1)) as server, ThreadPoolExecutor() as pool:
        required = {"tools": [WEATHER], "tool_choice": "required", "parallel_tool_calls": False, "max_tokens": 200}
        answers = [pool.submit(server.chat, **required) for _ in range(3)]
        assert gate.arrived.acquire(timeout=30)
        while (busy := metrics_of(server))["toolmask_waiting_sequences"] < 2:
            pass  # the others are on their way
        gate.open()
        assert [answer.result().status_code for answer in answers] == [200] * 3
        wait_until(lambda: metrics_of(server)["toolmask_running_sequences"] == 0)  # an answer's end is told before
        idle = metrics_of(server)
        server.http.post("/v1/models/unload", json={"model": MODEL})
        unloaded = metrics_of(server)
    assert busy["toolmask_running_sequences"] == 1
    assert idle["toolmask_waiting_sequences"] == 0
    assert idle["toolmask_mask_seconds_total"] > busy["toolmask_mask_seconds_total"]
    assert unloaded["toolmask_mask_seconds_total"] == 0


def test_each_request_is_one_json_line_without_texts(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "toolmask.access"), served() as server:
        response = server.chat(messages=[{"role": "user", "content": "a secret"}])
        server.http.get("/v1/nothing")
    lines = [json.loads(record.message) for record in caplog.records if record.name == "toolmask.access"]
    assert [(line["method"], line["path"], line["status"]) for line in lines] == [
        ("POST", "/v1/chat/completions", 200),
        ("GET", "/v1/nothing", 404),
    ]
    assert lines[0]["request_id"] == response.headers["x-request-id"]
    assert lines[0]["duration_ms"] > 0
    assert "secret" not in caplog.text


def test_the_openapi_page_describes_what_the_server_does() -> None:
    page = create_app(ServerConfig(model=MODEL), ModelManager(FakeLoader({}))).openapi()
    assert {path for path in page["paths"] if path.startswith("/v1")} == {
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/responses",
        "/v1/responses/{response_id}",
        "/v1/models",
        "/v1/models/load",
        "/v1/models/unload",
        "/v1/models/{model}",
        "/v1/tools",
        "/v1/tools/execute",
        "/v1/tokenize",
    }
    chat = page["paths"]["/v1/chat/completions"]["post"]
    assert set(chat["responses"]["200"]["content"]) == {"application/json", "text/event-stream"}
    request = page["components"]["schemas"]["ChatRequest"]
    assert request["additionalProperties"] is False
    assert request["required"] == ["model", "messages"]
    operations = [operation for path in page["paths"].values() for operation in path.values()]
    assert not any("422" in operation["responses"] for operation in operations)


@pytest.mark.parametrize("key", [None, "sk-1"])
def test_the_openapi_page_tells_which_operations_need_the_key(key: str | None) -> None:
    page = create_app(ServerConfig(model=MODEL, api_key=key), ModelManager(FakeLoader({}))).openapi()
    operations = {path: operation for path, methods in page["paths"].items() for operation in methods.values()}
    locked = {path for path, operation in operations.items() if operation.get("security")}
    assert locked == (set(operations) - {"/health"} if key else set())
    schemes = page["components"].get("securitySchemes", {}).values()
    assert [(scheme["type"], scheme["scheme"]) for scheme in schemes] == ([("http", "bearer")] if key else [])


def references_in(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        yield from ([value["$ref"]] if isinstance(value.get("$ref"), str) else [])
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from references_in(inner)


def test_every_reference_of_the_openapi_page_leads_somewhere() -> None:
    page = create_app(ServerConfig(model=MODEL), ModelManager(FakeLoader({}))).openapi()
    names = {reference.removeprefix("#/components/schemas/") for reference in references_in(page)}
    assert names
    assert names <= set(page["components"]["schemas"])


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (
            "/v1/chat/completions",
            {"messages": [{"role": "user", "content": "Hi"}], "logprobs": True, "top_logprobs": 2},
        ),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "Hi"}], "tools": [WEATHER]}),
        ("/v1/completions", {"prompt": "Hi", "logprobs": 2}),
        ("/v1/responses", {"input": "Hi"}),
        ("/v1/responses", {"input": "Hi", "tools": [{"type": "function", **WEATHER["function"]}]}),
    ],
    ids=str,
)
def test_the_events_of_a_stream_are_as_the_openapi_page_says(path: str, body: dict[str, Any]) -> None:
    call = call_text("get_weather", '{"city": "Rome", "days": 1}')
    with served(fake_that_answers(lambda prompt: call if "get_weather" in prompt else "Hello.")) as server:
        page = server.http.get("/openapi.json").json()
        text = server.http.post(path, json={"model": MODEL, **body, "stream": True}).text
    event = page["paths"][path]["post"]["responses"]["200"]["content"]["text/event-stream"]["schema"]
    schema = {**event["properties"]["data"]["contentSchema"], "components": page["components"]}
    validator = jsonschema_rs.validator_for(schema)
    data = [line.removeprefix("data: ") for line in text.split("\n") if line.startswith("data: {")]
    assert len(data) > 1
    for each in data:
        validator.validate(json.loads(each))
    assert not validator.is_valid({"object": "something else"})


@pytest.mark.parametrize(
    "option",
    [
        {"port": -1},
        {"port": 65536},
        {"max_body_bytes": 0},
        {"max_queue": 0},
        {"max_batch": 0},
        {"kv_memory": 0},
        {"kv_bits": 3},
        {"request_timeout_s": 0},
        {"api_key": ""},
        {"max_stored_responses": -1},
        {"max_tool_threads": 0},
        {"max_backlog": 0},
    ],
    ids=str,
)
def test_an_option_of_the_server_out_of_range_is_named(option: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(option))):
        ServerConfig(**option)
