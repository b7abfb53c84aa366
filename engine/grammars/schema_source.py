"""A schema of any draft, written anew as one of draft 2020-12 with assertions only: the source.

It is what a value must satisfy, word for word: validators and the grammar are both built from it. References in it are
JSON pointers from its root. Annotations are left out, and named in the receipt.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any
from urllib.parse import quote

from engine.checks import is_number, is_text, json_text, shown
from engine.errors import SchemaError, UnenforceableError
from engine.events import Enforcement, ReceiptEntry
from engine.grammars.schema_closing import closed, combines, may_close, merges_definitions
from engine.grammars.schema_dialects import DRAFT_2020_12, Dialect, check_written, dialect_of
from engine.grammars.schema_formats import BASE64, FORMATS, NUMBER_FORMATS
from engine.grammars.schema_limits import SchemaLimits
from engine.grammars.schema_literals import MAX_EXACT, literal
from engine.grammars.schema_patterns import canonical
from engine.grammars.schema_references import Keys, References, check_ends
from engine.grammars.schema_walk import (
    IN_PLACE,
    LIST_OF_SCHEMAS,
    MAP_OF_SCHEMAS,
    ONE_SCHEMA,
    child_path,
    child_pointer,
    refusal,
    unenforceable,
    words,
)
from engine.types import JsonObject

AS_IT_IS = words("type required minProperties maxProperties uniqueItems minContains maxContains")
NUMBERS = words("minimum maximum exclusiveMinimum exclusiveMaximum")
LENGTHS = words("minLength maxLength minItems maxItems minProperties maxProperties minContains maxContains")
NO_ASSERTION = "not an assertion"
CLOSED = "closed: properties that it does not name cannot be written"
REFERENCES = words("$ref $dynamicRef $recursiveRef")
SILENT = words("$schema $id id $anchor $dynamicAnchor $recursiveAnchor $vocabulary")  # found by what looks for them
NEEDS = {  # these assert something beside these only
    "then": "if",
    "else": "if",
    "minContains": "contains",
    "maxContains": "contains",
}
# A bound beyond what is exact may move to there, if that only admits less: keyword -> where it may move.
EXACT_BOUNDS = dict.fromkeys(("minimum", "exclusiveMinimum"), -MAX_EXACT)
EXACT_BOUNDS |= dict.fromkeys(("maximum", "exclusiveMaximum"), MAX_EXACT)


@dataclass(frozen=True, slots=True)
class Options:
    """What the caller asked of a schema."""

    close_objects: bool = False
    lenient: bool = False  # drop what cannot be enforced, and say so
    strict_formats: bool = False  # refuse formats that no draft knows


@dataclass(frozen=True, slots=True)
class Source:
    """schema: of draft 2020-12. origins: pointers into it -> paths of what the caller wrote."""

    schema: dict[str, Any] | bool
    origins: Mapping[str, str]
    entries: tuple[ReceiptEntry, ...]
    patterns: Mapping[str, str]  # path -> regex

    def path_of(self, pointer: str) -> str:
        """The caller's path of the nearest thing that the caller wrote."""
        while pointer not in self.origins:
            pointer = pointer.rpartition("/")[0]
        return self.origins[pointer]


def read_source(schema: Any, path: str, options: Options, limits: SchemaLimits) -> Source:
    """Raises SchemaError that names what is wrong, or cannot be enforced, by path."""
    check_size(schema, path, limits)
    return _Writer(schema, path, options, limits).write()


def check_size(schema: Any, path: str, limits: SchemaLimits) -> None:
    """Raises SchemaError that names the bound, and for what is no JSON."""
    limits.check_depth(schema, path)
    limits.check("max_bytes", len(json_text(path, schema, error=SchemaError).encode()), path)


def is_annotation(keyword: str) -> bool:
    """Whether the keyword asserts nothing, wherever it stands, and nothing looks for it."""
    return keyword not in WRITERS and keyword not in SILENT


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the walk is: in the caller's schema by keys and path, in the source by pointer."""

    keys: Keys
    path: str
    pointer: str = ""
    merged: bool = False  # another schema says more about the same value
    negated: bool = False  # or counted, or a condition: less is not always narrower here

    def inside(self, key: str | int, written: str | int | None = None) -> "_Place":
        pointer = child_pointer(self.pointer, key if written is None else written)
        return replace(self, keys=(*self.keys, key), path=child_path(self.path, key), pointer=pointer)


