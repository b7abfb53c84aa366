"""A real server process with the embedded model, and the official client."""

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
        assert process.wait(30) in (0, -signal.SIGTERM)


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
