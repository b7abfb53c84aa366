"""`toolmask bench`: what it measures, over a fake, and what it prints."""

import json
import sys

import pytest
from rich.console import Console

from api import bench, cli
from api.bench import Answer, Round, measure, run_bench, summary
from api.bench_tools import TABLE, bench_tools
from engine.errors import ConfigError
from engine.events import Usage
from engine.model import LoadedModel
from tests.fakes import fake_loaded, fake_model


@pytest.fixture
def loaded() -> LoadedModel:
    """A fake with room for twenty tools, which its small vocabulary cuts into many tokens."""
    fake = fake_loaded(hermes=True, bonus={'"': 400, "}": 400}, phrases={"</tool_call>": 400})
    fake_model(fake).context_length = 30_000
    return fake


def answer(
    *, tokens: int = 10, forced: int = 4, passes: int = 6, decode_s: float = 2.0, first_s: float = 1.0
) -> Answer:
    usage = Usage(100, tokens, forced, passes)
    return Answer(usage, first_s, decode_s, num_decoded=tokens - 1, mask_s=0.003)


def test_every_round_has_tools_that_no_earlier_prompt_had() -> None:
    first, second = ({tool.name for tool in bench_tools(tag)} for tag in ("r0", "r1"))
    assert (len(first), first & second) == (len(TABLE), set())


def test_a_round_asks_for_the_first_token_twice_then_a_call_then_free_text(loaded: LoadedModel) -> None:
    (found,) = measure(loaded, 1, 64, Console(stderr=True))
    assert [one.usage.completion_tokens <= 1 for one in (found.cold, found.warm)] == [True, True]
    assert found.call.usage.forced_tokens > 0
    assert found.free.usage.forced_tokens == 0
    assert found.free.usage.completion_tokens <= found.call.usage.completion_tokens
    assert all(one.first_s > 0 and one.decode_s >= 0 for one in (found.cold, found.warm, found.call, found.free))
    assert found.call.mask_s > 0


def test_the_warm_question_finds_its_tools_in_the_prompt_cache(loaded: LoadedModel) -> None:
    (found,) = measure(loaded, 1, 64, Console(stderr=True))
    assert found.warm.usage.cached_tokens > 0.9 * found.warm.usage.prompt_tokens > found.cold.usage.cached_tokens


def test_what_is_forced_before_the_first_pass_is_not_decoded(loaded: LoadedModel) -> None:
    (found,) = measure(loaded, 1, 64, Console(stderr=True))
    assert found.call.num_decoded < found.call.usage.completion_tokens - 1  # the opening of the call is forced
    assert found.free.num_decoded == found.free.usage.completion_tokens - 1


def test_the_first_round_warms_up_and_is_not_counted(loaded: LoadedModel) -> None:
    assert len(measure(loaded, 2, 64, Console(stderr=True))) == 2


def test_the_summary_has_medians_with_the_least_and_the_most() -> None:
    rounds = [Round(*[answer(decode_s=seconds)] * 4) for seconds in (1.0, 3.0, 9.0)]
    found = summary(rounds)
    assert found["free_tokens_per_s"] == {"median": 3.0, "least": 1.0, "most": 9.0}
    assert (found["forced_share"], found["mask_ms_per_pass"]["median"], found["prompt_tokens"]) == (0.4, 0.5, 100)


def test_a_speed_that_no_round_had_is_not_made_up() -> None:
    nothing = answer(tokens=1)
    assert summary([Round(nothing, nothing, nothing, nothing)])["free_tokens_per_s"] is None


def test_the_result_is_the_last_line_as_json(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench, "load_shown", lambda *_: loaded)
    run_bench("fake", rounds=1, max_tokens=64, as_json=True)
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert {
        "model",
        "device",
        "versions",
        "free_tokens_per_s",
        "constrained_tokens_per_s",
        "forced_share",
    } <= result.keys()
    assert {"mask_ms_per_pass", "ttft_cold_s", "ttft_warm_s", "peak_mlx_bytes", "peak_resident_bytes"} <= result.keys()


def test_with_a_drafting_model_it_says_how_many_of_its_guesses_were_right(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small = fake_loaded(hermes=True, bonus={'"': 400, "}": 400}, phrases={"</tool_call>": 400})
    monkeypatch.setattr(bench, "load_shown", lambda name, *_: small if name == "small" else loaded)
    run_bench("fake", draft_model="small", rounds=1, max_tokens=64, as_json=True)
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["draft_model"] == small.name
    assert result["drafted_tokens"] >= result["accepted_tokens"] > 0
    assert fake_model(small).num_forward_passes > 0


def test_a_drafting_model_with_another_vocabulary_is_refused(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "load_shown", lambda name, *_: fake_loaded() if name == "small" else loaded)
    with pytest.raises(ConfigError, match="draft_model is fake; its vocabulary is not that of"):
        run_bench("fake", draft_model="small", rounds=1, max_tokens=64, as_json=False)


@pytest.mark.parametrize(("rounds", "max_tokens", "message"), [(0, 64, "--rounds is 0"), (1, 63, "--max-tokens is 63")])
def test_options_that_measure_nothing_are_refused(rounds: int, max_tokens: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        run_bench("fake", rounds=rounds, max_tokens=max_tokens, as_json=False)


def test_a_call_that_would_not_fit_is_refused_before_anything_is_measured(loaded: LoadedModel) -> None:
    with pytest.raises(ConfigError, match="--max-tokens is 16; this model's shortest call has 26"):
        measure(loaded, 1, 16, Console(stderr=True))
    assert fake_model(loaded).num_forward_passes == 0


def test_a_model_whose_context_is_too_short_for_the_tools_is_refused_in_these_words(loaded: LoadedModel) -> None:
    fake_model(loaded).context_length = 512
    with pytest.raises(ConfigError, match=r"the request with 20 tools .* the prompt has \d+ tokens; .* has 512"):
        measure(loaded, 1, 96, Console(stderr=True))


def test_every_option_of_bench_arrives(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    monkeypatch.setattr(cli, "run_bench", lambda *positional, **named: asked.append((positional, named)))
    options = "--model a --draft-model small --adapter tuned --rounds 2 --max-tokens 32 --json"
    monkeypatch.setattr(sys, "argv", ["toolmask", "bench", *options.split()])
    cli.main()
    numbers = {"rounds": 2, "max_tokens": 32, "as_json": True}
    assert asked == [(("a",), {"draft_model": "small", "adapter": "tuned", **numbers})]
