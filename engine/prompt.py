"""A request as the model's prompt: by its own chat template where that knows tools, by the ToolFormat where not."""

from collections.abc import Mapping
from typing import Any

from engine.checks import is_text, shown
from engine.errors import RequestError
from engine.grammars.example import example_arguments
from engine.grammars.tool_formats import ToolFormat, describe_tool, describe_tools
from engine.tokenizer import Tokenizer
from engine.types import CustomTool, Message, OfferedTool, Request, Role

WireMessage = dict[str, Any]


def render_prompt(request: Request, family: ToolFormat, tokenizer: Tokenizer) -> list[int]:
    """The prompt's token ids, up to where the assistant's turn begins. The same request gives the same ids."""
    return tokenizer.encode(render_text(request, family, tokenizer)) if request.prompt is None else list(request.prompt)


def render_text(request: Request, family: ToolFormat, tokenizer: Tokenizer) -> str:
    """The prompt's text. Raises RequestError where the chat template refuses the messages."""
    try:
        text = _render(request, family, tokenizer)
    except (RecursionError, ValueError):  # of Python's JSON parser: too deep, or an integer of thousands of digits
        message = "the messages' tool calls have arguments that are too deep, or have too long numbers, to be shown"
        raise RequestError(message, param="messages") from None
    if not is_text(text):
        message = "the messages' tool calls have arguments with half of a surrogate pair"
        raise RequestError(message, param="messages")
    return text


def _render(request: Request, family: ToolFormat, tokenizer: Tokenizer) -> str:
    _check_options(request, tokenizer)
    tools = request.callable_tools
    if family.template_shows_tools:
        messages = [_native_message(message, family) for message in request.messages]
        return tokenizer.render(messages, [describe_tool(tool) for tool in tools] or None, request.template_options)
    messages = [_plain_message(message, family) for message in request.messages]
    if tools:
        messages = _with_system_text(messages, instructions(family, tools))
    return tokenizer.render(messages, None, request.template_options)


def _check_options(request: Request, tokenizer: Tokenizer) -> None:
    for name in request.template_options:
        if name not in tokenizer.template_options:
            known = ", ".join(sorted(tokenizer.template_options)) or "none"
            message = f"template_options has {shown(name)}; this model's chat template reads {known}"
            raise RequestError(message, param=f"template_options.{name}" if is_text(name) else "template_options")


def instructions(family: ToolFormat, tools: tuple[OfferedTool, ...]) -> str:
    """What a model is told of the tools that its chat template cannot show."""
    first = tools[0]
    if isinstance(first, CustomTool):
        example = family.write_input(first.name, "...")
    else:
        example = family.write_call(first.name, example_arguments(first.parameters))
    return family.instructions.format(tools=describe_tools(tools, family.tool_style), example=example)


def _native_message(message: Message, family: ToolFormat) -> WireMessage:
    # Chat templates know functions only; calls of custom tools are text to them.
    custom = family.write_calls(tuple(call for call in message.tool_calls if call.custom))
    functions = [call for call in message.tool_calls if not call.custom]
    wire: WireMessage = {"role": _role(message), "content": (message.content or "") + custom}
    if functions:
        # As objects: templates print them as JSON themselves, and would quote a string once more.
        wire["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.parsed_arguments()}}
            for call in functions
        ]
    if message.reasoning is not None:
        wire["reasoning_content"] = message.reasoning
    if message.tool_call_id is not None:
        wire["tool_call_id"] = message.tool_call_id
    return wire


def _plain_message(message: Message, family: ToolFormat) -> WireMessage:
    if message.role is Role.TOOL:
        return {"role": "user", "content": f"{family.response_begin}{message.content or ''}{family.response_end}"}
    calls = family.write_calls(message.tool_calls)
    wire: WireMessage = {"role": _role(message), "content": (message.content or "") + calls}
    return wire if message.reasoning is None else {**wire, "reasoning_content": message.reasoning}


def _role(message: Message) -> str:
    # Chat templates know no developer; it took over the system role's place.
    return "system" if message.role is Role.DEVELOPER else message.role.value


def _with_system_text(messages: list[WireMessage], text: str) -> list[WireMessage]:
    if messages[0]["role"] == "system":
        first: Mapping[str, Any] = messages[0]
        return [{**first, "content": f"{first['content']}\n\n{text}"}, *messages[1:]]
    return [{"role": "system", "content": text}, *messages]
