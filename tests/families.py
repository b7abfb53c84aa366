"""What the family tests share: a vocabulary for each family, its matchers, its walks."""

import functools
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tokenizers import AddedToken
from tokenizers import Tokenizer as Backend
from transformers import PreTrainedTokenizerFast

from engine.errors import MatcherError
from engine.events import ReasoningDelta, TextDelta, ToolCallDelta, ToolCallEnd, ToolCallStart
from engine.grammars.llguidance_backend import LLGuidanceCompiler
from engine.grammars.matcher import Matcher
from engine.grammars.tool_format import Opening, ToolFormat
from engine.grammars.tool_formats import TOOL_FORMATS
from engine.grammars.turn import Turn, build_turn
from engine.grammars.turn_parser import ParsedEvent, TurnParser
from engine.tokenizer import Tokenizer
from engine.types import JsonObject, Message, Request, Role, Tool, ToolChoice, ToolChoiceMode
from tests.fakes import fake_tokenizer
from tests.material import real_tokenizer

# Families whose own tokenizer can be had. The others get a small vocabulary with their tokens.
OWN_VOCABULARY = {
    "plain": "gemma3",
    "hermes": "qwen3",
    "qwen3-coder": "qwen3",
    "cogito-llama": "llama3",
    "llama3-json": "llama3",
    "llama4-pythonic": "llama2",
    "mistral-v7": "tekken",
    "mistral-v11": "tekken",
    "mistral": "tekken",
    "harmony": "gptoss",
    "deepseek-v3": "deepseek_v3",
    "deepseek-v3.1": "deepseek_v3",
}
FAMILIES = {family.name: family for family in TOOL_FORMATS}
AUTO = ToolChoice()
TAGS = ("<think>", "</think>")
MORE_TOKENS = {  # of families that are not detected by their vocabulary
    "mistral-v3": ("[TOOL_CALLS]",),
    "llama3-python-tag": ("<|python_tag|>",),
    "glm-4.7": FAMILIES["glm"].tokens,
    "deepseek-v3.1": FAMILIES["deepseek-v3"].tokens,
}


def vocabulary_of(name: str) -> Tokenizer:
    """The family's own, or a small one with its tokens."""
    return real_tokenizer(OWN_VOCABULARY[name]) if name in OWN_VOCABULARY else small_vocabulary(name)


@functools.cache
def small_vocabulary(name: str, end: str = "<|im_end|>") -> Tokenizer:
    """A few hundred tokens, the family's among them, and one that ends a turn."""
    family = FAMILIES[name]
    fast = PreTrainedTokenizerFast(tokenizer_object=Backend.from_str(fake_tokenizer().backend_json()), eos_token=end)
    tokens = [*family.tokens, *TAGS, *MORE_TOKENS.get(name, ())]
    fast.backend_tokenizer.add_tokens([AddedToken(text, special=True, normalized=False) for text in tokens])
    return Tokenizer(fast)


def compiler_of(tokenizer: Tokenizer) -> LLGuidanceCompiler:
    """One for all tokenizers that differ in their chat template alone: it takes seconds to make."""
    return _compiler(tokenizer.backend_json(), tokenizer.eos_ids)


@functools.cache
def _compiler(backend_json: str, eos_ids: frozenset[int]) -> LLGuidanceCompiler:
    return LLGuidanceCompiler(backend_json, eos_ids=sorted(eos_ids))


@dataclass(frozen=True, eq=False)
class Setting:
    """One request to one family."""

    family: ToolFormat
    tools: tuple[Tool, ...]
    choice: ToolChoice = AUTO
    parallel: bool = True
    opening: Opening = Opening.NONE

    @property
    def tokenizer(self) -> Tokenizer:
        return vocabulary_of(self.family.name)

    @functools.cached_property
    def turn(self) -> Turn:
        asked = Request(
            messages=(Message(Role.USER, "hi"),),
            tools=self.tools,
            tool_choice=self.choice,
            parallel_tool_calls=self.parallel,
        )
        return build_turn(asked, self.family, self.tokenizer.unspellable, self.opening)

    def matcher(self) -> Matcher:
        matcher = self.turn.compile(compiler_of(self.tokenizer))
        assert matcher is not None
        return matcher

    def parser(self) -> TurnParser:
        return TurnParser(
            self.family,
            has_calls=self.turn.has_calls,
            special_tokens=self.tokenizer.unspellable,
            call_id=lambda index: f"call_{index}",
            schemas=self.turn.schemas,
            opening=self.opening,
        )

    def read(self, tokens: Sequence[int]) -> list[ParsedEvent]:
        parser, detokenizer, events = self.parser(), self.tokenizer.detokenizer(), list[ParsedEvent]()
        special = frozenset(self.tokenizer.unspellable.values())
        for token in tokens:
            events += parser.feed(detokenizer.feed(token), special=token in special)
        return [*events, *parser.finish()]

    def encode(self, text: str) -> list[int]:
        """Without the space that SentencePiece puts before a text."""
        return self.tokenizer.encode_parts(["", text])

    def accepts(self, tokens: Sequence[int]) -> bool:
        matcher = self.matcher()
        try:
            for token in tokens:
                matcher.accept([token])
        except MatcherError:
            return False
        return matcher.is_accepting


class OfModel(Setting):
    """A setting with a vocabulary of its own."""

    own: Tokenizer

    @property
    def tokenizer(self) -> Tokenizer:
        return self.own


