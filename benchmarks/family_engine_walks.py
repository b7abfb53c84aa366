"""Random walks of a noise model through the whole engine, 100 a mode for each family: what came of each is counted.

    python -m benchmarks.family_engine_walks [FAMILY ...]

Writes results/family_engine_walks.json; families that are not named keep their rows. The vocabulary is a small one with
the family's tokens; the tools are 13 sets of the suite's random walks, one after the other. Guard, closing and parser
take part. A set that a family refuses before the first token is counted as refused, with its reason.
"""

import json
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

if __name__ == "__main__" and not __package__:
    # As a script. In place of benchmarks/ itself, whose names should not stand beside the standard library's.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import jsonschema_rs
import numpy as np

from benchmarks.family_walks import chosen_families
from benchmarks.random_model import RandomModel
from engine.config import EngineConfig
from engine.engine import Engine
from engine.errors import EngineError, RequestError
from engine.events import Completion
from engine.generation import Generation
from engine.grammars.tool_format import ToolFormat
from engine.grammars.tool_formats import TOOL_FORMATS
from engine.model import LoadedModel
from engine.tokenizer import Tokenizer
from engine.types import Message, Request, Role, SamplingParams, Tool, ToolChoice, ToolChoiceMode
from tests import second_reading
from tests.families import small_vocabulary
from tests.test_random_walks import TOOL_SETS

RESULTS = Path(__file__).parent / "results" / "family_engine_walks.json"
NUM_WALKS = 100  # a mode
MAX_TOKENS = 60
SETS = (0, 2, 3, 5, 6, 7, 8, 9, 10, 13, 19, 21, 27)  # of the suite's tool sets: those with short calls
MODES = ("auto", "required", "named", "one at a time")
# Text -> how much likelier its first token is than others, in standard deviations of the noise.
LEANS = {'"': 3.5, "}": 3.0, "]": 3.0, ")": 3.0, ", ": 2.5, ",": 2.0, "{": 1.5, "[": 1.5, "1": 1.5, "'": 1.0, "\\": 1.0}
OF_MARKER, OF_END = 3.5, 2.5
TEMPLATE = "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}assistant: {# THINK #}"


def main() -> None:
    names = chosen_families("Walks at random through the whole engine, family by family.", sys.argv[1:])
    rows: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    for family in TOOL_FORMATS:
        if family.name in names:
            rows[family.name] = walk_family(family)
            ordered = {each.name: rows[each.name] for each in TOOL_FORMATS if each.name in rows}
            RESULTS.write_text(json.dumps(ordered, indent=1, ensure_ascii=False) + "\n")
            print(family.name, rows[family.name], flush=True)


def walk_family(family: ToolFormat) -> dict[str, Any]:
    """What the walks of one family came to."""
    start, counts, notes = time.process_time(), Counter[str](), Counter[str]()
    with Engine(noise(family), config=EngineConfig(prompt_cache_memory=0), tool_format=family.name) as engine:
        for mode in MODES:
            for request, outcome in walks(engine, mode):
                found = judged(family, mode, request, outcome)
                counts += Counter(walks=1) + found
                if found["failures"] or found["refused"]:
                    notes[f"{wrong(mode, request, outcome) or f'refused: {outcome}'}"[:160]] += 1
    seen = {kind: counts[kind] for kind in COUNTED}
    return seen | {"notes": dict(sorted(notes.items())), "cpu_s": round(time.process_time() - start, 1)}


COUNTED = (
    *("walks", "refused", "tokens", "calls", "with_text", "with_reasoning", "with_two_calls"),
    *("read_by_mlx_lm_too", "read_otherwise_by_mlx_lm", "failures"),
)


def noise(family: ToolFormat) -> LoadedModel:
    """A model of noise that leans towards the family's markers, structure and ends."""
    tokenizer = small_vocabulary(family.name).with_template(
        TEMPLATE.replace("THINK", family.reasoning.begin if family.reasoning else "")
    )
    lean = np.zeros(tokenizer.num_tokens, dtype=np.float32)
    ends = dict.fromkeys([tokenizer.decode([token]) for token in tokenizer.eos_ids], OF_END)
    markers = dict.fromkeys([way.marker for way in (family, *family.other_ways)], OF_MARKER)
    for text, points in {**LEANS, **ends, **markers}.items():
        token = first_token(tokenizer, text)
        lean[token] = max(lean[token], points)
    return LoadedModel("noise", RandomModel(tokenizer.num_tokens, 1, lean), tokenizer)