@dataclass(slots=True)
class _Writer:
    """One pass over one schema."""

    root: Any
    path: str
    options: Options
    limits: SchemaLimits
    entries: list[ReceiptEntry] = field(default_factory=list)
    origins: dict[str, str] = field(default_factory=dict)
    patterns: dict[str, str] = field(default_factory=dict)
    pointers: dict[Keys, str] = field(default_factory=dict)  # where the schemas that were read are written
    pending: list[tuple[dict[str, Any], Keys]] = field(default_factory=list)  # references to where they lead
    dialect: Dialect = DRAFT_2020_12
    references: References = field(init=False)
    closes: bool = False
    merges: bool = False

    def write(self) -> Source:
        self.dialect = dialect_of(self.root, self.path)
        self.references = References(self.root, self.dialect)
        self.closes = self.options.close_objects and may_close(self.root)
        self.merges = merges_definitions(self.root)
        schema = self.schema(self.root, _Place((), self.path))
        self.point(schema)
        if isinstance(schema, dict):
            check_ends(schema, self.origins, self.path)
            schema = {"$schema": DRAFT_2020_12.metaschema, **schema}
        return Source(schema, self.origins, tuple(self.entries), self.patterns)

    def point(self, root: Any) -> None:
        """Let every reference lead to where its schema is written; write those that no keyword holds."""
        while self.pending:
            holder, keys = self.pending.pop()
            if keys not in self.pointers:
                name = f"{keys[-1]}-{len(self.pointers)}"
                path = self.path
                for key in keys:
                    path = child_path(path, key)
                place = _Place(keys, path, child_pointer("/$defs", name), merged=self.merges)
                found = self.references.at(keys)
                if not isinstance(found, bool):
                    check_written(found, path, self.dialect)
                root.setdefault("$defs", {})[name] = self.schema(found, place)
            holder["$ref"] = "#" + quote(self.pointers[keys], safe="/~!$&'()*+,;=:@")

    def schema(self, schema: Any, place: _Place) -> Any:
        self.pointers[place.keys] = place.pointer
        self.origins[place.pointer] = place.path
        if isinstance(schema, bool):
            return schema
        if not self.dialect.unknown.isdisjoint(place.keys[-2:]):  # a keyword, or one with a name or position in it
            check_written(schema, place.path, self.dialect)
        written: dict[str, Any] = {}
        inner = replace(place, merged=place.merged or combines(schema))
        for keyword, value in self.without_ignored(schema, place).items():
            self.keyword(written, schema, keyword, value, inner)
        if self.closes and not inner.merged and not place.negated and (narrow := closed(written)):
            self.note(place.path, Enforcement.NARROWED, CLOSED)
            return narrow
        return written

    def without_ignored(self, schema: JsonObject, place: _Place) -> JsonObject:
        """The keywords that say something in this draft, where they stand."""
        ignored = {keyword for keyword, partner in NEEDS.items() if partner not in schema}
        if not isinstance(schema.get("items"), list):
            ignored.add("additionalItems")
        ignored |= self.only_newer(schema)
        if self.dialect.ref_stands_alone and isinstance(schema.get("$ref"), str):
            ignored |= schema.keys() - {"$ref", "$defs", "definitions"} - SILENT
        for keyword in schema:
            if keyword in ignored:
                reason = f"asserts nothing here, as draft {self.dialect.name} says"
                self.note(child_path(place.path, keyword), Enforcement.ANNOTATION, reason)
        return {keyword: value for keyword, value in schema.items() if keyword not in ignored}

    def only_newer(self, schema: JsonObject) -> set[str]:
        """Keywords of newer drafts that would take from what this draft asks. Others of them only ask for more."""
        found = {"prefixItems"} if "items" in schema else set()
        found |= {"minContains"} if schema.get("minContains") == 0 else set()
        return found & self.dialect.newer & schema.keys()

    def keyword(self, written: dict[str, Any], schema: JsonObject, keyword: str, value: Any, place: _Place) -> None:
        here = place.inside(keyword)
        self.origins[here.pointer] = here.path
        writer = WRITERS.get(keyword)
        if not _has_shape(keyword, value):  # a keyword that the draft does not know, and so does not check
            raise refusal(here.path, f"{shown(value)} is no value of this keyword")
        try:
            if writer is not None:
                writer(self, written, keyword, value, here, schema)
            elif keyword not in SILENT:
                self.note(here.path, Enforcement.ANNOTATION, NO_ASSERTION)
        except UnenforceableError as error:
            if not self.options.lenient or place.negated:
                raise
            self.note(error.param, Enforcement.LENIENT, str(error).removeprefix(f"{error.param}: "))

    def note(self, path: str, enforcement: Enforcement, detail: str) -> None:
        self.entries.append(ReceiptEntry(path, enforcement, detail))

    # --- Keywords that hold schemas

    def one_schema(self, written: dict[str, Any], keyword: str, value: Any, place: _Place, schema: JsonObject) -> None:
        if isinstance(value, list):
            self.list_of_schemas(
                written, "prefixItems", value, replace(place, pointer=_sibling(place, "prefixItems")), schema
            )
            return
        negated = place.negated or keyword in ("not", "if", "contains", "propertyNames")
        in_place = keyword in IN_PLACE
        name = "items" if keyword == "additionalItems" else keyword
        inner = replace(place, merged=in_place, negated=negated, pointer=_sibling(place, name))
        written[name] = self.schema(value, inner)

    def list_of_schemas(
        self, written: dict[str, Any], keyword: str, value: Any, place: _Place, schema: JsonObject
    ) -> None:
        inner = replace(place, merged=place.merged and keyword in IN_PLACE)
        schemas = [self.schema(each, inner.inside(position)) for position, each in enumerate(value)]
        written[keyword] = schemas + (written.get("allOf", []) if keyword == "allOf" else [])
        if keyword in ("oneOf", "anyOf"):
            self.discriminate(written[keyword], value, place, schema)

    def map_of_schemas(
        self, written: dict[str, Any], keyword: str, value: Any, place: _Place, _schema: JsonObject
    ) -> None:
        if keyword == "properties":
            self.limits.check("max_properties", len(value), place.path)
        merged = self.merges if keyword in ("$defs", "definitions") else keyword == "dependentSchemas"
        found: dict[str, Any] = written.get(keyword, {})  # where `dependencies` says the same as dependentSchemas
        for name, each in value.items():
            inner = replace(place, merged=merged).inside(name)
            key = name
            if keyword == "patternProperties":
                key = self.pattern(name, inner.path)
                inner = replace(inner, pointer=child_pointer(place.pointer, key))
            found[key] = self.both(found[key], self.schema(each, inner)) if key in found else self.schema(each, inner)
        written[keyword] = found

    @staticmethod
    def both(one: Any, other: Any) -> Any:
        return {"allOf": [one, other]}

    def dependencies(
        self, written: dict[str, Any], _keyword: str, value: Any, place: _Place, schema: JsonObject
    ) -> None:
        names = {name: each for name, each in value.items() if isinstance(each, list)}
        if names:
            self.origins[_sibling(place, "dependentRequired")] = place.path
            self.needed_names(written, "dependentRequired", names, place, schema)
        schemas = {name: each for name, each in value.items() if not isinstance(each, list)}
        if schemas:
            inner = replace(place, pointer=_sibling(place, "dependentSchemas"))
            self.origins[inner.pointer] = place.path
            self.map_of_schemas(written, "dependentSchemas", schemas, inner, schema)

    def needed_names(
        self, written: dict[str, Any], keyword: str, value: Any, _place: _Place, _schema: JsonObject
    ) -> None:
        """Also those that `dependencies` names beside dependentRequired."""
        known = written.get(keyword, {})
        both = {name: [*known.get(name, ()), *value.get(name, ())] for name in (*known, *value)}
        written[keyword] = {name: list(dict.fromkeys(needed)) for name, needed in both.items()}

    def discriminate(self, written: list[Any], branches: list[Any], place: _Place, schema: JsonObject) -> None:
        """Let each branch have the tags that the discriminator's mapping gives to it."""
        discriminator = schema.get("discriminator")
        mapping = discriminator.get("mapping") if isinstance(discriminator, dict) else None
        name = discriminator.get("propertyName") if isinstance(discriminator, dict) else None
        if not isinstance(mapping, dict) or not isinstance(name, str) or place.negated:
            return
        for position, branch in enumerate(branches):
            reference = branch.get("$ref") if isinstance(branch, dict) else None
            tags = [tag for tag, target in mapping.items() if target == reference]
            if tags:
                tagged = {"properties": {name: {"enum": tags}}, "required": [name]}
                written[position] = {"allOf": [written[position], tagged]}
                self.move(f"{place.pointer}/{position}", f"{place.pointer}/{position}/allOf/0")
                self.note(
                    place.inside(position).path,
                    Enforcement.NARROWED,
                    f"{name} is one of its mapped names, as OpenAPI has it",
                )

    def move(self, old: str, new: str) -> None:
        """What was written at one pointer stands at another now."""
        for table in (self.origins,):
            moved = {
                pointer: path for pointer, path in table.items() if pointer == old or pointer.startswith(f"{old}/")
            }
            table |= {new + pointer[len(old) :]: path for pointer, path in moved.items()}
        for keys, pointer in self.pointers.items():
            if pointer == old or pointer.startswith(f"{old}/"):
                self.pointers[keys] = new + pointer[len(old) :]

    def reference(self, written: dict[str, Any], keyword: str, value: str, place: _Place, _: JsonObject) -> None:
        if keyword != "$ref":
            value = self.references.dynamic(value, place.path)
        keys = self.references.resolve(value, place.keys[:-1])
        if keys is None or not self.references.is_schema(keys):
            raise unenforceable(place.path, f"{value!r} leads to no schema in here; nothing is fetched")
        holder = written
        if "$ref" in written or keyword != "$ref":
            holder = {}
            written.setdefault("allOf", []).append(holder)
        holder["$ref"] = "#"
        self.pending.append((holder, keys))

    # --- Keywords that hold values

    def as_it_is(self, written: dict[str, Any], keyword: str, value: Any, place: _Place, schema: JsonObject) -> None:
        value = int(value) if keyword in LENGTHS else value
        if keyword in ("minLength", "minItems"):
            self.limits.check("max_length" if keyword == "minLength" else "max_items", value, place.path)
        if keyword == "type" and schema.get("nullable") is True:
            types = [value] if isinstance(value, str) else value
            value = types if "null" in types else [*types, "null"]
        if keyword != "uniqueItems" or value:
            written[keyword] = value

    def values(self, written: dict[str, Any], keyword: str, value: Any, place: _Place, _: JsonObject) -> None:
        if keyword == "enum":
            self.limits.check("max_enum", len(value), place.path)
        each = value if keyword == "enum" else [value]
        exact = [literal(one, place.path) for one in each]
        written[keyword] = exact if keyword == "enum" else exact[0]

    def number(self, written: dict[str, Any], keyword: str, value: Any, place: _Place, schema: JsonObject) -> None:
        if isinstance(value, bool):  # draft 4: whether the bound beside it is exclusive
            bound = {"exclusiveMinimum": "minimum", "exclusiveMaximum": "maximum"}[keyword]
            if value and bound in schema:
                written.pop(bound, None)
                self.number(written, keyword, schema[bound], place, {})
            return
        if schema.get({"minimum": "exclusiveMinimum", "maximum": "exclusiveMaximum"}.get(keyword, "")) is True:
            return
        if abs(value) <= MAX_EXACT:
            value = literal(value, place.path)
        elif value * EXACT_BOUNDS[keyword] > 0 and not place.negated:
            reason = f"moved to {EXACT_BOUNDS[keyword]}: larger numbers are not exact"
            self.note(place.path, Enforcement.NARROWED, reason)
        else:
            raise unenforceable(place.path, f"the number {value} cannot be held exactly")
        written[keyword] = value

    def multiple(self, written: dict[str, Any], keyword: str, value: Any, place: _Place, _: JsonObject) -> None:
        written[keyword] = literal(value, place.path)

    def pattern_keyword(self, written: dict[str, Any], _keyword: str, value: str, place: _Place, _: JsonObject) -> None:
        self.also(written, {"pattern": self.pattern(value, place.path)})

    def pattern(self, pattern: str, path: str) -> str:
        try:
            self.patterns[path] = canonical(pattern)
        except ValueError as error:
            raise unenforceable(path, str(error)) from None
        return self.patterns[path]

    def format(self, written: dict[str, Any], _keyword: str, value: str, place: _Place, schema: JsonObject) -> None:
        if value in NUMBER_FORMATS:
            self.also(written, NUMBER_FORMATS[value], beside=schema)
            if value == "int64":
                self.note(place.path, Enforcement.NARROWED, "between -9e18 and 9e18")
        elif value == "byte":
            self.also(written, {"pattern": canonical(BASE64)})
        elif value in FORMATS:
            written["format"] = value
        elif self.options.strict_formats:
            known = ", ".join(sorted({*FORMATS, *NUMBER_FORMATS, "byte"}))
            raise unenforceable(place.path, f"the format {value!r} is not known; allowed are {known}")
        else:
            self.note(place.path, Enforcement.ANNOTATION, f"the format {value!r} is not one of the draft's")

    def also(self, written: dict[str, Any], keywords: JsonObject, beside: JsonObject = MappingProxyType({})) -> None:
        """Add keywords; apart from others of their names where there are such, or will be."""
        if keywords.keys() & (written.keys() | beside.keys()):
            written.setdefault("allOf", []).append(dict(keywords))
        else:
            written.update(keywords)

    def nullable(self, _written: dict[str, Any], _keyword: str, value: Any, place: _Place, schema: JsonObject) -> None:
        if value is True and "type" in schema:
            self.note(place.path, Enforcement.GRAMMAR, "null is a value of this type too")
        else:
            self.note(place.path, Enforcement.ANNOTATION, NO_ASSERTION)


