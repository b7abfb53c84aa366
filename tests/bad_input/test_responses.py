"""What an answer's text may be: refused by path, before the first token."""

import math
from collections.abc import Callable

import pytest

from engine.engine import Engine
from engine.errors import GrammarError, RequestError, SchemaError
from engine.types import Grammar, GrammarKind
from tests.bad_input.asking import USER, Case, Options, assert_refused, each

RESPONSES: list[Case] = [
    ("a regex", lambda: {"response": Grammar.regex("(")}, "response", GrammarError),
    ("a Lark grammar", lambda: {"response": Grammar.lark("start: nothing")}, "response", GrammarError),
    ("a choice of none", lambda: {"response": Grammar.choice([])}, "response", GrammarError),
    ("a choice of nothing", lambda: {"response": Grammar.choice(["a", ""])}, "response", GrammarError),
    ("a choice that is one text", lambda: {"response": Grammar.choice("abc")}, "response", RequestError),
    ("a choice of numbers", lambda: {"response": Grammar.choice([1, 2])}, "response", RequestError),
    ("a schema", lambda: {"response": Grammar.json_schema({"type": "txt"})}, "response.type", SchemaError),
    ("a schema of NaN", lambda: {"response": Grammar.json_schema({"const": math.nan})}, "response", SchemaError),
    ("a schema of no JSON", lambda: {"response": Grammar.json_schema({"enum": [{1}]})}, "response", SchemaError),
    ("a schema's text", lambda: {"response": Grammar(GrammarKind.JSON_SCHEMA, "{")}, "response", RequestError),
    ("a schema's list", lambda: {"response": Grammar(GrammarKind.JSON_SCHEMA, "[]")}, "response", RequestError),
    ("an unknown kind", lambda: {"response": Grammar("ebnf", "")}, "response.kind", RequestError),
    ("a source that is no text", lambda: {"response": Grammar.regex(5)}, "response", RequestError),
    ("a schema as it stands", lambda: {"response": {"type": "object"}}, "response", RequestError),
]


@each(RESPONSES)
def test_what_no_answer_can_be_held_to_is_an_error_that_names_it(
    engine: Engine, way: str, options: Callable[[], Options], param: str, error: type[RequestError]
) -> None:
    assert_refused(engine, way, options, param, error)


def test_a_grammar_that_is_too_large_is_an_error_before_the_first_token(engine: Engine) -> None:
    """F25: there, a schema took all memory."""
    with pytest.raises(GrammarError, match="response cannot be enforced: no complete answer was found that fits"):
        engine.chat([USER], response=Grammar.regex("(a{1000}){1000}"))
