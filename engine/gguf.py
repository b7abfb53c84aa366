"""GGUF files of the llama family as plain values: config, arrays under mlx-lm's names, vocabulary.

The rule: whatever would be read wrongly is refused by name. The arrays are read by `mx.load`, but the header is parsed
here: `mx.load` does not tell tensor types, and turns some of those that it cannot keep into float16 in silence.
Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import io
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import mlx.core as mx

from engine.errors import ModelNotFoundError, UnsupportedModelError

MAGIC = b"GGUF"
VERSIONS = (2, 3)  # the first had 32-bit lengths
STRING, ARRAY = 8, 9
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}

GROUP_SIZE = 32  # of every quantised type below
SUPPORTED_TYPES = {0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 8: "Q8_0"}
REFUSED_TYPES = {
    6: "Q5_0",
    7: "Q5_1",
    10: "Q2_K",
    11: "Q3_K",
    12: "Q4_K",
    13: "Q5_K",
    14: "Q6_K",
    20: "IQ4_NL",
    23: "IQ4_XS",
    30: "BF16",
    39: "MXFP4",
}  # for the message only; the others are shown by number

TENSOR_NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}
ROPE_FACTORS = "rope_freqs.weight"
TENSOR = re.compile(r"(?:blk\.(?P<layer>\d+)\.)?(?P<name>\w+)\.weight")


@dataclass(frozen=True, slots=True)
class GGUFVocabulary:
    """What a GGUF file says about its tokenizer; the `tokenizer.*` keys."""

    model: str  # "gpt2": byte-level BPE, "llama": SentencePiece BPE
    pre_tokenizer: str  # how text is cut before BPE; "default" where the file does not say
    tokens: tuple[str, ...]  # by id
    token_types: tuple[int, ...]  # 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte
    scores: tuple[float, ...]  # SentencePiece only
    merges: tuple[str, ...]  # byte-level BPE only: "left right", best first
    bos_id: int | None
    eos_id: int | None
    eot_id: int | None  # end of turn, where the file names one
    unknown_id: int | None
    pad_id: int | None
    add_space_prefix: bool  # SentencePiece's dummy space before a text
    chat_template: str | None


@dataclass(frozen=True)
class GGUFModel:
    """A GGUF file of the llama family. The arrays are evaluated."""

    config: Mapping[str, Any]  # keys as in a llama config.json
    # By mlx-lm's names, q and k rows in their order. Quantised: packed uint32, with float16 .scales and .biases beside.
    weights: Mapping[str, mx.array]
    rope_factors: mx.array | None  # (head_dim / 2,), float32; divides the rotation speeds (Llama 3.1 and later)
    vocabulary: GGUFVocabulary


@dataclass(frozen=True, slots=True)
class GGUFHeader:
    """All of a GGUF file but the tensors' contents."""

    metadata: Mapping[str, Any]  # str, int, float, bool or a list of them
    tensor_types: Mapping[str, int]  # tensor name -> ggml type number


def read_gguf(path: Path) -> GGUFModel:
    """Read and evaluate a whole file.

    Raises ModelNotFoundError if there is none, UnsupportedModelError if it is damaged or holds what is not supported.
    """
    header = read_header(path)
    _check_architecture(header, path)
    _check_tensors(header, path)
    config = _config(header, path)
    arrays = _load_arrays(path)
    factors = arrays.pop(ROPE_FACTORS, None)
    weights = {_mlx_name(name): _in_mlx_order(name, array, config) for name, array in arrays.items()}
    mx.eval(weights, factors)
    return GGUFModel(config, weights, factors, _vocabulary(header.metadata, path))


def read_header(path: Path) -> GGUFHeader:
    """Metadata and tensor types; reads nothing else of the file. Raises as read_gguf."""
    try:
        with path.open("rb") as file:
            return _read_header(file, path)
    except OSError as error:
        raise ModelNotFoundError(f"{path} cannot be read: {error}") from error
    except (struct.error, UnicodeDecodeError, KeyError, MemoryError, OverflowError) as error:
        raise UnsupportedModelError(f"{path} is damaged: its header cannot be read to the end") from error


