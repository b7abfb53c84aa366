"""Load a model's weights, and run it forward.

The rule: whatever is returned is evaluated. MLX ties an unevaluated array to the thread whose stream built it, and a
model is loaded by one thread and run by another.
"""

import hashlib
import json
import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

import httpx
import mlx.core as mx
import numpy as np
from huggingface_hub import constants, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from mlx import nn
from mlx.utils import tree_flatten, tree_unflatten
from mlx_lm.models import llama
from mlx_lm.models.cache import KVCache, make_prompt_cache
from mlx_lm.utils import DEFAULT_ALLOW_PATTERNS, dequantize_model, load_adapters, load_model

from engine.cache import Cache, SequenceCache, arrays_in, bytes_of
from engine.catalog import ModelSource, OnProgress, Progress, SourceKind, resolve
from engine.checks import shown
from engine.config import to_path
from engine.device_thread import in_own_thread
from engine.errors import ConfigError, ModelNotFoundError, UnsupportedModelError
from engine.gguf import GROUP_SIZE, GGUFModel, read_gguf
from engine.memory import LayerMemory, Memory, SlotCache, SlotMemory
from engine.slots import Slots
from engine.tokenizer import Tokenizer

logger = logging.getLogger(__name__)

KV_GROUP_SIZE = 64  # values that share a scale where keys and values are quantised; mlx-lm's own choice

# Where the context length stands in a config.json, by the model's age and author.
CONTEXT_KEYS = ("max_position_embeddings", "n_positions", "max_sequence_length", "max_seq_len", "seq_length", "n_ctx")
FALLBACK_CONTEXT = 4096
ADAPTER_TENSORS = ("lora_a", "lora_b", "m")  # of one layer, by mlx-lm's names; DoRA has all three


@dataclass(frozen=True, slots=True)
class Chunk:
    """What one row brings to a forward pass."""

    tokens: Sequence[int]  # not empty
    cache: Cache
    num_logits: int  # wanted at so many of the last positions; 0 computes none


class LanguageModel(Protocol):
    """Tokens in, logits out."""

    @property
    def vocab_size(self) -> int:
        """Width of the logits; may exceed the tokenizer's size."""

    @property
    def context_length(self) -> int:
        """The most tokens that a cache may hold."""

    def make_memory(self, *, kv_bits: int | None = None) -> Memory:
        """Room for the rows of one engine. Raises ConfigError where this model's cache cannot have so many bits."""

    @property
    def num_weights(self) -> int:
        """How large the model is, to compare it with another."""

    def fingerprint(self) -> str:
        """A name for these weights, good for a file."""

    def forward(self, chunks: Sequence[Chunk], drawn: mx.array | None = None) -> mx.array:
        """One forward pass: append each row's tokens to its cache; logits (N, V), row after row, N their num_logits.

        drawn: (B,), int32, tokens that nobody has read yet; they stand for the one token of each chunk. Lazy.
        Precondition: the caches are of one memory and, where there are several, of one group.
        """


