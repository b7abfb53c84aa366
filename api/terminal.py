"""`toolmask chat`: a conversation in the terminal, with the model's calls executed as it goes."""

import itertools
from collections.abc import Iterable

from rich.console import Console
from rich.text import Text

from api.toolbox import AnyTool as RegisteredTool
from api.turns import Turns
from engine.agent import run_agent
from engine.engine import Engine
from engine.errors import GenerationError, RequestError
from engine.events import Event, TextDelta, ToolCallDelta, ToolCallEnd, ToolCallStart
from engine.tools import ToolRegistry
from engine.types import Message, Request, Role, SamplingParams


class Conversation:
    """What was said so far, and how it goes on."""

    def __init__(
        self,
        engine: Engine,
        tools: Iterable[RegisteredTool],
        console: Console,
        *,
        system: str | None = None,
        sampling: SamplingParams | None = None,
        max_tokens: int | None = None,
    ) -> None:
        self._engine = engine
        self._registry = ToolRegistry(tools)
        self._console = console
        self._sampling = sampling or SamplingParams()
        self._max_tokens = max_tokens
        self.messages: tuple[Message, ...] = (Message(Role.SYSTEM, system),) if system else ()

    def ask(self, question: str) -> None:
        """Print the answer as it is written, the calls and their results too. Raises RequestError, GenerationError."""
        asked = (*self.messages, Message(Role.USER, question))
        request = Request(asked, sampling=self._sampling, max_tokens=self._max_tokens)
        turns = Turns(self._engine, request, on_turn=self._show_results, on_event=self._show)
        try:
            run = run_agent(turns, asked, self._registry)
        finally:
            turns.cancel()  # after an interrupt the model must not go on
            self._console.print()
        self.messages = run.messages

    def _show_results(self, messages: tuple[Message, ...]) -> None:
        """The results of tools that are new: those at the end."""
        new = itertools.takewhile(lambda message: message.role is Role.TOOL, reversed(messages))
        for message in reversed(list(new)):
            self._console.print(Text(f"  -> {message.content}", style="dim"))

    def _show(self, event: Event) -> None:
        match event:
            case TextDelta(text) | ToolCallDelta(arguments=text):
                self._console.print(Text(text), end="")
            case ToolCallStart(name=name):
                self._console.print(Text(f"\n  {name} ", style="bold"), end="")
            case ToolCallEnd():
                self._console.print()


def run_chat(conversation: Conversation, console: Console) -> None:
    """Questions from the terminal, until the end of input (Ctrl-D). Ctrl-C ends an answer."""
    while True:
        try:
            question = console.input("[bold]> [/bold]").strip()
        except EOFError:
            return
        if not question:
            continue
        try:
            conversation.ask(question)
        except (RequestError, GenerationError) as error:
            console.print(Text(str(error), style="red"))
        except KeyboardInterrupt:
            console.print(Text("(interrupted)", style="dim"))
