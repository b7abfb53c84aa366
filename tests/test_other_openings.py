"""Where a family has other ways to open a call: the model may choose them, and nobody else ever writes them."""

from collections.abc import Mapping
from dataclasses import replace

import pytest

from engine.engine import Engine
from engine.errors import MatcherError
from engine.events import Completion
from engine.grammars.tool_format import Opening, OtherOpening, ToolFormat
from engine.grammars.tool_formats import TOOL_FORMATS
from engine.grammars.turn import build_turn
from engine.model import LoadedModel
from engine.types import (
    DecisionOptions,
    Grammar,
    Message,
    Request,
    Role,
    SamplingParams,
    Tool,
    ToolCall,
    ToolChoice,
    ToolChoiceMode,
)
from tests.chat_templates import TEMPLATES
from tests.deciders import ALONE, CALL, LOOK, TEXT, decided, decider, pieces
from tests.fakes import USER, fake_loaded
from tests.families import FAMILIES, OfModel, Setting, compiler_of, reading_of, small_vocabulary
from tests.recorded_turns import CLOCK, PARIS, WEATHER
from tests.test_chat_templates import rendered
from tests.test_families import hostile_strings, letter_by_letter, spelled_call
from tests.test_family_calls import TEMPLATE, Scripted

CASES = [(family, way) for family in TOOL_FORMATS for way in family.other_ways]
TOOLS, CLOCKS = (WEATHER, CLOCK), (Tool("clock"),)
IN_PARIS = '{"city": "Paris"}'
REQUIRED, NONE = ToolChoice(ToolChoiceMode.REQUIRED), ToolChoice(ToolChoiceMode.NONE)
each_way = pytest.mark.parametrize(("family", "way"), CASES, ids=lambda family: family.name)


def test_a_family_that_has_another_way_is_among_them() -> None:
    assert "harmony" in {family.name for family, _ in CASES}


# What may be written.


@each_way
@pytest.mark.parametrize("choice", [REQUIRED, ToolChoice.named(CLOCK.name), NONE], ids=["required", "named", "none"])
def test_only_a_call_of_the_models_choice_is_opened_so(family: ToolFormat, way: ToolFormat, choice: ToolChoice) -> None:
    """F26: where a call must come, what opens it is forced as if there were no other way."""
    setting, only = Setting(family, TOOLS, choice=choice), Setting(bare(family), TOOLS, choice=choice)
    assert not setting.accepts(setting.encode(way.write_call(CLOCK.name, "{}")))
    assert setting.turn.source == only.turn.source
    assert setting.matcher().forced_tokens() == only.matcher().forced_tokens()


def bare(family: ToolFormat) -> ToolFormat:
    return replace(family, other_openings=())


@each_way
def test_in_auto_only_an_offered_tool_is_called_so_and_once(family: ToolFormat, way: ToolFormat) -> None:
    """F8, F10, F27."""
    setting = Setting(family, TOOLS)

    def takes(text: str) -> bool:
        return setting.accepts(setting.encode(text))

    call = way.write_call("get_weather", IN_PARIS)
    assert takes(call)
    assert not takes(call + call)
    assert not takes(f"{call} ")
    assert not takes(call[:-1])
    assert not takes(f"{way.marker}get_weather{family.before_arguments}{IN_PARIS}")
    assert not takes(f"{family.marker}get_weather{way.before_arguments}{IN_PARIS}")
    for wrong in ("get_weathe", "get_weather2", "Get_weather", ""):
        assert not takes(way.write_call(wrong, IN_PARIS)), wrong
    for arguments in ("{}", '{"city": 5}', '{"city": "Paris", "planet": "Earth"}'):
        assert not takes(way.write_call("get_weather", arguments)), arguments


@each_way
def test_behind_its_beginning_all_up_to_the_name_is_forced_as_the_tokenizer_cuts_it(
    family: ToolFormat, way: ToolFormat
) -> None:
    """F14."""
    setting = Setting(family, (Tool("clock"),))
    whole, matcher = setting.encode(way.write_call("clock", "{}")), setting.matcher()
    matcher.accept(whole[:1])
    forced = matcher.forced_tokens()
    assert [*whole[:1], *forced] == whole[: 1 + len(forced)]
    assert setting.tokenizer.decode([*whole[:1], *forced]).startswith(way.marker + "clock")


@each_way
def test_text_may_have_such_a_beginning_in_it_and_stays_text(family: ToolFormat, way: ToolFormat) -> None:
    """F19: behind what marks text, it means nothing."""
    setting = Setting(family, TOOLS)
    for text in (f"{way.marker}get_weather", f"Like this:{way.marker}get_weather"):
        tokens = setting.encode(family.text_begin + text)
        assert setting.accepts(tokens)
        reading = reading_of(setting.read(tokens))
        assert (reading.said, reading.num_opened) == (text, 0)


