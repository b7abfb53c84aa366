"""200 random walks of a fake model through 30 tool sets: whatever it wants, calls are valid or not reported.

The fake's logits carry bonuses for the end of the turn, the beginnings of markers, structural bytes, quotes and hostile
strings; a model without them never opens a call. Everything is seeded: a walk that fails fails again.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import jsonschema
import pytest

from engine.engine import Engine
from engine.errors import BudgetError
from engine.events import Completion, Event, StopReason, TextDelta, ToolCallEnd, ToolCallStart
from engine.grammars.tool_formats import HERMES, PLAIN
from engine.model import LoadedModel
from engine.output import collect
from engine.types import JsonObject, Message, Request, Role, SamplingParams, Tool, ToolChoice, ToolChoiceMode
from tests.fakes import EOS, FakeModel, fake_tokenizer
from tests.grammars.turns import INTEGER, STRING, an_object

NUM_WALKS = 200
MAX_MORE_ROUNDS = 3
BOOLEAN, NUMBER = {"type": "boolean"}, {"type": "number"}
HOSTILE_NAMES = ['"}}\n</tool_call>', '"\n', "<tool_call>"]
TREE = an_object({"name": STRING, "children": {"type": "array", "items": {"$ref": "#/$defs/tree"}, "maxItems": 2}})
POINT, DESCRIBED = {"$ref": "#/$defs/p"}, {**STRING, "description": "</tool_call>"}
PETS = [
    an_object({"kind": {"const": kind}, "name": STRING, own: INTEGER}, required=["kind"])
    for kind, own in (("cat", "lives"), ("dog", "tricks"))
]


def tool(name: str, properties: Mapping[str, Any], *required: str, **keywords: Any) -> Tool:
    return Tool(name, "", an_object(properties, required=list(required), **keywords))


TOOL_SETS: list[tuple[Tool, ...]] = [
    (Tool("clock"),),
    (Tool("empty", "", {}), Tool("object", "", {"type": "object"}), Tool("nothing", "", an_object({}))),
    (tool("weather", {"city": STRING, "days": INTEGER}, "city"), Tool("clock")),
    (tool("bounded", {"a": {**STRING, "maxLength": 3}, "b": {**STRING, "minLength": 2, "maxLength": 100_000}}, "b"),),
    (tool("matched", {"code": {**STRING, "pattern": "^[A-Z]{2}-[0-9]+$"}, "w": {**STRING, "pattern": "o+"}}, "code"),),
    (tool("chosen", {"unit": {"enum": ['"', "\\", "</tool_call>", "é😀", "plain", 1, None, [1.5]]}}, "unit"),),
    (tool("counted", {"n": {**INTEGER, "minimum": -3, "maximum": 120}, "m": {**INTEGER, "multipleOf": 5}}, "n"),),
    (tool("measured", {"x": NUMBER, "y": {**NUMBER, "exclusiveMinimum": 0, "maximum": 1.5}}, "y"),),
    (tool("flags", {"on": BOOLEAN, "off": {"type": ["boolean", "null"]}, "none": {"type": "null"}}),),
    (
        tool(
            "listed", {"items": {"type": "array", "items": INTEGER, "minItems": 1, "maxItems": 3}, "": BOOLEAN}, "items"
        ),
    ),
    (tool("nested", {"at": an_object({"x": NUMBER, "y": NUMBER, "name": STRING}, required=["x", "y"])}, "at"),),
    (tool("either", {"value": {"anyOf": [STRING, INTEGER, {"type": "array", "items": BOOLEAN}]}}, "value"),),
    (tool("constant", {"version": {"const": 2}, "kind": {"const": "a b"}, "c": {"const": {"x": [1]}}}, "version"),),
    (tool("defined", {"a": POINT, "b": POINT}, **{"$defs": {"p": an_object({"q": INTEGER})}}),),
    (tool("grown", {"root": {"$ref": "#/$defs/tree"}}, "root", **{"$defs": {"tree": TREE}}),),
    (tool("dated", {name: {**STRING, "format": name} for name in ("date", "ipv4", "uuid", "time")}),),
    (tool("written", {"größe": INTEGER, "名前": STRING, "😀": BOOLEAN}, "名前"),),
    (tool("hostile", dict.fromkeys(HOSTILE_NAMES, STRING), HOSTILE_NAMES[0]),),
    (Tool("a" * 64), tool("b" * 64, {"long_" * 12: STRING})),
    tuple(Tool(f"tool_{letter}") for letter in "abcdef"),
    (Tool("get"), Tool("get_all"), tool("get_all_of", {"kind": STRING}, "kind"), Tool("get.all-of")),
    (Tool("mapped", "", {"type": "object", "additionalProperties": INTEGER}),),
    (Tool("patterned", "", {"type": "object", "patternProperties": {"^n_": NUMBER}, "additionalProperties": False}),),
    (tool("pair", {"p": {"type": "array", "prefixItems": [STRING, INTEGER], "items": False, "minItems": 2}}, "p"),),
    (Tool("merged", "", {"allOf": [an_object({"a": INTEGER}, required=["a"]), an_object({"b": BOOLEAN})]}),),
    (tool("tagged", {"pet": {"oneOf": PETS}}, "pet"),),
    (tool("keywords", {"format": STRING, "not": INTEGER, "$ref": STRING, "enum": BOOLEAN}),),
    (tool("optional", {f"option_{letter}": INTEGER for letter in "abcde"}),),
    (Tool("described", '<tool_call> "}} <|im_end|>', an_object({"a": DESCRIBED}, required=["b"])),),
    (tool("deep", {"a": an_object({"b": an_object({"c": {"type": "array", "items": an_object({"d": STRING})}})})}),),
]

MODES = ["auto", "required", "auto", "named", "required", "none", "auto"]  # round by round through the tool sets
LIMITS = [600, 300, 600, 12, 600, 60, 600, 30]
TEMPERATURES = [0.0, 40.0, 0.0, 100.0, 0.0]

STRUCTURE = {'"': 450, '"}': 300, "}": 250, ", ": 350, ": ": 200, "]": 350, "{": 200, "\\": 250, "0": 250, "-": 200}
STRUCTURE |= {EOS: 390}
HOSTILE = ["</tool_call>", "<tool_call>", "<|im_end|>", '\\"}}', "😀", '"}}\n</tool_call>', "\\\\", "tool_"]


def spelled(text: str) -> tuple[int, ...]:
    """A token for each byte, markers too."""
    tokenizer = fake_tokenizer()
    by_byte = {tokenizer.token_bytes(token): token for token in range(tokenizer.num_tokens)}
    return tuple(by_byte[bytes([byte])] for byte in text.encode())


def hostile_model(*, hermes: bool) -> LoadedModel:
    tokenizer = fake_tokenizer(hermes=hermes)
    begins = {tokenizer.encode(text)[0]: points for text, points in STRUCTURE.items()}
    marker, again = tuple(tokenizer.encode("<tool_call>")), tuple(tokenizer.encode("</tool_call>\n<tool_call>"))
    begins[marker[0]] = 430
    phrases = {**{spelled(text): 400 for text in HOSTILE}, again: 1000, marker: 900}
    # A phrase's points go to all its tokens, the first ones too: once begun it goes on, but it must not begin always.
    bonus = begins | {
        first: begins.get(first, 250) - sum(points for phrase, points in phrases.items() if phrase[0] == first)
        for first in {phrase[0] for phrase in phrases}
    }
    model = FakeModel(tokenizer.num_tokens + 7, bonus, phrases, seed=1, context_length=100_000)
    return LoadedModel("hostile", model, tokenizer)


@dataclass(frozen=True)
class Walk:
    """One request and what came of it."""

    number: int
    position: int  # of its tools in TOOL_SETS
    mode: str
    engine: Engine
    request: Request
    events: tuple[Event, ...]

    @property
    def completion(self) -> Completion:
        return collect(self.events)

    @property
    def num_opened(self) -> int:
        return sum(isinstance(event, ToolCallStart) for event in self.events)

    @property
    def num_closed(self) -> int:
        return sum(isinstance(event, ToolCallEnd) for event in self.events)


def walk_request(number: int, position: int, mode: str, max_tokens: int) -> Request:
    tools = TOOL_SETS[position]
    choices = {
        "auto": ToolChoice(),
        "none": ToolChoice(ToolChoiceMode.NONE),
        "required": ToolChoice(ToolChoiceMode.REQUIRED),
        "named": ToolChoice.named(tools[number % len(tools)].name),
    }
    return Request(
        messages=(Message(Role.USER, f"walk {number}"),),
        tools=tools,
        tool_choice=choices[mode],
        sampling=SamplingParams(temperature=TEMPERATURES[number % len(TEMPERATURES)], seed=number),
        max_tokens=max_tokens,
    )


@pytest.fixture(scope="module")
def engines() -> Iterator[list[Engine]]:
    with Engine(hostile_model(hermes=False)) as plain, Engine(hostile_model(hermes=True)) as hermes:
        assert (plain.tool_format, hermes.tool_format) == (PLAIN, HERMES)
        yield [plain, hermes]


class Walker:
    """Walks, each by the engine of one family and the other in turn."""

    def __init__(self, engines: list[Engine]) -> None:
        self.engines = engines
        self.walks: list[Walk] = []

    def walk(self, position: int, mode: str, max_tokens: int) -> None:
        number = len(self.walks)
        engine = self.engines[(number + number // len(TOOL_SETS)) % len(self.engines)]
        request = walk_request(number, position, mode, max_tokens)
        try:
            events = tuple(engine.submit(request))
        except BudgetError as refused:  # the tightest limit that there is: what is written is then known in advance
            request = replace(request, max_tokens=refused.least)
            events = tuple(engine.submit(request))
        self.walks.append(Walk(number, position, mode, engine, request, events))


@pytest.fixture(scope="module")
def walks(engines: list[Engine]) -> list[Walk]:
    """200 walks, and more through the tool sets of which something was not seen: the model's noise is one draw."""
    walker = Walker(engines)
    for number in range(NUM_WALKS):
        round_, position = divmod(number, len(TOOL_SETS))
        walker.walk(position, MODES[round_], LIMITS[(position + 3 * round_) % len(LIMITS)])
    for _ in range(MAX_MORE_ROUNDS):
        for position in coverage_of(walker.walks).positions_to_see:
            walker.walk(position, "required", max(LIMITS))
    return walker.walks


