"""Strings written without quotes, up to a tag: as terminals of the grammar, and read back as JSON."""

import json
import re

from engine.grammars.encoders.arguments import Terminals
from engine.grammars.literals import ANY_TEXT, regex_literal, string_literal
from engine.grammars.schema_walk import child_path, refusal
from engine.types import JsonObject

BYTE = r"(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
FORMATS = {  # others come as patterns, or are refused
    "ipv4": rf"{BYTE}(\.{BYTE}){{3}}",
    "uuid": r"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}",
}
KEYWORDS = frozenset({"type", "minLength", "maxLength", "pattern", "format"})


def raw_string(schema: JsonObject, tag: str, path: str) -> str:
    """A terminal for the strings of the schema that do not contain the tag. SchemaError, by path, for what has none."""
    for keyword in schema.keys() - KEYWORDS:
        raise refusal(child_path(path, keyword), "this model's format cannot hold it beside a string without quotes")
    terms = [f"~({ANY_TEXT} {string_literal(tag)} {ANY_TEXT})"]
    least, most = schema.get("minLength", 0), schema.get("maxLength")
    if least or most is not None:
        terms.append(f"/(?s:.{{{least},{'' if most is None else most}}})/")
    if "pattern" in schema:
        terms.append(_pattern(schema["pattern"], child_path(path, "pattern")))
    if "format" in schema:
        terms.append(_format(schema["format"], child_path(path, "format")))
    return " & ".join([ANY_TEXT, *terms])


def _format(name: str, path: str) -> str:
    if name not in FORMATS:
        known = ", ".join(sorted(FORMATS))
        raise refusal(path, f"in this model's format {name!r} cannot be enforced; allowed are {known}")
    return f"/{FORMATS[name]}/"


def _pattern(pattern: str, path: str) -> str:
    """A JSON schema's pattern, which matches anywhere, as a regex of the whole string."""
    plain = re.sub(r"\\.|\[(?:\\.|[^\]])*\]", lambda found: "x" * len(found[0]), pattern, flags=re.DOTALL)
    begins, ends = plain.startswith("^"), plain.endswith("$")
    inner = pattern[1 if begins else 0 : len(pattern) - 1 if ends else None]
    between = plain[1 if begins else 0 : len(plain) - 1 if ends else None]
    if re.search(r"[\^$]", between) or ((begins or ends) and _has_open_choice(between)):
        raise refusal(path, "in this model's format, ^ and $ can stand at a pattern's ends only")
    whole = f"({inner})" if inner else ""
    any_text = "(?s:.*)"
    return regex_literal(("" if begins else any_text) + whole + ("" if ends else any_text))


def _has_open_choice(pattern: str) -> bool:
    """Whether there is a | outside of all groups."""
    depth = 0
    for character in pattern:
        depth += {"(": 1, ")": -1}.get(character, 0)
        if character == "|" and depth == 0:
            return True
    return False


def one_of(values: list[str], tag: str, path: str) -> str:
    """A terminal for exactly these strings."""
    for value in values:
        if tag in value:
            raise refusal(path, f"{value!r} contains {tag}, which ends a string in this model's format")
    return " | ".join(string_literal(value) for value in dict.fromkeys(values))


def ended(name: str, terminal: str, end: str, terminals: Terminals) -> tuple[str, ...]:
    """Rules for `name`: text of the terminal, and its end as soon as that is whole."""
    ending, text = terminals(end), f"{name.upper()}: {terminal}"
    if ending.startswith("<["):
        return text, f"{name}: {name.upper()} {ending}"
    return text, f"{name}[suffix={string_literal(end)}]: {name.upper()}"


def escaped(text: str) -> str:
    """The text as it stands inside a JSON string."""
    return json.dumps(text, ensure_ascii=False)[1:-1]
