"""The tools that the server executes."""

import functools

import fastapi
from starlette.responses import Response

from api.convert.errors import WireError
from api.lifetime import lifetime_of
from api.responses import json_response
from api.routes.documented import ERRORS
from api.schemas.tools import ExecuteRequest, ExecuteResponse, FunctionDefinition, ServerTool, ServerToolList
from api.server import server_of
from engine.types import Tool

router = fastapi.APIRouter(tags=["tools"])


@router.get("/v1/tools", response_model=ServerToolList, responses=ERRORS, summary="The tools of the server")
async def list_tools(request: fastapi.Request) -> Response:
    """Their names may stand in a request's `tools`."""
    tools = server_of(request).tools.definitions.values()
    return json_response(ServerToolList(object="list", data=[_tool(tool) for tool in tools]))


@router.post("/v1/tools/execute", response_model=ExecuteResponse, responses=ERRORS, summary="Execute a tool")
async def execute_tool(body: ExecuteRequest, request: fastapi.Request) -> Response:
    """A tool that fails, or arguments that it does not take, are a result too: success is false, error says why."""
    server = server_of(request)
    if body.tool not in server.tools.definitions:
        known = ", ".join(server.tools.definitions) or "none"
        message = f"the server has no tool {body.tool!r:.80}; it has {known}"
        raise WireError(404, message, param="tool", code="tool_not_found")
    async with lifetime_of(request).bound():
        result = await server.tool_threads.run(functools.partial(server.tools.execute, body.tool, body.args))
    return json_response(ExecuteResponse(**result))


def _tool(tool: Tool) -> ServerTool:
    parameters = dict(tool.parameters) if tool.parameters else {"type": "object", "properties": {}}
    definition = FunctionDefinition(name=tool.name, description=tool.description, parameters=parameters)
    return ServerTool(type="function", function=definition)
