"""The models that the server knows, and which of them serves."""

import asyncio

import fastapi
from starlette.responses import Response

from api.convert.errors import WireError
from api.manager import LoadState, LoadStatus, ModelManager
from api.responses import json_response
from api.routes.documented import ERRORS
from api.schemas.models import LoadProgress, LoadRequest, ModelInfo, ModelList, UnloadRequest, UnloadResponse
from api.server import server_of

router = fastapi.APIRouter(tags=["models"])


@router.get("/v1/models", response_model=ModelList, responses=ERRORS, summary="The models that a request may name")
async def list_models(request: fastapi.Request) -> Response:
    """Those that are known; `status` says which one serves."""
    manager = server_of(request).manager
    return json_response(ModelList(object="list", data=[_info(manager, name) for name in manager.known]))


@router.get("/v1/models/load", response_model=LoadProgress, responses=ERRORS, summary="How far the latest load is")
async def read_load(request: fastapi.Request) -> Response:
    """Readable while a load runs, and after it; `queued` names those that come next."""
    manager = server_of(request).manager
    if manager.status is None:
        raise WireError(404, "no model was loaded yet", code="no_load")
    return json_response(_progress(manager.status, manager))


@router.post(
    "/v1/models/load",
    response_model=LoadProgress,
    responses={202: {"model": LoadProgress, "description": "The load goes on; `wait` was false."}, **ERRORS},
    summary="Load a model and serve it",
)
async def load_model(body: LoadRequest, request: fastapi.Request) -> Response:
    """Where it fails, the model before goes on serving. Loads run one after the other."""
    manager = server_of(request).manager
    await manager.check_name(body.model)
    task = manager.start_load(body.model)
    if body.wait:
        await asyncio.shield(task)
    # What was asked for: the latest load may be another one.
    return json_response(_progress(manager.progress_of(body.model), manager), 200 if body.wait else 202)


@router.post("/v1/models/unload", response_model=UnloadResponse, responses=ERRORS, summary="Stop serving a model")
async def unload_model(body: UnloadRequest, request: fastapi.Request) -> Response:
    """Answers when its requests in flight have finished and its memory is free."""
    await server_of(request).manager.unload(body.model)
    return json_response(UnloadResponse(id=body.model, object="model", unloaded=True))


# Last, since the name of a model may have slashes: it matches all that is left.
@router.get("/v1/models/{model:path}", response_model=ModelInfo, responses=ERRORS, summary="One model")
async def read_model(model: str, request: fastapi.Request) -> Response:
    """A model that the server knows."""
    manager = server_of(request).manager
    if model not in manager.known:
        raise WireError(404, f"the model {model!r:.200} does not exist here", param="model", code="model_not_found")
    return json_response(_info(manager, model))


def _info(manager: ModelManager, name: str) -> ModelInfo:
    status = manager.status
    is_loading = status is not None and status.model == name and status.state is LoadState.LOADING
    return ModelInfo(
        id=name,
        object="model",
        created=manager.known[name],
        owned_by="toolmask",
        status="serving" if manager.served == name else "loading" if is_loading else "known",
    )


def _progress(status: LoadStatus, manager: ModelManager) -> LoadProgress:
    return LoadProgress(
        model=status.model,
        state=status.state.value,
        stage=status.progress.stage,
        done_bytes=status.progress.done_bytes,
        total_bytes=status.progress.total_bytes,
        error=None if status.error is None else str(status.error),
        queued=manager.queued,
    )
