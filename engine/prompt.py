"""A request as the model's prompt: by its own chat template where that can, by the ToolFormat where it cannot.

Special tokens that a message's text spells stay text: each is parted by a character that no text has, and cut there.
"""

import itertools
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from engine.checks import is_text, shown
from engine.errors import RequestError
from engine.grammars.example import example_arguments
from engine.grammars.tool_descriptions import describe_tool, describe_tools
from engine.grammars.tool_format import ToolFormat
from engine.template_skills import TemplateSkills, WireMessage, add_response, history_id, skills_of, wire_calls
from engine.tokenizer import Tokenizer
from engine.tool_display import ToolDisplay, ToolPlace
from engine.types import CustomTool, Message, OfferedTool, Request, Role, Tool, ToolCall

# Characters that Unicode keeps for use inside of programs; the first one that no message has parts special tokens.
NONCHARACTERS = tuple(map(chr, range(0xFDD0, 0xFDF0)))
JSON_STRING = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)


def render_prompt(
    request: Request, family: ToolFormat, tokenizer: Tokenizer, skills: TemplateSkills | None = None
) -> list[int]:
    """The prompt's token ids, up to where the assistant's turn begins. The same request gives the same ids.

    skills: of the tokenizer's chat template with this family, where the caller has them already.
    """
    if request.prompt is not None:
        return list(request.prompt)
    return tokenizer.encode_parts(_Prompt(request, family, tokenizer, skills).parts())


def render_text(
    request: Request, family: ToolFormat, tokenizer: Tokenizer, skills: TemplateSkills | None = None
) -> str:
    """The prompt's text. Raises RequestError where the chat template refuses the messages."""
    return "".join(_Prompt(request, family, tokenizer, skills).parts())


def instructions(family: ToolFormat, tools: tuple[OfferedTool, ...], display: ToolDisplay | None = None) -> str:
    """What a model is told of the tools that its chat template cannot show. Without display, the family's own way."""
    first = tools[0]
    if isinstance(first, CustomTool):
        example = family.write_input(first.name, "...")
    else:
        example = family.write_call(first.name, example_arguments(first.parameters))
    words, style = (
        (family.instructions, family.tool_style) if display is None else (display.instructions, display.style)
    )
    return words.format(tools=describe_tools(tools, style), example=example, marker=family.marker.strip())


class _Prompt:
    """One request's prompt."""

    def __init__(
        self, request: Request, family: ToolFormat, tokenizer: Tokenizer, skills: TemplateSkills | None
    ) -> None:
        self._request = request
        self._family = family
        self._tokenizer = tokenizer
        self._skills = skills or skills_of(tokenizer, family)
        self._parted = _Parted(request, tokenizer)

    def parts(self) -> list[str]:
        """The text, cut inside of special tokens that a message spells. Raises RequestError."""
        try:
            text = self._text()
        except (RecursionError, ValueError):  # of Python's JSON parser: too deep, or an integer of thousands of digits
            message = "the messages' tool calls have arguments that are too deep, or have too long numbers, to be shown"
            raise RequestError(message, param="messages") from None
        if not is_text(text):
            message = "the messages' tool calls have arguments with half of a surrogate pair"
            raise RequestError(message, param="messages")
        return text.split(self._parted.by)

    def _text(self) -> str:
        request = self._request
        _check_options(request, self._tokenizer)
        messages = [self._parted.message(message) for message in request.messages]
        tools = tuple(map(self._parted.tool, request.callable_tools))
        wire = self._wire(messages)
        options = self._parted.value(request.template_options)
        if self._skills.shows_tools:
            _refuse_display(request)
            shown_tools = [describe_tool(tool) for tool in tools] or self._skills.no_tools
            return self._tokenizer.render(wire, shown_tools, options)
        if tools:
            place = ToolPlace.SYSTEM if request.tool_display is None else request.tool_display.place
            wire = _with_tools(wire, instructions(self._family, tools, request.tool_display), place)
        return self._tokenizer.render(wire, self._skills.no_tools, options)

    def _wire(self, messages: Iterable[Message]) -> list[WireMessage]:
        wire: list[WireMessage] = []
        ids: dict[str, str] = {}  # of the calls so far -> as the template is given them
        names: dict[str | None, str] = {}  # of the tools that were called, by the calls' ids
        by_template, num_calls = True, 0  # of the latest calls; of those before them
        for message in _in_order_of_calls(messages):
            if message.role is Role.TOOL:
                self._add_result(wire, message, ids, names, by_template=by_template)
                continue
            calls, content = message.tool_calls, message.content
            names |= {call.id: call.name for call in calls}
            form = self._skills.calls[len(calls) > 1, bool(content)]
            # Chat templates know functions only; calls of custom tools are text to them.
            by_template = form is not None and not any(call.custom for call in calls)
            if message.role is Role.USER and wire and wire[-1].pop("is_result", False):
                wire[-1]["content"] += f"\n{content or ''}"  # as results are: of two users' messages, we made one
            elif not calls:
                wire.append({"role": _role(message), "content": content or ""})
            elif form is None or not by_template:
                written = self._family.write_calls(calls, num_before=num_calls)
                wire.append({"role": _role(message), "content": (content or "") + written})
            else:
                wire.append(wire_calls(calls, content, form, self._family, num_before=num_calls))
                ids |= {call.id: history_id(call, index, self._family) for index, call in enumerate(calls, num_calls)}
            num_calls += len(calls)
            # Where text before calls is a block of its own, templates take one of the two beside calls.
            if message.reasoning is not None and not (calls and content and self._family.preamble):
                key = self._family.reasoning.history_key if self._family.reasoning else "reasoning_content"
                wire[-1][key] = message.reasoning
        return wire

    def _add_result(
        self,
        wire: list[WireMessage],
        message: Message,
        ids: Mapping[str, str],
        names: Mapping[str | None, str],
        *,
        by_template: bool,
    ) -> None:
        content, name = message.content or "", names.get(message.tool_call_id, "unknown")
        if by_template and self._skills.results_in_calls and wire and "tool_calls" in wire[-1]:
            add_response(wire[-1], name, content)
            return
        if self._skills.shows_results[by_template]:
            wire.append({"role": "tool", "content": content})
            if message.tool_call_id is not None:
                wire[-1]["tool_call_id"] = ids.get(message.tool_call_id, message.tool_call_id)
            return
        text = f"{self._family.response_begin.replace('{name}', name)}{content}{self._family.response_end}"
        if wire and wire[-1].get("is_result"):  # one after the other: many templates want the roles in turn
            wire[-1]["content"] += f"\n{text}"
        else:
            wire.append({"role": "user", "content": text, "is_result": True})


