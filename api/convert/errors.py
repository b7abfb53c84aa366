"""Everything that can go wrong, as OpenAI-shaped errors. What nobody foresaw is told without its text."""

import logging
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from api.convert.paths import UNCHANGED, Paths, json_path
from api.schemas.errors import ErrorBody, ErrorResponse
from api.schemas.unsupported import UNSUPPORTED, UNSUPPORTED_AT
from engine.errors import (
    BudgetError,
    ContextLengthError,
    EngineClosedError,
    EngineError,
    ModelNotFoundError,
    QueueFullError,
    RequestError,
    UnsupportedModelError,
)

logger = logging.getLogger(__name__)

RETRY_AFTER_S = 1
DO_NOT_RETRY = {"x-should-retry": "false"}  # OpenAI's clients repeat a 5xx otherwise
RETRY_SOON = {"retry-after": str(RETRY_AFTER_S)}

INVALID = "invalid_request_error"
SERVER = "server_error"


class WireError(Exception):
    """An error that a client is told as it stands."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = INVALID,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.headers: Mapping[str, str] = headers or {}
        param = None if param is None else _printable(param)
        self.body = ErrorBody(message=_printable(message), type=kind, param=param, code=code)

    def json_text(self) -> str:
        """The body of the answer."""
        return ErrorResponse(error=self.body).json_text()


def _printable(text: str) -> str:
    """Clients may send lone surrogates, which UTF-8 cannot write, and errors quote what was sent."""
    return text.encode(errors="backslashreplace").decode()


@dataclass(frozen=True, slots=True)
class Row:
    """How one of the engine's errors is told."""

    status: int
    kind: str
    code: str | None
    headers: Mapping[str, str] | None = None


# The first that fits counts.
ROWS: Sequence[tuple[type[EngineError], Row]] = (
    (ContextLengthError, Row(400, INVALID, "context_length_exceeded")),
    (BudgetError, Row(400, INVALID, "max_tokens_too_small")),
    (RequestError, Row(400, INVALID, None)),
    (QueueFullError, Row(429, "rate_limit_error", "queue_full", RETRY_SOON)),
    (EngineClosedError, Row(503, SERVER, "shutting_down", RETRY_SOON)),
    (ModelNotFoundError, Row(404, INVALID, "model_not_found")),
    (UnsupportedModelError, Row(400, INVALID, "unsupported_model")),
)


def from_exception(error: BaseException, paths: Paths = UNCHANGED) -> WireError:
    """What a client is told of an exception. One that nobody foresaw is logged, and its text stays here."""
    if isinstance(error, WireError):
        return error
    for kind, row in ROWS:
        if isinstance(error, kind):
            return _told(error, row, paths)
    logger.error("a request failed", exc_info=error)
    return WireError(500, "the server failed; its log says why", kind=SERVER, code="internal_error")


def _told(error: EngineError, row: Row, paths: Paths) -> WireError:
    message, param = str(error), None
    if isinstance(error, RequestError):
        param = paths.to_wire(error.param)
        message = paths.in_text(message, error.param)
    return WireError(row.status, message, kind=row.kind, param=param, code=row.code, headers=row.headers)


def from_validation(faults: Sequence[Mapping[str, Any]], body: object) -> WireError:
    """What a client is told of a body that is not as the schemas say. The deepest fault counts, in a 400."""
    where = "body" if faults and faults[0]["loc"][:1] == ("body",) else None
    if where and faults[0]["type"] == "json_invalid":
        reason = faults[0].get("ctx", {}).get("error", "it cannot be read")
        return _unreadable(f"not valid JSON: {reason} at character {faults[0]['loc'][-1]}")
    if where and not isinstance(body, dict):
        message = "the body must be a JSON object, sent with Content-Type: application/json"
        return WireError(400, message, code="invalid_body")
    told = [(_path(fault, body if where else {}), fault) for fault in faults]
    deepest = max(told, key=lambda each: _precedence(*each))[0]
    here = [fault for path, fault in told if path == deepest]
    return WireError(400, _sentence(deepest, here), param=deepest or None, code=_code(here[0]))


def from_unreadable(cause: BaseException | None) -> WireError:
    """What a client is told of a body on which the JSON parser gave up with `cause`, which is no syntax error."""
    match cause:
        case UnicodeDecodeError(start=start):
            return _unreadable(f"not valid UTF-8: byte {start} does not belong there")
        case RecursionError():
            return _unreadable("nested too deeply to be read")
        case ValueError():  # Python bounds the digits of an integer
            return _unreadable(f"not valid: it has an integer of more than {sys.get_int_max_str_digits()} digits")
    return _unreadable("cut off, or cannot be read")


def _unreadable(what: str) -> WireError:
    return WireError(400, f"the body is {what}", code="invalid_json")


def _path(fault: Mapping[str, Any], body: object) -> str:
    name = fault["input"] if fault["type"] == "string_unicode" else None
    return json_path(fault["loc"][1:], body, missing=fault["type"] == "missing", name=name)


def _precedence(path: str, fault: Mapping[str, Any]) -> tuple[int, bool]:
    return path.count(".") + path.count("["), fault["type"] != "missing"


def _sentence(path: str, faults: Sequence[Mapping[str, Any]]) -> str:
    if faults[0]["type"] == "extra_forbidden":
        return f"{path} is not supported: {_reason(path)}"
    if faults[0]["type"] == "missing":
        return f"{path} is missing"
    if faults[0]["type"] == "string_unicode":
        return f"{path} has a lone surrogate, which is no text"
    messages = dict.fromkeys(str(fault["msg"]) for fault in faults)
    return f"{path}: {'; or: '.join(messages)}"


def _reason(path: str) -> str:
    place = re.sub(r"\[\d+\]", "[]", path)
    by_name = UNSUPPORTED.get(path.rpartition(".")[2], "no such option is known")
    return UNSUPPORTED_AT.get(place, by_name)


def _code(fault: Mapping[str, Any]) -> str | None:
    codes = {"extra_forbidden": "unsupported_parameter", "missing": "missing_required_parameter"}
    return codes.get(fault["type"], "invalid_value")
