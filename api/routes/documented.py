"""What the routes say of themselves on the OpenAPI page beyond their types."""

from typing import Any

from api.schemas.common import ResponseModel
from api.schemas.errors import ErrorResponse

Responses = dict[int | str, dict[str, Any]]

# By class of status: FastAPI would add a 422 in a shape of its own, which the server never sends.
ERRORS: Responses = {
    "4XX": {"model": ErrorResponse, "description": "The caller can fix this; `param` is the path to what is wrong."},
    "5XX": {"model": ErrorResponse, "description": "The server failed, or is not ready."},
}

# Before OpenAPI 3.2 the schema of an event stream is that of each event.
EVENT = {
    "type": "object",
    "properties": {"event": {"type": "string"}, "data": {"type": "string", "description": "JSON, or [DONE]."}},
    "required": ["data"],
}


def stream_of(chunk: type[ResponseModel], *, ends_with_done: bool = True) -> dict[str, Any]:
    """The answer of a route that can stream."""
    last = ", and [DONE] as the last one" if ends_with_done else ""
    description = f"The answer; with `stream`, events with a {chunk.__name__} each{last}."
    return {"description": description, "content": {"text/event-stream": {"schema": EVENT}}}
