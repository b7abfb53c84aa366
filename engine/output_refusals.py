"""Types of which no schema says what pydantic reads: refused by name, before anything is written.

The rule: a function of pydantic's own is known to read all that its schema lets through, or it is refused, as is a
format that nothing enforces. What the caller's functions refuse is the caller's own doing.
"""

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn

from pydantic.errors import PydanticInvalidForJsonSchema
from pydantic.json_schema import JsonSchemaValue

from engine.output_forms import unknown_format

_OWN_PACKAGES = {"pydantic", "pydantic_extra_types"}
_KNOWN_FUNCTIONS = {
    "_BaseUrl.__get_pydantic_core_schema__.<locals>.wrap_val",
    "EmailStr._validate",
    "EncodedStr.decode_str",
    "GenerateSchema._path_schema.<locals>.path_validator",
    "IPvAnyAddress._validate",
    "IPvAnyInterface._validate",
    "IPvAnyNetwork._validate",
    "Secret.__get_pydantic_core_schema__.<locals>.<lambda>",
    "SecretStr",
    "defaultdict_validator",
    "pattern_either_validator",
    "pattern_str_validator",
}
# What pydantic itself checks of a type that has no such bounds of its own, a union for one.
_BOUNDS = {
    "greater_than_validator": ("gt", "exclusiveMinimum"),
    "greater_than_or_equal_validator": ("ge", "minimum"),
    "less_than_validator": ("lt", "exclusiveMaximum"),
    "less_than_or_equal_validator": ("le", "maximum"),
    "multiple_of_validator": ("multiple_of", "multipleOf"),
}
# What has its format from something inside, or from the caller, who then knows that it says nothing.
_CARRIES = {"any", "default", "definition-ref", "definitions", "enum", "literal", "model", "nullable", "str", "union"}
_CARRIES |= {"dataclass-field", "model-field", "typed-dict-field"}
_KINDS = {"str": "string", "none": "other", "date": "other", "int": "number", "float": "number", "bool": "boolean"}


def refuse(reason: str) -> NoReturn:
    """Raise what pydantic raises itself where a type has no schema."""
    raise PydanticInvalidForJsonSchema(reason)


def check_readable(core: Any, json_schema: JsonSchemaValue) -> None:
    """Raise PydanticInvalidForJsonSchema where pydantic may refuse what the schema of this part lets through."""
    kind = core["type"]
    if kind.startswith("function-"):
        _check_function(core["function"]["function"])
    if kind == "chain" and any(not step["type"].startswith("function-") for step in core["steps"][1:]):
        refuse("it is validated in several steps, of which a schema holds the first one only")
    if kind not in _CARRIES and (name := unknown_format(json_schema)) is not None:
        refuse(f"its format {name!r} is not enforced")
    if isinstance(core.get("validation_alias"), list) and not _has_plain_alias(core["validation_alias"]):
        refuse("a field is read by an AliasPath only, of which a schema says nothing")


def constrained(
    core: Any, json_schema: JsonSchemaValue, resolve: Callable[[JsonSchemaValue], JsonSchemaValue]
) -> JsonSchemaValue:
    """With the bounds that pydantic checks by a function, as keywords."""
    function = core["function"]["function"] if core["type"] == "function-after" else None
    keyword = _BOUNDS.get(_name(function))
    if keyword is None or not isinstance(function, functools.partial) or not _is_own(function):
        return json_schema
    if not all(each.get("type") in ("integer", "number") for each in _branches(json_schema, resolve)):
        refuse(f"the bound {keyword[0]} is on what is not a number only")
    left = {key: value for key, value in json_schema.items() if key != keyword[0]}
    return {**left, keyword[1]: float(function.keywords[keyword[0]])}


def check_told_apart(core: Any, cores: Mapping[str, Any], *, keeps_strings: bool) -> None:
    """Raise PydanticInvalidForJsonSchema where two values that differ as JSON may be equal in Python.

    cores: definitions, by reference. Of a set or a dict that must have several members.
    keeps_strings: whether strings without rules of their own stay as they are written.
    """
    kinds = set(_kinds_of(core, cores))
    if None in kinds or {"number", "boolean"} <= kinds or ("string" in kinds and not keeps_strings):
        refuse("it has a least length, but members that differ as JSON may be equal in Python")


def _kinds_of(core: Any, cores: Mapping[str, Any]) -> Iterator[str | None]:
    match core["type"]:
        case "definition-ref" if core["schema_ref"] in cores:
            yield from _kinds_of(cores[core["schema_ref"]], cores)
        case "nullable" | "default":
            yield from _kinds_of(core["schema"], cores)
        case "union":
            for each in core["choices"]:
                yield from _kinds_of(each[0] if isinstance(each, tuple) else each, cores)
        case "enum":
            yield from map(_kind_of_value, (member.value for member in core["members"]))
        case "literal":
            yield from map(_kind_of_value, (getattr(each, "value", each) for each in core["expected"]))
        case "str" if {"strip_whitespace", "to_lower", "to_upper"} & core.keys():
            yield None
        case kind:
            yield _KINDS.get(kind)


def _kind_of_value(value: object) -> str:
    return "boolean" if isinstance(value, bool) else "number" if isinstance(value, (int, float)) else "other"


def _branches(
    schema: JsonSchemaValue, resolve: Callable[[JsonSchemaValue], JsonSchemaValue]
) -> Iterator[JsonSchemaValue]:
    schema = resolve(schema)
    if "anyOf" not in schema:
        yield schema
    for each in schema.get("anyOf", ()):
        yield from _branches(each, resolve)


def _check_function(function: Any) -> None:
    name = _name(function)
    if _is_own(function) and name not in _KNOWN_FUNCTIONS and name not in _BOUNDS:
        refuse(f"what {name} of {_plain(function).__module__} reads is said by no schema")


def _is_own(function: Any) -> bool:
    return str(getattr(_plain(function), "__module__", "")).partition(".")[0] in _OWN_PACKAGES


def _name(function: Any) -> str:
    return str(getattr(_plain(function), "__qualname__", ""))


def _plain(function: Any) -> Any:
    return function.func if isinstance(function, functools.partial) else function


def _has_plain_alias(aliases: list[Any]) -> bool:
    return any(isinstance(alias, list) and len(alias) == 1 for alias in aliases)
