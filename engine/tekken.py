"""Byte-level BPE from ranked tokens, as Mistral's tekken.json holds it (and tiktoken's files do)."""

import base64
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers

from engine.errors import UnsupportedModelError

# Of files that do not list them: mistral-common's, up to tokenizer v7.
# fmt: off
SPECIAL_TOKENS = [
    "<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]",
    "[/TOOL_RESULTS]", "[TOOL_CALLS]", "[IMG]", "<pad>", "[IMG_BREAK]", "[IMG_END]", "[PREFIX]", "[MIDDLE]",
    "[SUFFIX]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[TOOL_CONTENT]",
]
# fmt: on


def tekken_version(path: Path) -> str | None:
    """The version that tekken.json names, such as "v11"; None where it names none."""
    try:
        version = json.loads(path.read_text())["config"].get("version")
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise UnsupportedModelError(f"{path} cannot be read: {error!r}") from error
    return version if isinstance(version, str) else None


def tekken_backend(path: Path) -> tokenizers.Tokenizer:
    """A tokenizer from tekken.json. Raises UnsupportedModelError where that cannot be read."""
    try:
        data = json.loads(path.read_text())
        config = data["config"]
        num_special = int(config["default_num_special_tokens"])
        num_ranked = int(config["default_vocab_size"]) - num_special
        ranked = [base64.b64decode(each["token_bytes"]) for each in data["vocab"][:num_ranked]]
        named = {each["rank"]: each["token_str"] for each in data.get("special_tokens") or ()}
        pattern = str(config["pattern"])
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise UnsupportedModelError(f"{path} cannot be read: {error!r}") from error
    named = named or dict(enumerate(SPECIAL_TOKENS))
    special = {named.get(rank, f"<SPECIAL_{rank}>"): rank for rank in range(num_special)}
    return ranked_backend(ranked, pattern, special, first_id=num_special)


def ranked_backend(
    ranked: Sequence[bytes], pattern: str, special: Mapping[str, int], *, first_id: int = 0
) -> tokenizers.Tokenizer:
    """A tokenizer from the tokens' bytes, best rank first. special: spellings -> ids. first_id: of the best rank."""
    ids = {_visible(token): first_id + rank for rank, token in enumerate(ranked)}
    vocabulary = {**{text: id_ for text, id_ in special.items() if id_ < first_id}, **ids}
    backend = tokenizers.Tokenizer(models.BPE(vocabulary, _merges(ranked), ignore_merges=True))
    split = pre_tokenizers.Split(Regex(pattern), "isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    backend.decoder = decoders.ByteLevel()
    in_order = sorted(special, key=special.__getitem__)
    backend.add_tokens([AddedToken(text, special=True, normalized=False) for text in in_order])
    return backend


def _merges(ranked: Sequence[bytes]) -> list[tuple[str, str]]:
    """Every way to put two tokens together to a third, in the order of its rank."""
    ranks = {token: rank for rank, token in enumerate(ranked)}
    merges: list[tuple[str, str]] = []
    for token in ranked:
        halves = ((token[:cut], token[cut:]) for cut in range(1, len(token)))
        pairs = sorted((ranks[left], ranks[right]) for left, right in halves if left in ranks and right in ranks)
        merges += [(_visible(ranked[left]), _visible(ranked[right])) for left, right in pairs]
    return merges


def _visible(token: bytes) -> str:
    """The token in byte-level BPE's printable characters."""
    return "".join(map(_CHARACTERS.__getitem__, token))


def _characters() -> list[str]:
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = iter(range(0x100, 0x200))
    return [chr(byte) if byte in visible else chr(next(others)) for byte in range(256)]


_CHARACTERS = _characters()
