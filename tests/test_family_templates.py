"""Real chat templates: what they are detected as, and that the grammar accepts a call as they render it."""

import base64
import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from engine.grammars.tool_format import Opening
from engine.grammars.tool_formats import PLAIN, detect
from engine.prompt import render_prompt
from engine.tekken import SPECIAL_TOKENS
from engine.template_skills import Form, TemplateSkills, skills_of
from engine.tokenizer import Tokenizer
from engine.types import Message, Request, Role, ToolCall, ToolChoice
from tests import material
from tests.fakes import fake_tokenizer
from tests.families import FAMILIES, OfModel, Setting, reading_of
from tests.material import more_templates, real_templates, real_tokenizer
from tests.recorded_turns import ALL_TYPES, CET, CLOCK, PARIS_3, STORE, WEATHER

USER = Message(Role.USER, "The weather in Paris?")
CALLS = (("store", ALL_TYPES), CET)


@dataclass(frozen=True)
class Model:
    """A vocabulary with a chat template: its own, or one of the templates' package."""

    vocabulary: str
    template: str | None
    family: str
    num_calls: int = 2

    def __str__(self) -> str:
        return f"{self.vocabulary}, {self.template}" if self.template else self.vocabulary

    @property
    def tokenizer(self) -> Tokenizer:
        own = real_tokenizer(self.vocabulary)
        return own if self.template is None else _with(self.vocabulary, self.template)

    def skills(self) -> TemplateSkills:
        return skills_of(self.tokenizer, FAMILIES[self.family])


@functools.cache
def _with(vocabulary: str, template: str) -> Tokenizer:
    own = real_tokenizer(vocabulary)
    own.backend_json()  # once, for all that share the vocabulary
    source = NO_TEMPLATE if template == "none" else _source(template.partition("*")[0])
    # A later version of Qwen3-Coder's template differs in this: it writes lists and objects as JSON.
    return own.with_template(source.replace(*LATER) if template.endswith("*") else source)


def _source(template: str) -> str:
    return real_templates().get(template) or more_templates()[template]


LATER = (
    "args_value if args_value is string else args_value | string",
    "args_value | tojson | safe if args_value is mapping or (args_value is sequence and args_value is not string) "
    "else args_value | string",
)
NO_TEMPLATE = (
    "{% for message in messages %}{{ message.role }}:{{ message.content }}{{ eos_token }}{% endfor %}assistant:"
)


