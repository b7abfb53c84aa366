"""Bad options of an engine or a request: refused by name, before anything is done."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from engine.config import EngineConfig
from engine.engine import Engine
from engine.errors import (
    ConfigError,
    ContextLengthError,
    ModelNotFoundError,
    RequestError,
)
from engine.types import (
    Message,
    Request,
    Role,
    SamplingParams,
    Tool,
)
from tests.fakes import EOS, USER, fake_loaded, fake_model

Options = Mapping[str, Any]


@pytest.mark.parametrize("option", ["stop_token_ids", "logit_bias"])
def test_a_special_token_that_is_masked_is_refused_and_one_that_the_grammar_names_is_not(option: str) -> None:
    def ask(engine: Engine, token: str, *tools: Tool) -> None:
        id_ = engine.loaded.tokenizer.token_id(token)
        assert id_ is not None
        bias = {id_: 1.0} if option == "logit_bias" else {}
        engine.submit(
            Request(
                (Message(Role.USER, "hi"),),
                tools=tools,
                sampling=SamplingParams(logit_bias=bias),
                stop_token_ids=(id_,) if option == "stop_token_ids" else (),
                max_tokens=1,
            )
        ).completion()

    with Engine(fake_loaded(hermes=True)) as engine:
        for token, tools in (("<|im_start|>", ()), ("<|im_start|>", (Tool("f"),)), ("<tool_call>", ())):
            with pytest.raises(RequestError, match="can never be written") as caught:
                ask(engine, token, *tools)
            assert caught.value.param == option
        ask(engine, EOS)
        ask(engine, "<tool_call>", Tool("f"))


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"model": None}, "model"),
        ({"model": b"smollm2-135m"}, "model"),
        ({"model": "smollm2-135m", "config": {}}, "config"),
        ({"model": "smollm2-135m", "adapter_path": 5}, "adapter_path"),
        ({"model": fake_loaded(), "adapter_path": "adapter"}, "adapter_path"),
    ],
    ids=lambda value: f"{value!r:.40}",
)
def test_an_option_of_an_engine_that_is_not_what_it_must_be_is_an_error(options: Options, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        Engine(**options)


@pytest.mark.parametrize(
    "options",
    [
        {"cache_dir": 5},
        {"cache_dir": ""},
        {"cache_dir": None},
        {"fast_forward": "no"},
        {"look_ahead": 1},
        {"drafts": None},
        {"max_running": None},
        {"kv_bits": 3},
        {"kv_bits": "8"},
        {"kv_bits": True},
    ],
)
def test_an_option_of_a_config_that_is_not_what_it_must_be_is_an_error(options: Options) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        EngineConfig(**options)


def test_a_cache_that_cannot_be_quantised_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="kv_bits is 8"):
        Engine(fake_loaded(), config=EngineConfig(kv_bits=8))


def test_memory_for_less_than_the_shortest_row_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="kv_memory is 255; 256 tokens of this model take 256 bytes"):
        Engine(fake_loaded(), config=EngineConfig(kv_memory=255))


def test_a_bound_that_would_not_be_held_is_refused_by_name() -> None:
    loaded = fake_loaded()
    fake_model(loaded).can_batch = False  # as with rotating and recurrent caches
    with pytest.raises(ConfigError, match="kv_memory is 1000; the caches of this model's architecture cannot be"):
        Engine(loaded, config=EngineConfig(kv_memory=1000))
    Engine(loaded).close()


def test_a_request_that_the_memory_can_never_hold_is_refused() -> None:
    with Engine(fake_loaded(), config=EngineConfig(kv_memory=300)) as engine:
        with pytest.raises(ContextLengthError, match="kv_memory has 256"):
            engine.chat([Message(Role.USER, "abc" * 200)])
        with pytest.raises(ContextLengthError, match="leave room for"):
            engine.chat([USER], max_tokens=256)
        assert engine.chat([USER], max_tokens=5).usage.completion_tokens <= 5


def test_a_path_may_be_text_and_a_model_s_name_a_path(tmp_path: Path) -> None:
    config = EngineConfig(cache_dir=str(tmp_path))
    assert config.cache_dir == tmp_path
    with pytest.raises(ModelNotFoundError, match=r"no config\.json"):
        Engine(tmp_path, config=config, adapter_path="adapter")
