"""Paths of the engine's values and of the client's JSON, one into the other.

The engine speaks of `tools[3].parameters`, the client wrote `tools[3].function.parameters`.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from engine.errors import RequestError


@dataclass(frozen=True, slots=True)
class Rule:
    """Where a path begins with `engine`, as a whole step, the client's begins with `wire`.

    is_end: the client's is `wire` alone: what the engine knows below it stands nowhere in the client's JSON, as of a
    tool that is only named there.
    """

    engine: str
    wire: str
    is_end: bool = False

    def fits(self, path: str) -> bool:
        return re.match(re.escape(self.engine) + r"(?![\w-])", path) is not None


@dataclass(frozen=True, slots=True)
class Paths:
    """How the paths of one request translate. The first rule that fits counts."""

    rules: tuple[Rule, ...] = ()

    def to_wire(self, path: str) -> str:
        """The client's path to what the engine calls `path`."""
        return self.split(path)[0]

    def split(self, path: str) -> tuple[str, str]:
        """The same, and what of `path` lies below it but stands nowhere in the client's JSON."""
        for rule in self.rules:
            if rule.fits(path):
                rest = path[len(rule.engine) :]
                if rule.is_end:  # an index alone would say nothing
                    return rule.wire, path if rest.startswith("[") else rest.removeprefix(".")
                return rule.wire + rest, ""
        return path, ""

    def in_text(self, text: str, path: str) -> str:
        """An error's text, which names `path`, in the client's words."""
        # Not after a letter, a dot or a bracket: "n" must not be found inside of words.
        pattern = r"(?<![\w.\]\"'])" + re.escape(path) + r"(?![\w-])"
        return re.sub(pattern, lambda _: self.to_wire(path), text) if path else text


UNCHANGED = Paths()


def from_rules(rules: Iterable[tuple[str, str]]) -> Paths:
    """Paths of (engine, wire) pairs. An engine's path that ends in `.*` makes a rule that is an end."""
    return Paths(tuple(Rule(engine.removesuffix(".*"), wire, engine.endswith(".*")) for engine, wire in rules))


@contextmanager
def inside(path: str) -> Iterator[None]:
    """Put the path before what one of the engine's values says of itself."""
    try:
        yield
    except RequestError as error:
        raise type(error)(f"{path}.{error}", param=f"{path}.{error.param}") from None


def json_path(steps: Sequence[str | int], body: object, *, missing: bool = False, name: str | None = None) -> str:
    """The path of a validation error.

    steps: as pydantic gives them, names of union members among them, which lead nowhere in the body and so are left
    out. missing: the last step is the name of something that ought to be there. name: of what is wrong in the object
    that the steps lead to, if it has it; of a name that is no text, pydantic tells only whose it is.
    """
    path, value, above = "", body, body
    for number, step in enumerate(steps, start=1):
        found, inner = _step(value, step)
        if not found and not missing and number == len(steps) and _step(above, step)[0]:
            # It stands beside the step before, which was no key either, but a union's member that is called like one.
            return json_path([*steps[:-2], step], body)
        if found and missing and number == len(steps) > 1:
            # It is there, so the step before was no key, but a union's member that is called like one.
            return json_path([*steps[:-2], step], body, missing=True)
        if found:
            path, value, above = _joined(path, step), inner, value
        elif missing and number == len(steps):
            path = _joined(path, step)
    return path if name is None or not _step(value, name)[0] else _joined(path, name)


def _step(value: object, step: str | int) -> tuple[bool, object]:
    if isinstance(value, dict) and step in value:
        return True, value[step]
    if isinstance(value, list) and isinstance(step, int) and 0 <= step < len(value):
        return True, value[step]
    return False, None


def _joined(path: str, step: str | int) -> str:
    if isinstance(step, int):
        return f"{path}[{step}]"
    return f"{path}.{step}" if path else step
