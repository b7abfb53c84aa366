"""A turn is free text, calls of the offered tools, or a response: as the request allows, for each family."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import GrammarError, SchemaError, UnenforceableError
from engine.events import Enforcement
from engine.grammars.llguidance_backend import LLGuidanceCompiler
from engine.grammars.tool_format import ToolFormat
from engine.grammars.tool_formats import HERMES, PLAIN
from engine.grammars.turn import build_turn
from engine.types import Grammar, Tool, ToolCall, ToolChoice, ToolChoiceMode
from tests.fakes import fake_tokenizer
from tests.grammars.turns import (
    BOTH,
    CLOCK,
    NONE,
    PARIS,
    REQUIRED,
    STRING,
    WEATHER,
    accepted,
    accepts,
    an_object,
    between,
    call_of,
    calls,
    compiler_of,
    each_family,
    matcher_of,
    refused,
    request,
    takes,
    tokenizer_of,
    turn_of,
    written,
    wrong_calls,
)

ONLY_CLOCK = ToolChoice(ToolChoiceMode.REQUIRED, allowed=("clock",))
MAYBE_CLOCK = ToolChoice(ToolChoiceMode.AUTO, allowed=("clock",))


TEXTS = [
    "a",
    "The answer is 42.\n\n",
    "< b and <tool kit>",
    "<tool",
    "<tool_call",
    "<<<<",
    "functional programming with function() and {}",
    '{"name": "weather", "arguments": {"city": "Paris"}}',
    "naïve 日本 😀 \u2028",
    "```json\n{}\n```",
]


# --- auto


@each_family
def test_auto_is_text_or_calls_or_text_and_then_calls(family: ToolFormat) -> None:
    """F10, F19."""
    weather, clock = ("weather", PARIS), ("clock", {})
    good = [
        *TEXTS,
        "",
        calls(family, weather),
        calls(family, clock),
        calls(family, weather, clock),
        calls(family, clock, weather, weather, clock),
        *(text + calls(family, weather) for text in TEXTS),
        "a <tool_cal <tool_call" + calls(family, clock, clock),
    ]
    assert refused(request(*BOTH), family, good) == []


@each_family
@pytest.mark.parametrize("text", ["", "Let me see. "])
def test_in_auto_a_call_that_starts_can_only_be_a_valid_call_of_an_offered_tool(family: ToolFormat, text: str) -> None:
    """F10; F11: text before a call changes nothing."""
    assert accepted(request(*BOTH), family, [text + wrong for wrong in wrong_calls(family)]) == []


@each_family
def test_after_the_last_call_only_the_end_of_the_turn_or_another_call_can_follow(family: ToolFormat) -> None:
    matcher, tokenizer = matcher_of(request(*BOTH), family), tokenizer_of(family)
    matcher.accept(tokenizer.encode(calls(family, ("clock", {}))))
    assert matcher.is_accepting
    assert not matcher.is_terminated
    separator = tokenizer.encode(between(family))[0]
    allowed = {token for token in range(tokenizer.num_tokens) if matcher.validate([token])}
    assert allowed == {separator} | tokenizer.eos_ids


@each_family
def test_text_may_end_anywhere(family: ToolFormat) -> None:
    matcher, tokenizer = matcher_of(request(*BOTH), family), tokenizer_of(family)
    for token in tokenizer.encode("some <tool_call text"):
        matcher.accept([token])
        assert matcher.is_accepting
        assert all(matcher.validate([end]) for end in tokenizer.eos_ids)


@each_family
def test_after_the_marker_the_rest_of_the_call_is_forced_up_to_the_first_choice(family: ToolFormat) -> None:
    """F14."""
    matcher, tokenizer = matcher_of(request(CLOCK), family), tokenizer_of(family)
    matcher.accept(tokenizer.encode("Hm. " + family.marker))
    forced = tokenizer.decode(matcher.forced_tokens())
    assert call_of(family, "clock", {}).removeprefix(family.marker).startswith(forced)
    assert forced.startswith('\n{"name": "clock", "arguments": {}')


def test_a_marker_of_ordinary_text_opens_a_call_however_it_is_cut_into_tokens() -> None:
    """F19."""
    matcher, tokenizer = matcher_of(request(CLOCK), PLAIN), tokenizer_of(PLAIN)
    letters = [token for letter in call_of(PLAIN, "clock", {}) for token in tokenizer.encode(letter)]
    assert takes(matcher.copy(), letters)
    matcher.accept(letters[: len(PLAIN.marker)])
    assert not matcher.is_accepting
    assert matcher.validate(tokenizer.encode("x")) == 0


@pytest.mark.parametrize("choice", [ToolChoice(), NONE])
def test_a_marker_that_is_a_token_cannot_be_spelled_in_text(choice: ToolChoice) -> None:
    """F12: in the next prompt, its spelling would be the token. F19: what only begins like it is text."""
    asked, tokenizer = request(CLOCK, choice=choice), tokenizer_of(HERMES)
    spelled = [token for letter in "<tool_call>" for token in tokenizer.encode(letter)]
    assert not takes(matcher_of(asked, HERMES), spelled)
    assert takes(matcher_of(asked, HERMES), [*spelled[:-1], *tokenizer.encode(" hello>")])


# --- none, required, named, allowed, one call only


@each_family
def test_without_calls_the_marker_cannot_be_written(family: ToolFormat) -> None:
    asked = request(*BOTH, choice=NONE)
    assert refused(asked, family, TEXTS) == []
    assert accepted(asked, family, [family.marker, "a " + family.marker, calls(family, ("clock", {}))]) == []


def test_without_calls_a_marker_token_that_the_tokenizer_calls_ordinary_cannot_be_written_either() -> None:
    """Qwen's <tool_call> is such a token: a free row would allow it."""
    tokenizer = fake_tokenizer(hermes=True, special_markers=False)
    (marker,) = tokenizer.encode(HERMES.marker)
    assert marker not in tokenizer.special_ids
    compiler = LLGuidanceCompiler(tokenizer.backend_json(), eos_ids=sorted(tokenizer.eos_ids))
    matcher = build_turn(request(CLOCK, choice=NONE), HERMES, tokenizer.unspellable).compile(compiler)
    assert matcher is not None
    assert matcher.validate([marker]) == 0
    assert matcher.validate(tokenizer.encode("text"))


