"""For every family: what its model writes is accepted and read, whatever the arguments' strings are."""

import contextlib
import json
import re
from dataclasses import replace

import pytest

from engine.errors import GrammarError, SchemaError
from engine.grammars.encoders.literal import LiteralArguments
from engine.grammars.encoders.tagged import TaggedArguments
from engine.grammars.tool_format import Opening, ToolFormat
from engine.grammars.tool_formats import TOOL_FORMATS
from engine.grammars.turn import build_turn
from engine.grammars.turn_parser import ParsedEvent
from engine.tokenizer import Tokenizer
from engine.types import CustomTool, Request, Tool, ToolCall, ToolChoice, ToolChoiceMode
from tests import second_reading
from tests.fakes import USER, fake_tokenizer
from tests.families import FAMILIES, HOSTILE, Setting, reading_of
from tests.recorded_turns import CLOCK, PARIS, RECORDED, WEATHER, RecordedTurn

PLACEHOLDER = "\ue000"
each_family = pytest.mark.parametrize("family", TOOL_FORMATS, ids=lambda family: family.name)


def test_every_family_has_a_name_of_its_own_and_a_recorded_turn() -> None:
    assert len(FAMILIES) == len(TOOL_FORMATS)
    assert {turn.family.name for turn in RECORDED} == set(FAMILIES)


@pytest.mark.parametrize("turn", RECORDED, ids=lambda turn: turn.family.name)
def test_a_recorded_turn_is_accepted_token_for_token_and_read(turn: RecordedTurn) -> None:
    setting = Setting(turn.family, (WEATHER, CLOCK), opening=turn.opening)
    tokens = setting.encode(turn.text)
    assert setting.accepts(tokens)
    reading = reading_of(setting.read(tokens))
    assert reading.calls == turn.calls
    assert (reading.said, reading.thought) == (turn.said, turn.thought)


@pytest.mark.parametrize("turn", RECORDED, ids=lambda turn: turn.family.name)
def test_every_end_of_turn_ends_a_turn_of_calls_and_none_of_them_a_call(turn: RecordedTurn) -> None:
    """F1."""
    setting = Setting(turn.family, (WEATHER, CLOCK), opening=turn.opening)
    tokens, matcher = setting.encode(turn.text), setting.matcher()
    ends, decode = setting.tokenizer.eos_ids, setting.tokenizer.decode
    inside = next(at for at in range(len(tokens)) if "Paris" in decode(tokens[:at]))
    matcher.accept(tokens[:inside])
    assert [matcher.validate([end]) for end in ends] == [0] * len(ends)
    matcher.accept(tokens[inside:])
    # Where nothing else can follow, the turn is over without any.
    assert matcher.is_terminated or [matcher.validate([end]) for end in ends] == [1] * len(ends)


@pytest.mark.parametrize("turn", RECORDED, ids=lambda turn: turn.family.name)
def test_deltas_of_a_recorded_turn_add_up_to_it_however_it_is_cut(turn: RecordedTurn) -> None:
    """F12: text, reasoning and several calls."""
    setting = Setting(turn.family, (WEATHER, CLOCK), opening=turn.opening)
    reading = reading_of(letter_by_letter(setting, turn.text))
    assert (reading.calls, reading.said, reading.thought) == (turn.calls, turn.said, turn.thought)


@pytest.mark.parametrize("turn", RECORDED, ids=lambda turn: turn.family.name)
def test_the_format_writes_calls_as_the_recorded_turn_has_them(turn: RecordedTurn) -> None:
    calls = tuple(ToolCall("id", name, json.dumps(arguments)) for name, arguments in turn.calls)
    family, ids = turn.family, turn.family.call_ids
    if ids is None:
        assert turn.text.endswith(tuple(way.write_calls(calls) for way in (family, *family.other_ways)))
    else:  # the model's own ids in the place of ours
        written = replace(family, call_ids=replace(ids, written=PLACEHOLDER)).write_calls(calls)
        assert re.search(re.escape(written).replace(PLACEHOLDER, ids.pattern) + r"\Z", turn.text)


