"""A chat request as the engine's Request, and the way back for the paths that its errors name."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from api.convert.decisions import DECISION_RULES, to_decision_options, to_tool_choice_by
from api.convert.errors import WireError
from api.convert.history import check_messages
from api.convert.paths import Paths, from_rules, inside
from api.convert.sampling import EXTENSION_RULES, schema_grammar, to_grammar, to_sampling, to_stop
from api.schemas import chat, messages, tools
from api.schemas.common import ChatToolmaskOptions, PromptOptions
from engine.tool_display import ToolDisplay, ToolOrder, ToolPlace, ToolStyle
from engine.types import CustomTool, Grammar, Message, Request, Role, Tool, ToolCall, ToolChoice, ToolChoiceMode

WireMessages = Sequence[messages.Message]
WireTools = Sequence[tools.RequestTool]
WireToolChoice = tools.ToolChoice | None
ServerTools = Mapping[str, Tool]  # by name: those that a request may name


@dataclass(frozen=True, slots=True)
class Prompted:
    """The part of a request that decides its prompt."""

    messages: WireMessages
    tools: WireTools
    tool_choice: WireToolChoice
    template_options: Mapping[str, Any]
    options: PromptOptions


def to_request(body: chat.ChatRequest, server_tools: ServerTools) -> Request:
    """The engine's form. Raises WireError, or RequestError whose path `paths_of` translates."""
    extension = body.toolmask or ChatToolmaskOptions()
    response = _response(body)
    return Request(
        messages=to_messages(body.messages),
        tools=to_tools(body.tools or (), server_tools),
        tool_choice=to_tool_choice(body.tool_choice, body.tools or ()),
        parallel_tool_calls=body.parallel_tool_calls is not False,
        open_objects=extension.open_objects is True,
        lenient=extension.lenient is True,
        strict_formats=extension.strict_formats is True,
        response=None if response is None else response[0],
        sampling=to_sampling(body, _top_logprobs(body)),
        stop=to_stop(body.stop),
        max_tokens=_max_tokens(body),
        reasoning_budget=extension.reasoning_budget,
        decision=to_decision_options(extension),
        tool_choice_by=to_tool_choice_by(extension),
        optional_bias=extension.optional_bias,
        template_options=template_options(extension, body.reasoning_effort, "reasoning_effort"),
        tool_display=to_tool_display(extension),
        tool_retrieval=extension.tool_retrieval,
    )


def must_call(body: chat.ChatRequest) -> bool:
    """Whether the answer must have a call. Raises WireError, as to_request does."""
    return to_tool_choice(body.tool_choice, body.tools or ()).mode is ToolChoiceMode.REQUIRED


def to_prompt_request(prompted: Prompted, server_tools: ServerTools) -> Request:
    """A request that is good for its prompt only."""
    return Request(
        messages=to_messages(prompted.messages),
        tools=to_tools(prompted.tools, server_tools),
        tool_choice=to_tool_choice(prompted.tool_choice, prompted.tools),
        template_options=prompted.template_options,
        tool_display=to_tool_display(prompted.options),
        tool_retrieval=prompted.options.tool_retrieval,
    )


def paths_of(body: chat.ChatRequest) -> Paths:
    """How the engine's paths into this request read in the client's JSON."""
    response = _response(body)
    rules = [("response", response[1])] if response else []
    if body.max_tokens is None:
        rules.append(("max_tokens", "max_completion_tokens"))
    if isinstance(body.stop, str):
        rules.append(("stop[0]", "stop"))
    if body.tools is None:
        rules.append(("tools.*", "tool_execution"))  # it offers all of the server's
    rules += [
        *template_rules(body.reasoning_effort, "reasoning_effort"),
        *((f"messages[{i}].reasoning", f"messages[{i}].reasoning_content") for i in range(len(body.messages))),
    ]
    return from_rules([*rules, *EXTENSION_RULES, *DECISION_RULES, *prompt_rules(body.messages, body.tools or ())])


