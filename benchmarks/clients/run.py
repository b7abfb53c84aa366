"""Run every example of docs/clients.md against a real server with the embedded model; write what passed.

    python benchmarks/clients/run.py [CLIENT ...]

Each client is installed in an environment of its own, from the package registries. An example passes where it exits
with 0 and prints something. Results of the clients that are not run again stay, each with the digest of what was run:
a test compares it with the page.
"""

import argparse
import contextlib
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

HERE = Path(__file__).parent
PAGE = HERE.parent.parent / "docs" / "clients.md"
RESULTS = HERE / "results.json"
MODEL = "smollm2-135m"
DOCUMENTED_URL = "http://127.0.0.1:7007"
INSTALL_LIMIT_S, RUN_LIMIT_S = 300, 120
FILES = {"python": "example.py", "js": "example.mjs", "sh": "example.sh"}


@dataclass(frozen=True, slots=True)
class Client:
    """A section of the page."""

    name: str
    installer: str  # pip, npm or apt-get
    packages: tuple[str, ...]
    examples: tuple[tuple[str, str], ...]  # language, source

    @property
    def digest(self) -> str:
        """Of all that decides what is run: the packages, and each example."""
        parts = json.dumps([self.installer, self.packages, self.examples])
        return f"sha256:{hashlib.sha256(parts.encode()).hexdigest()}"

    @property
    def package_names(self) -> list[str]:
        """The packages without the extras that are chosen of them."""
        return [package.partition("[")[0] for package in self.packages]


@dataclass(frozen=True, slots=True)
class Result:
    """How one client's examples went."""

    client: str
    digest: str  # of the examples that were run
    versions: dict[str, str]  # of its packages
    passed: bool
    seconds: float  # of all its examples, without the installation
    error: str | None  # the last line that the failed one wrote


def read_page(page: str) -> list[Client]:
    """The clients of the page, in its order."""
    clients = []
    for section in page.split("\n## ")[1:]:
        name = section.partition("\n")[0]
        installed = re.search(r"^Install: `(pip|npm|apt-get) install (.+)`$", section, re.MULTILINE)
        assert installed is not None, f"{name} does not say how it is installed"
        examples = re.findall(r"^```(\w+)\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
        assert examples, f"{name} has no example"
        clients.append(Client(name, installed[1], tuple(installed[2].split()), tuple(examples)))
    return clients


def run_client(client: Client, url: str) -> Result:
    """Install the client and run its examples, up to the first that fails."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            versions, commands = _install(client, Path(folder))
        except subprocess.SubprocessError as error:
            why = f"not installed: {type(error).__name__}"
            return Result(client.name, client.digest, {}, passed=False, seconds=0, error=why)
        start, failure = time.perf_counter(), None
        for language, source in client.examples:
            if failure is None:
                failure = _run_example(Path(folder), commands[language], FILES[language], source, url)
        seconds = round(time.perf_counter() - start, 1)
    return Result(client.name, client.digest, versions, passed=failure is None, seconds=seconds, error=failure)


def _install(client: Client, folder: Path) -> tuple[dict[str, str], dict[str, list[str]]]:
    """The versions, and by language what runs an example."""
    names = client.package_names
    if client.installer == "pip":
        python = folder / "venv" / "bin" / "python"
        _checked([sys.executable, "-m", "venv", str(folder / "venv")], folder)
        _checked([str(python), "-m", "pip", "install", "--quiet", *client.packages], folder)
        asked = f"import importlib.metadata, json; print(json.dumps([*map(importlib.metadata.version, {names!r})]))"
        versions = json.loads(_checked([str(python), "-c", asked], folder))
        return dict(zip(names, versions, strict=True)), {"python": [str(python)]}
    if client.installer == "npm":
        _checked(["npm", "install", "--silent", "--no-audit", "--no-fund", *client.packages], folder)
        packages = {name: folder / "node_modules" / name / "package.json" for name in names}
        return {name: json.loads(path.read_text())["version"] for name, path in packages.items()}, {"js": ["node"]}
    return {name: _checked([name, "--version"], folder).split()[1] for name in names}, {"sh": ["sh"]}


def _checked(command: list[str], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True, timeout=INSTALL_LIMIT_S)
    return done.stdout


def _run_example(folder: Path, command: list[str], name: str, source: str, url: str) -> str | None:
    """None where it passed, or else a line that says why not."""
    (folder / name).write_text(source.replace(DOCUMENTED_URL, url))
    # A client must not find a key or a proxy of whoever runs this.
    environment = {key: os.environ[key] for key in ("PATH", "HOME", "LANG") if key in os.environ}
    try:
        done = subprocess.run(
            [*command, name],
            check=False,
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=RUN_LIMIT_S,
            env=environment,
        )
    except subprocess.TimeoutExpired:
        return f"took more than {RUN_LIMIT_S} s"
    print(done.stdout.strip())
    if done.returncode == 0 and done.stdout.strip():
        return None
    print(done.stderr[-4000:], file=sys.stderr)
    lines = [line for line in done.stderr.replace(str(folder), ".").splitlines() if line.strip()]
    return lines[-1][:300] if lines else f"exit code {done.returncode}"


@contextlib.contextmanager
def server() -> Iterator[str]:
    """A server process whose model is loaded; its URL."""
    command = [sys.executable, "-m", "api.cli", "serve", "--model", MODEL, "--port", "0"]
    with subprocess.Popen(
        command, cwd=HERE.parent.parent, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stderr is not None
        url = next(found[0] for line in process.stderr if (found := re.search(r"http://127\.0\.0\.1:\d+", line)))
        body = json.dumps({"model": MODEL}).encode()
        headers = {"content-type": "application/json"}
        load = urllib.request.Request(f"{url}/v1/models/load", body, headers)
        urllib.request.urlopen(load, timeout=120).close()
        try:
            yield url
        finally:
            process.send_signal(signal.SIGTERM)
            process.stderr.read()


def main() -> int:
    """Exit code 1 where an example failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("client", nargs="*", help="headings of the page; all where none is given")
    wanted = parser.parse_args().client
    clients = read_page(PAGE.read_text())
    if unknown := set(wanted) - {client.name for client in clients}:
        parser.error(f"the page has no {', '.join(sorted(unknown))}")
    results = {each["client"]: each for each in json.loads(RESULTS.read_text())} if RESULTS.exists() else {}
    with server() as url:
        for client in clients:
            if not wanted or client.name in wanted:
                print(f"== {client.name}", flush=True)
                results[client.name] = asdict(run_client(client, url))
    rows = [results[client.name] for client in clients if client.name in results]
    RESULTS.write_text(json.dumps(rows, indent=2) + "\n")
    for row in rows:
        versions = ", ".join(f"{name} {version}" for name, version in row["versions"].items())
        print(f"{row['client']:24} {'passed' if row['passed'] else row['error']} ({versions})")
    return 0 if all(row["passed"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
