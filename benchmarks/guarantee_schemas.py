"""Random JSON schemas over every keyword of draft 2020-12 that asserts something. Seeded; some cannot be satisfied.

Each object names its own members in `required`, and bounds leave room between them, so that most can be satisfied.
"""

import json
import random
from collections.abc import Callable
from typing import Any

Schema = dict[str, Any]

WORDS = ("a", "id", "kind", "größe", "x y", "format", "not", '"q"', "名前", "tag")
TEXTS = ("", "on", "off", "red", "</tool_call>", "é😀", 'say "hi"\n', "a\\b", "2024-02-29")
PATTERNS = ("^[A-Z]{2}-[0-9]+$", "o+", "^(ab|cd)*$", r"^\d{3}-\d{4}$", "^x?y{2,4}z$", "[aeiou]$")
FORMATS = (
    "date",
    "time",
    "date-time",
    "ipv4",
    "ipv6",
    "uuid",
    "email",
    "hostname",
    "uri",
    "duration",
    "int32",
    "color",
)


def random_schema(seed: int) -> Schema:
    """The schema of an object, of any keywords."""
    return _Draw(random.Random(seed)).root()


class _Draw:
    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._definitions: Schema = {}

    def root(self) -> Schema:
        schema = self._object(depth=0)
        return {**schema, "$defs": self._definitions} if self._definitions else schema

    def _schema(self, depth: int) -> Schema | bool:
        kinds: list[Callable[[int], Schema | bool]] = [self._string, self._string, self._number, self._finite]
        kinds += [lambda _: {"type": "boolean"}, lambda _: {"type": ["null", "integer"]}]
        if depth < 3:
            kinds += [self._object, self._object, self._array, self._array, self._union, self._excluding, self._defined]
            kinds += [lambda _: True, self._conditional]
        return self._rng.choice(kinds)(depth)

    def _often(self, chance: float = 0.5) -> bool:
        return self._rng.random() < chance

    def _string(self, _: int) -> Schema:
        schema: Schema = {"type": "string"}
        kind = self._rng.randrange(5)
        if kind == 0:
            schema["pattern"] = self._rng.choice(PATTERNS)
        elif kind == 1:
            schema["format"] = self._rng.choice(FORMATS)
        elif kind == 2:
            schema["minLength"] = self._rng.randrange(6)
            if self._often():
                schema["maxLength"] = schema["minLength"] + self._rng.randrange(10)
        elif kind == 3:
            schema["maxLength"] = self._rng.choice([0, 1, 20, 100_000])
        return schema

    def _number(self, _: int) -> Schema:
        schema: Schema = {"type": self._rng.choice(["integer", "number"])}
        low = self._rng.randrange(-50, 50)
        if self._often():
            schema[self._rng.choice(["minimum", "exclusiveMinimum"])] = low
        if self._often():
            schema[self._rng.choice(["maximum", "exclusiveMaximum"])] = low + self._rng.randrange(2, 100)
        if self._often(0.2):
            schema["multipleOf"] = self._rng.choice([1, 2, 5])
        return schema

    def _finite(self, _: int) -> Schema:
        values = [*TEXTS, 1, -2.5, None, True, [], [1, "a"], {"a": 1}]
        if self._often(0.3):
            return {"const": self._rng.choice(values)}
        return {"enum": self._rng.sample(values, self._rng.randrange(1, 6))}

    def _array(self, depth: int) -> Schema:
        schema: Schema = {"type": "array"}
        if self._often(0.8):
            schema["items"] = self._schema(depth + 1)
        if self._often(0.2):
            schema["prefixItems"] = [self._schema(depth + 1) for _ in range(self._rng.randrange(1, 3))]
        if self._often(0.4):
            schema["minItems"] = self._rng.randrange(4)
        if self._often(0.4):
            schema["maxItems"] = schema.get("minItems", 0) + self._rng.randrange(1, 4)
        if self._often(0.3):
            schema["uniqueItems"] = True
        if self._often(0.15):
            schema["contains"] = self._schema(depth + 1)
            if self._often():
                schema["maxContains"] = self._rng.randrange(1, 3)
        return schema

    def _object(self, depth: int) -> Schema:
        names = self._rng.sample(WORDS, self._rng.randrange(5))
        schema: Schema = {"type": "object", "properties": {name: self._schema(depth + 1) for name in names}}
        required = [name for name in names if self._often()]
        if required:
            schema["required"] = required
        additional = self._rng.randrange(5)
        if additional < 2:
            schema["additionalProperties"] = False
        elif additional == 2:
            schema["additionalProperties"] = self._schema(depth + 1)
        self._speak_of_members(schema, names, depth)
        return schema

    def _speak_of_members(self, schema: Schema, names: list[str], depth: int) -> None:
        if self._often(0.1):
            schema["minProperties"] = min(len(names), 2)
        if self._often(0.1):
            schema["maxProperties"] = max(len(schema.get("required", [])), 1) + 1
        if self._often(0.1):
            schema["patternProperties"] = {"^n_": self._schema(depth + 1)}
        if self._often(0.1):
            schema["propertyNames"] = {"maxLength": 8}
        if len(names) > 1 and self._often(0.2):
            schema["dependentRequired"] = {names[0]: [names[1]]}
        if len(names) > 1 and self._often(0.1):
            schema["dependentSchemas"] = {names[1]: {"required": [names[0]]}}
        if names and self._often(0.1):
            schema["not"] = (
                {"required": [names[-1]]} if names[-1] not in schema.get("required", []) else {"minProperties": 9}
            )

    def _union(self, depth: int) -> Schema:
        keyword = self._rng.choice(["anyOf", "oneOf", "anyOf", "allOf"])
        if keyword == "allOf":
            return {"allOf": [self._object(depth + 1), {"type": "object", "required": ["extra"]}]}
        if self._often(0.4):
            tags = self._rng.sample(["cat", "dog", "bird"], self._rng.randrange(2, 4))
            return {keyword: [self._tagged(tag, depth + 1) for tag in tags]}
        return {keyword: [self._schema(depth + 1) for _ in range(self._rng.randrange(1, 4))]}

    def _tagged(self, tag: str, depth: int) -> Schema:
        schema = self._object(depth)
        schema["properties"] = {
            "kind": {"const": tag},
            **{k: v for k, v in schema["properties"].items() if k != "kind"},
        }
        schema["required"] = ["kind", *(name for name in schema.get("required", []) if name != "kind")]
        return schema

    def _excluding(self, depth: int) -> Schema:
        excluded = self._rng.choice([{"const": "on"}, {"enum": ["red", 1]}, {"type": "null"}, {"pattern": "^a"}])
        return {**self._string(depth), "not": excluded}

    def _conditional(self, depth: int) -> Schema:
        schema = self._object(depth + 1)
        schema["properties"] = {"mode": {"enum": ["fast", "safe"]}, **schema["properties"]}
        schema["if"] = {"properties": {"mode": {"const": "safe"}}, "required": ["mode"]}
        schema["then"] = {"required": ["level"], "properties": {"level": {"type": "integer"}}}
        schema["properties"]["level"] = {"type": ["integer", "string"]}
        return schema

    def _defined(self, depth: int) -> Schema:
        name = f"d{len(self._definitions)}"
        self._definitions[name] = True  # taken, before its inside takes others
        if self._often(0.3):
            leaf = self._string(depth)
            again = {"type": "array", "items": {"$ref": f"#/$defs/{name}"}, "maxItems": 2}
            self._definitions[name] = {"type": "object", "properties": {"leaf": leaf, "more": again}}
        else:
            self._definitions[name] = self._schema(depth + 1)
        return {"$ref": f"#/$defs/{name}"}


def shown(schema: Schema) -> str:
    """One line, for reports."""
    return json.dumps(schema, ensure_ascii=False)
