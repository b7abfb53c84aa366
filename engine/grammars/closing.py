"""The search for a closing path: tokens after which the turn may end, from wherever a matcher stands.

The rule: what the grammar forces is always taken, as the engine takes it, so a path is what the engine itself would
write. Where there is a choice, what closes something comes first. The search is greedy, with a way back: a choice that
is not the first one costs a little, a place that was seen before costs more, and the cheapest is followed.
"""

import heapq
import itertools
import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from engine.errors import MatcherError
from engine.grammars.closing_hints import ClosingHints
from engine.grammars.closing_tokens import Choices, TokenOrder, kind_of
from engine.grammars.matcher import Matcher

MAX_NODES = 8192
NUM_MORE_NODES = 256
NO_HINTS = ClosingHints()
AT_ONCE = -1.0
SEEN_BEFORE = 8.0  # what a place costs that looks like one that was seen at the same length
PER_DOUBLING = 0.1  # what each doubling of a path's length costs, so that no loop goes on for ever
OF_REFUSED = 1 / 8  # of what a token costs that led somewhere, a refused one does
KEEP_EVERY = 64  # nodes in a row of which one keeps its matcher
MAX_STUCK = 512  # nodes in almost free text that a search looks at; their masks take milliseconds
MAX_IN_VAIN = 2  # a hint may first have to be what it ends
MINUS = ord("-")
BEFORE_VALUE = frozenset(b" [")
MAX_TRIES = 8  # after which a token that leads round in circles is no worse


@dataclass(frozen=True, slots=True)
class _Begun:
    """A hint that is being written in almost free text."""

    place: int  # where it was begun
    hint: bytes
    num_written: int

    @property
    def key(self) -> tuple[int, bytes]:
        return self.place, self.hint

    @property
    def rest(self) -> bytes:
        return self.hint[self.num_written :]


@dataclass(eq=False, slots=True)
class _Node:
    """A place in the grammar, reached by a path."""

    matcher: Matcher | None  # None: a later node has it
    parent: "_Node | None"
    tokens: tuple[int, ...]  # from the parent to here: a choice, and what is forced after it
    depth: int  # in choices, from the start
    length: int  # the same in tokens
    num_bytes: int  # the same in bytes
    cost: float
    is_end: bool  # whether the turn may end here
    begun: _Begun | None
    last_byte: int | None  # None: nothing is written
    tail: bytes | None  # what the path wrote after its last quote; None: it wrote no quote

    # Set when it is looked at.
    untried: Iterator[tuple[int, _Begun | None]] | None = None
    wanted: tuple[str, ...] = ()  # what the matcher knows to lead on
    num_tried: int = 0
    num_refused: int = 0  # of these, by a veto
    is_stuck: bool = False  # in almost free text, where nothing shows an end
    place: int = 0  # what its mask hashes to
    first_bytes: frozenset[int] = field(default_factory=frozenset)

    @property
    def cost_of_next(self) -> float:
        """Of the place after the next token; those that led nowhere hardly count."""
        return self.cost + math.log2(1 + self.num_tried - (1 - OF_REFUSED) * self.num_refused)

    def path(self) -> tuple[int, ...]:
        parts = []
        node: _Node | None = self
        while node is not None:
            parts.append(node.tokens)
            node = node.parent
        return tuple(itertools.chain.from_iterable(reversed(parts)))


