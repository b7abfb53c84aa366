"""engine.structured: values of a type, whole, in parts and in batches. What goes wrong is an error, not a value."""

import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal

import outlines.types
import pytest
from outlines.types import CFG, Choice, JsonSchema, Regex, either
from pydantic import AfterValidator, BaseModel, Field

from engine.config import EngineConfig
from engine.engine import Engine
from engine.errors import (
    BudgetError,
    EngineClosedError,
    GenerationError,
    GrammarError,
    QueueFullError,
    RequestError,
    SchemaError,
)
from engine.events import Enforcement, StopReason
from engine.model import LoadedModel
from engine.structured import Answer, BatchError, OutputError, answer, answers, batch, generate, stream
from engine.types import Grammar, Message, Request, Role, SamplingParams
from tests.fakes import USER, Gate, fake_loaded, fake_model, fake_that_writes, with_hook

# At this temperature the fake's noise is sampled from, and not merely followed.
SAMPLED = SamplingParams(temperature=100, seed=3)


class Pet(BaseModel):
    name: str = Field(max_length=8)
    lives: int = Field(ge=0, le=9)


class Person(BaseModel):
    name: str = Field(max_length=8)
    age: int = Field(ge=0, le=150)
    pets: list[Pet] = Field(max_length=2)


def noise(seed: int = 0) -> LoadedModel:
    """A model that ends strings, lists and objects soon."""
    return fake_loaded(bonus={'"': 400, "]": 400, "}": 400}, seed=seed)


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with Engine(noise()) as engine:
        yield engine


def test_a_model_type_gives_an_instance_of_it() -> None:
    with Engine(fake_that_writes('{"name": "Ada", "age": 36, "pets": []}')) as engine:
        assert generate(engine, "who?", Person) == Person(name="Ada", age=36, pets=[])


def test_an_answer_has_the_value_and_what_it_was_read_from(engine: Engine) -> None:
    found = answer(engine, "who?", Person, sampling=SAMPLED)
    assert found.completion.text is not None
    assert Person.model_validate_json(found.completion.text) == found.value
    assert found.completion.usage.completion_tokens > 0
    assert found.completion.seed == SAMPLED.seed
    assert {entry.enforcement for entry in found.completion.receipt.entries} <= set(Enforcement)


def test_a_string_is_one_user_message_and_a_list_is_the_conversation(engine: Engine) -> None:
    one = answer(engine, "hi", Person, sampling=SAMPLED).completion
    for messages in ([USER], [{"role": "user", "content": "hi"}]):
        again = answer(engine, messages, Person, sampling=SAMPLED).completion
        cached = replace(one.usage, cached_tokens=again.usage.cached_tokens)  # what came before decides that alone
        assert again == replace(one, usage=cached)
    system = Message(Role.SYSTEM, "Be brief.")
    longer = answer(engine, [system, USER], Person, sampling=SAMPLED).completion
    assert longer.usage.prompt_tokens > one.usage.prompt_tokens


def test_a_seed_gives_the_same_value_again_and_another_another(engine: Engine) -> None:
    seeded = [
        generate(engine, "who?", Person, sampling=SamplingParams(temperature=100, seed=seed)) for seed in (1, 1, 2)
    ]
    assert seeded[0] == seeded[1]
    assert seeded[0] != seeded[2]


JSON_SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}


@pytest.mark.parametrize(
    ("output_type", "text", "value"),
    [
        (int, "12", 12),
        (Literal["a", "b"], '"b"', "b"),
        (JSON_SCHEMA, '{"n": 3}', {"n": 3}),
        (Grammar.json_schema(JSON_SCHEMA), '{"n": 3}', {"n": 3}),
        (Grammar.choice(["yes", "no"]), "no", "no"),
        (Grammar.regex("[0-9]+"), "12", "12"),
        (Regex("[0-9]{2}"), "12", "12"),
        (Regex(""), "", ""),
        (CFG('start: "a" "b"+'), "abb", "abb"),
        (Choice(["x", 3, 1.5]), "3", 3),
        (JsonSchema(JSON_SCHEMA), '{"n": 3}', {"n": 3}),
        ("No. " + outlines.types.digit.exactly(2), "No. 12", "No. 12"),
        (either("a", Regex("b+")), "bb", "bb"),
        (Regex("b").optional() + Regex("c").at_least(2), "ccc", "ccc"),
        (Regex("b").between(1, 2) + Regex("c").at_most(1), "bb", "bb"),
        (Regex("b").one_or_more() + Regex("c").zero_or_more(), "bcc", "bcc"),
        (Choice([int, "x"]), "-4", "-4"),
        (outlines.types.email, "ada@example.org", "ada@example.org"),
        (outlines.types.ipv4, "127.0.0.1", "127.0.0.1"),
        (outlines.types.date, "2026-01-31", "2026-01-31"),
    ],
    ids=repr,
)
def test_terms_grammars_and_schemas_give_their_values(output_type: object, text: str, value: object) -> None:
    with Engine(fake_that_writes(text)) as engine:
        found = answer(engine, "go", output_type)
    assert (found.completion.text or "", found.value) == (text, value)


