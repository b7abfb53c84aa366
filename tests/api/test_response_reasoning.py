"""What a model thinks is an item of its own in responses, whole and streamed, and comes back as one."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.api.servers import MODEL, LiveServer, call_text, function_tool, served
from tests.api.test_responses import added_up, streamed, without_ids
from tests.api.thinkers import thinker
from tests.fakes import fake_that_writes

TOOL = {"type": "function", **function_tool("clock", {"type": "object", "properties": {}})["function"]}
THOUGHT: dict[str, Any] = {"type": "reasoning", "content": [{"type": "reasoning_text", "text": "Hm."}], "summary": []}


@pytest.fixture(scope="module")
def server() -> Iterator[LiveServer]:
    with served(thinker()) as server:
        yield server


def respond(server: LiveServer, **body: Any) -> httpx.Response:
    return server.http.post("/v1/responses", json={"model": MODEL, "input": "hi", "max_output_tokens": 80, **body})


def prompt_tokens(server: LiveServer, messages: list[dict[str, Any]], **options: Any) -> int:
    """Of the prompt that a chat has."""
    body = {"messages": messages, "max_completion_tokens": 80, "max_tokens": None, **options}
    return server.chat(**body).json()["usage"]["prompt_tokens"]


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


# Out.


def test_reasoning_is_an_item_before_the_message(server: LiveServer) -> None:
    """F16."""
    reasoning, message = respond(server).json()["output"]
    assert reasoning.pop("id").startswith("rs_")
    content = [{"type": "reasoning_text", "text": "Hm. 日本"}]
    assert reasoning == {"type": "reasoning", "status": "completed", "summary": [], "content": content}
    assert message["content"][0]["text"] == "Yes."


def test_reasoning_comes_before_a_call() -> None:
    with served(thinker(call_text("clock", "{}"))) as server:
        body = {"tools": [TOOL], "tool_choice": "required", "max_output_tokens": 200}
        whole = respond(server, **body).json()
        events = streamed(server, **body)
    assert [item["type"] for item in whole["output"]] == ["reasoning", "function_call"]
    assert without_ids(added_up(events)) == without_ids(whole["output"])


@pytest.mark.parametrize("limit", [5, 8, 80])
def test_a_stream_adds_up_to_the_whole_answer(server: LiveServer, limit: int) -> None:
    """F12."""
    whole = respond(server, max_output_tokens=limit).json()
    events = streamed(server, input="hi", max_output_tokens=limit)
    output = added_up(events)
    assert output == events[-1]["response"]["output"]
    assert without_ids(output) == without_ids(whole["output"])
    assert events[-1]["response"]["usage"] == whole["usage"]


def test_the_events_of_reasoning_and_text_come_in_openais_order(server: LiveServer) -> None:
    kinds = [event["type"] for event in streamed(server, input="hi", max_output_tokens=80)]
    part = ["response.output_item.added", "response.content_part.added"]
    end = ["response.content_part.done", "response.output_item.done"]
    assert [kind for kind, before in zip(kinds, ["", *kinds], strict=False) if kind != before] == [
        "response.created",
        "response.in_progress",
        *part,
        "response.reasoning_text.delta",
        "response.reasoning_text.done",
        *end,
        *part,
        "response.output_text.delta",
        "response.output_text.done",
        *end,
        "response.completed",
    ]
    assert kinds.count("response.reasoning_text.delta") > 1


def test_a_response_that_is_cut_in_its_reasoning_is_incomplete_and_all_reasoning(server: LiveServer) -> None:
    answer = respond(server, max_output_tokens=8).json()
    (reasoning,) = answer["output"]
    assert (answer["status"], reasoning["type"], reasoning["status"]) == ("incomplete", "reasoning", "incomplete")
    assert answer["usage"]["output_tokens_details"]["reasoning_tokens"] == answer["usage"]["output_tokens"] == 8


def test_the_tokens_of_reasoning_are_counted_as_in_chats(server: LiveServer) -> None:
    """F29."""
    chat = server.chat(messages=[user("hi")], max_tokens=80).json()["usage"]["completion_tokens_details"]
    counted = respond(server).json()["usage"]["output_tokens_details"]["reasoning_tokens"]
    assert counted == chat["reasoning_tokens"] > 0


def test_the_official_client_reads_it(server: LiveServer) -> None:
    with server.client() as client:
        with client.responses.stream(model=MODEL, input="hi") as stream:
            deltas = [event.delta for event in stream if event.type == "response.reasoning_text.delta"]
            response = stream.get_final_response()
        (reasoning, message) = response.output
        again = client.responses.create(model=MODEL, input=[user("hi"), reasoning, message, user("and?")])
    assert (reasoning.type, reasoning.content[0].text, response.output_text) == ("reasoning", "Hm. 日本", "Yes.")
    assert "".join(deltas) == "Hm. 日本"
    assert again.output_text == "Yes."


# Back in.


@pytest.mark.parametrize("stream", [False, True])
def test_the_reasoning_of_the_response_before_is_shown_as_in_chats(server: LiveServer, stream: bool) -> None:
    response = respond(server, stream=stream)
    before = events_of_response(response) if stream else response.json()
    after = respond(server, input="and?", previous_response_id=before["id"]).json()
    answer = {"role": "assistant", "content": "Yes.", "reasoning_content": "Hm. 日本"}
    assert after["usage"]["input_tokens"] == prompt_tokens(server, [user("hi"), answer, user("and?")])


def events_of_response(response: httpx.Response) -> Any:
    """The whole response, of its stream's last event."""
    last = response.text.strip().rpartition("data: ")[2]
    return httpx.Response(200, text=last).json()["response"]


