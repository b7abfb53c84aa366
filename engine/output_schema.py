"""The JSON schema of a Python type: pydantic's, narrowed to what pydantic's validation then takes.

Whatever the schema lets through, validation reads back, or the type is refused by its name. The caller's own functions
are the exception: what a validator of theirs refuses is known only when the value is read.
"""

import datetime
import enum
from collections.abc import Mapping
from fractions import Fraction
from types import MappingProxyType
from typing import Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue, JsonSchemaWarningKind
from pydantic_core import core_schema

from engine.output_forms import (
    DURATION,
    date_pattern,
    decimal_rules,
    has_other_meaning,
    in_known_formats,
    string_rules,
    url_pattern,
)
from engine.output_refusals import check_readable, check_told_apart, constrained, refuse

_WHOLE_NUMBER = "^(?:0|-?[1-9][0-9]{0,17})$"
_NUMBER_BOUNDS = ("gt", "ge", "lt", "le", "multiple_of")
_DAY_BOUNDS = (("ge", "gt", 1), ("le", "lt", -1))
_SAFE_DAYS = datetime.timedelta(days=2)  # from now, wherever the clock is that is asked later


class TypeSchema(GenerateJsonSchema):
    """Raises PydanticInvalidForJsonSchema where a type's values cannot be told by any schema."""

    cores: Mapping[str, Any] = MappingProxyType({})  # pydantic's definitions, by reference

    def emit_warning(self, kind: JsonSchemaWarningKind, detail: str) -> None:
        """A default that JSON cannot write needs not be written; a branch of a union is not left out in silence."""
        if kind == "skipped-choice":
            refuse(detail)

    def generate_inner(self, schema: Any) -> JsonSchemaValue:
        """With formats that are enforced in place of those that only pydantic knows."""
        json_schema = constrained(schema, in_known_formats(super().generate_inner(schema)), self.resolve_ref_schema)
        check_readable(schema, json_schema)
        return json_schema

    # Objects: a property that validation drops is not written either.

    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        """Closed, unless the model keeps extra properties."""
        return _closed(super().model_schema(schema))

    def dataclass_schema(self, schema: core_schema.DataclassSchema) -> JsonSchemaValue:
        """Closed."""
        return _closed(super().dataclass_schema(schema))

    def typed_dict_schema(self, schema: core_schema.TypedDictSchema) -> JsonSchemaValue:
        """Closed, unless the dict keeps extra properties."""
        return _closed(super().typed_dict_schema(schema))

    def dict_schema(self, schema: core_schema.DictSchema) -> JsonSchemaValue:
        """Keys are what the key's type reads from a string."""
        if "keys_schema" not in schema:
            return super().dict_schema(schema)
        if schema.get("min_length", 0) > 1:
            self._check_told_apart(schema["keys_schema"])
        keys = self.resolve_ref_schema(self.generate_inner(schema["keys_schema"]))
        values = self.generate_inner(schema["values_schema"]) if "values_schema" in schema else {}
        json_schema = {"type": "object", **_named(keys, values)}
        self.update_with_validations(json_schema, schema, self.ValidationsMapping.object)
        return json_schema

    def ordered_dict_schema(self, schema: Any) -> JsonSchemaValue:
        """As a dict."""
        return self.dict_schema(schema)

    def counter_schema(self, schema: Any) -> JsonSchemaValue:
        """As a dict."""
        return self.dict_schema(schema)

    def frozendict_schema(self, schema: Any) -> JsonSchemaValue:
        """As a dict."""
        return self.dict_schema(schema)

    def definitions_schema(self, schema: core_schema.DefinitionsSchema) -> JsonSchemaValue:
        """As pydantic has it; what is defined is kept."""
        self.cores = {**self.cores, **{str(each.get("ref")): each for each in schema["definitions"]}}
        return super().definitions_schema(schema)

    def set_schema(self, schema: core_schema.SetSchema) -> JsonSchemaValue:
        """A list; what it says twice is in the set once."""
        return self._with_repeats(super().set_schema(schema), schema)

    def frozenset_schema(self, schema: core_schema.FrozenSetSchema) -> JsonSchemaValue:
        """A list; what it says twice is in the set once."""
        return self._with_repeats(super().frozenset_schema(schema), schema)

    def _with_repeats(self, json_schema: JsonSchemaValue, core: Any) -> JsonSchemaValue:
        # With a least length, repeats would not do.
        if core.get("min_length", 0) > 1:
            self._check_told_apart(core.get("items_schema", {"type": "any"}))
            return json_schema
        return {key: value for key, value in json_schema.items() if key != "uniqueItems"}

    def _check_told_apart(self, core: Any) -> None:
        config = self._config
        keeps_strings = not (config.str_strip_whitespace or config.str_to_lower or config.str_to_upper)
        check_told_apart(core, self.cores, keeps_strings=keeps_strings)

    def tagged_union_schema(self, schema: core_schema.TaggedUnionSchema) -> JsonSchemaValue:
        """One of the branches, with its tag; tags tell them apart, so that any of them is exactly one."""
        json_schema = super().tagged_union_schema(schema)
        tag = json_schema.pop("discriminator", {}).get("propertyName")
        if tag is None:
            refuse("a union whose branches are told apart by no property's name")
        branches = json_schema.pop("oneOf")
        return {**json_schema, "anyOf": [_with_tag(each, tag) for each in branches]}

    # Values.

    def literal_schema(self, schema: core_schema.LiteralSchema) -> JsonSchemaValue:
        """Of values that JSON has."""
        for value in schema["expected"]:
            _check_json_value(value.value if isinstance(value, enum.Enum) else value)
        return super().literal_schema(schema)

    def enum_schema(self, schema: core_schema.EnumSchema) -> JsonSchemaValue:
        """Of values that JSON has."""
        for member in schema["members"]:
            _check_json_value(member.value)
        if not schema["members"]:
            refuse(f"the enum {schema['cls'].__name__} has no members")
        return super().enum_schema(schema)

    def str_schema(self, schema: core_schema.StringSchema) -> JsonSchemaValue:
        """With all that pydantic asks of a string, and its pattern read as pydantic reads it."""
        json_schema = super().str_schema(schema)
        if has_other_meaning(json_schema.get("pattern", "")):
            refuse(f"the pattern {json_schema['pattern']} has operators that JSON Schema has not")
        strips = schema.get("strip_whitespace", self._config.str_strip_whitespace)
        rules = string_rules(json_schema, strips=bool(strips), is_ascii=bool(schema.get("ascii_only")))
        all_of = [{"pattern": pattern} for pattern in rules]
        return {**json_schema, "allOf": all_of} if all_of else json_schema

    def decimal_schema(self, schema: core_schema.DecimalSchema) -> JsonSchemaValue:
        """A number; pydantic would take a string as well, but not any."""
        places, digits = schema.get("decimal_places"), schema.get("max_digits")
        if digits is not None and (places is None or places >= digits):
            refuse("max_digits is said by a schema only with decimal_places, and where it is more than these")
        number: JsonSchemaValue = super().decimal_schema(schema)["anyOf"][0]
        rules = decimal_rules(places, digits)
        return {**_exactly(number, schema), **({"allOf": [rules]} if rules else {})}

    def fraction_schema(self, schema: Any) -> JsonSchemaValue:
        """A number; pydantic would take a string as well, but not any."""
        number: JsonSchemaValue = super().fraction_schema(schema)["anyOf"][0]
        return _exactly(number, schema)

    def date_schema(self, schema: core_schema.DateSchema) -> JsonSchemaValue:
        """Within its bounds."""
        first, last = datetime.date.min, datetime.date.max
        low, high = (_day_in(schema, plain, exclusive, sign) for plain, exclusive, sign in _DAY_BOUNDS)
        json_schema = {"type": "string", "format": "date"}
        if low is None and high is None:
            return json_schema
        if (low or first) > (high or last):
            refuse("no date lies within its bounds")
        return {**json_schema, "pattern": date_pattern(low or first, high or last)}

    def time_schema(self, schema: core_schema.TimeSchema) -> JsonSchemaValue:
        """With a zone, as the format has it."""
        _check_unbounded(schema)
        return {"type": "string", "format": "time"}

    def datetime_schema(self, schema: core_schema.DatetimeSchema) -> JsonSchemaValue:
        """With a zone, as the format has it."""
        _check_unbounded(schema)
        return {"type": "string", "format": "date-time"}

    def timedelta_schema(self, schema: core_schema.TimedeltaSchema) -> JsonSchemaValue:
        """A duration of a length that a timedelta can have."""
        _check_unbounded(schema)
        return {"type": "string", "pattern": DURATION}

    def url_schema(self, schema: core_schema.UrlSchema) -> JsonSchemaValue:
        """With one of the schemes that are allowed (http and https where all are) and a host's name."""
        url = {key: value for key, value in super().url_schema(schema).items() if key != "format"}
        return {**url, "pattern": url_pattern(schema.get("allowed_schemes") or ["https", "http"])}

    def multi_host_url_schema(self, schema: core_schema.MultiHostUrlSchema) -> JsonSchemaValue:
        """Refused: no format says what it is."""
        return self.handle_invalid_for_json_schema(schema, "URLs of many hosts")

    def bytes_schema(self, schema: core_schema.BytesSchema) -> JsonSchemaValue:
        """Refused: lengths are counted in bytes, and encodings are not checked."""
        return self.handle_invalid_for_json_schema(schema, "bytes")

    def json_schema(self, schema: core_schema.JsonSchema) -> JsonSchemaValue:
        """Refused: a string in which a JSON text is quoted."""
        return self.handle_invalid_for_json_schema(schema, "JSON inside of a string (take the type that it is read as)")

    def complex_schema(self, schema: core_schema.ComplexSchema) -> JsonSchemaValue:
        """Refused: no format says what a complex number is."""
        return self.handle_invalid_for_json_schema(schema, "complex numbers")

    def generator_schema(self, schema: core_schema.GeneratorSchema) -> JsonSchemaValue:
        """Refused: its items would be validated only when they are taken."""
        return self.handle_invalid_for_json_schema(schema, "iterators")

    def is_subclass_schema(self, schema: core_schema.IsSubclassSchema) -> JsonSchemaValue:
        """Refused: a class is no JSON."""
        return self.handle_invalid_for_json_schema(schema, "classes")