MODELS = [
    Model("qwen3", None, "hermes"),
    Model("qwen3", "qwen2.5:0.5b", "hermes"),
    Model("qwen3", "qwq:32b", "hermes"),
    Model("qwen3", "qwen3-coder:30b", "qwen3-coder"),
    Model("qwen3", "qwen3-coder:30b*", "qwen3-coder"),
    Model("qwen3.5", "qwen3-coder:30b*", "qwen3-coder"),
    Model("llama3", "llama3.1:8b", "llama3-json", num_calls=1),
    Model("llama3", "llama3.2:3b", "llama3-json", num_calls=1),
    Model("llama3", "cogito:3b", "cogito-llama"),
    Model("gptoss", "openai-gpt-oss-120b", "harmony", num_calls=1),
    Model("deepseek_v3", "deepseek-v3.1:latest", "deepseek-v3.1"),
    Model("deepseek_v3", None, "deepseek-v3", num_calls=0),  # it leaves out the end of a single call's section
    Model("r1-qwen", "deepseek-r1:8b", "deepseek-v3", num_calls=0),  # likewise; the markers are no tokens here
]
WRITTEN = [  # whose calls the format writes into the template: that shows none, or none as the model would write them
    Model("gemma3", None, "plain", num_calls=0),
    Model("llama2", "none", "llama4-pythonic", num_calls=0),
    Model("tekken", "none", "mistral-v7", num_calls=0),
    Model("tekken", "none", "mistral-v11", num_calls=0),
    Model("tekken", "none", "mistral", num_calls=0),
]
OTHERS = {  # detected by the template alone
    "granite4:350m": "hermes",
    "cogito:14b": "hermes",
    "qwen3-next:80b": "hermes",
    "granite3-dense:2b": "granite",
    "granite3.2-vision:2b": "granite",
    "granite3.3:2b": "granite",
    "granite3.1-moe:1b": "granite-3.1",
    "granite3.2:8b": "granite-3.1",
    "granite3-guardian:2b": "plain",
    "llama4:latest": "llama3-json",
    "phi4-mini:3.8b": "phi4-mini",
    "deepseek-r1:8b": "deepseek-v3",
    "deepseek-r1:latest": "deepseek-v3",
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


def test_a_vocabulary_alone_does_not_tell_qwen_3_5_from_qwen_3() -> None:
    """docs/families.md says so: the same added tokens, another format. Its chat template tells, as in MODELS."""
    assert detect(None, real_tokenizer("qwen3.5").added).family.name == "hermes"


@pytest.mark.parametrize(
    ("version", "family"),
    [("v3", "mistral-v7"), ("v7", "mistral-v7"), ("v11", "mistral-v11"), ("v13", "mistral"), ("v15", "mistral")],
)
def test_a_tekken_file_tells_its_version(version: str, family: str, tmp_path: Path) -> None:
    """The vocabulary of version 11 has what that of 13 has, and calls are written otherwise."""
    ranked = [{"rank": byte, "token_bytes": base64.b64encode(bytes([byte])).decode()} for byte in range(256)]
    named = [*SPECIAL_TOKENS, "[ARGS]", "[CALL_ID]"]
    config = {"pattern": ".", "version": version, "default_num_special_tokens": 30, "default_vocab_size": 286}
    special = [{"rank": rank, "token_str": name} for rank, name in enumerate(named)]
    (tmp_path / "tekken.json").write_text(json.dumps({"config": config, "vocab": ranked, "special_tokens": special}))
    tokenizer = Tokenizer.from_folder(tmp_path)
    found = detect(tokenizer.chat_template, tokenizer.added, tokenizer.tekken_version)
    assert (found.family.name, found.why) == (family, f"tekken.json is of version {version}")


def test_material_that_cannot_be_had_skips_the_test_and_says_why(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(material, "CACHE", tmp_path)
    monkeypatch.setenv("PATH", "")  # where npm is not found, and so asks nobody
    monkeypatch.setenv("PIP_NO_INDEX", "1")  # so that pip asks nobody either
    for package in (
        material.NpmPackage("some-package", "1.0.0", ""),
        material.SourceFolder("some-package", "1.0.0", "", "folder"),
    ):
        for _ in range(2):
            with pytest.raises(pytest.skip.Exception, match="some-package"):
                material.needed(package)


@pytest.mark.parametrize("vocabulary", ["gemma3", "llama2", "llama3"])
def test_a_model_without_any_sign_is_plain(vocabulary: str) -> None:
    tokenizer = real_tokenizer(vocabulary)
    assert detect(tokenizer.chat_template, tokenizer.added).family is PLAIN


@pytest.mark.parametrize("model", [*MODELS, *WRITTEN], ids=str)
def test_a_call_as_the_prompt_shows_it_is_accepted_token_for_token(model: Model) -> None:
    """F26; by the template where it can, and its end-of-turn token ends the turn."""
    tokenizer, family = model.tokenizer, FAMILIES[model.family]
    for calls in (CALLS[:1], CALLS) if family.parallel else (CALLS[:1],):
        turn, end = turn_of(model, calls)
        opening = Opening.BEFORE if family.reasoning is not None else Opening.NONE
        setting = OfModel(family, (STORE, CLOCK), opening=opening)
        setting.own = tokenizer
        matcher = setting.matcher()
        num_valid = matcher.validate(turn)
        assert num_valid == len(turn), (tokenizer.decode(turn[:num_valid]), tokenizer.decode(turn[num_valid:]))
        matcher.accept(turn)
        assert matcher.is_terminated or matcher.validate([end]) == 1
        assert reading_of(setting.read(turn)).calls == calls


@pytest.mark.parametrize("model", [*MODELS, *WRITTEN], ids=str)
def test_a_forced_call_behind_a_prompt_is_cut_as_the_tokenizer_cuts_both(model: Model) -> None:
    """F14: nothing is merged across the prompt's border, and nothing cut there that the tokenizer would merge."""
    tokenizer, family = model.tokenizer, FAMILIES[model.family]
    setting = OfModel(family, (CLOCK,), choice=ToolChoice.named(CLOCK.name))
    setting.own = tokenizer
    prompt = render_prompt(Request(messages=(USER,), tools=(CLOCK,)), family, tokenizer, model.skills())
    forced = setting.matcher().forced_tokens()
    assert forced
    assert setting.encode(tokenizer.decode(prompt) + tokenizer.decode(forced)) == [*prompt, *forced]


def turn_of(model: Model, calls: Sequence[tuple[str, dict[str, Any]]]) -> tuple[list[int], int]:
    """The assistant's turn as it stands in the prompt of a later turn, and the token that ends it."""
    tokenizer, family = model.tokenizer, FAMILIES[model.family]
    made = tuple(ToolCall("id", name, json.dumps(arguments)) for name, arguments in calls)
    before, after = (
        render_prompt(Request(messages=messages), family, tokenizer, model.skills())
        for messages in ((USER,), (USER, Message(Role.ASSISTANT, None, made)))
    )
    # What opens or closes reasoning may stand in the one alone.
    start = next((at for at, pair in enumerate(zip(before, after, strict=False)) if len({*pair}) > 1), len(before))
    end = next(at for at, token in enumerate(after) if at >= start and token in tokenizer.eos_ids)
    return after[start:end], after[end]


RECORDED_CALLS = Path(__file__).parent / "data" / "mistral_common_calls.json"  # ids that mistral-common 1.13.1 makes


@pytest.mark.parametrize("name", ["mistral-v7", "mistral-v11", "mistral"])
def test_calls_as_mistral_common_encodes_them_are_accepted_token_for_token(name: str) -> None:
    setting = Setting(FAMILIES[name], (WEATHER, CLOCK))
    read = []
    for *turn, end in json.loads(RECORDED_CALLS.read_text())[name]:
        matcher = setting.matcher()
        matcher.accept(turn)
        assert end in setting.tokenizer.eos_ids
        assert matcher.is_terminated or matcher.validate([end]) == 1
        read.append(reading_of(setting.read(turn)).calls)
    assert read == [(PARIS_3,), (PARIS_3, ("get_time", {"zone": '日本 "x"'}))]


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