class ClosingSearch:
    """Finds closing paths, for one vocabulary. Any thread may use it; only its counters may then miss a search."""

    def __init__(
        self,
        token_bytes: Sequence[bytes | None],
        *,
        eos_ids: Collection[int],
        special_ids: Collection[int],
        max_nodes: int = MAX_NODES,
        num_more_nodes: int = NUM_MORE_NODES,
        hints: ClosingHints = NO_HINTS,
        ways_out: Sequence[Sequence[int]] = (),
        ends: Collection[int] = (),
    ) -> None:
        """max_nodes: places a search may look at. num_more_nodes: of these, after a first path, for shorter ones.

        hints: of the model's family, such as what ends reasoning. ways_out: tokens that lead out of free text to what
        the turn must have, tried where the search alone finds nothing: there, it may lose itself in the text.
        ends: special tokens that end a part of the turn, tried before other special ones, which begin the next part.
        """
        self._order = TokenOrder(token_bytes, eos_ids=eos_ids, special_ids=special_ids)
        self._eos_ids = frozenset(eos_ids)
        self._max_nodes, self._num_more_nodes = max_nodes, num_more_nodes
        self._hints = hints
        self._ends = frozenset(ends)
        self._ways_out = tuple(tuple(each) for each in ways_out)
        self.num_searches = 0
        self.num_nodes = 0  # of the latest search

    def path(
        self, matcher: Matcher, max_tokens: int, hints: ClosingHints = NO_HINTS, max_nodes: int | None = None
    ) -> tuple[int, ...] | None:
        """The first path found of at most max_tokens tokens after which the turn may end; () where it may end here.

        The end-of-turn token is not in it. None where none is found: there is none, or the node limit was reached. The
        same state gives the same path. The matcher is not changed. hints: of the request. max_nodes: None: as always.
        """
        return self._search(matcher, max_tokens, hints, takes_first=True, max_nodes=max_nodes)

    def shortest(self, matcher: Matcher, max_tokens: int, hints: ClosingHints = NO_HINTS) -> tuple[int, ...] | None:
        """The same, but the shortest path that is found before the search ends.

        For what is computed once, such as the least budget that a caller is told. Keep it: where the node limit is
        reached, `path` may not find one as short, for it looks for any that fits.
        """
        return self._search(matcher, max_tokens, hints, takes_first=False)

    def texts(self, matcher: Matcher, hints: ClosingHints = NO_HINTS) -> Iterator[bytes]:
        """Texts after which the turn may end, short ones first, as many as are found; some may come again."""
        search = self._new(hints, None)
        for path in search.ends(matcher):
            yield b"".join(self._order.token_bytes[token] for token in path)

    def _new(self, hints: ClosingHints, max_nodes: int | None) -> "_Search":
        return _Search(
            self._order,
            self._eos_ids,
            self._hints + hints,
            max_nodes=max_nodes or self._max_nodes,
            num_more_nodes=self._num_more_nodes,
            ends=self._ends,
        )

    def _search(
        self,
        matcher: Matcher,
        max_tokens: int,
        hints: ClosingHints,
        *,
        takes_first: bool,
        max_nodes: int | None = None,
    ) -> tuple[int, ...] | None:
        self.num_searches += 1
        found = self._run(matcher, max_tokens, hints, takes_first=takes_first, max_nodes=max_nodes)
        for way_out in self._ways_out if found is None else ():
            if matcher.validate(way_out) == len(way_out):
                outside = matcher.copy()
                outside.accept(way_out)
                room = max_tokens - len(way_out)
                rest = self._run(outside, room, hints, takes_first=takes_first, max_nodes=max_nodes)
                if rest is not None:
                    return (*way_out, *rest)
        return found

    def _run(
        self, matcher: Matcher, max_tokens: int, hints: ClosingHints, *, takes_first: bool, max_nodes: int | None
    ) -> tuple[int, ...] | None:
        search = self._new(hints, max_nodes)
        found = search.run(matcher, max_tokens, takes_first=takes_first)
        self.num_nodes = search.num_nodes
        return found


