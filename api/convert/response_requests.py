"""A Responses request as the engine's Request, and the way back for the paths that its errors name."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from api.convert.decisions import DECISION_RULES, to_decision_options, to_tool_choice_by
from api.convert.errors import WireError
from api.convert.history import check_items
from api.convert.paths import Paths, from_rules, inside
from api.convert.requests import (
    ServerTools,
    template_options,
    template_rules,
    to_tool_choice,
    to_tool_display,
    to_tools,
)
from api.convert.sampling import EXTENSION_RULES, schema_grammar, to_grammar, to_sampling
from api.schemas import response_items as flat
from api.schemas import tools as nested
from api.schemas.common import SamplingOptions
from api.schemas.responses import JsonObjectFormat, JsonSchemaFormat, ResponseRequest, ResponseToolmaskOptions
from engine.types import Grammar, Message, Request, Role, ToolCall, ToolChoice, ToolChoiceMode

Items = Sequence[flat.InputItem]
EFFORT = "reasoning.effort"  # its path
AnyCall = flat.InputFunctionCall | flat.InputCustomCall


@dataclass(frozen=True, slots=True)
class Asked:
    """A request, with the conversation that it goes on with."""

    body: ResponseRequest
    history: Items = ()  # of the response before, its output included

    @property
    def new_items(self) -> Items:
        """The input, item by item."""
        given = self.body.input
        return [flat.InputMessage(role="user", content=given)] if isinstance(given, str) else given

    @property
    def items(self) -> Items:
        """The whole conversation without the instructions."""
        return [*self.history, *self.new_items]

    @property
    def must_call(self) -> bool:
        """Whether the answer must have a call. Raises WireError, as to_request does."""
        return _tool_choice(self.body).mode is ToolChoiceMode.REQUIRED

    def path_of(self, position: int) -> str:
        """Where the client wrote the item."""
        if position < len(self.history):
            return "previous_response_id"
        return "input" if isinstance(self.body.input, str) else f"input[{position - len(self.history)}]"


def to_request(asked: Asked, server_tools: ServerTools) -> Request:
    """The engine's form. Raises WireError, or RequestError whose path `paths_of` translates."""
    body, response = asked.body, _response(asked.body)
    extension = body.toolmask or ResponseToolmaskOptions()
    options = SamplingOptions(temperature=body.temperature, top_p=body.top_p, seed=extension.seed, toolmask=extension)
    return Request(
        messages=_messages(asked),
        tools=to_tools([_nested(tool) for tool in body.tools or ()], server_tools),
        tool_choice=_tool_choice(body),
        parallel_tool_calls=body.parallel_tool_calls is not False,
        open_objects=extension.open_objects is True,
        lenient=extension.lenient is True,
        strict_formats=extension.strict_formats is True,
        response=None if response is None else response[0],
        sampling=to_sampling(options, None),
        max_tokens=body.max_output_tokens,
        reasoning_budget=extension.reasoning_budget,
        decision=to_decision_options(extension),
        tool_choice_by=to_tool_choice_by(extension),
        optional_bias=extension.optional_bias,
        template_options=template_options(extension, _effort(body), EFFORT),
        tool_display=to_tool_display(extension),
        tool_retrieval=extension.tool_retrieval,
    )


def paths_of(asked: Asked) -> Paths:
    """How the engine's paths into this request read in the client's JSON."""
    response = _response(asked.body)
    rules = [] if response is None else [("response", response[1])]
    rules += [("max_tokens", "max_output_tokens"), ("seed", "toolmask.seed"), *EXTENSION_RULES, *DECISION_RULES]
    rules += template_rules(_effort(asked.body), EFFORT)
    for i, tool in enumerate(asked.body.tools or ()):
        if isinstance(tool, str):
            rules.append((f"tools[{i}].*", f"tools[{i}]"))
        if isinstance(tool, flat.FlatCustomTool):
            rules.append((f"tools[{i}].format", f"tools[{i}].format.definition"))
    rules += [(f"messages[{i}]", draft.path) for i, draft in enumerate(_drafts(asked))]
    return from_rules([*rules, ("messages", "input")])


# Items.


@dataclass(slots=True)
class _Draft:
    """A message of which more items may become part: reasoning, a text and the calls after it are one turn."""

    role: Role
    path: str  # of its text, or else of its first item
    content: str | None = None
    reasoning: str | None = None
    calls: list[tuple[str, AnyCall]] = field(default_factory=list)  # each with its path
    answered: str | None = None  # the call whose result this is

    @property
    def is_thought(self) -> bool:
        """Whether it is reasoning so far, and nothing else."""
        return self.reasoning is not None and self.content is None and not self.calls


