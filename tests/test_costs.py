"""What a call costs, counted; and the host's share of a step, in CPU time of its thread."""

import time
from collections.abc import Sequence as Rows
from dataclasses import dataclass, field, replace
from pathlib import Path

import mlx.core as mx
import pytest

from engine.capacity import rounded_up
from engine.config import EngineConfig
from engine.engine import Engine
from engine.model import Chunk, load
from engine.types import SamplingParams
from tests.fakes import EOS, SEARCH, USER, FakeCache, FakeModel, fake_loaded
from tests.stepping import make_sequence, stepper_of
from tests.test_parity import LONG, weather_request
from tests.tiny_models import random_weights, write_folder

ALONE = EngineConfig(drafts=False, prompt_cache_memory=0)
VOCABULARY = 128_000


@pytest.mark.parametrize("hermes", [False, True], ids=["plain", "hermes"])
def test_a_call_waits_once_a_pass_and_computes_each_position_once(hermes: bool) -> None:
    config = replace(ALONE, look_ahead=False)  # else the end of a longer value may cost a pass
    with Engine(fake_loaded(hermes=hermes, bonus={'"': 300}), config=config) as engine:
        usage = engine.chat([USER], tools=[SEARCH], tool_choice="required", parallel_tool_calls=False).usage
        work = engine.load_now().work

    assert work.num_passes == usage.forward_passes == usage.completion_tokens - usage.forced_tokens
    assert work.num_waits == work.num_steps == work.num_passes
    assert usage.prompt_tokens < work.num_positions <= usage.prompt_tokens + usage.completion_tokens
    assert work.num_padding == 0


def test_a_call_alone_moves_no_byte_of_cache(tmp_path: Path) -> None:
    loaded = load(write_folder(tmp_path / "model", LONG, random_weights(LONG)), cache_dir=tmp_path)
    with Engine(loaded, config=ALONE) as engine:
        request = replace(weather_request("Is it warm in Rome?"), max_tokens=100)
        usage = engine.submit(request).completion().usage
        load_now = engine.load_now()
    assert usage.forward_passes > 1
    assert usage.prompt_tokens + usage.completion_tokens <= rounded_up(usage.prompt_tokens)  # else its slots grow
    assert load_now.bytes_moved == 0


def test_eight_calls_at_once_take_few_more_passes_than_one() -> None:
    loaded = fake_loaded(bonus={EOS: -(10**6)})
    with Engine(loaded, config=ALONE) as engine:
        calls = [
            engine.stream(
                [USER],
                tools=[SEARCH],
                tool_choice="required",
                parallel_tool_calls=False,
                sampling=SamplingParams(100, seed=seed),
            )
            for seed in range(8)
        ]
        usages = [call.completion().usage for call in calls]
        work = engine.load_now().work
    assert work.num_passes < sum(usage.forward_passes for usage in usages) / 2
    assert work.num_padding < work.num_positions / 4


@dataclass
class Weightless(FakeModel):
    """Logits that cost nothing: what a step takes is the engine's own."""

    logits: mx.array = field(default_factory=lambda: mx.zeros((0, 0)))

    def forward(self, chunks: Rows[Chunk], drawn: mx.array | None = None) -> mx.array:
        assert drawn is None
        for chunk in chunks:
            assert isinstance(chunk.cache, FakeCache)
            chunk.cache.tokens += chunk.tokens
        return self.logits[: sum(chunk.num_logits for chunk in chunks)]


@pytest.mark.parametrize("grammar", [None, "start: /(?s:.)*/"], ids=["free", "constrained"])
def test_the_host_takes_less_than_a_millisecond_of_cpu_a_step_besides_the_forward_pass(grammar: str | None) -> None:
    logits = mx.random.normal((1, VOCABULARY), key=mx.random.key(0))
    mx.eval(logits)
    loaded = fake_loaded()
    loaded = replace(loaded, model=Weightless(VOCABULARY, logits=logits))
    stepper = stepper_of(loaded, look_ahead=False)
    sequence = make_sequence(loaded, grammar=grammar)
    sequence.max_tokens, sequence.eos_ids = 10**6, frozenset()
    for _ in range(10):
        stepper.step([sequence], max_chunk=512)

    start = time.thread_time()
    for _ in range(100):
        stepper.step([sequence], max_chunk=512)
    assert (time.thread_time() - start) / 100 < 1e-3


def test_the_time_of_the_steps_is_split_into_its_parts() -> None:
    with Engine(fake_loaded(), config=ALONE) as engine:
        engine.chat([USER], tools=[SEARCH], tool_choice="required")
        work = engine.load_now().work
    parts = (work.forward_s, work.mask_s, work.sample_s, work.python_s)
    assert all(part > 0 for part in parts)
    assert sum(parts) == pytest.approx(work.step_s)
