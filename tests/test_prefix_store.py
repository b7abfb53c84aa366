"""Known prompts that outlive the engine."""

import fcntl
import hashlib
import json
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import mlx.core as mx
import pytest
from mlx_lm.models import llama
from mlx_lm.tuner.utils import linear_to_lora_layers

from engine.cache import Cache, Part
from engine.config import EngineConfig
from engine.engine import Engine
from engine.errors import ConfigError
from engine.events import Completion
from engine.memory import SlotMemory
from engine.model import LoadedModel, MLXModel, load
from engine.prefix_cache import BLOCK, PrefixCache
from engine.prefix_store import PART_PREFIX, PrefixStore
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


def test_weights_that_differ_in_one_value_have_another_file(tmp_path: Path) -> None:
    weights = random_weights(LONG)
    one = load(write_folder(tmp_path / "one", LONG, weights), cache_dir=tmp_path)
    same = load(write_folder(tmp_path / "same", LONG, weights), cache_dir=tmp_path)
    name = "model.embed_tokens.weight"
    weights[name][130, 30] = 3.0  # far from both ends
    other = load(write_folder(tmp_path / "other", LONG, weights), cache_dir=tmp_path)
    assert one.model.fingerprint() == same.model.fingerprint() != other.model.fingerprint()


def test_an_adapter_of_another_factor_has_another_file() -> None:
    found = set()
    for scale in (10.0, 20.0):
        mx.random.seed(0)
        module = llama.Model(llama.ModelArgs.from_dict(LONG))
        linear_to_lora_layers(module, 1, {"rank": 2, "scale": scale, "dropout": 0.0})
        found.add(MLXModel(module, 128).fingerprint())
    assert len(found) == 2


DAMAGES = ("cut", "junk", "no blocks", "no digest", "other shapes", "missing arrays", "zeroed", "a folder")


@pytest.mark.parametrize("damage", DAMAGES)
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
        case "no digest":
            mx.save_safetensors(str(path), arrays, {"blocks": metadata["blocks"]})
        case "missing arrays":
            mx.save_safetensors(str(path), dict(list(arrays.items())[:3]), metadata)
        case "zeroed":
            path.write_bytes(path.read_bytes()[:-4000] + bytes(4000))
        case "a folder":
            path.unlink(), path.mkdir()
    with caplog.at_level(logging.WARNING):
        assert ask(loaded, tmp_path).usage.cached_tokens == 0
    (warning,) = [record.message for record in caplog.records if "computed anew" in record.message]
    assert str(path) in warning
    if path.is_file():
        assert ask(loaded, tmp_path).usage.cached_tokens > 0


Blocks = list[list[Any]]


@pytest.mark.parametrize(
    "change",
    [
        lambda blocks: [[99, blocks[0][1]], *blocks[1:]],
        lambda blocks: [[-1, tokens] for _, tokens in blocks],
        lambda blocks: [["x", tokens] for _, tokens in blocks],
        lambda blocks: [[None, tokens] for _, tokens in blocks],
        lambda blocks: [[True, tokens] for _, tokens in blocks],
        lambda blocks: [[number + 1, tokens] for number, (_, tokens) in enumerate(blocks)],
        lambda blocks: [*blocks[:-1], [len(blocks), blocks[-1][1]]],
        lambda blocks: [[parent, list(map(str, tokens))] for parent, tokens in blocks],
        lambda blocks: [[parent, [[token] for token in tokens]] for parent, tokens in blocks],
        lambda blocks: [[parent, "abc"] for parent, _ in blocks],
        lambda blocks: [[parent, 3] for parent, _ in blocks],
        lambda blocks: [[parent, []] for parent, _ in blocks],
        lambda blocks: [*blocks, blocks[0]],
        lambda blocks: [[0, tokens, 7] for _, tokens in blocks],
        lambda _: {"a": 1},
        lambda _: 5,
    ],
)
def test_a_list_of_blocks_that_is_no_tree_is_no_list_though_its_digest_is_right(
    loaded: LoadedModel, tmp_path: Path, change: Callable[[Blocks], Any], caplog: pytest.LogCaptureFixture
) -> None:
    ask(loaded, tmp_path)
    (path,) = tmp_path.iterdir()
    rewrite(path, change)
    assert ask(loaded, tmp_path).usage.cached_tokens == 0
    assert caplog.text.count(f"the prompts kept in {path} cannot be read") == 1


