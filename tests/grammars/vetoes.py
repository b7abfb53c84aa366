"""What the tests of the veto share: what is vetoed where, schemas and values, and the independent second opinion."""

from collections.abc import Iterator, Sequence
from typing import Any

import jsonschema
from hypothesis import strategies as st

from engine.errors import VetoError
from engine.grammars.schema_places import child
from engine.grammars.schema_walk import words
from engine.grammars.veto import OpenValue, Veto
from tests.grammars.turns import written

# Left to the veto in these tests. Without one of the first, the second say nothing, so all are left together.
VETOED = words(
    "uniqueItems contains minContains maxContains not if then else dependentSchemas dependentRequired oneOf "
    "propertyNames unevaluatedProperties unevaluatedItems minProperties maxProperties"
)
_MAPS = ("properties", "patternProperties", "$defs")
_LISTS = ("allOf", "anyOf", "prefixItems")
_ONES = ("items", "additionalProperties")


def vetoed_in(schema: Any, where: str = "") -> Iterator[str]:
    """The pointers of the vetoed keywords, outermost ones only."""
    if not isinstance(schema, dict):
        return
    for keyword, value in schema.items():
        inner = child(where, keyword)
        if keyword in VETOED:
            yield inner
        elif keyword in _MAPS:
            yield from (found for name, each in value.items() for found in vetoed_in(each, child(inner, name)))
        elif keyword in _LISTS:
            yield from (found for n, each in enumerate(value) for found in vetoed_in(each, child(inner, str(n))))
        elif keyword in _ONES:
            yield from vetoed_in(value, inner)


def without_vetoed(schema: Any) -> Any:
    """What is left for the grammar: a schema that every valid value satisfies."""
    if not isinstance(schema, dict):
        return schema
    left: dict[str, Any] = {}
    for keyword, value in schema.items():
        if keyword in _MAPS:
            left[keyword] = {name: without_vetoed(each) for name, each in value.items()}
        elif keyword in _LISTS:
            left[keyword] = [without_vetoed(each) for each in value]
        elif keyword not in VETOED:
            left[keyword] = without_vetoed(value) if keyword in _ONES else value
    return left


def veto_of(schema: Any) -> Veto:
    return Veto(schema, frozenset(vetoed_in(schema)))


def is_valid(schema: Any, value: Any) -> bool:
    """The independent second opinion."""
    kind = jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)
    return bool(kind(schema).is_valid(value))


def refused_at(veto: Veto, text: str) -> int | None:
    """The position of the character that is vetoed; the text's length if only its end is; None if nothing is.

    The text may be the beginning of one.
    """
    value = veto.start()
    for position, character in enumerate(text):
        try:
            value.feed(character)
        except VetoError:
            return position
    try:
        if value.is_open_number:
            value.finish()
    except VetoError:
        return len(text)
    return None


def passes(veto: Veto, pieces: Sequence[str]) -> bool:
    value = veto.start()
    try:
        for piece in pieces:
            value.feed(piece)
        value.finish()
    except VetoError:
        return False
    return True


def written_up_to(veto: Veto, text: str) -> OpenValue:
    value = veto.start()
    value.feed(text)
    return value


# --- Random schemas and values, small enough to meet

NAMES = ("a", "b", "ab")
LEAVES: list[Any] = [None, True, False, 0, 1, 1.0, 2, "", "a", "b", [], [1], {}, {"a": 1}]
VALUES = st.recursive(
    st.sampled_from(LEAVES),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=3),
    max_leaves=8,
)
SCALAR_SCHEMAS: st.SearchStrategy[Any] = st.sampled_from(
    [
        {"type": "boolean"},
        {"type": "integer", "minimum": 0, "maximum": 3},
        {"type": "string", "maxLength": 2},
        {"enum": ["a", "b", 1]},
        {"enum": [True, None, 0]},
        {"const": "a"},
        {"type": ["boolean", "null"]},
    ]
)
TESTS: st.SearchStrategy[Any] = SCALAR_SCHEMAS | st.sampled_from(
    [
        True,
        {"type": "array"},
        {"type": "object"},
        {"required": ["a"]},
        {"required": ["b"]},
        {"maxItems": 1},
        {"properties": {"a": {"const": 1}}, "required": ["a"]},
        {"maxProperties": 1},
    ]
)