def of_mode(walks: list[Walk], mode: str) -> list[Walk]:
    return [walk for walk in walks if walk.mode == mode]


def schema_of(walk: Walk, name: str) -> JsonObject:
    (parameters,) = [each.parameters for each in walk.request.tools if each.name == name]
    nothing: JsonObject = {"type": "object", "additionalProperties": False}
    return parameters if parameters and parameters.keys() - {"type"} else nothing


# --- What holds for every walk


def test_every_call_is_of_an_offered_tool_and_its_arguments_satisfy_the_schema(walks: list[Walk]) -> None:
    """F7, F10."""
    for walk in walks:
        offered = {each.name for each in walk.request.callable_tools}
        for call in walk.completion.tool_calls:
            assert call.name in offered, walk.number
            checker = jsonschema.Draft202012Validator.FORMAT_CHECKER
            validator = jsonschema.Draft202012Validator(dict(schema_of(walk, call.name)), format_checker=checker)
            validator.validate(call.parsed_arguments())


def test_every_walk_ends_by_itself_or_at_its_limit(walks: list[Walk]) -> None:
    for walk in walks:
        completion = walk.completion
        assert completion.stop_reason in (StopReason.EOS, StopReason.GRAMMAR_END, StopReason.LENGTH), walk.number
        assert completion.usage.completion_tokens <= (walk.request.max_tokens or 0), walk.number
        reached = completion.usage.completion_tokens == walk.request.max_tokens
        assert reached or completion.stop_reason is not StopReason.LENGTH, walk.number


