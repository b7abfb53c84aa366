"""What the tests of bad input ask, and what they must be told."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from engine.engine import Engine
from engine.errors import EngineError, RequestError
from tests.fakes import fake_model

USER = {"role": "user", "content": "hi"}
TOOL = {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}
OTHER_TOOL = {"type": "function", "function": {"name": "time"}}

Options = Mapping[str, Any]
Case = tuple[str, Callable[[], Options], str, type[RequestError]]  # what is wrong, how, the path to it, the error


def call(**function: object) -> dict[str, object]:
    return {"id": "call_0", "function": {"name": "weather", "arguments": "{}", **function}}


def answer_with(*calls: object) -> dict[str, object]:
    return {"role": "assistant", "tool_calls": list(calls)}


def each(cases: list[Case]) -> pytest.MarkDecorator:
    """One test a case, with its arguments `options`, `param` and `error`."""
    return pytest.mark.parametrize(
        ("options", "param", "error"), [case[1:] for case in cases], ids=[case[0] for case in cases]
    )


def assert_refused(
    engine: Engine, way: str, options: Callable[[], Options], param: str, error: type[RequestError]
) -> None:
    """It is this very error, names the path, can be read, and comes before the first token."""
    passes_before = fake_model(engine.loaded).num_forward_passes

    with pytest.raises(EngineError) as caught:
        getattr(engine, way)(**{"messages": [USER], "tools": [TOOL], **options()})

    assert isinstance(caught.value, RequestError)
    assert type(caught.value) is error
    assert caught.value.param == param
    assert len(str(caught.value)) < 500
    assert fake_model(engine.loaded).num_forward_passes == passes_before
