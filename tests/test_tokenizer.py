import dataclasses
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from engine.errors import ModelNotFoundError, RequestError, UnsupportedModelError
from engine.gguf import GGUFVocabulary
from engine.model import LoadedModel
from engine.tokenizer import Tokenizer
from tests.tiny_models import CHAT_TEMPLATE, CONFIG, SPECIAL, byte_tokens, random_weights, write_folder

TEXTS = [
    "",
    " ",
    "Hello, world!",
    "the  abc\t\n\n x",
    "def f(x):\n    return x ** 2\n",
    "1234567890 12.5e-10 \u00bd \u00b2 \u0663\u0664",
    "na\u00efve \u65e5\u672c\u8a9e \U0001f600\u200d\U0001f469 e\u0301 \u2028\u00a0",
    "I'm you're IT'S",
    '<tool_call>\n{"name": "get", "arguments": {"x": [1, 2]}}\n</tool_call>',
]
USER = [{"role": "user", "content": "Hi"}]


def byte_level_vocabulary(**changes: Any) -> GGUFVocabulary:
    tokens = byte_tokens()
    vocabulary = GGUFVocabulary(
        model="gpt2",
        pre_tokenizer="gpt-2",
        tokens=tuple(tokens),
        token_types=(3,) * len(SPECIAL) + (1,) * (len(tokens) - len(SPECIAL)),
        scores=(),
        merges=("t h", "th e", "a b"),
        bos_id=None,
        eos_id=2,
        eot_id=None,
        unknown_id=None,
        pad_id=None,
        add_space_prefix=True,
        chat_template=CHAT_TEMPLATE,
    )
    return dataclasses.replace(vocabulary, **changes)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("models") / "tiny", CONFIG, random_weights(CONFIG))


@pytest.fixture(scope="module", params=["folder", "gguf"])
def tokenizer(request: pytest.FixtureRequest, folder: Path) -> Tokenizer:
    return Tokenizer.from_folder(folder) if request.param == "folder" else Tokenizer.from_gguf(byte_level_vocabulary())


@pytest.mark.parametrize("text", TEXTS)
def test_text_survives_encoding_and_decoding(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_merges_are_applied(tokenizer: Tokenizer) -> None:
    assert [tokenizer.token_bytes(id_) for id_ in tokenizer.encode("theab")] == [b"the", b"ab"]


def test_special_tokens_in_a_text_are_recognised_and_none_is_added(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode("<|im_start|>a<|im_end|>") == [1, *tokenizer.encode("a"), 2]
    assert len(tokenizer.encode("a")) == 1


def test_every_byte_is_some_token(tokenizer: Tokenizer) -> None:
    found = {tokenizer.token_bytes(id_) for id_ in range(tokenizer.num_tokens)}
    assert found >= {bytes([byte]) for byte in range(256)}


def test_ids_past_the_vocabulary_are_refused(tokenizer: Tokenizer) -> None:
    assert tokenizer.num_tokens == 262
    with pytest.raises(IndexError):
        tokenizer.token_bytes(262)


def test_special_tokens_are_known_by_their_content(tokenizer: Tokenizer) -> None:
    assert tokenizer.special_ids == {0, 1, 2}
    assert tokenizer.token_bytes(1) == b"<|im_start|>"
    assert tokenizer.token_id("<|im_end|>") == 2
    assert tokenizer.token_id("the") is None


def test_the_chat_formats_end_of_turn_counts_as_an_end(tokenizer: Tokenizer) -> None:
    assert tokenizer.eos_ids == {0, 2}  # <|endoftext|> and <|im_end|>


def test_a_half_character_waits_for_its_other_half(tokenizer: Tokenizer) -> None:
    detokenizer = tokenizer.detokenizer()
    assert [detokenizer.feed(id_) for id_ in tokenizer.encode("a\u00e9\U0001f600")] == [
        "a",
        "",
        "\u00e9",
        "",
        "",
        "",
        "\U0001f600",
    ]
    assert detokenizer.finish() == ""


def test_a_character_left_open_becomes_a_replacement_at_the_end(tokenizer: Tokenizer) -> None:
    detokenizer = tokenizer.detokenizer()
    text = "".join(detokenizer.feed(id_) for id_ in tokenizer.encode("ab\U0001f600")[:-1])
    assert (text, detokenizer.finish()) == ("ab", "\ufffd")


def test_the_serialised_backend_is_the_same_tokenizer(tokenizer: Tokenizer) -> None:
    backend = tokenizers.Tokenizer.from_str(tokenizer.backend_json())
    assert all(backend.encode(text, add_special_tokens=False).ids == tokenizer.encode(text) for text in TEXTS)
    assert (backend.padding, backend.truncation) == (None, None)


def test_the_prompt_ends_where_the_assistant_begins(tokenizer: Tokenizer) -> None:
    assert tokenizer.render(USER, None) == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"


def test_a_template_that_refuses_the_messages_is_the_callers_error() -> None:
    template = "{{ raise_exception('roles must alternate') }}"
    tokenizer = Tokenizer.from_gguf(byte_level_vocabulary(chat_template=template))
    with pytest.raises(RequestError, match="roles must alternate") as caught:
        tokenizer.render(USER, None)
    assert caught.value.param == "messages"


def test_a_template_receives_the_tools() -> None:
    template = "{% for tool in tools %}{{ tool.function.name }}{% endfor %}"
    tokenizer = Tokenizer.from_gguf(byte_level_vocabulary(chat_template=template))
    assert tokenizer.render(USER, [{"type": "function", "function": {"name": "add"}}]) == "add"


def test_without_a_template_nothing_is_rendered() -> None:
    tokenizer = Tokenizer.from_gguf(byte_level_vocabulary(chat_template=None))
    assert tokenizer.chat_template is None
    with pytest.raises(UnsupportedModelError, match="no chat template"):
        tokenizer.render(USER, None)


# --- From a folder


def test_the_ends_that_the_configs_name_count(folder: Path, tmp_path: Path) -> None:
    for file in folder.glob("tokenizer*"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "config.json").write_text(json.dumps({"eos_token_id": 66}))
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, 77]}))
    assert Tokenizer.from_folder(tmp_path).eos_ids == {0, 2, 66, 77}


