"""How far from complete a turn can be, and hints at how to complete it, put together from its parts."""

from dataclasses import dataclass, field

from engine.grammars.closing_bounds import ClosingBound, text_closing
from engine.grammars.closing_hints import ClosingHints, regex_hints, schema_hints, together
from engine.grammars.json_schema import CheckedSchema
from engine.grammars.tool_format import ToolFormat

MAX_CALL_ID = 64  # bytes of an id that a family writes into its calls


def hints_of(checked: CheckedSchema) -> ClosingHints:
    """Of what the grammar holds and, where it does not hold all, of what a value must satisfy besides."""
    hints = schema_hints(checked.schema)
    return hints + schema_hints(checked.source) if checked.vetoed else hints


@dataclass(slots=True)
class TurnClosing:
    """Takes the parts one by one; of several, one has to be completed."""

    _hints: list[ClosingHints] = field(default_factory=list)
    _bounds: list[ClosingBound] = field(default_factory=list)
    _is_known: bool = True

    @property
    def hints(self) -> ClosingHints:
        return together(self._hints)

    def add_schema(self, checked: CheckedSchema, bound: ClosingBound | None, hints: ClosingHints) -> None:
        """A JSON value. What a veto asks for beside the grammar, no bound knows."""
        self._hints.append(hints)
        self._add(None if checked.vetoed else bound)

    def add_regex(self, regex: str) -> None:
        """A text that a regex matches as a whole."""
        self._hints.append(regex_hints(regex))
        longest = text_closing(regex)
        self._add(None if longest is None else ClosingBound(longest, 0))

    def add_texts(self, texts: list[str]) -> None:
        """One of these texts."""
        self._add(ClosingBound(max(len(text.encode()) for text in texts), 0))

    def add_end(self, text: str, token: int | None) -> None:
        """What ends a part of almost free text, which is added besides. token: its id where it is a special one."""
        if token is None:  # else masks show that it leads out
            self._hints.append(ClosingHints(anywhere=(text,)))

    def add_unknown(self) -> None:
        """A part of which nothing is known."""
        self._add(None)

    def _add(self, bound: ClosingBound | None) -> None:
        self._is_known &= bound is not None
        self._bounds += [] if bound is None else [bound]

    def bound(self, family: ToolFormat, names: list[str]) -> ClosingBound | None:
        """Of the whole turn: the worst part, and all that the family writes around it. None where a part has none."""
        if not self._is_known:
            return None
        literals = sum(len(literal.encode()) for literal in family.literals) + MAX_CALL_ID
        around = literals + max((len(name) for name in names), default=0)
        base = max((bound.base for bound in self._bounds), default=0)
        return ClosingBound(around + base, max((bound.per_level for bound in self._bounds), default=0))
