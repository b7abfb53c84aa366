"""One script per claim. Run `python benchmarks/<name>.py`, or `python -m benchmarks.<name>` from the repository."""

import engine  # noqa: F401  # before anything imports mlx: it chooses the BLAS
