"""Keys of objects, and names of arguments, in a language that is not JSON: as terminals of the grammar."""

from collections.abc import Sequence
from dataclasses import dataclass

from engine.grammars.encoders.arguments import Terminals
from engine.grammars.encoders.literal_style import LiteralStyle
from engine.grammars.encoders.whole_patterns import whole_regex
from engine.grammars.literals import regex_literal, string_literal
from engine.grammars.schema_walk import refusal

NAME = "[A-Za-z_][A-Za-z0-9_]*"
PLAIN = r"[^\"\\\x00-\x1f]*"


@dataclass(frozen=True, slots=True)
class KeyRule:
    """How a key stands with the sign after it: one terminal, so that no key is taken for the beginning of another."""

    is_bare: bool
    equals: str
    style: LiteralStyle

    @property
    def narrowing(self) -> str:
        """What names a schema cannot have that does not list them."""
        if self.is_bare:
            return "names that the schema does not list are letters, digits and _"
        return "names that the schema does not list have no quotes, backslashes and control characters"

    def named(self, key: str, path: str, terminals: Terminals) -> str:
        """Exactly this key. SchemaError, by path, for one that would not read back."""
        if self.is_bare:
            if not key.isidentifier():
                raise refusal(path, "in this model's format, the name must be letters, digits and _")
            return terminals(key + self.equals)
        written = string_literal(self.style.key(key) + self.equals)
        return f"({written} | {string_literal(repr(key) + self.equals)})" if self.style.mixed else written

    def other(
        self, names: Sequence[str], path: str, *, matched: Sequence[str] = (), not_matched: Sequence[str] = ()
    ) -> str:
        """A terminal for any key but these names, by the patterns."""
        quotes = [""] if self.is_bare else ['"', "'"] if self.style.mixed else ['"']
        return " | ".join(f"({self._other(quote, names, path, matched, not_matched)})" for quote in quotes)

    def _other(
        self, quote: str, names: Sequence[str], path: str, matched: Sequence[str], not_matched: Sequence[str]
    ) -> str:
        end = quote + self.equals
        characters = NAME if self.is_bare else PLAIN.replace('\\"', quote)
        terms = [regex_literal(f"{quote}{characters}{end}")]
        terms += [whole_regex(pattern, path, before=quote, after=end) for pattern in matched]
        terms += [f"~{whole_regex(pattern, path, before=quote, after=end)}" for pattern in not_matched]
        return " & ".join([*terms, *(f"~{string_literal(quote + name + end)}" for name in names)])
