"""Constrained decoding on MLX: a language model that can only write text or valid calls of offered tools."""

import logging

from engine.blas import load_blas

load_blas()  # before any module here imports mlx

# transformers says at import that PyTorch is missing. Nothing here wants it; mlx_lm may be the first to import
# transformers, so this stands here.
logging.getLogger("transformers").addFilter(lambda record: "PyTorch was not found" not in record.getMessage())
