"""Fine-tuning: made-up requests, how they are written for a model, and the adapter that comes of them."""

import io
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from rich.console import Console

from api import finetune
from api.finetune import FinetuneOptions, read_tools, run_finetune
from engine.engine import Engine
from engine.errors import ConfigError, ModelNotFoundError, SchemaError, UnsupportedModelError
from engine.finetuning.examples import Example, draw_examples
from engine.finetuning.phrases import ask_for
from engine.finetuning.training import LoRASettings, to_batch, train_adapter
from engine.finetuning.values import ArgumentsDrawer
from engine.finetuning.writing import ExampleWriter, WrittenExample
from engine.grammars.arguments_check import ArgumentsCheck
from engine.grammars.tool_format import ToolFormat
from engine.grammars.tool_formats import HERMES, PLAIN
from engine.model import LoadedModel, MLXModel, load
from engine.prompt import render_prompt
from engine.tokenizer import Tokenizer
from engine.types import Message, Request, Role, Tool, ToolCall
from tests.fakes import EOS, fake_loaded, fake_tokenizer
from tests.grammars.turns import FAMILIES, an_object, compiler_of, takes, tokenizer_of, turn_of
from tests.tiny_models import CONFIG, random_weights, write_folder

LIGHT = Tool(
    "set_light",
    "Set the light of a room.",
    an_object(
        {"room": {"type": "string"}, "level": {"type": "integer", "minimum": 1, "maximum": 9}}, required=["room"]
    ),
)
RIDE = Tool("book_ride", "Book a ride to a city.", an_object({"city": {"type": "string"}}, required=["city"]))
PING = Tool("ping", "Say that you are there.")
TOOLS = (LIGHT, RIDE, PING)


# Values.

SCHEMAS: dict[str, Any] = {
    "bounds": {"type": "integer", "minimum": 100, "maximum": 103},
    "one bound": {"type": "number", "exclusiveMinimum": 1000},
    "steps": {"type": "integer", "minimum": 1, "maximum": 99, "multipleOf": 5},
    "values": {"enum": ["a", 5, None]},
    "constant": {"const": {"a": 1}},
    "nullable": {"type": ["string", "null"]},
    "either": {"anyOf": [{"type": "boolean"}, {"type": "string"}]},
    "short": {"type": "string", "maxLength": 3},
    "date": {"type": "string", "format": "date"},
    "date-time": {"type": "string", "format": "date-time"},
    "email": {"type": "string", "format": "email"},
    "examples": {"type": "string", "pattern": "^[A-Z]{3}-[0-9]$", "examples": ["ABC-1", "XYZ-2"]},
    "list": {"type": "array", "items": {"type": "integer", "minimum": 5}, "minItems": 2, "maxItems": 3},
    "object": an_object({"when": {"type": "string", "format": "time"}, "loud": {"type": "boolean"}}, required=["when"]),
}


@pytest.mark.parametrize("schema", SCHEMAS.values(), ids=SCHEMAS)
def test_made_up_arguments_satisfy_the_schema(schema: Any) -> None:
    tool = Tool("t", "", an_object({"x": schema}, required=["x"]))
    drawer, check = ArgumentsDrawer(tool, "tools[0]"), ArgumentsCheck(tool.parameters, "parameters")
    drawn = [drawer.draw(random.Random(seed)) for seed in range(30)]
    assert [check.fault(arguments) for arguments in drawn] == [None] * 30


def test_where_nothing_is_found_that_satisfies_a_schema_the_tool_is_named() -> None:
    tool = Tool("pin", "", an_object({"code": {"type": "string", "pattern": "^[0-9]{12}$"}}, required=["code"]))
    with pytest.raises(ConfigError, match=r"tools\[0\]: no arguments of 'pin' could be made up .*code.*examples"):
        ArgumentsDrawer(tool, "tools[0]").draw(random.Random(0))