def raw_end(family: ToolFormat) -> str:
    """What ends a string that the family writes as it is; nothing where strings are escaped."""
    if isinstance(family.arguments, TaggedArguments):
        return family.arguments.close_tag
    return family.arguments.values.quote if isinstance(family.arguments, LiteralArguments) else ""


def unwritable(setting: Setting) -> str:
    """What no string can contain: a tagged family's own close tag, and a quote around raw strings that is no token."""
    end, is_tagged = raw_end(setting.family), isinstance(setting.family.arguments, TaggedArguments)
    return end if is_tagged or end not in setting.tokenizer.unspellable else ""


def hostile_strings(setting: Setting) -> list[str]:
    """Every family's markers and quotes, and what is hard for any of them, but for what is unwritable."""
    close = unwritable(setting)
    markers = {text.strip() for each in TOOL_FORMATS for text in each.literals if text.strip()}
    texts = [
        *sorted(markers),
        *HOSTILE,
        "",
        " ",
        "\n\n",
        '"quoted"',
        "a\\n",
        "naïve",
        "null",
        "True",
        "5",
        "<",
        "\u2028",
    ]
    return [text for text in texts if not close or close not in text]


@each_family
def test_strings_of_markup_survive_as_arguments(family: ToolFormat) -> None:
    """F20, F23, F24: all but a tagged family's own close tag."""
    setting = Setting(family, (WEATHER,), choice=ToolChoice.named("get_weather"))
    for text in hostile_strings(setting):
        tokens = spelled_call(setting, text)
        assert setting.accepts(tokens), text
        assert reading_of(setting.read(tokens)).calls == (("get_weather", {"city": text}),), text


def spelled_call(setting: Setting, city: str) -> list[int]:
    """The call, with its string spelled by ordinary tokens."""
    family = setting.family
    whole = family.write_call("get_weather", json.dumps({"city": PLACEHOLDER}, ensure_ascii=False))
    before, _, after = whole.partition(PLACEHOLDER)
    inside = city if raw_end(family) else json.dumps(city, ensure_ascii=False)[1:-1]
    letters = [token for letter in inside for token in spelled(setting.tokenizer, letter)]
    return [*setting.encode(before), *letters, *setting.encode(after)]


def spelled(tokenizer: Tokenizer, letter: str) -> list[int]:
    """By bytes where the tokenizer takes the letter for another: SentencePiece has a stand-in for spaces."""
    tokens = tokenizer.encode_parts(["", letter])
    if tokenizer.decode(tokens) == letter:
        return tokens
    by_bytes = {tokenizer.token_bytes(token): token for token in range(tokenizer.num_tokens)}
    return [by_bytes[bytes([byte])] for byte in letter.encode()]


RAW_QUOTES = [family for family in TOOL_FORMATS if raw_end(family) and isinstance(family.arguments, LiteralArguments)]
each_with_raw_quotes = pytest.mark.parametrize("family", RAW_QUOTES, ids=lambda family: family.name)


@each_with_raw_quotes
def test_a_quote_that_is_spelled_in_a_string_does_not_end_it(family: ToolFormat) -> None:
    """F20: the quote is a token of the vocabulary, and its spelling in ordinary tokens is text; constants too."""
    quote = raw_end(family)
    texts = [f"a{quote}b", quote, f"{quote}{quote}", f"{quote},days:3}}<tool_call|>", f"{quote}}}<end_function_call>"]
    city = {"anyOf": [{"enum": texts}, {"type": "string", "minLength": 60}]}
    tool = Tool("get_weather", "", {"type": "object", "properties": {"city": city}, "required": ["city"]})
    for tools, wanted in (((WEATHER,), texts), ((tool,), [*texts, f"{quote}{'x' * 60}"])):
        setting = Setting(family, tools, choice=ToolChoice.named("get_weather"))
        assert unwritable(setting) == ""
        for text in wanted:
            tokens = spelled_call(setting, text)
            assert setting.accepts(tokens), text
            assert reading_of(setting.read(tokens)).calls == (("get_weather", {"city": text}),), text
    only = Tool("get_weather", "", {**(tool.parameters or {}), "properties": {"city": {"const": f"a{quote}b"}}})
    setting = Setting(family, (only,), choice=ToolChoice.named("get_weather"))
    matcher, written = setting.matcher(), list[int]()
    while forced := [token for token in matcher.forced_tokens() if token not in setting.tokenizer.eos_ids]:
        matcher.accept(forced)
        written += forced
    assert reading_of(setting.read(written)).calls == (("get_weather", {"city": f"a{quote}b"}),)


