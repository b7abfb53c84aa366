"""How many bytes a JSON value that was begun can still need, by its schema alone: a bound, never too small.

It is about text in our JSON style. A token is a byte at least, so it bounds tokens too. A keyword that is not known
here makes the bound unknown, not smaller. Where values may be nested without end, it grows with the open brackets.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from engine.grammars.closing_values import (
    ANY_VALUE,
    NO_VALUE,
    NUMBER_KEYWORDS,
    STRING_KEYWORDS,
    WORDS,
    Leaf,
    literals_leaf,
    num_bytes,
    number_leaf,
    string_leaf,
)
from engine.grammars.regex_shape import OPEN_CHARACTER, json_size, plain_size, shape_of
from engine.grammars.schema_patterns import matches
from engine.grammars.schema_walk import words

SEPARATOR = 2  # ", " and ": " alike
BRACKET = 1
MAX_NODES = 20_000  # of a schema; merging branches into what they share may copy much
# A name in an open object: if what was written is a property's own name, one more character makes it another.
OTHER_NAME = 2

KINDS = ("null", "boolean", "integer", "number", "string", "array", "object")
OBJECT_KEYWORDS = words("properties additionalProperties required minProperties maxProperties")
ARRAY_KEYWORDS = words("items prefixItems minItems maxItems")
IN_PLACE = words("allOf anyOf oneOf $ref")
KNOWN = OBJECT_KEYWORDS | ARRAY_KEYWORDS | STRING_KEYWORDS | NUMBER_KEYWORDS | IN_PLACE
KNOWN |= words("type const enum patternProperties $defs definitions x-guidance")
NO_ASSERTION = words("$defs definitions x-guidance")
# Of two, the one that admits less.
HIGHER_WINS = words("minimum exclusiveMinimum minLength minItems minProperties")
LOWER_WINS = words("maximum exclusiveMaximum maxLength maxItems maxProperties")


@dataclass(frozen=True, slots=True)
class ClosingBound:
    """Bytes that suffice to end a value, wherever inside it the text stands."""

    base: int
    per_level: int  # for each bracket that is open

    def at(self, depth: int) -> int:
        """depth: how many brackets and braces are open; too large a number is no harm."""
        return self.base + self.per_level * depth


def longest_closing(schema: Any) -> ClosingBound | None:
    """The bound for a schema as json_schema.check_schema leaves it; None where none is known."""
    try:
        graph = _Graph(schema)
    except (_UnknownError, RecursionError):
        return None
    return graph.bound()


def text_closing(regex: str) -> int | None:
    """The same for a text that matches a regex from end to end; None where none is known."""
    shape = shape_of(regex, plain_size, anchored=True)
    return None if shape is None or shape.shortest is None else shape.longest_rest


class _UnknownError(Exception):
    """Nothing sound is known."""


class _RecursiveError(Exception):
    """A schema stands inside itself."""


@dataclass(eq=False, slots=True)
class _Node:
    """A schema, for this purpose: one of several, or a container, or a leaf."""

    leaf: Leaf | None = None
    grows: bool = False  # whether each open bracket below may need one more
    options: "list[_Node]" = field(default_factory=list)
    members: "list[_Member]" = field(default_factory=list)  # that may be open; of a container only
    is_container: bool = False
    surely_has_values: bool = True
    text: float = math.inf

    def settle_leaf(self) -> bool:
        """Whether it is a leaf; what is known of one is known by itself."""
        if self.leaf is None:
            return False
        self.text = self.leaf.text
        self.surely_has_values &= self.leaf.is_sure
        return True

    @property
    def rest(self) -> float:
        """What a container needs that has no member yet, after its bracket."""
        required = [member for member in self.members if member.num_required]
        return BRACKET + sum([member.num_required * (SEPARATOR + member.text) for member in required])

    def around(self, member: "_Member", rest: float) -> float:
        """What it needs beside a member that is open, or about to be: what stands before its value, and after.

        rest: the node's own.
        """
        own = SEPARATOR + member.text if member.num_required else 0
        return SEPARATOR + member.name + rest - own


@dataclass(frozen=True, slots=True)
class _Member:
    """An object's property or an array's items."""

    name: float  # bytes of its name, quotes and ": "; 0 in arrays
    node: _Node
    num_required: int

    @property
    def text(self) -> float:
        return self.name + self.node.text


class _Graph:
    """A schema's nodes, and what is known of them."""

    def __init__(self, root: Any) -> None:
        self._schema = root
        self._nodes: list[_Node] = []
        self._by_reference: dict[str, _Node] = {}
        self._root = self._node(root)

    # --- Reading

    def _node(self, schema: Any) -> _Node:
        node = _Node()
        self._read_into(node, schema)
        return node

    def _read_into(self, node: _Node, schema: Any) -> None:
        self._nodes.append(node)
        if len(self._nodes) > MAX_NODES:
            raise _UnknownError
        if isinstance(schema, bool):
            node.leaf, node.grows = (ANY_VALUE, True) if schema else (NO_VALUE, False)
            return
        if not schema.keys() <= KNOWN:
            raise _UnknownError
        says = schema
        if not NO_ASSERTION.isdisjoint(schema):
            says = {keyword: value for keyword, value in schema.items() if keyword not in NO_ASSERTION}
        combined = IN_PLACE & says.keys()
        if combined == {"$ref"} and len(says) == 1:
            node.options = [self._referred(says["$ref"])]
        elif combined:
            node.options = [self._node(option) for option in self._alternatives(says)]
            if len(says) > 1 or "allOf" in says:  # merged ones may contradict each other
                for option in node.options:
                    option.surely_has_values = False
        else:
            self._read_plain(node, says)

    def _referred(self, reference: str) -> _Node:
        if reference not in self._by_reference:
            node = self._by_reference[reference] = _Node()
            self._read_into(node, _follow(self._schema, reference))
        return self._by_reference[reference]

    def _alternatives(self, schema: Mapping[str, Any]) -> list[Any]:
        """The schemas without keywords in place, one of which a value satisfies, and what they share is in each."""
        found: list[Any] = [{keyword: value for keyword, value in schema.items() if keyword not in IN_PLACE}]
        parts: list[list[Any]] = [[each] for each in schema.get("allOf", ())]
        parts += [schema[keyword] for keyword in ("anyOf", "oneOf") if keyword in schema]
        parts += [[{"$ref": schema["$ref"]}]] if "$ref" in schema else []
        for options in parts:
            found = [self._merged(one, other) for one in found for other in options]
            if len(found) > MAX_NODES:
                raise _UnknownError
        return found

    def _merged(self, one: Any, other: Any) -> Any:
        """A schema of all that satisfies both, and perhaps of more members; only what can be told is merged."""
        if one is True or one == {} or other is False:
            return other
        if other is True or other == {} or one is False:
            return one
        if "$ref" in other and not IN_PLACE & one.keys() and len(other) == 1:
            target = _follow(self._schema, other["$ref"])
            if isinstance(target, bool) or IN_PLACE & target.keys():
                raise _UnknownError
            return self._merged(one, target)
        for these, those in ((one, other), (other, one)):
            speaks_of_rest = isinstance(these.get("additionalProperties"), dict) or "items" in these
            if speaks_of_rest and those.keys() & {"properties", "prefixItems"}:
                raise _UnknownError
        return {**one, **other, **_shared(one, other)}

    def _read_plain(self, node: _Node, schema: Mapping[str, Any]) -> None:
        if "const" in schema or "enum" in schema:
            values = [schema["const"]] if "const" in schema else schema["enum"]
            node.leaf = literals_leaf(values, is_bound_further=len(schema) > 1)
            return
        types = schema.get("type", KINDS)
        kinds = [types] if isinstance(types, str) else list(types)
        if not schema:
            node.leaf, node.grows = ANY_VALUE, True
        elif len(kinds) == 1:
            self._read_kind(node, schema, kinds[0])
        else:
            node.options = [self._node({**schema, "type": kind}) for kind in kinds]

    def _read_kind(self, node: _Node, schema: Mapping[str, Any], kind: str) -> None:
        if kind == "object":
            self._read_object(node, schema)
        elif kind == "array":
            self._read_array(node, schema)
        elif kind == "string":
            node.leaf = string_leaf(schema)
        elif kind in WORDS:
            node.leaf = WORDS[kind]
        else:
            node.leaf = number_leaf(schema, is_integer=kind == "integer")

    def _read_object(self, node: _Node, schema: Mapping[str, Any]) -> None:
        node.is_container = True
        properties, required = schema.get("properties", {}), schema.get("required", ())
        least = schema.get("minProperties", 0)
        # With more properties wanted than are named as required, which ones is not known: so all of them may be.
        num_wanted = 1 if least > len(required) else 0
        node.members = [
            _Member(_name(name), self._node(each), 1 if name in required else num_wanted)
            for name, each in properties.items()
        ]
        others = self._node(schema.get("additionalProperties", True))
        node.members += [_Member(_name(name), others, 1) for name in required if name not in properties]
        node.members += self._unnamed(schema, others, max(0, least - len(required)))
        most = schema.get("maxProperties", math.inf)
        node.surely_has_values = node.surely_has_values and least <= 1 and most >= max(len(required), least)

    def _unnamed(self, schema: Mapping[str, Any], others: _Node, num_wanted: int) -> Iterator[_Member]:
        """The properties that the object does not name."""
        patterns = schema.get("patternProperties", {})
        is_closed = others.leaf is NO_VALUE
        if any(matches(pattern, name) for pattern in patterns for name in schema.get("properties", {})):
            raise _UnknownError
        if len(patterns) > 1 or any(value is False for value in patterns.values()):
            raise _UnknownError  # a name may match both, or have to avoid one
        for pattern, value in patterns.items():
            shape = shape_of(pattern, json_size, anchored=False)
            if shape is None or shape.shortest is None or (is_closed and pattern.endswith("$")):
                raise _UnknownError  # a property's own name may be the only match that is left
            yield _Member(shape.longest_rest + _name("") + OTHER_NAME, self._node(value), num_wanted)
        if not is_closed:
            yield _Member(_name("") + OPEN_CHARACTER + OTHER_NAME, others, num_wanted)

    def _read_array(self, node: _Node, schema: Mapping[str, Any]) -> None:
        node.is_container = True
        least, first = schema.get("minItems", 0), schema.get("prefixItems", [])
        node.members = [_Member(0, self._node(each), int(place < least)) for place, each in enumerate(first)]
        if schema.get("items", True) is not False:
            node.members.append(_Member(0, self._node(schema.get("items", True)), max(0, least - len(first))))
        node.surely_has_values = node.surely_has_values and schema.get("maxItems", math.inf) >= least

    # --- Bounds

    def bound(self) -> ClosingBound | None:
        inner = [node for node in self._nodes if not node.settle_leaf()]
        _settle_what_is_sure(inner)
        _settle_texts(inner)
        try:
            base, per_level = self._nested(self._root, {}, ())
        except _RecursiveError:
            base, per_level = self._flat()
        if math.isinf(base) or math.isinf(per_level):
            return None
        return ClosingBound(int(base), int(per_level))

    def _nested(self, node: _Node, known: dict[int, tuple[float, float]], path: tuple[int, ...]) -> tuple[float, float]:
        """Base and per level, members inside what holds them. Raises where a node is inside itself."""
        if node.leaf is not None:
            return _inside(node)
        if id(node) in path:
            raise _RecursiveError
        if id(node) not in known:
            below = (*path, id(node))
            found = [_inside(node)]
            for option in node.options:
                found.append(self._nested(option, known, below))
            rest = node.rest
            for member in _possible(node):
                base, per_level = self._nested(member.node, known, below)
                found.append((node.around(member, rest) + max(base, member.node.text), per_level))
            known[id(node)] = max(base for base, _ in found), max(per_level for _, per_level in found)
        return known[id(node)]

    def _flat(self) -> tuple[float, float]:
        """Base and per level where each level may be the worst one."""
        base = per_level = 0.0
        for node in self._nodes:
            own_base, own_per_level = _inside(node)
            rest = node.rest
            members = [node.around(member, rest) + member.node.text for member in _possible(node)]
            base = max(base, own_base, *members)
            per_level = max(per_level, own_per_level, rest if node.is_container else 0)
        return base, per_level


