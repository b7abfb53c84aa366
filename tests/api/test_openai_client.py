"""The official `openai` package takes the server for the real thing."""

import asyncio
import json
from collections.abc import Iterator

import openai
import pytest
from openai import pydantic_function_tool
from pydantic import BaseModel, Field

from tests.api.servers import MODEL, WEATHER, LiveServer, call_text, custom_tool, fake_that_answers, served

USER = {"role": "user", "content": "What is the weather in Paris?"}
CALL = call_text("get_weather", '{"city": "Paris", "days": 3}')
ANSWER = "It rains in Paris. ☔"


def forecast(prompt: str) -> str:
    if '"name": "get_weather"' not in prompt:
        return '{"city": "Rome", "degrees": 21}' if "JSON" in prompt else "Hello there."
    return ANSWER if "rain" in prompt else CALL


@pytest.fixture(scope="module")
def server() -> Iterator[LiveServer]:
    with served(fake_that_answers(forecast)) as server:
        yield server


@pytest.fixture
def client(server: LiveServer) -> Iterator[openai.OpenAI]:
    with server.client() as client:
        yield client


def test_a_text_is_answered(client: openai.OpenAI) -> None:
    completion = client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "Hi"}])
    choice = completion.choices[0]
    assert (choice.message.content, choice.message.role, choice.finish_reason) == ("Hello there.", "assistant", "stop")
    assert choice.message.tool_calls is None
    assert completion.object == "chat.completion"
    assert completion.usage is not None
    assert completion.usage.total_tokens == completion.usage.prompt_tokens + completion.usage.completion_tokens
    assert completion.system_fingerprint is not None
    assert completion._request_id is not None


def test_the_round_trip_from_a_question_over_a_call_to_the_answer(client: openai.OpenAI) -> None:
    messages = [USER]
    first = client.chat.completions.create(model=MODEL, messages=messages, tools=[WEATHER])
    assert first.choices[0].finish_reason == "tool_calls"
    assert first.choices[0].message.content is None
    call = first.choices[0].message.tool_calls[0]
    assert (call.type, call.function.name) == ("function", "get_weather")
    assert json.loads(call.function.arguments) == {"city": "Paris", "days": 3}

    messages += [first.choices[0].message, {"role": "tool", "tool_call_id": call.id, "content": "rain"}]
    second = client.chat.completions.create(model=MODEL, messages=messages, tools=[WEATHER])
    assert second.choices[0].message.content == ANSWER
    assert second.choices[0].finish_reason == "stop"


def test_a_stream_has_the_text_in_pieces(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(
        model=MODEL, messages=[USER, {"role": "user", "content": "rain"}], tools=[WEATHER], stream=True
    )
    chunks = list(stream)
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == ANSWER
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None] * (len(chunks) - 1) + ["stop"]


def test_the_stream_helper_puts_a_call_together(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(
        model=MODEL, messages=[USER], tools=[WEATHER], stream_options={"include_usage": True}
    ) as stream:
        events = [event.type for event in stream]
        completion = stream.get_final_completion()
    assert "tool_calls.function.arguments.delta" in events
    call = completion.choices[0].message.tool_calls[0]
    assert json.loads(call.function.arguments) == {"city": "Paris", "days": 3}
    assert completion.usage is not None
    assert completion.choices[0].finish_reason == "tool_calls"


def test_the_async_client_streams_many_answers_at_once(server: LiveServer) -> None:
    async def one(client: openai.AsyncOpenAI) -> str:
        stream = await client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": "Hi"}], stream=True
        )
        return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    async def many() -> list[str]:
        async with server.async_client() as client:
            return await asyncio.gather(*(one(client) for _ in range(8)))

    assert asyncio.run(many()) == ["Hello there."] * 8


class Reading(BaseModel):
    """What a thermometer says."""

    city: str
    degrees: int = Field(ge=-90, le=60)


def test_a_custom_call_goes_back_with_its_result(client: openai.OpenAI) -> None:
    tool = custom_tool("get_weather", "Paris|Rome")
    messages = [USER]
    first = client.chat.completions.create(model=MODEL, messages=messages, tools=[tool], tool_choice="required")
    call = first.choices[0].message.tool_calls[0]
    assert (call.type, call.custom.name) == ("custom", "get_weather")
    assert call.custom.input in {"Paris", "Rome"}
    calls = first.choices[0].message.tool_calls
    messages += [
        first.choices[0].message,
        *({"role": "tool", "tool_call_id": each.id, "content": "rain"} for each in calls),
    ]
    second = client.chat.completions.create(model=MODEL, messages=messages, tools=[WEATHER])
    assert second.choices[0].message.content == ANSWER


def test_parse_returns_a_pydantic_model(client: openai.OpenAI) -> None:
    messages = [{"role": "user", "content": "Answer in JSON."}]
    completion = client.chat.completions.parse(model=MODEL, messages=messages, response_format=Reading)
    assert completion.choices[0].message.parsed == Reading(city="Rome", degrees=21)


class GetWeather(BaseModel):
    """The forecast."""

    city: str
    days: int


def test_parse_returns_a_tools_arguments_as_a_pydantic_model(client: openai.OpenAI) -> None:
    tool = pydantic_function_tool(GetWeather, name="get_weather")
    completion = client.chat.completions.parse(model=MODEL, messages=[USER], tools=[tool])
    parsed = completion.choices[0].message.tool_calls[0].function.parsed_arguments
    assert parsed == GetWeather(city="Paris", days=3)


def test_a_parsed_stream_returns_a_pydantic_model(client: openai.OpenAI) -> None:
    messages = [{"role": "user", "content": "Answer in JSON."}]
    with client.chat.completions.stream(model=MODEL, messages=messages, response_format=Reading) as stream:
        completion = stream.get_final_completion()
    assert completion.choices[0].message.parsed == Reading(city="Rome", degrees=21)


def test_old_completions_go_on_with_a_text(client: openai.OpenAI) -> None:
    completion = client.completions.create(model=MODEL, prompt="<|im_start|>assistant\nHello", max_tokens=20)
    assert completion.choices[0].text == " there."
    stream = client.completions.create(model=MODEL, prompt="<|im_start|>assistant\nHello", max_tokens=20, stream=True)
    assert "".join(chunk.choices[0].text for chunk in stream) == " there."


def test_models_are_listed_and_told(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == [MODEL]
    assert client.models.retrieve(MODEL).owned_by == "toolmask"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("other")


def test_options_beyond_openais_go_under_one_key(client: openai.OpenAI) -> None:
    messages = [{"role": "user", "content": "Yes or no?"}]
    completion = client.chat.completions.create(
        model=MODEL, messages=messages, extra_body={"toolmask": {"choice": ["yes", "no"]}}
    )
    assert completion.choices[0].message.content in {"yes", "no"}
    assert completion.model_extra["toolmask"]["forward_passes"] >= 1


def test_errors_have_the_packages_own_classes(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as unknown:
        client.chat.completions.create(model="other", messages=[USER])
    assert unknown.value.code == "model_not_found"
    bad = {
        "type": "function",
        "function": {"name": "f", "parameters": {"type": "object", "properties": {"a": {"type": 5}}}},
    }
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model=MODEL, messages=[USER], tools=[WEATHER, bad], stream=True)
    assert refused.value.param.startswith("tools[1].function.parameters.properties.a")
