"""For those who run the server."""

import fastapi
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import Response

from api.manager import LoadState
from api.responses import json_response
from api.routes.documented import ERRORS
from api.schemas.health import Health
from api.server import server_of

router = fastapi.APIRouter(tags=["operation"])
open_router = fastapi.APIRouter(tags=["operation"])  # needs no key


@open_router.get(
    "/health",
    response_model=Health,
    responses={"4XX": ERRORS["4XX"], 503: {"model": Health, "description": "No model serves yet."}},
    summary="Whether requests are answered",
)
async def health(request: fastapi.Request) -> Response:
    """Needs no key."""
    manager = server_of(request).manager
    if manager.served is not None:
        return json_response(Health(status="ok", model=manager.served))
    is_loading = manager.status is not None and manager.status.state is LoadState.LOADING
    return json_response(Health(status="loading" if is_loading else "no_model", model=None), 503)


@router.get(
    "/metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **ERRORS},
    summary="What Prometheus reads",
)
async def metrics(request: fastapi.Request) -> Response:
    """Counters and histograms in Prometheus's text format."""
    return Response(server_of(request).metrics.page(), media_type=CONTENT_TYPE_LATEST)