class MLXModel:
    """A model of mlx-lm, with the head computed only where it is asked for."""

    def __init__(self, module: nn.Module, context_length: int) -> None:
        """module: from mlx-lm, evaluated; it stays usable by mlx-lm's own functions."""
        self.module = module
        self.context_length = context_length
        self._window = _HeadWindow()
        _install(self._window, module)
        # Nothing is evaluated: the shape is known from the graph.
        self.vocab_size = int(module(mx.zeros((1, 1), mx.int32), cache=make_prompt_cache(module)).shape[-1])

    def make_memory(self, *, kv_bits: int | None = None) -> Memory:
        """See LanguageModel. Rows share passes where every layer keeps all tokens and takes an offset a row."""
        layers = make_prompt_cache(self.module)
        keeps_all = bool(layers) and all(type(layer) is KVCache for layer in layers)
        quantisation = None if kv_bits is None else (KV_GROUP_SIZE, kv_bits)
        memory = self._slot_memory(len(layers), quantisation) if keeps_all else None
        if memory is None and kv_bits is not None:
            raise ConfigError(f"kv_bits is {kv_bits}; the cache of this model's architecture cannot be quantised")
        return memory or LayerMemory(lambda: make_prompt_cache(self.module))

    @property
    def num_weights(self) -> int:
        """See LanguageModel; a quantised model has fewer."""
        return sum(array.nbytes for array in arrays_in(self.module.parameters()))

    def fingerprint(self) -> str:
        """Of the architecture, and of names, shapes, types and all bytes of its arrays. A second for 1.7 GB or so."""
        kind = type(self.module)
        # The same weights under another scaling of positions remember other keys.
        digest = hashlib.sha256(f"{kind.__module__} {getattr(self.module, 'args', None)}".encode())
        # Not only parameters(): the frequencies of a scaled RoPE are none.
        for name, array in sorted(dict(tree_flatten(self.module)).items()):
            if isinstance(array, mx.array):
                digest.update(f"{name} {array.shape} {array.dtype}".encode())
                digest.update(bytes_of(array))
        for name, part in self.module.named_modules():  # an adapter's factor is no array
            digest.update(f"{name} {getattr(part, 'scale', None)}".encode())
        return digest.hexdigest()[:32]

    def _slot_memory(self, num_layers: int, quantisation: tuple[int, int] | None) -> SlotMemory | None:
        """None where the model does not run on slots. Nothing is evaluated."""
        slots = Slots(num_layers, quantisation)
        slots.add(), slots.add()
        slots.open({0: 2, 1: 1})
        try:
            self.module(mx.zeros((2, 2), mx.int32), cache=slots.layers)
        except (ValueError, TypeError, AttributeError, RuntimeError) as error:  # whatever its layers trip over
            logger.info("rows of this model do not share forward passes: %s", error)
            return None
        memory = SlotMemory(num_layers, quantisation)
        memory.token_shapes = [[(p.shape[1], p.shape[3], p.dtype) for p in layer.planes] for layer in slots.layers]
        return memory

    def forward(self, chunks: Sequence[Chunk], drawn: mx.array | None = None) -> mx.array:
        """See LanguageModel."""
        assert all(0 <= chunk.num_logits <= len(chunk.tokens) > 0 for chunk in chunks)
        caches = [chunk.cache for chunk in chunks]
        if isinstance(caches[0], SequenceCache):
            (chunk,) = chunks
            logits = self._run(_rectangle(1, [(0, chunk)], drawn), [(0, chunk)], caches[0].layers)
            caches[0].advance(len(chunk.tokens))
            return logits
        return self._forward_together(chunks, [cast("SlotCache", cache) for cache in caches], drawn)

    def logits_at(self, tokens: mx.array, positions: mx.array) -> mx.array:
        """Logits (N, V) without a cache, for training. tokens: (B, L). positions: (N,), in (B, L) counted through."""
        with self._window.at(positions):
            return self._window.checked(self.module(tokens))

    def _forward_together(
        self, chunks: Sequence[Chunk], caches: Sequence[SlotCache], drawn: mx.array | None
    ) -> mx.array:
        slots = caches[0].memory.together(caches)
        frame = slots.open({cache.row.index: len(chunk.tokens) for cache, chunk in zip(caches, chunks, strict=True)})
        rows = [(cache.row.index - frame.start, chunk) for cache, chunk in zip(caches, chunks, strict=True)]
        logits = self._run(_rectangle(frame.stop - frame.start, rows, drawn), rows, slots.layers)
        for cache, chunk in zip(caches, chunks, strict=True):
            cache.row.num_tokens += len(chunk.tokens)
        return logits

    def _run(self, tokens: mx.array, rows: Sequence[tuple[int, Chunk]], layers: Sequence[Any]) -> mx.array:
        """tokens: (B, L), padded on the right. rows: the index of each chunk in it."""
        width = tokens.shape[1]
        ends = [(index * width + len(chunk.tokens), chunk.num_logits) for index, chunk in rows]
        wanted = [position for end, num_logits in ends for position in range(end - num_logits, end)]
        with self._window.at(wanted or [0]):
            logits: mx.array = self.module(tokens, cache=layers)
            logits = self._window.checked(logits)
        if not wanted:
            return mx.zeros((0, self.vocab_size))  # the head is in the graph, but nothing will evaluate it
        return logits


def _rectangle(height: int, rows: Sequence[tuple[int, Chunk]], drawn: mx.array | None) -> mx.array:
    """(height, L), int32: each chunk's tokens in the row of its index, padded on the right; junk in the other rows."""
    if drawn is not None:
        order = [0] * height
        for number, (index, _) in enumerate(rows):
            order[index] = number
        return drawn[mx.array(order)][:, None]
    tokens = np.zeros((height, max(len(chunk.tokens) for _, chunk in rows)), dtype=np.int32)
    for index, chunk in rows:
        tokens[index, : len(chunk.tokens)] = chunk.tokens
    return mx.array(tokens)


