"""Model and tools in turn until there is an answer, bounded in rounds."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from engine.checks import is_integer, shown
from engine.errors import ConfigError
from engine.events import Completion
from engine.requests import AnyMessage, AnyTool, AnyToolChoice, to_messages
from engine.tools.registry import ToolRegistry, ToolResult
from engine.types import Message, Role, SamplingParams, ToolCall


@dataclass(frozen=True, slots=True)
class ToolStep:
    """One call that the model made, and what came of it."""

    round: int  # 0 for the first
    call: ToolCall
    result: ToolResult


@dataclass(frozen=True, slots=True)
class AgentRun:
    """A finished conversation."""

    answer: Completion  # the last turn: text
    steps: tuple[ToolStep, ...]
    messages: tuple[Message, ...]  # the whole conversation, the answer included


class Chat(Protocol):
    """What answers one turn: an Engine, or whatever watches one."""

    def chat(
        self,
        messages: Iterable[AnyMessage],
        *,
        tools: Iterable[AnyTool],
        tool_choice: AnyToolChoice,
        sampling: SamplingParams | None,
        max_tokens: int | None,
    ) -> Completion:
        """The whole answer; see Engine.chat."""


def run_agent(
    engine: Chat,
    messages: Iterable[AnyMessage],
    tools: ToolRegistry,
    *,
    tool_choice: AnyToolChoice = "auto",
    max_rounds: int = 4,
    sampling: SamplingParams | None = None,
    max_tokens: int | None = None,
) -> AgentRun:
    """Let the model call tools and read their results until it answers in text.

    tool_choice holds for the first round; later ones are "auto". After max_rounds rounds with calls the model must
    answer in text. max_tokens bounds each turn. Raises what Engine.chat raises; failing tools are shown to the model.
    """
    if not is_integer(max_rounds) or max_rounds < 1:
        raise ConfigError(f"max_rounds is {shown(max_rounds)}; it must be an integer, 1 or more")
    conversation = list(to_messages(messages))
    steps: list[ToolStep] = []
    for number in range(max_rounds + 1):
        answer = engine.chat(
            conversation,
            tools=tools.definitions,
            tool_choice="none" if number == max_rounds else tool_choice,
            sampling=sampling,
            max_tokens=max_tokens,
        )
        conversation.append(answer.message())
        if not answer.tool_calls:
            break
        steps += (
            new := [ToolStep(number, call, tools.execute(call.name, call.arguments)) for call in answer.tool_calls]
        )
        conversation += [_result_message(step) for step in new]
        tool_choice = "auto"
    return AgentRun(answer, tuple(steps), tuple(conversation))


def _result_message(step: ToolStep) -> Message:
    content = json.dumps(step.result, ensure_ascii=False)
    return Message(Role.TOOL, content, tool_call_id=step.call.id)