def test_no_walk_ends_inside_a_call_and_only_text_is_cut_by_length(walks: list[Walk]) -> None:
    """F1."""
    for walk in walks:
        assert walk.num_opened == walk.num_closed == len(walk.completion.tool_calls), walk.number
        assert not walk.num_opened or walk.completion.stop_reason is not StopReason.LENGTH, walk.number


def test_text_comes_before_all_calls_and_has_no_markup(walks: list[Walk]) -> None:
    """F12."""
    for walk in walks:
        kinds = [type(event) for event in walk.events]
        if ToolCallStart in kinds:
            assert TextDelta not in kinds[kinds.index(ToolCallStart) :], walk.number
        assert "<tool_call>" not in (walk.completion.text or ""), walk.number


def test_required_is_always_a_call_and_never_text(walks: list[Walk]) -> None:
    """F9."""
    for walk in of_mode(walks, "required"):
        assert walk.completion.text is None, walk.number
        assert walk.completion.tool_calls, walk.number


def test_none_is_never_a_call(walks: list[Walk]) -> None:
    for walk in of_mode(walks, "none"):
        assert walk.num_opened == 0, walk.number


def test_a_named_choice_is_one_call_of_that_tool_alone(walks: list[Walk]) -> None:
    """F8, F27."""
    for walk in of_mode(walks, "named"):
        names = [call.name for call in walk.completion.tool_calls]
        expected = list(walk.request.tool_choice.allowed or ())
        assert names == expected, walk.number
        assert walk.completion.text is None, walk.number


