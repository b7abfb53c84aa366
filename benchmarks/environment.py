"""Where a measurement was made."""

import importlib.metadata
import os
import platform
import resource
import sys
from typing import Any

import mlx.core as mx

from engine.blas import load_blas
from engine.cache import arrays_in
from engine.model import LoadedModel, MLXModel

PACKAGES = ("mlx", "mlx-lm", "llguidance", "tokenizers")


def environment(loaded: LoadedModel) -> dict[str, Any]:
    """The machine, the libraries and the form of the weights, as JSON."""
    assert isinstance(loaded.model, MLXModel)
    weights = arrays_in(loaded.model.module.parameters())
    return {
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "device": str(mx.default_device().type).removeprefix("DeviceType."),
        "python": platform.python_version(),
        "versions": {package: importlib.metadata.version(package) for package in PACKAGES},
        "blas": load_blas().name,
        "model": loaded.name,
        "dtypes": sorted({str(array.dtype).removeprefix("mlx.core.") for array in weights}),
    }


def size_of(loaded: LoadedModel) -> dict[str, int]:
    """How large the weights are as they lie in memory."""
    assert isinstance(loaded.model, MLXModel)
    weights = arrays_in(loaded.model.module.parameters())
    return {"parameters": sum(array.size for array in weights), "bytes": sum(array.nbytes for array in weights)}


def peak_memory() -> dict[str, int]:
    """The most bytes that this process was resident with, and the most that MLX had in use."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    resident = peak if sys.platform == "darwin" else 1024 * peak  # in kilobytes elsewhere
    return {"peak_bytes": resident, "mlx_peak_bytes": mx.get_peak_memory()}
