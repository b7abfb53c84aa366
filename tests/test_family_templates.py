"""Real chat templates: what they are detected as, and that the grammar accepts a call as they render it."""

import functools
import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from engine.grammars.tool_format import Opening
from engine.grammars.tool_formats import PLAIN, detect
from engine.template_skills import Form, TemplateSkills, skills_of, wire_calls
from engine.tokenizer import Tokenizer
from engine.types import ToolCall
from tests import material
from tests.fakes import fake_tokenizer
from tests.families import FAMILIES, Setting, reading_of
from tests.material import real_templates, real_tokenizer
from tests.recorded_turns import CET, CLOCK, PARIS, WEATHER

CALLS = tuple(ToolCall("id", name, json.dumps(arguments)) for name, arguments in (PARIS, CET))
USER = {"role": "user", "content": "The weather in Paris?"}


@dataclass(frozen=True)
class Model:
    """A vocabulary with a chat template: its own, or one of the templates' package."""

    vocabulary: str
    template: str | None
    family: str
    num_calls: int = 2

    def __str__(self) -> str:
        return self.template or self.vocabulary

    @property
    def tokenizer(self) -> Tokenizer:
        own = real_tokenizer(self.vocabulary)
        return own if self.template is None else _with(self.vocabulary, self.template)

    def skills(self) -> TemplateSkills:
        return skills_of(self.tokenizer, FAMILIES[self.family])


@functools.cache
def _with(vocabulary: str, template: str) -> Tokenizer:
    return real_tokenizer(vocabulary).with_template(real_templates()[template])


MODELS = [
    Model("qwen3", None, "hermes"),
    Model("qwen3", "qwen2.5:0.5b", "hermes"),
    Model("qwen3", "qwq:32b", "hermes"),
    Model("qwen3", "qwen3-coder:30b", "qwen3-coder"),
    Model("llama3", "llama3.1:8b", "llama3-json", num_calls=1),
    Model("llama3", "llama3.2:3b", "llama3-json", num_calls=1),
    Model("deepseek_v3", "deepseek-v3.1:latest", "deepseek-v3.1"),
    Model("deepseek_v3", None, "deepseek-v3", num_calls=0),  # it leaves out the end of a single call's section
]
OTHERS = {  # detected by the template alone
    "granite4:350m": "hermes",
    "cogito:14b": "hermes",
    "qwen3-next:80b": "hermes",
    "granite3.3:2b": "granite",
    "llama4:latest": "llama3-json",
    "phi4-mini:3.8b": "phi4-mini",
    "gemma3:1b": "plain",
    "smollm2:135m": "plain",
    "mistral:7b-instruct-fp16": "plain",
}
VOCABULARIES = ["qwen3", "qwen3.5", "gemma3", "gptoss", "deepseek_v3", "llama2", "tekken", "llama3"]
each_model = pytest.mark.parametrize("model", MODELS, ids=str)


@each_model
def test_a_real_template_is_detected(model: Model) -> None:
    tokenizer = model.tokenizer
    assert detect(tokenizer.chat_template, tokenizer.added).family.name == model.family


@pytest.mark.parametrize(("template", "family"), OTHERS.items())
def test_a_template_is_detected_without_its_vocabulary(template: str, family: str) -> None:
    assert detect(real_templates()[template]).family.name == family


def test_a_vocabulary_is_detected_where_no_template_shows_its_family() -> None:
    assert detect(None, real_tokenizer("gptoss").added).family.name == "harmony"
    assert detect(None, real_tokenizer("tekken").added).family.name == "mistral"
    assert detect("{{ messages }}", real_tokenizer("qwen3").added).family.name == "hermes"


