"""The engine as the agent loop uses it, one turn after the other, with a way to watch and to stop it."""

import threading
from collections.abc import Callable, Iterable
from dataclasses import fields, replace

from api.convert.answers import cancelled
from engine.admission import MAX_SEED, seed_of
from engine.engine import Engine
from engine.events import Completion, Event, Finished, Usage
from engine.generation import Generation
from engine.output import collect
from engine.requests import AnyMessage, AnyTool, AnyToolChoice, to_messages, to_tool_choice, to_tools
from engine.types import Message, OfferedTool, Request, SamplingParams, ToolChoice, ToolChoiceMode

OnTurn = Callable[[tuple[Message, ...]], None]  # the conversation, before the model goes on with it
OnEvent = Callable[[Event], None]


class Turns:
    """Has the one method of the engine that `run_agent` calls. Each turn has the request's own options."""

    def __init__(
        self, engine: Engine, request: Request, *, on_turn: OnTurn | None = None, on_event: OnEvent | None = None
    ) -> None:
        self._engine = engine
        self._request = request
        self._seed = seed_of(request.sampling)  # the one that is told gives all turns again
        self._on_turn = on_turn
        self._on_event = on_event
        self._lock = threading.Lock()
        self._current: Generation | None = None
        self._cancelled = False
        self._usages: list[Usage] = []
        self.routes: list[str | None] = []  # of each turn, the direct route that answered it
        self._last: list[Event] = []

    def chat(
        self,
        messages: Iterable[AnyMessage],
        *,
        tools: Iterable[AnyTool],
        tool_choice: AnyToolChoice,
        sampling: SamplingParams | None = None,  # noqa: ARG002  the request's counts
        max_tokens: int | None = None,  # noqa: ARG002  the request's counts
    ) -> Completion:
        """One turn, to its end. Raises WireError once cancelled; GenerationError where that was before it began."""
        conversation, choice = to_messages(messages), to_tool_choice(tool_choice)
        if self._on_turn is not None:
            self._on_turn(conversation)
        request = self._turn(conversation, to_tools(tools), choice)
        if self._cancelled:
            raise cancelled()
        # Not under the lock: it may wait long, and who cancels must not.
        generation = self._engine.submit(request, on_probe=self._hold)
        self._hold(generation)
        self._last = list(self._watched(generation))
        if self._cancelled:  # calls that were complete by then are not executed
            raise cancelled()
        self._usages.append(_end(self._last).usage)
        self.routes.append(_end(self._last).route)
        return collect(self._last)

    def _turn(self, conversation: tuple[Message, ...], tools: tuple[OfferedTool, ...], choice: ToolChoice) -> Request:
        """The request's next turn. Where it must call, or may not, nothing is left to decide."""
        first = self._request
        may_decide = choice.mode is ToolChoiceMode.AUTO
        # Noise of its own: what was drawn in one turn should not be drawn again in the next because it was drawn there.
        seed = (self._seed + len(self._usages)) % MAX_SEED
        return replace(
            first,
            messages=conversation,
            sampling=replace(first.sampling, seed=seed),
            tools=tools,
            tool_choice=choice,
            decision=first.decision if may_decide else None,
            tool_choice_by=first.tool_choice_by if choice.mode is not ToolChoiceMode.NONE else None,
            optional_bias=first.optional_bias if choice.mode is not ToolChoiceMode.NONE else None,
        )

    def _hold(self, generation: Generation) -> None:
        """What runs from now on."""
        with self._lock:
            self._current = generation
            if self._cancelled:
                generation.cancel()

    def cancel(self) -> None:
        """Stop the turn that runs and begin no other. A tool that runs goes on to its end."""
        with self._lock:
            self._cancelled = True
            if self._current is not None:
                self._current.cancel()

    def events(self) -> list[Event]:
        """The last turn's, with the usage of all, and the seed."""
        total = {each.name: sum(getattr(usage, each.name) for usage in self._usages) for each in fields(Usage)}
        return [*self._last[:-1], replace(_end(self._last), usage=Usage(**total), seed=self._seed)]

    def _watched(self, generation: Generation) -> Iterable[Event]:
        for event in generation:
            if self._on_event is not None:
                self._on_event(event)
            yield event


def _end(events: list[Event]) -> Finished:
    end = events[-1]
    assert isinstance(end, Finished)
    return end
