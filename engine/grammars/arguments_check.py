"""Whether given arguments satisfy a tool's schema, read as the turn's grammar reads it: closed where it is silent."""

from typing import Any

import jsonschema_rs

from engine.grammars.json_schema import check_arguments_schema
from engine.grammars.schema_walk import child_path
from engine.types import JsonObject

# What speaks of each property alone; the others, `required` among them, speak of the object as a whole.
_OF_EACH = frozenset({"$schema", "$id", "$defs", "definitions", "properties", "patternProperties"})


class ArgumentsCheck:
    """One tool's schema as a validator. Immutable; any thread may use it."""

    def __init__(self, parameters: JsonObject | None, path: str, *, open_objects: bool = False) -> None:
        """path: of the schema, for errors. open_objects: as in Request. Raises SchemaError that names the keyword."""
        source = check_arguments_schema(parameters, path, open_objects=open_objects).source
        assert isinstance(source, dict)
        self._source: dict[str, Any] = source
        self._whole = jsonschema_rs.validator_for(source, validate_formats=True)
        parts = {keyword: value for keyword, value in source.items() if keyword in _OF_EACH}
        self._parts = jsonschema_rs.validator_for(parts, validate_formats=True)

    @property
    def required(self) -> tuple[str, ...]:
        """Names without which no arguments are valid."""
        return tuple(self._source.get("required", ()))

    def knows(self, name: str) -> bool:
        """Whether the schema may admit an argument of this name."""
        is_closed = self._source.get("additionalProperties") is False and "patternProperties" not in self._source
        return not is_closed or name in self._source.get("properties", {})

    def types_of(self, name: str) -> frozenset[str] | None:
        """The types that the schema names for an argument; None where it names none."""
        schema = self._source.get("properties", {}).get(name)
        types = schema.get("type") if isinstance(schema, dict) else None
        return None if types is None else frozenset([types] if isinstance(types, str) else types)

    def ordered(self, arguments: JsonObject) -> dict[str, Any]:
        """The same arguments in the schema's order; those that it does not name come last."""
        names = [name for name in self._source.get("properties", {}) if name in arguments]
        return {name: arguments[name] for name in (*names, *(name for name in arguments if name not in names))}

    def fault(self, arguments: JsonObject) -> str | None:
        """What is wrong with the arguments, with the path to it; None where they are valid."""
        return _first_fault(self._whole, arguments)

    def fault_of_parts(self, arguments: JsonObject) -> str | None:
        """The same of some of the arguments: each on its own, whatever else there must be."""
        return _first_fault(self._parts, arguments)


def _first_fault(validator: Any, arguments: JsonObject) -> str | None:
    try:
        for error in validator.iter_errors(dict(arguments)):
            where = ""
            for key in error.instance_path:
                where = child_path(where, key) if where or isinstance(key, int) else str(key)
            return f"{where}: {error.message}" if where else str(error.message)
    except ValueError as error:  # half a surrogate pair, say
        return str(error)
    return None
