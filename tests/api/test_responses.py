"""The Responses API: items in, items out, streamed or not; conversations that the server keeps."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
from openai import pydantic_function_tool
from pydantic import BaseModel

from tests.api.servers import MODEL, WEATHER, LiveServer, call_text, failing_after, fake_that_answers, served
from tests.fakes import EOS, fake_loaded, with_hook

FORECAST: dict[str, Any] = {"type": "function", **WEATHER["function"]}
NOTE = {
    "type": "function",
    "name": "note",
    "parameters": {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]},
}
SQL = {"type": "custom", "name": "sql", "format": {"type": "grammar", "syntax": "regex", "definition": "SELECT [a-z]+"}}
CALL = call_text("get_weather", '{"city": "Paris", "days": 3}')
SECOND = call_text("get_weather", '{"city": "Rome", "days": 1}')
RAIN = "It rains in Paris. \N{UMBRELLA WITH RAIN DROPS}"
SCRIPT = {
    "text": "It is 21 \N{DEGREE SIGN}C \N{GRINNING FACE}\u2028.",
    "call": CALL,
    "calls": f"{CALL}\n{SECOND}",
    "text and call": f"Let me see. {CALL}",
    "text and long call": "Wait. " + call_text("note", '{"text": "' + "word " * 50 + '"}'),
    "nothing": "",
    "json": '{"city": "Rome", "days": 2}',
}


def reply(prompt: str) -> str:
    if prompt.rpartition("<|im_start|>")[2].startswith(("tool", "user\n<tool_response>")):
        return RAIN
    question = prompt.rpartition("<|im_start|>user\n")[2].partition("<|im_end|>")[0]
    return SCRIPT.get(question, prompt)


@pytest.fixture(scope="module")
def server() -> Iterator[LiveServer]:
    with served(fake_that_answers(reply), max_stored_responses=3) as server:
        yield server


@pytest.fixture(scope="module")
def client(server: LiveServer) -> Iterator[openai.OpenAI]:
    with server.client() as client:
        yield client


@pytest.fixture(scope="module")
def random_server() -> Iterator[LiveServer]:
    with served(fake_loaded()) as server:
        yield server


def respond(server: LiveServer, **body: Any) -> httpx.Response:
    return server.http.post(
        "/v1/responses", json={"model": MODEL, "input": "text", "max_output_tokens": 200, "store": False, **body}
    )


def streamed(server: LiveServer, **body: Any) -> list[Any]:
    """The events, each of which must be named after its type, and numbered."""
    response = respond(server, **body, stream=True)
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    *blocks, rest = response.content.decode().split("\n\n")
    assert rest == ""
    events = []
    for number, block in enumerate(blocks):
        name, data = block.splitlines()
        events.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {events[-1]['type']}"
        assert events[-1]["sequence_number"] == number
    return events


def added_up(events: list[Any]) -> list[Any]:
    """The output that the deltas alone add up to."""
    items: list[Any] = []
    for event in events:
        if event["type"] == "response.output_item.added":
            assert event["output_index"] == len(items)
            items.append(event["item"])
        elif event["type"] == "response.content_part.added":
            items[-1]["content"].append(event["part"])
        elif event["type"] in ("response.output_text.delta", "response.reasoning_text.delta"):
            items[-1]["content"][event["content_index"]]["text"] += event["delta"]
        elif event["type"] == "response.function_call_arguments.delta":
            items[-1]["arguments"] += event["delta"]
        elif event["type"] == "response.custom_tool_call_input.delta":
            items[-1]["input"] += event["delta"]
        elif event["type"] == "response.output_item.done":
            items[-1]["status"] = event["item"]["status"]
            assert items[-1] == event["item"]
    return items


def without_ids(output: list[Any]) -> list[Any]:
    return [{key: value for key, value in item.items() if key not in ("id", "call_id")} for item in output]


# Streams.


SCHEMA = {"format": {"type": "json_schema", "name": "x", "schema": FORECAST["parameters"]}}
CASES: dict[str, dict[str, Any]] = {
    **{name: {"input": name, "tools": [FORECAST]} for name in SCRIPT if "long" not in name},
    "required": {"input": "calls", "tools": [FORECAST], "tool_choice": "required"},
    "one call": {"input": "calls", "tools": [FORECAST], "parallel_tool_calls": False},
    "schema": {"input": "json", "text": SCHEMA},
    "length": {"max_output_tokens": 4},
}


@pytest.mark.parametrize("body", CASES.values(), ids=CASES)
def test_a_stream_adds_up_to_the_whole_answer(server: LiveServer, body: dict[str, Any]) -> None:
    """F12."""
    whole = respond(server, **body).json()
    events = streamed(server, **body)
    assert [event["type"] for event in events[:2]] == ["response.created", "response.in_progress"]
    last = events[-1]["response"]
    assert events[-1]["type"] == f"response.{whole['status']}"
    assert added_up(events) == last["output"]
    assert without_ids(last["output"]) == without_ids(whole["output"])
    varying = ("id", "created_at", "output", "toolmask")
    assert {k: v for k, v in last.items() if k not in varying} == {k: v for k, v in whole.items() if k not in varying}
    assert {event["response"]["id"] for event in events if "response" in event} == {last["id"]}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("tools", [[], [FORECAST], [SQL]], ids=["text", "function", "custom"])
def test_a_seed_gives_the_same_answer_streamed_or_not(
    random_server: LiveServer, seed: int, tools: list[dict[str, Any]]
) -> None:
    body = {"temperature": 100, "toolmask": {"seed": seed}, "tools": tools, "max_output_tokens": 60}
    body["tool_choice"] = "required" if tools else "auto"
    body["parallel_tool_calls"] = False
    whole = respond(random_server, **body)
    events = streamed(random_server, **body)
    if whole.status_code == 500:  # the call was too long for the budget
        assert events[-1]["type"] == "response.failed"
        return
    assert whole.json()["toolmask"]["seed"] == seed
    assert without_ids(added_up(events)) == without_ids(whole.json()["output"])


def test_what_was_asked_for_comes_back_with_its_defaults(server: LiveServer) -> None:
    asked = {"text": SCHEMA, "instructions": "I", "metadata": {"a": "b"}, "tools": [FORECAST, SQL], "top_p": 0.5}
    answer = respond(server, **asked, input="json").json()
    assert {option: answer[option] for option in asked} == asked
    plain = respond(server).json()
    assert (plain["text"], plain["tool_choice"]) == ({"format": {"type": "text"}}, "auto")
    assert (plain["temperature"], plain["top_p"], plain["truncation"]) == (0, 1, "disabled")


def test_the_events_of_text_and_call_come_in_openais_order(server: LiveServer) -> None:
    kinds = [event["type"] for event in streamed(server, input="text and call", tools=[FORECAST])]
    assert list(dict.fromkeys(kinds)) == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.done",
        "response.completed",
    ]
    assert kinds.count("response.function_call_arguments.delta") > 2


def test_text_that_is_cut_off_is_incomplete(server: LiveServer) -> None:
    answer = respond(server, max_output_tokens=4).json()
    assert (answer["status"], answer["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
    assert answer["output"][0]["status"] == "incomplete"


def test_a_call_that_fails_in_its_midst_is_never_complete() -> None:
    """F1; rule 5 of the design."""
    with served(fake_that_answers(failing_after(24, SCRIPT["text and long call"]))) as server:
        body = {"tools": [NOTE], "max_output_tokens": 400}
        *events, error, failed = streamed(server, **body)
        whole = respond(server, **body)
    assert (whole.status_code, whole.json()["error"]["code"]) == (500, "internal_error")
    assert (error["type"], error["code"]) == ("error", "internal_error")
    assert (failed["type"], failed["response"]["status"]) == ("response.failed", "failed")
    assert failed["response"]["error"] == {"code": "server_error", "message": error["message"]}
    begun = [event["item"]["type"] for event in events if event["type"] == "response.output_item.added"]
    done = [event["item"]["type"] for event in events if event["type"] == "response.output_item.done"]
    assert (begun, done) == (["message", "function_call"], ["message"])
    assert [item["type"] for item in failed["response"]["output"]] == ["message"]


@pytest.mark.parametrize("stream", [False, True])
def test_a_call_that_cannot_be_complete_in_its_limit_is_refused(server: LiveServer, stream: bool) -> None:
    """F1."""
    refused = respond(server, tools=[NOTE], tool_choice="required", max_output_tokens=4, stream=stream)
    error = refused.json()["error"]
    assert (refused.status_code, error["code"]) == (400, "max_tokens_too_small")
    assert error["param"] == "max_output_tokens"
    assert error["message"].startswith("max_output_tokens is 4; ")


def test_a_response_that_fails_says_so_without_internals() -> None:
    def fail_at_5(number: int) -> None:
        if number >= 5:
            raise ValueError("secret")

    with served(lambda: with_hook(fake_loaded(bonus={EOS: -(10**6)}), fail_at_5)) as server:
        events = streamed(server, store=True)
        assert [event["type"] for event in events[-2:]] == ["error", "response.failed"]
        assert "secret" not in json.dumps(events)
        assert server.http.get(f"/v1/responses/{events[-1]['response']['id']}").status_code == 404


# The official client.


def test_the_client_reads_text(client: openai.OpenAI) -> None:
    response = client.responses.create(model=MODEL, input="text", metadata={"a": "b"}, user="u")
    assert (response.output_text, response.status, response.error) == (SCRIPT["text"], "completed", None)
    assert (response.metadata, response.user, response.store) == ({"a": "b"}, "u", True)
    assert response.usage is not None
    assert response.usage.total_tokens == response.usage.input_tokens + response.usage.output_tokens


def test_the_round_trip_goes_on_from_the_response_before(client: openai.OpenAI) -> None:
    first = client.responses.create(model=MODEL, input="call", tools=[FORECAST], instructions="Be brief.")
    (call,) = first.output
    assert (call.type, call.name, json.loads(call.arguments)) == (
        "function_call",
        "get_weather",
        {"city": "Paris", "days": 3},
    )
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "rain"}
    second = client.responses.create(model=MODEL, previous_response_id=first.id, input=[result], tools=[FORECAST])
    assert (second.output_text, second.previous_response_id) == (RAIN, first.id)


def test_the_whole_conversation_may_be_sent_again(client: openai.OpenAI) -> None:
    items: list[Any] = [{"role": "user", "content": "text and call"}]
    items += client.responses.create(model=MODEL, input=items, tools=[FORECAST]).output
    items.append({"type": "function_call_output", "call_id": items[-1].call_id, "output": "rain"})
    assert client.responses.create(model=MODEL, input=items, tools=[FORECAST]).output_text == RAIN


def test_a_custom_tool_is_called_and_answered(client: openai.OpenAI) -> None:
    first = client.responses.create(
        model=MODEL, input="call", tools=[SQL], tool_choice="required", parallel_tool_calls=False
    )
    (call,) = first.output
    assert (call.type, call.name, call.input.startswith("SELECT ")) == ("custom_tool_call", "sql", True)
    result = {
        "type": "custom_tool_call_output",
        "call_id": call.call_id,
        "output": [{"type": "input_text", "text": "1"}],
    }
    second = client.responses.create(model=MODEL, previous_response_id=first.id, input=[result], tools=[SQL])
    assert second.output_text == RAIN


class Forecast(BaseModel):
    """The forecast."""

    city: str
    days: int


def test_parse_returns_a_pydantic_model(client: openai.OpenAI) -> None:
    response = client.responses.parse(model=MODEL, input="json", text_format=Forecast)
    assert response.output_parsed == Forecast(city="Rome", days=2)
    tool = pydantic_function_tool(Forecast, name="get_weather")
    called = client.responses.parse(model=MODEL, input="call", tools=[tool])
    assert called.output[0].parsed_arguments == Forecast(city="Paris", days=3)


def test_the_stream_helper_puts_answers_together(client: openai.OpenAI) -> None:
    with client.responses.stream(model=MODEL, input="calls", tools=[FORECAST]) as stream:
        kinds = {event.type for event in stream}
        response = stream.get_final_response()
    assert "response.function_call_arguments.delta" in kinds
    assert [json.loads(call.arguments)["city"] for call in response.output] == ["Paris", "Rome"]
    with client.responses.stream(model=MODEL, input="json", text_format=Forecast) as stream:
        assert stream.get_final_response().output_parsed == Forecast(city="Rome", days=2)


# The store.


def test_instructions_are_not_carried_over_but_the_conversation_is() -> None:
    prompts: list[str] = []

    def answer(prompt: str) -> str:
        prompts.append(prompt)
        return "Yes."

    with served(fake_that_answers(answer)) as server, server.client() as client:
        first = client.responses.create(model=MODEL, input="one", instructions="OLD")
        second = client.responses.create(model=MODEL, input="two", previous_response_id=first.id)
        client.responses.create(model=MODEL, input="three", previous_response_id=second.id, instructions="NEW")
    turns = [turn.partition("<|im_end|>")[0] for turn in prompts[-1].split("<|im_start|>")[1:]]
    said = ["user\none", "assistant\nYes.", "user\ntwo", "assistant\nYes.", "user\nthree"]
    assert turns == ["system\nNEW", *said]


def test_a_streamed_response_is_kept_too(server: LiveServer) -> None:
    kept = streamed(server, store=True)[-1]["response"]
    assert server.http.get(f"/v1/responses/{kept['id']}").json() == kept


def test_the_least_recently_used_response_goes_out_first(client: openai.OpenAI) -> None:
    first, second, third = (client.responses.create(model=MODEL, input="text").id for _ in range(3))
    client.responses.retrieve(first)
    client.responses.create(model=MODEL, input="text")
    assert client.responses.retrieve(first).id == first
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(second)
    assert client.responses.retrieve(third).status == "completed"


def test_what_is_not_kept_cannot_be_gone_on_from(client: openai.OpenAI) -> None:
    response = client.responses.create(model=MODEL, input="text", store=False)
    for stream in (False, True):
        with pytest.raises(openai.NotFoundError) as unknown:
            client.responses.create(model=MODEL, input="a", previous_response_id=response.id, stream=stream)
        assert unknown.value.param == "previous_response_id"


def test_a_response_can_be_deleted(client: openai.OpenAI) -> None:
    response = client.responses.create(model=MODEL, input="text")
    client.responses.delete(response.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.delete(response.id)


# What clients get wrong.


def message(content: Any, role: str = "user") -> list[dict[str, Any]]:
    return [{"type": "message", "role": role, "content": content}]


CHOICE = {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "absent"}]}
BAD_CALL = {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{"}
BAD_GRAMMAR = {**SQL, "format": {"type": "grammar", "syntax": "lark", "definition": "start: ("}}
BAD_SCHEMA = {"format": {"type": "json_schema", "name": "x", "schema": {"type": "object", "minProperties": "1"}}}
REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"background": True}, "background", "False"),
    ({"include": ["reasoning.encrypted_content"]}, "include", "0"),
    ({"reasoning": {"effort": "low"}}, "reasoning.effort", "chat template"),
    ({"truncation": "auto"}, "truncation", "disabled"),
    ({"conversation": "conv_1"}, "conversation", "previous_response_id"),
    ({"max_tool_calls": 1}, "max_tool_calls", "not supported"),
    ({"prompt": {"id": "p"}}, "prompt", "not supported"),
    ({"top_logprobs": 2}, "top_logprobs", "0"),
    ({"seed": 1}, "seed", "not supported"),
    ({"text": {"verbosity": "low"}}, "text.verbosity", "None"),
    ({"stream_options": {"include_obfuscation": True}}, "stream_options.include_obfuscation", "False"),
    ({"tools": [{"type": "web_search"}]}, "tools[0]", "web_search"),
    ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools[0].function", "beside the type"),
    ({"tool_choice": {"type": "function", "function": {"name": "f"}}}, "tool_choice.function", "beside the type"),
    ({"tools": [WEATHER]}, "tools[0]", "function"),
    ({"tools": ["absent"]}, "tools[0]", "calculate"),
    ({"tools": [FORECAST, FORECAST]}, "tools[1].name", "differ"),
    ({"tools": [{**FORECAST, "parameters": {"type": "array"}}]}, "tools[0].parameters.type", "object"),
    ({"tools": [FORECAST, BAD_GRAMMAR]}, "tools[1].format.definition", ""),
    ({"tool_choice": {"type": "custom", "name": "get_weather"}, "tools": [FORECAST]}, "tool_choice", "function"),
    ({"tool_choice": {"type": "web_search"}}, "tool_choice", "web_search"),
    ({"tool_choice": CHOICE, "tools": [FORECAST]}, "tool_choice", "absent"),
    ({"tool_choice": "required"}, "tool_choice", "no tool"),
    ({"input": []}, "input", "at least 1"),
    ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input[0]", "item_reference"),
    ({"input": [{"type": "reasoning", "summary": []}]}, "input[0].content", "missing"),
    ({"input": message([{"type": "input_image", "image_url": "x"}])}, "input[0].content[0]", "input_image"),
    ({"input": message("x", "robot")}, "input[0].role", "system"),
    ({"input": [*message("x"), BAD_CALL]}, "input[1].arguments", "JSON object"),
    ({"input": "x" * 9000}, "input", "context"),
    ({"max_output_tokens": 10**9}, "max_output_tokens", "room"),
    ({"max_output_tokens": 0}, "max_output_tokens", "1"),
    ({"text": BAD_SCHEMA}, "text.format.schema.minProperties", ""),
    ({"text": SCHEMA, "toolmask": {"regex": "a"}}, "toolmask.regex", "text.format"),
    ({"toolmask": {"regex": "("}}, "toolmask.regex", ""),
]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize(("options", "param", "word"), REFUSED, ids=lambda value: json.dumps(value)[:60])
def test_a_mistake_is_a_400_that_names_the_parameter(
    server: LiveServer, options: dict[str, Any], param: str, word: str, stream: bool
) -> None:
    response = respond(server, **options, stream=stream)
    assert (response.status_code, response.headers["content-type"]) == (400, "application/json"), response.text
    error = response.json()["error"]
    assert error["param"].startswith(param)
    assert word in error["message"]


def test_a_tool_of_the_server_may_be_named_and_comes_back_spelled_out(server: LiveServer) -> None:
    (tool,) = respond(server, tools=["calculate"]).json()["tools"]
    assert (tool["type"], tool["name"]) == ("function", "calculate")
    assert "expression" in tool["parameters"]["properties"]


@pytest.mark.parametrize(
    "choice",
    [
        "auto",
        "none",
        {"type": "function", "name": "get_weather"},
        {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "get_weather"}]},
    ],
    ids=str,
)
def test_every_form_of_tool_choice_is_kept_to(server: LiveServer, choice: Any) -> None:
    """F8."""
    other = {"type": "function", "name": "other"}
    answer = respond(server, input="text and call", tools=[other, FORECAST], tool_choice=choice).json()
    kinds = [(item["type"], item.get("name")) for item in answer["output"]]
    called = [("function_call", "get_weather")]
    assert kinds[-1:] == ([("message", None)] if choice == "none" else called)
    assert answer["tool_choice"] == choice