def prompt_rules(wire_messages: WireMessages, wire_tools: WireTools) -> Iterable[tuple[str, str]]:
    """The rules for messages and tools."""
    for i, tool in enumerate(wire_tools):
        yield from _tool_rules(f"tools[{i}]", tool)
    for i, message in enumerate(wire_messages):
        calls = message.tool_calls or [] if isinstance(message, messages.AssistantMessage) else []
        for j, call in enumerate(calls):
            path = f"messages[{i}].tool_calls[{j}]"
            yield f"{path}.name", f"{path}.{call.type}.name"
            yield f"{path}.arguments", f"{path}.{'custom.input' if call.type == 'custom' else 'function.arguments'}"


def _tool_rules(path: str, tool: tools.RequestTool) -> Iterable[tuple[str, str]]:
    if isinstance(tool, str):
        yield f"{path}.*", path
        return
    if isinstance(tool, tools.CustomTool):
        yield f"{path}.format", f"{path}.custom.format.grammar.definition"
    for field in ("name", "description", "parameters", "strict"):
        yield f"{path}.{field}", f"{path}.{tool.type}.{field}"


# Messages.


def to_messages(wire: WireMessages) -> tuple[Message, ...]:
    """Each message in the engine's form. Raises RequestError, naming the message, or WireError for a lone call."""
    converted = tuple(_message(message, f"messages[{i}]") for i, message in enumerate(wire))
    check_messages(wire)
    return converted


def _message(message: messages.Message, path: str) -> Message:
    content = None if message.content is None else _text(message.content)
    calls: tuple[ToolCall, ...] = ()
    if isinstance(message, messages.AssistantMessage):
        calls = tuple(_call(call, f"{path}.tool_calls[{j}]") for j, call in enumerate(message.tool_calls or ()))
    reasoning = message.reasoning_content if isinstance(message, messages.AssistantMessage) else None
    if reasoning is not None and content is None and not calls:
        content = ""  # a turn that ended in its reasoning
    answered = message.tool_call_id if isinstance(message, messages.ToolMessage) else None
    with inside(path):
        return Message(Role(message.role), content, calls, answered, reasoning)


def _text(content: messages.Content) -> str:
    return content if isinstance(content, str) else "".join(part.text for part in content)


def _call(call: messages.AnyCall, path: str) -> ToolCall:
    with inside(path):
        if isinstance(call, messages.CustomCall):
            return ToolCall(call.id, call.custom.name, call.custom.input, custom=True)
        return ToolCall(call.id, call.function.name, call.function.arguments)


# Tools.


def to_tools(wire: Iterable[tools.RequestTool], server_tools: ServerTools) -> tuple[Tool | CustomTool, ...]:
    """Each tool in the engine's form. Raises RequestError, or WireError for a name that the server does not have."""
    return tuple(_tool(tool, f"tools[{i}]", server_tools) for i, tool in enumerate(wire))


def _tool(tool: tools.RequestTool, path: str, server_tools: ServerTools) -> Tool | CustomTool:
    if isinstance(tool, str):
        if tool not in server_tools:
            known = ", ".join(server_tools) or "none"
            raise WireError(400, f"{path} names the tool {tool!r:.80}; the server has {known}", param=path)
        return server_tools[tool]
    with inside(path):
        if isinstance(tool, tools.CustomTool):
            return CustomTool(tool.custom.name, tool.custom.description or "", _format(tool.custom.format))
        function, strict = tool.function, tool.function.strict is True
        return Tool(function.name, function.description or "", function.parameters, strict=strict)


def _format(wire: tools.TextFormat | tools.GrammarFormat | None) -> Grammar | None:
    if not isinstance(wire, tools.GrammarFormat):
        return None
    return (Grammar.regex if wire.grammar.syntax == "regex" else Grammar.lark)(wire.grammar.definition)


