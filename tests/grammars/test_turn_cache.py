"""Turns and tools' schemas are kept by what they say; what is kept is bounded."""

from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from engine.errors import SchemaError
from engine.grammars.encoders.arguments import ArgumentsGrammar, Terminals
from engine.grammars.encoders.json_arguments import JsonArguments
from engine.grammars.json_schema import CheckedSchema
from engine.grammars.recent import Recent, content_key
from engine.grammars.tool_format import Opening
from engine.grammars.tool_formats import HERMES
from engine.grammars.tool_schemas import SchemaOptions, ToolSchemas
from engine.grammars.turn_cache import Turns
from engine.types import Grammar, Message, Request, Role, Tool, ToolChoice, ToolChoiceMode
from tests.fakes import fake_tokenizer
from tests.grammars.turns import INTEGER, STRING, an_object, compiler_of, request

ONE = Tool("one", "", an_object({"a": INTEGER, "b": STRING}, required=["a"]))
TWO = Tool("two", "", an_object({"c": {"type": "string", "pattern": "^a{2,3}$"}, "d": {"type": "number"}}))


@dataclass
class Counted:
    """A grammar compiler that counts what it is asked for."""

    sources: list[str] = field(default_factory=list)

    def compile(self, source: str, *, param: str) -> Any:
        self.sources.append(source)
        return compiler_of(HERMES).compile(source, param=param)


@dataclass(frozen=True)
class CountedArguments(JsonArguments):
    """Hermes' way of writing arguments, which counts the tools that are written."""

    written: list[str] = field(default_factory=list)

    def grammar(self, checked: CheckedSchema, *, name: str, path: str, terminals: Terminals) -> ArgumentsGrammar:
        self.written.append(path)
        return JsonArguments().grammar(checked, name=name, path=path, terminals=terminals)


def turns() -> Turns:
    return Turns(HERMES, fake_tokenizer(hermes=True).unspellable)


def counted_turns() -> tuple[Turns, list[str]]:
    arguments = CountedArguments()
    return Turns(replace(HERMES, arguments=arguments), fake_tokenizer(hermes=True).unspellable), arguments.written


def test_a_request_with_the_tools_of_an_earlier_one_has_its_turn() -> None:
    kept = turns()
    first = kept.of(request(ONE, TWO)).at(Opening.NONE)
    others = replace(request(replace(ONE, description="another"), TWO), messages=(Message(Role.USER, "other"),))
    assert kept.of(others).at(Opening.NONE) is first


@pytest.mark.parametrize(
    "other",
    [
        request(TWO, ONE),
        request(ONE, replace(TWO, strict=False, name="three")),
        request(ONE, TWO, parallel=False),
        request(ONE, TWO, open_objects=True),
        request(ONE, TWO, choice=ToolChoice(ToolChoiceMode.REQUIRED)),
        request(ONE, TWO, choice=ToolChoice.named("one")),
        request(ONE, TWO, response=Grammar.regex("a+")),
        replace(request(ONE, TWO), lenient=True),
        replace(request(ONE, TWO), strict_formats=True),
        request(replace(ONE, parameters=an_object({"b": STRING, "a": INTEGER}, required=["a"])), TWO),
        request(replace(ONE, parameters=an_object({"a": {"const": 1}, "b": STRING}, required=["a"])), TWO),
    ],
)
def test_a_request_that_asks_for_something_else_has_a_turn_of_its_own(other: Request) -> None:
    kept = turns()
    first = kept.of(request(ONE, TWO)).at(Opening.NONE)
    assert kept.of(other).at(Opening.NONE) is not first


def test_values_that_python_takes_for_equal_are_told_apart() -> None:
    assert len({content_key({"const": value}) for value in (1, 1.0, True, "1", [1], None)}) == 6
    assert content_key({"a": 1, "b": 2}) != content_key({"b": 2, "a": 1})


def test_a_schema_that_was_changed_after_its_tool_was_made_is_read_again() -> None:
    kept, parameters = turns(), an_object({"a": dict(INTEGER)})
    tool = Tool("one", "", parameters)
    first = kept.of(request(tool)).at(Opening.NONE)
    parameters["properties"]["a"]["type"] = "string"
    assert kept.of(request(tool)).at(Opening.NONE).turn.source != first.turn.source


def test_a_known_turn_is_compiled_without_looking_at_its_parts() -> None:
    kept, compiler = turns(), Counted()
    known = kept.of(request(TWO)).at(Opening.NONE)
    known.compile(compiler)
    first, compiler.sources = compiler.sources, []
    known.is_sound = True
    kept.of(request(TWO)).at(Opening.NONE).compile(compiler)
    assert len(first) > 1
    assert compiler.sources == [known.turn.source]


def test_a_tool_is_written_once_whatever_stands_beside_it() -> None:
    kept, written = counted_turns()
    kept.of(request(ONE, TWO)).at(Opening.NONE)
    kept.of(request(ONE, replace(TWO, name="three"))).at(Opening.NONE)
    kept.of(request(ONE)).at(Opening.NONE)
    assert written == ["tools[0].parameters", "tools[1].parameters"]


@pytest.mark.parametrize("parameters", [ONE.parameters, TWO.parameters, None, {"type": "object"}])
def test_a_tool_that_has_moved_reads_as_if_it_were_new(parameters: dict[str, Any] | None) -> None:
    moved, new = ToolSchemas(JsonArguments()), ToolSchemas(JsonArguments())
    moved.of(parameters, 0, SchemaOptions(), str)
    assert moved.of(parameters, 7, SchemaOptions(), str) == new.of(parameters, 7, SchemaOptions(), str)


def test_a_tool_that_cannot_be_enforced_is_refused_every_time_by_its_own_path() -> None:
    kept = turns()
    bad = Tool("bad", "", an_object({"a": {"type": "string", "pattern": "(?=a)b"}}))
    for position in (0, 1):
        with pytest.raises(SchemaError) as error:
            kept.of(request(*[ONE, bad][1 - position :]))
        assert error.value.param == f"tools[{position}].parameters.properties.a.pattern"


def test_the_least_recently_used_goes_first() -> None:
    recent = Recent[str, int](max_values=2, max_size=100)
    recent.put("a", 1, 1)
    recent.put("b", 2, 1)
    recent.get("a")
    recent.put("c", 3, 1)
    assert [recent.get(key) for key in "abc"] == [1, None, 3]


def test_what_is_kept_is_bounded_by_its_size() -> None:
    recent = Recent[str, int](max_values=100, max_size=10)
    recent.put("a", 1, 6)
    recent.put("b", 2, 6)
    assert (recent.get("a"), recent.get("b")) == (None, 2)
    recent.put("b", 3, 5)
    recent.put("c", 4, 5)
    assert len(recent) == 2
    recent.put("huge", 5, 11)
    assert recent.get("huge") is None
