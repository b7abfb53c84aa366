"""The BLAS library behind MLX's CPU backend.

The rule: this runs before mlx is imported, and never fails. MLX's wheel for Linux links the reference BLAS, which is
slow. A library that was loaded with RTLD_GLOBAL comes first when the loader binds `cblas_sgemm`, so oneMKL takes it
over. docs/blas.md has the measurements.
"""

import ctypes
import functools
import importlib.metadata
import logging
import os
import platform
import sys
from dataclasses import dataclass
from pathlib import Path

logger = logging.getLogger(__name__)

# The one option that is an environment variable: it must be known before mlx is imported, before a caller's code runs.
SWITCH = "TOOLMASK_BLAS"
PACKAGE = "mkl"
SINGLE_LIBRARY = "libmkl_rt.so"  # the wheel has it with its version behind: libmkl_rt.so.3


@dataclass(frozen=True, slots=True)
class Blas:
    """Which library multiplies matrices on the CPU, and why."""

    name: str  # "bundled": the one that comes with MLX
    path: Path | None  # None for the bundled one
    reason: str

    @property
    def is_bundled(self) -> bool:
        return self.path is None


@functools.cache
def load_blas() -> Blas:
    """Load oneMKL where it is installed and useful; the answer of the first call stands for the process."""
    if os.environ.get(SWITCH, "").lower() == "off":
        return _bundled(f"{SWITCH}=off")
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return _bundled(f"oneMKL is for Linux on x86_64; this is {sys.platform} on {platform.machine()}")
    # Python loads extensions with RTLD_NOW: once mlx is in, its symbols are bound and stay so.
    if "mlx.core" in sys.modules:
        logger.warning("mlx was imported before toolmask: its slow BLAS stays. Import toolmask's engine first.")
        return _bundled("mlx was imported before toolmask")
    if (path := _installed_library()) is None:
        return _bundled(f"the package {PACKAGE!r} is not installed")
    return _load(path)


def _installed_library() -> Path | None:
    try:
        files = importlib.metadata.files(PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        return None
    paths = (Path(str(file.locate())).resolve() for file in files if file.name.startswith(SINGLE_LIBRARY))
    return next((path for path in paths if path.is_file()), None)


def _load(path: Path) -> Blas:
    try:
        ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
    except OSError as error:
        return _bundled(f"{path.name} could not be loaded: {error}")
    return Blas(f"oneMKL {importlib.metadata.version(PACKAGE)}", path, f"the package {PACKAGE!r} is installed")


def _bundled(reason: str) -> Blas:
    return Blas("bundled", None, reason)