@each_family
def test_required_begins_with_a_call(family: ToolFormat) -> None:
    """F9."""
    asked = request(*BOTH, choice=REQUIRED)
    good = [calls(family, ("weather", PARIS)), calls(family, ("clock", {}), ("clock", {}))]
    assert refused(asked, family, good) == []
    bad = ["", *TEXTS, *(text + good[0] for text in ("a", " ", "\n")), *wrong_calls(family)]
    assert accepted(asked, family, bad) == []


@each_family
def test_a_named_choice_is_one_call_of_that_tool(family: ToolFormat) -> None:
    """F8, F26."""
    asked = request(*BOTH, choice=ToolChoice.named("clock"))
    assert accepts(asked, family, calls(family, ("clock", {})))
    bad = [calls(family, ("weather", PARIS)), calls(family, ("clock", {}), ("clock", {})), "", *TEXTS]
    assert accepted(asked, family, bad) == []


@each_family
@pytest.mark.parametrize(("choice", "text_is_good"), [(ONLY_CLOCK, False), (MAYBE_CLOCK, True)])
def test_of_the_offered_tools_only_the_allowed_ones_can_be_called(
    family: ToolFormat, choice: ToolChoice, text_is_good: bool
) -> None:
    """F8."""
    asked = request(*BOTH, choice=choice)
    assert refused(asked, family, [calls(family, ("clock", {})), calls(family, ("clock", {}), ("clock", {}))]) == []
    assert not accepts(asked, family, calls(family, ("weather", PARIS)))
    assert not accepts(asked, family, calls(family, ("clock", {}), ("weather", PARIS)))
    assert accepts(asked, family, "Some text.") is text_is_good


