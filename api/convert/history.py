"""Calls and their results in the conversation that a client sends: each result has its call, each call its result.

As OpenAI's API has it. Chat templates show results in the order in which they come, most of them without an id, so a
result that is out of place would be shown as another call's.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from api.convert.errors import WireError
from api.schemas import messages as chat
from api.schemas import response_items as flat

MAX_NAMED_IDS = 4

Result = flat.FunctionCallOutput | flat.CustomCallOutput

# The item that answers a call, and the call that it answers.
CALL_OF = {"function_call_output": "function_call", "custom_tool_call_output": "custom_tool_call"}
RESULT_OF = {call: result for result, call in CALL_OF.items()}


@dataclass(frozen=True, slots=True)
class _Call:
    """One that waits for its result."""

    path: str  # of its id, or what lacks the result
    name: str


def check_messages(messages: Sequence[chat.Message]) -> None:
    """A call's results follow at once, in any order. Raises WireError."""
    waiting: dict[str, _Call] = {}  # by their ids
    for i, message in enumerate(messages):
        if isinstance(message, chat.ToolMessage):
            call = _take(waiting, message.tool_call_id, f"messages[{i}].tool_call_id")
            _check_name(message, call, f"messages[{i}].name")
            continue
        _nothing_waits(waiting, f"before messages[{i}], which has the role {message.role}")
        for j, written in enumerate(message.tool_calls or () if isinstance(message, chat.AssistantMessage) else ()):
            name = written.custom.name if isinstance(written, chat.CustomCall) else written.function.name
            _add(waiting, written.id, _Call(f"messages[{i}].tool_calls[{j}].id", name))
    _nothing_waits(waiting, "at the end")


def _check_name(message: chat.ToolMessage, call: _Call, path: str) -> None:
    if message.name is not None and message.name != call.name:
        text = f"{path} is {message.name!r:.80}; the call with this tool_call_id is of {call.name!r}"
        raise WireError(400, text, param=path)


def _nothing_waits(waiting: dict[str, _Call], where: str) -> None:
    for call_id, call in waiting.items():
        message = f"{call.path} is {call_id!r:.80}, and no result of that call follows; a message of the role tool"
        raise WireError(400, f"{message} with this tool_call_id is missing {where}", param=call.path)


def check_items(items: Sequence[flat.InputItem], path_of: Callable[[int], str], num_kept: int) -> None:
    """A call's result comes anywhere after it. num_kept: items of the response before. Raises WireError."""
    waiting: dict[str, dict[str, _Call]] = {kind: {} for kind in RESULT_OF}
    for position, item in enumerate(items):
        path = f"{path_of(position)}.call_id" if position >= num_kept else "input"
        if isinstance(item, Result):
            _take(waiting[CALL_OF[item.type]], item.call_id, path)
        elif not isinstance(item, flat.InputMessage | flat.InputReasoning):
            _add(waiting[item.type], item.call_id, _Call(path, item.name))
    for kind, calls in waiting.items():
        for call_id, call in calls.items():
            message = f"{call.path} lacks the result of the call {call_id!r:.80}; a {RESULT_OF[kind]} with this call_id"
            raise WireError(400, f"{message} must come after the call", param=call.path)


def _add(waiting: dict[str, _Call], call_id: str, call: _Call) -> None:
    if call_id in waiting:
        message = f"{call.path} is {call_id!r:.80}, as is {waiting[call_id].path}; calls that wait for results need"
        raise WireError(400, f"{message} ids that differ", param=call.path)
    waiting[call_id] = call


def _take(waiting: dict[str, _Call], call_id: str, path: str) -> _Call:
    if call_id not in waiting:
        message = f"{path} is {call_id!r:.80}; it must be the id of a call before it that has no result yet"
        raise WireError(400, f"{message}: {_named(waiting)}", param=path)
    return waiting.pop(call_id)


def _named(ids: Iterable[str]) -> str:
    given = list(ids)
    more = f", and {len(given) - MAX_NAMED_IDS} more" if len(given) > MAX_NAMED_IDS else ""
    return ", ".join(f"{each!r:.80}" for each in given[:MAX_NAMED_IDS]) + more if given else "there is none"
