"""A real server process with the embedded model, and the official client."""

import asyncio
import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator

import httpx
import openai
import pytest
from pydantic import BaseModel

pytestmark = pytest.mark.embedded

MODEL = "smollm2-135m"
QUESTION = {"role": "user", "content": "Calculate 15 * 23 + 47"}


@pytest.fixture(scope="module")
def client() -> Iterator[openai.OpenAI]:
    command = [sys.executable, "-m", "api.cli", "serve", "--model", MODEL, "--port", "0", "--api-key", "sk-1"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        assert process.stderr is not None
        url = next(found[0] for line in process.stderr if (found := re.search(r"http://127\.0\.0\.1:\d+", line)))
        # Returns once the model is loaded: by this, or by the load that the start began.
        headers = {"authorization": "Bearer sk-1"}
        httpx.post(f"{url}/v1/models/load", json={"model": MODEL}, headers=headers, timeout=120).raise_for_status()
        with openai.OpenAI(base_url=f"{url}/v1", api_key="sk-1", max_retries=0) as client:
            yield client
        process.send_signal(signal.SIGTERM)
        process.stderr.read()
        assert process.wait(30) == 0


def test_a_required_call_is_valid_and_streams_to_the_same(client: openai.OpenAI) -> None:
    body = {
        "model": MODEL,
        "messages": [QUESTION],
        "tool_choice": "required",
        "parallel_tool_calls": False,
        "max_tokens": 96,
        "extra_body": {"tools": ["calculate"]},
    }
    (call,) = client.chat.completions.create(**body).choices[0].message.tool_calls
    assert call.function.name == "calculate"
    assert set(json.loads(call.function.arguments)) == {"expression"}
    chunks = list(client.chat.completions.create(**body, stream=True))
    pieces = [each.function.arguments for chunk in chunks for each in chunk.choices[0].delta.tool_calls or ()]
    assert "".join(pieces) == call.function.arguments


class Sum(BaseModel):
    """A sum."""

    a: int
    b: int


def test_an_answer_is_parsed_into_a_pydantic_model(client: openai.OpenAI) -> None:
    messages = [{"role": "user", "content": 'Write {"a": 1, "b": 2}'}]
    completion = client.chat.completions.parse(model=MODEL, messages=messages, response_format=Sum, max_tokens=64)
    assert isinstance(completion.choices[0].message.parsed, Sum)


def test_a_response_is_parsed_and_gone_on_from(client: openai.OpenAI) -> None:
    tool = {"type": "function", "name": "add", "parameters": Sum.model_json_schema()}
    body = {"model": MODEL, "tools": [tool], "tool_choice": "required", "parallel_tool_calls": False}
    (call,) = client.responses.create(input="Add 1 and 2", max_output_tokens=96, **body).output
    assert call.status == "completed"
    Sum.model_validate_json(call.arguments)
    first = client.responses.parse(model=MODEL, input='Write {"a": 1, "b": 2}', text_format=Sum, max_output_tokens=64)
    assert isinstance(first.output_parsed, Sum)
    more = {"model": MODEL, "input": "Thanks", "previous_response_id": first.id, "max_output_tokens": 8}
    kinds = [event.type for event in client.responses.create(**more, stream=True)]
    assert kinds[-1] in {"response.completed", "response.incomplete"}


def test_a_result_goes_back_and_the_answer_is_text(client: openai.OpenAI) -> None:
    tools = [{"type": "function", "function": {"name": "add", "parameters": Sum.model_json_schema()}}]
    body = {"model": MODEL, "tools": tools, "parallel_tool_calls": False}
    first = client.chat.completions.create(messages=[QUESTION], tool_choice="required", max_tokens=96, **body)
    message = first.choices[0].message
    (call,) = message.tool_calls
    assert first.choices[0].finish_reason == "tool_calls"
    result = {"role": "tool", "tool_call_id": call.id, "content": "392"}
    last = client.chat.completions.create(
        messages=[QUESTION, message.model_dump(exclude_none=True), result], tool_choice="none", max_tokens=12, **body
    )
    assert last.choices[0].finish_reason in {"stop", "length"}
    assert last.choices[0].message.content
    assert last.choices[0].message.tool_calls is None


async def _written(client: openai.AsyncOpenAI, *, stream: bool) -> str:
    body = {"model": MODEL, "messages": [QUESTION], "max_tokens": 12}
    if not stream:
        return (await client.chat.completions.create(**body)).choices[0].message.content or ""
    chunks = await client.chat.completions.create(**body, stream=True)
    return "".join([chunk.choices[0].delta.content or "" async for chunk in chunks])


def test_the_async_client_streams_what_it_gets_whole(client: openai.OpenAI) -> None:
    async def both() -> tuple[str, str]:
        async with openai.AsyncOpenAI(base_url=str(client.base_url), api_key="sk-1", max_retries=0) as asynchronous:
            whole, streamed = await asyncio.gather(
                _written(asynchronous, stream=False), _written(asynchronous, stream=True)
            )
            return whole, streamed

    whole, streamed = asyncio.run(both())
    assert whole
    assert whole == streamed