def test_material_that_cannot_be_had_skips_the_test_and_says_why(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(material, "CACHE", tmp_path)
    monkeypatch.setenv("PATH", "")  # where npm is not found, and so asks nobody
    for _ in range(2):
        with pytest.raises(pytest.skip.Exception, match="some-package"):
            material.needed(material.NpmPackage("some-package", "1.0.0", ""))


@pytest.mark.parametrize("vocabulary", ["gemma3", "llama2", "llama3"])
def test_a_model_without_any_sign_is_plain(vocabulary: str) -> None:
    tokenizer = real_tokenizer(vocabulary)
    assert detect(tokenizer.chat_template, tokenizer.added).family is PLAIN


@each_model
def test_a_call_as_the_template_renders_it_is_accepted_token_for_token(model: Model) -> None:
    """F26; its end-of-turn token ends the turn."""
    for num_calls in range(1, model.num_calls + 1):
        tokenizer, family = model.tokenizer, FAMILIES[model.family]
        form = model.skills().calls[num_calls > 1, False]
        assert form is not None
        message = wire_calls(CALLS[:num_calls], None, form, family)
        prompt, whole = tokenizer.render([USER], None), tokenizer.render([USER, message], None)
        prompt = prompt.removesuffix("</think>").removesuffix("<think>\n")  # put there for the turn to come
        assert whole.startswith(prompt)
        tokens = tokenizer.encode(whole)[len(tokenizer.encode(prompt)) :]
        end = next(at for at, token in enumerate(tokens) if token in tokenizer.eos_ids)
        opening = Opening.BEFORE if family.reasoning is not None else Opening.NONE
        turn = tokens[:end]
        if turn[0] == tokenizer.token_id("</think>"):
            turn = turn[1:]
        setting = OfModel(family, (WEATHER, CLOCK), opening=opening)
        setting.own = tokenizer
        assert setting.accepts(turn), tokenizer.decode(turn)
        matcher = setting.matcher()
        matcher.accept(turn)
        assert matcher.is_terminated or matcher.validate([tokens[end]]) == 1
        assert reading_of(setting.read(turn)).calls == (PARIS, CET)[:num_calls]


class OfModel(Setting):
    """A setting with a vocabulary of its own."""

    own: Tokenizer

    @property
    def tokenizer(self) -> Tokenizer:
        return self.own


@each_model
def test_what_a_template_cannot_show_is_left_to_the_format(model: Model) -> None:
    skills = model.skills()
    assert (skills.calls[False, False] is not None) == (model.num_calls > 0)
    assert (skills.calls[True, False] is not None) == (model.num_calls > 1)


def test_a_template_that_joins_strings_is_given_the_arguments_as_text() -> None:
    assert Model("deepseek_v3", "deepseek-v3.1:latest", "deepseek-v3.1").skills().calls[False, False] is Form.STRING
    assert Model("qwen3", None, "hermes").skills().calls[False, False] is Form.OBJECT


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
def test_a_vocabularys_bytes_are_its_text(vocabulary: str) -> None:
    """F24: byte-level, SentencePiece and tekken."""
    tokenizer = real_tokenizer(vocabulary)
    for text in ("Hello, world!", " two  spaces", "naïve 日本 😀\n", "12345 { }", "\t\r\n"):
        ids = tokenizer.encode_parts(["", text])
        assert tokenizer.decode(ids) == text


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
def test_a_special_token_that_is_spelled_in_a_message_is_not_the_token(vocabulary: str) -> None:
    tokenizer = real_tokenizer(vocabulary)
    end = next(iter(sorted(tokenizer.eos_ids)))
    spelling = tokenizer.token_bytes(end).decode()
    ids = tokenizer.encode_parts([f"a {spelling[0]}", f"{spelling[1:]} b"])
    assert end not in ids
    assert tokenizer.decode(ids).endswith(f"a {spelling} b")


HARMONY_SHAPE = (  # of gpt-oss's template: the recipient of an earlier call stands before the channel, and only there
    "{% for message in messages %}"
    "{% if message.tool_calls %}<|start|>assistant to=functions.{{ message.tool_calls[0].function.name }}"
    "<|channel|>commentary json<|message|>{{ message.tool_calls[0].function.arguments | tojson }}<|end|>"
    "{% elif message.role == 'tool' %}<|start|>functions to=assistant<|message|>{{ message.content }}<|end|>"
    "{% else %}<|start|>{{ message.role }}<|message|>{{ message.content }}<|end|>{% endif %}"
    "{% endfor %}{% if tools %}{{ tools[0].function.name }}{% endif %}<|start|>assistant"
)


def test_a_template_may_show_earlier_calls_in_a_form_of_its_own() -> None:
    tokenizer = fake_tokenizer().with_template(HARMONY_SHAPE)
    skills = skills_of(tokenizer, detect(HARMONY_SHAPE).family)
    assert skills.calls[False, False] is Form.OBJECT
    assert skills.shows_results[True]
    assert skills.shows_tools
