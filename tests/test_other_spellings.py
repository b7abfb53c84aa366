"""Calls in spellings that are not the family's: models write them, and they must not come out as text."""

import pytest

from engine.decision_options import DecisionOptions
from engine.engine import Engine
from engine.events import Completion
from engine.grammars.turn import build_turn
from engine.types import Grammar, Request, ToolChoice, ToolChoiceMode
from tests.deciders import ALONE, CALL, LOOK, TEXT, TOOLS, decided, decider
from tests.fakes import USER, fake_tokenizer
from tests.families import AUTO, FAMILIES, Setting, compiler_of, reading_of
from tests.recorded_turns import CLOCK, PARIS, WEATHER
from tests.test_families import WithoutTokens, spelled

NONE = ToolChoice(ToolChoiceMode.NONE)
SPELLINGS = [  # family, a call as some program's parser takes it
    ("llama3-json", '{"type": "function", "name": "get_weather", "parameters": {"city": "Paris"}}'),  # vllm#46863
    ("llama3-json", '{"name":"get_weather","parameters":{"city":"Paris"}}'),
    ("llama3-json", '{\n  "name": "get_weather",\n  "parameters": {"city": "Paris"}\n}'),
    ("llama3-json", '{ "name": "get_weather", "parameters": {"city": "Paris"}}'),
    ("llama3-json", '\n\n{"name": "get_weather", "parameters": {"city": "Paris"}}'),
    ("llama3-json", '{"function": "get_weather", "parameters": {"city": "Paris"}}'),
    ("llama3-json", '<|python_tag|>{"name": "get_weather", "parameters": {"city": "Paris"}}'),
    ("llama4-pythonic", '<|python_start|>[get_weather(city="Paris")]<|python_end|>'),  # vllm#16214
    ("llama4-pythonic", ' [get_weather(city="Paris")]'),
    ("cogito-llama", '[{"type": "function", "name": "get_weather", "arguments": {"city": "Paris"}}]'),
    ("cogito-llama", '[\n{"name": "get_weather", "arguments": {"city": "Paris"}}]'),
    ("phi4-mini", 'functools[{"name": "get_weather", "arguments": {"city": "Paris"}}]'),  # vllm's parser for it
    ("phi4-mini", ' functools[{"name": "get_weather", "arguments": {"city": "Paris"}}]'),
]


@pytest.mark.parametrize("choice", [AUTO, NONE], ids=["auto", "none"])
@pytest.mark.parametrize(("name", "call"), SPELLINGS)
def test_a_call_in_another_spelling_cannot_be_written_as_text(name: str, call: str, choice: ToolChoice) -> None:
    """F10, F12: neither with the vocabulary's tokens, nor with a marker that is spelled in letters."""
    own = Setting(FAMILIES[name], (WEATHER, CLOCK), choice=choice)
    assert not own.accepts(own.encode(call))
    assert not own.accepts([token for letter in call for token in spelled(own.tokenizer, letter)])
    without = WithoutTokens(FAMILIES[name], (WEATHER, CLOCK), choice=choice)
    assert not without.accepts(without.encode(call))


@pytest.mark.parametrize("choice", [AUTO, NONE], ids=["auto", "none"])
@pytest.mark.parametrize("name", sorted({name for name, _ in SPELLINGS}))
def test_text_that_does_not_begin_as_a_call_does_is_free(name: str, choice: ToolChoice) -> None:
    setting = Setting(FAMILIES[name], (WEATHER, CLOCK), choice=choice)
    for text in ('Here: {"a": [1]}', "```json\n{}\n```", "\n\n(a) function", "fun", "<b>"):
        tokens = setting.encode(text)
        assert setting.accepts(tokens), text
        assert reading_of(setting.read(tokens)).said == text


def test_a_model_that_begins_a_call_in_another_spelling_goes_on_in_the_family_s() -> None:
    """vllm#46863: `{"type"` begins with the token that the family's call begins with."""
    setting = Setting(FAMILIES["llama3-json"], (WEATHER, CLOCK))
    matcher, (first, second, *_) = setting.matcher(), setting.encode('{"type": "function"')
    matcher.accept([first])
    assert matcher.validate([second]) == 0
    assert setting.tokenizer.decode([first, *matcher.forced_tokens()]).startswith('{"name":')


