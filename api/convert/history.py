"""Calls and their results in the conversation that a client sends: each result has its call, each call its result.

As OpenAI's API has it. Chat templates show results in the order in which they come, most of them without an id, so a
result that is out of place would be shown as another call's.
"""

from collections.abc import Callable, Iterable, Sequence

from api.convert.errors import WireError
from api.schemas import messages as chat
from api.schemas import response_items as flat

MAX_NAMED_IDS = 4

Result = flat.FunctionCallOutput | flat.CustomCallOutput

# The item that answers a call, and the call that it answers.
CALL_OF = {"function_call_output": "function_call", "custom_tool_call_output": "custom_tool_call"}
RESULT_OF = {call: result for result, call in CALL_OF.items()}


def check_messages(messages: Sequence[chat.Message]) -> None:
    """A call's results follow at once, in any order. Raises WireError."""
    waiting: dict[str, str] = {}  # calls without a result: their ids and where they stand
    for i, message in enumerate(messages):
        if isinstance(message, chat.ToolMessage):
            _take(waiting, message.tool_call_id, f"messages[{i}].tool_call_id")
            continue
        _nothing_waits(waiting, f"before messages[{i}], which has the role {message.role}")
        for j, call in enumerate(message.tool_calls or () if isinstance(message, chat.AssistantMessage) else ()):
            _add(waiting, call.id, f"messages[{i}].tool_calls[{j}].id")
    _nothing_waits(waiting, "at the end")


def _nothing_waits(waiting: dict[str, str], where: str) -> None:
    for call_id, path in waiting.items():
        message = (
            f"{path} is {call_id!r:.80}, and no result of that call follows; a message of the role tool with this "
        )
        raise WireError(400, f"{message}tool_call_id is missing {where}", param=path)


def check_items(items: Sequence[flat.InputItem], path_of: Callable[[int], str], num_kept: int) -> None:
    """A call's result comes anywhere after it. num_kept: items of the response before. Raises WireError."""
    waiting: dict[str, dict[str, str]] = {call: {} for call in RESULT_OF}
    for position, item in enumerate(items):
        path = f"{path_of(position)}.call_id" if position >= num_kept else "input"
        if isinstance(item, Result):
            _take(waiting[CALL_OF[item.type]], item.call_id, path)
        elif not isinstance(item, flat.InputMessage):
            _add(waiting[item.type], item.call_id, path)
    for kind, calls in waiting.items():
        for call_id, path in calls.items():
            message = f"{path} lacks the result of the call {call_id!r:.80}; a {RESULT_OF[kind]} with this call_id"
            raise WireError(400, f"{message} must come after the call", param=path)


def _add(waiting: dict[str, str], call_id: str, path: str) -> None:
    if call_id in waiting:
        message = (
            f"{path} is {call_id!r:.80}, as is {waiting[call_id]}; calls that wait for results need ids that differ"
        )
        raise WireError(400, message, param=path)
    waiting[call_id] = path


def _take(waiting: dict[str, str], call_id: str, path: str) -> None:
    if call_id not in waiting:
        message = f"{path} is {call_id!r:.80}; it must be the id of a call before it that has no result yet"
        raise WireError(400, f"{message}: {_named(waiting)}", param=path)
    del waiting[call_id]


def _named(ids: Iterable[str]) -> str:
    given = list(ids)
    more = f", and {len(given) - MAX_NAMED_IDS} more" if len(given) > MAX_NAMED_IDS else ""
    return ", ".join(f"{each!r:.80}" for each in given[:MAX_NAMED_IDS]) + more if given else "there is none"
