"""Sixteen streams at once, a quarter of which leave: all others are right, and nothing is left behind."""

import asyncio
import gc
import json
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from engine.sequence import Sequence
from tests.api.servers import (
    MODEL,
    TIMEOUT_S,
    LiveServer,
    added_up,
    busy,
    function_tool,
    is_idle,
    served,
    wait_until,
    without_call_ids,
)
from tests.fakes import FakeCache, Gate, fake_loaded, with_hook

NUM_STREAMS = 16
NOTE = function_tool("note", {"type": "object", "properties": {"text": {"type": "string", "maxLength": 9}}})
CHAT, RESPONSES = "/v1/chat/completions", "/v1/responses"


def asked(number: int) -> tuple[str, dict[str, Any]]:
    """One stream's path and body, without `stream`: chats and responses, with and without tools."""
    common: dict[str, Any] = {"model": MODEL, "temperature": 100}
    if number % 2:
        return RESPONSES, {**common, "input": "Hi", "max_output_tokens": 40, "toolmask": {"seed": number}}
    tools = [NOTE] if number % 4 else []
    return CHAT, {
        **common,
        "messages": [{"role": "user", "content": "Hi"}],
        "max_tokens": 40,
        "seed": number,
        "tools": tools,
    }


def leaves(number: int) -> bool:
    return number % 8 in (2, 5)  # a quarter, of each kind


def answer_of(path: str, whole: Any) -> Any:
    """What must be equal, streamed or not."""
    if path == CHAT:
        return without_call_ids(whole["choices"])
    return [[part["text"] for part in item["content"]] for item in whole["output"]], whole["usage"]


async def read(http: httpx.AsyncClient, number: int) -> Any:
    """The stream's answer; None where the client left in its middle."""
    path, body = asked(number)
    async with http.stream("POST", path, json={**body, "stream": True}) as response:
        assert response.status_code == 200
        events: list[Any] = []
        async for line in response.aiter_lines():
            if line.startswith("data: {"):
                events.append(json.loads(line[6:]))
            if leaves(number) and len(events) == 4:
                return None
    if path == CHAT:
        return without_call_ids(added_up(events))
    return answer_of(path, events[-1]["response"])


async def read_all(server: LiveServer, gate: Gate) -> list[Any]:
    """All streams at once: none gets a token before each has been submitted."""
    limits = httpx.Limits(max_connections=NUM_STREAMS)
    async with httpx.AsyncClient(base_url=server.url, timeout=TIMEOUT_S, limits=limits) as http:
        streams = [asyncio.create_task(read(http, number)) for number in range(NUM_STREAMS)]
        await asyncio.to_thread(wait_until, lambda: busy(server) == NUM_STREAMS)
        gate.open()
        return await asyncio.gather(*streams)


def alive_after_one_answer(server: LiveServer) -> Counter[str]:
    """What streams could leave behind. The decoding thread holds its last step until the next one, so there is one."""
    wait_until(lambda: is_idle(server))
    assert server.chat(max_tokens=1).status_code == 200
    wait_until(lambda: is_idle(server))
    gc.collect()
    kinds = Counter(type(each).__name__ for each in gc.get_objects() if isinstance(each, Sequence | FakeCache))
    kinds["threads"] = threading.active_count()
    return kinds


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.open()  # a test that failed must not keep the server from its end


def test_sixteen_streams_of_which_a_quarter_leaves_are_right_and_leave_nothing_behind(gate: Gate) -> None:
    with served(fake_loaded) as alone:
        paths = [asked(number)[0] for number in range(NUM_STREAMS)]
        wholes = [alone.http.post(path, json=asked(number)[1]) for number, path in enumerate(paths)]
    with served(lambda: with_hook(fake_loaded(), gate)) as server:
        gate.let_through(1)
        before = alive_after_one_answer(server)
        answers = asyncio.run(read_all(server, gate))
        assert alive_after_one_answer(server) == before
    assert [answer is None for answer in answers] == [leaves(number) for number in range(NUM_STREAMS)]
    assert sum(map(leaves, range(NUM_STREAMS))) == NUM_STREAMS // 4
    for path, whole, answer in zip(paths, wholes, answers, strict=True):
        assert answer is None or answer == answer_of(path, whole.json())