def test_a_response_that_was_cut_in_its_reasoning_can_be_gone_on_from(server: LiveServer) -> None:
    before = respond(server, max_output_tokens=8).json()
    after = respond(server, input="and?", previous_response_id=before["id"]).json()
    thought = {"role": "assistant", "content": "", "reasoning_content": before["output"][0]["content"][0]["text"]}
    assert after["usage"]["input_tokens"] == prompt_tokens(server, [user("hi"), thought, user("and?")])


CALL_ITEM = {"type": "function_call", "call_id": "1", "name": "clock", "arguments": "{}"}
RESULT_ITEM = {"type": "function_call_output", "call_id": "1", "output": "12"}
CALL = {"id": "1", "type": "function", "function": {"name": "clock", "arguments": "{}"}}
RESULT = {"role": "tool", "tool_call_id": "1", "content": "12"}
SAID = {"role": "assistant", "content": "Yes."}
TURNS: dict[str, tuple[list[dict[str, Any]], list[dict[str, Any]]]] = {
    "text": ([THOUGHT, SAID], [{**SAID, "reasoning_content": "Hm."}]),
    "call": (
        [THOUGHT, CALL_ITEM, RESULT_ITEM],
        [{"role": "assistant", "content": None, "tool_calls": [CALL], "reasoning_content": "Hm."}, RESULT],
    ),
    "nothing": ([THOUGHT], [{"role": "assistant", "content": "", "reasoning_content": "Hm."}]),
    "text before": ([SAID, THOUGHT, SAID], [SAID, {**SAID, "reasoning_content": "Hm."}]),
    "several parts": (
        [{**THOUGHT, "content": [{"type": "reasoning_text", "text": text} for text in ("H", "m.")]}, SAID],
        [{**SAID, "reasoning_content": "Hm."}],
    ),
}


