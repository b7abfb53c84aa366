"""The keywords of a schema that no grammar holds, checked while a value is written, character by character.

A grammar says which characters may come; a veto says which of them complete something that is not valid: a value that
a subschema refuses, a name that its object has already (readers take the last of two equal names, so that the first
one's value would be lost), an item after which an array can no longer become what it must be. The validator is the one
that judges finished answers. The root is validated whenever anything is vetoed, so that nothing rests on the earlier
checks but how early a fault is seen.
"""

import itertools
from collections.abc import Collection, Iterator
from types import MappingProxyType
from typing import Any, NamedTuple, Self
from urllib.parse import quote

import jsonschema_rs

from engine.errors import SchemaError, VetoError
from engine.grammars.json_stream import Closed, JsonEvent, JsonStream, Named, Opened, Separated
from engine.grammars.schema_places import Place, Places, child, draft_of
from engine.grammars.veto_arrays import ArrayProgress, ArrayRules, Examples
from engine.grammars.veto_numbers import next_multiples
from engine.types import JsonObject

MAX_EXAMPLES = 2  # of names that are tried in one place
MAX_SIMPLE = 8  # the same of values
PLAINEST: tuple[Any, ...] = ("", 0, False, None, [], {}, True, 1, -1)
MAX_OPEN = 200  # objects and arrays within each other; deeper values are not judged, so they are not written
SOURCE = "urn:toolmask:source"


class Veto:
    """One schema, for all values that are written by it. Immutable but for what it remembers; any thread may use it."""

    def __init__(
        self, source: JsonObject | bool, vetoed: Collection[str] = (), examples: Examples = MappingProxyType({})
    ) -> None:
        """source: what a value must satisfy. vetoed: JSON pointers of those keywords in it that the grammar leaves out.

        examples: for some of these keywords values that lead to where they are satisfied: items, or names.

        With nothing vetoed, names that repeat are still refused, which grammars of open objects let through.
        Raises SchemaError where a validator cannot be made.
        """
        self._draft = draft_of(source)
        self._registry = jsonschema_rs.Registry([(SOURCE, source if isinstance(source, bool) else dict(source))])
        self._validators: dict[str, jsonschema_rs.Validator] = {}
        self._rules: dict[Place, ArrayRules] = {}
        self._examples = examples
        self._simple: dict[Place, tuple[Any, ...]] = {}
        self.places = Places(source, vetoed, self._matches)
        self.always = ("",) if vetoed else ()
        for pointer in self.always:
            self._validator(pointer)

    def start(self) -> "OpenValue":
        """A value of which nothing is written."""
        return OpenValue(self)

    def satisfies(self, pointer: str, value: Any) -> bool:
        """Whether the value satisfies the subschema there. Raises VetoError for a value that cannot be judged."""
        try:
            return bool(self._validator(pointer).is_valid(value))
        except ValueError as error:  # half a surrogate pair, say
            raise VetoError(f"a value cannot be judged: {error}") from None

    def array_rules(self, place: Place) -> ArrayRules:
        """What can be said of an array at this place before it is complete."""
        found = self._rules.get(place)
        if found is None:
            found = self._rules[place] = ArrayRules(place, self.places, self.satisfies, self._examples)
        return found

    def simple_values(self, place: Place) -> tuple[Any, ...]:
        """A few values that a place which is judged takes, where any of the plainest does."""
        if place not in self._simple:
            listed = (value for schema in place.schemas.values() for value in _listed(schema))
            tried = itertools.chain(listed, PLAINEST) if place.judged else ()
            fitting = (value for value in tried if all(self.satisfies(where, value) for where in place.schemas))
            self._simple[place] = tuple(itertools.islice(fitting, MAX_SIMPLE))
        return self._simple[place]

    def names(self, place: Place) -> Iterator[str]:
        """Examples of names that an object's members may have; none where any others do as well."""
        for where in place.schemas:
            for keyword in ("propertyNames", "minProperties"):
                yield from self._examples.get(child(where, keyword), ())

    def _matches(self, pattern: str, name: str) -> bool:
        # By the validator's regexes: Python's are of another dialect.
        return self._pattern(pattern).is_valid(name)

    def _pattern(self, pattern: str) -> jsonschema_rs.Validator:
        key = f"#{pattern}"  # no JSON pointer begins so
        if key not in self._validators:
            self._validators[key] = self._compiled({"pattern": pattern})
        return self._validators[key]

    def _validator(self, pointer: str) -> jsonschema_rs.Validator:
        """Compiled at its first use."""
        if pointer not in self._validators:
            self._validators[pointer] = self._compiled({"$ref": f"{SOURCE}#{quote(pointer)}"})
        return self._validators[pointer]

    def _compiled(self, schema: JsonObject) -> jsonschema_rs.Validator:
        try:
            schema = {"$schema": self._draft, **schema}
            return jsonschema_rs.validator_for(schema, registry=self._registry, validate_formats=True)
        except (ValueError, jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError) as error:
            raise SchemaError(f"the schema cannot be checked: {error}", param="") from None