class _HeadWindow(threading.local):
    """The positions that the head computes. None: all, as when mlx-lm itself calls the module.

    Each thread has its own: two engines may run one module.
    """

    positions: list[int] | mx.array | None = None
    is_cut = False

    @contextmanager
    def at(self, positions: list[int] | mx.array) -> Iterator[None]:
        """positions: in (B, L), counted through."""
        self.positions, self.is_cut = positions, False
        try:
            yield
        finally:
            self.positions = None

    def cut(self, hidden: mx.array) -> mx.array:
        """hidden: (B, L, D). Returns (1, N, D)."""
        if self.positions is None:
            return hidden
        self.is_cut = True
        flat = hidden.reshape(-1, hidden.shape[-1])
        if isinstance(self.positions, mx.array):
            return flat[self.positions][None]
        first, stop = self.positions[0], self.positions[0] + len(self.positions)
        if self.positions == list(range(first, stop)):  # a view will do
            return flat[None, first:stop]
        return flat[mx.array(self.positions)][None]

    def checked(self, logits: mx.array) -> mx.array:
        """(N, V) of logits that may be uncut, of an architecture whose head was not found."""
        return (logits if self.is_cut else self.cut(logits))[0]


def _install(window: _HeadWindow, module: nn.Module) -> None:
    """Make the head look at the window's positions only: lm_head, or the embedding's as_linear where they are tied."""
    for path, part in module.named_modules():
        if path.rpartition(".")[2] == "lm_head":
            _cut_input(part, "__call__", window)
        elif hasattr(part, "as_linear"):
            _cut_input(part, "as_linear", window)


def _cut_input(part: nn.Module, method: str, window: _HeadWindow) -> None:
    # A subclass for this one object, not a wrapper around it: the names of the parameters stay.
    kind = type(part)
    original = getattr(kind, method)

    def call(self: nn.Module, hidden: mx.array) -> mx.array:
        result: mx.array = original(self, window.cut(hidden))
        return result

    part.__class__ = type(kind.__name__, (kind,), {method: call})


@dataclass(frozen=True)
class LoadedModel:
    """A model that is ready to run, in any thread."""

    name: str
    model: LanguageModel
    tokenizer: Tokenizer


def load(
    name: str | Path,
    *,
    cache_dir: str | Path,
    adapter_path: str | Path | None = None,
    expand_weights: bool | None = None,
    on_progress: OnProgress | None = None,
) -> LoadedModel:
    """Find, fetch and load a model.

    name: as in catalog.resolve. cache_dir: for the embedded model; the hub has a cache of its own. adapter_path: a
    folder that mlx_lm's LoRA training wrote. expand_weights: turn all weights into float32; None does so on the CPU,
    where MLX's products of quantised and 16-bit matrices are slow.
    Raises ModelNotFoundError, UnsupportedModelError and, where an option is no path, ConfigError.
    """
    if not isinstance(name, (str, Path)):
        raise ConfigError(f"model is {shown(name)}; it must be a name or a path")
    name = str(name)
    adapter = None if adapter_path is None else to_path("adapter_path", adapter_path)
    source = resolve(name)
    path = _fetch(source, to_path("cache_dir", cache_dir), on_progress)
    if on_progress is not None:
        on_progress(Progress(f"loading {name}", 0, None))
    expand = mx.default_device().type == mx.cpu if expand_weights is None else expand_weights
    is_gguf = source.kind in (SourceKind.EMBEDDED, SourceKind.GGUF_FILE)
    return in_own_thread(lambda: _load(name, path, is_gguf=is_gguf, expand=expand, adapter=adapter))


def _load(name: str, path: Path, *, is_gguf: bool, expand: bool, adapter: Path | None) -> LoadedModel:
    module, config, tokenizer = _load_gguf(path) if is_gguf else _load_folder(path)
    if expand:
        _expand(module)
    elif is_gguf:
        # The norms are float32 in the file; one of them would turn all that follows into float32.
        module.set_dtype(mx.float16)
    if adapter is not None:
        _adapt(module, adapter, fuse=expand)
    module.eval()  # no dropout, not even an adapter's
    _evaluate(module)
    return LoadedModel(name, MLXModel(module, _context_length(config)), tokenizer)


def _fetch(source: ModelSource, cache_dir: Path, on_progress: OnProgress | None) -> Path:
    if source.asset is not None:
        return source.asset.fetch(cache_dir, on_progress)
    if source.hub_id is not None:
        if on_progress is not None:
            on_progress(Progress(f"looking for {source.hub_id} on the hub", 0, None))
        return _fetch_from_hub(source.hub_id)
    assert source.path is not None
    return source.path


def _fetch_from_hub(hub_id: str) -> Path:
    try:
        return Path(snapshot_download(hub_id, allow_patterns=DEFAULT_ALLOW_PATTERNS))
    except (OSError, HfHubHTTPError, HFValidationError, httpx.HTTPError) as error:
        why = str(error).rstrip(".")
        raise ModelNotFoundError(
            f"{hub_id} is neither in the hub's cache ({constants.HF_HUB_CACHE}) nor could it be downloaded: {why}. "
            "A local folder with config.json, weights and tokenizer can be given instead."
        ) from error


