"""Small random models written to disk in the formats that engine.model reads."""

import json
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import tokenizers
from mlx import nn
from mlx.utils import tree_flatten
from mlx_lm.models import gemma3_text, llama
from tokenizers import decoders, models, pre_tokenizers

F32, Q4_0, Q4_1, Q8_0 = 0, 2, 3, 8
ALIGNMENT = 32
CONFIG: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "intermediate_size": 96,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-5,
    "vocab_size": 262,
    "max_position_embeddings": 128,
    "rope_theta": 10000.0,
    "tie_word_embeddings": True,
}
ROTATING: dict[str, Any] = {  # its second layer keeps all tokens, its first one the last 40
    "model_type": "gemma3_text",
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "intermediate_size": 48,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "vocab_size": 262,
    "sliding_window": 40,
    "sliding_window_pattern": 2,
    "max_position_embeddings": 256,
}
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

FAMILIES: Mapping[str, Callable[[Mapping[str, Any]], nn.Module]] = {
    "llama": lambda config: llama.Model(llama.ModelArgs.from_dict(dict(config))),
    "gemma3_text": lambda config: gemma3_text.Model(gemma3_text.ModelArgs.from_dict(dict(config))),
}


def byte_tokens() -> list[str]:
    """Vocabulary of SPECIAL, the 256 bytes in GPT-2's letters, and three merges: 262 tokens."""
    return [*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet()), "th", "the", "ab"]


def random_weights(config: Mapping[str, Any], seed: int = 0) -> dict[str, mx.array]:
    """Float32 weights of a model, by mlx-lm's names; large enough that logits differ clearly."""
    mx.random.seed(seed)
    module = FAMILIES[config["model_type"]](config)
    return {name: mx.random.normal(array.shape) * 0.2 for name, array in tree_flatten(module.parameters())}


def write_folder(path: Path, config: Mapping[str, Any], weights: Mapping[str, mx.array]) -> Path:
    """A folder as mlx_lm.convert writes it, with a byte-level tokenizer."""
    path.mkdir()
    (path / "config.json").write_text(json.dumps(config))
    mx.save_safetensors(str(path / "model.safetensors"), dict(weights))
    vocabulary = {token: id_ for id_, token in enumerate(byte_tokens())}
    backend = tokenizers.Tokenizer(models.BPE(vocabulary, [("t", "h"), ("th", "e"), ("a", "b")]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([tokenizers.AddedToken(text, special=True) for text in SPECIAL])
    backend.save(str(path / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|im_end|>", "chat_template": CHAT_TEMPLATE}
    (path / "tokenizer_config.json").write_text(json.dumps(settings))
    return path


def gguf_metadata(config: Mapping[str, Any]) -> dict[str, Any]:
    """The metadata of a GGUF file with this config and the tokenizer of write_folder."""
    tokens = byte_tokens()
    return {
        "general.architecture": "llama",
        "llama.embedding_length": config["hidden_size"],
        "llama.block_count": config["num_hidden_layers"],
        "llama.feed_forward_length": config["intermediate_size"],
        "llama.attention.head_count": config["num_attention_heads"],
        "llama.attention.head_count_kv": config["num_key_value_heads"],
        "llama.attention.layer_norm_rms_epsilon": config["rms_norm_eps"],
        "llama.context_length": config["max_position_embeddings"],
        "llama.rope.freq_base": config["rope_theta"],
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3] * len(SPECIAL) + [1] * (len(tokens) - len(SPECIAL)),
        "tokenizer.ggml.merges": ["t h", "th e", "a b"],
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.chat_template": CHAT_TEMPLATE,
    }


GGUF_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def gguf_tensors(config: Mapping[str, Any], weights: Mapping[str, mx.array]) -> dict[str, tuple[int, np.ndarray]]:
    """The same weights as llama.cpp's converter would name and order them, in F32."""
    heads = {"self_attn.q_proj": config["num_attention_heads"], "self_attn.k_proj": config["num_key_value_heads"]}
    tensors = {}
    for name, array in weights.items():
        stem = name.removesuffix(".weight")
        prefix = ""
        if stem.startswith("model.layers."):
            _, _, layer, stem = stem.split(".", 3)
            prefix = f"blk.{layer}."
        values = np.array(array)
        if stem in heads:  # LlamaModel.permute of convert_hf_to_gguf.py
            shape = (heads[stem], 2, values.shape[0] // heads[stem] // 2, values.shape[1])
            values = values.reshape(shape).swapaxes(1, 2).reshape(values.shape)
        tensors[f"{prefix}{GGUF_NAMES[stem]}.weight"] = (F32, values)
    return tensors


def quantise(values: np.ndarray, kind: int) -> tuple[np.ndarray, np.ndarray]:
    """Blocks of 32 as ggml stores them, uint8, and the values that they stand for."""
    blocks = values.reshape(-1, 32)
    low, high = blocks.min(axis=1, keepdims=True), blocks.max(axis=1, keepdims=True)
    if kind == Q4_1:
        scale, offset = ((high - low) / 15).astype(np.float16), low.astype(np.float16)
        header = np.concatenate([scale, offset], axis=1).view(np.uint8)
    else:
        steps, offset = (8, -8) if kind == Q4_0 else (127, 0)
        scale = (np.abs(blocks).max(axis=1, keepdims=True) / steps).astype(np.float16)
        offset, header = offset * scale, scale.view(np.uint8)
    wide = scale.astype(np.float32)
    codes = np.rint((blocks - offset.astype(np.float32)) / wide)
    codes = codes.clip(-127, 127) if kind == Q8_0 else codes.clip(0, 15)
    meaning = (codes * wide + offset.astype(np.float32)).reshape(values.shape)
    if kind == Q8_0:
        packed = codes.astype(np.int8).view(np.uint8)
    else:  # the first half in the low nibbles
        nibbles = codes.astype(np.uint8)
        packed = nibbles[:, :16] | (nibbles[:, 16:] << 4)
    return np.concatenate([header, packed], axis=1), meaning


def write_gguf(
    path: Path,
    metadata: Mapping[str, Any],
    tensors: Mapping[str, tuple[int, np.ndarray]],
    shapes: Mapping[str, tuple[int, ...]] | None = None,
) -> Path:
    """A GGUF file, version 3. tensors: name -> (ggml type, data); shapes: of those whose data is packed."""
    header = [b"GGUF", struct.pack("<IQQ", 3, len(tensors), len(metadata))]
    header += [_string(key) + _value(value) for key, value in metadata.items()]
    offset, body = 0, b""
    for name, (kind, data) in tensors.items():
        shape = (shapes or {}).get(name, data.shape)
        dimensions = struct.pack(f"<I{len(shape)}Q", len(shape), *reversed(shape))
        header.append(_string(name) + dimensions + struct.pack("<IQ", kind, offset))
        body += _padded(data.tobytes())
        offset = len(body)
    path.write_bytes(_padded(b"".join(header)) + body)
    return path


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % ALIGNMENT)


def _string(text: str) -> bytes:
    return struct.pack("<Q", len(text.encode())) + text.encode()


def _value(value: Any) -> bytes:
    kind, data = _plain(value)
    return struct.pack("<I", kind) + data


def _plain(value: Any) -> tuple[int, bytes]:
    if isinstance(value, list):
        items = [_plain(item) for item in value]
        return 9, struct.pack("<IQ", items[0][0], len(items)) + b"".join(data for _, data in items)
    if isinstance(value, str):
        return 8, _string(value)
    if isinstance(value, bool):
        return 7, struct.pack("<?", value)
    return (6, struct.pack("<f", value)) if isinstance(value, float) else (5, struct.pack("<i", value))