def _listed(schema: JsonObject) -> Iterator[Any]:
    yield from (schema["const"],) if "const" in schema else ()
    yield from schema.get("enum", ())


class _Frame(NamedTuple):
    """An open object or array. Never changed: a new one takes its place."""

    outer: "_Frame | None"
    place: Place
    is_judged: bool  # it, or what it is in
    depth: int
    progress: ArrayProgress | None  # of an array
    examples: tuple[Any, ...]  # of what it may become


class OpenValue:
    """One value under a veto, as far as it is written. Copies cost next to nothing."""

    __slots__ = ("_due", "_examples", "_frame", "_in_name", "_stream", "_veto")

    def __init__(self, veto: Veto) -> None:
        self._veto = veto
        self._stream = JsonStream()
        self._frame: _Frame | None = None
        self._due: Place | None = veto.places.root  # of the value that comes next, or of a scalar that is open
        self._in_name = False  # a name comes next, or is open
        self._examples: tuple[Any, ...] = ()  # of the value that is due

    def copy(self) -> Self:
        """An independent value in the same state."""
        twin = object.__new__(type(self))
        twin._veto, twin._stream, twin._frame = self._veto, self._stream.copy(), self._frame
        twin._due, twin._in_name, twin._examples = self._due, self._in_name, self._examples
        return twin

    @property
    def must_look_ahead(self) -> bool:
        """Whether the grammar may lead on to where every token is vetoed, so that a way to the end must be looked for.

        True while a value that is judged at its end is open; before any value in or below which something is judged,
        as there may be no valid one; while a name is written, where names may run out; and deep inside, where soon
        nothing more can be opened.
        """
        if self._frame is not None and (self._frame.is_judged or self._frame.depth > MAX_OPEN // 2):
            return True
        if self._due is not None:
            return self._due.leads_to_judged
        if self._in_name and self._frame is not None:
            return self._frame.place.leads_to_judged or self._frame.place.limits_names
        return False

    @property
    def wanted(self) -> tuple[str, ...]:
        """Texts one of which had better follow, the best first, so that what is vetoed gets what it asks for."""
        stream = self._stream
        return (
            *(text for value in self._better_here() for text in stream.texts_for(value)),
            *(text for value in self._better_next() for text in stream.texts_after(value)),
        )

    def _better_here(self) -> Iterator[Any]:
        """Values that lead on, of which one may be begun; where a name comes next, names."""
        if self._due is not None:
            yield from self._examples
            yield from next_multiples(self._due, self._stream.begun)
            yield from self._veto.simple_values(self._due)
        elif self._in_name:
            yield from self._missing_names()

    def _better_next(self) -> Iterator[Any]:
        """The same for the next value or name of what is open, behind what is complete."""
        if self._frame is not None and self._frame.progress is not None:
            yield from self._veto.array_rules(self._frame.place).lacks(self._frame.progress)
        elif self._frame is not None and not self._in_name:
            yield from self._missing_names()

    def _missing_names(self) -> Iterator[str]:
        assert self._frame is not None
        names = (name for example in self._frame.examples for name in example)
        more = self._veto.names(self._frame.place) if self._in_name else ()
        free = (name for name in itertools.chain(names, more) if not self._stream.has_member(name))
        return itertools.islice(free, MAX_EXAMPLES)

    @property
    def is_open_number(self) -> bool:
        """Whether nothing but the text's end tells that the value is complete."""
        return self._stream.is_open_number

    def feed(self, text: str) -> None:
        """Take more of the value. Raises VetoError; the value is then of no more use: feed a copy.

        Raises MatcherError for text that is no JSON.
        """
        self._judge(self._stream.feed(text))

    def finish(self) -> None:
        """The text has ended. Raises as `feed` does."""
        self._judge(self._stream.finish())

    def _judge(self, events: list[JsonEvent]) -> None:
        for event in events:
            match event:
                case Closed(value):
                    self._close(value)
                case Named(name, is_repeated):
                    self._name(name, is_repeated=is_repeated)
                case Opened(is_object):
                    self._open(is_object=is_object)
                case Separated(in_object):
                    self._separate(in_object=in_object)

    def _open(self, *, is_object: bool) -> None:
        assert self._due is not None, "the stream lets no value follow a value"
        outer, place = self._frame, self._due
        depth = 1 if outer is None else outer.depth + 1
        if depth > MAX_OPEN:
            raise VetoError(f"the value is nested more than {MAX_OPEN} levels deep")
        is_judged = bool(place.judged) or (outer is not None and outer.is_judged)
        progress = None if is_object else self._veto.array_rules(place).start
        better = (*self._examples, *self._veto.simple_values(place))
        examples = tuple(each for each in better if isinstance(each, dict if is_object else list))
        self._frame = _Frame(outer, place, is_judged, depth, progress, examples)
        self._in_name = is_object
        self._due, self._examples = None, ()
        if progress is not None:
            self._item(self._frame, progress)

    def _item(self, frame: _Frame, progress: ArrayProgress) -> None:
        """An item is due."""
        index = progress.num_items
        self._due = self._veto.places.item(frame.place, index)
        inside = (each[index] for each in frame.examples if index < len(each))
        self._examples = (*self._veto.array_rules(frame.place).next_items(progress), *inside)

    def _name(self, name: str, *, is_repeated: bool) -> None:
        assert self._frame is not None, "the stream lets names stand in objects only"
        if is_repeated:
            raise VetoError(f"the object has a member {name!r} already")
        self._in_name = False
        self._due = self._veto.places.member(self._frame.place, name)
        self._examples = tuple(each[name] for each in self._frame.examples if name in each)

    def _separate(self, *, in_object: bool) -> None:
        if in_object:
            self._in_name = True
            return
        assert self._frame is not None
        assert self._frame.progress is not None
        self._veto.array_rules(self._frame.place).check_next(self._frame.progress)
        self._item(self._frame, self._frame.progress)

    def _close(self, value: Any) -> None:
        place = self._due
        if isinstance(value, (dict, list)):
            assert self._frame is not None
            place, self._frame = self._frame.place, self._frame.outer
        assert place is not None
        for pointer in dict.fromkeys((*place.judged, *(self._veto.always if self._frame is None else ()))):
            if not self._veto.satisfies(pointer, value):
                raise VetoError(f"a value is complete that #{pointer} of its schema refuses")
        self._due, self._in_name, self._examples = None, False, ()
        if self._frame is not None and self._frame.progress is not None:
            rules = self._veto.array_rules(self._frame.place)
            self._frame = self._frame._replace(progress=rules.after(self._frame.progress, value))
