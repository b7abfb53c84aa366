"""F4, F14, F18, F29: what an answer costs, counted, and what guesses at it may change."""

from collections.abc import Iterator
from typing import Any

import pytest
from llguidance import LLParserLimits

from engine.config import EngineConfig
from engine.grammars import llguidance_backend
from engine.grammars.json_schema import check_schema
from engine.grammars.schema_limits import DEFAULT_LIMITS
from tests.api.servers import WEATHER, call_text, fake_that_answers, function_tool
from tests.fakes import EOS, fake_loaded, fake_model, fake_tokenizer
from tests.field.surfaces import Answer, Surface, surfaces

PARAMETERS = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 8}, "days": {"type": "integer", "minimum": 1, "maximum": 9}},
    "required": ["city", "days"],
}
FORECAST = function_tool("get_forecast", PARAMETERS)
TURN = "<think>\nHm, hm.\n</think>\n\n{call}"
ATLANTIS = call_text("get_weather", '{"city": "Atlantis", "days": 3}')
PARIS = call_text("get_weather", '{"city": "Paris", "days": 3}')


UNBOUNDED = 300  # lexer states that suffice for any string without a bound
COUNTED = 10 * DEFAULT_LIMITS.max_length  # ... with the longest bound that the grammar counts; a tenth of the limit


@pytest.mark.parametrize(
    ("bounds", "max_states"),
    [({}, UNBOUNDED), ({"maxLength": 100_000}, UNBOUNDED), ({"maxLength": DEFAULT_LIMITS.max_length}, COUNTED)],
    ids=["none", "100,000", "10,000"],
)
def test_a_long_string_costs_few_lexer_states_and_items_whatever_its_bound(
    bounds: dict[str, int], max_states: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F4: there, masks took 300 times as long."""
    few = LLParserLimits(max_items_in_row=20, max_lexer_states=max_states, verbose_errors=False)
    monkeypatch.setattr(llguidance_backend, "_limits", lambda: few)
    tokenizer = fake_tokenizer()
    compiler = llguidance_backend.LLGuidanceCompiler(tokenizer.backend_json(), eos_ids=sorted(tokenizer.eos_ids))
    checked = check_schema({"type": "string", **bounds}, "r")
    matcher = compiler.compile(f"start: {checked.lark()}", param="r")
    matcher.accept(tokenizer.encode('"' + "xé 12." * 1_600))  # would raise MatcherError


@pytest.mark.parametrize("seed", range(3))
def test_a_call_takes_no_more_forward_passes_than_as_much_free_text(surface_name: str, seed: int) -> None:
    """F14: there, speed collapsed under constraint."""
    loaded = fake_loaded(seed=seed, bonus={EOS: -(10**6)})
    model = fake_model(loaded)
    with surfaces(loaded, EngineConfig(drafts=False, prompt_cache_memory=0)) as each:
        call = each[surface_name].ask(tools=[FORECAST], tool_choice="required", parallel_tool_calls=False)
        num_constrained = model.num_forward_passes
        free = each[surface_name].ask(max_tokens=call.usage["completion_tokens"])
        num_free = model.num_forward_passes - num_constrained
    assert call.names == ["get_forecast"]
    assert free.usage["completion_tokens"] == call.usage["completion_tokens"]
    assert num_constrained == call.usage["forward_passes"] < num_free


@pytest.fixture(scope="module", params=[True, False], ids=["drafts", "no drafts"])
def drafting(request: pytest.FixtureRequest) -> Iterator[tuple[bool, dict[str, Surface]]]:
    """The model writes the user's last message but its first word, so that guesses from the prompt are right."""
    loaded = fake_that_answers(_behind_first_word, hermes=False, reasons=True)
    with surfaces(loaded, EngineConfig(drafts=request.param, prompt_cache_memory=0)) as each:
        yield request.param, each


def _behind_first_word(prompt: str) -> str:
    said = prompt.rpartition("<|im_start|>user\n")[2].partition("<|im_end|>")[0]
    return said.partition(" ")[2]


@pytest.mark.parametrize("wanted", [PARIS, ATLANTIS], ids=["legal", "illegal"])
def test_what_is_drafted_over_the_end_of_the_reasoning_is_checked_token_by_token(
    drafting: tuple[bool, dict[str, Surface]], surface_name: str, wanted: str
) -> None:
    """F18: there, speculation ignored the grammar where reasoning ended inside a draft."""
    has_drafts, each = drafting
    answer = repeated(each[surface_name], TURN.format(call=wanted))
    (arguments,) = answer.arguments
    assert (answer.error, answer.reasoning) == (None, "Hm, hm.")
    assert arguments["city"] == "Paris" or wanted == ATLANTIS
    assert arguments["city"] in ("Paris", "Rome")
    # Without drafts, the tokens that are not forced take a pass each.
    num_sampled = answer.usage["completion_tokens"] - answer.usage["forced_tokens"]
    assert (answer.usage["forward_passes"] < num_sampled / 2) == has_drafts


def repeated(surface: Surface, turn: str) -> Answer:
    messages = [{"role": "user", "content": f"Say {turn}"}]
    return surface.ask(messages=messages, tools=[WEATHER], tool_choice="required", parallel_tool_calls=False)


def test_usage_counts_the_prompts_tokens_that_an_earlier_request_had_computed(surface_name: str) -> None:
    """F29: there, it was always 0."""
    body: dict[str, Any] = {"tools": [WEATHER], "tool_choice": "required", "max_tokens": 200}
    with surfaces(fake_loaded(), EngineConfig()) as each:
        first, again = (each[surface_name].ask(**body) for _ in range(2))
    assert first.usage["cached_tokens"] == 0
    assert again.usage["cached_tokens"] == first.usage["prompt_tokens"] - 1  # the last one's logits are wanted
    assert again.calls == first.calls


def test_usage_counts_what_was_written(parrot: Surface) -> None:
    """F29."""
    text = "Hello you, 日本."
    usage = parrot.ask(messages=[{"role": "user", "content": text}], max_tokens=100).usage
    assert usage["completion_tokens"] == len(fake_loaded().tokenizer.encode(text))
    cut = parrot.ask(messages=[{"role": "user", "content": text}], max_tokens=3).usage
    assert cut["completion_tokens"] == 3
    assert cut["prompt_tokens"] == usage["prompt_tokens"] > 0
