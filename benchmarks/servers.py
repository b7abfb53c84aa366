"""Over HTTP, with clients at once: `toolmask serve` beside `mlx_lm.server`, on the same weights.

    python benchmarks/servers.py            a table
    python benchmarks/servers.py --json     and, as the last line, the result as JSON

Both run in processes of their own, in turn, from one folder with the model as it is loaded here (so with the same
numbers and the same BLAS). Clients ask free questions, a fixed number of tokens each at most, greedily, without
streaming; all begin together. `toolmask serve` is also asked for required calls, which mlx_lm.server has no means to
promise. Latency is from sending to the whole answer. Rounds alternate between the servers where both run.
"""

import argparse
import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if __name__ == "__main__" and not __package__:
    # As a script. In place of benchmarks/ itself, whose names should not stand beside the standard library's.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import httpx
from rich.console import Console

from benchmarks.bfcl import Case, decode_cases
from benchmarks.environment import environment
from benchmarks.intervals import bootstrap_median
from benchmarks.models import load_model, write_folder
from benchmarks.script import (
    hand_over,
    interval_text,
    progress_bar,
    script_parser,
    sizes,
    table_of,
    until_stopped,
    warn_of_few,
)
from engine.requests import to_messages

ROOT = Path(__file__).resolve().parents[1]
START_LIMIT_S = 240.0
MLX_LM_SERVER = "import engine; from mlx_lm.server import main; main()"  # the engine chooses the BLAS
TOOLMASK = "from api.cli import main; main()"
SERVERS = {"toolmask": ("serve",), "mlx_lm": ("--log-level", "ERROR")}
ASKED = (("toolmask", "free"), ("mlx_lm", "free"), ("toolmask", "calls"))


@dataclass(frozen=True, slots=True)
class Answers:
    """What one group of clients was told."""

    seconds: float
    latencies_s: tuple[float, ...]
    num_tokens: int


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    loaded = load_model(options.model, seed=options.seed)
    cases = decode_cases(options.seed)
    found: dict[tuple[str, str, int], list[Answers]] = {}
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        model = write_folder(loaded, Path(folder) / "model")
        urls = {name: stack.enter_context(_serving(name, model)) for name in SERVERS}
        work = [
            (size, number) for number in range(options.rounds) for size in options.clients
        ]  # a stop leaves some of each
        for server, kind in ASKED:  # warms up
            _ask_all(urls[server], str(model), kind, cases[:1], options.max_tokens)
        with progress_bar() as progress:
            for size, number in until_stopped(progress.track(work, description="rounds")):
                group = [cases[(size * number + index) % len(cases)] for index in range(size)]
                for server, kind in ASKED if number % 2 == 0 else reversed(ASKED):
                    answers = _ask_all(urls[server], str(model), kind, group, options.max_tokens)
                    found.setdefault((server, kind, size), []).append(answers)
    asked = {"seed": options.seed, "max_tokens": options.max_tokens, "rounds": options.rounds}
    result = {"benchmark": "servers", **environment(loaded), **asked, "rows": summary(found, options.seed)}
    hand_over(result, options, lambda console: show(result, console))


def _parser() -> argparse.ArgumentParser:
    parser = script_parser("Over HTTP, with clients at once.")
    parser.add_argument("--clients", type=sizes, default=(1, 2, 4, 8), help="at once, as in 1,8")
    parser.add_argument("--rounds", type=int, default=15, help="of each number of clients (%(default)s)")
    parser.add_argument("--max-tokens", type=int, default=96, help="of each answer (%(default)s)")
    return parser


@contextlib.contextmanager
def _serving(name: str, model: Path) -> Iterator[str]:
    """A server's base URL, once it answers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    program = TOOLMASK if name == "toolmask" else MLX_LM_SERVER
    command = [sys.executable, "-c", program, *SERVERS[name], "--model", str(model), "--port", str(port)]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    with tempfile.TemporaryFile() as log:
        # A session of its own: Ctrl-C is for this program, which then ends its servers.
        process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=log, stderr=log, start_new_session=True)
        try:
            url = f"http://127.0.0.1:{port}/v1"
            _wait_for(url, str(model), process)
            yield url
        finally:
            process.terminate()
            process.wait()


def _wait_for(url: str, model: str, process: subprocess.Popen[bytes]) -> None:
    """Until it answers a short question. Raises RuntimeError where it has ended, or takes too long."""
    deadline = time.monotonic() + START_LIMIT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"the server at {url} ended with status {process.returncode}")
        with contextlib.suppress(httpx.HTTPError):
            body = {"model": model, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1}
            if httpx.post(f"{url}/chat/completions", json=body, timeout=60).is_success:
                return
        time.sleep(0.2)
    raise RuntimeError(f"the server at {url} did not answer within {START_LIMIT_S:g} s")


def _ask_all(url: str, model: str, kind: str, cases: Sequence[Case], max_tokens: int) -> Answers:
    bodies = [_body(model, kind, case, max_tokens) for case in cases]
    with httpx.Client(timeout=600) as client, ThreadPoolExecutor(len(cases)) as pool:
        start = time.perf_counter()
        found = list(pool.map(lambda body: _ask(client, url, body), bodies))
        seconds = time.perf_counter() - start
    return Answers(seconds, tuple(latency for latency, _ in found), sum(tokens for _, tokens in found))


def _body(model: str, kind: str, case: Case, max_tokens: int) -> dict[str, Any]:
    messages = [{"role": message.role.value, "content": message.content} for message in to_messages(case.messages)]
    body: dict[str, Any] = {"model": model, "messages": messages, "max_tokens": max_tokens, "temperature": 0}
    if kind == "calls":
        functions = [
            {"name": tool.name.replace(".", "_"), "description": tool.description, "parameters": tool.parameters}
            for tool in case.tools
        ]
        body["tools"] = [{"type": "function", "function": function} for function in functions]
        body |= {"tool_choice": "required", "parallel_tool_calls": False}
    return body


def _ask(client: httpx.Client, url: str, body: Mapping[str, Any]) -> tuple[float, int]:
    """Seconds, and tokens of the answer. Raises RuntimeError where it is refused."""
    start = time.perf_counter()
    response = client.post(f"{url}/chat/completions", json=body)
    seconds = time.perf_counter() - start
    if response.is_error:
        raise RuntimeError(f"{url} answered {response.status_code}: {response.text[:500]}")
    return seconds, int(response.json()["usage"]["completion_tokens"])


def summary(found: Mapping[tuple[str, str, int], Sequence[Answers]], seed: int) -> list[dict[str, Any]]:
    """Per server, kind of request and number of clients."""
    return [
        {
            "server": server,
            "kind": kind,
            "clients": size,
            "rounds": len(answers),
            "tokens": sum(one.num_tokens for one in answers),
            "latency_s": bootstrap_median([latency for one in answers for latency in one.latencies_s], seed).to_json(),
            "tokens_per_s": bootstrap_median([one.num_tokens / one.seconds for one in answers], seed).to_json(),
        }
        for (server, kind, size), answers in found.items()
    ]


def show(result: Mapping[str, Any], console: Console) -> None:
    columns = ("server", "requests", "clients", "tokens", "latency s", "tokens/s")
    rows = [
        (
            row["server"],
            row["kind"],
            str(row["clients"]),
            str(row["tokens"]),
            interval_text(row["latency_s"], 2),
            interval_text(row["tokens_per_s"], 1),
        )
        for row in result["rows"]
    ]
    console.print(table_of("over HTTP: medians (95 % bootstrap intervals)", columns, rows))
    warn_of_few(console, result["rounds"])


if __name__ == "__main__":
    main()
