"""Web search, against a server on loopback that speaks SearXNG's JSON, and ddgs behind a proxy that is not there."""

import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from engine.errors import ConfigError
from engine.tools import DuckDuckGo, SearXNG, ToolRegistry, WebSearch, WebSearchError, make_web_search, web_search
from engine.tools.web_search import MAX_RESPONSE_BYTES, MAX_SNIPPET_CHARS, SearchResult

PAGES = [
    {"title": "MLX", "url": "https://example.org/mlx", "content": "An array framework", "engine": "brave", "score": 4},
    {"title": "Ünïcödé 検索", "url": "https://example.org/検索", "content": "👍 “quoted”"},
    {"title": "No snippet", "url": "https://example.org/3", "content": None},
    {"title": "A result without a page"},
    {"title": "Last", "url": "https://example.org/5", "content": "x" * 5000},
]


@dataclass
class SearXNGServer:
    """What it answers, and what it was asked."""

    url: str
    status: int = 200
    body: bytes = json.dumps({"query": "q", "results": PAGES}).encode()
    headers: dict[str, str] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    released: threading.Event = field(default_factory=threading.Event)  # answers wait for it
    truncated: bool = False  # hang up in the middle of the body

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        self.requests.append(handler.path)
        self.released.wait(timeout=30)
        handler.send_response(self.status)
        for name, value in self.headers.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(self.body) + self.truncated))
        handler.end_headers()
        handler.wfile.write(self.body)


@pytest.fixture
def searxng(monkeypatch: pytest.MonkeyPatch) -> Iterator[SearXNGServer]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.answer(self)

        def log_message(self, *_: Any) -> None: ...

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: Any) -> None: ...  # a client that hangs up is what some tests are about

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = Server(("127.0.0.1", 0), Handler)
    state = SearXNGServer(f"http://127.0.0.1:{server.server_port}")
    state.released.set()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield state
    state.released.set()
    server.shutdown()
    thread.join()
    server.server_close()


def error_of(searxng: SearXNGServer, timeout_s: float = 10.0) -> str:
    result = make_web_search(searxng.url, timeout_s).execute({"query": "mlx"})
    assert not result["success"]
    assert "\n" not in result["error"]
    assert result["error"].startswith(f"SearXNG at {searxng.url.removeprefix('http://')} ")
    return result["error"]


def test_results_have_title_url_and_snippet(searxng: SearXNGServer) -> None:
    result = make_web_search(searxng.url).execute({"query": "mlx", "num_results": 2})
    assert result == {
        "success": True,
        "result": [
            {"title": "MLX", "url": "https://example.org/mlx", "snippet": "An array framework"},
            {"title": "Ünïcödé 検索", "url": "https://example.org/検索", "snippet": "👍 “quoted”"},
        ],
    }


def test_results_without_a_page_are_left_out_and_long_snippets_are_cut(searxng: SearXNGServer) -> None:
    results = make_web_search(searxng.url)("mlx", num_results=20)
    assert [result.title for result in results] == ["MLX", "Ünïcödé 検索", "No snippet", "Last"]
    assert results[2].snippet == ""
    assert len(results[3].snippet) == MAX_SNIPPET_CHARS


@pytest.mark.parametrize("path", ["", "/", "/searx", "/searx/"])
def test_the_query_goes_to_the_instance_as_it_was_written(searxng: SearXNGServer, path: str) -> None:
    make_web_search(searxng.url + path)("was kostet 1 € & mehr? 検索")
    asked = urlsplit(searxng.requests[0])
    assert asked.path == f"{path.rstrip('/')}/search"
    assert parse_qs(asked.query) == {"q": ["was kostet 1 € & mehr? 検索"], "format": ["json"]}


def test_no_results_are_a_success(searxng: SearXNGServer) -> None:
    searxng.body = b'{"results": []}'
    assert make_web_search(searxng.url).execute({"query": "mlx"}) == {"success": True, "result": []}


def test_an_instance_without_json_is_told_apart(searxng: SearXNGServer) -> None:
    searxng.status = 403
    assert error_of(searxng).endswith("answered HTTP 403: its settings must allow json under search.formats")


