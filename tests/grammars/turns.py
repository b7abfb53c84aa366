"""What the grammar tests share: requests, matchers of both families, and whether a whole turn is accepted."""

import functools
import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import jsonschema_rs
import pytest

from engine.errors import MatcherError
from engine.grammars.json_schema import CheckedSchema, check_arguments_schema, check_schema
from engine.grammars.llguidance_backend import LLGuidanceCompiler
from engine.grammars.matcher import Matcher
from engine.grammars.tool_format import ToolFormat
from engine.grammars.tool_formats import HERMES, PLAIN
from engine.grammars.turn import Turn, build_turn
from engine.grammars.turn_parser import ParsedEvent, TurnParser
from engine.tokenizer import Tokenizer
from engine.types import Grammar, Message, Request, Role, Tool, ToolChoice, ToolChoiceMode
from tests.fakes import fake_tokenizer

FAMILIES = (PLAIN, HERMES)
STRING = {"type": "string"}
INTEGER = {"type": "integer"}


def tokenizer_of(family: ToolFormat) -> Tokenizer:
    """Markers are ordinary text for the plain family, special tokens for Hermes."""
    return fake_tokenizer(hermes=family is HERMES)


@functools.cache
def compiler_of(family: ToolFormat) -> LLGuidanceCompiler:
    tokenizer = tokenizer_of(family)
    return LLGuidanceCompiler(tokenizer.backend_json(), eos_ids=sorted(tokenizer.eos_ids))


def an_object(properties: Mapping[str, Any], **keywords: Any) -> dict[str, Any]:
    return {"type": "object", "properties": dict(properties), **keywords}


def request(
    *tools: Tool,
    choice: ToolChoice | None = None,
    response: Grammar | None = None,
    parallel: bool = True,
    open_objects: bool = False,
) -> Request:
    return Request(
        messages=(Message(Role.USER, "hi"),),
        tools=tools,
        tool_choice=choice or ToolChoice(),
        response=response,
        parallel_tool_calls=parallel,
        open_objects=open_objects,
    )


def turn_of(asked: Request, family: ToolFormat) -> Turn:
    return build_turn(asked, family, tokenizer_of(family).unspellable)


def matcher_of(asked: Request, family: ToolFormat) -> Matcher:
    matcher = turn_of(asked, family).compile(compiler_of(family))
    assert matcher is not None
    return matcher


def takes(matcher: Matcher, tokens: Sequence[int]) -> bool:
    """Whether the tokens, one by one, are allowed and may be all."""
    try:
        for token in tokens:
            matcher.accept([token])
    except MatcherError:
        return False
    return matcher.is_accepting


def accepts(asked: Request, family: ToolFormat, text: str) -> bool:
    """Whether the text is a whole turn."""
    return takes(matcher_of(asked, family), tokenizer_of(family).encode(text))


def written(value: Any) -> str:
    """JSON in our style."""
    return json.dumps(value, ensure_ascii=False)


def call_of(family: ToolFormat, name: str, arguments: Any) -> str:
    """arguments: a value, or JSON text as it is."""
    return family.write_call(name, arguments if isinstance(arguments, str) else written(arguments))


def allows_text(checked: CheckedSchema, text: str) -> bool:
    matcher = compiler_of(PLAIN).compile(f"start: {checked.lark()}", param="schema")
    return takes(matcher, tokenizer_of(PLAIN).encode(text))


def allows_value(checked: CheckedSchema, value: Any) -> bool:
    """Whether the value can be written, in our style, and the veto takes it."""
    if not allows_text(checked, written(value)):
        return False
    validator = jsonschema_rs.Draft202012Validator(checked.source, validate_formats=True)
    return not checked.vetoed or validator.is_valid(value)


def allows(schema: Any, value: Any, **options: bool) -> bool:
    """Whether a response schema lets the value be written."""
    return allows_value(check_schema(schema, "response", **options), value)


def allows_arguments(parameters: Any, value: Any, *, open_objects: bool = False) -> bool:
    checked = check_arguments_schema(parameters, "tools[0].parameters", open_objects=open_objects)
    return allows_value(checked, value)


def parser_of(
    family: ToolFormat, *, has_calls: bool = True, has_response: bool = False, custom_names: Collection[str] = ()
) -> TurnParser:
    return TurnParser(
        family,
        has_calls=has_calls,
        special_tokens=tokenizer_of(family).unspellable,
        call_id=lambda index: f"call_{index}",
        has_response=has_response,
        custom_names=custom_names,
    )


def parse(family: ToolFormat, pieces: Sequence[str], **options: bool) -> list[ParsedEvent]:
    """A turn's events; a piece that is a marker of a family that has it as a token is that token."""
    parser, events = parser_of(family, **options), []
    for piece in pieces:
        events += parser.feed(piece, special=piece in tokenizer_of(family).unspellable)
    return events + parser.finish()


# Two tools that many turns are about.

WEATHER = Tool("weather", "", an_object({"city": STRING, "days": INTEGER}, required=["city"]))
CLOCK = Tool("clock")
BOTH = (WEATHER, CLOCK)
PARIS = {"city": "Paris"}
NONE, REQUIRED = ToolChoice(ToolChoiceMode.NONE), ToolChoice(ToolChoiceMode.REQUIRED)
each_family = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)


def calls(family: ToolFormat, *named: tuple[str, Any]) -> str:
    """Calls one after the other, as the family writes them."""
    return between(family).join(call_of(family, name, arguments) for name, arguments in named)


def between(family: ToolFormat) -> str:
    """What parts two whole calls of a family that opens each with its marker."""
    assert family.separator.endswith(family.marker)
    return family.separator.removesuffix(family.marker)


def refused(asked: Request, family: ToolFormat, texts: list[str]) -> list[str]:
    return [text for text in texts if not accepts(asked, family, text)]


def accepted(asked: Request, family: ToolFormat, texts: list[str]) -> list[str]:
    return [text for text in texts if accepts(asked, family, text)]


def wrong_calls(family: ToolFormat) -> list[str]:
    """Calls that no request for WEATHER and CLOCK allows."""
    return [
        calls(family, ("forecast", PARIS)),
        calls(family, ("weathe", PARIS)),
        calls(family, ("weather2", PARIS)),
        calls(family, ("Weather", PARIS)),
        calls(family, ("", {})),
        calls(family, ("weather", {})),
        calls(family, ("weather", {"city": 5})),
        calls(family, ("weather", {"city": "Paris", "days": "5"})),
        calls(family, ("weather", {"days": 5, "city": "Paris"})),
        calls(family, ("weather", {"city": "Paris", "planet": "Earth"})),
        calls(family, ("weather", None)),
        calls(family, ("weather", '"Paris"')),
        calls(family, ("clock", PARIS)),
        calls(family, ("clock", None)),
        calls(family, ("clock", [])),
        calls(family, ("weather", PARIS)) + " done",
        calls(family, ("weather", PARIS)) + "\n",
        calls(family, ("weather", PARIS)) + calls(family, ("clock", {})),
        calls(family, ("weather", PARIS)) + "\n\n" + calls(family, ("clock", {})),
        calls(family, ("weather", PARIS))[: -len(family.end)],
        calls(family, ("weather", PARIS))[:-1] if family is PLAIN else call_of(family, "weather", PARIS) + "}",
        family.marker,
        family.marker + "\n",
        family.marker + "hello",
        family.marker + family.end,
    ]
