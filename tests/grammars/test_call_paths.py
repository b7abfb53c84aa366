"""For every family: the tokens that are scored as a call's beginning are those that a call begins with."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.grammars.call_paths import ToolPath, ToolTree, call_opening, tool_path
from engine.grammars.tool_format import ToolFormat
from engine.grammars.tool_formats import TOOL_FORMATS
from engine.types import Tool
from tests.families import Setting
from tests.recorded_turns import CLOCK, WEATHER

TOOLS = (WEATHER, CLOCK, Tool(f"{CLOCK.name}_2"))
NAMES_END = [family for family in TOOL_FORMATS if family.before_arguments]
each_family = pytest.mark.parametrize("family", TOOL_FORMATS, ids=lambda family: family.name)


@each_family
def test_the_opening_has_the_marker_in_it_and_no_more_tokens_than_that_takes(family: ToolFormat) -> None:
    setting = Setting(family, TOOLS)
    opening = call_opening(family, TOOLS, setting.tokenizer, family.marker)
    assert opening.lasts
    for last in opening.lasts:
        assert setting.tokenizer.decode([*opening.stem, last]).startswith(family.marker)
    assert not setting.tokenizer.decode(opening.stem).startswith(family.marker)


@each_family
def test_an_opening_may_be_written_and_only_a_call_follows(family: ToolFormat) -> None:
    setting = Setting(family, TOOLS)
    opening = call_opening(family, TOOLS, setting.tokenizer, family.marker)
    for last in opening.lasts:
        matcher = setting.matcher()
        matcher.accept([*opening.stem, last])
        assert not matcher.is_accepting


@pytest.mark.parametrize("family", NAMES_END, ids=lambda family: family.name)
def test_a_path_may_be_written_and_is_the_beginning_of_no_other_tool_s(family: ToolFormat) -> None:
    setting = Setting(family, TOOLS)
    paths = [tool_path(family, tool, setting.tokenizer) for tool in TOOLS]
    texts = [setting.tokenizer.decode(path.tokens) for path in paths]
    for path, text in zip(paths, texts, strict=True):
        assert setting.matcher().validate(path.tokens) == len(path.tokens)
        assert path.name in text
        assert [other for other in texts if other.startswith(text)] == [text]


@each_family
def test_a_call_begins_with_its_path_as_the_tokenizer_cuts_it(family: ToolFormat) -> None:
    setting = Setting(family, TOOLS)
    path = tool_path(family, CLOCK, setting.tokenizer)
    whole = setting.encode(family.write_call(CLOCK.name, "{}"))
    assert whole[: len(path.tokens) - 1] == list(path.tokens[:-1])


@pytest.mark.parametrize("family", NAMES_END, ids=lambda family: family.name)
def test_the_forks_of_several_tools_tell_each_one_s_probability(family: ToolFormat) -> None:
    setting = Setting(family, TOOLS)
    tree = ToolTree.of([tool_path(family, tool, setting.tokenizer) for tool in TOOLS])
    first = tree.forks[0].before
    assert all(path.tokens[: len(first)] == first for path in tree.paths)
    assert len(tree.forks) == 2  # the clock's names have their beginning in common
    shares = [[1 / (2 + number) for number, _ in enumerate(fork.following)] for fork in tree.forks]
    shares = [[share / sum(each) for share in each] for each in shares]
    found = tree.logprobs([[math.log(share) for share in each] for each in shares])
    assert sum(map(math.exp, found)) == pytest.approx(1)


def test_one_tool_has_no_fork() -> None:
    assert ToolTree.of([ToolPath("clock", (1, 2, 3))]).forks == ()
    assert ToolTree.of([ToolPath("clock", (1, 2, 3))]).logprobs([]) == [0.0]


ENDED_NAMES = st.lists(st.integers(0, 3), min_size=1, max_size=4).map(lambda name: (*name, 9))


@given(names=st.lists(ENDED_NAMES, min_size=2, unique=True))
def test_calls_part_where_the_tree_says_and_each_way_is_some_tool_s(names: list[tuple[int, ...]]) -> None:
    tree = ToolTree.of([ToolPath(str(number), (7, *name)) for number, name in enumerate(names)])
    for fork in tree.forks:
        on_the_way = [path.tokens for path in tree.paths if path.tokens[: len(fork.before)] == fork.before]
        assert {tokens[len(fork.before)] for tokens in on_the_way} == set(fork.following)
        assert len(fork.following) > 1
    even = [[-math.log(len(fork.following))] * len(fork.following) for fork in tree.forks]
    assert sum(map(math.exp, tree.logprobs(even))) == pytest.approx(1)