@each_family
@pytest.mark.parametrize("mode", [ToolChoiceMode.AUTO, ToolChoiceMode.REQUIRED])
def test_where_calls_are_not_parallel_there_is_one_at_most(family: ToolFormat, mode: ToolChoiceMode) -> None:
    """F27."""
    for asked in (
        request(*BOTH, choice=ToolChoice(mode), parallel=False),
        request(*BOTH, choice=ToolChoice(mode, exactly_one=True)),
    ):
        assert accepts(asked, family, calls(family, ("clock", {})))
        assert not accepts(asked, family, calls(family, ("clock", {}), ("clock", {})))
        matcher = matcher_of(asked, family)
        matcher.accept(tokenizer_of(family).encode(calls(family, ("clock", {}))))
        assert matcher.is_terminated


@each_family
def test_a_request_without_tools_and_response_has_no_grammar(family: ToolFormat) -> None:
    turn = turn_of(request(), family)
    assert turn.source is None
    assert turn.compile(compiler_of(family)) is None
    assert not turn.has_calls


# --- What the format writes, the grammar accepts

WRITABLE = st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "S", "Z")) | st.sampled_from("\n\r\t\b\f"))
SOME_CALLS = st.lists(
    st.tuples(st.just("clock"), st.just({}))
    | st.builds(lambda city: ("weather", {"city": city}), WRITABLE)
    | st.builds(lambda city, days: ("weather", {"city": city, "days": days}), WRITABLE, st.integers(-(10**18), 10**18)),
    min_size=1,
    max_size=3,
)


@each_family
@given(named=SOME_CALLS)
@settings(deadline=None, max_examples=50)
def test_calls_as_the_format_writes_them_are_accepted_token_for_token(
    family: ToolFormat, named: list[tuple[str, Any]]
) -> None:
    """F26."""
    text = family.write_calls(tuple(ToolCall("id", name, written(arguments)) for name, arguments in named))
    assert takes(matcher_of(request(*BOTH), family), tokenizer_of(family).encode(text))


# --- Errors


PATTERN = ".properties.a.pattern"
BROKEN: list[tuple[str, Any, str, type[Exception]]] = [
    ("a keyword that is refused", an_object({"a": {"$ref": "http://x"}}), ".properties.a.$ref", UnenforceableError),
    ("a type that is none", an_object({"a": {"type": "txt"}}), ".properties.a.type", SchemaError),
    (
        "a regex that is none",
        an_object({"a": {"type": "string", "pattern": "("}}),
        PATTERN,
        UnenforceableError,
    ),
    ("a regex that looks around", an_object({"a": {"pattern": "(?=a)"}}), PATTERN, UnenforceableError),
    ("a regex that is too large", an_object({"a": {"pattern": "^a{1000000}$"}}), PATTERN, UnenforceableError),
    ("a regex that is read late", an_object({"a": {"type": "string", "pattern": "a$b"}}), PATTERN, GrammarError),
    ("no value", an_object({"a": False}, required=["a"]), "", SchemaError),
    ("a loop", an_object({"a": {"$ref": "#/properties/a"}}), ".properties.a.$ref", SchemaError),
    ("no object", {"type": "string"}, ".type", SchemaError),
]


@each_family
@pytest.mark.parametrize(("parameters", "where", "kind"), [row[1:] for row in BROKEN], ids=[row[0] for row in BROKEN])
def test_an_error_names_the_one_bad_tool_and_without_it_the_request_is_good(
    family: ToolFormat, parameters: Any, where: str, kind: type[Exception]
) -> None:
    """F5, F6."""
    good, bad = Tool("good"), Tool("bad", "", parameters)
    with pytest.raises((SchemaError, GrammarError)) as caught:
        matcher_of(request(WEATHER, bad, good), family)
    assert caught.type is kind
    assert caught.value.param == f"tools[1].parameters{where}"
    assert str(caught.value).startswith("tools[1].parameters")
    assert accepts(request(WEATHER, good), family, calls(family, ("good", {})))


@each_family
def test_the_text_of_an_error_about_a_pattern_names_its_path(family: ToolFormat) -> None:
    """F6."""
    inner = an_object({"b c": {"type": "string", "pattern": "("}})
    with pytest.raises(SchemaError, match=r'tools\[0\]\.parameters\.properties\.a\.properties\["b c"\]\.pattern'):
        matcher_of(request(Tool("f", "", an_object({"a": inner}))), family)


