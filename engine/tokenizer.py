"""Text to token ids and back, and the bytes behind each token.

The rule: bytes are literal. A token's bytes are what it adds to the output, wherever it stands: no leading space is
stripped, no special token is hidden, and text is these bytes, joined and read as UTF-8. The grammar library reads
tokens alike.
"""

import codecs
import copy
import functools
import itertools
import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import jinja2.meta
import tokenizers
from jinja2 import nodes
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from engine.errors import ModelNotFoundError, RequestError, UnsupportedModelError
from engine.gguf import GGUFVocabulary
from engine.tekken import tekken_backend

# Special tokens that end a turn in every chat format that has them, whatever eos_token says. "<|end|>" is not among
# them: it ends Phi's turn, but only one message of harmony's.
# fmt: off
END_OF_TURN = [
    "<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|eot|>", "<|eom|>", "<end_of_turn>", "<turn|>", "<|endoftext|>",
    "<|return|>", "<|call|>", "<start_function_response>", "<｜end▁of▁sentence｜>", "<|user|>", "<|observation|>",
    "[e~[",
]
# fmt: on

# What a chat template reads but a request must not set: it has its own place, or would show the model what no grammar
# knows of.
OWN_TEMPLATE_NAMES = frozenset(
    {
        "messages",
        "tools",
        "documents",
        "add_generation_prompt",
        "continue_final_message",
        "bos_token",
        "eos_token",
        "unk_token",
        "pad_token",
        "sep_token",
        "cls_token",
        "mask_token",
        "image_token",
        "additional_special_tokens",
        "raise_exception",
        "strftime_now",
        "namespace",
        "builtin_tools",
        "custom_tools",
        "xml_tools",
        "python_tools",
        "tools_in_user_message",
        "functions",
        "controls",
        "tool_choice",
        "available_tools",
        "system_message",
        "chat_template",
        "tokenize",
        "padding",
        "truncation",
        "return_dict",
    }
)
GENERATION_TAG = re.compile(r"\{%-?\s*(?:end)?generation\s*-?%\}")

SPACE = "\u2581"  # SentencePiece's stand-in for a space
BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")