def _read_header(file: BinaryIO, path: Path) -> GGUFHeader:
    magic, version = file.read(4), _read(file, "I")
    if magic != MAGIC or version not in VERSIONS:
        raise UnsupportedModelError(f"{path} is not a GGUF file of version {' or '.join(map(str, VERSIONS))}")
    num_tensors, num_entries = _read(file, "Q"), _read(file, "Q")
    metadata = {_read_string(file): _read_value(file, _read(file, "I")) for _ in range(num_entries)}
    tensor_types = {}
    for _ in range(num_tensors):
        name = _read_string(file)
        file.seek(8 * _read(file, "I"), io.SEEK_CUR)  # the dimensions
        tensor_types[name] = _read(file, "I")
        file.seek(8, io.SEEK_CUR)  # the offset
    return GGUFHeader(metadata, tensor_types)


def _read(file: BinaryIO, code: str) -> Any:
    size = struct.calcsize("<" + code)
    return struct.unpack("<" + code, file.read(size))[0]


def _read_string(file: BinaryIO) -> str:
    length = _read(file, "Q")
    data = file.read(length)
    if len(data) < length:
        raise struct.error
    return data.decode()


def _read_value(file: BinaryIO, kind: int) -> Any:
    if kind == STRING:
        return _read_string(file)
    if kind != ARRAY:
        return _read(file, SCALARS[kind])
    item_kind, length = _read(file, "I"), _read(file, "Q")
    if item_kind in (STRING, ARRAY):
        return [_read_value(file, item_kind) for _ in range(length)]
    code = f"<{length}{SCALARS[item_kind]}"
    return list(struct.unpack(code, file.read(struct.calcsize(code))))


def _load_arrays(path: Path) -> dict[str, mx.array]:
    try:
        return cast("dict[str, mx.array]", mx.load(str(path), format="gguf"))
    except RuntimeError as error:
        raise UnsupportedModelError(f"{path} is damaged: {error}") from error


def _check_architecture(header: GGUFHeader, path: Path) -> None:
    architecture = header.metadata.get("general.architecture")
    if architecture != "llama":
        raise UnsupportedModelError(f"{path} has the architecture {architecture!r}; supported for GGUF: 'llama'")
    if header.metadata.get("llama.expert_count", 0):
        raise UnsupportedModelError(f"{path} is a mixture of experts; supported for GGUF: dense llama models")


def _check_tensors(header: GGUFHeader, path: Path) -> None:
    for name, number in header.tensor_types.items():
        if number not in SUPPORTED_TYPES:
            found = REFUSED_TYPES.get(number, f"number {number}")
            supported = ", ".join(SUPPORTED_TYPES.values())
            raise UnsupportedModelError(f"{path}: {name} has the number format {found}; supported: {supported}")
        match = TENSOR.fullmatch(name)
        if name != ROPE_FACTORS and (match is None or match["name"] not in TENSOR_NAMES):
            raise UnsupportedModelError(f"{path} has the tensor {name}, which a llama model here has no place for")


