"""A typed Python function becomes a tool, and what a model asks of it becomes a result or one line of error.

The schema that a model sees and the check that its arguments pass come from one pydantic model, built from the
function's signature. Executing a tool never raises on bad input: every fault is a `ToolFailure`.
"""

import asyncio
import contextvars
import inspect
import json
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Annotated, Any, Generic, Literal, NoReturn, ParamSpec, TypedDict, TypeVar

import griffe
from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model
from pydantic.fields import FieldInfo
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import ErrorDetails, PydanticSerializationError, to_json, to_jsonable_python

from engine.errors import ConfigError, EngineError, RequestError
from engine.types import JsonObject, Tool

MAX_ERROR_CHARS = 500
MAX_REPORTED_FAULTS = 3  # wrong arguments named in one error

P = ParamSpec("P")
R = TypeVar("R")


class ToolError(EngineError):
    """A tool could not do what was asked. Its message is meant for the model, and reaches it as it stands."""


class ToolSuccess(TypedDict):
    """A tool's answer."""

    success: Literal[True]
    result: Any  # a JSON value


class ToolFailure(TypedDict):
    """Why there is no answer, in one line."""

    success: Literal[False]
    error: str


ToolResult = ToolSuccess | ToolFailure


@dataclass(frozen=True, slots=True, eq=False)
class RegisteredTool(Generic[P, R]):
    """A Python function together with what a model is told about it; made by `tool`.

    Calling it calls the function as it is. `execute` is for arguments that a model wrote.
    """

    definition: Tool
    function: Callable[P, R]
    signature: inspect.Signature
    arguments_model: type[BaseModel]

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.function(*args, **kwargs)

    def execute(self, arguments: JsonObject | str) -> ToolResult:
        """Check the arguments, call the function and wait for it where it is async. Never raises an Exception.

        arguments: a JSON object, as a mapping or as text. Pydantic's lax JSON rules apply ("5" passes for an integer):
        a model whose output is not constrained writes such things, and a parameter can ask for more with `Strict()`.
        An async function called from a running event loop gets a loop and a thread of its own; the caller waits.
        """
        try:
            bound = _bind(self, arguments)
            result = _finished(self.function(*bound.args, **bound.kwargs))
            return {"success": True, "result": _jsonable(result)}
        # A tool's own loop can end in CancelledError, and sys.exit raises SystemExit: both are no Exception.
        # KeyboardInterrupt passes.
        except (Exception, asyncio.CancelledError, SystemExit) as error:
            return _failure(error)


def tool(function: Callable[P, R]) -> RegisteredTool[P, R]:
    """Turn a function into a tool; usable as a decorator.

    Every parameter needs a type hint that pydantic knows. Constraints and descriptions may stand in
    `Annotated[..., Field(...)]`; otherwise descriptions come from the docstring, in Google, NumPy or Sphinx style.
    Raises ConfigError naming the function and the parameter that no schema can describe.
    """
    name = getattr(function, "__name__", repr(function))
    signature = _signature(name, function)
    arguments_model, schema = _arguments_model(name, function, tuple(signature.parameters.values()))
    description, parameter_descriptions = _read_docstring(inspect.getdoc(function) or "")
    for parameter, text in parameter_descriptions.items():
        if parameter in schema["properties"]:
            schema["properties"][parameter].setdefault("description", text)
    try:
        definition = Tool(name, description, schema if schema["properties"] else None)
    except RequestError as error:
        raise ConfigError(str(error)) from error
    return RegisteredTool(definition, function, signature, arguments_model)


class ToolRegistry:
    """Tools by name, in the order in which they were registered."""

    def __init__(self, tools: Iterable[Callable[..., Any]] = ()) -> None:
        self._tools: dict[str, RegisteredTool[..., Any]] = {}
        for function in tools:
            self.register(function)

    def register(self, function: Callable[P, R]) -> RegisteredTool[P, R]:
        """Add a tool, or a function that becomes one; a decorator too. Raises ConfigError if the name is taken."""
        registered = function if isinstance(function, RegisteredTool) else tool(function)
        name = registered.definition.name
        if name in self._tools:
            raise ConfigError(f"two tools are called {name!r}; names must differ")
        self._tools[name] = registered
        return registered

    @property
    def definitions(self) -> tuple[Tool, ...]:
        """What a model is told: the `tools` of a Request."""
        return tuple(registered.definition for registered in self._tools.values())

    def execute(self, name: str, arguments: JsonObject | str) -> ToolResult:
        """Run one call that a model wrote; see RegisteredTool.execute. An unknown name is a failure too."""
        if not isinstance(name, str) or name not in self._tools:
            registered = ", ".join(self._tools) or "none"
            return _failure(ToolError(f"there is no tool {name!r:.80}; registered: {registered}"))
        return self._tools[name].execute(arguments)