def to_tool_choice(wire: WireToolChoice, offered: WireTools) -> ToolChoice:
    """Which tools may, or must, be called. Raises WireError where a tool of the other type has the name."""
    if wire is None or isinstance(wire, str):
        return ToolChoice(ToolChoiceMode(wire or "auto"))
    if isinstance(wire, tools.AllowedToolsChoice):
        allowed = wire.allowed_tools
        names = tuple(_chosen(tool, offered) for tool in allowed.tools)
        return ToolChoice(ToolChoiceMode(allowed.mode), allowed=names)
    return ToolChoice.named(_chosen(wire, offered))


def _chosen(choice: tools.NamedTool, offered: WireTools) -> str:
    name = choice.custom.name if isinstance(choice, tools.NamedCustom) else choice.function.name
    for tool in offered:
        custom = isinstance(tool, tools.CustomTool)
        if _name(tool) == name and custom != isinstance(choice, tools.NamedCustom):
            kind = "custom" if custom else "function"
            raise WireError(400, f"tool_choice names {name!r} as {choice.type}; it is a {kind}", param="tool_choice")
    return name


def _name(tool: tools.RequestTool) -> str:
    if isinstance(tool, str):
        return tool
    return tool.custom.name if isinstance(tool, tools.CustomTool) else tool.function.name


# The rest.


def _response(body: chat.ChatRequest) -> tuple[Grammar, str] | None:
    """What binds the text, and the path of the option that said so."""
    bound = to_grammar(body.toolmask)
    wire = body.response_format
    if wire is None or wire.type == "text":
        return bound
    if bound is not None:
        raise WireError(400, f"{bound[1]} stands beside a response_format; the text can follow one", param=bound[1])
    if wire.type == "json_object":
        return Grammar.json_object(), "response_format"
    schema = wire.json_schema.schema_
    path = "response_format.json_schema.schema"
    return Grammar.json_object() if schema is None else schema_grammar(schema, path), path


def _max_tokens(body: chat.ChatRequest) -> int | None:
    old, new = body.max_tokens, body.max_completion_tokens
    if old is not None and new is not None and old != new:
        message = f"max_tokens is {old} and max_completion_tokens {new}; they mean the same, so give one"
        raise WireError(400, message, param="max_tokens")
    return new if old is None else old


def to_tool_display(options: PromptOptions) -> ToolDisplay | None:
    """How tools are shown, where the request says anything of it."""
    wire = options.tool_display
    if wire is None:
        return None
    default = ToolDisplay()
    return ToolDisplay(
        style=default.style if wire.style is None else ToolStyle(wire.style),
        example=default.example if wire.example is None else wire.example,
        order=default.order if wire.order is None else ToolOrder(wire.order),
        place=default.place if wire.place is None else ToolPlace(wire.place),
    )


def template_options(extension: PromptOptions, effort: str | None, path: str) -> dict[str, Any]:
    """What the chat template is given. path: of the effort. Raises WireError where that stands in both."""
    options = dict(extension.chat_template_kwargs or {})
    if effort is not None:
        if "reasoning_effort" in options:
            message = f"{path} stands here, and reasoning_effort in toolmask.chat_template_kwargs; give it once"
            raise WireError(400, message, param=path)
        options["reasoning_effort"] = effort
    return options


def template_rules(effort: str | None, path: str) -> Iterable[tuple[str, str]]:
    """The rules for what `template_options` gives."""
    if effort is not None:
        yield "template_options.reasoning_effort", path
    yield "template_options", "toolmask.chat_template_kwargs"
    for name in ("reasoning_budget", "tool_display", "tool_retrieval"):
        yield name, f"toolmask.{name}"


def _top_logprobs(body: chat.ChatRequest) -> int | None:
    if body.top_logprobs is not None and not body.logprobs:
        raise WireError(400, "top_logprobs needs logprobs to be true", param="top_logprobs")
    return body.top_logprobs or 0 if body.logprobs else None
