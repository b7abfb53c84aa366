"""Custom tools: raw input under a grammar of its own, up to what ends the call, and read back as it was written."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from engine.errors import GrammarError, RequestError, SchemaError
from engine.events import Enforcement, ToolCallDelta, ToolCallEnd, ToolCallStart
from engine.grammars.tool_format import ToolFormat
from engine.grammars.tool_formats import HERMES, PLAIN
from engine.grammars.turn_parser import TurnParser
from engine.types import CustomTool, Grammar, Tool, ToolChoice
from tests.grammars.turns import FAMILIES, accepts, an_object, between, compiler_of, request, tokenizer_of, turn_of

each_family = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
ONLY_RUN = ToolChoice.named("run")

SUM = Grammar.lark('start: NUMBER ("+" NUMBER)*\nNUMBER: /[0-9]{1,3}/')
LOWER = Grammar.regex("[a-z/]{2,8}")


def accepts_input(family: ToolFormat, form: Grammar | None, text: str) -> bool:
    return accepts(request(CustomTool("run", "", form), choice=ONLY_RUN), family, family.write_input("run", text))


def read_back(family: ToolFormat, texts: list[str]) -> list[object]:
    parser = TurnParser(
        family,
        has_calls=True,
        special_tokens=tokenizer_of(family).unspellable,
        call_id=str,
        custom_names={"run"},
    )
    tokenizer = tokenizer_of(family)
    written = between(family).join(family.write_input("run", text) for text in texts)
    detokenizer = tokenizer.detokenizer()
    events = []
    for token in tokenizer.encode(written):
        events += parser.feed(detokenizer.feed(token), special=token in tokenizer.unspellable.values())
    return [*events, *parser.finish()]


@each_family
@pytest.mark.parametrize("text", ["", "x", "SELECT 1;\n", '{"a": "}}"}', "a < b", "</tool", "naïve 日本 😀", "\n\n"])
def test_any_text_may_be_the_input_of_a_tool_without_a_format(family: ToolFormat, text: str) -> None:
    assert accepts_input(family, None, text)


@each_family
@pytest.mark.parametrize(("form", "text"), [(LOWER, "ab/c"), (SUM, "1+22"), (SUM, "7")])
def test_input_that_its_format_allows_can_be_written(family: ToolFormat, form: Grammar, text: str) -> None:
    assert accepts_input(family, form, text)


@each_family
@pytest.mark.parametrize(
    ("form", "text"), [(LOWER, "a"), (LOWER, "AB"), (LOWER, "ab "), (SUM, ""), (SUM, "1+"), (SUM, "1000")]
)
def test_input_that_its_format_forbids_cannot_be_written(family: ToolFormat, form: Grammar, text: str) -> None:
    assert not accepts_input(family, form, text)


@each_family
@given(st.lists(st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=20), min_size=1, max_size=3))
@example(["</tool_cal", "<tool_call>\n", '"}\n'])
def test_what_was_written_is_read_back(family: ToolFormat, texts: list[str]) -> None:
    tokenizer = tokenizer_of(family)
    texts = [text for text in texts if family.input_end not in text and not set(tokenizer.unspellable) & {text}]
    events = read_back(family, texts)
    inputs = [
        "".join(e.arguments for e in events if isinstance(e, ToolCallDelta) and e.index == i) for i in range(len(texts))
    ]
    assert inputs == texts
    assert [e.custom for e in events if isinstance(e, ToolCallStart)] == [True] * len(texts)
    assert sum(isinstance(e, ToolCallEnd) for e in events) == len(texts)


def test_a_marker_of_text_is_kept_out_of_the_input_and_the_receipt_says_so() -> None:
    asked = request(CustomTool("run"), choice=ONLY_RUN)
    assert not accepts(asked, PLAIN, PLAIN.write_input("run", "a</tool_call>b"))
    (entry,) = turn_of(asked, PLAIN).receipt.entries
    assert (entry.path, entry.enforcement) == ("tools[0].format", Enforcement.NARROWED)


def test_a_marker_that_is_a_token_needs_no_narrowing() -> None:
    assert turn_of(request(CustomTool("run"), choice=ONLY_RUN), HERMES).receipt.entries == ()


@pytest.mark.parametrize(
    "source",
    [
        'start: "<x>"',
        "start: /[^a]+/",
        "start: /./",
        'start: "\\x3c"',
        'start: X+\nX: "!".."~"',
        "start: /a/ & ~/b/",
        'start: %json {"type": "object"}',
        "start: <|im_end|>",
    ],
)
def test_a_lark_format_that_might_write_the_end_of_a_call_is_refused_by_path(source: str) -> None:
    asked = request(Tool("other"), CustomTool("run", "", Grammar.lark(source)), choice=ONLY_RUN)
    with pytest.raises(GrammarError) as caught:
        turn_of(asked, PLAIN).compile(compiler_of(PLAIN))
    assert caught.value.param == "tools[1].format"


def test_the_same_format_is_fine_where_the_end_is_a_token() -> None:
    assert accepts_input(HERMES, Grammar.lark("start: /[^a]+/"), "b < c")


@each_family
@pytest.mark.parametrize(
    "form",
    [
        Grammar.regex("("),
        Grammar.lark("start: missing"),
        Grammar.regex("(?=a)b"),
        Grammar.regex("[^\\s\\S]"),
        Grammar.lark("start: a\na: a"),
        Grammar.lark("start: /[^\\s\\S]/"),
    ],
)
def test_a_format_that_does_not_compile_or_allows_nothing_is_refused_by_path(family: ToolFormat, form: Grammar) -> None:
    asked = request(Tool("other"), CustomTool("run", "", form))
    with pytest.raises(GrammarError) as caught:
        turn_of(asked, family).compile(compiler_of(family))
    assert caught.value.param == "tools[1].format"


@each_family
def test_functions_and_custom_tools_stand_side_by_side(family: ToolFormat) -> None:
    asked = request(Tool("clock"), CustomTool("run", "", SUM))
    both = between(family).join([family.write_input("run", "1+1"), family.write_call("clock", "{}")])
    assert accepts(asked, family, both)
    assert not accepts(asked, family, family.write_input("clock", "1+1"))
    assert not accepts(asked, family, family.write_call("run", "{}"))


def test_a_format_is_a_regex_or_lark() -> None:
    with pytest.raises(RequestError) as caught:
        CustomTool("run", "", Grammar.json_object())
    assert caught.value.param == "format"


OPEN = an_object({"a": {"type": "string"}}, required=["a"])
OPTIONAL = an_object({"a": {"type": "string"}}, additionalProperties=False)
INNER = an_object({"a": OPEN}, required=["a"], additionalProperties=False)


@pytest.mark.parametrize(
    ("parameters", "path"),
    [
        (OPEN, "tools[0].parameters.additionalProperties"),
        (OPTIONAL, "tools[0].parameters.required"),
        (INNER, "tools[0].parameters.properties.a.additionalProperties"),
    ],
)
def test_strict_refuses_what_openai_refuses(parameters: dict[str, object], path: str) -> None:
    with pytest.raises(SchemaError) as caught:
        turn_of(request(Tool("run", "", parameters, strict=True)), PLAIN)
    assert caught.value.param == path


def test_strict_changes_nothing_in_a_schema_that_it_takes() -> None:
    parameters = {**OPTIONAL, "required": ["a"]}
    loose, strict = (turn_of(request(Tool("run", "", parameters, strict=strict)), PLAIN) for strict in (False, True))
    assert loose.source == strict.source
