"""What a model is taken for, and how that can be changed."""

import logging

import pytest

from engine.engine import Engine
from engine.errors import ConfigError
from engine.grammars.tool_formats import HERMES, PLAIN, TOOL_FORMATS, detect, format_named
from engine.inspection import inspection
from engine.types import Request
from tests.fakes import CALCULATE, REQUIRED, USER, fake_loaded, fake_that_writes, fake_tokenizer
from tests.material import real_tokenizer


def test_an_inspection_names_family_reason_markers_reasoning_ends_and_shows_a_conversation() -> None:
    text = inspection(fake_tokenizer(hermes=True, reasons=True))
    for part in (
        "family:           hermes (",
        "because:          the chat template has '<tool_call>",
        "markers:          opens '<tool_call>' (token ",
        "tool training:    yes",
        "earlier calls:    by the template (arguments as object); results by the template",
        "reasoning:        between '<think>' and '</think>'",
        "ends a turn:      '<|im_end|>'",
        "template options: enable_thinking, opened",
        '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>',
        "18 degrees",
    ):
        assert part in text


def test_an_inspection_shows_every_way_to_open_a_call() -> None:
    family = format_named("harmony")
    text = inspection(fake_tokenizer(), family)
    (way,) = family.other_ways
    assert f"opens {family.marker!r} (text); may open {way.marker!r} (text)" in text


def test_an_inspection_of_a_model_without_tool_training_says_so() -> None:
    text = inspection(fake_tokenizer())
    assert "family:           plain (" in text
    assert "tool training:    none seen" in text
    assert "reasoning:        none seen" in text
    assert "(text)" in text


def test_an_inspection_of_a_model_without_a_chat_template_says_it_once_and_claims_nothing_of_one() -> None:
    """A tekken.json has none: who describes the tools, and how, is then nobody's to say."""
    for tokenizer, name in ((fake_tokenizer().with_template(None), "plain"), (real_tokenizer("tekken"), "mistral")):
        text = inspection(tokenizer.with_template(None))
        assert f"family:           {name} (" in text
        assert text.count("chat template:") == 1
        assert "chat template:    none: requests of messages are refused, with tools or without" in text
        for claim in ("tool training", "system message", "earlier calls", "reasoning:", "cannot be rendered"):
            assert claim not in text
        assert text.endswith(f"A call as the model writes it:\n\n{call_of(name)}")


def call_of(name: str) -> str:
    return format_named(name).write_call("get_weather", '{"city": "Paris"}')


def test_an_inspection_says_why_a_template_renders_no_conversation_with_tools() -> None:
    text = inspection(fake_tokenizer().with_template("{{ raise_exception('no tools here') }}"))
    assert "A conversation with tools cannot be rendered: " in text
    assert "no tools here" in text
    assert text.endswith(call_of("plain"))


def test_an_inspection_of_another_family_tells_what_would_have_been_detected() -> None:
    text = inspection(fake_tokenizer(), HERMES)
    assert "family:           hermes (" in text
    assert "because:          as asked for; detected would be plain" in text


def test_a_family_can_be_asked_for_by_name() -> None:
    with Engine(fake_loaded(), tool_format="hermes") as engine:
        assert engine.tool_format is HERMES
    assert [format_named(family.name) for family in TOOL_FORMATS] == list(TOOL_FORMATS)


def test_a_name_that_no_family_has_is_refused_before_anything_is_loaded() -> None:
    with pytest.raises(ConfigError, match="hermes"):
        Engine("no model of this name", tool_format="hermas")


def test_tools_that_the_template_does_not_show_are_described_whatever_the_family() -> None:
    """A family that is asked for by name must not hide the tools."""
    call = HERMES.write_call("calculate", '{"expression": "1"}')
    with Engine(fake_that_writes(call), tool_format="hermes") as engine:
        completion = engine.chat([USER], tools=[CALCULATE], tool_choice=REQUIRED)
        prompt = engine.loaded.tokenizer.decode(engine.render_prompt(Request(messages=(USER,), tools=(CALCULATE,))))
    assert "calculate(expression: string)" in prompt
    assert [each.name for each in completion.tool_calls] == ["calculate"]


def test_an_unknown_template_is_plain_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="engine.engine"), Engine(fake_loaded()) as engine:
        assert engine.tool_format is PLAIN
    assert "tool format plain: neither the chat template nor the vocabulary" in caplog.text
    assert "does not show tools" in caplog.text
    assert detect(None).family is PLAIN


def test_free_text_of_a_conversation_has_no_marker_that_is_a_token() -> None:
    """F12: Qwen's <tool_call> is no special token to its tokenizer."""
    loaded = fake_loaded(hermes=True, reasons=True, bonus={"</think>": 4000, "a": 3000})
    with Engine(loaded) as engine:
        text = engine.chat([USER], template_options={"enable_thinking": False}, max_tokens=30).text
    assert text
    assert "</think>" not in text