def _has_shape(keyword: str, value: Any) -> bool:
    """Whether the value is of the kind that the keyword has in the drafts that know it."""
    if keyword in ONE_SCHEMA:
        return isinstance(value, (dict, bool)) or (keyword == "items" and _all_schemas(value))
    if keyword in LIST_OF_SCHEMAS:
        return _all_schemas(value)
    if keyword in MAP_OF_SCHEMAS:
        may_list = keyword == "dependencies"  # names
        return isinstance(value, dict) and _all_schemas(
            [each for each in value.values() if not (may_list and isinstance(each, list))]
        )
    if keyword == "dependentRequired":
        return isinstance(value, dict) and all(
            isinstance(each, list) and all(map(is_text, each)) for each in value.values()
        )
    if keyword in REFERENCES:
        return isinstance(value, str)
    return keyword not in ("minContains", "maxContains") or (is_number(value) and value >= 0)


def _all_schemas(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, (dict, bool)) for each in value)


def _sibling(place: _Place, name: str) -> str:
    return child_pointer(place.pointer.rpartition("/")[0], name)


Writer = Callable[[_Writer, dict[str, Any], str, Any, _Place, JsonObject], None]
WRITERS: dict[str, Writer] = {
    **dict.fromkeys(ONE_SCHEMA, _Writer.one_schema),
    **dict.fromkeys(LIST_OF_SCHEMAS, _Writer.list_of_schemas),
    **dict.fromkeys(MAP_OF_SCHEMAS, _Writer.map_of_schemas),
    **dict.fromkeys(REFERENCES, _Writer.reference),
    **dict.fromkeys(AS_IT_IS | LENGTHS, _Writer.as_it_is),
    **dict.fromkeys(("const", "enum"), _Writer.values),
    **dict.fromkeys(NUMBERS, _Writer.number),
    "multipleOf": _Writer.multiple,
    "pattern": _Writer.pattern_keyword,
    "format": _Writer.format,
    "dependentRequired": _Writer.needed_names,
    "nullable": _Writer.nullable,
    "dependencies": _Writer.dependencies,
}
