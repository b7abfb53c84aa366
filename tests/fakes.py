"""A small vocabulary and a model of integer arithmetic, so that the engine is tested without weights and exactly."""

import functools
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import mlx.core as mx
import numpy as np
from tokenizers import AddedToken, decoders, models, pre_tokenizers, trainers
from tokenizers import Tokenizer as Backend
from transformers import PreTrainedTokenizerFast

from engine.cache import Part
from engine.errors import ConfigError, MatcherError
from engine.grammars.llguidance_backend import LLGuidanceCompiler
from engine.grammars.matcher import Matcher
from engine.model import Chunk, LoadedModel
from engine.tokenizer import Tokenizer
from engine.types import Message, Role, Tool, ToolChoice, ToolChoiceMode

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
    '<tool_call>\n{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}\n'
    "</tool_call>"
    "{% endfor %}<|im_end|>\n{% endfor %}{{ '<|im_start|>assistant\n' }}"  # Jinja drops a newline at a template's end
)

# At a template's end: opens the reasoning where opened is set, closes it where enable_thinking is off.
REASONING_PROMPT = (
    "{% if opened %}{{ '<think>\n' }}"
    "{% elif enable_thinking is defined and not enable_thinking %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
)

CORPUS = [
    '<tool_call>\n{"name": "calculate", "arguments": {"expression": "12 * 3"}}\n</tool_call>',
    '<tool_call>\n{"name": "web_search", "arguments": {"query": "weather in Paris", "num_results": 5}}\n</tool_call>',
    "The answer is 42. You can call these tools, one JSON object a line:",
    '{"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}',
] * 2


