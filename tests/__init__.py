import engine  # noqa: F401  # before anything imports mlx: it chooses the BLAS
