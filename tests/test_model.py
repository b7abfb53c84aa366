import json
import re
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from huggingface_hub import constants
from mlx import nn
from mlx.utils import tree_flatten
from mlx_lm.models import llama
from mlx_lm.tuner.utils import linear_to_lora_layers

from engine.errors import ModelNotFoundError, UnsupportedModelError
from engine.model import Chunk, LanguageModel, LoadedModel, MLXModel, load
from tests.tiny_models import (
    CONFIG,
    F32,
    Q4_1,
    Q8_0,
    gguf_metadata,
    gguf_tensors,
    quantise,
    random_weights,
    write_folder,
    write_gguf,
)

UNTIED = CONFIG | {"tie_word_embeddings": False}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
TOKENS = [5, 250, 17, 17, 99, 3, 180, 42]
LORA = {"rank": 4, "scale": 8.0, "dropout": 0.5}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "model", CONFIG, random_weights(CONFIG))


def load_tiny(path: Path, **options: Any) -> LoadedModel:
    return load(str(path), cache_dir=path.parent / "cache", **options)


def logits_of(model: LanguageModel, tokens: Sequence[int] = TOKENS, num_logits: int | None = None) -> np.ndarray:
    """Of one forward pass from nothing: (num_logits, V)."""
    size = len(tokens) if num_logits is None else num_logits
    logits = model.forward([Chunk(tokens, model.make_memory().make_cache(), num_logits=size)])
    return np.array(logits.astype(mx.float32))


def largest_difference(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one - other).max())


# --- The forward pass


@pytest.mark.parametrize("config", [CONFIG, UNTIED], ids=["tied", "untied"])
@pytest.mark.parametrize("num_logits", [1, 3, len(TOKENS)])
def test_logits_are_those_of_the_last_positions(tmp_path: Path, config: dict[str, Any], num_logits: int) -> None:
    model = load_tiny(write_folder(tmp_path / "model", config, random_weights(config))).model
    found = logits_of(model, num_logits=num_logits)
    assert found.shape == (num_logits, model.vocab_size)
    assert largest_difference(found, logits_of(model)[-num_logits:]) < 1e-4


