"""Call or text over HTTP: the options under `toolmask`, and what answers and streams tell."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from api.convert.decisions import add_decisions
from api.schemas.common import ToolmaskInfo
from engine.config import EngineConfig
from engine.decision_options import DecisionOptions
from engine.events import Decision
from engine.model import LoadedModel
from tests.api.servers import WEATHER, LiveServer, added_up, call_text, events_of, function_tool, served
from tests.api.thinkers import thinker
from tests.deciders import decider, marker_then_text
from tests.fakes import fake_loaded, scripted

FIELDS = {"p_call", "p_text", "p_call_raw", "calibrated", "bias", "threshold", "chosen", "fits", "passes"}
CHAT, RESPONSES = "/v1/chat/completions", "/v1/responses"


def unsure() -> LoadedModel:
    """Calls with probability 0.3."""
    return decider(marker_then_text(0.3, hermes=True), hermes=True)


@pytest.fixture(scope="module")
def server() -> Iterator[LiveServer]:
    with served(unsure) as server:
        yield server


@pytest.fixture(scope="module")
def plain_server() -> Iterator[LiveServer]:
    with served(fake_loaded) as server:
        yield server


def ask(**toolmask: Any) -> dict[str, Any]:
    tools = {"tools": [WEATHER], "parallel_tool_calls": False}
    return {"messages": [{"role": "user", "content": "hi"}], **tools, "max_tokens": 100, "toolmask": toolmask}


def decision_of(answer: dict[str, Any]) -> dict[str, Any]:
    decision: dict[str, Any] = answer["toolmask"]["decision"]
    return decision


def test_an_answer_tells_how_likely_a_call_was(server: LiveServer) -> None:
    decision = decision_of(server.chat(**ask()).json())
    assert set(decision) == FIELDS
    assert decision["p_call"] == pytest.approx(0.3, rel=1e-4)
    assert decision["p_text"] == pytest.approx(0.7, rel=1e-4)
    assert (decision["chosen"], decision["passes"]) == (None, 0)


def test_where_looking_has_a_cost_it_is_told_only_when_asked(plain_server: LiveServer) -> None:
    assert "decision" not in plain_server.chat(**ask()).json()["toolmask"]
    assert set(decision_of(plain_server.chat(**ask(decision=True)).json())) == FIELDS


def test_a_model_never_trained_for_tools_is_decided_for_by_default_and_a_request_may_say_no() -> None:
    def said(prompt: str) -> dict[str, Mapping[str, float]]:
        return marker_then_text(0.01 if "hi<|im_end|>" in prompt else 0.001, hermes=False)

    loaded = decider({}, hermes=False, by_prompt=said)
    with served(lambda: loaded, engine_config=EngineConfig(decision=DecisionOptions())) as server:
        answer = server.chat(**ask()).json()
        left_to_tokens = server.chat(**ask(calibrate=False)).json()
    assert answer["choices"][0]["finish_reason"] == "tool_calls"
    assert (decision_of(answer)["calibrated"], decision_of(answer)["chosen"]) == (True, "call")
    assert left_to_tokens["choices"][0]["message"]["content"] == "Y"


@pytest.mark.parametrize(
    ("options", "chosen"),
    [
        ({"tool_call_threshold": 0.29}, "call"),
        ({"tool_call_threshold": 0.31}, "text"),
        ({"tool_call_bias": 1.0}, "call"),
        ({"tool_call_bias": 0}, "text"),
        ({"calibrate": True, "tool_call_bias": 0.1}, "call"),
        ({"calibrate": True, "tool_call_bias": -0.1}, "text"),
        ({"tool_choice_by": "likelihood"}, "text"),
    ],
)
def test_an_option_decides(server: LiveServer, options: dict[str, Any], chosen: str) -> None:
    answer = server.chat(**ask(**options)).json()
    assert decision_of(answer)["chosen"] == chosen
    assert decision_of(answer)["calibrated"] is ("calibrate" in options)
    assert answer["choices"][0]["finish_reason"] == {"call": "tool_calls", "text": "stop"}[chosen]


def test_the_probabilities_of_tools_are_told_where_asked(server: LiveServer) -> None:
    body = ask(tool_probabilities=True) | {"tools": [WEATHER, function_tool("clock")]}
    tools = decision_of(server.chat(**body).json())["tools"]
    assert set(tools) == {"get_weather", "clock"}
    assert sum(tools.values()) == pytest.approx(1)


def test_a_required_call_takes_its_tool_by_likelihood(server: LiveServer) -> None:
    body = ask(tool_choice_by="likelihood") | {"tools": [WEATHER, function_tool("clock")], "tool_choice": "required"}
    answer = server.chat(**body).json()
    tools = decision_of(answer)["tools"]
    (call,) = answer["choices"][0]["message"]["tool_calls"]
    assert call["function"]["name"] == max(tools, key=tools.__getitem__)


def test_of_a_model_never_trained_for_tools_that_is_the_default_and_a_request_may_say_no() -> None:
    with served(fake_loaded, engine_config=EngineConfig(decision=DecisionOptions())) as server:
        body = ask() | {"tools": [WEATHER, function_tool("clock")], "tool_choice": "required"}
        answer = server.chat(**body).json()
        by_tokens = server.chat(**(body | {"toolmask": {"tool_choice_by": "tokens"}})).json()
    assert set(decision_of(answer)["tools"]) == {"get_weather", "clock"}
    assert decision_of(answer)["chosen"] == "call"
    assert "decision" not in by_tokens["toolmask"]
    assert by_tokens["choices"][0]["finish_reason"] == "tool_calls"


@pytest.mark.parametrize("threshold", [0.0, 1.0])
def test_a_stream_s_first_chunk_has_the_decision_and_its_last_has_it_again(
    server: LiveServer, threshold: float
) -> None:
    body = ask(tool_call_threshold=threshold)
    whole = server.chat(**body).json()
    *chunks, done = events_of(server.chat(**body, stream=True))
    assert done == "data: [DONE]"
    told = [chunk for chunk in chunks if "toolmask" in chunk]
    assert told == [chunks[0], chunks[-1]]
    assert chunks[0]["toolmask"] == {"decision": decision_of(whole)}
    assert decision_of(chunks[-1]) == decision_of(whole)
    assert added_up(chunks)[0]["finish_reason"] == whole["choices"][0]["finish_reason"]


def test_a_model_that_reasons_tells_it_in_the_first_chunk_behind_its_reasoning() -> None:
    with served(thinker(call_text("get_weather", '{"city": "Rome", "days": 1}'))) as server:
        *chunks, _ = events_of(server.chat(**ask(tool_call_threshold=0.0), stream=True))
    first = next(number for number, chunk in enumerate(chunks) if "toolmask" in chunk)
    assert all("tool_calls" not in chunk["choices"][0]["delta"] for chunk in chunks[:first])
    assert any("reasoning_content" in chunk["choices"][0]["delta"] for chunk in chunks[:first])
    assert "tool_calls" in chunks[first]["choices"][0]["delta"]


def test_each_of_several_choices_tells_its_own(server: LiveServer) -> None:
    body = ask(tool_call_bias=0.0) | {"n": 8, "temperature": 1, "seed": 5}
    whole = server.chat(**body).json()
    decisions = whole["toolmask"]["decisions"]
    finished = [choice["finish_reason"] for choice in whole["choices"]]
    assert [{"call": "tool_calls", "text": "stop"}[each["chosen"]] for each in decisions] == finished
    assert set(finished) == {"tool_calls", "stop"}
    assert decision_of(whole) == decisions[0]
    chunks = [chunk for chunk in events_of(server.chat(**body, stream=True))[:-1] if "toolmask" in chunk]
    told = {chunk["choices"][0]["index"]: decision_of(chunk) for chunk in chunks[:-1]}
    assert [told[index] for index in range(8)] == decisions
    assert chunks[-1]["toolmask"]["decisions"] == decisions


def test_a_choice_without_a_decision_has_null_in_its_place() -> None:
    made = Decision(0.0, 0.0)
    for decisions, first, places in (
        ([None, made], False, [False, True]),
        ([made, None], True, [True, False]),
        ([None, None], False, None),
        ([made], True, None),
    ):
        info = ToolmaskInfo(receipt=[], forced_tokens=0, forward_passes=0, seed=0)
        add_decisions(info, decisions)
        assert (info.decision is not None) is first
        assert (info.decisions and [each is not None for each in info.decisions]) == places


def test_responses_have_the_same_options_and_tell_the_same(server: LiveServer) -> None:
    flat = {"type": "function", "name": "clock", "parameters": {}}
    body = {"model": "fake", "input": "hi", "tools": [flat], "toolmask": {"tool_call_threshold": 0.1}}
    response = server.http.post(RESPONSES, json=body).json()
    assert decision_of(response)["chosen"] == "call"
    assert [item["type"] for item in response["output"]] == ["function_call"]
    stream = server.http.post(RESPONSES, json={**body, "stream": True}).text
    created = next(line for line in stream.splitlines() if line.startswith("data: "))
    told = json.loads(created.removeprefix("data: "))["response"]["toolmask"]
    assert told == {"decision": decision_of(response)}


def test_the_server_s_own_rounds_tell_of_the_last() -> None:
    with served(unsure, max_tool_rounds=1) as server:
        body = ask(tool_call_threshold=0.0) | {"tools": ["calculate"], "tool_execution": "server"}
        answer = server.chat(**body).json()
    assert len(answer["toolmask"]["trace"]) == 1
    assert "decision" not in answer["toolmask"]  # after the last round the model must answer in text


@pytest.mark.parametrize("path", [CHAT, RESPONSES])
@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"decision": True}, "toolmask.decision"),
        ({"tool_call_bias": 1.0}, "toolmask.tool_call_bias"),
        ({"tool_call_threshold": 0.5}, "toolmask.tool_call_threshold"),
        ({"calibrate": True}, "toolmask.calibrate"),
        ({"tool_probabilities": True}, "toolmask.tool_probabilities"),
        ({"tool_choice_by": "likelihood"}, "toolmask.tool_choice_by"),
        ({"optional_bias": -1}, "toolmask.optional_bias"),
    ],
)
def test_where_there_is_nothing_to_decide_an_option_is_refused_by_its_path(
    server: LiveServer, path: str, options: dict[str, Any], param: str
) -> None:
    said = {"messages": [{"role": "user", "content": "hi"}]} if path == CHAT else {"input": "hi"}
    response = server.http.post(path, json={"model": "fake", **said, "toolmask": options})
    assert response.status_code == 400
    assert response.json()["error"]["param"] == param
    assert param in response.json()["error"]["message"]


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"decision": False}, "toolmask.decision"),
        ({"tool_call_bias": "1"}, "toolmask.tool_call_bias"),
        ({"tool_call_threshold": 1.5}, "toolmask.tool_call_threshold"),
        ({"calibrate": 1}, "toolmask.calibrate"),
        ({"tool_choice_by": "dice"}, "toolmask.tool_choice_by"),
        ({"optional_bias": 1}, "toolmask.optional_bias"),
    ],
)
def test_a_value_that_is_not_allowed_is_refused_by_its_path(
    server: LiveServer, options: dict[str, Any], param: str
) -> None:
    response = server.chat(**ask(**options))
    assert (response.status_code, response.json()["error"]["param"]) == (400, param)


def test_a_call_that_must_come_leaves_nothing_to_decide(server: LiveServer) -> None:
    response = server.chat(**ask(tool_call_bias=1.0), tool_choice="required")
    assert response.status_code == 400
    assert response.json()["error"]["message"].startswith(
        "toolmask.tool_call_bias stands here, but tool_choice is not auto"
    )


def test_optional_arguments_are_left_out_by_a_bias() -> None:
    with served(lambda: scripted(fake_loaded(), lambda _: {})) as server:
        count = {"type": "integer", "maximum": 9, "minimum": 0}
        tool = function_tool("count", {"type": "object", "properties": {"a": count, "b": count}, "required": ["a"]})
        body = ask(optional_bias=-100) | {
            "tools": [tool],
            "tool_choice": "required",
            "n": 8,
            "temperature": 1,
            "seed": 1,
        }
        choices = server.chat(**body).json()["choices"]
    written = [json.loads(choice["message"]["tool_calls"][0]["function"]["arguments"]) for choice in choices]
    assert [set(each) for each in written] == [{"a"}] * 8


# The likeliest of several samples.


@pytest.mark.parametrize("path", [CHAT, RESPONSES])
def test_an_answer_may_be_the_likeliest_of_several(server: LiveServer, path: str) -> None:
    said = {"messages": [{"role": "user", "content": "hi"}]} if path == CHAT else {"input": "hi"}
    more = {"seed": 3} if path == RESPONSES else {}
    body = {"model": "fake", **said, "temperature": 1, "toolmask": {"best_of": 3, **more}}
    told = server.http.post(path, json=body).json()["toolmask"]["best_of"]
    assert len(told["scores"]) == 3
    assert told["scores"][told["chosen"]] == max(told["scores"])


def test_a_stream_of_the_likeliest_adds_up_to_it(server: LiveServer) -> None:
    body = ask(best_of=3) | {"temperature": 1, "seed": 3}
    whole = server.chat(**body).json()
    chunks = events_of(server.chat(**body, stream=True))[:-1]
    assert chunks[-1]["toolmask"]["best_of"] == whole["toolmask"]["best_of"]
    assert added_up(chunks)[0]["finish_reason"] == whole["choices"][0]["finish_reason"]


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 1, "n": 2},
        {"temperature": 1, "tools": ["calculate"], "tool_execution": "server"},
        {"temperature": 0},
        {"temperature": 1, "toolmask": {"best_of": 17}},
        {"temperature": 1, "toolmask": {"best_of": 1}},
    ],
)
def test_what_best_of_cannot_do_is_refused(server: LiveServer, options: dict[str, Any]) -> None:
    response = server.chat(**{**ask(best_of=2), **options})
    assert (response.status_code, response.json()["error"]["param"]) == (400, "toolmask.best_of")
