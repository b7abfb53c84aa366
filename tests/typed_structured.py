"""What a type checker sees of engine.structured: checked by mypy (`make check`), never run."""

from typing import Any, Literal, assert_type

from pydantic import BaseModel

from engine.engine import Engine
from engine.structured import Answer, Stream, answer, answers, batch, generate, stream


class Person(BaseModel):
    """Somebody."""

    name: str


def check(engine: Engine) -> None:
    """A class, or a generic of one, gives its own values; forms that are no class give Any."""
    assert_type(generate(engine, "who?", Person), Person)
    assert_type(generate(engine, "which?", list[int]), list[int])
    assert_type(generate(engine, "how many?", int, max_tokens=5), int)
    assert_type(generate(engine, "which?", Literal["a"]), Any)
    assert_type(generate(engine, "what?", {"type": "object"}), Any)
    assert_type(answer(engine, "who?", Person), Answer[Person])
    assert_type(answer(engine, "who?", Person).value, Person)
    assert_type(stream(engine, "who?", Person), Stream[Person])
    assert_type(stream(engine, "who?", Person).answer().value, Person)
    assert_type(batch(engine, ["who?"], Person), list[Person])
    assert_type(answers(engine, ["who?"], Person), list[Answer[Person]])
