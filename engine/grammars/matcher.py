"""What the engine needs of a grammar library. Implementations raise; they have no sticky error state."""

from collections.abc import Sequence
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from engine.errors import MatcherError

Bitmask = NDArray[np.int32]
"""(B, ceil(V / 32)): bit t % 32 of word t // 32 is set where token t is allowed. Bit 31 is the sign bit."""


class Matcher(Protocol):
    """Where one sequence stands in its grammar. Every method may raise MatcherError."""

    def accept(self, tokens: Sequence[int]) -> None:
        """Advance over tokens. A token that the grammar does not allow is an error."""

    def validate(self, tokens: Sequence[int]) -> int:
        """How many of the tokens, from the first on, could be accepted. Changes nothing."""

    def forced_tokens(self) -> list[int]:
        """The tokens that must come next, cut as the tokenizer cuts them; [] where there is a choice."""

    def fill_bitmask(self, row: NDArray[np.int32]) -> None:
        """Write which tokens may come next into row, (ceil(V / 32),), all of it."""

    @property
    def grammar(self) -> "Matcher":
        """The matcher whose mask this one's is: itself, or the one that it wraps. The compiler fills that one ahead."""

    @property
    def is_accepting(self) -> bool:
        """Whether the turn may end here."""

    @property
    def is_terminated(self) -> bool:
        """Whether the turn must end here: nothing but an end-of-turn token can follow."""

    @property
    def must_look_ahead(self) -> bool:
        """Whether what the mask allows may lead to where nothing is allowed any more: a veto is open."""

    @property
    def wanted(self) -> tuple[str, ...]:
        """Texts one of which had better follow, the best first, for a way to the end; () where none is known."""

    def copy(self) -> Self:
        """An independent matcher in the same state."""


class GrammarCompiler(Protocol):
    """Makes matchers. May be used from any thread."""

    def compile(self, source: str, *, param: str) -> Matcher:
        """A matcher at the start of the grammar: Lark in llguidance's dialect, or its JSON list of grammars.

        Raises GrammarError, naming param, where the grammar does not compile or admits no first token.
        """

    def fill_bitmasks(self, matchers: Sequence[tuple[Matcher, int]], bitmask: Bitmask) -> dict[int, MatcherError]:
        """fill_bitmask of many (matcher, row) pairs at once. Returns the rows that failed; the others are filled."""
