"""The JSON schema of a Python type: pydantic's, narrowed to what pydantic's validation then takes.

Whatever the schema lets through, validation reads back. Rules that no schema says are the exception: validators that
are functions, bounds of dates, digits of decimals.
"""

import enum
from typing import Any, NoReturn

from pydantic.errors import PydanticInvalidForJsonSchema
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue, JsonSchemaWarningKind
from pydantic_core import core_schema

# Of days and less, and as many as a timedelta holds.
_TIME = r"T(?:[0-9]{1,8}H(?:[0-9]{1,8}M)?(?:_S)?|[0-9]{1,8}M(?:_S)?|_S)".replace("_S", r"[0-9]{1,8}(?:\.[0-9]{1,6})?S")
_DURATION = f"^P(?:[0-9]{{1,8}}D(?:{_TIME})?|{_TIME})$"
# A host in lower case whose last label has letters only: one that ends in digits would have to be an IPv4 address.
_HOST = r"(?:[a-z0-9]{1,20}(?:-[a-z0-9]{1,20})?\.){0,5}[a-z]{2,20}"
_AFTER_HOST = r"(?::[1-9][0-9]{0,3})?(?:/[A-Za-z0-9._~/-]{0,500})?(?:\?[A-Za-z0-9._~/=&+-]{0,500})?"
_WHOLE_NUMBER = "^(?:0|-?[1-9][0-9]{0,17})$"

_OCTET, _GROUP = "(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])", "[1-9a-f][0-9a-f]{0,3}"
# Networks have nothing set behind their prefix: those of whole octets, and of 64 bits.
_NETWORK = (
    rf"^(?:{_OCTET}\.0\.0\.0/8|(?:{_OCTET}\.){{2}}0\.0/16|(?:{_OCTET}\.){{3}}0/24|(?:{_OCTET}\.){{3}}{_OCTET}/32)$"
)
_NETWORK_6 = f"^{_GROUP}(?::{_GROUP}){{0,3}}::/64$"
_INTERFACE = rf"^(?:{_OCTET}\.){{3}}{_OCTET}(?:/(?:[12]?[0-9]|3[0-2]))?$"
_INTERFACE_6 = f"^{_GROUP}(?::{_GROUP}){{0,3}}::{_GROUP}(?:/64)?$"

# Formats of pydantic's own that are no annotations.
_OWN_FORMATS: dict[str, list[JsonSchemaValue]] = {
    "ipvanyaddress": [{"format": "ipv4"}, {"format": "ipv6"}],
    "ipv4network": [{"pattern": _NETWORK}],
    "ipv6network": [{"pattern": _NETWORK_6}],
    "ipvanynetwork": [{"pattern": _NETWORK}, {"pattern": _NETWORK_6}],
    "ipv4interface": [{"pattern": _INTERFACE}],
    "ipv6interface": [{"pattern": _INTERFACE_6}],
    "ipvanyinterface": [{"pattern": _INTERFACE}, {"pattern": _INTERFACE_6}],
    "base64": [{"format": "byte"}],
}


