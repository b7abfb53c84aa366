"""Requests of the engine's own types are checked too; and what is unusual but not wrong is answered."""

import pytest

from engine.engine import Engine
from engine.errors import RequestError
from engine.types import Message, Request, Role, SamplingParams, Tool, ToolCall
from tests.bad_input.asking import OTHER_TOOL, TOOL, USER, Options, answer_with, call


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"messages": [Message(Role.USER, "hi")]}, "messages"),  # a list could change while the request runs
        ({"messages": ()}, "messages"),
        ({"prompt": ()}, "prompt"),
        ({"prompt": ("hi",)}, "prompt"),
        ({"prompt": (True,)}, "prompt"),
        ({"prompt": (5,), "messages": (Message(Role.USER, "hi"),)}, "prompt"),
        ({"prompt": (10**9,)}, "prompt"),
        ({"prompt": (-1,)}, "prompt"),
        ({"prompt": (5,) * 5000}, "prompt"),
        ({"prompt": (5,), "stop_token_ids": (10**9,)}, "stop_token_ids"),
        ({"prompt": (5,), "stop_token_ids": (-1,)}, "stop_token_ids"),
        ({"prompt": (5,), "stop_token_ids": ("5",)}, "stop_token_ids"),
        ({"prompt": (5,), "stop_token_ids": 5}, "stop_token_ids"),
        ({"prompt": (5,), "tools": (TOOL,)}, "tools"),
        ({"prompt": (5,), "tool_choice": "auto"}, "tool_choice"),
        ({"prompt": (5,), "open_objects": 1}, "open_objects"),
        ({"prompt": (5,), "lenient": 1}, "lenient"),
        ({"prompt": (5,), "strict_formats": "yes"}, "strict_formats"),
        ({"prompt": (5,), "sampling": None}, "sampling"),
    ],
    ids=lambda value: value if isinstance(value, str) else f"{value!r:.60}",
)
def test_a_request_of_our_own_types_is_checked_too(engine: Engine, options: Options, param: str) -> None:
    with pytest.raises(RequestError) as caught:
        engine.submit(Request(**options))
    assert caught.value.param == param


@pytest.mark.parametrize(
    "options",
    [
        {"messages": (message for message in [USER])},
        {"messages": [{**USER, "content": ""}]},
        {"messages": [USER, {"role": "assistant", "content": ""}]},
        {"messages": [USER, answer_with(call()), {"role": "tool", "content": "sunny"}]},  # most templates know no ids
        {"messages": [USER, answer_with(call(arguments={"city": "Paris"}))]},
        {"messages": [USER, answer_with(call(name="a_tool_that_is_gone"))]},
        {"messages": [USER, answer_with(ToolCall("", "weather", "{}"))]},
        {"messages": [{"role": "developer", "content": "be brief"}, USER]},
        {"messages": [{**USER, "tool_calls": None, "tool_call_id": None}]},
        {"tools": []},
        {"tools": [OTHER_TOOL, {"type": "function", "name": "flat"}, Tool("ours")]},
        {"tools": [{**TOOL, "description": None, "parameters": None}]},
        {"tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": []}}},
        {"tools": [], "tool_choice": "none"},
        {"stop": "END"},
        {"stop": ["END", "STOP"]},
        {"sampling": SamplingParams(temperature=0, top_p=1, seed=2**63 - 1, top_logprobs=0)},
        {"sampling": SamplingParams(temperature=100, top_k=10**30, logit_bias={0: -100, 384: 100})},
        {"max_tokens": 1},
    ],
    ids=lambda options: f"{options!r:.80}",
)
def test_what_is_unusual_but_not_wrong_is_answered(engine: Engine, options: Options) -> None:
    answer = engine.chat(**{"messages": [USER], "tools": [TOOL], "max_tokens": 3, **options})
    assert answer.usage.completion_tokens <= 3
