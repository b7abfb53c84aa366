"""What `toolmask inspect` says of a model: its family, how that was seen, and a call as it is written and shown."""

from engine.errors import EngineError
from engine.grammars.tool_format import ToolFormat
from engine.grammars.tool_formats import detect
from engine.prompt import render_text
from engine.template_skills import Form, TemplateSkills, skills_of
from engine.tokenizer import Tokenizer
from engine.types import Message, Request, Role, Tool, ToolCall

CITY = {"type": "string", "description": "Its name."}
TOOL = Tool(
    "get_weather", "The weather in a city.", {"type": "object", "properties": {"city": CITY}, "required": ["city"]}
)
CALL = ToolCall("call_1", TOOL.name, '{"city": "Paris"}')
CONVERSATION = (
    Message(Role.USER, "What is the weather in Paris?"),
    Message(Role.ASSISTANT, None, (CALL,)),
    Message(Role.TOOL, "18 degrees, light rain", tool_call_id=CALL.id),
)


def inspection(tokenizer: Tokenizer, family: ToolFormat | None = None) -> str:
    """Lines for people. family: None detects it. Needs the tokenizer alone."""
    detected = detect(tokenizer.chat_template, tokenizer.added, tokenizer.tekken_version)
    why = detected.why if family is None else f"as asked for; detected would be {detected.family.name}"
    family = family or detected.family
    skills = skills_of(tokenizer, family)
    facts = {
        "family": f"{family.name} ({family.models})",
        "because": why,
        "read in": family.source,
        "markers": _markers(family, tokenizer),
        "arguments": type(family.arguments).__name__.removesuffix("Arguments").lower(),
        "calls a turn": "several" if family.parallel else "one",
        **_of_template(family, tokenizer, skills),
        "ends a turn": ", ".join(sorted(repr(tokenizer.decode([token])) for token in tokenizer.eos_ids)) or "nothing",
    }
    lines = [f"{name + ':':18}{fact}" for name, fact in facts.items()]
    return "\n".join([*lines, "", *_example(tokenizer, family, skills)])


def _of_template(family: ToolFormat, tokenizer: Tokenizer, skills: TemplateSkills) -> dict[str, str]:
    """What only a chat template tells."""
    if tokenizer.chat_template is None:
        return {
            "chat template": "none: requests of messages are refused, with tools or without; bare prompts are taken"
        }
    return {
        "tool training": _training(skills),
        "earlier calls": _earlier(skills),
        "reasoning": _reasoning(family, tokenizer),
        "template options": ", ".join(sorted(tokenizer.template_options)) or "none",
    }


def _markers(family: ToolFormat, tokenizer: Tokenizer) -> str:
    others = (("may open", way.marker) for way in family.other_ways)
    ends = (("ends a call", family.end), ("ends the calls", family.calls_end))
    marks = (("opens", family.marker), *others, *ends)
    return "; ".join(f"{what} {text!r} ({_kind(text, tokenizer)})" for what, text in marks if text)


def _kind(text: str, tokenizer: Tokenizer) -> str:
    if text in tokenizer.unspellable:
        return f"token {tokenizer.unspellable[text]}"
    return "with tokens" if tokenizer.ids_in([text]) else "text"


def _training(skills: TemplateSkills) -> str:
    if skills.shows_tools:
        return "yes: the chat template shows tools"
    return "none seen: the chat template shows no tools, so the system message describes them"


def _earlier(skills: TemplateSkills) -> str:
    form: Form | None = skills.calls[False, False]
    calls = f"by the template (arguments as {form.value})" if form else "written in the model's format"
    return f"{calls}; results {'by the template' if skills.shows_results[form is not None] else 'in a user message'}"


def _reasoning(family: ToolFormat, tokenizer: Tokenizer) -> str:
    if family.reasoning is None or not family.reasoning.is_in(tokenizer.chat_template):
        return "none seen in the chat template"
    return f"between {family.reasoning.begin!r} and {family.reasoning.end!r}"


def _example(tokenizer: Tokenizer, family: ToolFormat, skills: TemplateSkills) -> list[str]:
    call = ["A call as the model writes it:", "", family.write_call(CALL.name, CALL.arguments)]
    if tokenizer.chat_template is None:
        return call
    try:
        text = render_text(Request(messages=CONVERSATION, tools=(TOOL,)), family, tokenizer, skills)
    except EngineError as error:
        return [f"A conversation with tools cannot be rendered: {error}", "", *call]
    return ["A conversation as the model reads it:", "", *text.splitlines()]