class TypeSchema(GenerateJsonSchema):
    """Raises PydanticInvalidForJsonSchema where a type's values cannot be told by any schema."""

    def emit_warning(self, kind: JsonSchemaWarningKind, detail: str) -> None:
        """A default that JSON cannot write needs not be written; a branch of a union is not left out in silence."""
        if kind == "skipped-choice":
            _refuse(detail)

    def generate_inner(self, schema: Any) -> JsonSchemaValue:
        """With formats that are enforced in place of those that only pydantic knows."""
        return _in_known_formats(super().generate_inner(schema))

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
        keys = self.resolve_ref_schema(self.generate_inner(schema["keys_schema"]))
        values = self.generate_inner(schema["values_schema"]) if "values_schema" in schema else {}
        json_schema = {"type": "object", **_named(keys, values)}
        self.update_with_validations(json_schema, schema, self.ValidationsMapping.object)
        return json_schema

    def set_schema(self, schema: core_schema.SetSchema) -> JsonSchemaValue:
        """A list; what it says twice is in the set once."""
        return _with_repeats(super().set_schema(schema))

    def frozenset_schema(self, schema: core_schema.FrozenSetSchema) -> JsonSchemaValue:
        """A list; what it says twice is in the set once."""
        return _with_repeats(super().frozenset_schema(schema))

    def tagged_union_schema(self, schema: core_schema.TaggedUnionSchema) -> JsonSchemaValue:
        """One of the branches, with its tag; tags tell them apart, so that any of them is exactly one."""
        json_schema = super().tagged_union_schema(schema)
        tag = json_schema.pop("discriminator", {}).get("propertyName")
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
            _refuse(f"the enum {schema['cls'].__name__} has no members")
        return super().enum_schema(schema)

    def decimal_schema(self, schema: core_schema.DecimalSchema) -> JsonSchemaValue:
        """A number; pydantic would take a string as well, but not any."""
        number: JsonSchemaValue = super().decimal_schema(schema)["anyOf"][0]
        return number

    def time_schema(self, schema: core_schema.TimeSchema) -> JsonSchemaValue:
        """With a zone, as the format has it."""
        return _with_zone(super().time_schema(schema), schema)

    def datetime_schema(self, schema: core_schema.DatetimeSchema) -> JsonSchemaValue:
        """With a zone, as the format has it."""
        return _with_zone(super().datetime_schema(schema), schema)

    def timedelta_schema(self, schema: core_schema.TimedeltaSchema) -> JsonSchemaValue:
        """A duration of a length that a timedelta can have."""
        return {"type": super().timedelta_schema(schema)["type"], "pattern": _DURATION}

    def url_schema(self, schema: core_schema.UrlSchema) -> JsonSchemaValue:
        """With one of the schemes that are allowed (http and https where all are) and a host's name."""
        schemes = "|".join(schema.get("allowed_schemes") or ("https", "http"))
        url = {key: value for key, value in super().url_schema(schema).items() if key != "format"}
        return {**url, "pattern": f"^(?:{schemes})://{_HOST}{_AFTER_HOST}$"}

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


def _refuse(reason: str) -> NoReturn:
    raise PydanticInvalidForJsonSchema(reason)


def _in_known_formats(schema: JsonSchemaValue) -> JsonSchemaValue:
    options = _OWN_FORMATS.get(schema.get("format", ""), [])
    if schema.get("type") != "string" or not options:
        return schema
    left = {keyword: value for keyword, value in schema.items() if keyword not in ("type", "format")}
    strings = [{"type": "string", **option} for option in options]
    return {**left, **strings[0]} if len(strings) == 1 else {**left, "anyOf": strings}


def _closed(schema: JsonSchemaValue) -> JsonSchemaValue:
    is_open = schema.get("type") == "object" and "additionalProperties" not in schema
    return {**schema, "additionalProperties": False} if is_open else schema


def _with_tag(schema: JsonSchemaValue, tag: str | None) -> JsonSchemaValue:
    # A tag that has a default is not required by the branch itself, yet nothing else says which branch it is.
    return schema if tag is None else {**schema, "required": [*schema.get("required", ()), tag]}


def _with_repeats(schema: JsonSchemaValue) -> JsonSchemaValue:
    # With a least length, repeats would not do.
    return schema if "minItems" in schema else {key: value for key, value in schema.items() if key != "uniqueItems"}


def _check_json_value(value: object) -> None:
    if not (value is None or isinstance(value, (str, int, float))):
        _refuse(f"{value!r} is not a string, number, boolean or null")


def _with_zone(schema: JsonSchemaValue, core: Any) -> JsonSchemaValue:
    if core.get("tz_constraint") not in (None, "aware"):
        _refuse("times without a zone, or with a fixed one, have no format of their own")
    return schema


def _named(keys: JsonSchemaValue, values: JsonSchemaValue) -> JsonSchemaValue:
    """Properties whose names are such keys."""
    names = keys.get("enum", [keys["const"]] if "const" in keys else None)
    if names is not None and all(isinstance(name, str) for name in names):
        return {"properties": dict.fromkeys(names, values), "additionalProperties": False}
    if keys.get("type") == "integer" and not keys.keys() - {"type", "title"}:
        return {"patternProperties": {_WHOLE_NUMBER: values}, "additionalProperties": False}
    if keys.keys() - {"type", "title", "pattern"} or keys.get("type", "string") != "string":
        _refuse(f"keys can be strings, integers or members of a Literal or Enum of strings, not {keys}")
    if "pattern" in keys:
        return {"patternProperties": {keys["pattern"]: values}, "additionalProperties": False}
    return {"additionalProperties": values or True}
