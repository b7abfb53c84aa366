"""Constrained decoding on MLX: a language model that can only write text or valid calls of offered tools."""
