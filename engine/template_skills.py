"""What a model's own chat template can show of tools: seen by rendering examples and looking for them in the text."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from engine.errors import EngineError
from engine.grammars.tool_descriptions import describe_tool
from engine.grammars.tool_format import ToolFormat
from engine.tokenizer import Tokenizer
from engine.types import Tool, ToolCall

NAMES, ARGUMENTS = ("toolmask_probe", "toolmask_again"), '{"text": "probe of arguments"}'
TEXT, RESULT = "Probe of text.", "probe of a result"
SCHEMA = {"type": "object", "properties": {"text": {"type": "string", "description": "text"}}, "required": ["text"]}
TOOL = Tool(NAMES[0], "Probe.", SCHEMA)
USER = {"role": "user", "content": "probe"}

WireMessage = dict[str, Any]


class Form(enum.Enum):
    """How a template wants the arguments of earlier calls, and the content beside them where there is none."""

    OBJECT = "object"
    OBJECT_ALONE = "object, content null"
    STRING = "string"
    STRING_ALONE = "string, content null"

    @property
    def as_object(self) -> bool:
        return self in (Form.OBJECT, Form.OBJECT_ALONE)

    @property
    def no_content(self) -> str | None:
        return None if self in (Form.OBJECT_ALONE, Form.STRING_ALONE) else ""


@dataclass(frozen=True, slots=True)
class TemplateSkills:
    """What is left to the template; the rest is written by the family's format."""

    shows_tools: bool
    calls: Mapping[
        tuple[bool, bool], Form | None
    ]  # (several calls, text beside them) -> how; None: not as the model does
    shows_results: Mapping[bool, bool]  # after calls that the template shows, or the format -> by the template


def skills_of(tokenizer: Tokenizer, family: ToolFormat) -> TemplateSkills:
    """Renders some 20 short conversations: a few milliseconds."""
    probe = _Probe(tokenizer, family)
    calls = {
        (several, text): probe.form(several=several, text=text) for several in (False, True) for text in (False, True)
    }
    knows_tools = calls[False, False] is not None or probe.names_results()
    results = {
        True: knows_tools and probe.shows_result(calls[False, False]),
        False: knows_tools and probe.shows_result(None),
    }
    return TemplateSkills(probe.shows_tools(), calls, results)


@dataclass(frozen=True, slots=True)
class _Probe:
    tokenizer: Tokenizer
    family: ToolFormat

    def shows_tools(self) -> bool:
        return TOOL.name in self._rendered([USER], [describe_tool(TOOL)])

    def form(self, *, several: bool, text: bool) -> Form | None:
        """The first form in which the calls come out as the family writes them."""
        calls = tuple(ToolCall("id", name, ARGUMENTS) for name in NAMES[: 2 if several else 1])
        expected = self._shown(calls)
        for form in Form:
            message = wire_calls(calls, TEXT if text else None, form, self.family)
            # A call with its result after it: some templates leave out what was not answered.
            results = [
                {"role": "tool", "content": RESULT, "tool_call_id": call["id"]} for call in message["tool_calls"]
            ]
            rendered = self._rendered([USER, message, *results]) or self._rendered([USER, message])
            before, found, _ = rendered.partition(expected)
            if found and (not text or TEXT in before):
                return form
        return None

    def _shown(self, calls: tuple[ToolCall, ...]) -> str:
        shown = self.family.shown_call
        if not shown:
            return self.family.write_calls(calls)
        return "".join(shown.replace("{name}", each.name).replace("{arguments}", each.arguments) for each in calls)

    def names_results(self) -> bool:
        """Whether the template speaks of results; a loop that takes any role as it is does not."""
        template = self.tokenizer.chat_template or ""
        return "'tool'" in template or '"tool"' in template

    def shows_result(self, form: Form | None) -> bool:
        call = ToolCall("id", TOOL.name, ARGUMENTS)
        message: WireMessage = {"role": "assistant", "content": self.family.write_calls((call,))}
        if form is not None:
            message = wire_calls((call,), None, form, self.family)
        result = {"role": "tool", "content": RESULT, "tool_call_id": history_id(call, 0, self.family)}
        return RESULT in self._rendered([USER, message, result])

    def _rendered(self, messages: list[WireMessage], tools: list[dict[str, object]] | None = None) -> str:
        try:
            return self.tokenizer.render(messages, tools)
        except EngineError:
            return ""


def wire_calls(
    calls: tuple[ToolCall, ...], text: str | None, form: Form, family: ToolFormat, *, num_before: int = 0
) -> WireMessage:
    """An assistant's message with calls of functions, in the shape of the OpenAI API.

    num_before: calls that earlier turns of the conversation have.
    """
    wire: WireMessage = {"role": "assistant", "content": text or form.no_content}
    wire["tool_calls"] = [
        {
            "id": history_id(call, index, family),
            "type": "function",
            "function": {
                "name": call.name,
                "arguments": call.parsed_arguments() if form.as_object else call.arguments,
            },
        }
        for index, call in enumerate(calls, num_before)
    ]
    return wire


def history_id(call: ToolCall, index: int, family: ToolFormat) -> str:
    """The call's id as the family writes ids; its own where the family writes none."""
    if family.call_ids is None:
        return call.id
    return family.call_ids.of_history(call, index)