class Tokenizer:
    """One model's vocabulary. Immutable; any thread may use it."""

    def __init__(self, fast: PreTrainedTokenizerFast, extra_eos_ids: Iterable[int] = ()) -> None:
        """fast: the tokenizer as transformers loads it. extra_eos_ids: from the model's configs."""
        self.fast = fast  # for functions of transformers and mlx_lm that want their own kind
        self._backend = tokenizers.Tokenizer.from_str(fast.backend_tokenizer.to_str())
        self._backend.no_padding()
        self._backend.no_truncation()
        self._added = {token.content: id_ for id_, token in self._backend.get_added_tokens_decoder().items()}
        self._bytes = _token_bytes(self._backend)
        special = (id_ for id_, token in self._backend.get_added_tokens_decoder().items() if token.special)
        self.special_ids = frozenset(special)
        self.eos_ids = self._eos_ids(extra_eos_ids)

    def _eos_ids(self, extra: Iterable[int]) -> frozenset[int]:
        named = {self._added[text] for text in END_OF_TURN if text in self._added} & self.special_ids
        own = {self.fast.eos_token_id} - {None}
        return frozenset(id_ for id_ in named | own | set(extra) if id_ < self.num_tokens)

    @classmethod
    def from_folder(cls, path: Path) -> "Tokenizer":
        """The tokenizer of a model folder (tokenizer.json, tokenizer.model or tekken.json, and the chat template).

        Raises ModelNotFoundError where none lies there, UnsupportedModelError where it cannot be read.
        """
        return cls(_load_folder(path), _config_eos_ids(path))

    @classmethod
    def from_gguf(cls, vocabulary: GGUFVocabulary) -> "Tokenizer":
        """Build it from what a GGUF file says. Raises UnsupportedModelError for a kind that is not known here."""
        backend = _gguf_backend(vocabulary)
        special = {
            name: vocabulary.tokens[id_]
            for name, id_ in (
                ("bos_token", vocabulary.bos_id),
                ("eos_token", vocabulary.eos_id),
                ("unk_token", vocabulary.unknown_id),
                ("pad_token", vocabulary.pad_id),
            )
            if id_ is not None
        }
        fast = PreTrainedTokenizerFast(tokenizer_object=backend, clean_up_tokenization_spaces=False, **special)
        fast.chat_template = vocabulary.chat_template
        return cls(fast, [] if vocabulary.eot_id is None else [vocabulary.eot_id])

    @property
    def unspellable(self) -> Mapping[str, int]:
        """Added tokens that the grammar library treats as one symbol, never as text: special ones, and all <...>."""
        return {
            text: id_
            for text, id_ in self._added.items()
            if id_ in self.special_ids or (text.startswith("<") and text.endswith(">"))
        }

    @property
    def added(self) -> Collection[str]:
        """The spellings of all added tokens, special or not."""
        return self._added.keys()

    @property
    def num_tokens(self) -> int:
        """The largest id plus one; ids between may be unused."""
        return len(self._bytes)

    @property
    def chat_template(self) -> str | None:
        """The model's own chat template, Jinja source; of several, the one for tools."""
        template: str | Mapping[str, str] | None = self.fast.chat_template
        if isinstance(template, Mapping):
            return template.get("tool_use", template.get("default"))
        return template

    def encode(self, text: str) -> list[int]:
        """Token ids. Special tokens written in the text are recognised; none is added."""
        return list(self._backend.encode(text, add_special_tokens=False).ids)

    def encode_parts(self, parts: Sequence[str]) -> list[int]:
        """The ids of texts that follow one another, in which nothing is recognised or merged across their borders.

        Raises RequestError where the tokenizer cannot write a text that does not stand at the beginning.
        """
        ids = self.encode(parts[0])
        for part in parts[1:]:
            ids += self._encode_inside(part)
        return ids

    def _encode_inside(self, text: str) -> list[int]:
        """Without the space that SentencePiece puts before a text."""
        for first in (None, *sorted(self.special_ids)[:1]):
            ids = self.encode(text if first is None else self.token_bytes(first).decode() + text)
            ids = ids if first is None else ids[1:]
            if b"".join(map(self.token_bytes, ids)) == text.encode():
                return ids
            if ids and self.token_bytes(ids[0]) == b" " and not text.startswith(" "):
                return ids[1:]
        message = "a message spells a special token, which this tokenizer cannot write as ordinary text"
        raise RequestError(message, param="messages")

    @functools.cached_property
    def spelled_tokens(self) -> re.Pattern[str]:
        """Where a text spells special tokens, or others that are one symbol each; the longest first."""
        spellings = {text for text, id_ in self._added.items() if id_ in self.special_ids} | self.unspellable.keys()
        texts = sorted((text for text in spellings if len(text) > 1), key=len, reverse=True)
        return re.compile("|".join(map(re.escape, texts)) or "(?!)")

    def with_template(self, chat_template: str | None) -> "Tokenizer":
        """The same vocabulary with another chat template."""
        other, other_fast = copy.copy(self), copy.copy(self.fast)
        other_fast.chat_template = chat_template
        other.fast = other_fast
        other.__dict__.pop("template_options", None)
        return other

    def decode(self, ids: Iterable[int]) -> str:
        """The tokens' bytes as text, special tokens included; U+FFFD for what is not UTF-8."""
        return b"".join(map(self.token_bytes, ids)).decode("utf-8", "replace")

    def token_bytes(self, token_id: int) -> bytes:
        """What the token adds to the output. Empty for an id that is not in use; IndexError past num_tokens."""
        return self._bytes[token_id]

    def token_id(self, text: str) -> int | None:
        """The id of the added token (special or not) with exactly this content."""
        return self._added.get(text)

    @functools.cached_property
    def template_options(self) -> frozenset[str]:
        """Names that the chat template reads and that a request may set, such as enable_thinking."""
        if self.chat_template is None:
            return frozenset()
        source = GENERATION_TAG.sub("", self.chat_template)
        try:
            tree = jinja2.Environment(extensions=["jinja2.ext.loopcontrols"]).parse(source)
        except jinja2.TemplateError:
            return frozenset()  # rendering says what is wrong with it
        read = jinja2.meta.find_undeclared_variables(tree) - OWN_TEMPLATE_NAMES
        set_by_itself = {name.name for name in tree.find_all(nodes.Name) if name.ctx == "store"}
        asked_for = {
            test.node.name
            for test in tree.find_all(nodes.Test)
            if test.name in ("defined", "undefined") and isinstance(test.node, nodes.Name)
        }
        return frozenset(read - (set_by_itself - asked_for))

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None,
        options: Mapping[str, Any] | None = None,
    ) -> str:
        """The prompt text by the model's chat template, up to where the assistant's turn begins.

        messages, tools: in the shape of the OpenAI API. options: among template_options.
        Raises RequestError where the template refuses the messages, UnsupportedModelError where the model has none.
        """
        if self.chat_template is None:
            raise UnsupportedModelError("the model has no chat template")
        try:
            text = self.fast.apply_chat_template(
                [dict(message) for message in messages],
                tools=None if tools is None else [dict(tool) for tool in tools],
                chat_template=self.chat_template,
                add_generation_prompt=True,
                tokenize=False,
                **(options or {}),
            )
        except (jinja2.TemplateError, TypeError, LookupError, ValueError, AttributeError) as error:
            message = f"the model's chat template refuses these messages: {error}"
            raise RequestError(message, param="messages") from error
        return str(text)

    @functools.cached_property
    def _backend_json(self) -> str:
        return str(self._backend.to_str())

    def backend_json(self) -> str:
        """The tokenizer.json text of this very tokenizer, without padding and truncation."""
        return self._backend_json

    def detokenizer(self) -> "Detokenizer":
        """A fresh incremental decoder."""
        return Detokenizer(self)