def arrays(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.fixed_dictionaries(
        {"type": st.just("array"), "maxItems": st.integers(0, 3)},
        optional={
            "items": inner,
            "prefixItems": st.lists(inner, min_size=1, max_size=2),
            "minItems": st.integers(0, 2),
            "uniqueItems": st.booleans(),
            "contains": TESTS,
            "minContains": st.integers(0, 2),
            "maxContains": st.integers(0, 2),
        },
    )


def objects(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.fixed_dictionaries(
        {"type": st.just("object"), "properties": st.dictionaries(st.sampled_from(NAMES), inner, max_size=3)},
        optional={
            "required": st.lists(st.sampled_from(NAMES), max_size=2, unique=True),
            "additionalProperties": st.just(False) | inner,
            "patternProperties": st.dictionaries(st.sampled_from(["^a", "b$"]), inner, max_size=1),
            "propertyNames": st.just({"maxLength": 1}),
            "dependentRequired": st.just({"a": ["b"]}),
            "dependentSchemas": st.fixed_dictionaries({"a": TESTS}),
            "maxProperties": st.integers(1, 2),
        },
    )


def with_tests(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """The schemas, some with conditions on the same value."""
    conditions = st.fixed_dictionaries({}, optional={"not": TESTS, "if": TESTS, "then": TESTS, "else": TESTS})
    return inner | st.tuples(inner, conditions).map(lambda pair: {**pair[0], **pair[1]})


def unions(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.builds(
        lambda keyword, branches: {keyword: branches},
        st.sampled_from(["anyOf", "oneOf", "allOf"]),
        st.lists(inner, min_size=1, max_size=2),
    )


REFERENCE = {"$ref": "#/$defs/d"}
SCHEMAS = st.builds(
    lambda schema, definition: {**schema, "$defs": {"d": definition}},
    st.recursive(
        with_tests(SCALAR_SCHEMAS) | st.just(REFERENCE),
        lambda inner: with_tests(arrays(inner) | objects(inner)) | unions(inner),
        max_leaves=4,
    ),
    with_tests(SCALAR_SCHEMAS | arrays(SCALAR_SCHEMAS) | objects(SCALAR_SCHEMAS | st.just({"type": "object"}))),
)


@st.composite
def near_values(draw: st.DrawFn, schema: Any, definition: Any) -> Any:
    """A value that satisfies much of the schema, but seldom what is vetoed in it on purpose."""
    if not isinstance(schema, dict) or draw(st.integers(0, 15)) == 0:
        return draw(VALUES)
    if "$ref" in schema:
        return draw(near_values(definition, definition))
    branches = schema.get("anyOf", schema.get("oneOf", schema.get("allOf")))
    if branches:
        return draw(near_values(draw(st.sampled_from(branches)), definition))
    if schema.get("type") == "array":
        return [draw(near_values(each, definition)) for each in _items(schema, draw(st.integers(0, 3)))]
    if schema.get("type") == "object":
        names = draw(st.permutations([*{*schema.get("required", []), *draw(st.lists(st.sampled_from(NAMES)))}]))
        rest = schema.get("additionalProperties", True)
        return {name: draw(near_values(schema.get("properties", {}).get(name, rest), definition)) for name in names}
    return draw(st.sampled_from([each for each in LEAVES if is_valid(without_vetoed(schema), each)]))


def _items(schema: Any, num_items: int) -> list[Any]:
    first = schema.get("prefixItems", [])
    return [*first, *[schema.get("items", True)] * 3][: max(num_items, schema.get("minItems", 0))]


SCHEMAS_AND_VALUES = SCHEMAS.flatmap(
    lambda schema: st.tuples(st.just(schema), near_values(schema, schema["$defs"]["d"]))
)


def ends(value: Any, start: int = 0) -> dict[tuple[str | int, ...], int]:
    """Where each value within the value has its last character, in a text in our style, by path."""
    found: dict[tuple[str | int, ...], int] = {(): start + len(written(value)) - 1}
    members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    position = start + len("[")
    for key, member in members:
        position += len(written(key)) + len(": ") if isinstance(key, str) else 0
        found |= {(key, *path): end for path, end in ends(member, position).items()}
        position += len(written(member)) + len(", ")
    return found
