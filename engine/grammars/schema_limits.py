"""How large a schema may be, in counts. Past a bound it is refused by path, or the veto holds what was too large."""

from dataclasses import dataclass
from typing import Any

from engine.errors import SchemaError


@dataclass(frozen=True, slots=True)
class SchemaLimits:
    """Bounds of one schema's work. Counts, not seconds: the same schema is taken or refused on every machine."""

    max_bytes: int = 4 * 2**20  # of the schema, as JSON text
    max_depth: int = 256  # levels of objects and arrays
    max_enum: int = 20_000  # values in one enum
    max_properties: int = 5_000  # names in one object
    max_length: int = 10_000  # characters that a grammar counts; the veto holds a longer maxLength
    max_items: int = 2_000  # items that minItems may ask for; a longer maxItems is moved to here
    max_alternatives: int = 128  # that rewriting makes of one schema; past it, the veto holds the keyword
    max_subschemas: int = 10_000  # that rewriting makes of all schemas
    max_compiled: int = 45_000  # schemas in what the grammar library is given; it takes 50,000

    def check(self, name: str, value: int, path: str) -> None:
        """Raises SchemaError that names the bound, the value and the path."""
        bound = getattr(self, name)
        if value > bound:
            raise SchemaError(f"{path}: {value} is more than the limit {name} of {bound}", param=path)

    def check_depth(self, schema: Any, path: str) -> None:
        """Raises SchemaError where there are more levels of objects and arrays than max_depth."""
        # Level by level, so that nesting of any depth is measured without recursion.
        level, depth = [schema], 0
        while level and depth <= self.max_depth:
            depth += 1
            inner = [node for node in level if isinstance(node, (dict, list))]
            level = [child for node in inner for child in (node.values() if isinstance(node, dict) else node)]
        if depth > self.max_depth:
            reason = f"the schema is nested more than {self.max_depth} levels deep (the limit max_depth)"
            raise SchemaError(f"{path}: {reason}", param=path)


DEFAULT_LIMITS = SchemaLimits()
