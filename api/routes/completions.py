"""POST /v1/completions."""

import functools

import fastapi
from starlette.responses import Response

from api.convert.completions import CompletionAnswer, CompletionStream, paths_of, prompts_of, to_completion, to_requests
from api.convert.errors import from_exception
from api.convert.sampling import includes_usage
from api.jobs import Deliver, Job, submit_all
from api.responses import EventStream, json_response
from api.routes.documented import ERRORS, stream_of
from api.schemas.completions import Completion, CompletionRequest
from api.server import fingerprint
from engine.engine import Engine
from engine.errors import EngineError
from engine.generation import Generation, OnProbe
from engine.types import Request

router = fastapi.APIRouter(tags=["completions"])


@router.post(
    "/v1/completions",
    response_model=Completion,
    responses={200: stream_of(Completion, Completion), **ERRORS},
    summary="Go on with a text",
)
async def create_completion(body: CompletionRequest, request: fastapi.Request) -> Response:
    """OpenAI's older endpoint: no messages, no tools, no chat template."""
    answer = CompletionAnswer(
        model=body.model,
        fingerprint=fingerprint(body.model),
        num_choices=body.n or 1,
        paths=paths_of(body),
        has_logprobs=body.logprobs is not None,
        includes_usage=includes_usage(body),
    )
    job = await Job.start(request, body.model, functools.partial(_submit, body), answer.paths)
    job.num_prompts = len(prompts_of(body))
    if body.stream:
        return EventStream(job, CompletionStream(answer, job.num_choices))
    async with job:
        return json_response(to_completion(answer, await job.collect()))


def _submit(body: CompletionRequest, engine: Engine, deliver: Deliver, _: OnProbe) -> list[Generation]:
    num_choices = body.n or 1

    def submit(position: int, request: Request) -> list[Generation]:
        first = position * num_choices
        try:
            return engine.submit_choices(request, num_choices, lambda index, event: deliver(first + index, event))
        except EngineError as error:
            raise from_exception(error, paths_of(body, position)) from error

    requests = to_requests(body, engine.loaded.tokenizer.encode)
    return submit_all([functools.partial(submit, position, each) for position, each in enumerate(requests)])
