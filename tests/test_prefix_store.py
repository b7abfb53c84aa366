"""Known prompts that outlive the engine."""

import logging
from pathlib import Path

import mlx.core as mx
import pytest

from engine.config import EngineConfig
from engine.engine import Engine
from engine.errors import ConfigError
from engine.events import Completion
from engine.model import LoadedModel, load
from tests.fakes import fake_loaded
from tests.test_parity import LONG, assert_same_up_to_rounding, tokens, weather_request
from tests.tiny_models import random_weights, write_folder

REQUEST = weather_request("Is it warm in Rome?")


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return tiny(tmp_path_factory.mktemp("model") / "one")


def tiny(path: Path, seed: int = 0) -> LoadedModel:
    return load(write_folder(path, LONG, random_weights(LONG, seed)), cache_dir=path)


def ask(loaded: LoadedModel, folder: Path, **options: int) -> Completion:
    """One engine's life."""
    with Engine(loaded, config=EngineConfig(prompt_cache_dir=folder, **options)) as engine:
        return engine.submit(REQUEST).completion()


def test_a_prompt_is_known_after_a_restart_and_the_answer_is_the_same(loaded: LoadedModel, tmp_path: Path) -> None:
    first, second, third = (ask(loaded, tmp_path / "new" / "folder") for _ in range(3))
    known = first.usage.prompt_tokens - 1
    assert [each.usage.cached_tokens for each in (first, second, third)] == [0, known, known]
    with Engine(loaded) as engine:
        prompt = engine.render_prompt(REQUEST)
    assert_same_up_to_rounding(loaded, prompt, tokens(first), tokens(third))


def test_what_a_file_holds_is_bounded_as_in_memory(loaded: LoadedModel, tmp_path: Path) -> None:
    ask(loaded, tmp_path)
    few = ask(loaded, tmp_path, prompt_cache_memory=2**16)
    assert 0 < few.usage.cached_tokens < few.usage.prompt_tokens - 1


def test_other_weights_and_other_bits_do_not_find_it(loaded: LoadedModel, tmp_path: Path) -> None:
    ask(loaded, tmp_path / "kept")
    assert ask(tiny(tmp_path / "other", seed=1), tmp_path / "kept").usage.cached_tokens == 0
    assert len(list((tmp_path / "kept").iterdir())) == 2


@pytest.mark.parametrize("damage", ["cut", "junk", "no blocks", "other shapes", "missing arrays"])
def test_a_file_that_cannot_be_read_is_no_file_and_is_written_anew(
    loaded: LoadedModel, tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    ask(loaded, tmp_path)
    (path,) = tmp_path.iterdir()
    arrays, metadata = mx.load(str(path), return_metadata=True)
    match damage:
        case "cut":
            path.write_bytes(path.read_bytes()[:-100])
        case "junk":
            path.write_bytes(b"\x80\x04junk")
        case "no blocks":
            mx.save_safetensors(str(path), arrays, {})
        case "other shapes":
            mx.save_safetensors(str(path), {name: array[:, :1] for name, array in arrays.items()}, metadata)
        case "missing arrays":
            mx.save_safetensors(str(path), dict(list(arrays.items())[:3]), metadata)
    with caplog.at_level(logging.WARNING):
        assert ask(loaded, tmp_path).usage.cached_tokens == 0
    assert "computed anew" in caplog.text
    assert ask(loaded, tmp_path).usage.cached_tokens > 0


def test_a_folder_that_cannot_be_written_costs_nothing_but_time(
    loaded: LoadedModel, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    assert ask(loaded, tmp_path / "file" / "folder").usage.completion_tokens > 0
    assert "cannot be kept" in caplog.text


def test_a_cache_that_cannot_be_kept_on_disk_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="prompt_cache_dir"):
        Engine(fake_loaded(), config=EngineConfig(prompt_cache_dir=tmp_path))
    with pytest.raises(ConfigError, match="prompt_cache_dir"):
        EngineConfig(prompt_cache_dir=tmp_path, prompt_cache_memory=0)
    with pytest.raises(ConfigError, match="prompt_cache_dir is 5"):
        EngineConfig(prompt_cache_dir=5)  # type: ignore[arg-type]
