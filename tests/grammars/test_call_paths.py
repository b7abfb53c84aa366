"""For every family: the tokens that are scored as a call's beginning are those that a call begins with."""

import pytest

from engine.grammars.call_paths import call_opening, tool_path
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
        assert path.name in setting.tokenizer.decode(path.tokens[path.name_at :])
        assert [other for other in texts if other.startswith(text)] == [text]


@each_family
def test_a_call_begins_with_its_path_as_the_tokenizer_cuts_it(family: ToolFormat) -> None:
    setting = Setting(family, TOOLS)
    path = tool_path(family, CLOCK, setting.tokenizer)
    whole = setting.encode(family.write_call(CLOCK.name, "{}"))
    assert whole[: len(path.tokens) - 1] == list(path.tokens[:-1])
