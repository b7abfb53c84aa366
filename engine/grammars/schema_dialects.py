"""The drafts of JSON Schema: which one a schema is written in, and whether it is written as that draft asks."""

import functools
from dataclasses import dataclass
from typing import Any

import jsonschema_rs

from engine.checks import shown
from engine.grammars.schema_walk import child_path, refusal, words
from engine.types import JsonObject


@dataclass(frozen=True, slots=True)
class Dialect:
    """One draft, as far as drafts differ in what a schema means."""

    name: str
    metaschema: str
    validator: type[Any]
    id_keyword: str = "$id"
    ref_stands_alone: bool = False  # what stands beside $ref is ignored
    unknown: frozenset[str] = frozenset()  # keywords of other drafts that hold schemas; its metaschema checks none
    newer: frozenset[str] = frozenset()  # keywords of newer drafts that take from what is asked, beside others


DRAFT_2020_12 = Dialect("2020-12", "https://json-schema.org/draft/2020-12/schema", jsonschema_rs.Draft202012Validator)
DRAFT_2019_09 = Dialect(
    "2019-09",
    "https://json-schema.org/draft/2019-09/schema",
    jsonschema_rs.Draft201909Validator,
    unknown=words("prefixItems"),
    newer=words("prefixItems"),
)
DRAFT_7 = Dialect(
    "7",
    "http://json-schema.org/draft-07/schema",
    jsonschema_rs.Draft7Validator,
    ref_stands_alone=True,
    unknown=DRAFT_2019_09.unknown | words("$defs dependentSchemas unevaluatedItems unevaluatedProperties"),
    newer=words("prefixItems minContains"),
)
DRAFT_6 = Dialect(
    "6",
    "http://json-schema.org/draft-06/schema",
    jsonschema_rs.Draft6Validator,
    ref_stands_alone=True,
    unknown=DRAFT_7.unknown | words("if then else"),
    newer=words("prefixItems minContains"),
)
DRAFT_4 = Dialect(
    "4",
    "http://json-schema.org/draft-04/schema",
    jsonschema_rs.Draft4Validator,
    id_keyword="id",
    ref_stands_alone=True,
    unknown=DRAFT_6.unknown | words("contains propertyNames"),
    newer=words("prefixItems minContains"),
)
DIALECTS = (DRAFT_2020_12, DRAFT_2019_09, DRAFT_7, DRAFT_6, DRAFT_4)
UNDECLARED = (DRAFT_2020_12, DRAFT_7, DRAFT_4)  # what a schema may be that does not say

# Without scheme and '#'. The bare name means the newest; hyper-schemas assert what their drafts do.
BY_NAME = {dialect.metaschema.partition("://")[2]: dialect for dialect in DIALECTS}
BY_NAME |= {name.replace("/schema", "/hyper-schema"): dialect for name, dialect in BY_NAME.items()}
BY_NAME |= {"json-schema.org/schema": DRAFT_2020_12, "spec.openapis.org/oas/3.1/dialect/base": DRAFT_2020_12}


def dialect_of(schema: Any, path: str) -> Dialect:
    """The draft that the schema declares, or else the newest one that takes it.

    Raises SchemaError that names what is wrong by path.
    """
    if not isinstance(schema, dict) or "$schema" not in schema:
        faults = []
        for dialect in UNDECLARED:
            if (fault := _fault(schema, path, dialect)) is None:
                return dialect
            faults.append(fault)
        raise refusal(*faults[0])
    dialect = _declared(schema, path)
    check_written(schema, path, dialect)
    return dialect


def check_written(schema: Any, path: str, dialect: Dialect) -> None:
    """Raises SchemaError that names what is not written as the draft asks, by path."""
    if fault := _fault(schema, path, dialect):
        raise refusal(*fault)


def _declared(schema: JsonObject, path: str) -> Dialect:
    declared = schema["$schema"]
    name = declared.removesuffix("#").partition("://")[2] if isinstance(declared, str) else ""
    if name not in BY_NAME:
        known = ", ".join(dialect.metaschema for dialect in DIALECTS)
        raise refusal(child_path(path, "$schema"), f"{declared!r} is not supported; use one of {known}")
    return BY_NAME[name]


def _fault(schema: Any, path: str, dialect: Dialect) -> tuple[str, str] | None:
    """Where the schema is not written as the draft asks, and why; patterns and other formats are read elsewhere."""
    for error in _validator(dialect).iter_errors(schema):
        where = path
        for key in error.instance_path:
            where = child_path(where, key)
        return where, _reason(error)
    return None


def _reason(error: Any) -> str:
    """What the library says of a fault, with all that would be allowed."""
    kinds = jsonschema_rs.ValidationErrorKind
    if isinstance(error.kind, kinds.AnyOf):
        return "; or: ".join(dict.fromkeys(_reason(branch[0]) for branch in error.kind.context))
    if isinstance(error.kind, kinds.Enum):
        return f"{shown(error.instance)} is not one of {', '.join(map(str, error.kind.options))}"
    message: str = error.message
    return message


@functools.cache
def _validator(dialect: Dialect) -> Any:
    return dialect.validator({"$ref": dialect.metaschema}, validate_formats=False)
