"""The pieces of a turn's grammar: what only compiling them alone tells, and what of them no grammar holds."""

from dataclasses import dataclass

import numpy as np

from engine.errors import GrammarError, MatcherError
from engine.grammars.json_schema import CheckedSchema
from engine.grammars.matcher import GrammarCompiler, Matcher

MAX_WORDS = 2**15  # of a bitmask: a million tokens


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a turn's grammar, compiled alone to see whether it is to blame."""

    path: str  # of the tool's schema, of a pattern in it, or of the response
    grammar: str | CheckedSchema  # of a schema, as text only once it is asked for
    may_outgrow: bool = False  # a regex that may be too large, which shows only at its first character
    may_be_empty: bool = False  # a grammar that may allow no text, which shows only where nothing stands before it

    @property
    def source(self) -> str:
        """As GrammarCompiler takes it."""
        return self.grammar if isinstance(self.grammar, str) else f"start: {self.grammar.lark()}"

    def compiles(self, compiler: GrammarCompiler) -> bool:
        """Whether any text satisfies it."""
        try:
            compiler.compile(self.source, param=self.path)
        except GrammarError:
            return False
        return True

    def check(self, compiler: GrammarCompiler) -> Matcher:
        """A matcher at the part's start, or past its first token where it may outgrow. Raises GrammarError."""
        try:
            matcher = compiler.compile(self.source, param=self.path)
            if self.may_outgrow:
                matcher.accept([_first_allowed(matcher)])
        except MatcherError as error:
            raise GrammarError(f"{self.path} cannot be enforced: {error}", param=self.path) from None
        return matcher


@dataclass(frozen=True, slots=True)
class VetoedPart:
    """A schema of which the grammar leaves keywords to the veto."""

    path: str
    checked: CheckedSchema
    tool: str | None  # whose arguments it is about; None: the response


def _first_allowed(matcher: Matcher) -> int:
    row = np.zeros(MAX_WORDS, dtype=np.int32)
    matcher.fill_bitmask(row)
    return int(np.unpackbits(row.view(np.uint8), bitorder="little").argmax())
