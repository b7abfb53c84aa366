"""POST /v1/tokenize."""

import anyio.to_thread
import fastapi
from starlette.responses import Response

from api.convert.errors import WireError, from_exception
from api.convert.paths import Paths, from_rules
from api.convert.requests import Prompted, prompt_rules, template_options, template_rules, to_prompt_request
from api.jobs import model_in_use
from api.lifetime import lifetime_of
from api.responses import json_response
from api.routes.documented import ERRORS
from api.schemas.common import PromptOptions
from api.schemas.tokenize import TokenizeRequest, TokenizeResponse
from api.server import Server, server_of
from engine.engine import Engine

router = fastapi.APIRouter(tags=["tokens"])


@router.post("/v1/tokenize", response_model=TokenizeResponse, responses=ERRORS, summary="Count and list tokens")
async def tokenize(body: TokenizeRequest, request: fastapi.Request) -> Response:
    """Of a text as it is, or of the whole prompt that messages and tools become."""
    server = server_of(request)
    if (body.text is None) == (body.messages is None):
        raise WireError(400, "give either text or messages", param="text")
    for name in ("tools", "tool_choice", "reasoning_effort", "toolmask"):
        if body.text is not None and getattr(body, name) is not None:
            raise WireError(400, f"{name} belongs to messages; a text is counted as it is", param=name)
    async with model_in_use(server, body.model, lifetime_of(request)) as serving:
        try:
            ids = await anyio.to_thread.run_sync(_ids, server, serving.engine, body)
        except Exception as error:
            raise from_exception(error, _paths(body)) from error
        context_length = serving.engine.context_length
        answer = TokenizeResponse(model=serving.name, count=len(ids), tokens=ids, context_length=context_length)
    return json_response(answer)


def _ids(server: Server, engine: Engine, body: TokenizeRequest) -> list[int]:
    if body.messages is None:
        return list(engine.loaded.tokenizer.encode(body.text or ""))
    chosen = body.toolmask or PromptOptions()
    options = template_options(chosen, body.reasoning_effort, "reasoning_effort")
    prompted = Prompted(body.messages, body.tools or (), body.tool_choice, options, chosen)
    return engine.render_prompt(to_prompt_request(prompted, server.tools.definitions))


def _paths(body: TokenizeRequest) -> Paths:
    rules = template_rules(body.reasoning_effort, "reasoning_effort")
    return from_rules([*rules, *prompt_rules(body.messages or (), body.tools or ())])
