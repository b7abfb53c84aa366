from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from engine.errors import ModelNotFoundError, UnsupportedModelError
from engine.gguf import read_gguf, read_header
from tests.tiny_models import (
    CONFIG,
    F32,
    Q4_0,
    Q4_1,
    Q8_0,
    gguf_metadata,
    gguf_tensors,
    quantise,
    random_weights,
    write_gguf,
)

UNTIED = CONFIG | {"tie_word_embeddings": False}
V_PROJ = "blk.0.attn_v.weight"


def write(path: Path, *, config: dict[str, Any] = CONFIG, extra: dict[str, Any] | None = None) -> Path:
    tensors = gguf_tensors(config, random_weights(config))
    return write_gguf(path / "model.gguf", gguf_metadata(config) | (extra or {}), tensors)


def without(metadata: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in metadata.items() if name != key}


def test_the_config_has_the_keys_of_a_llama_config(tmp_path: Path) -> None:
    config = read_gguf(write(tmp_path)).config
    assert {key: config[key] for key in CONFIG} == pytest.approx(CONFIG)
    assert config["head_dim"] == 16


@pytest.mark.parametrize("config", [CONFIG, UNTIED], ids=["tied", "untied"])
def test_names_and_row_order_are_those_of_the_original_weights(tmp_path: Path, config: dict[str, Any]) -> None:
    expected = random_weights(config)
    model = read_gguf(write(tmp_path, config=config))
    assert model.config["tie_word_embeddings"] is config["tie_word_embeddings"]
    assert model.weights.keys() == expected.keys()
    assert all(mx.array_equal(model.weights[name], expected[name]) for name in expected)


@pytest.mark.parametrize(("kind", "bits"), [(Q4_0, 4), (Q4_1, 4), (Q8_0, 8)])
def test_quantised_tensors_stay_packed_and_mean_the_same(tmp_path: Path, kind: int, bits: int) -> None:
    weights = random_weights(CONFIG)
    tensors = gguf_tensors(CONFIG, weights)
    data, expected = quantise(tensors[V_PROJ][1], kind)
    shape = tensors[V_PROJ][1].shape
    tensors[V_PROJ] = (kind, data)
    path = write_gguf(tmp_path / "m.gguf", gguf_metadata(CONFIG), tensors, {V_PROJ: shape})
    read = read_gguf(path).weights
    name = "model.layers.0.self_attn.v_proj"
    packed, scales, biases = (read[f"{name}.{leaf}"] for leaf in ("weight", "scales", "biases"))
    assert (packed.dtype, scales.dtype) == (mx.uint32, mx.float16)
    found = mx.dequantize(packed, scales.astype(mx.float32), biases.astype(mx.float32), group_size=32, bits=bits)
    assert np.allclose(np.array(found), expected, atol=1e-6)


def test_the_vocabulary_is_passed_on_as_written(tmp_path: Path) -> None:
    vocabulary = read_gguf(write(tmp_path)).vocabulary
    assert (vocabulary.model, vocabulary.pre_tokenizer) == ("gpt2", "gpt-2")
    assert vocabulary.tokens[:3] == ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
    assert vocabulary.token_types[:4] == (3, 3, 3, 1)
    assert vocabulary.merges == ("t h", "th e", "a b")
    assert (vocabulary.eos_id, vocabulary.bos_id) == (2, None)


def test_rope_factors_are_handed_over_apart_from_the_weights(tmp_path: Path) -> None:
    factors = np.linspace(1, 8, 8, dtype=np.float32)
    tensors = gguf_tensors(CONFIG, random_weights(CONFIG)) | {"rope_freqs.weight": (F32, factors)}
    model = read_gguf(write_gguf(tmp_path / "m.gguf", gguf_metadata(CONFIG), tensors))
    assert model.rope_factors is not None
    assert np.array_equal(np.array(model.rope_factors), factors)
    assert "rope_freqs.weight" not in model.weights


def test_linear_rope_scaling_is_passed_on(tmp_path: Path) -> None:
    path = write(tmp_path, extra={"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 4.0})
    assert read_gguf(path).config["rope_scaling"] == {"type": "linear", "factor": 4.0}


@pytest.mark.parametrize(
    ("extra", "named"),
    [
        ({"general.architecture": "qwen2"}, "qwen2"),
        ({"llama.expert_count": 8}, "mixture of experts"),
        ({"llama.rope.scaling.type": "yarn"}, "yarn"),
        ({"llama.rope.dimension_count": 8}, "rope.dimension_count"),
        ({"llama.attention.value_length": 32}, "attention.value_length"),
        ({"llama.attention.head_count_kv": [2, 1]}, "attention.head_count_kv"),
    ],
)
def test_what_would_be_read_wrongly_is_refused_by_name(tmp_path: Path, extra: dict[str, Any], named: str) -> None:
    with pytest.raises(UnsupportedModelError, match=named):
        read_gguf(write(tmp_path, extra=extra))


# mx.load turns the first three into float16 without a word, and leaves out the fourth.
@pytest.mark.parametrize(
    ("kind", "named"), [(12, "Q4_K"), (14, "Q6_K"), (30, "BF16"), (39, "MXFP4"), (99, "number 99")]
)
def test_number_formats_that_mlx_would_not_keep_are_refused(tmp_path: Path, kind: int, named: str) -> None:
    tensors = {V_PROJ: (kind, np.zeros(64, np.uint8))}
    path = write_gguf(tmp_path / "m.gguf", gguf_metadata(CONFIG), tensors)
    with pytest.raises(UnsupportedModelError, match=rf"{V_PROJ}.*{named}; supported: F32, F16, Q4_0, Q4_1, Q8_0"):
        read_gguf(path)


def test_a_tensor_without_a_place_in_the_model_is_refused(tmp_path: Path) -> None:
    tensors = {"blk.0.attn_q.bias": (F32, np.zeros(64, np.float32))}
    path = write_gguf(tmp_path / "m.gguf", gguf_metadata(CONFIG), tensors)
    with pytest.raises(UnsupportedModelError, match=r"blk\.0\.attn_q\.bias"):
        read_gguf(path)


@pytest.mark.parametrize("key", ["llama.block_count", "tokenizer.ggml.tokens", "tokenizer.ggml.model"])
def test_a_missing_key_is_named(tmp_path: Path, key: str) -> None:
    tensors = gguf_tensors(CONFIG, random_weights(CONFIG))
    path = write_gguf(tmp_path / "m.gguf", without(gguf_metadata(CONFIG), key), tensors)
    with pytest.raises(UnsupportedModelError, match=key.removeprefix("llama.")):
        read_gguf(path)


@pytest.mark.parametrize("num_bytes", [0, 3, 30, 500, 5000, 100_000])
def test_a_file_that_was_cut_short_is_called_damaged(tmp_path: Path, num_bytes: int) -> None:
    path = write(tmp_path)
    path.write_bytes(path.read_bytes()[:num_bytes])
    with pytest.raises(UnsupportedModelError):
        read_gguf(path)


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"PK\x03\x04" + bytes(100))
    with pytest.raises(UnsupportedModelError, match="not a GGUF file"):
        read_header(path)


def test_a_missing_file_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"absent\.gguf"):
        read_gguf(tmp_path / "absent.gguf")