def _load_folder(path: Path) -> tuple[nn.Module, Mapping[str, Any], Tokenizer]:
    tokenizer = Tokenizer.from_folder(path)
    try:
        module, config = load_model(path, lazy=True)
    except FileNotFoundError as error:
        raise ModelNotFoundError(f"the folder {path} is not complete: {error}") from error
    except (ValueError, KeyError, TypeError, RuntimeError) as error:  # mlx-lm lets through whatever its parts raise
        raise UnsupportedModelError(f"the model in {path} cannot be loaded: {error}") from error
    return module, config, tokenizer


def _load_gguf(path: Path) -> tuple[nn.Module, Mapping[str, Any], Tokenizer]:
    gguf = read_gguf(path)
    tokenizer = Tokenizer.from_gguf(gguf.vocabulary)
    config = dict(gguf.config)
    if gguf.rope_factors is not None:
        # With factor 1 this changes nothing; it makes room for the file's own factors.
        config["rope_scaling"] = {"type": "llama3", "factor": 1.0}
    module = llama.Model(llama.ModelArgs.from_dict(config))
    _quantize_as(module, gguf)
    try:
        module.load_weights(list(gguf.weights.items()))
    except ValueError as error:
        raise UnsupportedModelError(f"{path}: its tensors do not fit a llama model: {error}") from error
    if gguf.rope_factors is not None:
        for layer in module.layers:
            layer.self_attn.rope._freqs = layer.self_attn.rope._freqs * gguf.rope_factors
    return module, config, tokenizer


def _quantize_as(module: nn.Module, gguf: GGUFModel) -> None:
    """Give each layer the quantised form that its tensor in the file has."""

    def form(path: str, _: nn.Module) -> bool | dict[str, int]:
        if f"{path}.scales" not in gguf.weights:
            return False
        packed, scales = gguf.weights[f"{path}.weight"], gguf.weights[f"{path}.scales"]
        return {"group_size": GROUP_SIZE, "bits": packed.shape[-1] * 32 // (scales.shape[-1] * GROUP_SIZE)}

    nn.quantize(module, group_size=GROUP_SIZE, bits=4, class_predicate=form)


def _expand(module: nn.Module) -> None:
    # Scales first: dequantised values take their precision, and a float16 product would be rounded.
    module.set_dtype(mx.float32)  # of floating arrays only: packed ones stay
    dequantize_model(module)
    module.set_dtype(mx.float32)  # formats with 8-bit scales come out in 16 bits


def _adapt(module: nn.Module, path: Path, *, fuse: bool) -> None:
    """Apply a LoRA, DoRA or full adapter. fuse: add it to the weights, which must be plain floats."""
    missing = [name for name in ("adapter_config.json", "adapters.safetensors") if not (path / name).is_file()]
    if missing:
        raise ModelNotFoundError(f"the adapter folder {path} has no {' and no '.join(missing)}")
    try:
        load_adapters(module, str(path))
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError, json.JSONDecodeError) as error:
        raise UnsupportedModelError(f"the adapter in {path} does not fit the model: {error}") from error
    _check_adapter(module, path)
    if fuse:
        fused = [(name, part.fuse()) for name, part in module.named_modules() if hasattr(part, "fuse")]
        module.update_modules(tree_unflatten(fused))


def _check_adapter(module: nn.Module, path: Path) -> None:
    """What its file lacks would stay as in the base model, in silence. A full one may have some layers only."""
    written = cast("dict[str, mx.array]", mx.load(str(path / "adapters.safetensors")))
    adapted = [(name, part) for name, part in module.named_modules() if "lora_a" in part]
    wanted = [f"{name}.{tensor}" for name, part in adapted for tensor in ADAPTER_TENSORS if tensor in part]
    missing = [name for name in wanted if name not in written]
    if missing or not written:
        lacks = f"{len(missing)} of {len(wanted)} tensors, such as {missing[0]}" if missing else "all tensors"
        raise UnsupportedModelError(f"the adapter in {path} does not fit the model: its file lacks {lacks}")


def _evaluate(module: nn.Module) -> None:
    # parameters() leaves out names with an underscore, such as a scaled RoPE's frequencies.
    mx.eval(arrays_in(module))


def _context_length(config: Mapping[str, Any]) -> int:
    text_config = config.get("text_config") or {}
    found = (part[key] for part in (config, text_config) for key in CONTEXT_KEYS if part.get(key))
    return int(next(found, FALLBACK_CONTEXT))
