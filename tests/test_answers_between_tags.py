"""Reasoning in Granite's ways (3.3's answer stands between tags too, 3.2 writes sentences for tags), and Magistral's.

By Granite's own chat templates; the vocabulary is a small one, in which the tags are text.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest

from engine.engine import Engine
from engine.errors import RequestError
from engine.grammars.tool_format import Opening
from engine.grammars.tool_formats import detect
from engine.model import LoadedModel
from engine.output import collect
from engine.types import Grammar, Request
from tests.fakes import CALCULATE, EOS, USER, fake_loaded, fake_that_writes, fake_tokenizer, scripted
from tests.families import FAMILIES, Setting, reading_of
from tests.material import real_templates
from tests.recorded_turns import CLOCK, PARIS, WEATHER
from tests.test_families import WithoutTokens, letter_by_letter

TURN = "<think>Hm, </respons or <response>?</think><response>It is < 5 </resp.</response>"
MAGISTRAL = (  # stands for its template, which is not at hand: the system prompt that its model card asks for is cited
    "[SYSTEM_PROMPT]Your thinking process must follow the template below:\n<think>\nYour thoughts\n</think>\n\n"
    "Here, provide a concise summary[/SYSTEM_PROMPT]{{ messages[0].content }}[TOOL_CALLS][CALL_ID][ARGS]"
)


def of_template(loaded: LoadedModel, template: str) -> LoadedModel:
    return replace(loaded, tokenizer=loaded.tokenizer.with_template(template))


def writing(text: str, template: str = "granite3.3:2b") -> LoadedModel:
    return of_template(fake_that_writes(text), real_templates()[template])


def test_granite_3_3_s_thoughts_are_reasoning_and_its_answer_s_tags_no_text() -> None:
    """F12, F16: streamed or not."""
    with Engine(writing(TURN)) as engine:
        assert engine.tool_format.name == "granite"
        completion = engine.chat([USER], template_options={"thinking": True}, max_tokens=200)
        streamed = collect(engine.stream([USER], template_options={"thinking": True}, max_tokens=200))
    for each in (completion, streamed):
        assert (each.reasoning, each.text) == ("Hm, </respons or <response>?", "It is < 5 </resp.")


@pytest.mark.parametrize("end", ["", "</response>"])
def test_an_answer_may_end_with_its_tag_or_without(end: str) -> None:
    with Engine(writing(f"<think>Hm.</think><response>Yes.{end}")) as engine:
        completion = engine.chat([USER], template_options={"thinking": True}, max_tokens=200)
    assert (completion.reasoning, completion.text) == ("Hm.", "Yes.")


def test_an_answer_without_reasoning_is_as_it_is() -> None:
    with Engine(writing("Yes, <resp a <b>.")) as engine:
        completion = engine.chat([USER], max_tokens=200)
    assert (completion.reasoning, completion.text) == (None, "Yes, <resp a <b>.")


def test_the_budget_closes_granite_s_reasoning_and_opens_its_answer() -> None:
    loaded = of_template(scripted(fake_loaded(), thinks_on), real_templates()["granite3.3:2b"])
    with Engine(loaded) as engine:
        completion = engine.chat([USER], template_options={"thinking": True}, max_tokens=90, reasoning_budget=7)
    assert (completion.reasoning, completion.text) == ("a" * 7, "Y")


def thinks_on(tokens: Sequence[int]) -> Mapping[int, float]:
    """Opens its reasoning, and would never close it."""
    tokenizer = fake_tokenizer()
    written = tokenizer.decode(tokens).rpartition("<|end_of_role|>")[2]
    following = "<think>"[len(written)] if "<think>".startswith(written) and written != "<think>" else "a"
    if "<response>" in written:
        following = EOS if written.endswith("Y") else "Y"
    return {tokenizer.encode(following)[0]: 100}


def test_a_granite_whose_template_has_no_reasoning_has_none() -> None:
    """3.0: a budget for it is refused, and the tags are text."""
    with Engine(writing("<think>a</think>", "granite3-dense:2b")) as engine:
        assert engine.tool_format.name == "granite"
        assert engine.chat([USER]).text == "<think>a</think>"
        with pytest.raises(RequestError, match="no reasoning"):
            engine.chat([USER], reasoning_budget=5)


@pytest.mark.parametrize("kind", [Setting, WithoutTokens], ids=["tokens", "text"])
@pytest.mark.parametrize("opening", [Opening.BEFORE, Opening.INSIDE])
def test_text_calls_and_responses_come_behind_the_reasoning(kind: type[Setting], opening: Opening) -> None:
    """F16, F17: a call where the answer begins or after words of it; not behind the answer's end."""
    family, thought = FAMILIES["granite"], "<think>Hm.</think><response>"
    thought = thought if opening is Opening.BEFORE else thought.removeprefix("<think>")
    call = family.write_call("get_weather", '{"city": "Paris"}')
    setting = kind(family, (WEATHER, CLOCK), opening=opening)
    for turn, said, calls in (
        (f"{thought}Yes.</response>", "Yes.", ()),
        (f"{thought}Yes.", "Yes.", ()),
        (f"{thought}{call}", "", (PARIS,)),
        (f"{thought}I look.{call}", "I look.", (PARIS,)),
    ):
        tokens = setting.encode(turn)
        assert setting.accepts(tokens), turn
        for events in (setting.read(tokens), letter_by_letter(setting, turn)):
            reading = reading_of(events)
            assert (reading.thought, reading.said, reading.calls) == ("Hm.", said, calls)
    for wrong in (f"{thought}Yes.</response>a", f"{thought}Yes.</response>{call}", f"{thought}<response>Yes."):
        assert not setting.accepts(setting.encode(wrong)), wrong


def test_a_response_behind_granite_s_reasoning_is_the_schema_s_alone() -> None:
    """F16: a string in it may be spelled as the tag that ends an answer."""
    schema = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
    for end in ("", "</response>"):
        with Engine(writing(f'<think>Hm.</think><response>{{"a": "b{end}c"}}')) as engine:
            completion = engine.submit(
                Request(
                    messages=(USER,),
                    tools=(CALCULATE,),
                    response=Grammar.json_schema(schema),
                    max_tokens=200,
                    template_options={"thinking": True},
                )
            ).completion()
        assert (completion.reasoning, completion.text) == ("Hm.", f'{{"a": "b{end}c"}}')


def test_granite_3_2_s_thoughts_are_what_stands_between_its_two_sentences() -> None:
    turn = "Here is my thought process:\n\nHm.\n\nHere is my response:\n\nYes."
    with Engine(writing(turn, "granite3.2:8b")) as engine:
        assert engine.tool_format.name == "granite-3.1"
        completion = engine.chat([USER], template_options={"thinking": True}, max_tokens=200)
    assert (completion.reasoning, completion.text) == ("Hm.", "Yes.")


def test_magistral_2506_reasons_between_tags_that_are_text_where_its_template_says_so() -> None:
    loaded = of_template(fake_that_writes("<think>\nHm.\n</think>\n\nYes."), MAGISTRAL)
    with Engine(loaded) as engine:
        assert engine.tool_format.name == "mistral-v11"
        completion = engine.chat([USER], max_tokens=200)
    assert (completion.reasoning, completion.text) == ("Hm.", "Yes.")
    reasoning = detect(MAGISTRAL).family.reasoning
    assert reasoning is not None
    assert not reasoning.is_in("[TOOL_CALLS][CALL_ID][ARGS]")  # Mistral Small 3.2's
