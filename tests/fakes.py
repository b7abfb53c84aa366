"""A small vocabulary and a model of integer arithmetic, so that the engine is tested without weights and exactly."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field

import mlx.core as mx
import numpy as np
from tokenizers import AddedToken, decoders, models, pre_tokenizers, trainers
from tokenizers import Tokenizer as Backend
from transformers import PreTrainedTokenizerFast

from engine.cache import Cache
from engine.model import LoadedModel
from engine.tokenizer import Tokenizer

EOS = "<|im_end|>"

PLAIN_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
HERMES_TEMPLATE = (
    "{% if tools %}<|im_start|>system\nAnswer in <tool_call></tool_call>.\n"
    "{% for tool in tools %}{{ tool | tojson }}\n{% endfor %}<|im_end|>\n{% endif %}"
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}"
    "{% for call in message.tool_calls or [] %}"
    '<tool_call>\n{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}\n</tool_call>'
    "{% endfor %}<|im_end|>\n{% endfor %}<|im_start|>assistant\n"
)

CORPUS = [
    '<tool_call>\n{"name": "calculate", "arguments": {"expression": "12 * 3"}}\n</tool_call>',
    '<tool_call>\n{"name": "web_search", "arguments": {"query": "weather in Paris", "num_results": 5}}\n</tool_call>',
    "The answer is 42. You can call these tools, one JSON object a line:",
    '{"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}',
] * 2


@functools.cache
def fake_tokenizer(*, hermes: bool = False, num_merges: int = 160) -> Tokenizer:
    """Byte-level BPE with a few hundred tokens; hermes: the markers are single special tokens."""
    backend = Backend(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    special = ["<|im_start|>", EOS, *(["<tool_call>", "</tool_call>"] if hermes else [])]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(
        CORPUS,
        trainers.BpeTrainer(
            vocab_size=len(alphabet) + num_merges, initial_alphabet=alphabet, show_progress=False, special_tokens=[]
        ),
    )
    backend.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in special])
    fast = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=EOS)
    fast.chat_template = HERMES_TEMPLATE if hermes else PLAIN_TEMPLATE
    return Tokenizer(fast)


@dataclass
class FakeCache:
    """Remembers the tokens themselves."""

    tokens: list[int] = field(default_factory=list)

    @property
    def num_tokens(self) -> int:
        return len(self.tokens)

    def arrays(self) -> list[mx.array]:
        return []


@dataclass
class FakeModel:
    """Logits are integers made from the tokens seen so far, so a lost, doubled or misplaced token shows at once.

    They are spread like Gumbel noise with scale 100: the greedy token is a draw from softmax(bonus / 100).
    """

    vocab_size: int
    bonus: Mapping[int, int] = field(default_factory=dict)  # token id -> added to its logit, everywhere
    phrases: Mapping[tuple[int, ...], int] = field(default_factory=dict)  # ids -> added to each next one of them
    seed: int = 0
    context_length: int = 4096
    num_forward_passes: int = 0
    widths: list[int] = field(default_factory=list)  # tokens of each forward pass

    def make_cache(self) -> FakeCache:
        return FakeCache()

    def forward(self, tokens: mx.array, cache: Cache, *, num_logits: int) -> mx.array:
        assert isinstance(cache, FakeCache)
        assert tokens.shape[0] == 1
        assert tokens.shape[1] > 0
        self.num_forward_passes += 1
        self.widths.append(tokens.shape[1])
        before = len(cache.tokens)
        cache.tokens += tokens[0].tolist()
        ends = range(len(cache.tokens) - num_logits + 1, len(cache.tokens) + 1)
        assert not num_logits or ends[0] > before
        rows = [self.logits_after(cache.tokens[:end]) for end in ends]
        return mx.array(np.array(rows, dtype=np.float32).reshape(1, num_logits, self.vocab_size))

    def logits_after(self, tokens: list[int]) -> np.ndarray:
        """(V,) integers: what the model says after these tokens."""
        noise = np.random.default_rng([self.seed, *tokens]).gumbel(scale=100, size=self.vocab_size)
        logits = np.round(noise)
        for token, bonus in self.bonus.items():
            logits[token] += bonus
        for phrase, bonus in self.phrases.items():
            for length in range(len(phrase)):
                if tuple(tokens[len(tokens) - length :]) == phrase[:length]:
                    logits[phrase[length]] += bonus
        return logits


def fake_loaded(
    *,
    hermes: bool = False,
    bonus: Mapping[str, int] | None = None,
    phrases: Mapping[str, int] | None = None,
    seed: int = 0,
    padding: int = 7,
) -> LoadedModel:
    """A fake model with its tokenizer. The logits are padded.

    bonus: text -> points for its first token, everywhere. phrases: text -> points for going on with it, once begun.
    """
    tokenizer = fake_tokenizer(hermes=hermes)
    by_token = {tokenizer.encode(text)[0]: points for text, points in (bonus or {}).items()}
    by_phrase = {tuple(tokenizer.encode(text)): points for text, points in (phrases or {}).items()}
    return LoadedModel("fake", FakeModel(tokenizer.num_tokens + padding, by_token, by_phrase, seed), tokenizer)
