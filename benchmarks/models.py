"""The models that the benchmarks run: real ones by name, and random weights in a given shape.

    random:tiny         one layer of 32, a vocabulary of 128,256: hardly any work for the device, all of it for the host
    random:prose        the same, but it never writes a quotation mark: its strings do not end
    random:3b           the shape of Llama 3.2 3B, bfloat16
    random:3b-4bit      the same, quantised in groups of 64

Random models have the tokenizer of Llama 3.1 and a plain chat template without tools. The tiny one leans towards what
opens and closes JSON values, so that its calls go everywhere and end.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import tokenizers
from mlx import nn
from mlx.utils import tree_flatten
from mlx_lm.models import llama
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from benchmarks.maskbench import EOS, LLAMA_3_1
from benchmarks.random_model import MOODS
from engine.cache import arrays_in
from engine.config import default_cache_dir
from engine.model import LoadedModel, MLXModel, load
from engine.tokenizer import Tokenizer

PREFIX = "random:"
CONTEXT_LENGTH = 32_768
NEVER = -50.0  # in deviations of the logits' noise
COMMON: dict[str, Any] = {"model_type": "llama", "rms_norm_eps": 1e-5, "rope_theta": 500_000.0}
TINY = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "intermediate_size": 64,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "tie_word_embeddings": False,
}
SHAPES: Mapping[str, Mapping[str, Any]] = {
    "tiny": TINY,
    "prose": TINY,
    "3b": {
        "hidden_size": 3072,
        "num_hidden_layers": 28,
        "intermediate_size": 8192,
        "num_attention_heads": 24,
        "num_key_value_heads": 8,
        "tie_word_embeddings": True,
    },
}
TEMPLATE = (
    "{{ '<|begin_of_text|>' }}{% for message in messages %}{{ '<|start_header_id|>' + message.role + "
    "'<|end_header_id|>\\n\\n' + message.content + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"
)


def load_model(name: str, *, seed: int = 0) -> LoadedModel:
    """A real model, or one of random weights. Raises ModelError, and ValueError for a shape that is not known."""
    if not name.startswith(PREFIX):
        return load(name, cache_dir=default_cache_dir())
    shape, _, bits = name.removeprefix(PREFIX).partition("-")
    if shape not in SHAPES or bits not in ("", "4bit"):
        raise ValueError(f"{name} is no random model; shapes are {', '.join(SHAPES)}, with -4bit behind or not")
    tokenizer = llama_tokenizer()
    mx.random.seed(seed)
    if SHAPES[shape] is TINY:
        module = _tiny(tokenizer, _lean(tokenizer) if shape == "tiny" else _without_quotes(tokenizer))
    else:
        module = _large(tokenizer, SHAPES[shape], quantised=bool(bits))
    module.eval()
    mx.eval(arrays_in(module))
    return LoadedModel(name, MLXModel(module, CONTEXT_LENGTH), tokenizer)


def llama_tokenizer() -> Tokenizer:
    """Of Llama 3.1, 128,256 tokens."""
    backend = tokenizers.Tokenizer.from_file(str(LLAMA_3_1.fetch(default_cache_dir())))
    fast = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=EOS)
    fast.chat_template = TEMPLATE
    return Tokenizer(fast)


def _module(tokenizer: Tokenizer, shape: Mapping[str, Any]) -> nn.Module:
    return llama.Model(llama.ModelArgs.from_dict({**COMMON, **shape, "vocab_size": tokenizer.num_tokens}))


def _lean(tokenizer: Tokenizer) -> NDArray[np.float32]:
    lean = np.zeros(tokenizer.num_tokens, dtype=np.float32)
    for text, points in MOODS["both"].items():
        lean[tokenizer.encode(text)[0]] += points
    return lean


def _without_quotes(tokenizer: Tokenizer) -> NDArray[np.float32]:
    has_quote = [b'"' in tokenizer.token_bytes(token) for token in range(tokenizer.num_tokens)]
    return np.where(has_quote, NEVER, 0.0).astype(np.float32)


def _tiny(tokenizer: Tokenizer, lean: NDArray[np.float32]) -> nn.Module:
    """Its head has a bias: the lean. The logits' noise has a deviation of 1, the unit of the leans."""
    module = _module(tokenizer, TINY)
    hidden = int(TINY["hidden_size"])
    module.lm_head = nn.Linear(hidden, tokenizer.num_tokens, bias=True)
    module.lm_head.weight = mx.random.normal((tokenizer.num_tokens, hidden)) / hidden**0.5
    module.lm_head.bias = mx.array(lean)
    return module


def _large(tokenizer: Tokenizer, shape: Mapping[str, Any], *, quantised: bool) -> nn.Module:
    module = _module(tokenizer, shape)
    module.set_dtype(mx.bfloat16)
    if quantised:
        nn.quantize(module, group_size=64, bits=4)
    return module


def write_folder(loaded: LoadedModel, path: Path) -> Path:
    """The model as a folder that mlx-lm's own programs load, with the weights in the form that they have now.

    For models of the llama architecture without quantised weights, as the embedded one is on the CPU.
    """
    assert isinstance(loaded.model, MLXModel)
    module = loaded.model.module
    path.mkdir(parents=True, exist_ok=True)
    config = {name: value for name, value in vars(module.args).items() if value is not None}
    (path / "config.json").write_text(json.dumps({**config, "eos_token_id": sorted(loaded.tokenizer.eos_ids)}))
    mx.save_safetensors(str(path / "model.safetensors"), dict(tree_flatten(module.parameters())), {"format": "mlx"})
    loaded.tokenizer.fast.save_pretrained(path)
    return path