@each_with_raw_quotes
def test_a_quote_that_is_no_token_cannot_be_in_a_string_and_the_receipt_says_so(family: ToolFormat) -> None:
    """The one thing besides tagged families' close tags that no string holds; a constant with it is refused."""
    setting, quote = WithoutTokens(family, (WEATHER,), choice=ToolChoice.named("get_weather")), raw_end(family)
    assert unwritable(setting) == quote
    assert not setting.accepts(setting.encode(family.write_call("get_weather", json.dumps({"city": f"a{quote}b"}))))
    details = {entry.path: entry.detail for entry in setting.turn.receipt.entries}
    assert details["tools[0].parameters.properties.city"] == f"strings cannot contain {quote}"
    constant = Tool("f", "", {"type": "object", "properties": {"city": {"const": quote}}})
    with pytest.raises(SchemaError, match="ends a string"):
        _ = WithoutTokens(family, (constant,)).turn


class WithoutTokens(Setting):
    """A vocabulary that has none of the families' tokens: theirs is a family that was asked for by name."""

    @property
    def tokenizer(self) -> Tokenizer:
        return fake_tokenizer()


@each_family
def test_strings_inside_of_objects_survive_where_markers_are_text(family: ToolFormat) -> None:
    """F20: also a tagged family's own close tag, which only an argument that is a string cannot contain.

    Not the quote around raw strings, which is no token here: what is said of it has a test of its own.
    """
    parameters = {"type": "object", "properties": {"at": {"type": "object"}}}
    setting = WithoutTokens(family, (Tool("store", "", parameters),), choice=ToolChoice.named("store"))
    matcher, is_tagged = setting.matcher(), isinstance(family.arguments, TaggedArguments)
    for text in [*hostile_strings(setting), *([raw_end(family)] if is_tagged else [])]:
        arguments = {"at": {"text": [text, 1]}}
        tokens = setting.encode(family.write_call("store", json.dumps(arguments, ensure_ascii=False)))
        assert matcher.validate(tokens) == len(tokens), text
        assert reading_of(setting.read(tokens)).calls == (("store", arguments),), text


@pytest.mark.parametrize(
    ("case", "name"), [(case, name) for case in second_reading.OTHERWISE for name in case.families], ids=str
)
def test_calls_that_mlx_lm_reads_otherwise_are_read_as_they_are_meant(
    case: second_reading.ReadOtherwise, name: str
) -> None:
    """What docs/families.md says of mlx-lm's parsers."""
    setting = WithoutTokens(FAMILIES[name], (case.tool,), choice=ToolChoice.named(case.name))
    text = FAMILIES[name].write_calls((case.call,))
    tokens = setting.encode(text)
    assert setting.matcher().validate(tokens) == len(tokens)
    assert reading_of(setting.read(tokens)).calls == ((case.name, case.arguments),)
    theirs: object = None
    with contextlib.suppress(ValueError):
        theirs = second_reading.read(name, text, [case.tool])
    assert theirs != [(case.name, case.arguments)]


@each_family
def test_deltas_add_up_to_the_same_however_the_turn_is_cut(family: ToolFormat) -> None:
    """F12."""
    setting = Setting(family, (WEATHER,), choice=ToolChoice.named("get_weather"))
    arguments = {"city": 'A "b" \\ c\n<d> 日本 😀', "days": -30}
    text = family.write_call("get_weather", json.dumps(arguments, ensure_ascii=False))
    assert reading_of(letter_by_letter(setting, text)).calls == (("get_weather", arguments),)


