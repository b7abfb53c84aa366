"""What an answer must be, as a grammar, and the value that its text stands for.

Python types and JSON schemas are written as JSON; whatever else is a grammar of text is its own value.
"""

import functools
import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Generic, TypeVar, get_args, get_origin

from pydantic import TypeAdapter
from pydantic.errors import PydanticSchemaGenerationError, PydanticUndefinedAnnotation, PydanticUserError
from pydantic_core import SchemaError as CoreSchemaError
from pydantic_core import from_json

from engine.checks import shown
from engine.errors import RequestError
from engine.output_schema import TypeSchema
from engine.types import Grammar, GrammarKind

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

ALLOWED = (
    "a type that pydantic reads from JSON (a model, a dataclass, a TypedDict, an Enum, a Literal, a Union, int, float, "
    "bool, str, date, time, datetime, or a list, tuple, set or dict of these), a JSON schema as a mapping, a Grammar, "
    "or a term of outlines.types"
)

_COMPLETE_STRING = re.compile(r'"(?:[^"\\]|\\.)*+"', re.DOTALL)
_NUMBER_CHARACTERS = "+-.0123456789Ee"


@dataclass(frozen=True, slots=True)
class OutputType(Generic[T_co]):
    """A grammar, and what its text stands for."""

    grammar: Grammar | None  # None: free text, which may end anywhere
    read: Callable[[str], T_co]  # the whole text; ValueError where a type has rules that its schema does not say
    read_partial: Callable[[str], object]  # the text so far; ValueError where nothing is known yet


FREE_TEXT: OutputType[str] = OutputType(None, str, str)


def text_output(grammar: Grammar) -> OutputType[str]:
    """Text that the grammar derives; it is its own value, from its beginning on."""
    return OutputType(grammar, str, str)


def json_output(schema: Mapping[str, Any] | bool) -> OutputType[Any]:
    """A JSON value that satisfies the schema, as plain Python. Raises SchemaError where that is no JSON."""
    return _json_output(Grammar.json_schema(schema))


def grammar_output(grammar: Grammar) -> OutputType[Any]:
    """JSON of a JSON grammar, as plain Python; else the text."""
    return _json_output(grammar) if grammar.kind is GrammarKind.JSON_SCHEMA else text_output(grammar)


def _json_output(grammar: Grammar) -> OutputType[Any]:
    return OutputType(grammar, from_json, partial_json)


def python_output(python_type: type[T]) -> OutputType[T]:
    """A value of the type, written as JSON that pydantic's schema of it allows, and validated by pydantic.

    Objects are closed unless the type keeps what it does not name. Raises RequestError that names the type.
    """
    _refuse_what_is_no_type(python_type)
    try:
        adapter = TypeAdapter(python_type)
        schema = adapter.json_schema(schema_generator=TypeSchema)
    # What pydantic raises for what is no type at all has no common base: an empty Literal is an AssertionError.
    # An ImportError is of a package that pydantic needs for the type.
    except (
        PydanticUserError,
        PydanticUndefinedAnnotation,
        CoreSchemaError,
        TypeError,
        LookupError,
        AssertionError,
        ImportError,
    ) as error:
        raise _unsupported(python_type, _reason(error)) from error
    return OutputType(Grammar.json_schema(schema), adapter.validate_json, partial_json)


def partial_json(text: str) -> object:
    """The value that the beginning of a JSON text is known to have, as plain Python.

    The last string may be cut; a number, a name and a literal are there when nothing can follow in them.
    Raises ValueError where nothing is known yet.
    """
    is_in_string = '"' in _COMPLETE_STRING.sub("", text)
    if not is_in_string and not text.endswith(("true", "false")):
        text = text.rstrip(_NUMBER_CHARACTERS)
    return from_json(text, allow_partial="trailing-strings")


def _refuse_what_is_no_type(python_type: object) -> None:
    # Pydantic would call a function with what the model wrote, and evaluate a string as a name of ours.
    if inspect.isroutine(python_type) or isinstance(python_type, (functools.partial, str)) or python_type is None:
        raise _unsupported(python_type, "it is no type")


def _reason(error: Exception) -> str:
    if isinstance(error, PydanticSchemaGenerationError):  # its text is about pydantic's own options
        return "pydantic has no schema for it"
    if isinstance(error, CoreSchemaError):  # the innermost reason stands last, over several lines
        return " ".join(str(error).rpartition("SchemaError: ")[2].split())
    return (error.message if isinstance(error, PydanticUserError) else str(error)).rstrip(".")


def _unsupported(output_type: object, reason: str) -> RequestError:
    return RequestError(
        f"output_type is {_name(output_type)}, which cannot be enforced: {reason}; it must be {ALLOWED}",
        param="output_type",
    )


def _name(output_type: object) -> str:
    if get_origin(output_type) is Annotated:
        return f"Annotated[{_name(get_args(output_type)[0])}, ...]"
    is_named = isinstance(output_type, type) or inspect.isroutine(output_type)
    name: str = getattr(output_type, "__qualname__", "") if is_named else shown(output_type)
    return name