class _Parted:
    """Texts in which no special token is spelled: in its midst stands a character that is taken out later."""

    def __init__(self, request: Request, tokenizer: Tokenizer) -> None:
        self._tokens = tokenizer.spelled_tokens
        asked = (request.messages, request.tools, request.template_options)
        said = "".join(map(repr, asked))  # where they are \\ufdd0, and so on
        unused = (character for character in NONCHARACTERS if repr(character)[1:-1] not in said)
        self.by = next(unused, "")
        if not self.by:
            raise RequestError("the messages have all of Unicode's noncharacters; leave one out", param="messages")

    def message(self, message: Message) -> Message:
        calls = tuple(map(self._call, message.tool_calls))
        return replace(
            message,
            content=self._optional(message.content),
            reasoning=self._optional(message.reasoning),
            tool_calls=calls,
            tool_call_id=self._optional(message.tool_call_id),
        )

    def tool(self, tool: OfferedTool) -> OfferedTool:
        if isinstance(tool, Tool) and tool.parameters:
            parameters: Any = self.value(tool.parameters)
            return replace(tool, description=self.text(tool.description), parameters=parameters)
        if isinstance(tool, CustomTool) and tool.format is not None:
            written = replace(tool.format, source=self.text(tool.format.source))
            return replace(tool, description=self.text(tool.description), format=written)
        return replace(tool, description=self.text(tool.description))

    def _call(self, call: ToolCall) -> ToolCall:
        arguments = self.text(call.arguments) if call.custom else JSON_STRING.sub(self._string, call.arguments)
        return replace(call, id=self.text(call.id), arguments=arguments)

    def _string(self, found: re.Match[str]) -> str:
        """A string of a JSON text, with nothing escaped that need not be: escapes would hide a token's spelling."""
        text = json.loads(found[0], strict=False)
        return json.dumps(self.text(text), ensure_ascii=False) if is_text(text) else self.text(found[0])

    def value(self, value: Any) -> Any:
        """The same value; the texts in it are parted."""
        if isinstance(value, Mapping):
            return {self.text(key): self.value(each) for key, each in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.value(each) for each in value]
        return self.text(value) if isinstance(value, str) else value

    def _optional(self, text: str | None) -> str | None:
        return None if text is None else self.text(text)

    def text(self, text: str) -> str:
        return self._tokens.sub(lambda found: f"{found[0][0]}{self.by}{found[0][1:]}", text)


def _in_order_of_calls(messages: Iterable[Message]) -> Iterator[Message]:
    """The results of one turn's calls in the calls' order: many templates show no ids, and a result by its place."""
    order: dict[str | None, int] = {}
    for is_result, group in itertools.groupby(messages, lambda message: message.role is Role.TOOL):
        several = list(group)
        if is_result and all(message.tool_call_id in order for message in several):
            several.sort(key=lambda message: order[message.tool_call_id])
        order = {call.id: place for place, call in enumerate(several[-1].tool_calls)}
        yield from several


def _check_options(request: Request, tokenizer: Tokenizer) -> None:
    for name in request.template_options:
        if name not in tokenizer.template_options:
            known = ", ".join(sorted(tokenizer.template_options)) or "none"
            path = f"template_options.{name}" if is_text(name) else "template_options"
            message = f"{path}: this model's chat template reads {known}, not {shown(name)}"
            raise RequestError(message, param=path)


def _role(message: Message) -> str:
    # Chat templates know no developer; it took over the system role's place.
    return "system" if message.role is Role.DEVELOPER else message.role.value


def _refuse_display(request: Request) -> None:
    if request.tool_display is not None:
        message = "tool_display stands here, but this model's chat template shows tools in its own way"
        raise RequestError(message, param="tool_display")


def _with_tools(messages: list[WireMessage], text: str, place: ToolPlace) -> list[WireMessage]:
    """The messages with this text in the place; where the user said nothing yet, in the system message."""
    said = [at for at, message in enumerate(messages) if message["role"] == "user" and not message.get("is_result")]
    if place is ToolPlace.SYSTEM or not said:
        return _with_system_text(messages, text)
    latest: Mapping[str, Any] = messages[said[-1]]
    parts = (text, latest["content"]) if place is ToolPlace.BEFORE else (latest["content"], text)
    shown: WireMessage = {**latest, "content": "\n\n".join(parts)}
    return [*messages[: said[-1]], shown, *messages[said[-1] + 1 :]]


def _with_system_text(messages: list[WireMessage], text: str) -> list[WireMessage]:
    if messages[0]["role"] == "system":
        first: Mapping[str, Any] = messages[0]
        return [{**first, "content": f"{first['content']}\n\n{text}"}, *messages[1:]]
    return [{"role": "system", "content": text}, *messages]