def test_a_schema_that_cannot_be_enforced_is_refused_by_path() -> None:
    broken = Tool("broken", "", an_object({"x": {"type": "string", "pattern": "("}}))
    with pytest.raises(SchemaError, match=r"tools\[1\]\.parameters\.properties\.x"):
        draw_examples([RIDE, broken], 1, seed=0)


def test_optional_properties_are_sometimes_left_out() -> None:
    """F28"""
    drawer = ArgumentsDrawer(LIGHT, "tools[0]")
    drawn = [drawer.draw(random.Random(seed)) for seed in range(40)]
    assert {"level" in arguments for arguments in drawn} == {True, False}


# Examples.


def test_the_same_seed_draws_the_same_examples_and_another_one_others() -> None:
    def asked(seed: int) -> list[str | None]:
        return [each.request.messages[0].content for each in draw_examples(TOOLS, 20, seed)]

    assert asked(1) == asked(1)
    assert asked(1) != asked(2)


def test_every_example_is_a_call_of_an_offered_tool_or_a_text() -> None:
    examples = draw_examples(TOOLS, 200, seed=0)
    calls = [each for each in examples if each.call is not None]
    assert all((each.call is None) != (each.text is None) for each in examples)
    assert all(each.call.name in [tool.name for tool in each.request.tools] for each in calls if each.call)
    assert {each.call.name for each in calls if each.call} == {"set_light", "book_ride", "ping"}
    assert 0.5 < len(calls) / len(examples) < 0.8


def test_the_request_says_each_argument() -> None:
    for example in draw_examples([LIGHT, RIDE], 100, seed=0):
        if example.call is not None:
            said = (example.request.messages[0].content or "").lower()
            assert all(str(value).lower() in said for value in example.call.parsed_arguments().values())


def test_a_request_puts_the_values_where_the_description_speaks_of_them() -> None:
    tool = Tool("get_forecast", "Get the forecast of a city. Uses stations.")
    said = {ask_for(tool, {"city": "Oslo", "days": 3, "level": 5}, random.Random(seed)) for seed in range(80)}
    assert "What is the forecast of Oslo for 3 days with level 5?" in said
    assert "Please get the forecast of Oslo for 3 days with level 5." in said
    assert "Get the forecast of a city: city Oslo, days 3 and level 5." in said


def test_a_single_tool_without_a_description_is_enough() -> None:
    examples = draw_examples([Tool("lockDoor")], 20, seed=0)
    said = [each.request.messages[0].content or "" for each in examples if each.call]
    assert said
    assert all("lock door" in text.lower() for text in said)


@pytest.mark.parametrize(("tools", "count"), [((), 5), (TOOLS, 0), (TOOLS, True)])
def test_no_tools_and_no_examples_are_refused(tools: Sequence[Tool], count: int) -> None:
    with pytest.raises(ConfigError, match=r"it must be|needs one"):
        draw_examples(tools, count, seed=0)


# Written for a model.


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_an_example_is_the_engines_prompt_and_a_turn_that_its_grammar_lets_through(family: ToolFormat) -> None:
    tokenizer = tokenizer_of(family)
    writer = ExampleWriter(tokenizer, family)
    for example in draw_examples([LIGHT, RIDE], 12, seed=3):
        written = writer.write(example)
        assert list(written.prompt) == render_prompt(example.request, family, tokenizer)
        assert written.answer[-1] == tokenizer.token_id(EOS)
        matcher = turn_of(example.request, family).compile(compiler_of(family))
        assert matcher is not None
        assert takes(matcher, written.answer[:-1])
        assert (written.tool is None) == (example.call is None)


def test_reasoning_that_the_prompt_opens_is_closed_before_the_answer() -> None:
    tokenizer = fake_tokenizer(hermes=True, reasons=True)
    opened = tokenizer.with_template((tokenizer.chat_template or "").replace("{% if opened %}", "{% if true %}"))
    asked = Request((Message(Role.USER, "hi"),), tools=(PING,))
    written = ExampleWriter(opened, HERMES).write(Example(asked, ToolCall("call_1", "ping", "{}")))
    assert tokenizer.decode(written.prompt).endswith("<think>\n")
    assert tokenizer.decode(written.answer).startswith("</think>\n\n<tool_call>")


