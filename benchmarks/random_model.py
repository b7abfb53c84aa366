"""A model of seeded noise that leans towards what closes and opens JSON values, so that its walks go everywhere."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from engine.cache import Cache
from engine.model import LoadedModel
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

    def arrays(self) -> list[mx.array]:
        return []


@dataclass
class RandomModel:
    """Logits from a random generator keyed by seed and position."""

    vocab_size: int
    seed: int
    lean: NDArray[np.float32]  # (V,), added everywhere
    context_length: int = 100_000
    num_forward_passes: int = field(default=0)

    def make_cache(self) -> NoiseCache:
        return NoiseCache()

    def forward(self, tokens: mx.array, cache: Cache, *, num_logits: int) -> mx.array:
        """See engine.model.LanguageModel."""
        assert isinstance(cache, NoiseCache)
        cache.num_tokens += tokens.shape[1]
        self.num_forward_passes += 1
        noise = np.random.default_rng([self.seed, cache.num_tokens])
        rows = noise.standard_normal((1, num_logits, self.vocab_size), dtype=np.float32)
        return mx.array(rows + self.lean)


def random_model(tokenizer: Tokenizer, seed: int, mood: str) -> LoadedModel:
    """A loaded model of noise over this vocabulary. mood: a key of MOODS."""
    lean = np.zeros(tokenizer.num_tokens, dtype=np.float32)
    for text, points in MOODS[mood].items():
        lean[tokenizer.encode(text)[0]] += points
    return LoadedModel(f"noise {mood}", RandomModel(tokenizer.num_tokens, seed, lean), tokenizer)
