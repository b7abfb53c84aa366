"""A real server process with the embedded model, and the official client."""

import asyncio
import contextlib
import json
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Any, Literal

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


@contextlib.asynccontextmanager
async def asynchronous(client: openai.OpenAI) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=str(client.base_url), api_key="sk-1", max_retries=0) as other:
        yield other


async def _written(client: openai.AsyncOpenAI, *, stream: bool) -> str:
    body = {"model": MODEL, "messages": [QUESTION], "max_tokens": 12}
    if not stream:
        return (await client.chat.completions.create(**body)).choices[0].message.content or ""
    chunks = await client.chat.completions.create(**body, stream=True)
    return "".join([chunk.choices[0].delta.content or "" async for chunk in chunks])


def test_the_async_client_streams_what_it_gets_whole(client: openai.OpenAI) -> None:
    async def both() -> tuple[str, str]:
        async with asynchronous(client) as other:
            return tuple(await asyncio.gather(_written(other, stream=False), _written(other, stream=True)))

    whole, streamed = asyncio.run(both())
    assert whole
    assert whole == streamed


class Order(BaseModel):
    """What the customer wants, in few tokens."""

    drink: Literal["coffee", "tea"]
    cups: Literal[1, 2, 3]


ASKED = "Two cups of tea, please."
ORDER_TOOL: Any = {"type": "function", "name": "order", "parameters": Order.model_json_schema()}
ONE_CALL: Any = {"tool_choice": "required", "parallel_tool_calls": False}


def test_the_async_client_parses_answers_and_calls(client: openai.OpenAI) -> None:
    async def parsed() -> tuple[Any, Any]:
        async with asynchronous(client) as other:
            body: Any = {"model": MODEL, "messages": [{"role": "user", "content": ASKED}], "max_tokens": 64}
            tool = openai.pydantic_function_tool(Order, name="order")
            return await asyncio.gather(
                other.chat.completions.parse(**body, response_format=Order),
                other.chat.completions.parse(**body, tools=[tool], **ONE_CALL),
            )

    answer, called = asyncio.run(parsed())
    assert isinstance(answer.choices[0].message.parsed, Order)
    (call,) = called.choices[0].message.tool_calls
    assert isinstance(call.function.parsed_arguments, Order)


def test_the_async_client_gets_responses_whole_streamed_and_parsed(client: openai.OpenAI) -> None:
    async def responses() -> tuple[Any, Any, list[Any]]:
        async with asynchronous(client) as other:
            body: Any = {"model": MODEL, "max_output_tokens": 10, "input": "Say hello."}
            whole = await other.responses.create(**body)
            parsed = await other.responses.parse(
                model=MODEL, input=ASKED, previous_response_id=whole.id, text_format=Order, max_output_tokens=64
            )
            events = [event async for event in await other.responses.create(**body, stream=True)]
            return whole, parsed, events

    whole, parsed, events = asyncio.run(responses())
    assert isinstance(parsed.output_parsed, Order)
    written = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert written == whole.output_text == events[-1].response.output_text != ""


def test_a_streamed_response_adds_up_to_a_call_and_to_a_model(client: openai.OpenAI) -> None:
    body: Any = {"model": MODEL, "input": ASKED, "max_output_tokens": 64}
    with client.responses.stream(**body, tools=[ORDER_TOOL], **ONE_CALL) as stream:
        events = list(stream)
        (call,) = stream.get_final_response().output
    written = "".join(event.delta for event in events if event.type == "response.function_call_arguments.delta")
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert written == call.arguments
    assert isinstance(Order.model_validate_json(written), Order)
    with client.responses.stream(**body, text_format=Order) as stream:
        assert isinstance(stream.get_final_response().output_parsed, Order)


def test_a_custom_tool_is_called_with_what_its_pattern_allows_and_answered(client: openai.OpenAI) -> None:
    pattern = "SELECT (name|price) FROM drinks"
    grammar = {"syntax": "regex", "definition": pattern}
    tool: Any = {"type": "custom", "custom": {"name": "sql", "format": {"type": "grammar", "grammar": grammar}}}
    body: Any = {"model": MODEL, "tools": [tool], "max_tokens": 48}
    messages: list[Any] = [{"role": "user", "content": "What do drinks cost?"}]
    message = client.chat.completions.create(messages=messages, **body, **ONE_CALL).choices[0].message
    (call,) = message.tool_calls
    assert (call.type, call.custom.name) == ("custom", "sql")
    assert re.fullmatch(pattern, call.custom.input)
    result = {"role": "tool", "tool_call_id": call.id, "content": "2"}
    body["max_tokens"] = 6
    last = client.chat.completions.create(messages=[*messages, message, result], tool_choice="none", **body)
    assert last.choices[0].message.content


def test_a_custom_tool_of_a_response_is_streamed(client: openai.OpenAI) -> None:
    grammar = {"type": "grammar", "syntax": "lark", "definition": 'start: "SELECT " ("name" | "price")'}
    tool: Any = {"type": "custom", "name": "sql", "format": grammar}
    body: Any = {"model": MODEL, "input": "What do drinks cost?", "tools": [tool], "max_output_tokens": 48, **ONE_CALL}
    events = list(client.responses.create(**body, stream=True))
    (call,) = events[-1].response.output
    written = "".join(event.delta for event in events if event.type == "response.custom_tool_call_input.delta")
    assert written == call.input in {"SELECT name", "SELECT price"}