def test_examples_that_are_too_long_are_left_out_and_none_at_all_is_refused() -> None:
    writer = ExampleWriter(fake_tokenizer(), PLAIN)
    examples = draw_examples(TOOLS, 30, seed=0)
    lengths = sorted(len(writer.write(each)) for each in examples)
    assert len(writer.write_all(examples, lengths[10])) in range(11, 30)
    with pytest.raises(ConfigError, match=f"the shortest example has {lengths[0]} tokens"):
        writer.write_all(examples, lengths[0] - 1)


# Training.


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "model", CONFIG, random_weights(CONFIG))


def load_tiny(path: Path, adapter: Path | None = None) -> LoadedModel:
    return load(str(path), cache_dir=path.parent / "cache", adapter_path=adapter)


EXAMPLES = [WrittenExample(tuple(range(10, 20 + i)), (40, 41, 42, 2), None) for i in range(6)]


def test_the_loss_sees_the_answers_tokens_and_nothing_else() -> None:
    tokens, positions, targets, weights = map(np.array, to_batch(EXAMPLES[:2]))
    assert tokens.shape == (2, 32)
    counted = weights > 0
    assert targets[counted].tolist() == [40, 41, 42, 2] * 2
    flat = tokens.reshape(-1)
    assert flat[positions[counted] + 1].tolist() == targets[counted].tolist()
    assert (flat[positions[counted][0]], flat[positions[counted][4]]) == (19, 20), "the prompts' last tokens"


def test_logits_at_positions_are_those_of_a_whole_pass(tiny: Path) -> None:
    model = load_tiny(tiny).model
    assert isinstance(model, MLXModel)
    tokens = mx.array([[5, 9, 17], [99, 3, 42]])
    whole = np.array(model.module(tokens)).reshape(6, -1)
    found = np.array(model.logits_at(tokens, mx.array([4, 1, 1])))
    assert np.allclose(found, whole[[4, 1, 1]], atol=1e-4)


def answer_logprob(loaded: LoadedModel) -> float:
    assert isinstance(loaded.model, MLXModel)
    tokens, positions, targets, weights = to_batch(EXAMPLES[:1])
    logits = loaded.model.logits_at(tokens, positions)
    logprobs = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
    return float((mx.take_along_axis(logprobs, targets[:, None], axis=-1)[:, 0] * weights).sum())


def test_training_makes_the_answers_likelier_and_the_adapter_serves_that(tiny: Path, tmp_path: Path) -> None:
    before = answer_logprob(load_tiny(tiny))
    settings = LoRASettings(rank=4, num_layers=2, learning_rate=0.01, batch_size=2, iterations=12)
    reported: list[int] = []
    losses = train_adapter(
        load_tiny(tiny), EXAMPLES, settings, tmp_path / "a", on_report=lambda i, _: reported.append(i)
    )
    assert reported == list(range(1, 13))
    assert losses[-1] < losses[0]
    assert answer_logprob(load_tiny(tiny, tmp_path / "a")) > before + 1
    told = json.loads((tmp_path / "a" / "adapter_config.json").read_text())
    assert told["settings"]["iterations"] == 12


@pytest.fixture
def uncompiled() -> Iterator[None]:
    """MLX's compiler takes seconds for each new step."""
    mx.disable_compile()
    yield
    mx.enable_compile()


