"""How long the products of a model's weights take, alone: what bounds the speed of a batch."""

import statistics
import time
from collections.abc import Sequence

import mlx.core as mx
from mlx import nn

REPEATS = 7


def product_seconds(module: nn.Module, batch_sizes: Sequence[int]) -> dict[int, float]:
    """Seconds for all weight products of one step of B rows, by B: the median of a few."""
    layers = weight_layers(module)
    return {size: _seconds(layers, size) for size in batch_sizes}


def weight_layers(module: nn.Module) -> list[tuple[nn.Module, str, int]]:
    """Each layer that multiplies by a matrix: itself, the method, the width of its input. Tied heads included."""
    parts = dict(module.named_modules())
    linear = [part for part in parts.values() if isinstance(part, (nn.Linear, nn.QuantizedLinear))]
    found = [(part, "__call__", _input_width(part)) for part in linear]
    if not any(path.rpartition(".")[2] == "lm_head" for path in parts):
        tied = [part for part in parts.values() if hasattr(part, "as_linear")]
        found += [(part, "as_linear", _input_width(part)) for part in tied]
    return found


def _input_width(part: nn.Module) -> int:
    width = int(part.weight.shape[-1])
    return width * 32 // part.bits if hasattr(part, "bits") else width


def _dtype(part: nn.Module) -> mx.Dtype:
    return part.scales.dtype if hasattr(part, "scales") else part.weight.dtype


def _seconds(layers: Sequence[tuple[nn.Module, str, int]], size: int) -> float:
    dtypes = {width: _dtype(part) for part, _, width in layers}
    inputs = {width: mx.random.normal((size, 1, width)).astype(dtype) for width, dtype in dtypes.items()}
    mx.eval(list(inputs.values()))
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        mx.eval([getattr(part, method)(inputs[width]) for part, method, width in layers])
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])
