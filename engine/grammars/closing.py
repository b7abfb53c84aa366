"""The search for a closing path: tokens after which the turn may end, from wherever a matcher stands.

The rule: what the grammar forces is always taken, as the engine takes it, so a path is what the engine itself would
write. Where there is a choice, what closes something comes first. The search is greedy, with a way back: a choice that
is not the first one costs a little, a place that was seen before costs more, and the cheapest is followed.
"""

import heapq
import itertools
import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from engine.errors import MatcherError
from engine.grammars.closing_tokens import Choices, TokenOrder
from engine.grammars.matcher import Matcher

MAX_NODES = 4096
SEEN_BEFORE = 8.0  # what a place costs that looks like one that was seen at the same length
PER_DOUBLING = 0.1  # what each doubling of a path's length costs, so that no loop goes on for ever
MAX_TRIES = 8  # after which a token that leads round in circles is no worse


@dataclass(eq=False, slots=True)
class _Node:
    """A place in the grammar, reached by a path."""

    matcher: Matcher
    parent: "_Node | None"
    tokens: tuple[int, ...]  # from the parent to here: a choice, and what is forced after it
    length: int  # in tokens, from the start
    num_bytes: int  # the same in bytes
    cost: float
    hinted: int = 0  # bytes of the hint that were just written; 0: none is begun
    hint: int = 0  # which one

    # Set when it is looked at.
    untried: Iterator[tuple[int, int, int]] | None = None  # token, hint, bytes of the hint after it
    num_tried: int = 0
    place: int = 0  # what its mask hashes to
    first_bytes: frozenset[int] = field(default_factory=frozenset)

    def path(self) -> tuple[int, ...]:
        parts = []
        node: _Node | None = self
        while node is not None:
            parts.append(node.tokens)
            node = node.parent
        return tuple(itertools.chain.from_iterable(reversed(parts)))


class ClosingSearch:
    """Finds closing paths, for one vocabulary. One thread at a time may use it; each thread makes its own, or locks."""

    def __init__(
        self,
        token_bytes: Sequence[bytes | None],
        *,
        eos_ids: Collection[int],
        special_ids: Collection[int],
        max_nodes: int = MAX_NODES,
        hints: Sequence[str] = (),
    ) -> None:
        """max_nodes: places that one search may look at. hints: texts that end a stretch of free text, as written."""
        self._order = TokenOrder(token_bytes, eos_ids=eos_ids, special_ids=special_ids)
        self._eos_ids = frozenset(eos_ids)
        self._num_words = (len(token_bytes) + 31) // 32
        self._max_nodes = max_nodes
        self._hints = tuple(hint.encode() for hint in hints if hint)
        self.num_searches = 0
        self.num_nodes = 0  # of the latest search

    def path(
        self, matcher: Matcher, max_tokens: int, max_nodes: int | None = None, hints: Sequence[str] = ()
    ) -> tuple[int, ...] | None:
        """The first path found of at most max_tokens tokens after which the turn may end; () where it may end here.

        The end-of-turn token is not in it. None where none is found within max_tokens and the node limit. The same
        matcher state gives the same path. The matcher is not changed.
        """
        self.num_searches += 1
        all_hints = (*self._hints, *(hint.encode() for hint in hints if hint))
        search = _Search(self._order, self._eos_ids, all_hints, self._num_words, max_nodes or self._max_nodes)
        found = search.run(matcher, max_tokens)
        self.num_nodes = search.num_nodes
        return found


