"""tool_execution "server": the engine's agent loop in a thread, which ends with its request, or soon after."""

from dataclasses import dataclass

from api.convert.answers import answered_by
from api.convert.errors import from_exception
from api.convert.paths import Paths
from api.lifetime import Lifetime
from api.schemas.common import ToolStep
from api.server import Server
from api.turns import Turns
from engine.agent import ToolStep as EngineStep
from engine.agent import run_agent
from engine.engine import Engine
from engine.events import Event
from engine.tools import ToolRegistry
from engine.types import Request


@dataclass(frozen=True, slots=True)
class AgentAnswer:
    """The last turn's events, with the usage of all turns, and the calls on the way."""

    events: list[Event]
    trace: list[ToolStep]


async def run_on_server(
    server: Server, engine: Engine, request: Request, registry: ToolRegistry, *, lifetime: Lifetime, paths: Paths
) -> AgentAnswer:
    """Model and tools in turn until there is a text. Raises WireError."""
    turns = Turns(engine, request)

    def run() -> tuple[EngineStep, ...]:
        rounds, first = server.config.max_tool_rounds, request.tool_choice
        return run_agent(turns, request.messages, registry, tool_choice=first, max_rounds=rounds).steps

    try:
        async with lifetime.bound():
            steps = await server.tool_threads.run(run)
    except Exception as error:
        raise from_exception(error, paths) from error
    finally:
        turns.cancel()
    for route in filter(None, turns.routes):
        server.metrics.routed(route)
    return AgentAnswer(turns.events(), [_step(step, turns.routes[step.round]) for step in steps])


def _step(step: EngineStep, route: str | None) -> ToolStep:
    call, result = step.call, dict(step.result)
    told = ToolStep(round=step.round, id=call.id, name=call.name, arguments=call.arguments, result=result)
    if route is not None:
        told.answered_by = answered_by("route", route)
    return told
