"""OpenAI's older completions, and tokens."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.api.servers import MODEL, WEATHER, LiveServer, events_of, fake_that_answers, served
from tests.fakes import fake_loaded


@pytest.fixture(scope="module")
def server() -> Iterator[LiveServer]:
    with served(fake_loaded()) as server:
        yield server


def complete(server: LiveServer, **body: Any) -> Any:
    return server.http.post("/v1/completions", json={"model": MODEL, "prompt": "Once", "seed": 1, **body})


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"prompt": ["Once", "Twice", "Thrice"]},
        {"prompt": ["Once", "Twice"], "n": 2, "temperature": 100},
        {"logprobs": 0},
        {"logprobs": 3, "prompt": ["a", "b"], "max_tokens": 40},
        {"stop": "e", "max_tokens": 60},
        {"toolmask": {"regex": "[0-9]{3} apples"}},
    ],
    ids=str,
)
def test_a_stream_adds_up_to_the_whole_answer(server: LiveServer, body: dict[str, Any]) -> None:
    whole = complete(server, **body).json()
    *chunks, last, done = events_of(complete(server, **body, stream=True, stream_options={"include_usage": True}))
    assert done == "data: [DONE]"
    assert (last["choices"], last["usage"]) == ([], whole["usage"])
    choices: list[dict[str, Any]] = [{"index": i, "text": "", "logprobs": None} for i in range(len(whole["choices"]))]
    for chunk in chunks:
        for part in chunk["choices"]:
            choice = choices[part["index"]]
            choice["text"] += part["text"]
            choice["finish_reason"] = part["finish_reason"]
            if part["logprobs"] is not None:
                scores = choice["logprobs"] = choice["logprobs"] or {}
                for key, values in part["logprobs"].items():
                    scores[key] = scores.get(key, []) + values
    assert choices == whole["choices"]


def test_a_prompt_may_be_text_or_tokens_one_or_many(server: LiveServer) -> None:
    tokens = server.http.post("/v1/tokenize", json={"text": "Once"}).json()["tokens"]
    forms = ("Once", ["Once"], tokens, [tokens])
    assert len({complete(server, prompt=form).json()["choices"][0]["text"] for form in forms}) == 1


def test_sixteen_tokens_are_written_where_nothing_else_is_asked(server: LiveServer) -> None:
    assert complete(server, logit_bias={"5": -100}).json()["usage"]["completion_tokens"] <= 16


def test_the_offsets_of_logprobs_point_into_the_text(server: LiveServer) -> None:
    choice = complete(server, logprobs=2, logit_bias={}).json()["choices"][0]
    scores = choice["logprobs"]
    assert len(scores["tokens"]) == len(scores["token_logprobs"]) == len(scores["text_offset"])
    assert scores["text_offset"][0] == 0
    assert all(token in top for token, top in zip(scores["tokens"], scores["top_logprobs"], strict=True))


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"prompt": ""}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [[]]}, "prompt"),
        ({"prompt": [99999]}, "prompt"),
        ({"prompt": "a" * 9000}, "prompt"),
        ({"best_of": 2}, "best_of"),
        ({"echo": True}, "echo"),
        ({"suffix": "x"}, "suffix"),
        ({"logprobs": 6}, "logprobs"),
        ({"messages": []}, "messages"),
        ({"toolmask": {"regex": "("}}, "toolmask.regex"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_mistake_is_named(server: LiveServer, body: dict[str, Any], param: str) -> None:
    response = complete(server, **body)
    assert response.status_code == 400
    assert response.json()["error"]["param"].startswith(param)


@pytest.mark.parametrize(
    ("prompt", "param", "word"),
    [
        (["hi"] * 129, "prompt", "at most 128"),
        ([[1]] * 129, "prompt", "at most 128"),
        (["hi", ""], "prompt[1]", "at least one token"),
        (["hi", 5], "prompt[1]", "string"),
        ([1, "hi"], "prompt[1]", "integer"),
        ([[1], [99999]], "prompt[1]", "99999"),
        (["hi", "a" * 9000], "prompt[1]", "tokens"),
        ([5.5], "prompt", "at most 128"),
        ("", "prompt", "at least one token"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_of_several_prompts_the_one_that_is_wrong_is_named_and_nothing_else(
    server: LiveServer, prompt: Any, param: str, word: str
) -> None:
    error = complete(server, prompt=prompt).json()["error"]
    assert error["param"] == param
    assert word in error["message"]
    assert "message" not in error["message"]


# Tokens.


def test_text_is_counted_as_it_is(server: LiveServer) -> None:
    answer = server.http.post("/v1/tokenize", json={"text": "The answer is 42."}).json()
    assert answer["count"] == len(answer["tokens"]) > 0
    assert answer["tokens"] == server.engine.loaded.tokenizer.encode("The answer is 42.")
    assert server.http.post("/v1/tokenize", json={"text": ""}).json()["count"] == 0


def test_messages_and_tools_are_counted_as_a_chat_would_count_them() -> None:
    with served(fake_that_answers(lambda _: "Hi.")) as server:
        body = {"messages": [{"role": "user", "content": "Hi"}], "tools": [WEATHER, "calculate"]}
        counted = server.http.post("/v1/tokenize", json=body).json()
        assert counted["count"] == server.chat(**body).json()["usage"]["prompt_tokens"]
        assert counted["context_length"] == 4096


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "text"),
        ({"text": "a", "messages": [{"role": "user", "content": "b"}]}, "text"),
        ({"messages": [{"role": "user", "content": "b"}], "tools": [WEATHER, WEATHER]}, "tools[1].function.name"),
        ({"text": "a", "other": 1}, "other"),
        ({"text": "a", "tools": [WEATHER]}, "tools"),
        ({"text": "a", "tools": []}, "tools"),
        ({"text": "a", "tool_choice": "none"}, "tool_choice"),
    ],
    ids=str,
)
def test_a_mistake_in_what_is_to_be_counted_is_named(server: LiveServer, body: dict[str, Any], param: str) -> None:
    response = server.http.post("/v1/tokenize", json=body)
    assert (response.status_code, response.json()["error"]["param"]) == (400, param)
