"""Known prompts on disk between two runs: one safetensors file per model, which holds arrays and text, never code.

The rule: a file is taken over as a whole or not at all. It says what its bytes hash to, and which blocks it has, what
was used last first: a list of [parent, tokens], where 0 is the root and n the n-th of the list.
"""

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx

from engine.cache import Part, Planes, bytes_of
from engine.checks import is_integer
from engine.memory import SlotMemory
from engine.prefix_cache import BLOCK, Block, PrefixCache

PART_PREFIX = "toolmask-part-"  # of files that are being written

logger = logging.getLogger(__name__)

Listed = list[tuple[int, tuple[int, ...]]]
"""Of each block, the number of its parent and its tokens."""


class PrefixStore:
    """A folder's file for one model, by the fingerprint of its weights. For one engine at a time."""

    def __init__(self, folder: Path, fingerprint: str, memory: SlotMemory) -> None:
        self.path = folder / f"{fingerprint}.safetensors"
        self._memory = memory

    def load(self, prefixes: PrefixCache) -> None:
        """Take over what was kept. A file that is not whole counts as none: all it has can be computed."""
        _clear_parts(self.path.parent)
        try:
            if not self.path.exists():
                return
            listed, parts = self._read()
        except (OSError, RuntimeError, ValueError, KeyError, TypeError, MemoryError) as error:
            logger.warning("the prompts kept in %s cannot be read, and are computed anew: %s", self.path, error)
            return
        blocks = [prefixes.root]
        for (parent, tokens), part in zip(listed, parts, strict=True):
            blocks.append(prefixes.add(tokens, blocks[parent], part))
        prefixes.evict()

    def save(self, prefixes: PrefixCache) -> None:
        """Keep all that is known. What cannot be written is logged: nothing but time is lost."""
        blocks = list(prefixes.blocks())
        if not blocks:
            return
        numbers = {block: number for number, block in enumerate([prefixes.root, *blocks])}
        listed = json.dumps([[numbers[block.parent], block.tokens] for block in blocks if block.parent])
        arrays = {
            f"{number}.{layer}.{plane}": array
            for number, block in enumerate(blocks)
            for layer, planes in enumerate(_planes(block))
            for plane, array in enumerate(planes)
        }
        try:
            self._write(arrays, {"blocks": listed, "sha256": _digest(listed, arrays)})
        except (OSError, RuntimeError) as error:
            logger.warning("the prompts cannot be kept in %s: %s", self.path, error)

    def _write(self, arrays: dict[str, mx.array], metadata: dict[str, str]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # Of nobody else to read.
        handle, name = tempfile.mkstemp(dir=self.path.parent, prefix=PART_PREFIX, suffix=".safetensors")
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)  # for as long as this process lives
            mx.save_safetensors(name, arrays, metadata)
            os.fsync(handle)  # or a name might outlast a loss of power that its content does not
            os.replace(name, self.path)  # whole, or as it was
        finally:
            os.close(handle)
            Path(name).unlink(missing_ok=True)

    def _read(self) -> tuple[Listed, list[Part]]:
        """Raises ValueError and KeyError where the file does not have what this model's cache has, and mx.load's."""
        loaded: Any = mx.load(str(self.path), return_metadata=True)
        arrays, metadata = loaded
        if metadata["sha256"] != _digest(metadata["blocks"], arrays):
            raise ValueError("its content is not what was written")
        listed = _checked(json.loads(metadata["blocks"]))
        return listed, [self._part(arrays, number, len(tokens)) for number, (_, tokens) in enumerate(listed)]

    def _part(self, arrays: Mapping[str, mx.array], number: int, num_tokens: int) -> Part:
        planes = [
            [arrays[f"{number}.{layer}.{plane}"] for plane in range(len(shapes))]
            for layer, shapes in enumerate(self._memory.token_shapes)
        ]
        for layer, shapes in zip(planes, self._memory.token_shapes, strict=True):
            for array, (heads, size, dtype) in zip(layer, shapes, strict=True):
                if array.shape != (1, heads, num_tokens, size) or array.dtype != dtype:
                    raise ValueError(f"block {number} has an array {array.shape} of {array.dtype}")
        return Part(planes, sum(array.nbytes for layer in planes for array in layer))


def _planes(block: Block) -> Planes:
    assert block.part is not None
    content: Any = block.part.content
    planes: Planes = content
    return planes


def _digest(listed: str, arrays: Mapping[str, mx.array]) -> str:
    """Of all that a file says. The arrays are evaluated then."""
    digest = hashlib.sha256(listed.encode())
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.shape} {array.dtype}".encode())
        digest.update(bytes_of(array))
    return digest.hexdigest()


def _checked(listed: Any) -> Listed:
    """A tree as PrefixCache has it. Raises ValueError."""
    found: Listed = []
    lengths = [BLOCK]  # of each block that may be a parent; the root counts as a whole one
    for each in listed:
        parent, tokens = each
        if not is_integer(parent) or not 0 <= parent < len(lengths) or lengths[parent] != BLOCK:
            raise ValueError(f"block {len(found) + 1} has the parent {parent}")
        if not 1 <= len(tokens) <= BLOCK or not all(is_integer(token) and token >= 0 for token in tokens):
            raise ValueError(f"block {len(found) + 1} has no tokens")
        found.append((parent, tuple(tokens)))
        lengths.append(len(tokens))
    if len(set(found)) < len(found):
        raise ValueError("a block is there twice")
    return found


def _clear_parts(folder: Path) -> None:
    """Remove what processes left that were killed while they wrote; whoever still writes holds a lock."""
    for path in folder.glob(f"{PART_PREFIX}*.safetensors"):
        with contextlib.suppress(OSError), _opened(path) as handle:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    handle = os.open(path, os.O_RDWR)
    try:
        yield handle
    finally:
        os.close(handle)
