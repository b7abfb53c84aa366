"""What a model thinks is reasoning_content, in answers, in deltas and in the messages that come back."""

from collections.abc import Iterator

import pytest

from tests.api.servers import LiveServer, added_up, events_of, function_tool, served
from tests.api.thinkers import thinker
from tests.fakes import fake_loaded, fake_that_writes

USER = {"role": "user", "content": "hi"}


@pytest.fixture(scope="module")
def server() -> Iterator[LiveServer]:
    with served(fake_that_writes("<think>\nHm. 日本\n</think>\n\nYes.", hermes=True, reasons=True)) as server:
        yield server


def test_an_answer_has_its_reasoning_beside_its_content(server: LiveServer) -> None:
    """F16."""
    message = server.chat(messages=[USER], max_tokens=80).json()["choices"][0]["message"]
    assert (message["reasoning_content"], message["content"]) == ("Hm. 日本", "Yes.")


@pytest.mark.parametrize(
    "options",
    [{}, {"max_tokens": 8}, {"stop": ["Y"]}, {"logprobs": True}, {"logprobs": True, "max_tokens": 8}],
    ids=str,
)
def test_a_streams_deltas_add_up_to_the_answer(server: LiveServer, options: dict[str, object]) -> None:
    """F12."""
    body = {"messages": [USER], "max_tokens": 80, **options}
    (whole,) = server.chat(**body).json()["choices"]
    (streamed,) = added_up(events_of(server.chat(**body, stream=True))[:-1])
    assert streamed == whole


def test_a_turn_that_ends_in_its_reasoning_has_empty_content(server: LiveServer) -> None:
    answer = server.chat(messages=[USER], max_tokens=8).json()["choices"][0]
    assert answer["finish_reason"] == "length"
    assert answer["message"]["content"] == ""
    assert answer["message"]["reasoning_content"]


def test_a_message_of_reasoning_alone_comes_back_with_its_content_null_or_empty(server: LiveServer) -> None:
    prompts = []
    for content in (None, ""):
        thought = {"role": "assistant", "content": content, "reasoning_content": "x"}
        response = server.http.post("/v1/tokenize", json={"messages": [USER, thought, USER]})
        assert response.status_code == 200
        prompts.append(response.json()["tokens"])
    assert prompts[0] == prompts[1]


def test_logprobs_are_of_the_content_alone(server: LiveServer) -> None:
    for stream in (False, True):
        response = server.chat(messages=[USER], logprobs=True, stream=stream, max_tokens=80)
        choices = added_up(events_of(response)[:-1]) if stream else response.json()["choices"]
        assert "".join(each["token"] for each in choices[0]["logprobs"]["content"]) == "Yes."


def test_usage_counts_the_tokens_of_reasoning(server: LiveServer) -> None:
    """F29."""
    cut = server.chat(messages=[USER], max_tokens=8).json()["usage"]
    assert (cut["completion_tokens"], cut["completion_tokens_details"]["reasoning_tokens"]) == (8, 8)
    both = server.chat(messages=[USER], max_tokens=80, n=2, stream=True, stream_options={"include_usage": True})
    usage = events_of(both)[-2]["usage"]
    one = server.chat(messages=[USER], max_tokens=80).json()["usage"]["completion_tokens_details"]["reasoning_tokens"]
    assert usage["completion_tokens_details"]["reasoning_tokens"] == 2 * one
    assert one < usage["completion_tokens"] / 2


def test_an_answer_without_reasoning_does_not_mention_it() -> None:
    with served(fake_that_writes("Yes.")) as server:
        assert "reasoning_content" not in server.chat(messages=[USER]).text


def test_earlier_reasoning_comes_back(server: LiveServer) -> None:
    answer = {"role": "assistant", "content": "No.", "reasoning_content": "Hm."}
    with_it = server.http.post("/v1/tokenize", json={"messages": [USER, answer, USER]}).json()["count"]
    answer.pop("reasoning_content")
    assert server.http.post("/v1/tokenize", json={"messages": [USER, answer, USER]}).json()["count"] < with_it


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"reasoning_effort": "low"}, "reasoning_effort"),
        ({"toolmask": {"chat_template_kwargs": {"enable_thinkin": False}}}, "toolmask.chat_template_kwargs"),
        ({"toolmask": {"reasoning_budget": -1}}, "toolmask.reasoning_budget"),
        ({"toolmask": {"reasoning_budget": 5, "chat_template_kwargs": {"enable_thinking": False}}}, "toolmask.reason"),
    ],
    ids=str,
)
def test_an_option_that_the_model_does_not_have_is_refused_by_name(
    server: LiveServer, body: dict[str, object], param: str
) -> None:
    """F13."""
    response = server.chat(messages=[USER], **body)
    assert response.status_code == 400
    error = response.json()["error"]
    assert error["param"].startswith(param)
    assert error["message"].startswith(error["param"])
    assert "template_options" not in error["message"]


def test_a_budget_closes_the_reasoning() -> None:
    with served(fake_loaded(hermes=True, reasons=True, bonus={"a": 5000})) as server:
        body = {"toolmask": {"reasoning_budget": 3, "chat_template_kwargs": {"opened": True}}, "max_tokens": 200}
        tools = [function_tool("clock", {"type": "object", "properties": {}})]
        answer = server.chat(
            messages=[USER], tools=tools, tool_choice="required", parallel_tool_calls=False, **body
        ).json()
    message = answer["choices"][0]["message"]
    assert message["reasoning_content"] == "aaa"
    assert message["tool_calls"][0]["function"]["name"] == "clock"


# Counted before it is asked.


@pytest.mark.parametrize(
    "options",
    [
        {"toolmask": {"chat_template_kwargs": {"opened": True}}},
        {"toolmask": {"chat_template_kwargs": {"enable_thinking": False}}},
        {"toolmask": {"chat_template_kwargs": {"reasoning_effort": "low"}}},
        {"reasoning_effort": "low"},
    ],
    ids=str,
)
def test_tokenize_counts_the_prompt_that_a_chat_with_the_same_options_has(options: dict[str, object]) -> None:
    with served(thinker("Yes.")) as server:
        counts = [
            server.http.post("/v1/tokenize", json={"messages": [USER], **more}).json()["count"]
            for more in ({}, options)
        ]
        usage = server.chat(messages=[USER], max_tokens=80, **options).json()["usage"]
    assert usage["prompt_tokens"] == counts[1] > counts[0]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"messages": [USER], "reasoning_effort": "low"}, "reasoning_effort"),
        (
            {"messages": [USER], "toolmask": {"chat_template_kwargs": {"thinking": True}}},
            "toolmask.chat_template_kwargs.thinking",
        ),
        ({"messages": [USER], "toolmask": {"reasoning_budget": 3}}, "toolmask.reasoning_budget"),
        ({"text": "a", "reasoning_effort": "low"}, "reasoning_effort"),
        ({"text": "a", "toolmask": {"chat_template_kwargs": {"opened": True}}}, "toolmask"),
    ],
    ids=str,
)
def test_tokenize_refuses_by_name_what_does_not_decide_the_prompt(
    server: LiveServer, body: dict[str, object], param: str
) -> None:
    """F13."""
    response = server.http.post("/v1/tokenize", json=body)
    error = response.json()["error"]
    assert (response.status_code, error["param"]) == (400, param)
    assert error["message"].startswith(param)
    assert "template_options" not in error["message"]
