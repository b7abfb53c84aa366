"""A model of seeded noise that leans towards what closes and opens JSON values, so that its walks go everywhere."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from engine.errors import ConfigError
from engine.model import Chunk, LoadedModel
from engine.tokenizer import Tokenizer

# Text -> how much likelier its first token is, in standard deviations of the noise.
OPENING = {"{": 1.5, "[": 1.5, '"': 2.5, ", ": 3.0, ',"': 2.0, "<tool_call>": 4.0, "1": 1.5, "0": 1.0}
CLOSING = {'"': 4.5, "}": 4.5, "]": 4.5, '"}': 4.0, "}}": 3.0, '"]': 3.5, "0": 2.0, "null": 2.0, "</tool_call>": 3.0}
MOODS: Mapping[str, Mapping[str, float]] = {
    "noise": {},
    "opens": OPENING,
    "closes": CLOSING,
    "both": {text: max(OPENING.get(text, 0), CLOSING.get(text, 0)) for text in {**OPENING, **CLOSING}},
}


@dataclass
class NoiseCache:
    """Counts what it has seen."""

    num_tokens: int = 0
    group: int = 0  # all rows go together
    can_trim: bool = True

    def arrays(self) -> list[mx.array]:
        return []

    def trim(self, num_tokens: int) -> None:
        self.num_tokens -= num_tokens

    def release(self) -> None:
        self.num_tokens = 0


class NoiseMemory:
    """Room for counts."""

    can_cut = False
    bytes_per_token = 0
    bytes_moved = 0

    def make_cache(self) -> NoiseCache:
        return NoiseCache()


@dataclass
class RandomModel:
    """Logits from a random generator keyed by seed and position."""

    vocab_size: int
    seed: int
    lean: NDArray[np.float32]  # (V,), added everywhere
    context_length: int = 100_000

    def make_memory(self, *, kv_bits: int | None = None) -> NoiseMemory:
        """See engine.model.LanguageModel."""
        if kv_bits is not None:
            raise ConfigError(f"kv_bits is {kv_bits}; this model remembers counts")
        return NoiseMemory()

    def forward(self, chunks: Sequence[Chunk], drawn: mx.array | None = None) -> mx.array:
        """See engine.model.LanguageModel."""
        del drawn  # noise does not depend on it
        rows = [self._after(chunk) for chunk in chunks]
        return mx.array(np.concatenate(rows))

    def _after(self, chunk: Chunk) -> NDArray[np.float32]:
        assert isinstance(chunk.cache, NoiseCache)
        chunk.cache.num_tokens += len(chunk.tokens)
        noise = np.random.default_rng([self.seed, chunk.cache.num_tokens])
        return noise.standard_normal((chunk.num_logits, self.vocab_size), dtype=np.float32) + self.lean


def random_model(tokenizer: Tokenizer, seed: int, mood: str) -> LoadedModel:
    """A loaded model of noise over this vocabulary. mood: a key of MOODS."""
    lean = np.zeros(tokenizer.num_tokens, dtype=np.float32)
    for text, points in MOODS[mood].items():
        lean[tokenizer.encode(text)[0]] += points
    return LoadedModel(f"noise {mood}", RandomModel(tokenizer.num_tokens, seed, lean), tokenizer)
