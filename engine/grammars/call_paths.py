"""The tokens by which a call begins, in one vocabulary: its marker, and on to the end of a tool's name."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, Self

from engine.grammars.tool_format import ToolFormat, split_at_id
from engine.types import CustomTool, OfferedTool


class Vocabulary(Protocol):
    """What is to be known of a tokenizer."""

    def encode_parts(self, parts: Sequence[str]) -> list[int]: ...

    def token_bytes(self, token_id: int) -> bytes: ...


@dataclass(frozen=True, slots=True)
class CallOpening:
    """The fewest tokens that have all of what opens a call in them, as the tokenizer cuts a call.

    The last one may reach beyond that; where it reaches a tool's name, there are several.
    """

    stem: tuple[int, ...]
    lasts: tuple[int, ...]

    @property
    def length(self) -> int:
        return len(self.stem) + 1


@dataclass(frozen=True, slots=True)
class ToolPath:
    """A call's tokens up to the end of a tool's name, and what tells that it ends there."""

    name: str
    tokens: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Fork:
    """Where the calls of several tools part."""

    before: tuple[int, ...]  # the tokens that they share
    following: tuple[int, ...]  # those with which they go on, each once


@dataclass(frozen=True, slots=True)
class ToolTree:
    """The paths of all tools, none of which is the beginning of another, and where they part."""

    paths: tuple[ToolPath, ...] = ()
    forks: tuple[Fork, ...] = ()  # by what is before them: the first one is on every path

    @classmethod
    def of(cls, paths: Sequence[ToolPath]) -> Self:
        following: dict[tuple[int, ...], dict[int, None]] = {}
        for path in paths:
            for number, token in enumerate(path.tokens):
                following.setdefault(path.tokens[:number], {})[token] = None
        forks = [Fork(before, tuple(tokens)) for before, tokens in following.items() if len(tokens) > 1]
        return cls(tuple(paths), tuple(sorted(forks, key=lambda fork: fork.before)))

    def logprobs(self, at_forks: Sequence[Sequence[float]]) -> list[float]:
        """Of each path, of the calls that are possible. at_forks: of what follows at each fork; natural logs."""
        found = {
            (fork.before, token): logprob
            for fork, logprobs in zip(self.forks, at_forks, strict=True)
            for token, logprob in zip(fork.following, logprobs, strict=True)
        }
        return [
            sum(found.get((path.tokens[:number], token), 0.0) for number, token in enumerate(path.tokens))
            for path in self.paths
        ]


def call_opening(family: ToolFormat, tools: Iterable[OfferedTool], vocabulary: Vocabulary, marker: str) -> CallOpening:
    """How a call of one of the tools opens. marker: the family's, or the beginning of it that tells a call."""
    openings = {_covering(vocabulary, _header(family, tool), marker) for tool in tools}
    stems = {opening[:-1] for opening in openings}
    if len(stems) > 1:  # the tokenizer parts the marker itself in several ways
        openings = {_covering(vocabulary, marker, marker)}
    (stem,) = {opening[:-1] for opening in openings}
    return CallOpening(stem, tuple(sorted(opening[-1] for opening in openings)))


def tool_path(family: ToolFormat, tool: OfferedTool, vocabulary: Vocabulary) -> ToolPath:
    """How a call of this tool begins."""
    header = _header(family, tool)
    before = family.before_input if isinstance(tool, CustomTool) else family.before_arguments
    after = split_at_id(before)[0]
    return ToolPath(tool.name, _covering(vocabulary, header + after, header + after[:1]))


def _header(family: ToolFormat, tool: OfferedTool) -> str:
    return f"{family.marker}{family.calls_begin}{family.before_name}{tool.name}"


def _covering(vocabulary: Vocabulary, text: str, beginning: str) -> tuple[int, ...]:
    """The fewest of the text's tokens that have its beginning in them."""
    tokens = vocabulary.encode_parts(["", text])
    num_bytes = len(beginning.encode())
    for number, token in enumerate(tokens, start=1):
        num_bytes -= len(vocabulary.token_bytes(token))
        if num_bytes <= 0:
            return tuple(tokens[:number])
    raise AssertionError(f"the tokens of {text!r} do not spell it")