@pytest.mark.usefixtures("uncompiled")
def test_the_same_seed_trains_the_same_adapter(tiny: Path, tmp_path: Path) -> None:
    settings = LoRASettings(rank=2, num_layers=1, batch_size=2, iterations=2, seed=5)
    runs = [train_adapter(load_tiny(tiny), EXAMPLES, settings, tmp_path / name) for name in ("a", "b")]
    other = train_adapter(load_tiny(tiny), EXAMPLES, replace(settings, seed=6), tmp_path / "c")
    assert runs[0] == runs[1] != other


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"rank": 0}, "rank is 0"),
        ({"iterations": 1.5}, "iterations is 1.5"),
        ({"learning_rate": 0}, "learning_rate is 0"),
        ({"scale": float("inf")}, "scale is inf"),
        ({"batch_size": True}, "batch_size is True"),
        ({"num_layers": -1}, "num_layers is -1"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 2**64}, "seed is"),
    ],
)
def test_settings_that_train_nothing_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        LoRASettings(**options)


def test_fewer_examples_than_a_batch_and_models_of_another_kind_are_refused(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="batch_size is 4; there are 2 examples"):
        train_adapter(load_tiny(tiny), EXAMPLES[:2], LoRASettings(), tmp_path / "a")
    with pytest.raises(UnsupportedModelError, match="fake is no model of mlx-lm"):
        train_adapter(fake_loaded(), EXAMPLES, LoRASettings(), tmp_path / "a")


# The command.


@pytest.mark.usefixtures("uncompiled")
def test_the_command_leaves_the_examples_and_an_adapter(tiny: Path, tmp_path: Path) -> None:
    tools = tmp_path / "tools.json"
    tools.write_text(json.dumps({"about": "x", "tools": [{"type": "function", "function": {"name": "ping"}}]}))
    settings = LoRASettings(rank=2, num_layers=1, batch_size=2, iterations=1)
    out = tmp_path / "out"
    options = FinetuneOptions(str(tiny), str(tools), str(out), num_examples=8, max_tokens=2000, settings=settings)
    run_finetune(options, Console(quiet=True))
    lines = [json.loads(line) for line in (out / "train.jsonl").read_text().splitlines()]
    assert len(lines) == 8
    assert lines[0].keys() == {"tool", "prompt", "completion"}
    calls = [line for line in lines if line["tool"] == "ping"]
    assert calls
    assert all(line["completion"].startswith('<tool_call>\n{"name": "ping"') for line in calls)
    assert answer_logprob(load_tiny(tiny, out)) != answer_logprob(load_tiny(tiny))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[", "is no JSON"),
        ("{}", "must be an array of tools"),
        ('[{"name": "a b"}]', r"tools\.json: tools\[0\]\.name"),
    ],
)
def test_a_file_without_tools_is_refused(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "tools.json").write_text(text)
    with pytest.raises(ConfigError, match=words):
        read_tools(str(tmp_path / "tools.json"))


def test_the_format_that_is_trained_is_the_one_that_the_engine_detects(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of Mistral's, the version of tekken.json tells it where the chat template does not."""
    loaded = fake_loaded()
    by_version = replace(loaded, tokenizer=Tokenizer(loaded.tokenizer.fast, tekken_version="v11"))
    monkeypatch.setattr(finetune, "load_shown", lambda *_: by_version)
    console = Console(record=True, file=io.StringIO(), width=200)
    with Engine(by_version) as engine, pytest.raises(UnsupportedModelError, match="no model of mlx-lm"):
        run_finetune(FinetuneOptions("fake", "engine.tools", str(tmp_path / "out"), max_tokens=2000), console)
    assert engine.tool_format.name == "mistral-v11"
    assert "in the 'mistral-v11' format" in console.export_text()


def test_a_place_that_can_be_no_folder_is_refused_before_the_model_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file" / "out"):
        options = FinetuneOptions("no-such-model", "engine.tools", str(out))
        with pytest.raises(ConfigError, match="cannot be made a folder"):
            run_finetune(options, Console(quiet=True))


def test_tools_may_come_from_a_module() -> None:
    assert [tool.name for tool in read_tools("engine.tools")] == ["calculate", "web_search"]


def test_a_tools_file_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"absent\.json cannot be read"):
        read_tools("absent.json")


def test_an_adapter_that_does_not_exist_is_told(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="the adapter folder"):
        load_tiny(tiny, tmp_path / "absent")
