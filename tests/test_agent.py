"""The agent: model and tools in turn until there is an answer, bounded in rounds."""

from collections.abc import Iterable

import pytest

from engine.agent import AgentRun, run_agent
from engine.engine import Engine
from engine.errors import ConfigError
from engine.events import Completion, Receipt, StopReason, Usage
from engine.requests import AnyMessage, AnyTool, AnyToolChoice, to_messages
from engine.tools import ToolRegistry, tool
from engine.types import Message, Role, SamplingParams, ToolCall
from tests.fakes import fake_that_writes

QUESTION = {"role": "user", "content": "What is 6 * 7?"}


@tool
def multiply(a: int, b: int) -> int:
    """Multiply two numbers."""
    return a * b


TOOLS = ToolRegistry([multiply])
CALL = ToolCall("call_1", "multiply", '{"a": 6, "b": 7}')
BAD_CALL = ToolCall("call_2", "multiply", '{"a": 6}')


def turn(text: str | None = None, *calls: ToolCall) -> Completion:
    return Completion(text, calls, StopReason.EOS, Usage(1, 1, 0, 1), 0, Receipt())


class Script:
    """A model that gives these turns, and keeps what it was shown."""

    def __init__(self, *turns: Completion) -> None:
        self._turns = list(turns)
        self.shown: list[tuple[Message, ...]] = []
        self.choices: list[AnyToolChoice] = []

    def chat(
        self,
        messages: Iterable[AnyMessage],
        *,
        tools: Iterable[AnyTool],
        tool_choice: AnyToolChoice,
        sampling: SamplingParams | None,
        max_tokens: int | None,
    ) -> Completion:
        assert tuple(tools) == TOOLS.definitions
        assert (sampling, max_tokens) == (None, None)
        self.shown.append(to_messages(messages))
        self.choices.append(tool_choice)
        return self._turns.pop(0)


def test_a_model_that_answers_at_once_calls_nothing() -> None:
    run = run_agent(Script(turn("42")), [QUESTION], TOOLS)
    assert (run.answer.text, run.steps) == ("42", ())
    assert [message.role for message in run.messages] == [Role.USER, Role.ASSISTANT]


def test_a_call_is_run_and_its_result_is_shown_to_the_model() -> None:
    script = Script(turn(None, CALL), turn("It is 42."))
    run = run_agent(script, [QUESTION], TOOLS)
    (step,) = run.steps
    assert (step.round, step.call, step.result) == (0, CALL, {"success": True, "result": 42})
    assert script.shown[1][-1] == Message(Role.TOOL, '{"success": true, "result": 42}', tool_call_id="call_1")
    assert run.answer.text == "It is 42."


def test_a_call_that_fails_is_shown_to_the_model_too() -> None:
    script = Script(turn(None, BAD_CALL), turn(None, CALL), turn("42"))
    run = run_agent(script, [QUESTION], TOOLS)
    assert [step.result["success"] for step in run.steps] == [False, True]
    assert [step.round for step in run.steps] == [0, 1]
    assert '"success": false' in (script.shown[1][-1].content or "")


def test_parallel_calls_are_all_run_in_one_round() -> None:
    run = run_agent(Script(turn(None, CALL, BAD_CALL), turn("42")), [QUESTION], TOOLS)
    assert [(step.round, step.call.id) for step in run.steps] == [(0, "call_1"), (0, "call_2")]


def test_after_the_last_round_the_model_must_answer_in_text() -> None:
    script = Script(*[turn(None, CALL)] * 2, turn("enough"))
    run = run_agent(script, [QUESTION], TOOLS, max_rounds=2)
    assert script.choices == ["auto", "auto", "none"]
    assert len(run.steps) == 2


def test_a_required_call_is_required_once() -> None:
    script = Script(turn(None, CALL), turn("42"))
    run_agent(script, [QUESTION], TOOLS, tool_choice="required")
    assert script.choices == ["required", "auto"]


@pytest.mark.parametrize("rounds", [0, -1, "2", True, 1.5, float("nan")])
def test_fewer_than_one_round_is_refused(rounds: object) -> None:
    with pytest.raises(ConfigError, match="max_rounds"):
        run_agent(Script(), [QUESTION], TOOLS, max_rounds=rounds)


def test_the_engine_itself_is_such_a_model() -> None:
    with Engine(
        fake_that_writes('<tool_call>\n{"name": "multiply", "arguments": {"a": 6, "b": 7}}\n</tool_call>')
    ) as engine:
        run: AgentRun = run_agent(engine, [QUESTION], TOOLS, max_rounds=1, max_tokens=80)
    assert [step.result for step in run.steps] == [{"success": True, "result": 42}]
    assert not run.answer.tool_calls