@pytest.mark.parametrize("status", [404, 429, 500, 503])
def test_an_http_error_is_named(searxng: SearXNGServer, status: int) -> None:
    searxng.status = status
    assert f"answered HTTP {status}" in error_of(searxng)


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b'{"results": [{"url": 5}]}', b'{"pages": []}', b"[]", b"\xff\xfe", b"[" * 100_000]
)
def test_what_is_not_a_searxng_answer_is_an_error(searxng: SearXNGServer, body: bytes) -> None:
    searxng.body = body
    assert error_of(searxng).endswith("did not answer with JSON as SearXNG writes it")


def test_a_huge_answer_is_cut_off(searxng: SearXNGServer) -> None:
    searxng.body = b" " * (MAX_RESPONSE_BYTES + 1)
    assert error_of(searxng).endswith(f"answered with more than {MAX_RESPONSE_BYTES} bytes")


def test_a_server_that_hangs_up_is_an_error(searxng: SearXNGServer) -> None:
    searxng.truncated = True
    assert "cannot be reached" in error_of(searxng)


def test_a_redirect_in_a_circle_is_an_error(searxng: SearXNGServer) -> None:
    searxng.status = 302
    searxng.headers = {"Location": "/search?q=mlx"}
    assert "redirects" in error_of(searxng)


def test_a_slow_server_is_an_error(searxng: SearXNGServer) -> None:
    searxng.released.clear()
    assert error_of(searxng, timeout_s=0.1).endswith("did not answer within 0.1 s")


def closed_port() -> int:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port: int = unused.getsockname()[1]
        return port


def test_nobody_at_the_address_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    result = make_web_search(f"http://127.0.0.1:{closed_port()}").execute({"query": "mlx"})
    assert "cannot be reached: [Errno" in result["error"]  # type: ignore[typeddict-item]


def test_the_password_of_an_instance_is_not_in_its_name() -> None:
    assert SearXNG("https://me:secret@searx.example.org:8443/x").name == "SearXNG at searx.example.org:8443"


@pytest.mark.parametrize(
    "url",
    ["", "searx.example.org", "ftp://example.org", "file:///etc/passwd", "http://", "https://a/?q=1", "http://a:b", 5],
)
def test_a_base_url_must_be_http(url: Any) -> None:
    with pytest.raises(ConfigError, match="SearXNG URL"):
        make_web_search(url)


@pytest.mark.parametrize("timeout_s", [0, -1, float("nan"), float("inf")])
def test_a_timeout_must_be_more_than_zero(timeout_s: float) -> None:
    with pytest.raises(ConfigError, match="timeout_s"):
        make_web_search(timeout_s=timeout_s)


@pytest.mark.parametrize("num_results", [0, 21, "many"])
def test_the_number_of_results_is_bounded(num_results: object) -> None:
    result = web_search.execute({"query": "mlx", "num_results": num_results})
    assert "num_results" in result["error"]  # type: ignore[typeddict-item]


def test_an_empty_query_is_an_error() -> None:
    assert web_search.execute({"query": " "}) == {"success": False, "error": "the query is empty"}


def test_ddgs_without_a_network_is_a_clear_error() -> None:
    # The real library, with every request of its sent to a port where nobody listens.
    offline = WebSearch(DuckDuckGo(proxy=f"http://127.0.0.1:{closed_port()}")).as_tool()
    result = ToolRegistry([offline]).execute("web_search", {"query": "mlx"})
    assert "DuckDuckGo (ddgs) cannot be reached, or refused: " in result["error"]  # type: ignore[typeddict-item]


class StuckProvider:
    """Never answers until it is released."""

    name = "stuck"

    def __init__(self) -> None:
        self.released = threading.Event()

    def search(self, query: str, num_results: int, timeout_s: float) -> list[SearchResult]:  # noqa: ARG002
        self.released.wait(timeout=30)
        return []


def test_a_provider_that_keeps_no_time_is_cut_off() -> None:
    provider = StuckProvider()
    with pytest.raises(WebSearchError, match=r"stuck did not answer within 0\.05 s"):
        WebSearch(provider, timeout_s=0.05).search("mlx", 5)
    provider.released.set()


class GenerousProvider(StuckProvider):
    def search(self, query: str, num_results: int, timeout_s: float) -> list[SearchResult]:  # noqa: ARG002
        return [SearchResult(query, "https://example.org", "")] * 100


def test_a_provider_that_finds_more_than_was_asked_for_is_cut_short() -> None:
    assert len(WebSearch(GenerousProvider()).search("mlx", 3)) == 3
