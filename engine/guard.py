"""A constrained turn within its budget: a token is taken only if the turn can still be completed after it.

While the tokens that are left surely suffice, nothing is searched. From there on a way to complete the turn is always
known, and always fits: `path`. Where a veto is open (engine.grammars.veto) a way must be known too, whatever is left.
Design, section 6; docs/guarantee.md.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from engine.errors import MatcherError
from engine.grammars.closing_hints import ClosingHints
from engine.grammars.matcher import Matcher

MARGIN = 16  # tokens; the search begins so much earlier than it must, so that one that finds nothing does no harm
MAX_SHORTENED = 8  # times that a shorter way is looked for, before a caller is told the least budget
MAX_SKIPPED = 12  # first tokens of the held way that another token may make needless
MAX_NODES = 64  # of a search in the midst of a turn; a token for which no way is found so soon is vetoed
MIN_NODES = 8  # each token that is vetoed halves the nodes for the next one at the same place, down to this
MAX_NEW_NODES = 2048  # of the first search in text for a way behind what begins a call
MAX_FIRST_NODES = 512  # of the first look for a way that fits; where there is none, the shortest is looked for
OPENING = (b"{", b"[")


class PathFinder(Protocol):
    """Finds tokens that complete a turn. engine.grammars.closing has it."""

    def path(
        self, matcher: Matcher, max_tokens: int, hints: ClosingHints, max_nodes: int | None
    ) -> tuple[int, ...] | None:
        """At most max_tokens tokens after which the turn may end; None where none were found in max_nodes places."""

    def shortest(self, matcher: Matcher, max_tokens: int, hints: ClosingHints) -> tuple[int, ...] | None:
        """The same, looking longer."""


class Bound(Protocol):
    """How far from complete a turn can be, at most. engine.grammars.closing_bounds has it."""

    def at(self, depth: int) -> int:
        """Tokens that complete it where so many brackets are open."""


@dataclass(slots=True)
class Guard:
    """Watches over one sequence. Belongs to whoever holds the sequence."""

    finder: PathFinder
    token_bytes: Callable[[int], bytes]
    hints: ClosingHints  # of the turn
    bound: Bound | None  # of the turn, at any of its states; None: not known, so every token is searched
    eos_ids: frozenset[int]
    vetoes: bool  # whether the matcher may refuse tokens that its mask allows

    path: tuple[int, ...] | None = None  # completes the turn from the sequence's state; None where none is needed yet
    _known: int = 0  # length of the completion that the last search found
    _num_opened: int = 0  # brackets written since then
    _num_refused: int = 0  # tokens, since one was taken
    _is_in_vain: bool = False  # to look for a way through a part that begins where the turn may end

    def begin(self, matcher: Matcher, room: int, most: int) -> int | None:
        """The least budget of a turn that begins here; 0 where room is surely enough; None where no way was found.

        room: tokens that may be written; most: those that could be at all. To be called once, before all else.
        """
        surely_fits = self._need(0) <= room and not self.vetoes
        if surely_fits and self._need(0) + MARGIN <= room:
            return 0
        self.path = self.finder.path(matcher, room, self.hints, MAX_FIRST_NODES)
        if self.path is None:
            self.path = self._least(matcher, most)
        if self.path is None:
            return 0 if surely_fits else None
        self._known = len(self.path)
        return self._known

    def _least(self, matcher: Matcher, most: int) -> tuple[int, ...] | None:
        """The shortest way that is found. Less room leads a search to others, so that a shorter one may come of it."""
        found = self.finder.shortest(matcher, most, self.hints)
        for _ in range(MAX_SHORTENED if found else 0):
            assert found is not None
            shorter = self.finder.path(matcher, len(found) - 1, self.hints, MAX_FIRST_NODES)
            if shorter is None:
                break
            found = shorter
        return found

    def admits(self, matcher: Matcher, token: int, room: int) -> bool:
        """Whether the turn may go on by this token. room: tokens that may be written after it.

        The matcher stands before the token, and stays there. After True, the token must be taken.
        """
        is_admitted = self._admits(matcher, token, room)
        self._num_refused = 0 if is_admitted else self._num_refused + 1
        return is_admitted

    def _admits(self, matcher: Matcher, token: int, room: int) -> bool:
        if self.path and self.path[0] == token:
            self.path = self.path[1:]
            return True
        num_opened = self._num_opened + self._brackets([token])
        is_far = self._need(num_opened) + MARGIN <= room
        if is_far and not self.vetoes:
            return self._go_without_path(num_opened)
        after = matcher.copy()
        try:
            after.accept([token])
        except MatcherError:
            return False
        if is_far and not after.must_look_ahead:
            return self._go_without_path(num_opened)
        if self.path is None:  # it begins to be near: from here on a way is always held
            self.path = self.finder.path(matcher, room + 1, self.hints, None)
        found = self._way(after, room)
        if found is None:  # the search has its limits; where the bound holds, there is time to find one later
            fits = self._need(num_opened) <= room and not after.must_look_ahead
            return fits and self._go_without_path(num_opened)
        self._hold(found)
        return True

    def can_complete(self, after: Matcher, tokens: Sequence[int], room: int) -> bool:
        """Whether the turn can be completed behind tokens that may all be forced. after: stands behind them."""
        is_far = self._need(self._num_opened + self._brackets(tokens)) + MARGIN <= room
        if is_far and self.path is None and not after.must_look_ahead:
            return True
        return self.finder.path(after, room, self.hints, None) is not None

    def _way(self, after: Matcher, room: int) -> tuple[int, ...] | None:
        """A way to the end from a state that one token leads to: most often the way that is held still leads there."""
        if self.path is None:
            return self.finder.path(after, room, self.hints, None)
        rejoined = self._rejoined(after.copy(), self.path)
        if rejoined is None:
            if not self.path:
                return self._way_of_new_part(after, room)
            return self.finder.path(after, room, self.hints, max(MAX_NODES >> self._num_refused, MIN_NODES))
        return rejoined if len(rejoined) <= room else None

    def _way_of_new_part(self, after: Matcher, room: int) -> tuple[int, ...] | None:
        """Behind a token at which the turn could have ended, and now cannot: most often it begins a call.

        So nothing is known of the way, and it is looked for at length; where that was in vain, not so again, since
        there is only less room.
        """
        max_nodes = max(MAX_NODES >> self._num_refused, MIN_NODES) if self._is_in_vain else MAX_NEW_NODES
        found = self.finder.path(after, room, self.hints, max_nodes)
        self._is_in_vain = self._is_in_vain or found is None
        return found

    def _rejoined(self, after: Matcher, path: tuple[int, ...]) -> tuple[int, ...] | None:
        """The path, but for some of its first tokens, behind what is forced now; None where it leads nowhere from here.

        Changes `after`. The shortest that still leads to the end, by dropping no more than MAX_SKIPPED tokens.
        """
        forced = self._take_forced(after)
        for start in range(min(len(path), MAX_SKIPPED), -1, -1):
            rest = path[start:]
            if after.validate(rest) == len(rest) and self._would_be_written(after.copy(), rest):
                return (*forced, *rest)
        return None

    def _would_be_written(self, matcher: Matcher, path: tuple[int, ...]) -> bool:
        """Whether these tokens complete the turn, cut as the grammar will force them. Changes the matcher.

        The same text may be forced from here in other tokens than where the path was found.
        """
        while path:
            matcher.accept(path[:1])
            forced = self._take_forced(matcher)
            if path[1 : 1 + len(forced)] != forced:
                return False
            path = path[1 + len(forced) :]
        return matcher.is_accepting

    def _take_forced(self, matcher: Matcher) -> tuple[int, ...]:
        """Move on by what the grammar forces, but for the turn's end, and return it."""
        forced = list(itertools.takewhile(lambda token: token not in self.eos_ids, matcher.forced_tokens()))
        forced = forced[: matcher.validate(forced)]
        matcher.accept(forced)
        return tuple(forced)

    def follow(self, matcher: Matcher, tokens: Sequence[int], room: int) -> None:
        """The grammar forced these tokens; the matcher stands behind them. room: tokens that may be written then."""
        if self.path is None:
            self._num_opened += self._brackets(tokens)
            return
        if self.path[: len(tokens)] == tuple(tokens):
            self.path = self.path[len(tokens) :]
            return
        # A path is what would be written, so this is for finders and matchers that do not agree on that.
        found = self.finder.path(matcher, room, self.hints, None)
        if found is None:
            raise MatcherError("no way to complete the turn was found behind what the grammar forces")
        self._hold(found)

    def _hold(self, path: tuple[int, ...]) -> None:
        self.path, self._known, self._num_opened = path, len(path), 0

    def _go_without_path(self, num_opened: int) -> bool:
        self.path, self._num_opened = None, num_opened
        return True

    def _need(self, num_opened: int) -> float:
        """Tokens that complete the turn from here, at most.

        Since the last search, only one level of the value that was open then can have moved on; deeper ones are new.
        """
        return math.inf if self.bound is None else self._known + self.bound.at(num_opened + 1)

    def _brackets(self, tokens: Sequence[int]) -> int:
        return sum(self.token_bytes(token).count(bracket) for token in tokens for bracket in OPENING)
