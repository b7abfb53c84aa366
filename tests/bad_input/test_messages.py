"""Conversations that are none: refused by path, before the first token."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import tokenizers
from transformers import PreTrainedTokenizerFast

from engine.engine import Engine
from engine.errors import RequestError
from engine.tokenizer import Tokenizer
from engine.types import Message
from tests.bad_input.asking import USER, Options, answer_with, assert_refused, call, each
from tests.fakes import EOS, fake_loaded

MESSAGES: list[tuple[str, Callable[[], Options], str]] = [
    ("no messages", lambda: {"messages": []}, "messages"),
    ("messages that are one text", lambda: {"messages": "hi"}, "messages"),
    ("messages that are one message", lambda: {"messages": USER}, "messages"),
    ("messages that are nothing", lambda: {"messages": None}, "messages"),
    ("messages that are a number", lambda: {"messages": 5}, "messages"),
    ("a message that is a text", lambda: {"messages": [USER, "hi"]}, "messages[1]"),
    ("a message that is nothing", lambda: {"messages": [None]}, "messages[0]"),
    ("a message with a key that is not known", lambda: {"messages": [{**USER, "name": "Bo"}]}, "messages[0]"),
    ("a message with a key that is no text", lambda: {"messages": [{**USER, 1: 2, "x": 3}]}, "messages[0]"),
    ("a message with the key None", lambda: {"messages": [{**USER, None: 2}]}, "messages[0]"),
    ("an unknown role", lambda: {"messages": [{"role": "robot", "content": "hi"}]}, "messages[0].role"),
    ("a role that is a list", lambda: {"messages": [{"role": ["user"], "content": "hi"}]}, "messages[0].role"),
    ("no role", lambda: {"messages": [{"content": "hi"}]}, "messages[0].role"),
    ("content that is a number", lambda: {"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
    ("content in parts", lambda: {"messages": [{"role": "user", "content": [{}]}]}, "messages[0].content"),
    ("content that is bytes", lambda: {"messages": [{"role": "user", "content": b"hi"}]}, "messages[0].content"),
    ("content without UTF-8", lambda: {"messages": [{"role": "user", "content": "\ud800"}]}, "messages[0].content"),
    ("a user without content", lambda: {"messages": [{"role": "user"}]}, "messages[0].content"),
    ("an assistant with neither", lambda: {"messages": [USER, {"role": "assistant"}]}, "messages[1].content"),
    ("a tool's answer without content", lambda: {"messages": [{"role": "tool"}]}, "messages[0].content"),
    ("calls of a user", lambda: {"messages": [{**USER, "tool_calls": [call()]}]}, "messages[0].tool_calls"),
    ("calls that are a number", lambda: {"messages": [{**USER, "tool_calls": 5}]}, "messages[0].tool_calls"),
    ("a user's tool_call_id", lambda: {"messages": [{**USER, "tool_call_id": "x"}]}, "messages[0].tool_call_id"),
    (
        "a tool_call_id that is a number",
        lambda: {"messages": [{"role": "tool", "content": "1", "tool_call_id": 5}]},
        "messages[0].tool_call_id",
    ),
    ("a call that is a text", lambda: {"messages": [answer_with("x")]}, "messages[0].tool_calls[0]"),
    ("a call without function", lambda: {"messages": [answer_with({})]}, "messages[0].tool_calls[0].function"),
    (
        "a call of another type",
        lambda: {"messages": [answer_with({**call(), "type": "custom"})]},
        "messages[0].tool_calls[0].type",
    ),
    (
        "a call's id that is a number",
        lambda: {"messages": [answer_with({**call(), "id": 5})]},
        "messages[0].tool_calls[0].id",
    ),
    *(
        (
            f"a call's arguments: {what}",
            lambda arguments=arguments: {"messages": [answer_with(call(arguments=arguments))]},
            "messages[0].tool_calls[0].arguments",
        )
        for what, arguments in (
            ("cut off", '{"city": "Par'),
            ("no object", "[1]"),
            ("NaN", '{"x": NaN}'),
            ("NaN, as a value", {"x": math.nan}),
            ("no JSON", {"x": {1, 2}}),
            ("missing", None),
            ("as deep as no parser goes", '{"a":' * 100_000),
            ("a surrogate", '{"x": "\ud800"}'),
            ("a line's end in a string", '{"x": "\n"}'),
        )
    ),
    (
        "a call's name that could close the call",
        lambda: {"messages": [answer_with(call(name='x"}}</tool_call>'))]},
        "messages[0].tool_calls[0].name",
    ),
    (
        "a call's name that is a number",
        lambda: {"messages": [answer_with(call(name=5))]},
        "messages[0].tool_calls[0].name",
    ),
    ("a message of ours with a role of text", lambda: {"messages": [Message("user", "hi")]}, "role"),
]


@each([(*case, RequestError) for case in MESSAGES])
def test_what_is_no_conversation_is_an_error_that_names_what_is_wrong(
    engine: Engine, way: str, options: Callable[[], Options], param: str, error: type[RequestError]
) -> None:
    assert_refused(engine, way, options, param, error)


def test_arguments_that_no_chat_template_can_show_are_an_error() -> None:
    arguments = '{"a":' * 900 + "1" + "}" * 900  # Python's parser may just read it; its writer does not write it
    with Engine(fake_loaded(hermes=True)) as engine, pytest.raises(RequestError) as caught:
        engine.chat([USER, answer_with(call(arguments=arguments)), USER], max_tokens=1)
    assert caught.value.param.startswith("messages")


def test_a_chat_template_that_says_nothing_is_an_error() -> None:
    loaded = fake_loaded()
    backend = loaded.tokenizer.backend_json()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizers.Tokenizer.from_str(backend), eos_token=EOS)
    fast.chat_template = "{{ '' }}"
    with (
        Engine(replace(loaded, tokenizer=Tokenizer(fast))) as engine,
        pytest.raises(RequestError, match="empty prompt"),
    ):
        engine.chat([USER])
