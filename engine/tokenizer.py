"""Text to token ids and back, and the bytes behind each token.

The rule: bytes are literal. A token's bytes are what it adds to the output, wherever it stands: no leading space is
stripped, no special token is hidden, and text is these bytes, joined and read as UTF-8. The grammar library reads
tokens alike.
"""

import codecs
import copy
import functools
import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import jinja2.meta
import tokenizers
from jinja2 import nodes
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from engine.errors import ModelNotFoundError, RequestError, UnsupportedModelError
from engine.gguf import GGUFVocabulary
from engine.gguf_tokenizer import SPACE, gguf_backend
from engine.tekken import tekken_backend, tekken_version

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

BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")


class Tokenizer:
    """One model's vocabulary. Immutable; any thread may use it."""

    def __init__(
        self, fast: PreTrainedTokenizerFast, extra_eos_ids: Iterable[int] = (), *, tekken_version: str | None = None
    ) -> None:
        """fast: the tokenizer as transformers loads it. extra_eos_ids: from the model's configs.

        tekken_version: what tekken.json names, where it came from there.
        """
        self.tekken_version = tekken_version
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
        version = tekken_version(path / "tekken.json") if _is_tekken(path) else None
        return cls(_load_folder(path), _config_eos_ids(path), tekken_version=version)

    @classmethod
    def from_gguf(cls, vocabulary: GGUFVocabulary) -> "Tokenizer":
        """Build it from what a GGUF file says. Raises UnsupportedModelError for a kind that is not known here."""
        backend = gguf_backend(vocabulary)
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

    @functools.cached_property
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

    def ids_in(self, literals: Iterable[str]) -> frozenset[int]:
        """Of the tokens that are one symbol each, those that stand in some of the literals."""
        text = "\n".join(literals)
        return frozenset(id_ for spelling, id_ in self.unspellable.items() if spelling in text)

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
        """The ids of texts that follow one another; nothing is recognised or merged across their borders."""
        ids = self.encode(parts[0])
        for part in parts[1:]:
            ids += self._without_first_space.encode(part, add_special_tokens=False).ids
        return ids

    @functools.cached_property
    def _without_first_space(self) -> tokenizers.Tokenizer:
        """The same tokenizer, but for the space that SentencePiece puts before a text."""
        data = json.loads(self._backend.to_str())
        prepended = [part for part in _parts(data["normalizer"], "normalizers") if part["type"] == "Prepend"]
        spaced = [part for part in _parts(data["pre_tokenizer"], "pretokenizers") if part["type"] == "Metaspace"]
        if not prepended and not spaced:
            return self._backend
        for part in prepended:
            part |= {"type": "Replace", "pattern": {"String": SPACE}, "content": SPACE}
        for part in spaced:
            part["prepend_scheme"] = "never"
        return tokenizers.Tokenizer.from_str(json.dumps(data))

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
        text = str(self._backend.to_str())
        if not any(map(_is_spaces, self._backend.get_added_tokens_decoder().values())):
            return text
        # The grammar library would take the stand-ins of an added token for the character itself.
        data = json.loads(text)
        data["added_tokens"] = [
            each for each in data["added_tokens"] if each["special"] or set(each["content"]) != {SPACE}
        ]
        return json.dumps(data, ensure_ascii=False)

    def backend_json(self) -> str:
        """The tokenizer.json text of this very tokenizer, without padding and truncation, for the grammar library."""
        return self._backend_json

    def detokenizer(self) -> "Detokenizer":
        """A fresh incremental decoder."""
        return Detokenizer(self)


def _parts(steps: dict[str, Any] | None, name: str) -> list[dict[str, Any]]:
    """The steps of a tokenizer's part, which may be one or several."""
    return [] if steps is None else steps.get(name, [steps])


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
    literal = {token_id for token_id, token in added.items() if not _is_spaces(token)}
    for text, token_id in vocabulary.items():
        found[token_id] = text.encode() if token_id in literal else to_bytes(text)
    return tuple(found)


def _is_spaces(token: tokenizers.AddedToken) -> bool:
    """Whether it is one of Gemma's tokens for several spaces, which are added ones, written with the stand-in."""
    return not token.special and set(token.content) == {SPACE}


def _is_byte_level(backend: tokenizers.Tokenizer) -> bool:
    """Byte-level BPE, else SentencePiece style; told apart by the decoder. UnsupportedModelError if neither."""
    # The state of this part alone: the whole backend's text takes seconds to read.
    decoder = None if backend.decoder is None else json.loads(backend.decoder.__getstate__())
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


OTHER_FILES = ("tokenizer.json", "tokenizer.model")


def _is_tekken(path: Path) -> bool:
    """Whether tekken.json is what there is to load."""
    return (path / "tekken.json").is_file() and not any((path / name).is_file() for name in OTHER_FILES)


def _load_folder(path: Path) -> PreTrainedTokenizerFast:
    names = (*OTHER_FILES, "tekken.json")
    if not any((path / name).is_file() for name in names):
        raise ModelNotFoundError(f"the folder {path} has none of {', '.join(names)}")
    if _is_tekken(path):
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
