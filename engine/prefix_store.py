"""Known prompts on disk between two runs: one safetensors file per model, which holds arrays and text, never code."""

import json
import logging
import os
import tempfile
from pathlib import Path
from typing import Any

import mlx.core as mx

from engine.cache import Part, Planes
from engine.memory import SlotMemory
from engine.prefix_cache import Block, PrefixCache

logger = logging.getLogger(__name__)


class PrefixStore:
    """A folder's file for one model, by the fingerprint of its weights."""

    def __init__(self, folder: Path, fingerprint: str, memory: SlotMemory) -> None:
        self.path = folder / f"{fingerprint}.safetensors"
        self._memory = memory

    def load(self, prefixes: PrefixCache) -> None:
        """Take over what was kept. A file that cannot be read counts as none: all it has can be computed."""
        if not self.path.is_file():
            return
        try:
            loaded: Any = mx.load(str(self.path), return_metadata=True)
            arrays, metadata = loaded
            listed = json.loads(metadata["blocks"])
            parts = [self._part(arrays, number, len(tokens)) for number, (_, _, tokens) in enumerate(listed)]
        except (RuntimeError, ValueError, KeyError, TypeError) as error:
            logger.warning("the prompts kept in %s cannot be read, and are computed anew: %s", self.path, error)
            return
        blocks = [prefixes.root]
        for (parent, last_used, tokens), part in zip(listed, parts, strict=True):
            blocks.append(prefixes.add(tuple(tokens), blocks[parent], part, last_used))
        prefixes.evict()

    def save(self, prefixes: PrefixCache) -> None:
        """Keep all that is known. What cannot be written is logged: nothing but time is lost."""
        blocks = list(prefixes.blocks())
        numbers = {block: number for number, block in enumerate(blocks)}  # parents first; the root is 0
        listed = [[numbers[block.parent], block.last_used, block.tokens] for block in blocks if block.parent]
        if not listed:
            return
        arrays = {
            f"{number}.{layer}.{plane}": array
            for number, block in enumerate(blocks[1:])
            for layer, planes in enumerate(_planes(block))
            for plane, array in enumerate(planes)
        }
        try:
            self._write(arrays, {"blocks": json.dumps(listed)})
        except (OSError, RuntimeError) as error:
            logger.warning("the prompts cannot be kept in %s: %s", self.path, error)

    def _write(self, arrays: dict[str, mx.array], metadata: dict[str, str]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=self.path.parent, suffix=".safetensors")  # of nobody else to read
        os.close(handle)
        try:
            mx.save_safetensors(name, arrays, metadata)
            os.replace(name, self.path)  # whole, or as it was
        finally:
            Path(name).unlink(missing_ok=True)

    def _part(self, arrays: dict[str, mx.array], number: int, num_tokens: int) -> Part:
        """Raises KeyError and ValueError where the file does not have what this model's cache has."""
        planes = [
            [arrays[f"{number}.{layer}.{plane}"] for plane in range(len(shapes))]
            for layer, shapes in enumerate(self._memory.token_shapes)
        ]
        for layer, shapes in zip(planes, self._memory.token_shapes, strict=True):
            for array, (heads, size, dtype) in zip(layer, shapes, strict=True):
                if array.shape != (1, heads, num_tokens, size) or array.dtype != dtype:
                    raise ValueError(f"block {number} has an array {array.shape} of {array.dtype}")
        mx.eval(planes)
        return Part(planes, sum(array.nbytes for layer in planes for array in layer))


def _planes(block: Block) -> Planes:
    assert block.part is not None
    content: Any = block.part.content
    planes: Planes = content
    return planes