class _Search:
    """One search."""

    def __init__(
        self,
        order: TokenOrder,
        eos_ids: frozenset[int],
        hints: ClosingHints,
        *,
        max_nodes: int,
        num_more_nodes: int,
        ends: frozenset[int],
    ) -> None:
        self._order, self._eos_ids, self._ends = order, eos_ids, ends
        self._max_nodes, self._num_more_nodes = max_nodes, num_more_nodes
        self._strings = tuple(hint.encode() for hint in hints.strings if hint)
        self._anywhere = tuple(hint.encode() for hint in hints.anywhere if hint)
        self._outside = tuple(hint.encode() for hint in hints.outside if hint)
        self._last_texts = tuple(text.encode() for text in hints.ends)
        self._row = np.zeros(order.num_words, dtype=np.int32)
        self._queue: list[tuple[float, int, _Node]] = []
        self._seen: set[tuple[int, int]] = set()
        self._num_in_vain: dict[tuple[int, bytes], int] = {}  # how often a hint led back to where it was begun
        self._tries: dict[tuple[int, int], int] = {}
        self._tries_of_kind: dict[tuple[int, int], int] = {}
        self._serial = 0
        self._num_stuck = 0
        self.num_nodes = 0

    def ends(self, matcher: Matcher) -> Iterator[tuple[int, ...]]:
        """Paths to all ends, one after the other, until as many places as may be were looked at."""
        root = self._reached(matcher.copy(), None, (), 0.0, None)
        if root is not None:
            self._offer(root, math.inf)
        while self._queue and self.num_nodes < self._max_nodes:
            _, _, node = heapq.heappop(self._queue)
            if node.is_end:
                yield node.path()
                node.is_end = False  # more may follow
                self._push(node, node.cost + 1 + _of_length(node.length))
            elif (child := self._next_child(node)) is not None:
                self._offer(child, math.inf)

    def run(self, matcher: Matcher, max_tokens: int, *, takes_first: bool) -> tuple[int, ...] | None:
        """takes_first: of the paths that fit; else the shortest."""
        best: _Node | None = None
        root = self._reached(matcher.copy(), None, (), 0.0, None)
        longest: float = math.inf  # that a path may be. The first one shows the way, even where it is too long.
        if root is not None:
            self._offer(root, longest)
        while self._queue and self.num_nodes < self._max_nodes:
            _, _, node = heapq.heappop(self._queue)
            if not node.is_end:
                child = self._next_child(node) if node.length < longest else None
                if child is not None:
                    self._offer(child, longest)
                continue
            if math.isinf(longest):
                self._max_nodes = min(self._max_nodes, self.num_nodes + self._num_more_nodes)
            longest = min(max_tokens, node.length - 1)
            if node.length <= max_tokens:
                best = node
                if takes_first:
                    break
        return None if best is None else best.path()

    def _offer(self, node: _Node, longest: float) -> None:
        if node.length <= longest:
            self._push(node, AT_ONCE if node.is_end else node.cost + _of_length(node.length))

    def _push(self, node: _Node, cost: float) -> None:
        self._serial -= 1  # of equals the latest first
        heapq.heappush(self._queue, (cost, self._serial, node))

    def _next_child(self, node: _Node) -> _Node | None:
        """The place after the next token that is worth a try; None where there is none, or not now."""
        if node.untried is None and not self._look_at(node):
            return None
        assert node.untried is not None
        token, begun = next(node.untried, (None, None))
        if token is None:
            return None
        cost = node.cost_of_next
        self._count_try(node, token)
        self.num_nodes += 1
        child = self._reached(self._matcher_for_child(node), node, (token,), cost, begun)
        node.num_refused += child is None
        self._push(node, node.cost_of_next + _of_length(node.length))
        return child

    def _count_try(self, node: _Node, token: int) -> None:
        node.num_tried += 1
        for counts, what in ((self._tries, token), (self._tries_of_kind, self._kind_of(token))):
            counts[node.place, what] = counts.get((node.place, what), 0) + 1

    def _kind_of(self, token: int) -> int:
        return kind_of(self._order.token_bytes[token][0])

    def _reached(
        self, matcher: Matcher, parent: _Node | None, tokens: tuple[int, ...], cost: float, begun: _Begun | None
    ) -> _Node | None:
        """The place after the tokens and what the grammar then forces. None where they are not allowed after all.

        matcher: at the parent; it moves on.
        """
        try:
            matcher.accept(tokens)
            forced = list(itertools.takewhile(lambda token: token not in self._eos_ids, matcher.forced_tokens()))
            matcher.accept(forced)
            is_end = matcher.is_accepting
        except MatcherError:
            return None
        tokens += tuple(forced)
        text = b"".join(self._order.token_bytes[token] for token in tokens)
        return _Node(
            matcher=matcher,
            parent=parent,
            tokens=tokens,
            depth=0 if parent is None else parent.depth + 1,
            length=len(tokens) + (parent.length if parent is not None else 0),
            num_bytes=len(text) + (parent.num_bytes if parent is not None else 0),
            cost=cost,
            is_end=is_end,
            begun=begun,
            last_byte=text[-1] if text else None if parent is None else parent.last_byte,
            tail=_tail(text, None if parent is None else parent.tail),
        )

    def _matcher_for_child(self, node: _Node) -> Matcher:
        matcher = _matcher_at(node)
        # A copy takes the longer the more was written. So far from the start most nodes hand their matcher on, and
        # where one is needed again it is made from the nearest that was kept.
        is_kept = node.depth < KEEP_EVERY or node.depth % KEEP_EVERY == 0
        node.matcher = matcher.copy() if is_kept else None
        return matcher

    def _look_at(self, node: _Node) -> bool:
        """Read what may come next. False: not now, it looks like a place that was seen before, or is none."""
        try:
            assert node.matcher is not None  # nobody took it yet
            node.matcher.fill_bitmask(self._row)
        except MatcherError:
            return False
        node.place = hash(self._row.tobytes())
        choices = self._order.choices(self._row, node.last_byte)
        # A quote that ended nothing leads back to a place like the one before.
        leads_back = choices.is_broad and node.parent is not None and node.parent.place == node.place
        node.is_stuck = choices.is_stuck or leads_back
        self._num_stuck += node.is_stuck
        if self._num_stuck > MAX_STUCK:
            self._queue.clear()
            return False
        node.first_bytes, node.wanted = choices.first_bytes, node.matcher.wanted
        node.untried = self._in_order(node, choices)
        if (node.place, node.num_bytes) in self._seen:
            node.cost += SEEN_BEFORE
            self._push(node, node.cost + _of_length(node.length))
            return False
        self._seen.add((node.place, node.num_bytes))
        return True

    def _in_order(self, node: _Node, choices: Choices) -> Iterator[tuple[int, _Begun | None]]:
        """The tokens to try, best first, each once."""
        tried: set[int] = set()
        for token, begun in itertools.chain(
            self._hinted(node, choices),
            ((token, None) for token in self._preferred(node, choices)),
            ((token, None) for token in choices.shortest_first()),
        ):
            if token not in tried:
                tried.add(token)
                yield token, begun

    def _hinted(self, node: _Node, choices: Choices) -> Iterator[tuple[int, _Begun | None]]:
        for text in node.wanted:
            if (token := self._first_of(text.encode(), choices)) is not None:
                yield token, None
        if node.begun is not None:
            if (token := self._first_of(node.begun.rest, choices)) is not None:
                yield token, self._written(node.begun, token)
            elif node.begun.rest or node.begun.place == node.place:
                self._num_in_vain[node.begun.key] = self._num_in_vain.get(node.begun.key, 0) + 1
        if node.is_stuck:
            is_in_value = node.tail is not None  # the path has written a quote
            first, then = (self._anywhere, self._outside) if is_in_value else (self._outside, self._anywhere)
            yield from self._begun(node, (*first, *then), choices)
        elif node.tail or (node.tail is not None and not choices.closers):
            yield from ((token, None) for token in self._of_strings(node.tail, choices))
        if not node.is_stuck and not choices.closers:  # of a string's two patterns, one may bind its text, one its end
            yield from self._begun(node, self._anywhere, choices)

    def _begun(self, node: _Node, hints: Sequence[bytes], choices: Choices) -> Iterator[tuple[int, _Begun | None]]:
        """The tokens with which a hint begins here that did not lead back to a place like this."""
        for hint in hints:
            begun = _Begun(node.place, hint, 0)
            token = self._first_of(hint, choices)
            if token is not None and self._num_in_vain.get(begun.key, 0) < MAX_IN_VAIN:
                yield token, self._written(begun, token)

    def _of_strings(self, tail: bytes, choices: Choices) -> Iterator[int]:
        """The tokens that go on with a hinted string of which the tail is written."""
        found = (self._first_of(hint[len(tail) :], choices) for hint in self._strings if hint.startswith(tail))
        yield from (token for token in found if token is not None)

    def _first_of(self, text: bytes, choices: Choices) -> int | None:
        """The longest allowed token with which the text begins."""
        return next((token for token in self._order.prefixes(text) if choices.is_allowed[token]), None)

    def _written(self, begun: _Begun, token: int) -> _Begun:
        return replace(begun, num_written=begun.num_written + len(self._order.token_bytes[token]))

    def _preferred(self, node: _Node, choices: Choices) -> Iterator[int]:
        # What was tried in a place like this leads round in circles: to one more call, and one more.
        yield from sorted(
            choices.special, key=lambda token: (token not in self._ends, self._tries.get((node.place, token), 0))
        )
        yield from choices.closers
        yield from (token for text in self._last_texts if (token := self._first_of(text, choices)) is not None)
        if node.is_stuck:
            yield from choices.longest
            return
        before = frozenset() if node.parent is None else node.parent.first_bytes

        def order(token: int) -> tuple[bool, int, int, bool]:
            kind = self._kind_of(token)
            is_minus = kind == MINUS  # after it zero may not do
            if node.last_byte in BEFORE_VALUE:
                return (False, 0, 0, is_minus)
            return (
                # What could not come a token ago is a step forward.
                self._order.token_bytes[token][0] in before,
                # What was tried in a place like this leads round in circles.
                self._tries_of_kind.get((node.place, kind), 0),
                min(self._tries.get((node.place, token), 0), MAX_TRIES),
                is_minus,
            )

        openers = frozenset(choices.openers)
        yield from sorted((token for token in choices.longest if token not in openers), key=order)
        yield from choices.openers


def _matcher_at(node: _Node) -> Matcher:
    """A matcher in the node's state, the node's own if it has one."""
    tokens: list[tuple[int, ...]] = []
    kept: _Node | None = node
    while kept is not None and kept.matcher is None:
        tokens.append(kept.tokens)
        kept = kept.parent
    assert kept is not None  # the first node keeps its own
    assert kept.matcher is not None
    if kept is node:
        return kept.matcher
    matcher = kept.matcher.copy()
    matcher.accept(list(itertools.chain.from_iterable(reversed(tokens))))
    return matcher


def _tail(text: bytes, before: bytes | None) -> bytes | None:
    _, quote, after = text.rpartition(b'"')
    return after if quote else None if before is None else before + text


def _of_length(length: int) -> float:
    return PER_DOUBLING * math.log2(1 + length)
