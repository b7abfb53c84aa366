"""`toolmask demo`: the same weights decoded freely, in auto and with a required call, side by side."""

import io
import json
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from api.loading import load_shown
from engine.engine import Engine
from engine.errors import ConfigError
from engine.events import Completion
from engine.tools import ToolRegistry, calculate, execute_tool
from engine.types import Message, Request, Role, ToolChoice, ToolChoiceMode

QUESTIONS = ("Calculate 15 * 23 + 47", "Use the calculator tool to compute sqrt(144) + 2^3")
DIRECT_CALL = {"expression": "sqrt(144) + 2**3"}
MODES = ("free", "auto", "required")
TOOLS = ToolRegistry([calculate])


@dataclass(frozen=True, slots=True)
class Answer:
    """One question answered in one mode."""

    mode: str
    completion: Completion
    seconds: float

    @property
    def call(self) -> dict[str, Any] | None:
        """The first complete call."""
        if not self.completion.tool_calls:
            return None
        call = self.completion.tool_calls[0]
        return {"name": call.name, "arguments": call.parsed_arguments()}

    @property
    def result(self) -> Mapping[str, Any] | None:
        """What the tool says to that call."""
        return TOOLS.execute(self.call["name"], self.call["arguments"]) if self.call else None

    def as_json(self, test: int) -> str:
        usage = self.completion.usage
        return json.dumps(
            {
                "test": test,
                "mode": self.mode,
                "call": self.call,
                "result": self.result,
                "tokens": usage.completion_tokens,
                "forced": usage.forced_tokens,
                "forwards": usage.forward_passes,
            },
            ensure_ascii=False,
        )


def run_demo(model: str, *, max_tokens: int, adapter: str | None = None) -> None:
    """Print the comparison, then one JSON object per test as the last lines. Raises EngineError."""
    if max_tokens < 1:
        raise ConfigError(f"max_tokens is {max_tokens}; it must be 1 or more")
    if isinstance(sys.stdout, io.TextIOWrapper):  # a console without UTF-8 shows what it can
        sys.stdout.reconfigure(errors="replace")
    console = Console()
    with Engine(load_shown(model, console, adapter)) as engine:
        console.print(f"[bold]{model}[/bold], tools in the {engine.tool_format.name!r} format, greedy decoding.")
        console.print("Forced tokens are those that the grammar leaves no choice about; passes are the model's.\n")
        required: list[Answer] = []
        for number, question in enumerate(QUESTIONS, start=1):
            answers = [_ask(engine, question, mode, max_tokens, console) for mode in MODES]
            console.print(_table(f"Test {number}: {question}", answers))
            required.append(answers[-1])
    direct = execute_tool("calculate", DIRECT_CALL)
    console.print(f"Test 3: execute_tool('calculate', {DIRECT_CALL}) -> {direct}\n", markup=False)
    call = {"name": "calculate", "arguments": DIRECT_CALL}
    print(*(answer.as_json(number) for number, answer in enumerate(required, start=1)), sep="\n")
    print(
        json.dumps(
            {"test": 3, "mode": "direct", "call": call, "result": direct, "tokens": 0, "forced": 0, "forwards": 0}
        )
    )


def _ask(engine: Engine, question: str, mode: str, max_tokens: int, console: Console) -> Answer:
    with console.status(f"{question!r}, {mode}"):
        start = time.perf_counter()
        completion = engine.submit(_request(engine, question, mode, max_tokens)).completion()
        return Answer(mode, completion, time.perf_counter() - start)


def _request(engine: Engine, question: str, mode: str, max_tokens: int) -> Request:
    messages = (Message(Role.USER, question),)
    offered = Request(messages, tools=TOOLS.definitions, parallel_tool_calls=False, max_tokens=max_tokens)
    if mode == "free":  # the same prompt, tools and all, and nothing that binds the answer
        return Request(prompt=tuple(engine.render_prompt(offered)), max_tokens=max_tokens)
    return replace(offered, tool_choice=ToolChoice(ToolChoiceMode(mode)))


def _table(title: str, answers: list[Answer]) -> Table:
    table = Table(title=title, title_justify="left", show_lines=True)
    table.add_column("mode")
    table.add_column("what the model writes", ratio=1, overflow="fold")
    for header in ("tokens", "forced", "passes", "tokens/s"):
        table.add_column(header, justify="right")
    table.add_column("result", max_width=20)
    for answer in answers:
        usage = answer.completion.usage
        counts = (usage.completion_tokens, usage.forced_tokens, usage.forward_passes)
        speed = f"{usage.completion_tokens / answer.seconds:.1f}"
        table.add_row(answer.mode, Text(_written(answer)), *map(str, counts), speed, Text(_result(answer)))
    return table


def _written(answer: Answer) -> str:
    parts = [answer.completion.text] if answer.completion.text else []
    parts += [f"{call.name}({call.arguments})" for call in answer.completion.tool_calls]
    return "\n".join([*parts, f"[{answer.completion.stop_reason.value}]"])


def _result(answer: Answer) -> str:
    if answer.result is None:
        return "no call"
    return str(answer.result["result"] if answer.result["success"] else answer.result["error"])
