"""A chat request as an upstream is asked it, and the upstream's answer with the name of who answered."""

import json
import math
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

from api.convert.requests import ServerTools
from api.schemas.chat import ChatRequest
from api.schemas.common import AnsweredBy, DecisionFields
from api.schemas.tools import FunctionDefinition, FunctionTool, RequestTool

# Ours alone, or good for the local model only.
KEPT_BACK = {"model", "toolmask", "tool_execution"}


def may_be_handed_over(body: ChatRequest) -> bool:
    """Whether an upstream can honour all that the request asks for; if not, the local model answers."""
    asked = set() if body.toolmask is None else body.toolmask.model_dump(exclude_none=True).keys()
    return body.tool_execution != "server" and not body.logit_bias and asked <= DecisionFields.model_fields.keys()


def upstream_body(body: ChatRequest, model: str, server_tools: ServerTools) -> dict[str, Any]:
    """The request in OpenAI's own words: tools spelled, without what another model thought."""
    given = body.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude=KEPT_BACK)
    if body.tools is not None:
        given["tools"] = [_spelled(tool, server_tools) for tool in body.tools]
    for message in given["messages"]:
        message.pop("reasoning_content", None)
    return {"model": model, **given}


def _spelled(tool: RequestTool, server_tools: ServerTools) -> dict[str, Any]:
    if isinstance(tool, str):
        known = server_tools[tool]
        parameters = None if known.parameters is None else dict(known.parameters)
        function = FunctionDefinition(name=known.name, description=known.description, parameters=parameters)
        tool = FunctionTool(type="function", function=function)
    return tool.model_dump(mode="json", by_alias=True, exclude_unset=True)


def with_answered_by(answer: dict[str, Any], by: AnsweredBy) -> dict[str, Any]:
    """The answer, or a stream's first chunk, with one key more."""
    own = answer.get("toolmask")
    return {
        **answer,
        "toolmask": {**(own if isinstance(own, dict) else {}), "answered_by": by.model_dump(exclude_unset=True)},
    }


def read_object(data: bytes | str) -> dict[str, Any] | None:
    """A JSON object; None where it is none, as where a number in it is none of JSON's."""
    try:
        found = json.loads(data, parse_constant=_finite, parse_float=_finite)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _finite(text: str) -> float:
    """Raises ValueError for NaN and what no float holds: Python would write both as no JSON."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is no number of JSON")
    return value


async def server_sent_data(parts: AsyncIterator[bytes]) -> AsyncGenerator[str, None]:
    """The data of each server-sent event, as the standard reads them. An event that is not ended is none."""
    rest, lines = b"", []
    async for part in parts:
        *whole, rest = (rest + part).split(b"\n")
        for line in whole:
            text = line.removesuffix(b"\r").decode(errors="replace")
            if text.startswith("data:"):
                lines.append(text[5:].removeprefix(" "))
            elif text == "" and lines:
                yield "\n".join(lines)
                lines = []
