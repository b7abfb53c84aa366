"""A GGUF file's vocabulary as a tokenizer: byte-level BPE, or SentencePiece by its scores."""

import itertools
from dataclasses import dataclass

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers

from engine.errors import UnsupportedModelError
from engine.gguf import GGUFVocabulary

SPACE = "\u2581"  # SentencePiece's stand-in for a space

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


def gguf_backend(vocabulary: GGUFVocabulary) -> tokenizers.Tokenizer:
    """Raises UnsupportedModelError for a kind that is not known here."""
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