def _settle_what_is_sure(nodes: Sequence[_Node]) -> None:
    """From "all have values" down to what follows. nodes: all but the leaves."""
    changed = True
    while changed:
        changed = False
        for node in nodes:
            if node.surely_has_values and not _is_sure(node):
                node.surely_has_values, changed = False, True


def _settle_texts(nodes: Sequence[_Node]) -> None:
    """From "not known" down: each round may find shorter texts."""
    changed = True
    while changed:
        changed = False
        for node in reversed(nodes):
            text = _text(node)
            if text < node.text:
                node.text, changed = text, True


def _name(name: str) -> int:
    return num_bytes(name) + SEPARATOR


def _possible(node: _Node) -> list[_Member]:
    return [member for member in node.members if member.node.leaf is not NO_VALUE]


def _inside(node: _Node) -> tuple[float, float]:
    """Base and per level of a node without its members: where it is begun, or about to be."""
    if node.leaf is not None:
        return node.leaf.rest, float(node.grows)
    return (node.text if node.is_container else 0.0), 0.0


def _is_sure(node: _Node) -> bool:
    if node.is_container:
        return node.surely_has_values and all(
            member.node.surely_has_values for member in node.members if member.num_required
        )
    return any(option.surely_has_values for option in node.options)


def _text(node: _Node) -> float:
    """An upper bound of the shortest text."""
    if node.is_container:
        return BRACKET + node.rest
    sure = [option.text for option in node.options if option.surely_has_values]
    if sure:
        return min(sure)
    # One of them has a value, or there is none at all; which one is not known.
    return max((option.text for option in node.options if option.leaf is not NO_VALUE), default=math.inf)