def _closed(schema: JsonSchemaValue) -> JsonSchemaValue:
    is_open = schema.get("type") == "object" and "additionalProperties" not in schema
    return {**schema, "additionalProperties": False} if is_open else schema


def _with_tag(schema: JsonSchemaValue, tag: str) -> JsonSchemaValue:
    # A tag that has a default is not required by the branch itself, yet nothing else says which branch it is.
    return {**schema, "required": [*schema.get("required", ()), tag]}


def _check_json_value(value: object) -> None:
    if not (value is None or isinstance(value, (str, int, float))):
        refuse(f"{value!r} is not a string, number, boolean or null")


def _exactly(number: JsonSchemaValue, core: Any) -> JsonSchemaValue:
    """The schema of a decimal or fraction, whose bounds JSON Schema has as floats."""
    for name in _NUMBER_BOUNDS:
        if name in core and Fraction(repr(float(core[name]))) != Fraction(core[name]):
            refuse(f"{name} is {core[name]}, which no number of JSON is exactly")
    return number


def _check_unbounded(core: Any) -> None:
    if core.get("tz_constraint") not in (None, "aware"):
        refuse("times without a zone, or with a fixed one, have no format of their own")
    bounds = [name for name in ("gt", "ge", "lt", "le", "now_op") if name in core]
    if bounds:
        refuse("times and durations with bounds have no format of their own; only dates may have them")


