"""What became of each tool's parameters, kept by what they say: a tool that was offered before is not read again."""

from dataclasses import dataclass, replace

from engine.errors import SchemaError
from engine.grammars.closing_hints import ClosingHints
from engine.grammars.encoders.arguments import Arguments, ArgumentsGrammar, Terminals
from engine.grammars.json_schema import CheckedSchema, check_arguments_schema
from engine.grammars.recent import Recent, content_key
from engine.grammars.schema_walk import nearest_path, refusal
from engine.grammars.turn_closing import hints_of
from engine.types import JsonObject

MAX_TOOLS_KEPT = 4096
MAX_BYTES_KEPT = 2**23  # of their parameters; what is made of them takes several times as much


@dataclass(frozen=True, slots=True)
class SchemaOptions:
    """What a request asks of its tools' schemas."""

    open_objects: bool = False
    lenient: bool = False
    strict_formats: bool = False


@dataclass(frozen=True, slots=True)
class ToolSchema:
    """One tool's parameters: checked, and as a part of the turn's grammar."""

    position: int  # among the request's tools
    checked: CheckedSchema
    grammar: ArgumentsGrammar
    hints: ClosingHints

    @property
    def path(self) -> str:
        return _path(self.position)


class ToolSchemas:
    """The parameters of tools, in one family's way of writing arguments. Any thread may use it."""

    def __init__(self, arguments: Arguments) -> None:
        self._arguments = arguments
        self._known: Recent[tuple[bytes, SchemaOptions], ToolSchema] = Recent(MAX_TOOLS_KEPT, MAX_BYTES_KEPT)

    def of(
        self, parameters: JsonObject | None, position: int, options: SchemaOptions, terminals: Terminals
    ) -> ToolSchema:
        """Raises SchemaError that names the keyword by path. position: of the tool in the request."""
        # In the order in which they are written: properties are written in that order too.
        key = content_key(None if parameters is None else dict(parameters)), options
        known = self._known.get(key)
        if known is not None and known.position == position:
            return known
        checked = None if known is None else _moved(known.checked, known.path, _path(position))
        if checked is None:
            checked = check_arguments_schema(
                parameters,
                _path(position),
                open_objects=options.open_objects,
                lenient=options.lenient,
                strict_formats=options.strict_formats,
            )
        grammar = self._written(checked, parameters, position, terminals)
        found = ToolSchema(position, checked, grammar, hints_of(checked) if known is None else known.hints)
        self._known.put(key, found, len(key[0]))
        return found

    def _written(
        self, checked: CheckedSchema, parameters: JsonObject | None, position: int, terminals: Terminals
    ) -> ArgumentsGrammar:
        path = _path(position)
        try:
            return self._arguments.grammar(checked, name=f"arguments_{position}", path=path, terminals=terminals)
        except SchemaError as error:  # it speaks of the schema as the grammar has it, the caller of another one
            where = nearest_path(error.param, parameters, path)
            raise refusal(where, str(error).removeprefix(f"{error.param}: ")) from None


def _path(position: int) -> str:
    return f"tools[{position}].parameters"


def _moved(checked: CheckedSchema, old: str, new: str) -> CheckedSchema | None:
    """The same schema under another path; None where its texts speak of the path."""
    if any(old in entry.detail for entry in checked.entries):
        return None
    entries = tuple(replace(entry, path=new + entry.path.removeprefix(old)) for entry in checked.entries)
    patterns = {new + path.removeprefix(old): pattern for path, pattern in checked.patterns.items()}
    return replace(checked, entries=entries, patterns=patterns)