class _Search:
    """One search."""

    def __init__(
        self, order: TokenOrder, eos_ids: frozenset[int], hints: Sequence[bytes], num_words: int, max_nodes: int
    ) -> None:
        self._order, self._eos_ids, self._hints, self._max_nodes = order, eos_ids, hints, max_nodes
        self._row = np.zeros(num_words, dtype=np.int32)
        self._queue: list[tuple[float, int, _Node]] = []
        self._seen: set[tuple[int, int]] = set()
        self._begun: set[tuple[int, int]] = set()
        self._tries: dict[tuple[int, int], int] = {}
        self._serial = 0
        self.num_nodes = 0

    def run(self, matcher: Matcher, max_tokens: int) -> tuple[int, ...] | None:
        try:
            root = self._settle(_Node(matcher.copy(), None, (), 0, 0, 0.0))
        except MatcherError:
            return None
        if self._is_goal(root):
            return root.path() if root.length <= max_tokens else None
        self._push(root, 0.0)
        while self._queue and self.num_nodes < self._max_nodes:
            _, _, node = heapq.heappop(self._queue)
            child = self._next_child(node, max_tokens)
            if child is None:
                continue
            if self._is_goal(child):
                return child.path()
            if child.length < max_tokens:
                self._push(child, child.cost + PER_DOUBLING * math.log2(1 + child.length))
        return None

    def _push(self, node: _Node, cost: float) -> None:
        self._serial -= 1  # of equals the latest first
        heapq.heappush(self._queue, (cost, self._serial, node))

    @staticmethod
    def _is_goal(node: _Node) -> bool:
        return node.matcher.is_accepting

    def _next_child(self, node: _Node, max_tokens: int) -> _Node | None:
        if node.untried is None:
            try:
                if not self._look_at(node):
                    return None
            except MatcherError:
                return None
        assert node.untried is not None
        for token, hint, hinted in node.untried:
            cost = node.cost + math.log2(1 + node.num_tried)
            node.num_tried += 1
            self._tries[node.place, token] = self._tries.get((node.place, token), 0) + 1
            self._push(node, node.cost + math.log2(1 + node.num_tried) + PER_DOUBLING * math.log2(1 + node.length))
            try:
                matcher = node.matcher.copy()
                matcher.accept([token])
                num_bytes = node.num_bytes + len(self._order.token_bytes[token])
                child = _Node(matcher, node, (token,), node.length + 1, num_bytes, cost, hinted, hint)
                child = self._settle(child)
            except MatcherError:
                return None
            self.num_nodes += 1
            return child if child.length <= max_tokens else None
        return None

    def _settle(self, node: _Node) -> _Node:
        """The node after what the grammar forces there."""
        forced = list(itertools.takewhile(lambda token: token not in self._eos_ids, node.matcher.forced_tokens()))
        if forced:
            node.matcher.accept(forced)
            node.tokens += tuple(forced)
            node.length += len(forced)
            node.num_bytes += sum(len(self._order.token_bytes[token]) for token in forced)
        return node

    def _look_at(self, node: _Node) -> bool:
        """Read what may come next. False: later, it looks like a place that was seen before."""
        node.matcher.fill_bitmask(self._row)
        node.place = hash(self._row.tobytes())
        choices = self._order.choices(self._row)
        node.first_bytes = choices.first_bytes
        node.untried = self._in_order(node, choices)
        if (node.place, node.num_bytes) in self._seen:
            node.cost += SEEN_BEFORE
            self._push(node, node.cost + PER_DOUBLING * math.log2(1 + node.length))
            return False
        self._seen.add((node.place, node.num_bytes))
        return True

    def _in_order(self, node: _Node, choices: Choices) -> Iterator[tuple[int, int, int]]:
        """The tokens to try, best first, each once."""
        tried: set[int] = set()
        for token, hint, hinted in itertools.chain(
            self._hinted(node, choices),
            ((token, 0, 0) for token in self._preferred(node, choices)),
            ((token, 0, 0) for token in reversed(choices.tokens.tolist())),
        ):
            if token not in tried:
                tried.add(token)
                yield token, hint, hinted

    def _hinted(self, node: _Node, choices: Choices) -> Iterator[tuple[int, int, int]]:
        begun = [(node.hint, node.hinted)] if node.hinted else []
        # A hint that was written whole from a place like this, and did not help, is not begun again.
        fresh = [hint for hint in range(len(self._hints)) if (node.place, hint) not in self._begun]
        for hint, hinted in [*begun, *((hint, 0) for hint in fresh if choices.is_stuck)]:
            text = self._hints[hint]
            if hinted < len(text) and (token := self._order.longest_prefix(text[hinted:], choices)) is not None:
                if not hinted:
                    self._begun.add((node.place, hint))
                yield token, hint, hinted + len(self._order.token_bytes[token])

    def _preferred(self, node: _Node, choices: Choices) -> Iterator[int]:
        yield from choices.special
        yield from choices.closers
        before = frozenset() if node.parent is None else node.parent.first_bytes
        first_byte = {token: self._order.token_bytes[token][0] for token in choices.longest}
        # What could not come a token ago is a step forward; what was tried in a place like this leads round in circles.
        yield from sorted(
            choices.longest,
            key=lambda token: (
                first_byte[token] in before,
                min(self._tries.get((node.place, token), 0), MAX_TRIES),
                self._order.token_bytes[token].strip() == b"-",  # after it zero may not do
            ),
        )