def test_a_list_of_blocks_that_is_the_same_is_taken_over(loaded: LoadedModel, tmp_path: Path) -> None:
    ask(loaded, tmp_path)
    (path,) = tmp_path.iterdir()
    rewrite(path, lambda blocks: blocks)
    assert ask(loaded, tmp_path).usage.cached_tokens > 0


def rewrite(path: Path, change: Callable[[Blocks], Any]) -> None:
    """Change which blocks a file says it has, and its digest with them."""
    loaded: Any = mx.load(str(path), return_metadata=True)
    arrays, metadata = loaded
    blocks = json.dumps(change(json.loads(metadata["blocks"])))
    digest = hashlib.sha256(blocks.encode())
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.shape} {array.dtype}".encode())
        digest.update(bytes(memoryview(array)))
    mx.save_safetensors(str(path), arrays, {"blocks": blocks, "sha256": digest.hexdigest()})


class ZerosCache:
    """Of a model of one layer, whose keys have two values."""

    def __init__(self, num_tokens: int) -> None:
        self.num_tokens = num_tokens

    def read(self, ranges: Sequence[tuple[int, int]]) -> list[Part]:
        return [Part([[mx.zeros((1, 1, stop - start, 2))]], 8 * (stop - start)) for start, stop in ranges]


def test_the_order_of_use_outlives_the_engine(tmp_path: Path) -> None:
    memory = SlotMemory(1)
    memory.token_shapes = [[(1, 2, mx.float32)]]
    kept, found = (PrefixCache(max_tokens * 8, bytes_per_token=8) for max_tokens in (1000, 3 * BLOCK + 10))
    first, second, third = ([number] * (BLOCK + 10) for number in range(3))
    for prompt in (first, second, third, first):
        kept.keep(prompt, cast("Cache", ZerosCache(len(prompt))))
    for prefixes, act in ((kept, PrefixStore.save), (found, PrefixStore.load)):
        act(PrefixStore(tmp_path, "one", memory), prefixes)
    assert [found.find(prompt) for prompt in (first, second, third)] == [BLOCK + 10, 0, BLOCK + 10]


def test_a_file_is_on_the_disk_before_it_takes_the_earlier_one_s_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[tuple[str, bool]] = []
    place, synced, target = os.replace, os.fsync, tmp_path / "one.safetensors"
    monkeypatch.setattr(os, "fsync", lambda handle: (synced(handle), done.append(("fsync", target.exists()))))
    monkeypatch.setattr(os, "replace", lambda old, new: (done.append(("replace", target.exists())), place(old, new)))
    memory, kept = SlotMemory(1), PrefixCache(1000, bytes_per_token=8)
    kept.keep([1, 2], cast("Cache", ZerosCache(2)))
    PrefixStore(tmp_path, "one", memory).save(kept)
    assert done == [("fsync", False), ("replace", False)]
    assert list(tmp_path.iterdir()) == [target]


def test_what_a_killed_process_left_is_removed_and_what_another_writes_is_not(
    loaded: LoadedModel, tmp_path: Path
) -> None:
    left, written = (tmp_path / f"{PART_PREFIX}{name}.safetensors" for name in ("left", "written"))
    left.write_bytes(b"half a file")
    with written.open("wb") as writer:
        fcntl.flock(writer, fcntl.LOCK_EX)
        ask(loaded, tmp_path)
    assert (left.exists(), written.exists(), len(list(tmp_path.iterdir()))) == (False, True, 2)


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
