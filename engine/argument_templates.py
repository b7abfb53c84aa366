"""Arguments with placeholders, which a direct route fills with what its pattern's named groups matched."""

import math
import re
import string
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from engine.checks import is_text, shown
from engine.errors import ConfigError
from engine.grammars.schema_walk import child_path

Groups = Mapping[str, str | None]  # None: the group took no part in the match


class _LeftOut:
    """Stands for a value whose group took no part."""


LEFT_OUT = _LeftOut()


def _integer(text: str) -> int:
    if re.fullmatch(r"[+-]?[0-9]{1,300}", text) is None:
        raise ValueError(f"{shown(text)} is no integer")
    return int(text)


def _number(text: str) -> int | float:
    if re.fullmatch(r"[+-]?[0-9]{1,300}(\.[0-9]{1,300})?([eE][+-]?[0-9]{1,3})?", text) is None:
        raise ValueError(f"{shown(text)} is no number")
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{shown(text)} is too large a number")
    return _integer(text) if re.fullmatch(r"[+-]?[0-9]+", text) else value


def _boolean(text: str) -> bool:
    words = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
    if text.lower() not in words:
        raise ValueError(f"{shown(text)} is none of {', '.join(words)}")
    return words[text.lower()]


READERS: dict[str, Callable[[str], Any]] = {
    "string": str,
    "integer": _integer,
    "number": _number,
    "boolean": _boolean,
}


@dataclass(frozen=True, slots=True)
class Placeholder:
    """A whole value: {group} or {group:type}."""

    group: str
    kind: str = "string"

    # Types of a schema that the value may be one of.
    FITS: ClassVar[Mapping[str, frozenset[str]]] = {
        "string": frozenset({"string"}),
        "integer": frozenset({"integer", "number"}),
        "number": frozenset({"number", "integer"}),
        "boolean": frozenset({"boolean"}),
    }

    @property
    def types(self) -> frozenset[str]:
        return self.FITS[self.kind]

    def fill(self, groups: Groups) -> Any:
        """Raises ValueError where a group matched no value of the type asked for."""
        text = groups[self.group]
        return LEFT_OUT if text is None else READERS[self.kind](text)


@dataclass(frozen=True, slots=True)
class Filled:
    """Text with placeholders in it."""

    parts: tuple[str | Placeholder, ...]

    def fill(self, groups: Groups) -> str:
        return "".join(part if isinstance(part, str) else groups[part.group] or "" for part in self.parts)


@dataclass(frozen=True, slots=True)
class Template:
    """The arguments of a route."""

    values: Mapping[str, Any]  # JSON in which a string with placeholders is a Placeholder or Filled

    def fill(self, groups: Groups) -> dict[str, Any]:
        """The arguments. Raises ValueError where a group matched no value of the type asked for."""
        arguments: dict[str, Any] = _filled(self.values, groups)
        return arguments

    def constants(self) -> dict[str, Any]:
        """The arguments that no group has a part in."""
        return {name: value for name, value in self.values.items() if not _has_placeholder(value)}

    def placeholders(self) -> dict[str, Placeholder]:
        """The arguments that are one placeholder each."""
        return {name: value for name, value in self.values.items() if isinstance(value, Placeholder)}


def template_of(arguments: object, groups: Collection[str], path: str) -> Template:
    """groups: the pattern's named ones. Raises ConfigError that names what is wrong by path."""
    if not isinstance(arguments, Mapping):
        raise ConfigError(f"{path} is {shown(arguments)}; it must be a JSON object")
    return Template(_read(arguments, groups, path))


def _read(value: object, groups: Collection[str], path: str) -> Any:
    if isinstance(value, Mapping):
        for name in value:
            if not is_text(name):
                raise ConfigError(f"{path} has {shown(name)}; names must be text")
        return {name: _read(each, groups, child_path(path, name)) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_read(each, groups, child_path(path, position)) for position, each in enumerate(value)]
    if isinstance(value, str):
        return _read_text(value, groups, path)
    if value is None or isinstance(value, (bool, int)) or (isinstance(value, float) and math.isfinite(value)):
        return value
    raise ConfigError(f"{path} is {shown(value)}; it must be JSON")


def _read_text(text: str, groups: Collection[str], path: str) -> str | Placeholder | Filled:
    if not is_text(text):
        raise ConfigError(f"{path} is {shown(text)}; it must be text without lone surrogates")
    try:
        pieces = list(string.Formatter().parse(text))
    except ValueError as error:
        raise ConfigError(f"{path} is {shown(text)}: {error}; a brace that stands for itself is doubled") from None
    parts: list[str | Placeholder] = []
    for literal, group, kind, conversion in pieces:
        parts += [literal] if literal else []
        if group is not None:
            parts.append(_placeholder(group, kind or "string", conversion, groups, path))
    if len(parts) == 1:
        return parts[0]
    for part in parts:
        if isinstance(part, Placeholder) and part.kind != "string":
            raise ConfigError(f"{path} is {shown(text)}; {{{part.group}:{part.kind}}} must be the whole string")
    return Filled(tuple(parts)) if any(isinstance(part, Placeholder) for part in parts) else "".join(map(str, parts))


def _placeholder(group: str, kind: str, conversion: str | None, groups: Collection[str], path: str) -> Placeholder:
    if group not in groups:
        known = ", ".join(groups) or "none"
        raise ConfigError(f"{path} has {{{group}}}; the pattern's named groups are {known}")
    if kind not in READERS or conversion is not None:
        raise ConfigError(f"{path} has the type {kind!r} at {{{group}}}; types are {', '.join(READERS)}")
    return Placeholder(group, kind)


def _filled(value: Any, groups: Groups) -> Any:
    if isinstance(value, (Placeholder, Filled)):
        return value.fill(groups)
    if isinstance(value, dict):
        filled = {name: _filled(each, groups) for name, each in value.items()}
        return {name: each for name, each in filled.items() if each is not LEFT_OUT}
    if isinstance(value, list):
        return [each for each in (_filled(each, groups) for each in value) if each is not LEFT_OUT]
    return value


def _has_placeholder(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_has_placeholder, value.values()))
    return any(map(_has_placeholder, value)) if isinstance(value, list) else isinstance(value, (Placeholder, Filled))
