"""What the routes say of themselves on the OpenAPI page beyond their types."""

from collections.abc import Mapping
from types import UnionType
from typing import Any

import fastapi.security
from pydantic import TypeAdapter

from api.schemas.common import ResponseModel
from api.schemas.errors import ErrorResponse

Responses = dict[int | str, dict[str, Any]]

# By class of status: FastAPI would add a 422 in a shape of its own, which the server never sends.
ERRORS: Responses = {
    "4XX": {"model": ErrorResponse, "description": "The caller can fix this; `param` is the path to what is wrong."},
    "5XX": {"model": ErrorResponse, "description": "The server failed, or is not ready."},
}

COMPONENTS = "#/components/schemas/"

# For the page alone: the middleware looks at the key before any route does.
BEARER = fastapi.security.HTTPBearer(auto_error=False, description="The server's key.")


def stream_of(
    chunk: type[ResponseModel] | UnionType, whole: type[ResponseModel], *, ends_with_done: bool = True
) -> dict[str, Any]:
    """The answer of a route that can stream. chunk: what an event carries. whole: the answer that is not streamed."""
    last = "; the last one has [DONE] in place of JSON" if ends_with_done else ""
    data = {"type": "string", "contentMediaType": "application/json", "contentSchema": _schema(chunk, whole)}
    # Before OpenAPI 3.2 the schema of an event stream is that of each event.
    event = {"type": "object", "properties": {"event": {"type": "string"}, "data": data}, "required": ["data"]}
    description = f"The answer; with `stream`, server-sent events whose data is JSON{last}."
    return {"description": description, "content": {"text/event-stream": {"schema": event}}}


def _schema(chunk: type[ResponseModel] | UnionType, whole: type[ResponseModel]) -> Any:
    """FastAPI puts on the page what it knows of, which is the whole answer and its parts: the rest stands in place."""
    schema, on_page = (
        TypeAdapter(each).json_schema(  # type: ignore[arg-type]  # a union is a type too
            mode="serialization", ref_template=f"{COMPONENTS}{{model}}"
        )
        for each in (chunk, whole)
    )
    known = {whole.__name__, *on_page.get("$defs", {})}
    definitions = schema.pop("$defs", {})
    return _in_place(schema, {name: each for name, each in definitions.items() if name not in known})


def _in_place(schema: Any, definitions: Mapping[str, Any]) -> Any:
    if isinstance(schema, list):
        return [_in_place(each, definitions) for each in schema]
    if not isinstance(schema, dict):
        return schema
    name = str(schema.get("$ref", "")).removeprefix(COMPONENTS)
    if name in definitions:
        return _in_place(definitions[name], definitions)
    return {key: _in_place(each, definitions) for key, each in schema.items()}