@dataclass(frozen=True)
class Reading:
    """A turn's events, added up."""

    said: str
    thought: str
    calls: tuple[tuple[str, Any], ...]  # complete ones
    num_opened: int


def reading_of(events: Sequence[ParsedEvent]) -> Reading:
    names = {event.index: event.name for event in events if isinstance(event, ToolCallStart)}
    texts = dict.fromkeys(names, "")
    for event in events:
        if isinstance(event, ToolCallDelta):
            texts[event.index] += event.arguments
    ended = [event.index for event in events if isinstance(event, ToolCallEnd)]
    return Reading(
        "".join(event.text for event in events if isinstance(event, TextDelta)),
        "".join(event.text for event in events if isinstance(event, ReasoningDelta)),
        tuple((names[index], json.loads(texts[index])) for index in ended),
        len(names),
    )


# --- Random walks

SHORT = {"type": "string", "maxLength": 12}
POINT = {"type": "object", "properties": {"x": {"type": "number"}, "label": SHORT}, "required": ["x"]}
WALK_TOOLS = (
    Tool("clock"),
    Tool(
        "weather",
        "",
        {
            "type": "object",
            "properties": {
                "city": SHORT,
                "days": {"type": "integer", "minimum": 1, "maximum": 30},
                "exact": {"type": "boolean"},
                "unit": {"enum": ["C", "F", "kelvin"]},
            },
            "required": ["city"],
        },
    ),
    Tool(
        "store",
        "",
        {
            "type": "object",
            "properties": {
                "at": POINT,
                "tags": {"type": "array", "items": SHORT, "maxItems": 2},
                "note": {"anyOf": [SHORT, {"type": "null"}]},
            },
            "required": ["at", "tags"],
        },
    ),
)
HOSTILE = ["</tool_call>", "<tool_call>", '"}', "}}", "]", "\\", "\n", "😀", "日本", "</parameter>", ")", ", ", "'''"]
MAX_TOKENS = 260


@dataclass(frozen=True)
class Walk:
    """What one draw of random choices wrote."""

    setting: Setting
    tokens: tuple[int, ...]
    is_whole: bool  # it ended by itself
    reading: Reading

    @property
    def text(self) -> str:
        return self.setting.tokenizer.decode(self.tokens)


class Walker:
    """Chooses among the allowed tokens: often one of those that make structure, or that are hostile."""

    def __init__(self, setting: Setting, seed: int) -> None:
        self._setting = setting
        self._random = random.Random(seed)
        tokenizer = setting.tokenizer
        names = [key for tool in WALK_TOOLS for key in (tool.name, *(tool.parameters or {}).get("properties", {}))]
        pieces = [*setting.family.literals, *HOSTILE, *names, *'{}[]()":,0123456789truefalsn', ', "', ",", "d", ' "']
        self._favoured = {token for piece in pieces if piece for token in setting.encode(piece)}
        self._ends = tokenizer.eos_ids
        self._marker = setting.encode(setting.family.marker)
        self._begun: list[int] = []  # what is left of a marker that was begun
        self._row = np.zeros((tokenizer.num_tokens + 31) // 32, dtype=np.int32)

    def walk(self) -> Walk:
        matcher, tokens = self._setting.matcher(), list[int]()
        is_whole = False
        while len(tokens) < MAX_TOKENS and not is_whole:
            forced = [token for token in matcher.forced_tokens() if token not in self._ends]
            if forced:
                matcher.accept(forced)
                tokens += forced
            elif matcher.is_terminated or (token := self._choose(matcher)) in self._ends:
                is_whole = True
            else:
                matcher.accept([token])
                tokens.append(token)
        return Walk(self._setting, tuple(tokens), is_whole, reading_of(self._setting.read(tokens)))

    def _choose(self, matcher: Matcher) -> int:
        matcher.fill_bitmask(self._row)
        bits = np.unpackbits(self._row.view(np.uint8), bitorder="little")
        allowed = np.flatnonzero(bits)
        assert allowed.size
        assert allowed[-1] < self._setting.tokenizer.num_tokens
        if self._begun and bits[self._begun[0]]:
            return self._begun.pop(0)
        self._begun = list(self._marker) if self._random.random() < 0.1 else []
        if self._begun and bits[self._begun[0]]:
            return self._begun.pop(0)
        if self._random.random() < 0.15 and (ends := [end for end in self._ends if bits[end]]):
            return ends[0]
        favoured = [token for token in self._favoured if bits[token]]
        if favoured and self._random.random() < 0.75:
            return self._random.choice(favoured)
        return int(allowed[self._random.randrange(allowed.size)])


def settings_of(family: ToolFormat) -> Iterator[tuple[str, Setting]]:
    """The family's modes."""
    required = ToolChoice(ToolChoiceMode.REQUIRED)
    opening = Opening.BEFORE if family.reasoning is not None else Opening.NONE
    yield "auto", Setting(family, WALK_TOOLS, opening=opening)
    yield "required", Setting(family, WALK_TOOLS, choice=required)
    yield "named", Setting(family, WALK_TOOLS, choice=ToolChoice.named("store"), opening=opening)
    yield "one at a time", Setting(family, WALK_TOOLS, choice=required, parallel=False)


def arguments_schema(name: str) -> JsonObject:
    (tool,) = [tool for tool in WALK_TOOLS if tool.name == name]
    return {**(tool.parameters or {"type": "object"}), "additionalProperties": False}
