"""Memory of this process, of which MLX tells its own share.

What counts is what is in use, not what the process has had from the system: freed memory is reused, and a resident
size that stays the same says nothing. With glibc, the allocator itself is asked; Python's small objects go through it
where PYTHONMALLOC is "malloc", as `reexec_with_malloc` sees to. Elsewhere it is the resident size.
"""

import ctypes
import gc
import os
import platform
import subprocess
import sys

import mlx.core as mx

HAS_GLIBC = platform.libc_ver()[0] == "glibc"
MEASURE = "in use, by the allocator" if HAS_GLIBC else "resident"


class _MallInfo2(ctypes.Structure):
    """Of mallinfo(3): bytes in use are `uordblks`, of mapped blocks `hblkhd`."""

    names = ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")
    _fields_ = [(name, ctypes.c_size_t) for name in names]


def reexec_with_malloc() -> None:
    """Start this script anew with every Python object in malloc's hands. For the first line of `__main__`."""
    if HAS_GLIBC and os.environ.get("PYTHONMALLOC") != "malloc":
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, "PYTHONMALLOC": "malloc"})


def bytes_beside_mlx() -> int:
    """Bytes that MLX has not allocated: of Python's objects and of libraries."""
    gc.collect()
    mx.clear_cache()
    on_host = mx.default_device().type == mx.cpu
    return _bytes_in_use() - (mx.get_active_memory() + mx.get_cache_memory() if on_host else 0)


def _bytes_in_use() -> int:
    if HAS_GLIBC:
        mallinfo = ctypes.CDLL(None).mallinfo2
        mallinfo.restype = _MallInfo2
        info = mallinfo()
        return int(info.uordblks + info.hblkhd)
    shown = subprocess.run(["ps", "-o", "rss=", "-p", str(os.getpid())], check=True, capture_output=True, text=True)
    return 1024 * int(shown.stdout)
