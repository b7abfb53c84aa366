"""Prompts seen before: the longest shared prefix of a new one is not computed again.

A tree of blocks: each holds the keys and values of some tokens behind those of its parents, so that conversations that
begin alike share their beginning. Bounded in bytes; what has not been used for longest goes first.
"""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from engine.cache import Cache, Part

BLOCK = 64  # tokens; a prefix may also end within a block


@dataclass(slots=True, eq=False)
class Block:
    """Tokens with what the model remembers of them. Only a whole block has children."""

    tokens: tuple[int, ...]
    part: Part | None  # None: the root's
    parent: "Block | None"
    children: dict[tuple[int, ...], "Block"] = field(default_factory=dict)


class PrefixCache:
    """Used by the decoding thread only."""

    keeps_chunks = False  # a prompt's last chunk says it all

    def __init__(self, max_bytes: int, bytes_per_token: int) -> None:
        self._max_tokens = max_bytes // bytes_per_token
        self._bytes_per_token = bytes_per_token
        self._root = Block((), None, None)
        # What was not used for longest first, and every block behind its children: so the first one has none.
        self._by_use: OrderedDict[Block, None] = OrderedDict()
        self.num_tokens = 0
        self.num_kept = 0  # prompts and answers so far

    @property
    def num_bytes(self) -> int:
        """Of all that is kept."""
        return self.num_tokens * self._bytes_per_token

    def find(self, tokens: Sequence[int]) -> int:
        """How many of the tokens, from the first on, are known."""
        return sum(num_shared for _, num_shared in self._walk(tokens))

    def restore(self, tokens: Sequence[int], cache: Cache) -> int:
        """Put what is known of the tokens into an empty cache. Returns how many that were."""
        found = list(self._walk(tokens))
        self._touch([block for block, _ in found])
        parts = [(block.part, num_shared) for block, num_shared in found if block.part is not None]
        if parts:
            cache.write(parts)
        return sum(num_shared for _, num_shared in found)

    def keep(self, tokens: Sequence[int], cache: Cache) -> bool:
        """Remember what a cache has seen; tokens: the first of them. Returns whether any was new: then it waited."""
        assert len(tokens) <= cache.num_tokens
        self.num_kept += 1
        new = [tuple(tokens[start : start + BLOCK]) for start in range(0, len(tokens), BLOCK)]
        path = [self._root]
        while new and new[0] in path[-1].children:
            path.append(path[-1].children[new.pop(0)])
        is_new = bool(new) and not any(longer[: len(new[0])] == new[0] for longer in path[-1].children)
        if is_new:
            start = len(tokens) - sum(map(len, new))
            ranges = [(at, min(at + BLOCK, len(tokens))) for at in range(start, len(tokens), BLOCK)]
            for key, part in zip(new, cache.read(ranges), strict=True):
                path.append(self._add(key, path[-1], part))
        self._touch(path[1:])
        self.evict()
        return is_new

    def blocks(self) -> Iterator[Block]:
        """All of them, what was used last first; so a block comes behind its parent."""
        return reversed(self._by_use)

    def add(self, tokens: tuple[int, ...], parent: Block, part: Part) -> Block:
        """A block as it was kept before, used less recently than any that is there. Too many stay until `evict`.

        Precondition: its parent is a whole block or the root, and has no such child.
        """
        block = self._add(tokens, parent, part)
        self._by_use.move_to_end(block, last=False)
        return block

    @property
    def root(self) -> Block:
        return self._root

    def _walk(self, tokens: Sequence[int]) -> Iterator[tuple[Block, int]]:
        """The blocks that begin as the tokens do, and how many tokens of each."""
        block = self._root
        for start in range(0, len(tokens), BLOCK):
            rest = tuple(tokens[start : start + BLOCK])
            whole = block.children.get(rest)
            if whole is not None and len(rest) == BLOCK:
                yield whole, BLOCK
                block = whole
                continue
            best = max(block.children.values(), key=lambda child: num_in_common(child.tokens, rest), default=None)
            if best is not None and (num_shared := num_in_common(best.tokens, rest)):
                yield best, num_shared
            return

    def _add(self, tokens: tuple[int, ...], parent: Block, part: Part) -> Block:
        for shorter in [child for child in parent.children if tokens[: len(child)] == child]:
            self._drop(parent.children[shorter])  # it says the beginning of what this one says
        block = parent.children[tokens] = Block(tokens, part, parent)
        self._by_use[block] = None
        self.num_tokens += len(tokens)
        return block

    def _touch(self, path: Sequence[Block]) -> None:
        """path: from a child of the root on."""
        for block in reversed(path):
            self._by_use.move_to_end(block)

    def _drop(self, block: Block) -> None:
        assert block.parent is not None
        del block.parent.children[block.tokens], self._by_use[block]
        self.num_tokens -= len(block.tokens)

    def evict(self) -> None:
        """Drop what is more than may be kept."""
        while self.num_tokens > self._max_tokens:
            self._drop(next(iter(self._by_use)))


def num_in_common(one: Sequence[int], other: Sequence[int]) -> int:
    """The length of the longest common beginning."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((index for index, (a, b) in pairs if a != b), min(len(one), len(other)))


class SnapshotCache:
    """The same for caches that cannot be cut: whole states, each good for prompts that begin with all of its tokens."""

    keeps_chunks = True

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._snapshots: dict[tuple[int, ...], Part] = {}  # the least recently used first
        self.num_bytes = 0
        self.num_kept = 0

    def find(self, tokens: Sequence[int]) -> int:
        """See PrefixCache."""
        return len(self._longest(tokens))

    def restore(self, tokens: Sequence[int], cache: Cache) -> int:
        """See PrefixCache."""
        key = self._longest(tokens)
        if key:
            snapshot = self._snapshots.pop(key)
            self._snapshots[key] = snapshot
            cache.write([(snapshot, len(key))])
        return len(key)

    def keep(self, tokens: Sequence[int], cache: Cache) -> bool:
        """See PrefixCache. Nothing is kept where the cache has seen more than these tokens."""
        self.num_kept += 1
        key = tuple(tokens)
        if len(key) < cache.num_tokens or key in self._snapshots:
            return False
        (snapshot,) = cache.read([(0, len(key))])
        self._snapshots[key] = snapshot
        self.num_bytes += snapshot.num_bytes
        while self.num_bytes > self._max_bytes:
            oldest = next(iter(self._snapshots))
            self.num_bytes -= self._snapshots.pop(oldest).num_bytes
        return True

    def _longest(self, tokens: Sequence[int]) -> tuple[int, ...]:
        # Most that do not fit end in another token; to look there first spares a copy as long as the snapshot.
        ends = [key for key in self._snapshots if key[-1:] == tuple(tokens[len(key) - 1 : len(key)])]
        fitting = [key for key in ends if key == tuple(tokens[: len(key)])]
        return max(fitting, key=len, default=())
