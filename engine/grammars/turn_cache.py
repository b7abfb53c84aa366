"""Turns by what they are made of: a request with the tools of an earlier one finds its grammar written and checked."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass

from engine.grammars.matcher import GrammarCompiler, Matcher
from engine.grammars.recent import Recent, content_key
from engine.grammars.tool_format import Opening, ToolFormat
from engine.grammars.tool_schemas import ToolSchemas
from engine.grammars.turn import Turn, TurnBuilder
from engine.types import OfferedTool, Request, Tool

MAX_TURNS_KEPT = 128
MAX_BYTES_KEPT = 2**23  # of their tools and responses; what is made of them takes several times as much


@dataclass(slots=True, eq=False)
class KnownTurn:
    """A turn, and whether all that only compiling tells of it has been found to be well."""

    turn: Turn
    is_sound: bool = False

    def compile(self, compiler: GrammarCompiler) -> Matcher | None:
        """A matcher at the turn's start. Raises GrammarError, as Turn does, unless the turn is sound."""
        if self.is_sound and self.turn.source is not None:
            return compiler.compile(self.turn.source, param="tools")
        return self.turn.compile(compiler)


class AskedTurn:
    """The turn of one request, which has been checked. It is built once it is known where the prompt leaves it."""

    def __init__(self, turns: "Turns", request: Request) -> None:
        self._turns, self._request = turns, request
        self._key = _key(request)
        self._known = turns.known(self._key)
        self._builder = None if self._known else turns.builder(request)

    def at(self, opening: Opening) -> KnownTurn:
        """The turn that begins so."""
        if opening not in self._known:
            builder = self._builder or self._turns.builder(self._request)
            self._known[opening] = KnownTurn(builder.build(opening))
            self._turns.keep(self._key, self._known)
        return self._known[opening]


class Turns:
    """All turns of one engine. Any thread may use it."""

    def __init__(self, family: ToolFormat, special_tokens: Mapping[str, int]) -> None:
        """special_tokens: as in TurnBuilder."""
        self._family, self._special_tokens = family, special_tokens
        self._schemas = ToolSchemas(family.arguments)
        self._turns: Recent[Hashable, dict[Opening, KnownTurn]] = Recent(MAX_TURNS_KEPT, MAX_BYTES_KEPT)

    def of(self, request: Request) -> AskedTurn:
        """Raises what TurnBuilder raises."""
        return AskedTurn(self, request)

    def known(self, key: "_Key") -> dict[Opening, KnownTurn]:
        return self._turns.get(key) or {}

    def keep(self, key: "_Key", known: dict[Opening, KnownTurn]) -> None:
        self._turns.put(key, known, key.num_bytes)

    def builder(self, request: Request) -> TurnBuilder:
        return TurnBuilder(request, self._family, self._special_tokens, self._schemas)


@dataclass(frozen=True, slots=True)
class _Key:
    """All of a request that its turn is made of."""

    tools: bytes
    others: tuple[Hashable, ...]
    num_bytes: int


def _key(request: Request) -> _Key:
    tools = content_key([_content(tool) for tool in request.tools])
    options = (request.parallel_tool_calls, request.open_objects, request.lenient, request.strict_formats)
    response = "" if request.response is None else request.response.source
    return _Key(tools, (request.tool_choice, *options, request.response), len(tools) + len(response))


def _content(tool: OfferedTool) -> list[object]:
    """What a turn knows of a tool; a description is none of it."""
    if isinstance(tool, Tool):
        return [tool.name, None if tool.parameters is None else dict(tool.parameters), tool.strict]
    return [tool.name, *(() if tool.format is None else (tool.format.kind.value, tool.format.source))]
