"""The application: routes, what is around them, and what errors become."""

import asyncio
import contextlib
import functools
import importlib.metadata
from collections.abc import AsyncIterator, Callable

import fastapi
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response

from api.convert.errors import INVALID, SERVER, WireError, from_exception, from_unreadable, from_validation
from api.manager import ModelManager
from api.middleware import AccessLog, ApiKey, BodyLimit, Bounded, Failures, RefusedBodyError
from api.routes import chat, completions, models, operation, responses, tokenize, tools
from api.routes.documented import BEARER
from api.routes.query import no_query_parameters
from api.server import Server, new_server
from api.settings import ServerConfig

ROUTERS = tuple(each.router for each in (chat, completions, responses, models, tools, tokenize, operation))


OnFailedStart = Callable[[WireError], None]


def create_app(
    config: ServerConfig, manager: ModelManager, *, on_failed_start: OnFailedStart | None = None
) -> fastapi.FastAPI:
    """The server as an ASGI application. It loads config.model when it starts, and closes the manager at its end.

    on_failed_start: called where config.model cannot be loaded; without it the application goes on, and says so.
    """
    app = fastapi.FastAPI(
        title="toolmask",
        version=importlib.metadata.version("toolmask"),
        description="An OpenAI-style API whose tool calls are correct by construction.",
        lifespan=functools.partial(_lifespan, on_failed_start=on_failed_start),
        redoc_url=None,
    )
    app.state.server = server = new_server(config, manager)
    _add_metrics(server)
    open_to_all = [fastapi.Depends(no_query_parameters)]
    locked = [] if config.api_key is None else [fastapi.Depends(BEARER)]
    for router in ROUTERS:
        app.include_router(router, dependencies=[*open_to_all, *locked])
    app.include_router(operation.open_router, dependencies=open_to_all)
    _add_error_handlers(app)
    _add_middleware(app, config)
    return app


def _add_metrics(server: Server) -> None:
    """What is asked for when Prometheus reads."""
    manager, metrics = server.manager, server.metrics
    metrics.gauge("requests_in_flight", "Requests that use the model now", lambda: manager.num_requests)
    metrics.gauge("running_sequences", "Answers that the model writes in turn", lambda: manager.load_now.num_running)
    metrics.gauge("waiting_sequences", "Answers that wait for their turn", lambda: manager.load_now.num_waiting)
    metrics.counter("mask_seconds", "Host time spent filling masks", lambda: manager.load_now.mask_seconds)


@contextlib.asynccontextmanager
async def _lifespan(app: fastapi.FastAPI, *, on_failed_start: OnFailedStart | None) -> AsyncIterator[None]:
    server: Server = app.state.server

    def tell(task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if isinstance(error, WireError) and on_failed_start is not None:
            on_failed_start(error)

    if server.manager.served is None:
        # In the background: while it runs, requests are told so.
        server.manager.start_load(server.config.model).add_done_callback(tell)
    try:
        yield
    finally:
        await server.manager.close()
        if server.upstream is not None:
            await server.upstream.close()


def _add_middleware(app: fastapi.FastAPI, config: ServerConfig) -> None:
    """The last one that is added is the outermost: all that is answered is logged, and browsers may read all of it."""
    server: Server = app.state.server
    app.add_middleware(BodyLimit, max_bytes=config.max_body_bytes)
    if config.api_key is not None:
        app.add_middleware(ApiKey, key=config.api_key)
    app.add_middleware(Bounded, lifetimes=server.lifetimes, limit_s=config.request_timeout_s)
    app.add_middleware(Failures)
    if config.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=config.cors_origins,
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["*"],
            expose_headers=["x-request-id", "retry-after"],
        )
    app.add_middleware(AccessLog, on_answered=server.metrics.request)


# Errors.


def _add_error_handlers(app: fastapi.FastAPI) -> None:
    app.add_exception_handler(WireError, _wire_error)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http_error)


def _answer(error: WireError) -> Response:
    return Response(error.json_text(), error.status, dict(error.headers), "application/json")


async def _wire_error(_: Request, error: Exception) -> Response:
    return _answer(from_exception(error))


async def _invalid(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return _answer(from_validation(error.errors(), error.body))


async def _http_error(request: Request, error: Exception) -> Response:
    """What Starlette and FastAPI refuse themselves: unknown paths, wrong methods, bodies that cannot be read."""
    assert isinstance(error, HTTPException)
    if isinstance(error, RefusedBodyError):
        return _answer(error.error)
    if error.status_code == 400:  # FastAPI's one 400: the body
        return _answer(from_unreadable(error.__cause__))
    texts = {
        404: (f"there is nothing at {request.url.path!r:.200}", "unknown_url"),
        405: (f"{request.method} is not allowed at {request.url.path!r:.200}", "method_not_allowed"),
    }
    message, code = texts.get(error.status_code, (str(error.detail), None))
    kind = INVALID if error.status_code < 500 else SERVER
    return _answer(WireError(error.status_code, message, kind=kind, code=code, headers=error.headers))