# From a function to a schema.


def _signature(name: str, function: Callable[..., Any]) -> inspect.Signature:
    """The signature with its annotations evaluated, once no parameter is of a kind that a schema cannot describe."""
    try:
        signature = inspect.signature(function, eval_str=True)
    except Exception as error:  # annotations written as strings are arbitrary code
        raise ConfigError(f"tool {name!r}: its signature cannot be read: {error}") from error
    for parameter in signature.parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise ConfigError(f"tool {name!r}: parameter '{parameter}' has no fixed names; spell its arguments out")
        if parameter.annotation is parameter.empty:
            raise ConfigError(f"tool {name!r}: parameter {parameter.name!r} has no type hint")
    return signature


def _arguments_model(
    name: str, function: Callable[..., Any], parameters: tuple[inspect.Parameter, ...]
) -> tuple[type[BaseModel], dict[str, Any]]:
    """A pydantic model with a field per parameter, and its JSON schema, closed and without titles."""
    # The field names are ours, since a BaseModel claims names like `copy` and `schema`; a model writes the aliases.
    fields: dict[str, Any] = {f"argument_{i}": _field(parameter) for i, parameter in enumerate(parameters)}
    config = ConfigDict(extra="forbid", allow_inf_nan=False)
    try:
        # The module is where pydantic looks up the names in annotations such as list["City"].
        model = create_model(name, __config__=config, __module__=function.__module__, **fields)
        schema = _without_titles(model.model_json_schema(schema_generator=_LeanJsonSchema))
    except Exception as error:  # pydantic has no base class for them, and types may bring code of their own
        if len(parameters) > 1:
            for parameter in parameters:
                _arguments_model(name, function, (parameter,))  # raises for the one at fault
        where = f"parameter {parameters[0].name!r}" if parameters else "its parameters"
        raise ConfigError(f"tool {name!r}: {where} cannot be described: {_one_line(str(error))}") from error
    schema.setdefault("properties", {})
    return model, schema


def _field(parameter: inspect.Parameter) -> tuple[Any, FieldInfo]:
    if isinstance(parameter.default, FieldInfo):  # x: int = Field(5, ge=1)
        return Annotated[parameter.annotation, parameter.default], Field(alias=parameter.name)
    if parameter.default is parameter.empty:
        return parameter.annotation, Field(alias=parameter.name)
    return parameter.annotation, Field(alias=parameter.name, default=parameter.default)


class _LeanJsonSchema(GenerateJsonSchema):
    """Leaves a default out where JSON cannot write it; the parameter stays optional."""

    ignored_warning_kinds = {"non-serializable-default"}  # noqa: RUF012  pydantic's own declaration

    def encode_default(self, dft: Any) -> Any:
        default = super().encode_default(dft)
        try:
            json.dumps(default, allow_nan=False)
        except ValueError as error:
            raise PydanticSerializationError(str(error)) from error
        return default


_SCHEMAS_BY_NAME = ("properties", "patternProperties", "dependentSchemas", "$defs")  # here "title" may be a name
_PLAIN_DATA = ("default", "const", "enum", "examples", "required", "discriminator")


