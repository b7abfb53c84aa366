"""Where a measurement was made."""

import importlib.metadata
import os
import platform
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
