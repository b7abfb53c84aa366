"""The guarantee through HTTP: a real server process, the embedded model at temperature 1.5, 300 requests.

    python benchmarks/guarantee_http.py            each a required call or a response_format, of a random schema
    python benchmarks/guarantee_http.py --json     and, as the last line, the result as JSON

Half of the requests are streamed. Budgets are drawn from the least upward; the least is what the server's 400 names.
Exits with 1 where an answer was invalid or incomplete, or a request failed.
"""

import argparse
import concurrent.futures
import json
import os
import random
import re
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if __name__ == "__main__" and not __package__:
    # As a script. In place of benchmarks/ itself, whose names should not stand beside the standard library's.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import httpx
import jsonschema_rs
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from benchmarks.guarantee_schemas import random_schema

MODEL = "smollm2-135m"
NUM_REQUESTS = 300
NUM_AT_ONCE = 8
TEMPERATURE = 1.5
START_TIMEOUT_S = 120
REQUEST_TIMEOUT_S = 600


@dataclass(frozen=True, slots=True)
class Outcome:
    """One request and what came of it."""

    number: int
    kind: str  # "call" or "response"
    streamed: bool
    least: int
    max_tokens: int
    verdict: str  # "valid", "refused", or what went wrong
    detail: str = ""


GOOD = ("valid", "refused")


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    with _server() as url, _progress() as progress, httpx.Client(base_url=url, timeout=REQUEST_TIMEOUT_S) as http:
        task = progress.add_task("asking", total=options.requests)
        with concurrent.futures.ThreadPoolExecutor(NUM_AT_ONCE) as pool:
            asked = [pool.submit(ask, http, number, options.seed) for number in range(options.requests)]
            outcomes = []
            for done in concurrent.futures.as_completed(asked):
                outcomes.append(done.result())
                progress.advance(task)
    bad = [outcome for outcome in outcomes if outcome.verdict not in GOOD]
    result = {
        "benchmark": "guarantee_http",
        "model": MODEL,
        "temperature": TEMPERATURE,
        "seed": options.seed,
        "requests": options.requests,
        "verdicts": dict(Counter(outcome.verdict for outcome in outcomes)),
        "kinds": dict(Counter(f"{each.kind}{' streamed' if each.streamed else ''}" for each in outcomes)),
        "at_their_least_budget": sum(each.max_tokens == each.least for each in outcomes if each.verdict == "valid"),
        "bad": [f"{each.number}: {each.verdict}: {each.detail}" for each in bad],
    }
    print(json.dumps(result, indent=1))
    if options.out is not None:
        options.out.write_text(json.dumps(result, indent=1) + "\n")
    if options.json:
        print(json.dumps(result), flush=True)
    return 1 if bad else 0


def ask(http: httpx.Client, number: int, seed: int) -> Outcome:
    """Ask for the least budget, draw one from it upward, ask again, and judge the answer."""
    rng = random.Random(f"{seed} {number}")
    schema = random_schema(seed * 1_000_000 + number)
    kind, streamed = rng.choice(["call", "response"]), rng.random() < 0.5
    body = _body(kind, schema, rng.randrange(2**32))
    first = http.post("/v1/chat/completions", json={**body, "max_tokens": 1})
    error = first.json().get("error", {})
    found = re.search(r"has (\d+) tokens", error.get("message", ""))
    if first.status_code != 200 and (error.get("code") != "max_tokens_too_small" or found is None):
        refused = first.status_code == 400
        return Outcome(number, kind, streamed, 0, 1, "refused" if refused else "no least budget", str(error)[:300])
    least = 1 if found is None else int(found[1])  # "{}" may be one token
    max_tokens = least + rng.choice([0, 1, rng.randrange(2, 30)])
    response = http.post("/v1/chat/completions", json={**body, "max_tokens": max_tokens, "stream": streamed})
    verdict, detail = _verdict(response, kind, schema, streamed)
    return Outcome(number, kind, streamed, least, max_tokens, verdict, detail)


def _body(kind: str, schema: dict[str, Any], seed: int) -> dict[str, Any]:
    body: dict[str, Any] = {
        "model": MODEL,
        "messages": [{"role": "user", "content": "Give me an example."}],
        "temperature": TEMPERATURE,
        "seed": seed,
        "toolmask": {"open_objects": True},
    }
    if kind == "response":
        return body | {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}}
    tool = {"type": "function", "function": {"name": "example", "parameters": schema}}
    return body | {"tools": [tool], "tool_choice": "required"}


def _verdict(response: httpx.Response, kind: str, schema: dict[str, Any], streamed: bool) -> tuple[str, str]:
    if response.status_code != 200:
        return f"status {response.status_code}", response.text[:300]
    text, arguments, finish_reason = _streamed(response) if streamed else _whole(response)
    if finish_reason != ("stop" if kind == "response" else "tool_calls"):
        return f"finish_reason {finish_reason}", text[:300]
    written = [text] if kind == "response" else arguments
    validator = jsonschema_rs.validator_for(schema, validate_formats=True)
    for each in written:
        try:
            if not validator.is_valid(json.loads(each)):
                return "invalid", each[:300]
        except ValueError:
            return "no JSON", each[:300]
    return ("valid", "") if written else ("no call", text[:300])


def _whole(response: httpx.Response) -> tuple[str, list[str], str | None]:
    (choice,) = response.json()["choices"]
    calls = choice["message"].get("tool_calls") or []
    arguments = [call["function"]["arguments"] for call in calls]
    return choice["message"].get("content") or "", arguments, choice["finish_reason"]


def _streamed(response: httpx.Response) -> tuple[str, list[str], str | None]:
    text, arguments, finish_reason = "", dict[int, str](), None
    for block in response.content.decode().split("\n\n"):
        if not block.startswith("data: {"):
            continue
        for choice in json.loads(block[6:]).get("choices", []):
            text += choice["delta"].get("content") or ""
            for call in choice["delta"].get("tool_calls") or []:
                arguments[call["index"]] = arguments.get(call["index"], "") + call["function"].get("arguments", "")
            finish_reason = choice["finish_reason"] or finish_reason
    return text, list(arguments.values()), finish_reason


@contextmanager
def _server() -> Iterator[str]:
    """`toolmask serve` in a process of its own, once it answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    root = str(Path(__file__).resolve().parents[1])
    command = [sys.executable, "-m", "api.cli", "serve", "--model", MODEL, "--port", str(port)]
    process = subprocess.Popen(command, cwd=root, env={**os.environ, "PYTHONPATH": root}, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_until_ready(url, process)
        yield url
    finally:
        process.terminate()
        process.wait()


def _wait_until_ready(url: str, process: "subprocess.Popen[bytes]") -> None:
    until = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < until and process.poll() is None:
        try:
            if httpx.get(f"{url}/health").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    raise RuntimeError("the server did not begin to answer")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Random schemas through a real server, within tight budgets.")
    parser.add_argument("--json", action="store_true", help="print the result as one line of JSON, last")
    parser.add_argument("--out", type=Path, help="write the result there too")
    parser.add_argument("--requests", type=int, default=NUM_REQUESTS)
    parser.add_argument("--seed", type=int, default=1)
    return parser


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True))


if __name__ == "__main__":
    sys.exit(main())
