"""How a language that is not JSON writes values: Python, Gemma's notation."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from engine.grammars.encoders.kinds import kind_of


@dataclass(frozen=True, slots=True)
class LiteralStyle:
    """All fields but the last ones are literal text. Brackets and braces are everybody's."""

    separator: str
    equals: str  # between an object's key and its value
    true: str
    false: str
    null: str
    quote: str = ""  # around strings, which are then written as they are, and keys bare; none: JSON's strings
    other_null: str = ""  # another word for null, which templates show
    sorted_keys: bool = False  # whether members come in the order of their names, as Jinja's dictsort has them
    mixed: bool = False  # whether JSON's words stand for the same, and Python's single quotes: templates write both

    @property
    def words(self) -> Mapping[str, str]:
        """What true, false and null may be written as -> as JSON."""
        own = {self.true: "true", self.false: "false", self.null: "null"}
        if self.other_null:
            own[self.other_null] = "null"
        return own | {word: word for word in own.values()} if self.mixed else own

    def written(self, value: Any) -> str:
        """One value, as a format writes it that has no template for it."""
        kind = kind_of(value)
        if kind == "string":
            return f"{self.quote}{value}{self.quote}" if self.quote else json.dumps(value, ensure_ascii=False)
        if kind == "array":
            return f"[{self.separator.join(map(self.written, value))}]"
        if kind == "object":
            pairs = (f"{self.key(key)}{self.equals}{self.written(each)}" for key, each in self.in_order(value))
            return f"{{{self.separator.join(pairs)}}}"
        if kind == "number":
            return json.dumps(value)
        return self.null if value is None else self.true if value else self.false

    def in_order(self, members: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
        """An object's members as they are written one after the other."""
        if not self.sorted_keys:
            return members.items()
        return sorted(members.items(), key=lambda member: member[0].lower())

    def key(self, key: str) -> str:
        """An object's key."""
        return key if self.quote else json.dumps(key, ensure_ascii=False)


PYTHON = LiteralStyle(separator=", ", equals=": ", true="True", false="False", null="None", mixed=True)
JSON = LiteralStyle(separator=", ", equals=": ", true="true", false="false", null="null")