@pytest.mark.parametrize("name", ["llama3-json", "llama4-pythonic", "cogito-llama"])
def test_the_beginning_of_a_call_that_was_cut_off_is_no_text(name: str) -> None:
    """F1, F12: not even its first character, with which no text begins."""
    setting = Setting(FAMILIES[name], (WEATHER,))
    text = FAMILIES[name].write_call("get_weather", '{"city": "Paris"}')
    for length in range(1, len(FAMILIES[name].marker) + 1):
        parser = setting.parser()
        assert parser.feed(text[:length]) + parser.finish(cut=True) == [], length
    assert reading_of(setting.read(setting.encode(text))).calls == (PARIS,)


def test_an_answer_that_is_json_needs_a_response_format_or_words_before_it() -> None:
    """What the rule costs, as docs/families.md says; the receipt says so too."""
    setting = Setting(FAMILIES["llama3-json"], (WEATHER,))
    assert not setting.accepts(setting.encode('{"answer": 42}'))
    assert setting.accepts(setting.encode('Here it is: {"answer": 42}'))
    for choice in (AUTO, NONE):
        request = Request(messages=(USER,), tools=(CLOCK,), tool_choice=choice)
        details = [entry.detail for entry in build_turn(request, FAMILIES["llama3-json"], {}).receipt.entries]
        assert "text cannot begin with { or <|python_tag|>" in details
    assert not build_turn(Request(messages=(USER,)), FAMILIES["llama3-json"], {}).receipt.entries


OBJECT = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
NAMED = {"type": "object", "properties": {"name": OBJECT}, "required": ["name"]}


@pytest.mark.parametrize(
    ("name", "schema", "response"),
    [
        ("llama3-json", OBJECT, '{"a": 1}'),
        ("llama3-json", {**OBJECT, "uniqueItems": True}, '{"a": 1}'),
        ("llama3-json", NAMED, '{"name": {"a": 1}}'),
        ("llama3-json", {**NAMED, "additionalProperties": False}, '{"name": {"a": 1}}'),
        ("cogito-llama", OBJECT, '{"a": 1}'),
        ("cogito-llama", {"type": "array", "items": NAMED}, '[{"name": {"a": 1}}]'),
        ("cogito-llama", {"type": "array", "items": OBJECT}, '[{"a": 1}]'),
        ("llama4-pythonic", OBJECT, '{"a": 1}'),
    ],
)
def test_a_response_may_begin_with_the_bracket_that_calls_begin_with(name: str, schema: object, response: str) -> None:
    """F21: both hold; a lexer that reads on through the call's marker must not take the response away."""
    family, tokenizer = FAMILIES[name], fake_tokenizer()
    asked = Request(messages=(USER,), tools=(WEATHER,), response=Grammar.json_schema(schema))
    turn = build_turn(asked, family, tokenizer.unspellable)
    for text in (response, family.write_call("get_weather", '{"city": "Paris"}')):
        matcher = turn.compile(compiler_of(tokenizer))
        assert matcher is not None
        matcher.accept(tokenizer.encode_parts(["", text]))
        assert matcher.is_accepting, text


# The decision between call and text.


@pytest.mark.parametrize("p", [0.3, 0.9])
def test_the_decision_counts_whatever_begins_a_call(p: float) -> None:
    """Behind `{` only a call can follow, whichever spelling the model was about to write."""
    assert decided(answered_in_llama3(p, LOOK)).p_call == pytest.approx(p, rel=1e-4)
    assert bool(answered_in_llama3(p, LOOK).tool_calls) is (p > 0.5)
    assert answered_in_llama3(p, CALL).tool_calls
    assert (answered_in_llama3(p, TEXT).text, answered_in_llama3(p, TEXT).tool_calls) == ("Y", ())


def answered_in_llama3(p: float, decision: DecisionOptions) -> Completion:
    loaded = decider({"": {'{"': p, "Y": 1 - p}, '{"': {"type": 1.0}}, hermes=False)
    with Engine(loaded, config=ALONE, tool_format="llama3-json") as engine:
        return engine.chat([USER], decision=decision, tools=TOOLS, max_tokens=60)


def test_beside_a_response_the_whole_marker_is_what_tells_a_call() -> None:
    """F21: the response may begin with `{` too."""
    loaded = decider({"": {'{"': 1.0}, '{"': {"a": 1.0}, '{"a': {'":': 1.0}, '{"a":': {" ": 1.0}}, hermes=False)
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    asked = Request(messages=(USER,), tools=TOOLS, response=Grammar.json_schema(schema), decision=LOOK, max_tokens=60)
    with Engine(loaded, config=ALONE, tool_format="llama3-json") as engine:
        completion = engine.submit(asked).completion()
    assert decided(completion).p_call < 1e-9
    assert (completion.text or "").startswith('{"a": ')
    assert completion.tool_calls == ()
