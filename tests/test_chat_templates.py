"""Every chat template of llama.cpp's collection: which family it is taken for, and what of it the grammar takes."""

import json
from collections.abc import Sequence
from typing import Any

import pytest

from engine.grammars.tool_formats import GEMMA4, PLAIN, TOOL_FORMATS, detect
from engine.prompt import render_prompt, render_text
from engine.template_skills import skills_of
from engine.types import Message, Request, Role, Tool, ToolCall, ToolChoice
from tests.chat_templates import BY_VOCABULARY, NOT_OURS, TEMPLATES, ChatTemplate
from tests.families import FAMILIES, OfModel, Setting, reading_of, small_vocabulary
from tests.material import more_templates
from tests.recorded_turns import ALL_TYPES, CET, CLOCK, PARIS_3, STORE, WEATHER

Call = tuple[str, dict[str, Any]]
USER = Message(Role.USER, "The weather in Paris?")
CASES: dict[str, tuple[Call, ...]] = {
    "one argument": (CET,),
    "several arguments": (PARIS_3,),
    "no arguments": (("get_time", {}),),
    "unicode": (("get_time", {"zone": "日本 naïve 😀"}),),
    "markup": (("get_time", {"zone": 'a "b" it\'s\n</x> {y} \\ \\n'}),),
    "all types": (("store", ALL_TYPES),),
    "several calls": (PARIS_3, CET),
    "several calls without arguments": (("get_time", {}), ("get_time", {})),
}
ALL_TOKENS = {token for family in TOOL_FORMATS for token in family.tokens}
BY_NAME = {template.name: template for template in TEMPLATES}
each_template = pytest.mark.parametrize("template", TEMPLATES, ids=str)


def test_every_template_of_the_collection_is_taken_for_its_family() -> None:
    expected = {each.name: each.family for each in TEMPLATES} | dict.fromkeys((*NOT_OURS, *BY_VOCABULARY), "plain")
    assert {name: detect(source).family.name for name, source in more_templates().items()} == expected


def test_templates_that_show_no_call_are_told_by_the_vocabulary() -> None:
    for name in BY_VOCABULARY:
        template = BY_NAME[name]
        found = detect(template.tokenizer.chat_template, template.tokenizer.added)
        assert found.family.name == template.family


def test_no_vocabulary_overrides_a_template_that_writes_calls_in_another_format() -> None:
    for name in NOT_OURS:
        if "tool_calls" in more_templates()[name]:
            assert detect(more_templates()[name], ALL_TOKENS, "v13").family is PLAIN, name


def test_no_vocabulary_overrides_calls_in_a_format_that_is_nobodys() -> None:
    template = "{% for call in message.tool_calls %}<my_call>{{ call | tojson }}</my_call>{% endfor %}"
    found = detect(template, FAMILIES["deepseek-v3"].tokens)
    assert (found.family, "format" in found.why) == (PLAIN, True)


@each_template
def test_calls_as_a_template_shows_them_are_accepted_token_for_token(template: ChatTemplate) -> None:
    """F26: and read back as they were made; an end of the turn may follow."""
    family = FAMILIES[template.family]
    for name, calls in CASES.items():
        if len(calls) > 1 and not family.parallel:
            continue
        turn, end = turn_of(template, calls)
        setting = OfModel(family, (STORE, CLOCK, WEATHER))
        setting.own = template.tokenizer
        matcher = setting.matcher()
        is_whole = matcher.validate(turn) == len(turn)
        assert is_whole == (name not in template.cannot), (name, setting.own.decode(turn))
        if is_whole:
            matcher.accept(turn)
            assert matcher.is_terminated or matcher.validate([end]) == 1, name
            assert reading_of(setting.read(turn)).calls == calls, name


def turn_of(template: ChatTemplate, calls: Sequence[Call]) -> tuple[list[int], int]:
    """The calls as they stand in the prompt of a later turn, and the token that ends their turn.

    Without what opens or closes reasoning before them, and white space behind them.
    """
    tokenizer, family = template.tokenizer, FAMILIES[template.family]
    before, after = (rendered(template, messages) for messages in ((USER,), conversation(calls)))
    start = next((at for at, pair in enumerate(zip(before, after, strict=False)) if len({*pair}) > 1), len(before))
    end = next(at for at, token in enumerate(after) if at >= start and token in tokenizer.eos_ids)
    markers = tuple(way.marker for way in (family, *family.other_ways))
    while not tokenizer.decode(after[start:end]).startswith(markers):
        start += 1
        assert start < end
    last = end
    while tokenizer.decode(after[last - 1 : last]).isspace():
        last -= 1
    return after[start:last], after[end]


def conversation(calls: Sequence[Call], text: str | None = None) -> tuple[Message, ...]:
    made = tuple(ToolCall(f"id_{at}", name, json.dumps(values)) for at, (name, values) in enumerate(calls))
    results = (Message(Role.TOOL, f"result {at}", tool_call_id=call.id) for at, call in enumerate(made))
    return (USER, Message(Role.ASSISTANT, text, made), *results)


def rendered(template: ChatTemplate, messages: Sequence[Message]) -> list[int]:
    return render_prompt(Request(messages=tuple(messages)), FAMILIES[template.family], template.tokenizer)


@each_template
def test_what_a_template_shows_of_calls_is_what_the_table_says(template: ChatTemplate) -> None:
    calls = template.skills().calls
    assert (calls[False, False] is not None) + (calls[True, False] is not None) == template.num_calls
    assert template.num_calls == 2 or template.why_not