@functools.cache
def fake_tokenizer(
    *,
    hermes: bool = False,
    num_merges: int = 160,
    special_markers: bool = True,
    reasons: bool = False,
    added: tuple[str, ...] = (),
) -> Tokenizer:
    """Byte-level BPE with a few hundred tokens; hermes: the markers are single special tokens.

    special_markers: off makes them ordinary added tokens, as Qwen's are. reasons: with a template that knows <think>.
    added: texts that are one token each.
    """
    backend = Backend(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    special = {"<|im_start|>": True, EOS: True}
    if hermes:
        special |= {"<tool_call>": special_markers, "</tool_call>": special_markers}
    if hermes and reasons:
        special |= {"<think>": False, "</think>": False}
    special |= dict.fromkeys(added, False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(
        CORPUS,
        trainers.BpeTrainer(
            vocab_size=len(alphabet) + num_merges, initial_alphabet=alphabet, show_progress=False, special_tokens=[]
        ),
    )
    backend.add_tokens([AddedToken(text, special=is_special, normalized=False) for text, is_special in special.items()])
    fast = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=EOS)
    template = HERMES_TEMPLATE if hermes else PLAIN_TEMPLATE
    if reasons:
        shown = "{% if message.reasoning_content %}<think>\n{{ message.reasoning_content }}\n</think>\n\n{% endif %}"
        template = template.replace("{{ message.content }}", shown + "{{ message.content }}") + REASONING_PROMPT
    fast.chat_template = template
    return Tokenizer(fast)


@dataclass(eq=False)
class FakeCache:
    """Remembers the tokens themselves."""

    memory: "FakeMemory | None" = field(default=None, kw_only=True, repr=False)

    tokens: list[int] = field(default_factory=list)
    group: int = 0  # as with real slots, rows of another group need a pass of their own
    can_trim: bool = True
    is_released: bool = False

    @property
    def num_tokens(self) -> int:
        return len(self.tokens)

    def arrays(self) -> list[mx.array]:
        return []

    def trim(self, num_tokens: int) -> None:
        assert self.can_trim
        del self.tokens[len(self.tokens) - num_tokens :]

    def read(self, ranges: Sequence[tuple[int, int]]) -> list[Part]:
        assert self.can_trim or list(ranges) == [(0, len(self.tokens))]
        return [Part(self.tokens[start:stop], num_bytes=stop - start) for start, stop in ranges]

    def write(self, parts: Sequence[tuple[Part, int]]) -> None:
        assert not self.tokens
        self.tokens = [token for part, num_tokens in parts for token in part.content[:num_tokens]]

    def release(self) -> None:
        assert not self.is_released
        self.is_released = True
        if self.memory is not None:
            self.memory.caches.remove(self)


@dataclass
class FakeMemory:
    """Gives caches, and knows which are in use."""

    bytes_per_token: int = 1
    bytes_moved: int = 0
    can_batch: bool = True  # off: as with rotating caches
    caches: list[FakeCache] = field(default_factory=list)
    num_made: int = 0

    @property
    def can_cut(self) -> bool:
        return self.can_batch

    def make_cache(self) -> FakeCache:
        self.num_made += 1
        self.caches.append(
            FakeCache(group=0 if self.can_batch else self.num_made, can_trim=self.can_batch, memory=self)
        )
        return self.caches[-1]


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
    num_weights: int = 100
    can_batch: bool = True
    memories: list[FakeMemory] = field(default_factory=list)
    num_forward_passes: int = 0
    widths: list[int] = field(default_factory=list)  # of each forward pass: tokens of its longest row
    num_rows: list[int] = field(default_factory=list)  # of each forward pass

    def make_memory(self, *, kv_bits: int | None = None) -> FakeMemory:
        if kv_bits is not None:
            raise ConfigError(f"kv_bits is {kv_bits}; this fake has none")
        self.memories.append(FakeMemory(bytes_per_token=int(self.can_batch), can_batch=self.can_batch))
        return self.memories[-1]

    def fingerprint(self) -> str:
        return f"fake-{self.seed}"

    def forward(self, chunks: Sequence[Chunk], drawn: mx.array | None = None) -> mx.array:
        assert len({chunk.cache.group for chunk in chunks}) == 1
        if drawn is not None:
            assert all(len(chunk.tokens) == 1 for chunk in chunks)
            chunks = [replace(chunk, tokens=[int(token)]) for chunk, token in zip(chunks, drawn.tolist(), strict=True)]
        self.num_forward_passes += 1
        self.widths.append(max(len(chunk.tokens) for chunk in chunks))
        self.num_rows.append(len(chunks))
        logits = [row for chunk in chunks for row in self._append(chunk)]
        return mx.array(np.array(logits, dtype=np.float32).reshape(-1, self.vocab_size))

    def _append(self, chunk: Chunk) -> list[np.ndarray]:
        cache = chunk.cache
        assert isinstance(cache, FakeCache)
        assert not cache.is_released
        assert 0 <= chunk.num_logits <= len(chunk.tokens) > 0
        cache.tokens += chunk.tokens
        ends = range(len(cache.tokens) - chunk.num_logits + 1, len(cache.tokens) + 1)
        return [self.logits_after(cache.tokens[:end]) for end in ends]

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
    reasons: bool = False,
) -> LoadedModel:
    """A fake model with its tokenizer. The logits are padded.

    bonus: text -> points for its first token, everywhere. phrases: text -> points for going on with it, once begun.
    """
    tokenizer = fake_tokenizer(hermes=hermes, reasons=reasons)
    by_token = {tokenizer.encode(text)[0]: points for text, points in (bonus or {}).items()}
    by_phrase = {tuple(tokenizer.encode(text)): points for text, points in (phrases or {}).items()}
    return LoadedModel("fake", FakeModel(tokenizer.num_tokens + padding, by_token, by_phrase, seed), tokenizer)


def fake_model(loaded: LoadedModel) -> FakeModel:
    """The fake behind a loaded model, to look at what it was asked."""
    assert isinstance(loaded.model, FakeModel)
    return loaded.model


@dataclass
class HookedModel(FakeModel):
    """Calls a function before each forward pass, with the number of passes so far; it may wait or raise."""

    before_pass: Callable[[int], None] = lambda _: None

    def forward(self, chunks: Sequence[Chunk], drawn: mx.array | None = None) -> mx.array:
        self.before_pass(self.num_forward_passes)
        return super().forward(chunks, drawn)


def with_hook(loaded: LoadedModel, before_pass: Callable[[int], None]) -> LoadedModel:
    """The same fake, with the hook."""
    fake = fake_model(loaded)
    hooked = HookedModel(fake.vocab_size, fake.bonus, fake.phrases, fake.seed, before_pass=before_pass)
    return replace(loaded, model=hooked)