@pytest.mark.parametrize("config", [CONFIG, UNTIED], ids=["tied", "untied"])
def test_the_head_multiplies_the_asked_positions_only(
    tmp_path: Path, config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    head_type, method = (nn.Embedding, "as_linear") if config is CONFIG else (nn.Linear, "__call__")
    original = getattr(head_type, method)

    def record(self: nn.Module, hidden: mx.array) -> mx.array:
        if self.weight.shape[0] == config["vocab_size"]:
            seen.append(hidden.shape[1])
        return original(self, hidden)

    monkeypatch.setattr(head_type, method, record)
    model = load_tiny(write_folder(tmp_path / "model", config, random_weights(config))).model
    cache = model.make_memory().make_cache()
    seen.clear()
    model.forward([Chunk(TOKENS, cache, num_logits=2)])
    assert seen == [2]


def test_no_logits_still_fill_the_cache(folder: Path) -> None:
    model = load_tiny(folder).model
    cache = model.make_memory().make_cache()
    nothing = model.forward([Chunk(TOKENS[:-1], cache, num_logits=0)])
    assert nothing.shape == (0, model.vocab_size)
    mx.eval(cache.arrays())
    last = model.forward([Chunk(TOKENS[-1:], cache, num_logits=1)])
    assert largest_difference(np.array(last), logits_of(model, num_logits=1)) < 1e-4


@pytest.mark.parametrize("cuts", [[1], [3], [2, 3, 7], list(range(1, len(TOKENS)))])
def test_chunks_give_the_logits_of_the_whole(folder: Path, cuts: list[int]) -> None:
    model = load_tiny(folder).model
    cache = model.make_memory().make_cache()
    chunks = [TOKENS[start:end] for start, end in zip([0, *cuts], [*cuts, len(TOKENS)], strict=True)]
    parts = [model.forward([Chunk(chunk, cache, num_logits=len(chunk))]) for chunk in chunks]
    assert cache.num_tokens == len(TOKENS)
    assert largest_difference(np.array(mx.concatenate(parts)), logits_of(model)) < 1e-4


def test_rows_do_not_see_each_other(folder: Path) -> None:
    model = load_tiny(folder).model
    rows = (TOKENS, TOKENS[::-1], TOKENS[:3])
    memory = model.make_memory()
    together = model.forward([Chunk(row, memory.make_cache(), num_logits=1) for row in rows])
    alone = [logits_of(model, row, num_logits=1)[0] for row in rows]
    assert largest_difference(np.array(together), np.stack(alone)) < 1e-4


def test_mlx_lm_sees_an_unchanged_module(folder: Path) -> None:
    model = load_tiny(folder).model
    assert isinstance(model, MLXModel)
    names = dict(tree_flatten(model.module.parameters())).keys()
    assert names == random_weights(CONFIG).keys()
    assert isinstance(model.module.model.embed_tokens, nn.Embedding)
    logits_of(model, num_logits=1)
    assert model.module(mx.array([TOKENS])).shape == (1, len(TOKENS), model.vocab_size)


class HeadOfAnotherName(nn.Module):
    """Logits that tell their position, from no module that is known to be a head."""

    layers = ()

    def make_cache(self) -> list[Any]:
        return []

    def __call__(self, tokens: mx.array, cache: list[Any]) -> mx.array:
        del cache
        return mx.broadcast_to(mx.arange(tokens.shape[1])[None, :, None], (*tokens.shape, 7)).astype(mx.float32)


def test_of_a_model_with_an_unknown_head_the_last_positions_are_cut_out() -> None:
    model = MLXModel(HeadOfAnotherName(), context_length=16)
    assert model.vocab_size == 7
    assert logits_of(model, num_logits=2)[:, 0].tolist() == [6.0, 7.0]


# --- Loading


def test_a_folders_sizes_come_from_its_config(folder: Path) -> None:
    loaded = load_tiny(folder)
    assert loaded.name == str(folder)
    assert (loaded.model.vocab_size, loaded.model.context_length) == (262, 128)
    assert loaded.tokenizer.num_tokens == 262


def test_a_model_that_one_thread_loaded_another_can_run(tmp_path: Path) -> None:
    # A scaled RoPE holds an array that is no parameter.
    config = CONFIG | {"rope_scaling": LLAMA3_ROPE}
    loaded = load_tiny(write_folder(tmp_path / "model", config, random_weights(config)))
    found: list[np.ndarray] = []
    thread = threading.Thread(target=lambda: found.append(logits_of(loaded.model)))
    thread.start()
    thread.join()
    assert largest_difference(found[0], logits_of(loaded.model)) == 0


@pytest.mark.parametrize("config", [CONFIG, UNTIED], ids=["tied", "untied"])
def test_a_gguf_file_gives_the_logits_of_the_folder(tmp_path: Path, config: dict[str, Any]) -> None:
    weights = random_weights(config)
    from_folder = load_tiny(write_folder(tmp_path / "model", config, weights))
    path = write_gguf(tmp_path / "m.gguf", gguf_metadata(config), gguf_tensors(config, weights))
    from_gguf = load_tiny(path, expand_weights=True)
    assert largest_difference(logits_of(from_gguf.model), logits_of(from_folder.model)) < 1e-4
    assert from_gguf.tokenizer.encode("the abc") == from_folder.tokenizer.encode("the abc")


def test_rope_factors_of_a_gguf_file_are_those_of_llama_3(tmp_path: Path) -> None:
    weights = random_weights(CONFIG)
    scaled = CONFIG | {"rope_scaling": LLAMA3_ROPE}
    plain = 10000.0 ** (np.arange(0, 16, 2) / 16)
    factors = np.array(llama.Model(llama.ModelArgs.from_dict(scaled)).layers[0].self_attn.rope._freqs) / plain
    tensors = gguf_tensors(CONFIG, weights) | {"rope_freqs.weight": (F32, factors.astype(np.float32))}
    from_gguf = load_tiny(write_gguf(tmp_path / "m.gguf", gguf_metadata(CONFIG), tensors), expand_weights=True)
    from_folder = load_tiny(write_folder(tmp_path / "model", scaled, weights))
    assert largest_difference(logits_of(from_gguf.model), logits_of(from_folder.model)) < 1e-3


def test_quantised_gguf_weights_mean_the_same_packed_and_expanded(tmp_path: Path) -> None:
    tensors = gguf_tensors(CONFIG, random_weights(CONFIG))
    shapes = {name: data.shape for name, (_, data) in tensors.items() if data.ndim == 2}
    for name in shapes:  # as llama.cpp does: the embedding in 8 bits
        kind = Q8_0 if name == "token_embd.weight" else Q4_1
        tensors[name] = (kind, quantise(tensors[name][1], kind)[0])
    path = write_gguf(tmp_path / "m.gguf", gguf_metadata(CONFIG), tensors, shapes)
    expanded, packed = (load_tiny(path, expand_weights=expand).model for expand in (True, False))
    assert isinstance(expanded, MLXModel)
    assert isinstance(packed, MLXModel)
    assert {array.dtype for _, array in tree_flatten(expanded.module.parameters())} == {mx.float32}
    assert {array.dtype for _, array in tree_flatten(packed.module.parameters())} == {mx.uint32, mx.float16}
    assert largest_difference(logits_of(packed), logits_of(expanded)) < 0.1


def test_a_quantised_folder_is_expanded_on_the_cpu(tmp_path: Path) -> None:
    module = llama.Model(llama.ModelArgs.from_dict(CONFIG))
    module.load_weights(list(random_weights(CONFIG).items()))
    module.set_dtype(mx.bfloat16)
    nn.quantize(module, group_size=32, bits=4)
    config = CONFIG | {"quantization": {"group_size": 32, "bits": 4}}
    path = write_folder(tmp_path / "model", config, dict(tree_flatten(module.parameters())))
    expanded, packed = (load_tiny(path, expand_weights=expand).model for expand in (True, False))
    assert isinstance(expanded, MLXModel)
    assert {array.dtype for _, array in tree_flatten(expanded.module.parameters())} == {mx.float32}
    assert largest_difference(logits_of(packed), logits_of(expanded)) < 0.5  # bfloat16 has 8 bits


def test_a_folder_without_weights_is_not_found(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelNotFoundError, match="safetensors"):
        load_tiny(folder)


@pytest.mark.parametrize("changes", [{"model_type": "no_such_family"}, {"hidden_size": 128}])
def test_a_folder_that_does_not_fit_is_unsupported(tmp_path: Path, changes: dict[str, Any]) -> None:
    path = write_folder(tmp_path / "model", CONFIG | changes, random_weights(CONFIG))
    with pytest.raises(UnsupportedModelError, match="cannot be loaded"):
        load_tiny(path)


def test_a_gguf_file_whose_tensors_do_not_fit_is_unsupported(tmp_path: Path) -> None:
    tensors = gguf_tensors(CONFIG, random_weights(CONFIG))
    del tensors["blk.1.ffn_up.weight"]
    path = write_gguf(tmp_path / "m.gguf", gguf_metadata(CONFIG), tensors)
    with pytest.raises(UnsupportedModelError, match=r"layers\.1\.mlp\.up_proj"):
        load_tiny(path)


# --- Adapters


def write_adapter(path: Path, config: dict[str, Any] = CONFIG) -> Path:
    """A LoRA adapter with random values, as mlx_lm's training writes it."""
    module = llama.Model(llama.ModelArgs.from_dict(config))
    module.freeze()
    linear_to_lora_layers(module, config["num_hidden_layers"], LORA)
    mx.random.seed(1)
    weights = {name: mx.random.normal(a.shape) * 0.05 for name, a in tree_flatten(module.trainable_parameters())}
    path.mkdir()
    mx.save_safetensors(str(path / "adapters.safetensors"), weights)
    settings = {"fine_tune_type": "lora", "num_layers": config["num_hidden_layers"], "lora_parameters": LORA}
    (path / "adapter_config.json").write_text(json.dumps(settings))
    return path


def test_an_adapter_changes_the_logits_alike_fused_and_beside(folder: Path, tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "adapter")
    plain = logits_of(load_tiny(folder).model)
    fused = load_tiny(folder, adapter_path=adapter, expand_weights=True).model
    beside = load_tiny(folder, adapter_path=adapter, expand_weights=False).model
    assert isinstance(fused, MLXModel)
    assert dict(tree_flatten(fused.module.parameters())).keys() == random_weights(CONFIG).keys()
    assert largest_difference(logits_of(fused), logits_of(beside)) < 1e-3
    assert largest_difference(logits_of(fused), plain) > 0.1


def test_an_adapter_folder_that_lacks_a_file_is_not_found(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"no adapter_config\.json and no adapters\.safetensors"):
        load_tiny(folder, adapter_path=tmp_path / "absent")


def test_an_adapter_of_another_model_is_unsupported(folder: Path, tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "adapter", CONFIG | {"hidden_size": 128})
    with pytest.raises(UnsupportedModelError, match="does not fit the model"):
        load_tiny(folder, adapter_path=adapter)


def test_an_adapter_with_a_broken_config_is_unsupported(folder: Path, tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "adapter")
    (adapter / "adapter_config.json").write_text("{}")
    with pytest.raises(UnsupportedModelError, match="does not fit the model"):
        load_tiny(folder, adapter_path=adapter)


@pytest.mark.parametrize("kind", ["lora", "dora", "full"])
def test_an_adapter_without_tensors_is_unsupported(folder: Path, tmp_path: Path, kind: str) -> None:
    adapter = write_adapter(tmp_path / "adapter")
    settings = json.loads((adapter / "adapter_config.json").read_text()) | {"fine_tune_type": kind}
    (adapter / "adapter_config.json").write_text(json.dumps(settings))
    mx.save_safetensors(str(adapter / "adapters.safetensors"), {})
    with pytest.raises(UnsupportedModelError, match="its file lacks"):
        load_tiny(folder, adapter_path=adapter)


def test_an_adapter_that_lacks_a_tensor_is_unsupported(folder: Path, tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "adapter")
    weights = dict(mx.load(str(adapter / "adapters.safetensors")))
    absent = sorted(weights)[0]
    del weights[absent]
    mx.save_safetensors(str(adapter / "adapters.safetensors"), weights)
    told = rf"lacks 1 of {len(weights) + 1} tensors, such as {re.escape(absent)}$"
    with pytest.raises(UnsupportedModelError, match=told):
        load_tiny(folder, adapter_path=adapter)


# --- The hub


@pytest.mark.parametrize(
    ("setting", "value"), [("HF_HUB_OFFLINE", True), ("ENDPOINT", "http://127.0.0.1:9")], ids=["offline", "refused"]
)
def test_an_unreachable_hub_names_its_cache_and_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: str, value: object
) -> None:
    monkeypatch.setattr(constants, setting, value)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelNotFoundError) as caught:
        load("some-org/some-model", cache_dir=tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert "local folder" in str(caught.value)


# --- The embedded model


@pytest.fixture(scope="module")
def recorded() -> dict[str, Any]:
    """Results of llama.cpp; the file says how they were had."""
    case: dict[str, Any] = json.loads((Path(__file__).parent / "data" / "smollm2_llama_cpp.json").read_text())
    return case


@pytest.mark.embedded
def test_the_embedded_model_writes_what_llama_cpp_writes(embedded_model: LoadedModel, recorded: dict[str, Any]) -> None:
    model = embedded_model.model
    cache = model.make_memory().make_cache()
    pending = embedded_model.tokenizer.encode(recorded["prompt"])
    assert pending == recorded["prompt_ids"]
    written: list[int] = []
    while len(written) < len(recorded["greedy_ids"]):
        logits = model.forward([Chunk(pending, cache, num_logits=1)])
        pending = [int(mx.argmax(logits[-1]).item())]
        written += pending
    assert written == recorded["greedy_ids"]


@pytest.mark.embedded
def test_the_embedded_models_logits_are_llama_cpps(embedded_model: LoadedModel, recorded: dict[str, Any]) -> None:
    logits = logits_of(embedded_model.model, recorded["prompt_ids"], num_logits=1)[0]
    best = [int(token) for token in np.argsort(-logits)[: len(recorded["top_logits"])]]
    assert best == [int(token) for token in recorded["top_logits"]]
    assert [float(logits[token]) for token in best] == pytest.approx(list(recorded["top_logits"].values()), abs=1e-3)


@pytest.mark.embedded
def test_the_embedded_model_has_the_sizes_of_its_card(embedded_model: LoadedModel) -> None:
    assert (embedded_model.model.vocab_size, embedded_model.model.context_length) == (49152, 8192)
    assert embedded_model.tokenizer.num_tokens == 49152