@each_template
def test_a_conversation_with_calls_is_rendered_once_and_always_alike(template: ChatTemplate) -> None:
    calls = (PARIS_3, CET) if FAMILIES[template.family].parallel else (CET,)
    for text in (None, "Let me look."):
        messages = (*conversation(calls, text), Message(Role.ASSISTANT, "It is fine."), Message(Role.USER, "Thanks."))
        prompt = template.tokenizer.decode(rendered(template, messages))
        assert prompt == template.tokenizer.decode(rendered(template, messages))
        said = [*(f"result {at}" for at in range(len(calls))), "It is fine.", "Thanks."]
        places = [prompt.index(each) for each in said]
        assert places == sorted(places)
        assert [prompt.count(each) for each in said] == [1] * len(said)
    # gpt-oss's template leaves out what was said beside calls once there is an answer, and only then.
    assert "Let me look." in template.tokenizer.decode(rendered(template, conversation(calls, "Let me look.")))


@pytest.mark.parametrize("name", ["google-gemma-4-31B-it", "google-gemma-4-31B-it-interleaved"])
def test_gemmas_results_follow_the_calls_in_the_models_own_turn(name: str) -> None:
    text = BY_NAME[name].tokenizer.decode(rendered(BY_NAME[name], conversation((PARIS_3, CET))))
    calls = (
        '<|tool_call>call:get_weather{city:<|"|>Paris<|"|>,days:3}<tool_call|><|tool_call>call:get_time{zone:<|"|>CET'
    )
    results = (
        '<|"|>}<tool_call|><|tool_response>response:get_weather{value:<|"|>result 0<|"|>}<tool_response|>'
        '<|tool_response>response:get_time{value:<|"|>result 1<|"|>}<tool_response|>'
    )
    assert calls + results in text
    assert "<turn|>" not in text.partition(results)[2]


def test_gemmas_results_keep_their_form_where_the_format_writes_the_calls() -> None:
    """Beside text: the template would put that behind the results."""
    template = BY_NAME["google-gemma-4-31B-it"]
    text = template.tokenizer.decode(rendered(template, conversation((CET,), "Let me look.")))
    assert 'Let me look.<|tool_call>call:get_time{zone:<|"|>CET<|"|>}<tool_call|>' in text
    assert '<|tool_response>response:get_time{value:<|"|>result 0<|"|>}<tool_response|>' in text


def test_gemmas_arguments_come_in_the_order_of_their_names() -> None:
    """As its template shows them and the tools themselves; F22 holds for the other families."""
    values = {"type": "object", "properties": {name: {"type": "integer"} for name in ("d", "C")}}
    tool = Tool("store", "", {"type": "object", "properties": {"b": values, "a": {"type": "integer"}}})
    setting = Setting(GEMMA4, (tool,), choice=ToolChoice.named("store"))
    assert GEMMA4.write_call("store", '{"b": {"d": 2, "C": 3}, "a": 1}').endswith(
        "call:store{a:1,b:{C:3,d:2}}<tool_call|>"
    )
    for order, is_taken in (("a:1,b:{C:3,d:2}", True), ("b:{C:3,d:2},a:1", False), ("a:1,b:{d:2,C:3}", False)):
        assert setting.accepts(setting.encode(f"<|tool_call>call:store{{{order}}}<tool_call|>")) is is_taken


@pytest.mark.parametrize("word", ["null", "None"])
def test_gemma_may_write_null_as_its_template_does(word: str) -> None:
    maybe = {"anyOf": [{"type": "integer"}, {"type": "null"}]}
    setting = Setting(GEMMA4, (Tool("store", "", {"type": "object", "properties": {"at": maybe}}),))
    tokens = setting.encode(f"<|tool_call>call:store{{at:{word}}}<tool_call|>")
    assert setting.accepts(tokens)
    assert reading_of(setting.read(tokens)).calls == (("store", {"at": None}),)


NEEDS_TOOLS = (
    "{% for tool in tools %}{{ tool.function.name }}{% endfor %}"
    "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}assistant:"
)


def test_a_template_that_always_loops_over_tools_is_given_a_list_without_any() -> None:
    """As that of Hermes 2 and 3 does."""
    tokenizer = small_vocabulary("hermes").with_template(NEEDS_TOOLS)
    request = Request(messages=(USER,))
    assert skills_of(tokenizer, FAMILIES["hermes"]).no_tools == []
    assert render_text(request, FAMILIES["hermes"], tokenizer) == f"user: {USER.content}\nassistant:"
    assert skills_of(small_vocabulary("hermes"), FAMILIES["hermes"]).no_tools is None


SINGLE_QUOTES = (  # as LFM2.5's template: it reads any role, and writes strings between single quotes
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}"
    "{% if message.tool_calls is defined %}<|tool_call_start|>[{% for call in message.tool_calls %}"
    "{{ call.function.name }}({% for key, value in call.function.arguments.items() %}{{ key }}='{{ value }}'"
    "{{ '' if loop.last else ', ' }}{% endfor %}){{ '' if loop.last else ', ' }}{% endfor %}]<|tool_call_end|>"
    "{% endif %}<|im_end|>\n{% endfor %}<|im_start|>assistant\n"
)


def test_a_template_may_write_either_of_pythons_quotes() -> None:
    skills = skills_of(small_vocabulary("lfm2").with_template(SINGLE_QUOTES), FAMILIES["lfm2"])
    assert all(skills.calls.values())
    assert skills.shows_results == {True: True, False: True}


def test_a_template_of_json_calls_may_not() -> None:
    template = SINGLE_QUOTES.replace("[{%", "{%")
    skills = skills_of(small_vocabulary("hermes").with_template(template), FAMILIES["hermes"])
    assert not any(skills.calls.values())