@dataclass
class ScriptedModel(FakeModel):
    """Says what a function of the tokens says."""

    script: Callable[[list[int]], Mapping[int, float]] = lambda _: {}  # token id -> its logit; the others have 0

    def logits_after(self, tokens: list[int]) -> np.ndarray:
        logits = np.zeros(self.vocab_size)
        for token, logit in self.script(tokens).items():
            logits[token] = logit
        return logits


def scripted(loaded: LoadedModel, script: Callable[[list[int]], Mapping[int, float]]) -> LoadedModel:
    """The same fake, with a script."""
    return replace(loaded, model=ScriptedModel(fake_model(loaded).vocab_size, script=script))


def fake_that_writes(text: str, *, hermes: bool = False, reasons: bool = False) -> LoadedModel:
    """A fake that writes this text, as its tokenizer cuts it, and then ends its turn."""
    loaded = fake_loaded(hermes=hermes, reasons=reasons)
    whole = loaded.tokenizer.encode(text + EOS)

    def script(tokens: list[int]) -> Mapping[int, float]:
        written = next(n for n in range(len(whole) - 1, -1, -1) if tokens[len(tokens) - n :] == whole[:n])
        return {whole[written]: 100}

    return scripted(loaded, script)


class Gate:
    """A hook that holds each forward pass until it is let through."""

    def __init__(self) -> None:
        self.arrived = threading.Semaphore(0)  # one for each pass that waits, or has waited, here
        self._may_pass = threading.Semaphore(0)
        self._is_open = threading.Event()

    def __call__(self, _: int) -> None:
        self.arrived.release()
        if not self._is_open.is_set():
            assert self._may_pass.acquire(timeout=30)

    def let_through(self, num_passes: int) -> None:
        self._may_pass.release(num_passes)

    def open(self) -> None:
        """Hold nothing any more."""
        self._is_open.set()
        self._may_pass.release(1)


@dataclass
class FailingMatcher:
    """A matcher that loses step: after some tokens it neither takes another nor says which may come."""

    inner: Matcher
    tokens_left: int

    def accept(self, tokens: Sequence[int]) -> None:
        self.tokens_left -= len(tokens)
        self._raise_if_lost(strictly=True)
        self.inner.accept(tokens)

    def _raise_if_lost(self, *, strictly: bool = False) -> None:
        if self.tokens_left < 0 or (self.tokens_left == 0 and not strictly):
            raise MatcherError("the matcher lost step")

    def validate(self, tokens: Sequence[int]) -> int:
        return self.inner.validate(tokens)

    def forced_tokens(self) -> list[int]:
        return self.inner.forced_tokens()[: self.tokens_left]

    def fill_bitmask(self, row: np.ndarray) -> None:
        self._raise_if_lost()
        self.inner.fill_bitmask(row)

    @property
    def grammar(self) -> Matcher:
        return self.inner.grammar

    @property
    def is_accepting(self) -> bool:
        return self.inner.is_accepting

    @property
    def is_terminated(self) -> bool:
        return self.inner.is_terminated

    @property
    def must_look_ahead(self) -> bool:
        return self.inner.must_look_ahead

    @property
    def wanted(self) -> tuple[str, ...]:
        return self.inner.wanted

    def copy(self) -> Self:
        return type(self)(self.inner.copy(), self.tokens_left)


class FailingCompiler(LLGuidanceCompiler):
    """Its matchers lose step after `tokens_left` tokens where the grammar has the word "faulty", as a tool's name."""

    tokens_left = 30

    def compile(self, source: str, *, param: str) -> Matcher:  # type: ignore[override]
        matcher = super().compile(source, param=param)
        return FailingMatcher(matcher, self.tokens_left) if "faulty" in source else matcher


# What most tests ask: short calls, which a model of noise ends soon.

USER = Message(Role.USER, "hi")
CALCULATE = Tool(
    "calculate",
    "Compute.",
    {"type": "object", "properties": {"expression": {"type": "string", "maxLength": 8}}, "required": ["expression"]},
)
SEARCH = Tool(
    "web_search",
    "Look something up.",
    {
        "type": "object",
        "properties": {
            "query": {"type": "string", "maxLength": 8},
            "num_results": {"type": "integer", "minimum": 1, "maximum": 5},
        },
        "required": ["query"],
    },
)
REQUIRED = ToolChoice(ToolChoiceMode.REQUIRED)