def letter_by_letter(setting: Setting, text: str) -> list[ParsedEvent]:
    """What the parser says of the text that comes a character at a time, tokens whole."""
    unspellable, parser = setting.tokenizer.unspellable, setting.parser()
    events, position = list[ParsedEvent](), 0
    while position < len(text):
        token = next((each for each in unspellable if text.startswith(each, position)), text[position])
        events += parser.feed(token, special=token in unspellable)
        position += len(token)
    return [*events, *parser.finish()]


@each_family
def test_a_call_that_is_cut_anywhere_is_not_complete_and_leaves_no_markup(family: ToolFormat) -> None:
    """F1, F12."""
    setting = Setting(family, (WEATHER,))
    text = family.write_call("get_weather", '{"city": "Paris"}')
    tokens, call = setting.encode(text), text.removesuffix(family.calls_end)
    first = len(setting.encode(family.marker))
    for length in range(first, len(tokens)):
        reading = reading_of(setting.read(tokens[:length]))
        assert reading.said == "", length
        is_whole = len(setting.tokenizer.decode(tokens[:length])) >= len(call)  # only the end of all calls is cut off
        assert reading.calls == ((PARIS,) if is_whole else ()), length


@each_family
def test_without_calls_the_marker_cannot_be_written(family: ToolFormat) -> None:
    setting = Setting(family, (WEATHER,), choice=ToolChoice(ToolChoiceMode.NONE))
    assert not setting.accepts(setting.encode(family.write_call("get_weather", '{"city": "Paris"}')))
    assert setting.accepts(setting.encode(family.text_begin + "Some text: [a], {b}."))


@each_family
def test_a_forced_call_is_cut_as_the_tokenizer_cuts_it(family: ToolFormat) -> None:
    """F14: from the prompt's border on."""
    setting = Setting(family, (Tool("clock"),), choice=ToolChoice.named("clock"))
    text = family.write_call("clock", "{}")
    forced = setting.matcher().forced_tokens()
    assert forced
    assert forced == setting.encode(text)[: len(forced)]
    at_id = text if family.call_ids is None else text.partition(family.call_ids.of("clock", 0))[0]
    assert len(setting.tokenizer.decode(forced)) >= len(at_id) - 12  # what could merge with what follows is not forced


@each_family
def test_only_an_offered_tool_can_be_called(family: ToolFormat) -> None:
    """F8, F10."""
    for opening in (Opening.NONE,):
        setting = Setting(family, (WEATHER,), opening=opening)
        for wrong in ("get_weathe", "get_weather2", "weather", "Get_weather"):
            assert not setting.accepts(setting.encode(family.write_call(wrong, '{"city": "Paris"}')))
        for arguments in ("{}", '{"days": 3}', '{"city": "Paris", "planet": "Earth"}', '{"city": "P", "days": "x"}'):
            assert not setting.accepts(setting.encode(family.write_call("get_weather", arguments)))


def test_the_receipt_says_what_a_family_cannot_do() -> None:
    """One call a turn, and text that cannot begin as a call does."""

    def details(family: ToolFormat, choice: ToolChoice) -> dict[str, str]:
        turn = build_turn(Request(messages=(USER,), tools=(CLOCK,), tool_choice=choice), family, {})
        return {entry.path: entry.detail for entry in turn.receipt.entries if "." not in entry.path}

    auto, named = ToolChoice(), ToolChoice.named(CLOCK.name)
    one_call = "the model's format has one call a turn"
    assert details(FAMILIES["harmony"], auto) == {"parallel_tool_calls": one_call}
    assert details(FAMILIES["llama4-pythonic"], auto) == {"tool_choice": "text cannot begin with [ or <|python_start|>"}
    assert set(details(FAMILIES["llama3-json"], auto)) == {"parallel_tool_calls", "tool_choice"}
    assert details(FAMILIES["llama3-json"], named) == details(FAMILIES["hermes"], auto) == {}


def test_a_custom_tool_is_refused_where_the_family_has_no_way_to_call_it() -> None:
    request = Request(messages=(USER,), tools=(CLOCK, CustomTool("run")))
    for family in TOOL_FORMATS:
        if family.input_end:
            assert build_turn(request, family, {}).has_calls
            continue
        with pytest.raises(GrammarError, match=family.name) as caught:
            build_turn(request, family, {})
        assert caught.value.param == "tools[1]"
