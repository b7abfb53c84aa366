"""Terms of outlines.types as output types. Outlines writes the regular expressions; we enforce them."""

import json
from collections.abc import Iterator
from typing import Any

from outlines.types.dsl import CFG, Choice, JsonSchema, Term, python_types_to_terms, to_regex

from engine.checks import is_number, shown
from engine.errors import RequestError
from engine.output_types import OutputType, json_output, python_output, text_output
from engine.types import Grammar

__all__ = ["Term", "outlines_output", "term_output"]

_LATEST_DRAFT = "http://json-schema.org/schema#"  # as genson's schema builders write it: whichever is in use


def term_output(term: Term) -> OutputType[Any]:
    """What the term describes: the text, an item of a choice, or the value of a JSON schema.

    Raises RequestError where it cannot be enforced as it is.
    """
    match term:
        case CFG():
            return text_output(Grammar.lark(term.definition))
        case JsonSchema():
            return _schema_output(term)
        case Choice() if all(isinstance(item, str) or is_number(item) for item in term.items):
            return _choice_output(term.items)
        case _:
            return text_output(_regex(term))


def outlines_output(output_type: Any) -> OutputType[str]:
    """Text in the form that outlines gives to an output type: Python's literals, or JSON where there is a schema.

    Raises RequestError that names the type.
    """
    if isinstance(output_type, Term):
        grammar = term_output(output_type).grammar
    elif output_type is dict:
        grammar = Grammar.json_object()
    else:
        grammar = _python_grammar(output_type)
    assert grammar is not None
    return text_output(grammar)


def _python_grammar(output_type: Any) -> Grammar | None:
    try:
        term = python_types_to_terms(output_type)
    except (TypeError, ValueError, RecursionError) as error:
        reason = str(error).partition(" Please open an issue")[0]  # with outlines, which is not to blame
        raise _refusal(output_type, reason) from error
    is_type = not isinstance(term, JsonSchema) or isinstance(output_type, type)  # no function, no schema builder
    return python_output(output_type).grammar if is_type and _has_schema(term) else term_output(term).grammar


def _schema_output(term: JsonSchema) -> OutputType[Any]:
    if term.whitespace_pattern is not None:
        reason = "white space has one fixed style here; leave whitespace_pattern out"
        raise _refusal(term, reason)
    schema = json.loads(term.schema)
    if isinstance(schema, dict) and schema.get("$schema") == _LATEST_DRAFT:
        del schema["$schema"]
    return json_output(schema)


def _choice_output(items: list[Any]) -> OutputType[Any]:
    by_text: dict[str, Any] = {}
    for item in items:
        by_text.setdefault(str(item), item)
    return OutputType(Grammar.choice(list(by_text)), by_text.__getitem__, str)


def _regex(term: Term) -> Grammar:
    try:
        if _has_schema(term):
            reason = "a JSON schema inside another term would lose keywords; use a Union or list of Python types"
            raise _refusal(term, reason)
        return Grammar.regex(to_regex(term))
    except (TypeError, ValueError, RecursionError) as error:
        raise _refusal(term, str(error)) from error


def _has_schema(term: Term) -> bool:
    return any(isinstance(part, JsonSchema) for part in _parts(term))


def _parts(term: Term) -> Iterator[Term]:
    """The term, and whatever it is made of."""
    yield term
    inner = getattr(term, "terms", [])  # outlines' terms have one of three fields
    if isinstance(term, Choice):
        inner = map(python_types_to_terms, term.items)
    elif hasattr(term, "term"):
        inner = [term.term]
    for each in inner:
        yield from _parts(each)


def _refusal(output_type: object, reason: str) -> RequestError:
    return RequestError(f"output_type is {shown(output_type)}, which cannot be enforced: {reason}", param="output_type")