@each_way
def test_outside_of_text_nothing_but_such_a_call_begins_so(family: ToolFormat, way: ToolFormat) -> None:
    setting = Setting(family, TOOLS)
    matcher = setting.matcher()
    for other in ("Hello", "to be", ""):
        tokens = setting.encode(way.marker[0] + other)
        assert matcher.validate(tokens) < len(tokens) or not setting.accepts(tokens)


@each_way
def test_beside_a_response_schema_it_is_a_call_too(family: ToolFormat, way: ToolFormat) -> None:
    """F21."""
    schema = Grammar.json_schema({"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]})
    request, tokenizer = Request(messages=(USER,), tools=TOOLS, response=schema), Setting(family, TOOLS).tokenizer
    for text in (way.write_call("get_weather", IN_PARIS), family.text_begin + '{"a": 1}'):
        matcher = build_turn(request, family, tokenizer.unspellable).compile(compiler_of(tokenizer))
        assert matcher is not None
        for token in tokenizer.encode_parts(["", text]):
            matcher.accept([token])
        assert matcher.is_accepting


@pytest.mark.parametrize("marker", ["", "<|channel|>x", "<|start|>", " a"])
def test_an_opening_that_begins_as_something_else_does_is_refused(marker: str) -> None:
    others = (OtherOpening(marker, "("), *([OtherOpening(" b", "(")] if marker == " a" else []))
    with pytest.raises(ValueError, match="must begin as nothing else"):
        ToolFormat(
            name="f",
            marker="<|channel|>call",
            text_begin="<|start|>",
            before_arguments="(",
            end="",
            other_openings=others,
        )


def test_only_a_family_that_marks_text_has_other_openings() -> None:
    with pytest.raises(ValueError, match="must begin as nothing else"):
        ToolFormat(name="f", marker="<", before_arguments="(", end="", other_openings=(OtherOpening("[", "("),))


# How it is read.


@each_way
def test_strings_of_markup_survive_in_it_however_it_is_cut(family: ToolFormat, way: ToolFormat) -> None:
    """F12, F20, F23, F24."""
    setting = Setting(family, (WEATHER,))
    for text in hostile_strings(setting):
        tokens = spelled_call(Setting(way, (WEATHER,)), text)
        assert setting.accepts(tokens), text
        assert reading_of(setting.read(tokens)).calls == (("get_weather", {"city": text}),), text
    call = way.write_call("get_weather", '{"city": "A \\"b\\" \\\\ 日本 😀"}')
    assert reading_of(letter_by_letter(setting, call)).calls == (("get_weather", {"city": 'A "b" \\ 日本 😀'}),)


@each_way
def test_one_that_is_cut_anywhere_is_not_complete_and_leaves_no_markup(family: ToolFormat, way: ToolFormat) -> None:
    """F1, F12."""
    setting = Setting(family, TOOLS)
    tokens = setting.encode(way.write_call("get_weather", IN_PARIS))
    for length in range(1, len(tokens)):
        reading = reading_of(setting.read(tokens[:length]))
        assert (reading.said, reading.thought, reading.calls) == ("", "", ()), length
    assert reading_of(setting.read(tokens)).calls == (PARIS,)


def test_behind_a_preamble_anything_else_is_an_error() -> None:
    setting = Setting(FAMILIES["harmony"], TOOLS)
    for text in (" tx", "x", "<|message|>"):
        with pytest.raises(MatcherError, match="left its format"):
            letter_by_letter(setting, f"<|channel|>commentary<|message|>Hm.<|end|><|start|>assistant{text}")


@each_way
def test_the_template_of_a_model_shows_it_behind_its_reasoning(family: ToolFormat, way: ToolFormat) -> None:
    """F16, F26: token for token, with the end that it gives the turn."""
    for template in (each for each in TEMPLATES if each.family == family.name):
        made = ToolCall("id", "get_weather", IN_PARIS)
        messages = (USER, Message(Role.ASSISTANT, None, (made,), reasoning="Look it up."))
        before, after = (rendered(template, said) for said in ((USER,), messages))
        end = max(at for at, token in enumerate(after) if token in template.tokenizer.eos_ids)
        setting = OfModel(family, TOOLS, opening=Opening.BEFORE)
        setting.own = template.tokenizer
        matcher, turn = setting.matcher(), after[len(before) : end]
        assert setting.own.decode(turn).endswith(way.write_call("get_weather", IN_PARIS))
        matcher.accept(turn)
        assert matcher.is_terminated or matcher.validate([after[end]]) == 1
        reading = reading_of(setting.read(turn))
        assert (reading.thought, reading.calls) == ("Look it up.", (PARIS,))


# Through the engine.


@each_way
def test_it_is_opened_only_if_it_can_be_completed(family: ToolFormat, way: ToolFormat) -> None:
    """F1: at every budget, of a model that wants nothing else."""
    tokenizer, asked = small_vocabulary(family.name).with_template(TEMPLATE), Tool("clock")
    written, text = (tokenizer.encode_parts(["", each]) for each in (way.write_call("clock", "{}"), family.text_begin))
    model, called = Scripted(tokenizer.num_tokens, script=(*written, min(tokenizer.eos_ids))), []
    with Engine(LoadedModel("fake", model, tokenizer), config=ALONE, tool_format=family.name) as engine:
        for max_tokens in range(len(text), len(written) + 3):
            answer = engine.chat([USER], tools=[asked], max_tokens=max_tokens)
            called.append([(call.name, call.arguments) for call in answer.tool_calls])
    assert called[0] == []
    assert called[-1] == [("clock", "{}")]
    assert all(calls in ([], [("clock", "{}")]) for calls in called)


def test_the_end_of_the_budget_leads_to_a_call_in_the_familys_own_way() -> None:
    """F1: behind a preamble, which a call must follow."""
    family, tokenizer = FAMILIES["harmony"], small_vocabulary("harmony").with_template(TEMPLATE)
    assert family.preamble is not None
    written = tokenizer.encode_parts(["", f"{family.preamble.begin}{'Hm. ' * 20}"])
    model = Scripted(tokenizer.num_tokens, script=(*written, min(tokenizer.eos_ids)))
    with Engine(LoadedModel("fake", model, tokenizer), config=ALONE, tool_format="harmony") as engine:
        answer = engine.chat([USER], tools=CLOCKS, max_tokens=90, sampling=SamplingParams(top_logprobs=0))
    assert answer.logprobs is not None
    assert b"".join(token.token for token in answer.logprobs).decode().endswith(family.write_call("clock", "{}"))
    assert "Hm. Hm." in (answer.text or "")


@each_way
def test_what_no_grammar_holds_is_held_in_it_too(family: ToolFormat, way: ToolFormat) -> None:
    """F7: by the veto."""
    numbers = {"type": "array", "items": {"type": "integer"}, "uniqueItems": True}
    tool = Tool("sum", "", {"type": "object", "properties": {"of": numbers}, "required": ["of"]})
    tokenizer = small_vocabulary(family.name).with_template(TEMPLATE)
    written = tokenizer.encode_parts(["", way.write_call("sum", '{"of": [1, 1]}')])
    model = Scripted(tokenizer.num_tokens, script=(*written, min(tokenizer.eos_ids)))
    with Engine(LoadedModel("fake", model, tokenizer), config=ALONE, tool_format=family.name) as engine:
        answer = engine.chat([USER], tools=[tool], max_tokens=100)
    (call,) = answer.tool_calls
    found = call.parsed_arguments()["of"]
    assert found[0] == 1
    assert len(set(found)) == len(found)


# Whether to call.


@each_way
def test_the_probability_of_a_call_is_that_of_all_ways_to_open_one(family: ToolFormat, way: ToolFormat) -> None:
    for share in (0.0, 0.25):
        decision = decided(asked_of(family, way, LOOK, own=0.3, other=share))
        assert decision.p_call == pytest.approx(0.3 + share, rel=1e-4)
        assert decision.passes == 0


@each_way
def test_a_call_that_is_decided_opens_in_the_familys_own_way(family: ToolFormat, way: ToolFormat) -> None:
    answer = asked_of(family, way, CALL, own=0.01, other=0.9)
    assert answer.logprobs is not None
    written = b"".join(token.token for token in answer.logprobs).decode()
    assert answer.tool_calls
    assert written.startswith(family.marker)


@each_way
def test_where_text_is_decided_no_way_is_open(family: ToolFormat, way: ToolFormat) -> None:
    answer = asked_of(family, way, TEXT, own=0.01, other=0.9)
    assert (answer.text, answer.tool_calls) == ("Y", ())


def asked_of(family: ToolFormat, way: ToolFormat, decision: DecisionOptions, *, own: float, other: float) -> Completion:
    """What a fake answers that opens a call in the family's way or in the other so often, and else says "Y"."""
    loaded = fake_loaded()
    begins = pieces(loaded, family.marker), pieces(loaded, family.text_begin), pieces(loaded, way.marker)
    tree: dict[str, dict[str, float]] = {}
    shares = own, 1 - own - other, other
    for begin, share in zip(begins, shares, strict=True):
        for at, piece in enumerate(begin):
            following = tree.setdefault("".join(begin[:at]), {})
            following[piece] = following.get(piece, 0.0) + share
    tree[family.text_begin] = {"Y": 1.0}
    said = {text: normal(following) for text, following in tree.items()}
    sampling = SamplingParams(top_logprobs=0)
    with Engine(decider(said, hermes=False), config=ALONE, tool_format=family) as engine:
        return engine.chat([USER], tools=CLOCKS, decision=decision, max_tokens=200, sampling=sampling)


def normal(shares: Mapping[str, float]) -> dict[str, float]:
    """Those above nothing, so that they add up to 1."""
    return {piece: share / sum(shares.values()) for piece, share in shares.items() if share}
