"""Random walks through every family's grammar: what it lets through the parser reads back, and the schemas hold."""

from collections import Counter

import jsonschema
import pytest

from engine.grammars.tool_format import ToolFormat
from engine.grammars.tool_formats import TOOL_FORMATS
from tests import second_reading
from tests.families import WALK_TOOLS, Walk, Walker, arguments_schema, settings_of

NUM_WALKS = 5  # a mode; benchmarks/family_walks.py does 100
MAX_MORE_WALKS = 100  # until everything was seen

each_family = pytest.mark.parametrize("family", TOOL_FORMATS, ids=lambda family: family.name)


def walks_of(family: ToolFormat, num_walks: int) -> dict[str, list[Walk]]:
    return {mode: [Walker(setting, seed).walk() for seed in range(num_walks)] for mode, setting in settings_of(family)}


def check(mode: str, walk: Walk) -> None:
    """What holds for every walk."""
    reading = walk.reading
    for name, arguments in reading.calls:
        jsonschema.Draft202012Validator(dict(arguments_schema(name))).validate(arguments)
    if mode != "auto":
        assert reading.said == "", walk.text
        assert reading.calls or not walk.is_whole, walk.text
    if mode in ("named", "one at a time") or not walk.setting.family.parallel:
        assert reading.num_opened <= 1, walk.text
    if mode == "named":
        assert {name for name, _ in reading.calls} <= {"store"}
    assert len(reading.calls) == reading.num_opened or not walk.is_whole, walk.text


def second_look(walk: Walk) -> bool:
    """Whether mlx-lm's parser could be asked; if so, it reads the same."""
    family, calls = walk.setting.family, walk.reading.calls
    if not walk.is_whole or not second_reading.can_read(family.name, calls) or walk.reading.thought:
        return False
    if second_reading.is_hard(family.name, walk.reading.said):
        return False
    if (word := second_reading.UNREAD_WORDS.get(family.name)) and word in walk.text:
        return False
    assert second_reading.read(family.name, walk.text, WALK_TOOLS) == list(calls), walk.text
    return True


@each_family
def test_what_the_grammar_lets_through_the_parser_reads_back(family: ToolFormat) -> None:
    """F7, F8, F9, F10, F27; calls in each mode, every tool, optional arguments, two calls and text are seen."""
    modes, num_read_twice = walks_of(family, NUM_WALKS), 0
    for mode, walks in modes.items():
        for walk in walks:
            check(mode, walk)
            num_read_twice += second_look(walk)
    settings = dict(settings_of(family))
    for seed in range(NUM_WALKS, NUM_WALKS + MAX_MORE_WALKS):
        if not unseen(family, modes):
            break
        for mode in (mode for mode in modes if mode in ("auto", "required") or not has_call(modes[mode])):
            walk = Walker(settings[mode], seed).walk()
            check(mode, walk)
            num_read_twice += second_look(walk)
            modes[mode].append(walk)
    assert unseen(family, modes) == []
    assert num_read_twice or family.name not in second_reading.MODULES


def has_call(walks: list[Walk]) -> bool:
    return any(walk.reading.calls for walk in walks)


def unseen(family: ToolFormat, modes: dict[str, list[Walk]]) -> list[str]:
    """What no walk has done so far."""
    walks = [walk for each in modes.values() for walk in each]
    calls = Counter(name for walk in walks for name, _ in walk.reading.calls)
    missing = [tool.name for tool in WALK_TOOLS if not calls[tool.name]]
    written = {(name, key) for walk in walks for name, arguments in walk.reading.calls for key in arguments}
    wanted = {(tool.name, key) for tool in WALK_TOOLS for key in (tool.parameters or {}).get("properties", {})}
    missing += [f"{name}.{key}" for name, key in sorted(wanted - written)]
    missing += [f"a call, {mode}" for mode, each in modes.items() if not has_call(each)]
    in_auto = [walk.reading for walk in modes["auto"]]
    if not any(reading.said and not reading.num_opened for reading in in_auto):
        missing.append("text alone in auto")
    for way in family.other_ways:
        if not any(
            way.marker + name + way.before_arguments in walk.text for walk in walks for name, _ in walk.reading.calls
        ):
            missing.append(f"a call behind {way.marker}")
    if family.parallel and not any(len(walk.reading.calls) > 1 for walk in walks):
        missing.append("two calls")
    return missing
