"""OpenAI's Responses: create, read, delete."""

import functools

import fastapi
import starlette.responses

from api.convert.response_requests import Asked, Items, flat_tools, paths_of, to_request
from api.convert.responses import ResponseAnswer, ResponseStream, to_response
from api.jobs import Deliver, Job
from api.responses import EventStream, json_response
from api.routes.documented import ERRORS, stream_of
from api.schemas.response_events import AnyEvent
from api.schemas.responses import DeletedResponse, Response, ResponseRequest
from api.server import Server, server_of
from engine.engine import Engine
from engine.generation import Generation, OnProbe

router = fastapi.APIRouter(tags=["responses"])


@router.post(
    "/v1/responses",
    response_model=Response,
    responses={200: stream_of(AnyEvent, Response, ends_with_done=False), **ERRORS},
    summary="Answer a conversation, or go on with one that the server keeps",
)
async def create_response(body: ResponseRequest, request: fastapi.Request) -> starlette.responses.Response:
    """With `stream` as server-sent events, the last of which carries the answer that is not streamed.

    A stream that fails ends with an error event and response.failed. An answer that max_output_tokens cuts off is
    incomplete; where it cuts off a call, the answer is an error.
    """
    server = server_of(request)
    asked = Asked(body, _history(server, body))
    submit = functools.partial(_submit, server, asked)
    paths, must_call = paths_of(asked), asked.must_call
    job = await Job.start(request, body.model, submit, paths)
    # Once it is submitted: the names of tools have been looked up, so they exist.
    answer = ResponseAnswer(body, flat_tools(body.tools or (), server.tools.definitions), paths, must_call)
    keep = functools.partial(_keep, server, asked)
    if body.stream:
        return EventStream(job, ResponseStream(answer, keep))
    async with job:
        (turn,) = await job.collect()
    return json_response(to_response(answer, turn, keep))


@router.get("/v1/responses/{response_id}", response_model=Response, responses=ERRORS, summary="Read a response again")
async def read_response(response_id: str, request: fastapi.Request) -> starlette.responses.Response:
    """One that the server still keeps."""
    stored = server_of(request).responses.get(response_id, param="response_id")
    return starlette.responses.Response(stored.response, media_type="application/json")


@router.delete(
    "/v1/responses/{response_id}", response_model=DeletedResponse, responses=ERRORS, summary="Forget a response"
)
async def delete_response(response_id: str, request: fastapi.Request) -> starlette.responses.Response:
    """Responses that went on from it stay."""
    server_of(request).responses.delete(response_id, param="response_id")
    return json_response(DeletedResponse(id=response_id, object="response", deleted=True))


def _history(server: Server, body: ResponseRequest) -> Items:
    if body.previous_response_id is None:
        return ()
    return server.responses.get(body.previous_response_id, param="previous_response_id").items()


def _submit(server: Server, asked: Asked, engine: Engine, deliver: Deliver, on_probe: OnProbe) -> list[Generation]:
    request = to_request(asked, server.tools.definitions)
    if asked.body.toolmask is not None and (best_of := asked.body.toolmask.best_of) is not None:
        return [engine.submit_best(request, best_of, functools.partial(deliver, 0), on_probe)]
    return engine.submit_choices(request, 1, deliver, on_probe)


def _keep(server: Server, asked: Asked, response: Response) -> None:
    if asked.body.store is not False:
        server.responses.put(response, asked.items)