def _shared(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """The keywords that both have, as one. Raises where that cannot be told."""
    found: dict[str, Any] = {}
    for keyword in one.keys() & other.keys() - NO_ASSERTION:
        mine, yours = one[keyword], other[keyword]
        if mine == yours:
            found[keyword] = mine
        elif keyword == "required":
            found[keyword] = list(dict.fromkeys([*mine, *yours]))
        elif keyword == "properties" and not any(mine[name] != yours[name] for name in mine.keys() & yours.keys()):
            found[keyword] = {**mine, **yours}
        elif keyword == "type":
            found[keyword] = _common_types(mine, yours)
        elif keyword in HIGHER_WINS | LOWER_WINS:
            found[keyword] = max(mine, yours) if keyword in HIGHER_WINS else min(mine, yours)
        else:
            raise _UnknownError
    return found


def _common_types(mine: str | Sequence[str], yours: str | Sequence[str]) -> list[str]:
    ours = [list(_named(types)) for types in (mine, yours)]
    common = [kind for kind in ours[0] if kind in ours[1] or (kind == "integer" and "number" in ours[1])]
    return common + [kind for kind in ours[1] if kind == "integer" and "number" in ours[0] and kind not in common]


def _named(types: str | Sequence[str]) -> Iterator[str]:
    yield from [types] if isinstance(types, str) else types


def _follow(root: Any, reference: str) -> Any:
    """What a JSON pointer points at. Raises where it points at nothing."""
    start, *parts = unquote(reference).split("/")
    node = root
    try:
        for part in parts:
            key = part.replace("~1", "/").replace("~0", "~")
            node = node[int(key)] if isinstance(node, list) else node[key]
    except (KeyError, IndexError, TypeError, ValueError):
        raise _UnknownError from None
    if start != "#" or not isinstance(node, (dict, bool)):
        raise _UnknownError
    return node