@pytest.mark.parametrize("output_type", [Regex("[a-z]{2}[0-9]{2}"), outlines.types.uuid4, outlines.types.hex_color])
def test_whatever_a_random_model_writes_matches_the_term(engine: Engine, output_type: Regex) -> None:
    texts = [generate(engine, "go", output_type, sampling=SamplingParams(temperature=100, seed=s)) for s in range(4)]
    assert len(set(texts)) == 4
    assert all(map(output_type.matches, texts))


@pytest.mark.parametrize(
    ("output_type", "reason"),
    [
        (either("none", JsonSchema({"type": "integer"})), "a JSON schema inside another term would lose keywords"),
        (Choice([Pet]), "a JSON schema inside another term would lose keywords"),
        (Regex("a") + CFG('start: "b"'), "Cannot convert object CFG"),
        (JsonSchema({"type": "integer"}, whitespace_pattern="[ ]?"), "leave whitespace_pattern out"),
    ],
    ids=repr,
)
def test_a_term_that_cannot_be_enforced_as_it_is_is_refused(engine: Engine, output_type: object, reason: str) -> None:
    with pytest.raises(RequestError, match=reason) as refused:
        generate(engine, "go", output_type)
    assert refused.value.param == "output_type"


@pytest.mark.parametrize(
    ("output_type", "error"),
    [(Regex("("), GrammarError), (outlines.types.isbn, GrammarError), (Choice([]), GrammarError)],
    ids=repr,
)
def test_a_grammar_that_does_not_compile_is_refused_before_the_first_token(
    engine: Engine, output_type: object, error: type[RequestError]
) -> None:
    with pytest.raises(error):
        stream(engine, "go", output_type)


def test_a_schema_that_cannot_be_enforced_names_the_keyword_by_path(engine: Engine) -> None:
    with pytest.raises(SchemaError) as refused:
        generate(engine, "go", {"properties": {"a": {"$dynamicRef": "#a"}}})
    assert refused.value.param == "response.properties.a.$dynamicRef"


def test_sampling_and_max_tokens_are_checked_as_everywhere(engine: Engine) -> None:
    with pytest.raises(RequestError, match="max_tokens is 0"):
        generate(engine, "go", int, max_tokens=0)
    with pytest.raises(RequestError, match="sampling is"):
        generate(engine, "go", int, sampling={"temperature": 1})  # type: ignore[call-overload]
    with pytest.raises(RequestError, match="messages"):
        generate(engine, [], int)


def test_an_answer_that_cannot_be_complete_in_its_budget_is_refused_with_the_least_one() -> None:
    """F1, F2."""
    with Engine(fake_that_writes("a" * 40)) as engine:
        with pytest.raises(BudgetError, match="max_tokens is 3; the shortest complete answer") as refused:
            generate(engine, "go", Regex("a{40}b?"), max_tokens=3)
        assert generate(engine, "go", Regex("a{40}b?"), max_tokens=refused.value.least) in ("a" * 40, "a" * 40 + "b")


def test_an_answer_that_cannot_be_complete_in_the_models_context_is_refused() -> None:
    loaded = fake_loaded()
    fake_model(loaded).context_length = 64
    with Engine(loaded) as engine, pytest.raises(GrammarError, match=r"that fits into the context behind \d+ prompt"):
        generate(engine, "go", Regex("[a-z]{20000}"))


def refuse_odd(value: int) -> int:
    if value % 2:
        raise ValueError(f"{value} is odd")
    return value