def test_a_malformed_config_is_unsupported(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_bytes((folder / "tokenizer.json").read_bytes())
    (tmp_path / "generation_config.json").write_text("{")
    with pytest.raises(UnsupportedModelError, match="generation_config"):
        Tokenizer.from_folder(tmp_path)


def test_padding_and_truncation_of_a_folder_are_off(folder: Path, tmp_path: Path) -> None:
    backend = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    backend.enable_padding(length=8, pad_token="<|endoftext|>")
    backend.enable_truncation(2)
    backend.save(str(tmp_path / "tokenizer.json"))
    assert len(Tokenizer.from_folder(tmp_path).encode("xyz")) == 3


def test_a_folder_without_tokenizer_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"tokenizer\.json"):
        Tokenizer.from_folder(tmp_path)


def test_a_malformed_tokenizer_is_unsupported(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(UnsupportedModelError, match="cannot be read"):
        Tokenizer.from_folder(tmp_path)


def test_a_tokenizer_whose_bytes_are_not_known_is_unsupported(tmp_path: Path) -> None:
    backend = tokenizers.Tokenizer(models.WordPiece({"[UNK]": 0, "a": 1}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.decoder = decoders.WordPiece()
    backend.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(UnsupportedModelError, match="WordPiece"):
        Tokenizer.from_folder(tmp_path)


# --- From a GGUF vocabulary


@pytest.mark.parametrize(
    ("pre_tokenizer", "text", "pieces"),
    [
        ("gpt-2", "12345 x  y", ["12345", "\u0120x", "\u0120", "\u0120y"]),
        ("smollm", "12 x", ["1", "2", "\u0120x"]),
        ("llama-bpe", "12345 x\n\ny", ["123", "45", "\u0120x", "\u010a\u010a", "y"]),
        ("qwen2", "12 x", ["1", "2", "\u0120x"]),
    ],
)
def test_text_is_cut_as_the_family_does(pre_tokenizer: str, text: str, pieces: list[str]) -> None:
    tokenizer = Tokenizer.from_gguf(byte_level_vocabulary(pre_tokenizer=pre_tokenizer))
    backend = tokenizers.Tokenizer.from_str(tokenizer.backend_json())
    assert [piece for piece, _ in backend.pre_tokenizer.pre_tokenize_str(text)] == pieces


def test_user_defined_tokens_are_added_but_not_special() -> None:
    types = (3, 4, 3) + (1,) * 259
    tokenizer = Tokenizer.from_gguf(byte_level_vocabulary(token_types=types))
    assert tokenizer.special_ids == {0, 2}
    assert tokenizer.encode("<|im_start|>") == [1]


@pytest.mark.parametrize(("changes", "named"), [({"model": "bert"}, "bert"), ({"pre_tokenizer": "tekken"}, "tekken")])
def test_unknown_kinds_are_refused_with_the_known_ones(changes: dict[str, str], named: str) -> None:
    with pytest.raises(UnsupportedModelError, match=rf"{named}.*supported: .*(gpt2|qwen2)"):
        Tokenizer.from_gguf(byte_level_vocabulary(**changes))


@pytest.fixture(scope="module")
def pieces() -> sentencepiece.SentencePieceProcessor:
    """A SentencePiece BPE model, trained on the spot."""
    model = io.BytesIO()
    lines = [
        "the quick brown fox jumps over the lazy dog",
        "a fox, a dog and the other fox",
        "tools call the tools",
    ] * 9
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=model,
        model_type="bpe",
        vocab_size=340,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        minloglevel=2,
    )
    return sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())


def sentencepiece_vocabulary(pieces: sentencepiece.SentencePieceProcessor, **changes: Any) -> GGUFVocabulary:
    ids = range(pieces.vocab_size())
    kinds = [(pieces.is_unknown, 2), (pieces.is_control, 3), (pieces.is_byte, 6), (lambda _: True, 1)]
    types = tuple(next(kind for holds, kind in kinds if holds(id_)) for id_ in ids)
    changes = {"unknown_id": 0, "bos_id": 1, "eos_id": 2} | changes
    return byte_level_vocabulary(
        model="llama",
        tokens=tuple(pieces.id_to_piece(id_) for id_ in ids),
        token_types=types,
        scores=tuple(pieces.get_score(id_) for id_ in ids),
        merges=(),
        **changes,
    )


@pytest.mark.parametrize("text", [*TEXTS, "the quick brown fox", "toolsdog  the other", " fox"])
def test_sentencepiece_vocabularies_tokenise_as_sentencepiece_does(
    pieces: sentencepiece.SentencePieceProcessor, text: str
) -> None:
    tokenizer = Tokenizer.from_gguf(sentencepiece_vocabulary(pieces))
    ids = tokenizer.encode(text)
    assert ids == pieces.encode(text)
    assert tokenizer.decode(ids) == (f" {text}" if text else "")  # the dummy space is a byte like any other


def test_without_a_space_prefix_nothing_stands_before_the_text(pieces: sentencepiece.SentencePieceProcessor) -> None:
    tokenizer = Tokenizer.from_gguf(sentencepiece_vocabulary(pieces, add_space_prefix=False))
    assert tokenizer.decode(tokenizer.encode("the fox")) == "the fox"


def test_byte_fallback_and_spaces_are_bytes(pieces: sentencepiece.SentencePieceProcessor) -> None:
    tokenizer = Tokenizer.from_gguf(sentencepiece_vocabulary(pieces))
    assert tokenizer.token_bytes(pieces.piece_to_id("<0x41>")) == b"A"
    assert tokenizer.token_bytes(pieces.piece_to_id("\u2581the")) == b" the"
    assert tokenizer.token_bytes(pieces.piece_to_id("<s>")) == b"<s>"


def test_loading_prints_nothing_and_never_imports_torch(folder: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from engine.tokenizer import Tokenizer;"
        "Tokenizer.from_folder(Path(sys.argv[1])); assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


# --- The embedded model's


@pytest.mark.embedded
def test_the_embedded_models_text_survives(embedded_model: LoadedModel) -> None:
    tokenizer = embedded_model.tokenizer
    for text in TEXTS:
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.eos_ids == {0, 2}


@pytest.mark.embedded
def test_the_embedded_models_ids_are_llama_cpps(embedded_model: LoadedModel) -> None:
    recorded = json.loads((Path(__file__).parent / "data" / "smollm2_llama_cpp.json").read_text())
    for case in recorded["tokenization"]:
        assert embedded_model.tokenizer.encode(case["text"]) == case["ids"]