class Detokenizer:
    """Text of one growing sequence of tokens. Never gives out half a character."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, token_id: int) -> str:
        """The text that this token completes; empty while a character is open."""
        return self._decoder.decode(self._tokenizer.token_bytes(token_id))

    def finish(self) -> str:
        """U+FFFD if a character is left open, else nothing."""
        return self._decoder.decode(b"", final=True)


# --- A token's bytes


def _token_bytes(backend: tokenizers.Tokenizer) -> tuple[bytes, ...]:
    added = backend.get_added_tokens_decoder()
    vocabulary = backend.get_vocab(with_added_tokens=True)
    to_bytes = _byte_level_bytes if _is_byte_level(backend) else _sentencepiece_bytes
    found = [b""] * (max(vocabulary.values()) + 1)
    for text, token_id in vocabulary.items():
        found[token_id] = text.encode() if token_id in added else to_bytes(text)
    return tuple(found)


def _is_byte_level(backend: tokenizers.Tokenizer) -> bool:
    """Byte-level BPE, else SentencePiece style; told apart by the decoder. UnsupportedModelError if neither."""
    decoder = json.loads(backend.to_str())["decoder"]
    parts = [] if decoder is None else decoder.get("decoders", [decoder])
    kinds = {part["type"] for part in parts}
    if "ByteLevel" in kinds:
        return True
    if kinds & {"ByteFallback", "Metaspace"}:
        return False
    found = ", ".join(sorted(kinds)) or "no decoder"
    raise UnsupportedModelError(
        f"the tokenizer has {found}; supported: byte-level BPE and SentencePiece with byte fallback"
    )


def _byte_level_bytes(text: str) -> bytes:
    table = _byte_of_char()
    # A character outside the table stands for itself; some vocabularies hold such tokens.
    return b"".join(bytes([table[char]]) if char in table else char.encode() for char in text)


def _sentencepiece_bytes(text: str) -> bytes:
    if match := BYTE_TOKEN.fullmatch(text):
        return bytes([int(match[1], 16)])
    return text.replace(SPACE, " ").encode()


@functools.cache
def _byte_of_char() -> Mapping[str, int]:
    # GPT-2's printable stand-ins: visible Latin-1 characters are themselves, the other bytes follow from U+0100 on.
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = (byte for byte in range(256) if byte not in visible)
    return {chr(byte): byte for byte in visible} | {chr(0x100 + i): byte for i, byte in enumerate(others)}


# --- From a folder


def _load_folder(path: Path) -> PreTrainedTokenizerFast:
    names = ("tokenizer.json", "tokenizer.model", "tekken.json")
    if not any((path / name).is_file() for name in names):
        raise ModelNotFoundError(f"the folder {path} has none of {', '.join(names)}")
    if not any((path / name).is_file() for name in names[:2]):
        return _load_tekken(path)
    # By tokenizer.json itself where there is one: AutoTokenizer may rebuild it by the rules of some class.
    loader = PreTrainedTokenizerFast if (path / "tokenizer.json").is_file() else AutoTokenizer
    try:
        fast: PreTrainedTokenizerBase = loader.from_pretrained(str(path), local_files_only=True)
    except Exception as error:  # the libraries below raise plain Exception for a malformed file
        raise UnsupportedModelError(f"the tokenizer in {path} cannot be read: {error}") from error
    if not isinstance(fast, PreTrainedTokenizerFast):
        raise UnsupportedModelError(f"the tokenizer in {path} is a {type(fast).__name__}, which has no fast form")
    return fast


def _load_tekken(path: Path) -> PreTrainedTokenizerFast:
    special = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    fast = PreTrainedTokenizerFast(tokenizer_object=tekken_backend(path / "tekken.json"), **special)
    template = path / "chat_template.jinja"
    fast.chat_template = template.read_text() if template.is_file() else None
    return fast


def _config_eos_ids(path: Path) -> set[int]:
    """eos_token_id, one or a list, of both configs: either may name ends that the other and the tokenizer do not."""
    found: set[int] = set()
    for file in (path / "config.json", path / "generation_config.json"):
        try:
            eos = json.loads(file.read_text()).get("eos_token_id") if file.is_file() else None
        except ValueError as error:
            raise UnsupportedModelError(f"{file} cannot be read: {error}") from error
        found.update(eos if isinstance(eos, list) else [] if eos is None else [eos])
    return found


# --- From a GGUF vocabulary

NORMAL, UNKNOWN, CONTROL, USER_DEFINED = 1, 2, 3, 4

LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@dataclass(frozen=True, slots=True)
class PreTokenizer:
    """How a family of byte-level BPE cuts text before merging."""

    names: frozenset[str]  # of tokenizer.ggml.pre
    split: str | None = None  # a regex of its own; None: GPT-2's
    digits_alone: bool = False
    composes: bool = False  # NFC first
    ignores_merges: bool = False  # a piece that is a token as a whole is not taken apart


PRE_TOKENIZERS = (
    PreTokenizer(frozenset({"default", "gpt-2"})),
    PreTokenizer(frozenset({"smollm"}), digits_alone=True),
    PreTokenizer(frozenset({"llama-bpe", "llama3", "llama-v3"}), split=LLAMA3_SPLIT, ignores_merges=True),
    PreTokenizer(frozenset({"qwen2"}), split=LLAMA3_SPLIT.replace(r"\p{N}{1,3}", r"\p{N}"), composes=True),
)


def _gguf_backend(vocabulary: GGUFVocabulary) -> tokenizers.Tokenizer:
    builders = {"gpt2": _byte_level_backend, "llama": _sentencepiece_backend}
    if vocabulary.model not in builders:
        supported = ", ".join(builders)
        raise UnsupportedModelError(f"tokenizer.ggml.model is {vocabulary.model!r}; supported: {supported}")
    backend = builders[vocabulary.model](vocabulary)
    kinds = {CONTROL: True, UNKNOWN: True, USER_DEFINED: False}  # token type -> special
    pairs = zip(vocabulary.tokens, vocabulary.token_types, strict=True)
    added = [AddedToken(text, special=kinds[kind], normalized=False) for text, kind in pairs if kind in kinds]
    backend.add_tokens(added)
    return backend


def _byte_level_backend(vocabulary: GGUFVocabulary) -> tokenizers.Tokenizer:
    family = next((family for family in PRE_TOKENIZERS if vocabulary.pre_tokenizer in family.names), None)
    if family is None:
        supported = ", ".join(sorted(itertools.chain.from_iterable(family.names for family in PRE_TOKENIZERS)))
        raise UnsupportedModelError(f"tokenizer.ggml.pre is {vocabulary.pre_tokenizer!r}; supported: {supported}")
    merges = [_pair(merge) for merge in vocabulary.merges]
    ids = {token: id_ for id_, token in enumerate(vocabulary.tokens)}
    backend = tokenizers.Tokenizer(models.BPE(ids, merges, ignore_merges=family.ignores_merges))
    if family.composes:
        backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = _byte_level_cuts(family)
    backend.decoder = decoders.ByteLevel()
    return backend


def _pair(merge: str) -> tuple[str, str]:
    left, _, right = merge.partition(" ")
    return left, right


def _byte_level_cuts(family: PreTokenizer) -> pre_tokenizers.PreTokenizer:
    steps: list[pre_tokenizers.PreTokenizer] = []
    if family.digits_alone:
        steps.append(pre_tokenizers.Digits(individual_digits=True))
    if family.split is not None:
        steps.append(pre_tokenizers.Split(Regex(family.split), "isolated"))
    steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=family.split is None))
    return pre_tokenizers.Sequence(steps)


def _sentencepiece_backend(vocabulary: GGUFVocabulary) -> tokenizers.Tokenizer:
    unknown = None if vocabulary.unknown_id is None else vocabulary.tokens[vocabulary.unknown_id]
    ids = {token: id_ for id_, token in enumerate(vocabulary.tokens)}
    model = models.BPE(ids, _merges_by_score(vocabulary), unk_token=unknown, fuse_unk=True, byte_fallback=True)
    backend = tokenizers.Tokenizer(model)
    prefix = [normalizers.Prepend(SPACE)] if vocabulary.add_space_prefix else []
    backend.normalizer = normalizers.Sequence([*prefix, normalizers.Replace(" ", SPACE)])
    parts = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    backend.decoder = decoders.Sequence(parts)
    return backend


def _merges_by_score(vocabulary: GGUFVocabulary) -> list[tuple[str, str]]:
    """SentencePiece merges two neighbours if their joint text is a token, the best score first."""
    ids = {
        t: i
        for i, (t, kind) in enumerate(zip(vocabulary.tokens, vocabulary.token_types, strict=True))
        if kind == NORMAL
    }
    if len(vocabulary.scores) != len(vocabulary.tokens):
        raise UnsupportedModelError("a SentencePiece vocabulary needs tokenizer.ggml.scores, one per token")
    splits = ((token, token[:cut], token[cut:]) for token in ids for cut in range(1, len(token)))
    found = [split for split in splits if split[1] in ids and split[2] in ids]
    found.sort(key=lambda split: (-vocabulary.scores[ids[split[0]]], ids[split[1]], ids[split[2]]))
    return [(left, right) for _, left, right in found]
