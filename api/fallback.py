"""The upstream that a request is handed to where the local model is not sure whether to call.

The rule: who answers is said, and nobody else answers in its place. An upstream that fails makes one error that names
it; nothing is tried again, and no local answer takes its place.
"""

from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import aclosing
from typing import Any

import httpx

from api.convert.errors import DO_NOT_RETRY, SERVER, WireError
from api.convert.handed_over import read_object, server_sent_data
from api.lifetime import Lifetime
from api.settings import FallbackConfig
from engine.events import Decision, Way

DONE = "[DONE]"
MAX_ANSWER_BYTES = 64 * 2**20
MAX_TOLD_CHARS = 200  # of what an upstream says about its failure


def confidence(decisions: Iterable[Decision]) -> float | None:
    """How sure the model is of whether to call; of several choices the least. None where that was not open."""
    return min((_confidence(decision) for decision in decisions if not decision.required), default=None)


def least_sure(decisions: Iterable[Decision]) -> Way:
    """To what the model leaned where it was least sure. Precondition: `confidence` is not None."""
    decision = min(decisions, key=_confidence)
    return decision.chosen or (Way.CALL if decision.p_call >= decision.p_text else Way.TEXT)


def _confidence(decision: Decision) -> float:
    match decision.chosen:
        case Way.CALL:
            return decision.p_call
        case Way.TEXT:
            return decision.p_text
    return max(decision.p_call, decision.p_text)


class Upstream:
    """A server with OpenAI's chat completions."""

    def __init__(self, config: FallbackConfig) -> None:
        self.config = config
        self._url = f"{config.url.rstrip('/')}/chat/completions"
        headers = {} if config.key is None else {"authorization": f"Bearer {config.key}"}
        # Nothing of the environment: a .netrc would put another key in the place of ours.
        self._client = httpx.AsyncClient(headers=headers, timeout=config.timeout_s, trust_env=False)

    def takes(self, confidence: float | None) -> bool:
        """Whether a request is handed over."""
        return confidence is not None and confidence < self.config.below

    async def close(self) -> None:
        """Drop the connections."""
        await self._client.aclose()

    async def answer(self, body: Mapping[str, Any], lifetime: Lifetime) -> dict[str, Any]:
        """The upstream's whole answer. Raises WireError."""
        response = await self._asked(body, lifetime)
        data = b""
        async with aclosing(self._bytes(response, lifetime)) as parts:
            async for part in parts:
                data += part
        return self._object(data)

    async def stream(self, body: Mapping[str, Any], lifetime: Lifetime) -> AsyncGenerator[str, None]:
        """The data of the upstream's events, [DONE] last, once it has begun to answer. Raises WireError."""
        response = await self._asked(body, lifetime)
        kind = response.headers.get("content-type", "")
        if not kind.startswith("text/event-stream"):
            raise self.failed(f"answered a stream with {kind[:80]!r}")
        return self._events(response, lifetime)

    def failed(self, why: str, *, status: int = 502) -> WireError:
        """The one error of an upstream. Clients are told not to try again."""
        message = f"the fallback upstream {self.config.url} {why}"
        return WireError(status, message, kind=SERVER, code="upstream_failed", headers=DO_NOT_RETRY)

    async def _events(self, response: httpx.Response, lifetime: Lifetime) -> AsyncGenerator[str, None]:
        async with aclosing(self._bytes(response, lifetime)) as parts, aclosing(server_sent_data(parts)) as events:
            num_chunks = 0
            async for data in events:
                if data == DONE:
                    break
                self._check_chunk(data)
                num_chunks += 1
                yield data.replace("\n", " ")  # white space of JSON, in data of several lines
            else:
                raise self.failed("ended its stream before [DONE]")
        if num_chunks == 0:
            raise self.failed("sent a stream without an answer")
        yield DONE

    def _check_chunk(self, data: str) -> None:
        chunk = read_object(data)
        if chunk is None:
            raise self.failed("sent an event that is no JSON object")
        if chunk.get("error") is not None:
            raise self.failed(f"failed in its stream{self._told(chunk)}")

    async def _asked(self, body: Mapping[str, Any], lifetime: Lifetime) -> httpx.Response:
        """An answer whose head says 200; it is closed with the request, if not before."""
        request = self._client.build_request("POST", self._url, json=body)
        try:
            async with lifetime.bound():
                response = await self._client.send(request, stream=True)
        except httpx.HTTPError as error:
            raise self._not_reached(error) from error
        lifetime.cleanup.push_async_callback(response.aclose)
        if response.status_code == 200:
            return response
        raise self.failed(f"answered {response.status_code}{await self._reason(response, lifetime)}")

    async def _bytes(self, response: httpx.Response, lifetime: Lifetime) -> AsyncGenerator[bytes, None]:
        num_bytes = 0
        parts = response.aiter_bytes()
        while True:
            try:
                async with lifetime.bound():
                    part = await anext(parts, None)
            except httpx.HTTPError as error:
                raise self._not_reached(error) from error
            if part is None:
                return
            num_bytes += len(part)
            if num_bytes > MAX_ANSWER_BYTES:
                raise self.failed(f"answered more than {MAX_ANSWER_BYTES} bytes")
            yield part

    def _not_reached(self, error: httpx.HTTPError) -> WireError:
        if isinstance(error, httpx.TimeoutException):
            return self.failed(f"did not answer within {self.config.timeout_s:g} seconds", status=504)
        return self.failed(f"could not be reached: {type(error).__name__}")

    async def _reason(self, response: httpx.Response, lifetime: Lifetime) -> str:
        """What the upstream says of its failure, in OpenAI's form; without the key, which it may quote."""
        data = b""
        async with aclosing(self._bytes(response, lifetime)) as parts:
            async for part in parts:
                data += part
        return self._told(read_object(data) or {})

    def _told(self, answer: Mapping[str, Any]) -> str:
        error = answer.get("error")
        message = error.get("message") if isinstance(error, dict) else None
        if not isinstance(message, str):
            return ""
        return f": {self._without_key(' '.join(message.split()))[:MAX_TOLD_CHARS]}"

    def _without_key(self, text: str) -> str:
        return text if self.config.key is None else text.replace(self.config.key, "***")

    def _object(self, data: bytes) -> dict[str, Any]:
        found = read_object(data)
        if found is None:
            raise self.failed("answered no JSON object")
        if found.get("error") is not None:  # some say so with a 200
            raise self.failed(f"answered with an error{self._told(found)}")
        return found