def _day_in(core: Any, plain: str, exclusive: str, sign: int) -> datetime.date | None:
    """The first (sign 1) or last (-1) day that may be written."""
    days = [core[plain]] if plain in core else []
    days += [_next_day(core[exclusive], sign)] if exclusive in core else []
    if core.get("now_op") == ("future" if sign > 0 else "past"):
        days.append(datetime.datetime.now(datetime.UTC).date() + sign * _SAFE_DAYS)
    return None if not days else max(days) if sign > 0 else min(days)


def _next_day(day: datetime.date, sign: int) -> datetime.date:
    if day == (datetime.date.max if sign > 0 else datetime.date.min):
        refuse("no date lies within its bounds")
    return day + sign * datetime.timedelta(days=1)


def _named(keys: JsonSchemaValue, values: JsonSchemaValue) -> JsonSchemaValue:
    """Properties whose names are such keys."""
    names = keys.get("enum", [keys["const"]] if "const" in keys else None)
    if names is not None and all(isinstance(name, str) for name in names):
        return {"properties": dict.fromkeys(names, values), "additionalProperties": False}
    if keys.get("type") == "integer" and not keys.keys() - {"type", "title"}:
        return {"patternProperties": {_WHOLE_NUMBER: values}, "additionalProperties": False}
    if keys.get("type", "string") != "string":
        refuse(f"keys can be strings, integers or members of a Literal or Enum of strings, not {keys}")
    asked = {keyword: value for keyword, value in keys.items() if keyword not in ("type", "title")}
    if asked.keys() == {"pattern"}:
        return {"patternProperties": {keys["pattern"]: values}, "additionalProperties": False}
    return {"additionalProperties": values or True, **({"propertyNames": asked} if asked else {})}