def _drafts(asked: Asked) -> list[_Draft]:
    drafts: list[_Draft] = []
    if asked.body.instructions is not None:
        drafts.append(_Draft(Role.SYSTEM, "instructions", asked.body.instructions))
    for position, item in enumerate(asked.items):
        path = asked.path_of(position)
        if isinstance(item, flat.InputReasoning):
            reasoning = "".join(part.text for part in item.content)
            drafts.append(_Draft(Role.ASSISTANT, path, reasoning=reasoning))
        elif isinstance(item, flat.InputMessage):
            if item.role != "assistant" or not drafts or not drafts[-1].is_thought:
                drafts.append(_Draft(Role(item.role), path))
            drafts[-1].path, drafts[-1].content = path, _text(item.content)
        elif isinstance(item, flat.FunctionCallOutput | flat.CustomCallOutput):
            drafts.append(_Draft(Role.TOOL, path, _text(item.output), answered=item.call_id))
        else:
            if not drafts or drafts[-1].role is not Role.ASSISTANT:
                drafts.append(_Draft(Role.ASSISTANT, path))
            drafts[-1].calls.append((path, item))
    return drafts


def _messages(asked: Asked) -> tuple[Message, ...]:
    converted = tuple(_message(draft) for draft in _drafts(asked))
    check_items(asked.items, asked.path_of, len(asked.history))
    return converted


def _message(draft: _Draft) -> Message:
    calls = tuple(_call(path, item) for path, item in draft.calls)
    content = "" if draft.is_thought else draft.content  # a turn that ended in its reasoning
    with inside(draft.path):
        return Message(draft.role, content, calls, draft.answered, draft.reasoning)


def _call(path: str, item: AnyCall) -> ToolCall:
    with inside(path):
        if isinstance(item, flat.InputCustomCall):
            return ToolCall(item.call_id, item.name, item.input, custom=True)
        return ToolCall(item.call_id, item.name, item.arguments)


def _text(content: flat.ItemContent) -> str:
    return content if isinstance(content, str) else "".join(part.text for part in content)


# Tools: nested, as chats have them.


def _nested(tool: flat.FlatTool) -> nested.RequestTool:
    if isinstance(tool, str):
        return tool
    if isinstance(tool, flat.FlatFunctionTool):
        fields = tool.model_dump(exclude={"type"})
        return nested.FunctionTool(type="function", function=nested.FunctionDefinition(**fields))
    definition = nested.CustomDefinition(name=tool.name, description=tool.description, format=_format(tool.format))
    return nested.CustomTool(type="custom", custom=definition)


def _format(
    wire: nested.TextFormat | flat.FlatGrammarFormat | None,
) -> nested.TextFormat | nested.GrammarFormat | None:
    if not isinstance(wire, flat.FlatGrammarFormat):
        return wire
    grammar = nested.GrammarDefinition(syntax=wire.syntax, definition=wire.definition)
    return nested.GrammarFormat(type="grammar", grammar=grammar)


def _tool_choice(body: ResponseRequest) -> ToolChoice:
    offered = [_nested(tool) for tool in body.tools or ()]
    return to_tool_choice(_nested_choice(body.tool_choice), offered)


def _nested_choice(wire: flat.FlatToolChoice | None) -> nested.ToolChoice | None:
    if isinstance(wire, flat.FlatNamedTool):
        return _named(wire)
    if isinstance(wire, flat.FlatAllowedTools):
        allowed = nested.AllowedTools(mode=wire.mode, tools=[_named(tool) for tool in wire.tools])
        return nested.AllowedToolsChoice(type="allowed_tools", allowed_tools=allowed)
    return wire


def _named(tool: flat.FlatNamedTool) -> nested.NamedTool:
    named = nested.Named(name=tool.name)
    if tool.type == "custom":
        return nested.NamedCustom(type="custom", custom=named)
    return nested.NamedFunction(type="function", function=named)


def flat_tools(tools: Iterable[flat.FlatTool], server_tools: ServerTools) -> list[flat.FlatAnyTool]:
    """The offered tools, those of the server spelled out."""
    return [_spelled(server_tools[tool].name, server_tools) if isinstance(tool, str) else tool for tool in tools]


def _spelled(name: str, server_tools: ServerTools) -> flat.FlatFunctionTool:
    tool = server_tools[name]
    parameters = dict(tool.parameters) if tool.parameters else None
    return flat.FlatFunctionTool(type="function", name=name, description=tool.description, parameters=parameters)


# The rest.


def _effort(body: ResponseRequest) -> str | None:
    return None if body.reasoning is None else body.reasoning.effort


def _response(body: ResponseRequest) -> tuple[Grammar, str] | None:
    """What binds the text, and the path of the option that said so."""
    bound = to_grammar(body.toolmask)
    wire = None if body.text is None else body.text.format
    if not isinstance(wire, JsonObjectFormat | JsonSchemaFormat):
        return bound
    if bound is not None:
        raise WireError(400, f"{bound[1]} stands beside a text.format; the text can follow one", param=bound[1])
    if isinstance(wire, JsonObjectFormat):
        return Grammar.json_object(), "text.format"
    path = "text.format.schema"
    return schema_grammar(wire.schema_, path), path