@pytest.mark.parametrize(("items", "messages"), TURNS.values(), ids=TURNS)
def test_reasoning_belongs_to_the_turn_that_follows_it(
    server: LiveServer, items: list[dict[str, Any]], messages: list[dict[str, Any]]
) -> None:
    response = respond(server, input=[user("hi"), *items, user("and?")])
    assert response.status_code == 200, response.text
    shown = response.json()["usage"]["input_tokens"]
    assert shown == prompt_tokens(server, [user("hi"), *messages, user("and?")])
    bare = [{key: value for key, value in each.items() if key != "reasoning_content"} for each in messages]
    assert shown > prompt_tokens(server, [user("hi"), *bare, user("and?")])


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"content": []}, "input[0].content"),
        ({"content": None}, "input[0].content"),
        ({"content": [{"type": "summary_text", "text": "x"}]}, "input[0].content[0].type"),
        ({"summary": [{"type": "summary_text", "text": "x"}]}, "input[0].summary"),
        ({"encrypted_content": "x"}, "input[0].encrypted_content"),
    ],
    ids=str,
)
def test_reasoning_that_cannot_be_shown_is_refused_by_name(
    server: LiveServer, change: dict[str, Any], param: str
) -> None:
    """F13."""
    response = respond(server, input=[{**THOUGHT, **change}, user("hi")])
    assert response.status_code == 400
    assert response.json()["error"]["param"] == param


# Options.


def test_the_effort_is_shown_to_the_model_as_in_chats_and_comes_back(server: LiveServer) -> None:
    answer = respond(server, reasoning={"effort": "low"}).json()
    assert answer["reasoning"] == {"effort": "low", "summary": None}
    low = prompt_tokens(server, [user("hi")], reasoning_effort="low")
    assert answer["usage"]["input_tokens"] == low > prompt_tokens(server, [user("hi")])


def test_options_of_the_chat_template_are_passed_to_it(server: LiveServer) -> None:
    options = {"chat_template_kwargs": {"opened": True}}
    answer = respond(server, toolmask=options).json()
    assert answer["usage"]["input_tokens"] == prompt_tokens(server, [user("hi")], toolmask=options)
    assert answer["usage"]["input_tokens"] > prompt_tokens(server, [user("hi")])


def test_a_budget_closes_the_reasoning() -> None:
    with served(thinker(call_text("clock", "{}"))) as server:
        body = {"tools": [TOOL], "tool_choice": "required", "parallel_tool_calls": False, "max_output_tokens": 200}
        free = respond(server, **body).json()["usage"]["output_tokens_details"]["reasoning_tokens"]
        bound = respond(server, **body, toolmask={"reasoning_budget": 1}).json()
    assert bound["usage"]["output_tokens_details"]["reasoning_tokens"] < free
    assert bound["output"][-1]["type"] == "function_call"


EFFORT = {"reasoning": {"effort": "low"}}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"reasoning": {"summary": "auto"}}, "reasoning.summary"),
        ({**EFFORT, "toolmask": {"chat_template_kwargs": {"reasoning_effort": "low"}}}, "reasoning.effort"),
        ({"reasoning_effort": "low"}, "reasoning_effort"),
        ({"toolmask": {"chat_template_kwargs": {"enable_thinkin": 1}}}, "toolmask.chat_template_kwargs.enable_thinkin"),
        (
            {"toolmask": {"reasoning_budget": 5, "chat_template_kwargs": {"enable_thinking": False}}},
            "toolmask.reasoning_budget",
        ),
    ],
    ids=str,
)
def test_what_cannot_be_honoured_is_refused_by_name(server: LiveServer, body: dict[str, Any], param: str) -> None:
    """F13."""
    response = respond(server, **body)
    error = response.json()["error"]
    assert (response.status_code, error["param"]) == (400, param)
    assert error["message"].startswith(param)


def test_an_effort_that_the_template_does_not_read_is_refused_by_name() -> None:
    with served(fake_that_writes("Yes.")) as server:
        error = respond(server, **EFFORT).json()["error"]
    assert (error["param"], error["message"].partition(":")[0]) == ("reasoning.effort", "reasoning.effort")
