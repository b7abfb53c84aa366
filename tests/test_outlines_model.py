"""The engine as a model of Outlines: its Generator, its calls, its types; our masks."""

import dataclasses
import enum
import json
from collections.abc import Iterator
from typing import Any, Literal

import outlines
import outlines.types
import pytest
from genson import SchemaBuilder
from outlines.inputs import Chat
from outlines.types import CFG, Choice, JsonSchema, Regex
from outlines.types.dsl import python_types_to_terms
from pydantic import BaseModel, Field

from engine.engine import Engine
from engine.errors import BudgetError, RequestError
from engine.model import LoadedModel
from engine.outlines_model import ToolmaskModel, from_engine
from engine.types import SamplingParams
from tests.fakes import fake_loaded, fake_that_writes


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Pet(BaseModel):
    name: str = Field(max_length=8)
    lives: int = Field(ge=0, le=9)


@dataclasses.dataclass
class Point:
    x: float
    y: float


def add(a: int, b: int) -> int:
    raise AssertionError((a, b))


@pytest.fixture(scope="module")
def model() -> Iterator[ToolmaskModel]:
    """A model of noise that ends strings, lists and objects soon."""
    with Engine(fake_loaded(bonus={'"': 400, "]": 400, "}": 400, ")": 400})) as engine:
        yield from_engine(engine)


SAMPLED: dict[str, Any] = {"temperature": 100, "seed": 5, "max_tokens": 400}


@pytest.mark.parametrize(
    "output_type",
    [
        *(int, float, bool, str, Color, Literal["a", 1], int | None, list[bool], tuple[bool, Color], dict[Color, bool]),
        *(outlines.types.date, Regex("[ab]{3}"), Choice(["x", 3]), "No. " + outlines.types.digit, "literal", 5),
    ],
    ids=repr,
)
def test_a_type_is_written_in_the_form_that_outlines_gives_to_it(model: ToolmaskModel, output_type: Any) -> None:
    generator = outlines.Generator(model, output_type)
    texts = [generator("go", temperature=100, seed=seed, max_tokens=400) for seed in range(5)]
    assert all(python_types_to_terms(output_type).matches(text) for text in texts)


@pytest.mark.parametrize(
    "output_type",
    [Pet, Point, list[Pet], Pet | None, dict[str, Pet], tuple[Pet, ...], dict, JsonSchema(Pet), add],
    ids=repr,
)
def test_a_type_with_a_schema_is_written_as_json(model: ToolmaskModel, output_type: Any) -> None:
    text = model("go", output_type, **SAMPLED)
    assert isinstance(text, str)
    json.loads(text)


def test_a_schema_builder_is_a_schema() -> None:
    builder = SchemaBuilder()
    builder.add_object({"n": 1})
    with Engine(fake_that_writes('{"n": 7}')) as engine:
        assert from_engine(engine)("go", builder) == '{"n": 7}'


def test_a_models_call_is_the_generators(model: ToolmaskModel) -> None:
    text = model("go", Pet, **SAMPLED)
    assert text == outlines.Generator(model, Pet)("go", **SAMPLED)
    assert Pet.model_validate_json(text).model_dump_json() == text.replace(" ", "")


def test_without_a_type_the_text_is_free(model: ToolmaskModel) -> None:
    free = model("go", max_tokens=5)
    assert free == model.engine.chat([{"role": "user", "content": "go"}], max_tokens=5).text


def test_a_lark_grammar_bounds_the_text(model: ToolmaskModel) -> None:
    assert model("go", CFG('start: "a" "b"'), **SAMPLED) == "ab"


def test_a_streams_pieces_add_up_to_the_text(model: ToolmaskModel) -> None:
    for output_type in (Pet, Regex("[a-z]{12}")):
        pieces = list(outlines.Generator(model, output_type).stream("go", **SAMPLED))
        assert len(pieces) > 1
        assert all(pieces)
        assert "".join(pieces) == model("go", output_type, **SAMPLED)
        assert list(model.stream("go", output_type, **SAMPLED)) == pieces


def test_a_batch_gives_what_each_prompt_gives_alone_in_order(model: ToolmaskModel) -> None:
    prompts = ["one", "two", "three"]
    alone = [model(prompt, Pet, **SAMPLED) for prompt in prompts]
    assert outlines.Generator(model, Pet).batch(prompts, **SAMPLED) == alone
    assert model.batch(prompts, Pet, **SAMPLED) == alone


def test_a_chat_is_a_conversation(model: ToolmaskModel) -> None:
    chat = Chat([{"role": "system", "content": "Be brief."}])
    chat.add_user_message("go")
    sampling = SamplingParams(temperature=100, seed=5)
    written = model.engine.chat(chat.messages, sampling=sampling, max_tokens=9).text
    assert model(chat, temperature=100, seed=5, max_tokens=9) == written


@pytest.mark.parametrize("model_input", [["look", "here"], 5, None])
def test_an_input_that_is_neither_a_string_nor_a_chat_is_refused(model: ToolmaskModel, model_input: Any) -> None:
    with pytest.raises(RequestError, match=r"model_input is .*; it must be a string or an outlines Chat"):
        model(model_input)


@pytest.mark.parametrize(
    ("output_type", "reason"),
    [
        (bytes, "Type bytes is currently not supported"),
        (lambda x: x, "must have a type annotation"),
        (JsonSchema({"type": "integer"}, whitespace_pattern=" ?"), "leave whitespace_pattern out"),
        (Choice([Pet]), "would lose keywords"),
    ],
    ids=repr,
)
def test_a_type_that_cannot_be_enforced_is_refused(model: ToolmaskModel, output_type: Any, reason: str) -> None:
    with pytest.raises(RequestError, match=reason) as refused:
        model("go", output_type)
    assert refused.value.param == "output_type"
    assert "https://" not in str(refused.value)


def test_an_inference_argument_that_is_not_known_is_refused_by_name(model: ToolmaskModel) -> None:
    with pytest.raises(
        RequestError, match=r"'top_a' is no inference argument; allowed are max_tokens, temperature, top_p"
    ):
        model("go", Pet, top_a=1)


def test_a_budget_that_no_answer_fits_into_is_refused(model: ToolmaskModel) -> None:
    """F1, F2."""
    with pytest.raises(BudgetError, match="max_tokens is 2; the shortest complete answer") as refused:
        model("go", Pet, max_tokens=2)
    with pytest.raises(BudgetError, match="max_tokens is 2; the shortest complete answer"):
        list(model.stream("go", Pet, max_tokens=2))
    Pet.model_validate_json(model("go", Pet, max_tokens=refused.value.least))


@pytest.mark.embedded
def test_outlines_runs_on_the_embedded_model(embedded_model: LoadedModel) -> None:
    with Engine(embedded_model) as engine:
        generator = outlines.Generator(from_engine(engine), Literal["positive", "negative"])
        assert generator("Is this review positive or negative? 'Lovely!'") in ("positive", "negative")