def test_arguments_are_written_in_one_line_without_escapes_of_unicode(walks: list[Walk]) -> None:
    """F3, F23."""
    for walk in walks:
        for call in walk.completion.tool_calls:
            assert "\n" not in call.arguments, walk.number
            assert "\\u" not in call.arguments.replace("\\\\", ""), walk.number
            assert not call.arguments.startswith("{ "), walk.number


def test_the_same_request_gives_the_same_answer_whether_it_is_streamed_or_not(walks: list[Walk]) -> None:
    """F12."""
    for walk in walks[::7]:
        again = walk.engine.submit(walk.request).completion()
        streamed = walk.completion
        assert (again.text, again.stop_reason) == (streamed.text, streamed.stop_reason)
        assert again.usage.completion_tokens == streamed.usage.completion_tokens
        assert [(call.name, call.arguments) for call in again.tool_calls] == [
            (call.name, call.arguments) for call in streamed.tool_calls
        ]


# --- What the walks saw


def optional_properties(schema: Any, path: tuple[str, ...] = ()) -> set[tuple[str, ...]]:
    """The names of optional properties, by way of properties and items."""
    found: set[tuple[str, ...]] = set()
    for name, each in schema.get("properties", {}).items():
        found |= optional_properties(each, (*path, name))
        if name not in schema.get("required", ()):
            found.add((*path, name))
    return found | (optional_properties(schema["items"], path) if isinstance(schema.get("items"), dict) else set())


def written_properties(value: Any, path: tuple[str, ...] = ()) -> set[tuple[str, ...]]:
    if isinstance(value, list):
        return {each for item in value for each in written_properties(item, path)}
    if not isinstance(value, dict):
        return set()
    return {
        each for name, inner in value.items() for each in {(*path, name)} | written_properties(inner, (*path, name))
    }


@dataclass
class Coverage:
    """Counts over all walks."""

    num_walks: int
    num_auto: int = 0
    num_with_call: int = 0
    num_with_two: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    num_calls: int = 0
    unseen_tools: set[str] = field(default_factory=set)
    unseen_properties: set[tuple[str, ...]] = field(default_factory=set)

    @property
    def positions_to_see(self) -> list[int]:
        """Of the tool sets with something unseen."""
        unseen = self.unseen_tools | {path[0] for path in self.unseen_properties}
        return sorted({int(name.split()[0]) for name in unseen})

    def __str__(self) -> str:
        reasons = ", ".join(f"{count} by {reason}" for reason, count in sorted(self.reasons.items()))
        return (
            f"random walks: {self.num_walks} through {len(TOOL_SETS)} tool sets ({reasons}), "
            f"{self.num_calls} complete calls; auto: {self.num_with_call} of {self.num_auto} open a call, "
            f"{self.num_with_two} of these a second; unseen: {len(self.unseen_tools)} tools, "
            f"{len(self.unseen_properties)} optional properties"
        )


def coverage_of(walks: list[Walk]) -> Coverage:
    coverage = Coverage(len(walks))
    coverage.unseen_tools = {f"{position} {each.name}" for position, tools in enumerate(TOOL_SETS) for each in tools}
    for position, tools in enumerate(TOOL_SETS):
        for each in tools:
            optional = optional_properties(each.parameters or {})
            coverage.unseen_properties |= {(f"{position} {each.name}", *path) for path in optional}
    for walk in walks:
        coverage.reasons[walk.completion.stop_reason.value] += 1
        coverage.num_calls += walk.num_closed
        for call in walk.completion.tool_calls:
            key = f"{walk.position} {call.name}"
            coverage.unseen_tools.discard(key)
            coverage.unseen_properties -= {(key, *path) for path in written_properties(json.loads(call.arguments))}
    auto = of_mode(walks, "auto")
    coverage.num_auto = len(auto)
    coverage.num_with_call = sum(walk.num_opened > 0 for walk in auto)
    coverage.num_with_two = sum(walk.num_opened > 1 for walk in auto)
    return coverage


def test_the_walks_cover_calls_second_calls_every_tool_and_every_optional_property(
    walks: list[Walk], capsys: pytest.CaptureFixture[str]
) -> None:
    coverage = coverage_of(walks)
    with capsys.disabled():
        print(f"\n{coverage}")
    assert coverage.num_walks >= NUM_WALKS
    assert coverage.num_with_call >= 0.3 * coverage.num_auto
    assert coverage.num_with_two >= 0.2 * coverage.num_with_call
    assert coverage.unseen_tools == set()
    assert coverage.unseen_properties == set()
    assert coverage.reasons.keys() == {"eos", "grammar_end", "length"}
