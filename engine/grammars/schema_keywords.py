"""Which type each keyword speaks of, and which keywords say the opposite of each other."""

from collections.abc import Mapping

from engine.grammars.schema_walk import words

TYPES = ("null", "boolean", "number", "string", "array", "object")
TYPE_OF: Mapping[str, str] = {
    **dict.fromkeys(words("minLength maxLength pattern format"), "string"),
    **dict.fromkeys(words("minimum maximum exclusiveMinimum exclusiveMaximum multipleOf"), "number"),
    **dict.fromkeys(words("minItems maxItems uniqueItems prefixItems items contains unevaluatedItems"), "array"),
    **dict.fromkeys(
        words(
            "properties patternProperties additionalProperties required minProperties maxProperties propertyNames "
            "dependentRequired dependentSchemas unevaluatedProperties"
        ),
        "object",
    ),
}
OPPOSITES: Mapping[str, tuple[str, int]] = {  # not minLength 3 is maxLength 2
    "minLength": ("maxLength", -1),
    "maxLength": ("minLength", 1),
    "minItems": ("maxItems", -1),
    "maxItems": ("minItems", 1),
    "minProperties": ("maxProperties", -1),
    "maxProperties": ("minProperties", 1),
    "minimum": ("exclusiveMaximum", 0),
    "maximum": ("exclusiveMinimum", 0),
    "exclusiveMinimum": ("maximum", 0),
    "exclusiveMaximum": ("minimum", 0),
}
MEMBERS = words("properties patternProperties additionalProperties")
ITEMS = words("prefixItems items")