@each_family
def test_a_bad_tool_that_may_not_be_called_harms_nobody(family: ToolFormat) -> None:
    """F5."""
    bad = Tool("bad", "", an_object({"a": {"$ref": "http://x"}}))
    assert accepts(request(CLOCK, bad, choice=MAYBE_CLOCK), family, calls(family, ("clock", {})))
    assert accepts(request(CLOCK, bad, choice=NONE), family, "text")


@each_family
@pytest.mark.parametrize("tools", [(), BOTH], ids=["alone", "beside tools"])
@pytest.mark.parametrize(
    "response",
    [
        Grammar.regex("("),
        Grammar.regex("a\\"),
        Grammar.regex("(?=a)"),
        Grammar.lark("start: nothing"),
        Grammar.lark("begin: /a/"),
        Grammar.lark(""),
        Grammar.choice([]),
        Grammar.choice(["a", ""]),
        Grammar.json_schema({"type": "string", "pattern": "a$b"}),
    ],
    ids=lambda response: f"{response.kind.value} {response.source[:20]}",
)
def test_an_error_names_the_response(family: ToolFormat, response: Grammar, tools: tuple[Tool, ...]) -> None:
    """F13."""
    with pytest.raises(GrammarError) as caught:
        matcher_of(request(*tools, response=response), family)
    # A pattern is named by a path of its own.
    has_pattern = "pattern" in response.source
    assert caught.value.param == ("response.pattern" if has_pattern else "response")


@each_family
def test_a_response_schema_is_refused_by_its_path(family: ToolFormat) -> None:
    with pytest.raises(SchemaError) as caught:
        turn_of(request(*BOTH, response=Grammar.json_schema(an_object({"a": {"pattern": "("}}))), family)
    assert caught.value.param == "response.properties.a.pattern"


@each_family
def test_a_request_may_be_lenient_and_may_be_strict_about_formats(family: ToolFormat) -> None:
    """F7."""
    odd = an_object({"a": {"type": "string", "format": "phone", "pattern": "(?=a)"}})
    lenient = replace(request(Tool("f", "", odd), choice=REQUIRED), lenient=True)
    entries = {entry.path: entry.enforcement for entry in turn_of(lenient, family).receipt.entries}
    assert entries["tools[0].parameters.properties.a.pattern"] is Enforcement.LENIENT
    assert accepts(lenient, family, calls(family, ("f", {"a": "x"})))
    with pytest.raises(SchemaError) as caught:
        turn_of(replace(request(response=Grammar.json_schema({"format": "phone"})), strict_formats=True), family)
    assert caught.value.param == "response.format"


@each_family
def test_the_receipt_names_the_tool_and_the_response_by_path(family: ToolFormat) -> None:
    described = an_object({"a": {**STRING, "description": "x"}})
    asked = request(CLOCK, Tool("f", "", described), response=Grammar.json_schema({"title": "t"}))
    entries = {entry.path: entry.enforcement for entry in turn_of(asked, family).receipt.entries}
    assert entries == {
        "tools[0].parameters": Enforcement.GRAMMAR,
        "tools[1].parameters.properties.a.description": Enforcement.ANNOTATION,
        "tools[1].parameters": Enforcement.NARROWED,
        "response": Enforcement.GRAMMAR,
        "response.title": Enforcement.ANNOTATION,
    }


@each_family
@pytest.mark.parametrize("source", ['start: "a" <|im_end|> "b"', "start: @turn", 'start: "a" | <[5]>'])
def test_a_callers_lark_grammar_cannot_name_special_tokens_or_our_grammars(family: ToolFormat, source: str) -> None:
    with pytest.raises(GrammarError) as caught:
        turn_of(request(response=Grammar.lark(source)), family)
    assert caught.value.param == "response"


@each_family
def test_signs_inside_a_callers_literals_are_its_own(family: ToolFormat) -> None:
    response = Grammar.lark('start: "<@" /[<@]/ // < and @\n')
    assert accepts(request(response=response), family, "<@<")