def first_token(tokenizer: Tokenizer, text: str) -> int:
    return tokenizer.encode(text)[0]


def walks(engine: Engine, mode: str) -> Iterator[tuple[Request, Completion | Exception]]:
    """Requests and what came of each; they run side by side."""
    requests = [request_of(mode, number) for number in range(NUM_WALKS)]
    started: list[tuple[Request, Generation | Exception]] = []
    for request in requests:
        try:
            started.append((request, engine.submit(request)))
        except RequestError as error:
            started.append((request, error))
    for request, generation in started:
        if isinstance(generation, Exception):
            yield request, generation
            continue
        try:
            yield request, generation.completion()
        except EngineError as error:
            yield request, error


def request_of(mode: str, number: int) -> Request:
    tools = TOOL_SETS[SETS[number % len(SETS)]]
    choice = ToolChoice() if mode == "auto" else ToolChoice(ToolChoiceMode.REQUIRED)
    return Request(
        messages=(Message(Role.USER, "hi"),),
        tools=tools,
        tool_choice=ToolChoice.named(tools[-1].name) if mode == "named" else choice,
        parallel_tool_calls=mode != "one at a time",
        sampling=SamplingParams(temperature=1.0, seed=NUM_WALKS * MODES.index(mode) + number, top_logprobs=0),
        max_tokens=MAX_TOKENS,
    )


def judged(family: ToolFormat, mode: str, request: Request, outcome: Completion | Exception) -> Counter[str]:
    """What one walk adds to the counts."""
    if isinstance(outcome, RequestError):
        return Counter(refused=1)
    if isinstance(outcome, Exception) or wrong(mode, request, outcome):
        return Counter(failures=1)
    found = Counter(tokens=outcome.usage.completion_tokens, calls=len(outcome.tool_calls))
    found += Counter(with_text=bool(outcome.text), with_reasoning=bool(outcome.reasoning))
    return found + Counter(with_two_calls=len(outcome.tool_calls) > 1) + second_look(family, request, outcome)


def wrong(mode: str, request: Request, outcome: Completion | Exception) -> str:
    """What a walk broke; nothing where all holds."""
    if isinstance(outcome, Exception):
        return "" if isinstance(outcome, RequestError) else repr(outcome)
    tools = {tool.name: tool for tool in request.tools}
    for call in outcome.tool_calls:
        if call.name not in tools or (mode == "named" and call.name != request.tools[-1].name):
            return f"a call of {call.name}"
        if not validator_of(tools[call.name]).is_valid(call.parsed_arguments()):
            return f"arguments of {call.name} that its schema refuses: {call.arguments}"
    if mode != "auto" and (not outcome.tool_calls or outcome.text):
        return "no call, or text beside it"
    return "more than one call" if mode in ("named", "one at a time") and len(outcome.tool_calls) > 1 else ""


def validator_of(tool: Any) -> jsonschema_rs.Draft202012Validator:
    assert isinstance(tool, Tool)
    schema = dict(tool.parameters or {"type": "object", "maxProperties": 0})
    return jsonschema_rs.Draft202012Validator(schema, validate_formats=True)


def second_look(family: ToolFormat, request: Request, answer: Completion) -> Counter[str]:
    """Whether mlx-lm's parser reads the same, where it can be asked."""
    calls = tuple((call.name, call.parsed_arguments()) for call in answer.tool_calls)
    said = answer.text or ""
    if answer.reasoning or not second_reading.can_read(family.name, calls):
        return Counter()
    if second_reading.is_hard(family.name, said):
        return Counter()
    text = b"".join(token.token for token in answer.logprobs or ()).decode("utf-8", "replace")
    tools = [tool for tool in request.tools if isinstance(tool, Tool)]
    try:
        same = second_reading.read(family.name, text, tools) == list(calls)
    except Exception:  # of another's parser
        same = False
    return Counter(read_by_mlx_lm_too=1) if same else Counter(read_otherwise_by_mlx_lm=1)


if __name__ == "__main__":
    main()