def _without_titles(schema: Any) -> Any:
    """The schema without pydantic's `title` keywords, which tell a model nothing that the names do not."""
    if isinstance(schema, list):
        return [_without_titles(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    lean = {}
    for keyword, value in schema.items():
        if keyword in _SCHEMAS_BY_NAME:
            lean[keyword] = {name: _without_titles(subschema) for name, subschema in value.items()}
        elif keyword != "title":
            lean[keyword] = value if keyword in _PLAIN_DATA else _without_titles(value)
    return lean


def _read_docstring(docstring: str) -> tuple[str, dict[str, str]]:
    """The docstring's prose, and its descriptions by parameter."""
    # Griffe's own detection misses a Sphinx field on the last line. The right style finds the most parameters.
    styles = [griffe.Docstring(docstring).parse(style, warnings=False) for style in ("google", "numpy", "sphinx")]
    sections = max(styles, key=lambda sections: len(_described(sections)))
    prose = []
    for section in sections:
        if isinstance(section, griffe.DocstringSectionText):
            prose.append(section.value)
        elif isinstance(section, griffe.DocstringSectionAdmonition):  # an indented block under any other heading
            prose.append(f"{section.title}: {section.value.contents}")
    return "\n\n".join(prose).strip(), _described(sections)


def _described(sections: list[griffe.DocstringSection]) -> dict[str, str]:
    kinds = (griffe.DocstringSectionParameters, griffe.DocstringSectionOtherParameters)
    found = [parameter for section in sections if isinstance(section, kinds) for parameter in section.value]
    return {parameter.name: " ".join(parameter.description.split()) for parameter in found}


# From a model's arguments to a result.


def _bind(registered: RegisteredTool[..., Any], arguments: object) -> inspect.BoundArguments:
    """The arguments as the annotated Python types. Raises ToolError."""
    names = list(registered.signature.parameters)
    try:
        model = registered.arguments_model.model_validate_json(_json_text(arguments))
    except ValidationError as error:
        _refuse(error, names)
    values = OrderedDict((name, getattr(model, f"argument_{i}")) for i, name in enumerate(names))
    return inspect.BoundArguments(registered.signature, values)


def _json_text(arguments: object) -> str | bytes:
    """A mapping goes through its text too, so that both forms follow the same rules."""
    if isinstance(arguments, str):
        return arguments
    if not isinstance(arguments, Mapping):
        raise ToolError(f"the arguments must be a JSON object, not {type(arguments).__name__}")
    try:
        return to_json(dict(arguments))
    except Exception as error:  # serializers that types bring along raise what they like
        raise ToolError(f"the arguments cannot be written as JSON: {error}") from error


def _refuse(error: ValidationError, names: list[str]) -> NoReturn:
    faults = error.errors(include_url=False)
    told = [_explain(fault, names) for fault in faults[:MAX_REPORTED_FAULTS]]
    if len(faults) > MAX_REPORTED_FAULTS:
        told.append(f"and {len(faults) - MAX_REPORTED_FAULTS} more")
    raise ToolError("; ".join(told)) from error


def _explain(fault: ErrorDetails, names: list[str]) -> str:
    path = ".".join(str(part) for part in fault["loc"])
    match fault["type"]:
        case "json_invalid":
            return f"the arguments are not valid JSON: {fault['ctx']['error']}"
        case "missing":
            return f"argument {path!r} is missing"
        case "extra_forbidden":
            allowed = f"; allowed: {', '.join(names) or 'none'}" if len(fault["loc"]) == 1 else ""
            return f"argument {path!r:.80} is not known{allowed}"
        case _ if not path:
            return "the arguments must be a JSON object"
    return f"argument {path!r:.80}: {fault['msg']} (got {fault['input']!r:.80})"


def _finished(value: object) -> object:
    if not inspect.isawaitable(value):
        return value
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(_awaited(value))
    with ThreadPoolExecutor(max_workers=1) as executor:  # a running loop cannot be waited for in its own thread
        return executor.submit(contextvars.copy_context().run, asyncio.run, _awaited(value)).result()


async def _awaited(value: Awaitable[object]) -> object:
    return await value  # asyncio.run takes coroutines only


def _jsonable(result: object) -> object:
    """The result in JSON's types. Raises ToolError where JSON cannot write it, NaN and infinity included."""
    try:
        value: object = to_jsonable_python(result)
        json.dumps(value, allow_nan=False, ensure_ascii=False).encode()  # encode: no lone surrogates
    except Exception as error:  # serializers that types bring along raise what they like
        raise ToolError(f"the tool's result cannot be written as JSON: {error}") from error
    return value


def _failure(error: BaseException) -> ToolFailure:
    kind = type(error).__name__
    try:
        message = _one_line(str(error))
    except Exception:  # an exception's own __str__ may fail
        message = ""
    if not isinstance(error, ToolError):  # others do not say what they are about: KeyError('city') reads "'city'"
        message = f"{kind}: {message}" if message else kind
    return {"success": False, "error": message}


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    clipped = line if len(line) <= MAX_ERROR_CHARS else line[: MAX_ERROR_CHARS - 3] + "..."
    return clipped.encode(errors="backslashreplace").decode()
