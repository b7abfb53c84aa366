"""POST /v1/chat/completions."""

import functools
import json
from dataclasses import replace

import fastapi
from starlette.responses import Response

from api.agents import run_on_server
from api.convert.answers import answered_by
from api.convert.chat import ChatAnswer, ChatStream, to_completion
from api.convert.errors import WireError, from_exception
from api.convert.handed_over import may_be_handed_over, upstream_body, with_answered_by
from api.convert.requests import must_call, paths_of, to_request
from api.convert.sampling import includes_usage
from api.fallback import Upstream, confidence, least_sure
from api.jobs import Deliver, Job, model_in_use
from api.lifetime import Lifetime, lifetime_of
from api.relay import RelayedStream
from api.responses import EventStream, json_response, replayed
from api.routes.documented import ERRORS, stream_of
from api.schemas.chat import ChatChunk, ChatCompletion, ChatRequest
from api.server import Server, fingerprint, server_of
from engine.decision_options import DecisionOptions
from engine.engine import Engine
from engine.errors import RequestError
from engine.events import Decision, Finished
from engine.generation import Generation, OnProbe

router = fastapi.APIRouter(tags=["chat"])


@router.post(
    "/v1/chat/completions",
    response_model=ChatCompletion,
    responses={200: stream_of(ChatChunk, ChatCompletion), **ERRORS},
    summary="Answer a conversation",
)
async def create_chat_completion(body: ChatRequest, request: fastapi.Request) -> Response:
    """With `stream` as server-sent events: chunks that add up to the answer that is not streamed, then [DONE].

    A stream that fails ends with an error event and has no finish_reason.
    """
    server = server_of(request)
    if body.tool_execution == "server":
        return await _executed(request, body)
    answer = _answer(body)
    _check_best_of(body)
    job = await Job.start(request, body.model, functools.partial(_submit, server, body), answer.paths)
    if server.upstream is not None and may_be_handed_over(body):
        decisions = await _decisions(job)
        sure = confidence(decisions)
        if server.upstream.takes(sure):
            await job.close()
            server.metrics.handed_over(least_sure(decisions).value)
            return await _handed_over(server, server.upstream, body, sure, lifetime_of(request))
        answer = replace(answer, by=answered_by("model", job.model, sure))
    if body.stream:
        return EventStream(job, ChatStream(answer, job.num_choices))
    async with job:
        return json_response(to_completion(answer, await job.collect()))


def _submit(server: Server, body: ChatRequest, engine: Engine, deliver: Deliver, on_probe: OnProbe) -> list[Generation]:
    request = to_request(body, server.tools.definitions)
    if body.toolmask is not None and (best_of := body.toolmask.best_of) is not None:
        return [engine.submit_best(request, best_of, functools.partial(deliver, 0), on_probe)]
    if server.upstream is not None and may_be_handed_over(body) and request.may_decide and request.decision is None:
        request = replace(request, decision=DecisionOptions())  # only looked at
    return engine.submit_choices(request, body.n or 1, deliver, on_probe)


async def _decisions(job: Job) -> list[Decision]:
    """What the local model has decided; the job goes on. Raises WireError, and then the job is closed."""
    try:
        return await job.decisions()
    except BaseException:
        await job.close()
        raise


async def _handed_over(
    server: Server, upstream: Upstream, body: ChatRequest, sure: float | None, lifetime: Lifetime
) -> Response:
    """The upstream's answer, as it is but for who answered. Raises WireError before its first byte."""
    by = answered_by("fallback", upstream.config.model, sure)
    asked = upstream_body(body, upstream.config.model, server.tools.definitions)
    if body.stream:
        return RelayedStream(await upstream.stream(asked, lifetime), by)
    answer = with_answered_by(await upstream.answer(asked, lifetime), by)
    return Response(json.dumps(answer), media_type="application/json")


def _answer(body: ChatRequest) -> ChatAnswer:
    return ChatAnswer(
        model=body.model,
        fingerprint=fingerprint(body.model),
        paths=paths_of(body),
        must_call=must_call(body),
        has_logprobs=body.logprobs is True,
        includes_usage=includes_usage(body),
    )


def _check_best_of(body: ChatRequest) -> None:
    if body.toolmask is None or body.toolmask.best_of is None:
        return
    for is_beside, what in ((body.n or 1) > 1, "n above 1"), (body.tool_execution == "server", "tool_execution server"):
        if is_beside:
            param = "toolmask.best_of"
            raise WireError(400, f"{param} cannot stand beside {what}", param=param)


async def _executed(http_request: fastapi.Request, body: ChatRequest) -> Response:
    """The answer to a conversation whose tools the server runs. Streamed, it comes at once when all is done."""
    server, lifetime = server_of(http_request), lifetime_of(http_request)
    _check_best_of(body)
    names = _names_of_tools(server, body)
    answer = _answer(body)  # now: what is wrong with its options must be told before a tool has run
    try:
        request = to_request(body.model_copy(update={"tools": names}), server.tools.definitions)
    except RequestError as error:
        raise from_exception(error, answer.paths) from error
    async with model_in_use(server, body.model, lifetime) as serving:
        registry = server.tools.subset(names)
        done = await run_on_server(server, serving.engine, request, registry, lifetime=lifetime, paths=answer.paths)
    server.metrics.used([[event.usage for event in done.events if isinstance(event, Finished)]])
    # Only the first turn had to call; the last one is a text.
    answer = replace(answer, trace=done.trace, must_call=False)
    if body.stream:
        return replayed(ChatStream(answer, 1), done.events)
    return json_response(to_completion(answer, [done.events]))


def _names_of_tools(server: Server, body: ChatRequest) -> list[str]:
    if (body.n or 1) > 1:
        raise WireError(400, "n must be 1 where the server executes tools", param="n")
    names = list(server.tools.definitions) if body.tools is None else body.tools
    for position, name in enumerate(names):
        if not isinstance(name, str):
            path = f"tools[{position}]"
            raise WireError(400, f"{path} must be the name of one of the server's tools, which it executes", param=path)
    return [name for name in names if isinstance(name, str)]
