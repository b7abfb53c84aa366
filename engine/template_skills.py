"""What a model's own chat template can show of tools: seen by rendering examples and looking for them in the text."""

import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from engine.errors import EngineError
from engine.grammars.tool_descriptions import describe_tool
from engine.grammars.tool_format import ToolFormat
from engine.tokenizer import Tokenizer
from engine.types import Tool, ToolCall

NAMES, ARGUMENTS = ("toolmask_probe", "toolmask_again"), '{"text": "probe of arguments", "with": "another"}'
TEXT, RESULT = "Probe of text.", "probe of a result"
SCHEMA = {"type": "object", "properties": {"text": {"type": "string", "description": "text"}}, "required": ["text"]}
TOOL = Tool(NAMES[0], "Probe.", SCHEMA)
USER = {"role": "user", "content": "probe"}
AN_ID = "\ue000"  # where a call's id stands
RESPONSES = "tool_responses"  # of the calls' own message, where some templates look for the results

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
    results_in_calls: bool = False  # whether the template wants results in the message of the calls that it shows
    needs_tools: bool = False  # whether the template has to be given a list of tools, were it an empty one

    @property
    def no_tools(self) -> list[dict[str, object]] | None:
        """What the template is given where there are none."""
        return [] if self.needs_tools else None


def skills_of(tokenizer: Tokenizer, family: ToolFormat) -> TemplateSkills:
    """Renders some 30 short conversations: a few milliseconds."""
    probe = _Probe(tokenizer, family)
    probe = replace(probe, needs_tools=not probe.rendered([USER]) and bool(probe.rendered([USER], [])))
    calls = {
        (several, text): probe.form(several=several, text=text) for several in (False, True) for text in (False, True)
    }
    shows_tools = probe.shows_tools()
    # A loop that takes any role as it is does not yet show that the model knows results.
    knows_tools = shows_tools or calls[False, False] is not None or probe.names_results()
    results = {
        True: knows_tools and probe.shows_result(calls[False, False]),
        False: knows_tools and probe.shows_result(None),
    }
    in_calls = probe.shows_result_in_calls(calls[False, False])
    return TemplateSkills(shows_tools, calls, results, in_calls, probe.needs_tools)


@dataclass(frozen=True, slots=True)
class _Probe:
    tokenizer: Tokenizer
    family: ToolFormat
    needs_tools: bool = False

    def shows_tools(self) -> bool:
        return TOOL.name in self.rendered([USER], [describe_tool(TOOL)])

    def form(self, *, several: bool, text: bool) -> Form | None:
        """The first form in which the calls come out as the family writes them, in any of its ways."""
        calls = tuple(ToolCall("id", name, ARGUMENTS) for name in NAMES[: 2 if several else 1])
        expected = self._shown(calls)
        for form in Form:
            message = wire_calls(calls, TEXT if text else None, form, self.family)
            # A call with its result after it: some templates leave out what was not answered.
            results = [
                {"role": "tool", "content": RESULT, "tool_call_id": call["id"]} for call in message["tool_calls"]
            ]
            rendered = self.rendered([USER, message, *results]) or self.rendered([USER, message])
            found = expected.search(rendered)
            if found and (not text or TEXT in rendered[: found.start()]):
                return form
        return None

    def _shown(self, calls: tuple[ToolCall, ...]) -> re.Pattern[str]:
        """What the calls may look like: with any ids of the family's kind, and strings in either of its quotes."""
        family, ids = self.family, self.family.call_ids
        with_ids = family if ids is None else replace(family, call_ids=replace(ids, written=AN_ID))
        written = "|".join(re.escape(way.write_calls(calls)) for way in (with_ids, *with_ids.other_ways))
        if quotes := family.arguments.quotes:
            written = written.replace(quotes[0], f"[{quotes}]")
        return re.compile(written if ids is None else written.replace(AN_ID, ids.pattern))

    def names_results(self) -> bool:
        """Whether the template speaks of results."""
        template = self.tokenizer.chat_template or ""
        return "'tool'" in template or '"tool"' in template

    def shows_result(self, form: Form | None) -> bool:
        call = ToolCall("id", TOOL.name, ARGUMENTS)
        message: WireMessage = {"role": "assistant", "content": self.family.write_calls((call,))}
        if form is not None:
            message = wire_calls((call,), None, form, self.family)
        result = {"role": "tool", "content": RESULT, "tool_call_id": history_id(call, 0, self.family)}
        so_far = [USER, message, result]
        # Some templates refuse what follows: to them, the roles are not in turn.
        later = [*so_far, {"role": "assistant", "content": TEXT}, USER]
        return all(RESULT in self.rendered(messages) for messages in (so_far, later))

    def shows_result_in_calls(self, form: Form | None) -> bool:
        if form is None:
            return False
        message = wire_calls((ToolCall("id", TOOL.name, ARGUMENTS),), None, form, self.family)
        add_response(message, TOOL.name, RESULT)
        return RESULT in self.rendered([USER, message])

    def rendered(self, messages: list[WireMessage], tools: list[dict[str, object]] | None = None) -> str:
        """Nothing where the template refuses the messages."""
        try:
            return self.tokenizer.render(messages, [] if tools is None and self.needs_tools else tools)
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


def add_response(calls: WireMessage, name: str, content: str) -> None:
    """A result in the message of its call, as some templates want it."""
    calls.setdefault(RESPONSES, []).append({"name": name, "response": content})


def history_id(call: ToolCall, index: int, family: ToolFormat) -> str:
    """The call's id as the family writes ids; its own where the family writes none."""
    if family.call_ids is None:
        return call.id
    return family.call_ids.of_history(call, index)
