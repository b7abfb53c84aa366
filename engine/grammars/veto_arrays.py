"""What can be said of an array before it is complete.

Each check is exact: what it refuses, no ending can make valid.
"""

import itertools
import math
import operator
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from engine.errors import VetoError
from engine.grammars.json_stream import grown
from engine.grammars.schema_places import Place, Places, child
from engine.types import JsonObject

Satisfies = Callable[[str, Any], bool]
"""Whether a value satisfies the subschema at a pointer."""

Examples = Mapping[str, Sequence[Any]]
"""By the pointer of a keyword under veto: values that help to satisfy it."""

MAX_EXAMPLES = 2  # that are tried for one item

_FEW_VALUES = {"boolean": (True, False), "null": (None,)}  # all values of these types


class ArrayProgress(NamedTuple):
    """What counts of an open array's items. Never changed: a new one takes its place."""

    num_items: int = 0  # complete ones
    seen: tuple[frozenset[Hashable], ...] = ()  # equality keys of the items, in blocks; empty where they may repeat
    num_matching: tuple[int, ...] = ()  # items that satisfy each `contains`


class _Contains(NamedTuple):
    pointer: str
    least: float
    most: float


class ArrayRules:
    """What the subschemas at one place say of an array there. Immutable but for what it remembers."""

    def __init__(self, place: Place, places: Places, satisfies: Satisfies, examples: Examples) -> None:
        self._place = place
        self._places = places
        self._satisfies = satisfies
        schemas = place.schemas.values()
        self._is_unique = any(schema.get("uniqueItems") is True for schema in schemas)
        self._max_items = min((schema["maxItems"] for schema in schemas if "maxItems" in schema), default=math.inf)
        self._contains = tuple(self._all_contains())
        self._values: dict[Place, frozenset[Hashable] | None] = {}
        self._all_examples = examples
        unique = (child(where, "uniqueItems") for where in place.schemas)
        self._different = next((pointer for pointer in unique if pointer in examples), None)
        self._examples: dict[tuple[str, Place], list[Any]] = {}
        self.start = ArrayProgress(num_matching=(0,) * len(self._contains))

    def _all_contains(self) -> Iterator[_Contains]:
        for where, schema in self._place.schemas.items():
            if "contains" in schema:
                bounds = schema if self._places.bounds_contains else {}
                least, most = bounds.get("minContains", 1), bounds.get("maxContains", math.inf)
                yield _Contains(child(where, "contains"), least, most)

    def after(self, progress: ArrayProgress, item: Any) -> ArrayProgress:
        """The progress with a complete item. Raises VetoError where no array that begins so is valid."""
        seen = progress.seen
        if self._is_unique:
            key = equality_key(item)
            if _is_in(seen, key):
                raise VetoError(f"item {progress.num_items} of an array repeats an earlier one")
            seen = grown(seen, frozenset({key}), operator.or_)
        num_items = progress.num_items + 1
        pairs = zip(self._contains, progress.num_matching, strict=True)
        num_matching = tuple(num + self._satisfies(each.pointer, item) for each, num in pairs)
        for each, num in zip(self._contains, num_matching, strict=True):
            if num > each.most:
                raise VetoError(f"more than {each.most} items satisfy #{each.pointer}")
            if each.least - num > self._max_items - num_items:
                raise VetoError(f"fewer than {each.least} items can still satisfy #{each.pointer}")
        return ArrayProgress(num_items, seen, num_matching)

    def lacks(self, progress: ArrayProgress) -> Iterator[Any]:
        """Items that would bring the array nearer to what a `contains` asks for, if it does not have that yet."""
        for each, num in zip(self._contains, progress.num_matching, strict=True):
            if num < each.least and each.pointer in self._all_examples:
                yield from itertools.islice(self._unused(each.pointer, progress), MAX_EXAMPLES)

    def next_items(self, progress: ArrayProgress) -> Iterator[Any]:
        """What the next item had better be, as far as examples are known."""
        yield from self.lacks(progress)
        if self._different is not None:
            yield from itertools.islice(self._unused(self._different, progress), MAX_EXAMPLES)

    def _unused(self, pointer: str, progress: ArrayProgress) -> Iterator[Any]:
        examples = self._examples_at(pointer, progress.num_items)
        # Where the examples were written in their order, the next one is the first that is left.
        start = progress.num_items if self._is_unique and progress.num_items < len(examples) else 0
        for value in itertools.chain(examples[start:], examples[:start]):
            if not self._is_unique or not _is_in(progress.seen, equality_key(value)):
                yield value

    def _examples_at(self, pointer: str, index: int) -> list[Any]:
        """The examples that an item may be."""
        place = self._places.item(self._place, index)
        if (pointer, place) not in self._examples:
            self._examples[pointer, place] = [
                value
                for value in self._all_examples[pointer]
                if all(self._satisfies(where, value) for where in place.schemas)
            ]
        return self._examples[pointer, place]

    def check_next(self, progress: ArrayProgress) -> None:
        """Another item must follow. Raises VetoError where none can."""
        if not self._is_unique:
            return
        values = self._values_at(progress.num_items)
        if values is None or len(values) > progress.num_items:
            return  # as many items cannot have used them all up
        if all(_is_in(progress.seen, value) for value in values):
            raise VetoError(f"every value that item {progress.num_items} of an array could have is used up")

    def _values_at(self, index: int) -> frozenset[Hashable] | None:
        """Equality keys of the values that an item may have; None where they are not listed."""
        place = self._places.item(self._place, index)
        if place not in self._values:
            self._values[place] = self._values_of(place)
        return self._values[place]

    def _values_of(self, place: Place) -> frozenset[Hashable] | None:
        listed = [values for schema in place.schemas.values() if (values := _listed(schema)) is not None]
        if not listed:
            return None
        return frozenset(
            equality_key(value)
            for value in min(listed, key=len)
            if all(self._satisfies(pointer, value) for pointer in place.schemas)
        )


def equality_key(value: Any) -> Hashable:
    """Equal for values that are equal in JSON Schema, and only for those: 1 and 1.0 are, 1 and true are not."""
    match value:
        case bool():
            return "boolean", str(value)
        case dict():
            return frozenset((name, equality_key(each)) for name, each in value.items())
        case list():
            return "array", *map(equality_key, value)
        case _:
            return value  # type: ignore[no-any-return]


def _is_in(blocks: tuple[frozenset[Hashable], ...], key: Hashable) -> bool:
    return any(key in block for block in blocks)


def _listed(schema: JsonObject) -> list[Any] | None:
    """The values among which all that satisfy the schema are, where it lists them."""
    if "const" in schema:
        return [schema["const"]]
    if "enum" in schema:
        return list(schema["enum"])
    types = schema.get("type", ())
    types = {types} if isinstance(types, str) else set(types)
    return [value for kind in types for value in _FEW_VALUES[kind]] if types and types <= _FEW_VALUES.keys() else None