def test_a_validator_that_refuses_is_an_error_with_the_completion() -> None:
    even = Annotated[int, AfterValidator(refuse_odd)]
    with Engine(fake_that_writes("13")) as engine, pytest.raises(OutputError, match="13 is odd") as refused:
        generate(engine, "go", even)
    assert refused.value.completion.text == "13"


# --- Streams


def is_beginning(partial: object, whole: object) -> bool:
    """Whether a value is what is known of another at some time while that is written."""
    if isinstance(partial, str) and isinstance(whole, str):
        return whole.startswith(partial)
    if isinstance(partial, list) and isinstance(whole, list):
        pairs = list(zip(partial, whole, strict=False))
        begun = all(is_beginning(*pair) for pair in pairs)
        return begun and len(pairs) == len(partial) and all(one == other for one, other in pairs[:-1])
    if isinstance(partial, Mapping) and isinstance(whole, Mapping):
        return is_beginning([list(each) for each in partial.items()], [list(each) for each in whole.items()])
    return type(partial) is type(whole) and partial == whole


def test_a_beginning_is_told_from_what_is_none() -> None:
    whole = {"a": "xyz", "b": [12, {"c": None}]}
    for partial in ({}, {"a": "x"}, {"a": "xyz"}, {"a": "xyz", "b": [12, {}]}, whole):
        assert is_beginning(partial, whole)
    for other in ({"b": []}, {"a": "y"}, {"a": "x", "b": []}, {"a": "xyz", "b": [1]}, [], {**whole, "d": 1}):
        assert not is_beginning(other, whole)


@pytest.mark.parametrize(
    "output_type", [Person, list[Pet], dict[Literal["a", "b"], list[float]], str, int, bool | None]
)
def test_a_streams_partial_values_are_beginnings_of_the_truth_and_end_in_the_value(
    engine: Engine, output_type: Any
) -> None:
    for seed in range(5):
        sampling = SamplingParams(temperature=100, seed=seed)
        with stream(engine, "go", output_type, sampling=sampling) as values:
            *partial, last = list(values)
        whole = answer(engine, "go", output_type, sampling=sampling)
        assert values.answer() == whole
        assert last == whole.value
        assert whole.completion.text is not None
        known = [*partial, json.loads(whole.completion.text)]
        assert all(is_beginning(one, other) for one, other in itertools.pairwise(known))


def test_a_stream_gives_a_field_as_soon_as_it_is_written() -> None:
    text = '{"name": "Ada", "age": 36, "pets": []}'
    with Engine(fake_that_writes(text)) as engine, stream(engine, "who?", Person) as values:
        seen = list(values)
    assert {"name": "Ada"} in seen
    assert {"name": "Ada", "age": 36} in seen
    assert {"name": "Ada", "age": 3} not in seen
    assert all(one != other for one, other in itertools.pairwise(seen))
    assert seen[-1] == Person(name="Ada", age=36, pets=[])


def test_a_stream_of_text_gives_the_text_so_far(engine: Engine) -> None:
    with stream(engine, "go", Regex("[a-z]{12}"), sampling=SAMPLED) as values:
        *partial, last = list(values)
    assert len(last) == 12
    assert len(partial) > 1
    assert partial == sorted(set(partial), key=len)
    assert all(last.startswith(text) for text in partial)


def test_leaving_a_stream_cancels_what_is_left() -> None:
    gate = Gate()
    with Engine(with_hook(noise(), gate)) as engine:
        with stream(engine, "go", list[Person], sampling=SAMPLED) as values:
            gate.let_through(1)
        gate.open()
        with pytest.raises(OutputError, match="cancelled") as cancelled:
            list(values)
    assert cancelled.value.completion.stop_reason is StopReason.CANCELLED


def test_a_stream_that_cannot_be_complete_in_its_budget_is_refused_before_it_begins(engine: Engine) -> None:
    with pytest.raises(BudgetError, match="max_tokens is 1") as refused:
        stream(engine, "go", list[Person], max_tokens=1)
    with stream(engine, "go", list[Person], max_tokens=refused.value.least) as values:
        assert all(isinstance(person, Person) for person in values.answer().value)


# --- Batches

PROMPTS = [f"Who is number {number}?" for number in range(12)]