def _config(header: GGUFHeader, path: Path) -> dict[str, Any]:
    keys = {key.removeprefix("llama."): value for key, value in header.metadata.items() if key.startswith("llama.")}
    try:
        num_heads = keys["attention.head_count"]
        head_dim = keys.get("attention.key_length", keys["embedding_length"] // num_heads)
        config = {
            "model_type": "llama",
            "hidden_size": keys["embedding_length"],
            "num_hidden_layers": keys["block_count"],
            "intermediate_size": keys["feed_forward_length"],
            "num_attention_heads": num_heads,
            "num_key_value_heads": keys.get("attention.head_count_kv", num_heads),
            "head_dim": head_dim,
            "rms_norm_eps": keys["attention.layer_norm_rms_epsilon"],
            "vocab_size": keys.get("vocab_size", len(header.metadata["tokenizer.ggml.tokens"])),
            "max_position_embeddings": keys["context_length"],
            "rope_theta": keys.get("rope.freq_base", 10000.0),
            "rope_scaling": _rope_scaling(keys, path),
            "tie_word_embeddings": "output.weight" not in header.tensor_types,
        }
    except KeyError as error:
        raise UnsupportedModelError(f"{path} lacks the key {error.args[0]!r}") from error
    _check_shape(keys, head_dim, path)
    return config


def _rope_scaling(keys: Mapping[str, Any], path: Path) -> dict[str, Any] | None:
    kind = keys.get("rope.scaling.type", "none")
    if kind == "none":
        return None
    if kind == "linear":
        return {"type": "linear", "factor": keys["rope.scaling.factor"]}
    raise UnsupportedModelError(f"{path} has the rope scaling {kind!r}; supported: 'linear', and Llama 3's factors")


def _check_shape(keys: Mapping[str, Any], head_dim: int, path: Path) -> None:
    for key in ("rope.dimension_count", "attention.value_length"):
        if keys.get(key, head_dim) != head_dim:
            raise UnsupportedModelError(f"{path}: {key} is {keys[key]}; supported: {head_dim}, as the heads are wide")
    per_layer = sorted(key for key, value in keys.items() if isinstance(value, list))
    if per_layer:
        raise UnsupportedModelError(f"{path} has layers that differ ({', '.join(per_layer)}); they must be alike")


def _mlx_name(name: str) -> str:
    # "blk.3.attn_q.weight" -> "model.layers.3.self_attn.q_proj.weight"; likewise .scales and .biases.
    stem, _, leaf = name.rpartition(".")
    if not stem.startswith("blk."):
        return f"{TENSOR_NAMES[stem]}.{leaf}"
    _, layer, kind = stem.split(".")
    return f"model.layers.{layer}.{TENSOR_NAMES[kind]}.{leaf}"


def _in_mlx_order(name: str, array: mx.array, config: Mapping[str, Any]) -> mx.array:
    if ".attn_q." in name:
        return unpermute(array, config["num_attention_heads"])
    if ".attn_k." in name:
        return unpermute(array, config["num_key_value_heads"])
    return array


def unpermute(rows: mx.array, num_heads: int) -> mx.array:
    """Undo llama.cpp's reordering of the rows of q and k; (num_heads * head_dim, ...), packed columns or not.

    It interleaves each head's halves, to rotate neighbours; mlx-lm's llama rotates row i with row i + head_dim / 2.
    See LlamaModel.permute in llama.cpp's convert_hf_to_gguf.py.
    """
    return rows.reshape(num_heads, -1, 2, rows.shape[-1]).swapaxes(1, 2).reshape(rows.shape)


def _vocabulary(metadata: Mapping[str, Any], path: Path) -> GGUFVocabulary:
    prefix = "tokenizer.ggml."
    keys = {key.removeprefix(prefix): value for key, value in metadata.items() if key.startswith(prefix)}
    tokens = tuple(keys["tokens"])
    if "model" not in keys:
        raise UnsupportedModelError(f"{path} lacks the key 'tokenizer.ggml.model'")
    return GGUFVocabulary(
        model=keys["model"],
        pre_tokenizer=keys.get("pre", "default"),
        tokens=tokens,
        token_types=tuple(keys.get("token_type", [1] * len(tokens))),
        scores=tuple(keys.get("scores", ())),
        merges=tuple(keys.get("merges", ())),
        bos_id=keys.get("bos_token_id"),
        eos_id=keys.get("eos_token_id"),
        eot_id=keys.get("eot_token_id"),
        unknown_id=keys.get("unknown_token_id"),
        pad_id=keys.get("padding_token_id"),
        add_space_prefix=keys.get("add_space_prefix", True),
        # Of several, the one for tools.
        chat_template=metadata.get("tokenizer.chat_template.tool_use", metadata.get("tokenizer.chat_template")),
    )
