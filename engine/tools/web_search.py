"""Search the web: DuckDuckGo and others through ddgs, or any SearXNG instance.

A search takes `timeout_s` at most, whatever the network does, and every fault is a WebSearchError that names the
provider.
"""

import math
import threading
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Annotated, Any, Protocol

import httpx
from ddgs import DDGS  # a proxy: the real module, and its native client, load at the first search
from ddgs.exceptions import DDGSException
from pydantic import BaseModel, Field, ValidationError

from engine.errors import ConfigError
from engine.tools.registry import RegisteredTool, ToolError, tool

MAX_RESULTS = 20
MAX_RESPONSE_BYTES = 4 * 2**20
MAX_TITLE_CHARS = 200
MAX_SNIPPET_CHARS = 1000

# The example is in the call that untrained models are shown; without one, small ones search for dates and addresses
# (docs/accuracy.md).
Query = Annotated[str, Field(examples=["history of tea"])]
NumResults = Annotated[int, Field(ge=1, le=MAX_RESULTS)]


class WebSearchError(ToolError):
    """The search could not be made."""


@dataclass(frozen=True, slots=True)
class SearchResult:
    """One page that was found."""

    title: str
    url: str
    snippet: str


class SearchProvider(Protocol):
    """Where results come from."""

    @property
    def name(self) -> str:
        """As it is called in errors."""

    def search(self, query: str, num_results: int, timeout_s: float) -> list[SearchResult]:
        """About num_results, best first. Raises WebSearchError.

        timeout_s bounds single requests; whoever calls this has a clock of its own.
        """


@dataclass(frozen=True, slots=True)
class DuckDuckGo:
    """The ddgs library: DuckDuckGo, and other engines where that one does not answer. Needs no key."""

    proxy: str | None = None  # URL of an HTTP or SOCKS proxy

    @property
    def name(self) -> str:
        return "DuckDuckGo (ddgs)"

    def search(self, query: str, num_results: int, timeout_s: float) -> list[SearchResult]:
        try:
            client = DDGS(proxy=self.proxy, timeout=math.ceil(timeout_s))
            pages = client.text(query, max_results=num_results)
        except DDGSException as error:
            if str(error) == "No results found.":  # ddgs has no exception of its own for this
                return []
            raise WebSearchError(f"{self.name} cannot be reached, or refused: {error}") from error
        return [_result(page["title"], page["href"], page["body"]) for page in pages]


@dataclass(frozen=True, slots=True)
class SearXNG:
    """A SearXNG instance whose settings allow `json` under search.formats."""

    base_url: str  # http or https, with the path that the instance lives under

    def __post_init__(self) -> None:
        try:
            url = httpx.URL(self.base_url)
        except (httpx.InvalidURL, TypeError) as error:
            raise ConfigError(f"the SearXNG URL {self.base_url!r} is malformed: {error}") from error
        if url.scheme not in ("http", "https") or not url.host or url.query or url.fragment:
            raise ConfigError(f"the SearXNG URL is {self.base_url!r}; it must be like https://searx.example.org/path")

    @property
    def name(self) -> str:
        url = httpx.URL(self.base_url)
        return f"SearXNG at {url.netloc.decode()}"  # without user and password

    def search(self, query: str, num_results: int, timeout_s: float) -> list[SearchResult]:
        try:
            body = self._fetch(query, timeout_s)
            pages = _SearXNGResponse.model_validate_json(body).results
        except httpx.TimeoutException as error:
            raise _too_slow(self.name, timeout_s) from error
        except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:  # UnicodeError: no such host name can be
            raise WebSearchError(f"{self.name} cannot be reached: {error}") from error
        except ValidationError as error:
            raise WebSearchError(f"{self.name} did not answer with JSON as SearXNG writes it") from error
        return [_result(page.title, page.url, page.content) for page in pages if page.url][:num_results]

    def _fetch(self, query: str, timeout_s: float) -> bytes:
        url = self.base_url.rstrip("/") + "/search"
        parameters = {"q": query, "format": "json"}
        with (
            httpx.Client(timeout=timeout_s, follow_redirects=True, headers={"User-Agent": "toolmask"}) as client,
            client.stream("GET", url, params=parameters) as response,
        ):
            if response.status_code != httpx.codes.OK:
                raise WebSearchError(f"{self.name} answered {_explain_status(response.status_code)}")
            body = bytearray()
            for chunk in response.iter_bytes():
                body += chunk
                if len(body) > MAX_RESPONSE_BYTES:
                    raise WebSearchError(f"{self.name} answered with more than {MAX_RESPONSE_BYTES} bytes")
            return bytes(body)


class _SearXNGPage(BaseModel):
    title: str | None = None
    url: str | None = None  # some kinds of results have none
    content: str | None = None


class _SearXNGResponse(BaseModel):
    results: list[_SearXNGPage]


@dataclass(frozen=True, slots=True)
class WebSearch:
    """A provider and the time that a whole search may take."""

    provider: SearchProvider
    timeout_s: float = 10.0

    def __post_init__(self) -> None:
        if not 0 < self.timeout_s < math.inf:
            raise ConfigError(f"timeout_s is {self.timeout_s}; it must be more than 0")

    def search(self, query: str, num_results: int) -> list[SearchResult]:
        """At most num_results, best first; none is no error. Raises WebSearchError."""
        if not query.strip():
            raise WebSearchError("the query is empty")
        # A timeout of the libraries bounds one read or one request; a slow drip or a row of engines takes many.
        future: Future[list[SearchResult]] = Future()
        threading.Thread(target=self._fulfil, args=(future, query, num_results), daemon=True).start()
        try:
            return future.result(self.timeout_s)[:num_results]
        except TimeoutError as error:
            raise _too_slow(self.provider.name, self.timeout_s) from error

    def _fulfil(self, future: Future[list[SearchResult]], query: str, num_results: int) -> None:
        try:
            future.set_result(self.provider.search(query, num_results, self.timeout_s))
        except BaseException as error:  # whatever it is, it belongs to the thread that waits
            future.set_exception(error)

    def as_tool(self) -> RegisteredTool[..., list[SearchResult]]:
        """The tool `web_search` over this provider."""

        @tool
        def web_search(query: Query, num_results: NumResults = 5) -> list[SearchResult]:
            """Search the web and return titles, URLs and snippets of the best results.

            Args:
                query: What to search for, in a few words.
                num_results: How many results to return.
            """
            return self.search(query, num_results)

        return web_search


def make_web_search(searxng_url: str | None = None, timeout_s: float = 10.0) -> RegisteredTool[..., list[SearchResult]]:
    """The tool `web_search`, over ddgs or over the SearXNG instance at a URL. Raises ConfigError."""
    provider = DuckDuckGo() if searxng_url is None else SearXNG(searxng_url)
    return WebSearch(provider, timeout_s).as_tool()


web_search = make_web_search()


def _result(title: str | None, url: Any, snippet: str | None) -> SearchResult:
    return SearchResult((title or "")[:MAX_TITLE_CHARS], str(url), (snippet or "")[:MAX_SNIPPET_CHARS])


def _too_slow(name: str, timeout_s: float) -> WebSearchError:
    return WebSearchError(f"{name} did not answer within {timeout_s:g} s")


def _explain_status(status: int) -> str:
    known = {
        403: "HTTP 403: its settings must allow json under search.formats",
        429: "HTTP 429: it limits the rate of requests",
    }
    return known.get(status, f"HTTP {status}")