def test_a_batch_gives_what_each_prompt_gives_alone_in_order(engine: Engine) -> None:
    values = batch(engine, PROMPTS, Person, sampling=SAMPLED)
    assert values == [generate(engine, prompt, Person, sampling=SAMPLED) for prompt in PROMPTS]
    assert len({value.model_dump_json() for value in values}) > 1


def test_answers_have_each_prompts_completion(engine: Engine) -> None:
    found = answers(engine, PROMPTS[:3], Person, sampling=SAMPLED)
    assert [each.completion.text for each in found] == [
        answer(engine, prompt, Person, sampling=SAMPLED).completion.text for prompt in PROMPTS[:3]
    ]


def test_no_prompts_give_no_values(engine: Engine) -> None:
    assert batch(engine, [], Person) == []


def test_a_batch_may_be_longer_than_the_engines_queue() -> None:
    with Engine(noise(), config=EngineConfig(max_running=1, max_waiting=2)) as engine:
        values = batch(engine, PROMPTS, Pet, sampling=SAMPLED)
        assert values == [generate(engine, prompt, Pet, sampling=SAMPLED) for prompt in PROMPTS]


def test_a_batch_for_which_others_leave_no_place_says_so() -> None:
    gate = Gate()
    with Engine(with_hook(noise(), gate), config=EngineConfig(max_running=1, max_waiting=1)) as engine:
        others = [engine.submit(Request((USER,)))]
        assert gate.arrived.acquire(timeout=30)  # one runs
        others.append(engine.submit(Request((USER,))))  # and one waits
        with pytest.raises(BatchError) as full:
            batch(engine, PROMPTS[:2], Pet)
        for other in others:
            other.cancel()
        gate.open()
    assert [type(each) for each in full.value.outcomes] == [QueueFullError, QueueFullError]


def test_one_prompts_error_is_kept_and_leaves_the_others_alone(engine: Engine) -> None:
    prompts = [PROMPTS[0], "much too long " * 5000, [{"role": "nobody", "content": "hi"}], PROMPTS[1]]
    with pytest.raises(BatchError) as failed:
        batch(engine, prompts, Pet, sampling=SAMPLED)
    first, too_long, nobody, last = failed.value.outcomes
    assert isinstance(first, Answer)
    assert isinstance(last, Answer)
    alone = answers(engine, PROMPTS[:2], Pet, sampling=SAMPLED)
    # Not their usage: how much was cached and how many passes it took depends on who ran beside them.
    assert [(each.value, each.completion.text) for each in (first, last)] == [
        (each.value, each.completion.text) for each in alone
    ]
    assert "context" in str(too_long)
    assert "role" in str(nobody)
    assert "2 of 4 prompts have no answer; prompts[1]: " in str(failed.value)


def test_a_type_to_blame_is_raised_at_once_and_not_once_a_prompt(engine: Engine) -> None:
    with pytest.raises(SchemaError):
        batch(engine, PROMPTS, {"$dynamicRef": "#a"})
    with pytest.raises(GrammarError):
        batch(engine, PROMPTS, Regex("("))


def test_prompts_that_are_no_list_are_refused(engine: Engine) -> None:
    with pytest.raises(RequestError, match="prompts is 'hi'; it must be a list of prompts"):
        batch(engine, "hi", Person)


def test_a_failing_model_fails_every_prompt_by_the_engines_own_error() -> None:
    def fail(_: int) -> None:
        raise RuntimeError("no device")

    with Engine(with_hook(noise(), fail)) as engine, pytest.raises(BatchError) as failed:
        batch(engine, PROMPTS[:2], Pet)
    assert [type(each) for each in failed.value.outcomes] == [GenerationError, GenerationError]


def test_a_closed_engine_is_an_error() -> None:
    engine = Engine(noise())
    engine.close()
    with pytest.raises(EngineClosedError):
        generate(engine, "go", int)


@pytest.mark.embedded
def test_the_embedded_model_gives_a_value_of_the_type(embedded_model: LoadedModel) -> None:
    with Engine(embedded_model) as engine:
        found = answer(engine, "Who wrote 'On the Origin of Species'? Name and age.", Pet, max_tokens=40)
    assert isinstance(found.value, Pet)
    assert found.completion.usage.forced_tokens > 0
