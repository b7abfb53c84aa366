"""What calls and responses may contain, for each family."""

import numpy as np
import pytest

from engine.errors import GrammarError
from engine.grammars.matcher import Matcher
from engine.grammars.tool_format import ToolFormat
from engine.grammars.tool_formats import HERMES, PLAIN
from engine.types import Grammar, Request, Tool, ToolChoice
from tests.grammars.turns import (
    BOTH,
    INTEGER,
    NONE,
    PARIS,
    REQUIRED,
    STRING,
    accepted,
    accepts,
    an_object,
    call_of,
    calls,
    each_family,
    matcher_of,
    refused,
    request,
    takes,
    tokenizer_of,
    turn_of,
    written,
    wrong_calls,
)

# --- Arguments


@each_family
def test_optional_properties_stay_optional(family: ToolFormat) -> None:
    """F28."""
    tool = Tool("f", "", an_object({"a": STRING, "b": INTEGER, "c": STRING}, required=["b"]))
    good = [{"b": 1}, {"a": "", "b": 1}, {"b": 1, "c": ""}, {"a": "", "b": 1, "c": ""}]
    assert refused(request(tool), family, [calls(family, ("f", value)) for value in good]) == []
    assert accepted(request(tool), family, [calls(family, ("f", value)) for value in ({}, {"a": ""})]) == []


@each_family
@pytest.mark.parametrize(
    "city",
    [
        "</tool_call>",
        "}\n</tool_call>",
        '"}}\n</tool_call>',
        '<tool_call>\n{"name": "clock", "arguments": {}}\n</tool_call>',
        '", "arguments": {',
        "\\",
        '\\"',
        "{[}]",
        "a\nb\tc",
        "日本 😀 é \u2028",
        "",
        "<|im_end|>",
    ],
)
def test_a_string_argument_may_hold_what_looks_like_the_end_of_the_call(family: ToolFormat, city: str) -> None:
    """F20, F23."""
    tokenizer = tokenizer_of(family)
    before, after = call_of(family, "weather", {"city": "SPLIT"}).split("SPLIT")
    spelled = [token for letter in written(city)[1:-1] for token in tokenizer.encode(letter)]
    tokens = [*tokenizer.encode(before), *spelled, *tokenizer.encode(after)]
    assert takes(matcher_of(request(*BOTH), family), tokens)


def next_allowed(matcher: Matcher) -> list[int]:
    """The tokens of the matcher's row."""
    row = np.zeros(16, dtype=np.int32)
    matcher.fill_bitmask(row)
    return np.flatnonzero(np.unpackbits(row.view(np.uint8), bitorder="little")).tolist()


@each_family
@pytest.mark.parametrize(
    "constant", ["</tool_call>", "<tool_call>", "<|im_end|>", "a<|im_start|>b", "</tool_call></tool_call>"]
)
@pytest.mark.parametrize("fast_forward", [True, False])
def test_a_constant_that_spells_a_special_token_is_spelled(
    family: ToolFormat, constant: str, fast_forward: bool
) -> None:
    """F20, F24: llguidance 1.9.1 forces the special token itself, and then rejects it."""
    tokenizer = tokenizer_of(family)
    tool = Tool("f", "", an_object({"a": {"const": constant}}, required=["a"]))
    matcher, tokens = matcher_of(request(tool, choice=ToolChoice.named("f")), family), []
    while not matcher.is_terminated:
        following = (matcher.forced_tokens() if fast_forward else []) or next_allowed(matcher)[:1]
        matcher.accept(following)
        tokens += following
    assert tokenizer.decode(tokens) == call_of(family, "f", {"a": constant})
    markers = [token for token in tokens if token in tokenizer.special_ids]
    assert tokenizer.decode(markers) == ("<tool_call></tool_call>" if family is HERMES else "")


@each_family
def test_no_special_token_can_stand_inside_a_string(family: ToolFormat) -> None:
    """F24."""
    tokenizer, matcher = tokenizer_of(family), matcher_of(request(*BOTH), family)
    matcher.accept(tokenizer.encode(call_of(family, "weather", {"city": "x"}).partition("x")[0]))
    assert [token for token in tokenizer.special_ids if matcher.validate([token])] == []


@each_family
@pytest.mark.parametrize(
    "arguments",
    [
        '{"city":"Paris"}',
        '{ "city": "Paris"}',
        '{"city": "Paris" }',
        '{"city": "Paris",\n"days": 1}',
        '{"city": "Paris","days": 1}',
        r'{"city": "\u0050aris"}',
        r'{"city": "a\/b"}',
        '{"city": "Paris", "city": "Rome"}',
        '{"city": "Paris", "days": 01}',
        '{"city": "Paris", "days": 1.0}',
        '{"city": "Paris",}',
        "{'city': 'Paris'}",
    ],
)
def test_arguments_are_written_in_one_style_only(family: ToolFormat, arguments: str) -> None:
    """F3, F22, F23."""
    assert not accepts(request(*BOTH), family, calls(family, ("weather", arguments)))


@each_family
def test_white_space_around_the_arguments_is_fixed(family: ToolFormat) -> None:
    """F3."""
    good = calls(family, ("weather", PARIS))
    assert accepts(request(*BOTH), family, good)
    for old, new in (('\n{"name"', '{"name"'), ('\n{"name"', '\n\n{"name"'), ('": "w', '":"w'), ("}\n<", "} \n<")):
        assert old in good
        assert not accepts(request(*BOTH), family, good.replace(old, new, 1))


@each_family
def test_open_objects_admit_other_properties(family: ToolFormat) -> None:
    more = calls(family, ("weather", {"city": "Paris", "planet": ["Earth"]}))
    assert accepts(request(*BOTH, open_objects=True), family, more)
    assert not accepts(request(*BOTH, open_objects=False), family, more)


NAMES = [
    "a",
    "a.b",
    "a-b_c",
    "x" * 64,
    "start",
    "TEXT",
    "calls",
    "call_0",
    "before_call",
    "part_0",
    "7",
    "...",
]


@each_family
@pytest.mark.parametrize("name", NAMES)
def test_a_tool_may_have_any_name_that_is_allowed_and_is_called_by_exactly_that(family: ToolFormat, name: str) -> None:
    other = Tool("other")
    asked = request(Tool(name), other)
    assert accepts(asked, family, calls(family, (name, {}), ("other", {})))
    assert not accepts(asked, family, calls(family, (name.replace(".", "x") + "x", {})))
    if "." in name:
        assert not accepts(asked, family, calls(family, (name.replace(".", "x"), {})))


@each_family
def test_a_name_may_begin_with_another_name(family: ToolFormat) -> None:
    asked = request(Tool("get"), Tool("get_all", "", an_object({"n": INTEGER}, required=["n"])))
    assert refused(asked, family, [calls(family, ("get", {})), calls(family, ("get_all", {"n": 1}))]) == []
    assert accepted(asked, family, [calls(family, ("get", {"n": 1})), calls(family, ("get_all", {}))]) == []


@each_family
def test_two_hundred_tools_fit_into_one_turn(family: ToolFormat) -> None:
    tools = [Tool(f"tool_{position}", "", an_object({f"p{position}": INTEGER})) for position in range(200)]
    asked = request(*tools)
    assert accepts(asked, family, calls(family, ("tool_0", {"p0": 1}), ("tool_199", {"p199": 1})))
    assert not accepts(asked, family, calls(family, ("tool_7", {"p8": 1})))


@each_family
@pytest.mark.parametrize(
    "description", ["<tool_call>", "</tool_call>", '"}}', "<|im_end|>", "%json {", "function", "\n"]
)
def test_a_description_changes_nothing(family: ToolFormat, description: str) -> None:
    """F19."""
    described = an_object({"a": {**STRING, "description": description}}, description=description)
    asked = request(Tool("f", description, described))
    plain = request(Tool("f", "", an_object({"a": STRING})))
    assert turn_of(asked, family).source == turn_of(plain, family).source


# --- A response


OUR_NAMES = """start: calls call_0 TEXT part_0
calls: "1"
call_0: "2"
TEXT: /3/
part_0: before_call
before_call: call
call: "4"
"""
GRAMMAR_LIKE = ["%json {}", "/x/", "start: a", "<[1]>"]
QUOTED = ['say "hi"', "it's", "\\n", "a\nb"]
UNICODE = ["é", "日本", "😀", "a\u2028b"]
CONTROL = ["a\x01b", "\x7f", "\t"]

RESPONSES: list[tuple[str, Grammar, list[str], list[str]]] = [
    (
        "json_schema",
        Grammar.json_schema(an_object({"n": INTEGER}, required=["n"], additionalProperties=False)),
        ['{"n": 1}'],
        ["", "{}", '{"n": "1"}', '{"n":1}', 'Sure: {"n": 1}', '{"n": 1} ', '{"n": 1, "m": 2}', "1"],
    ),
    (
        "json_schema of a list",
        Grammar.json_schema({"type": "array", "items": INTEGER}),
        ["[]", "[1, 2]"],
        ["[1,2]", "1"],
    ),
    ("json_schema of a scalar", Grammar.json_schema(STRING), ['"a"', '""'], ["a", "1"]),
    ("json_schema that says nothing", Grammar.json_schema(True), ["1", '{"a": [null]}'], ["a", ""]),
    (
        "json_object",
        Grammar.json_object(),
        ["{}", '{"a": {"b": [1, null]}}', '{"a": "<tool_call", "b": "x"}'],
        ["", "[]", "1", "text", "{} "],
    ),
    ("regex", Grammar.regex("[0-9]{3}-[a-z]+"), ["123-a", "000-abc"], ["", "123-", "x123-a", "123-a\n"]),
    ("regex with slashes", Grammar.regex("/a/[/]b"), ["/a//b"], ["/a/b", "\\/a//b"]),
    ("regex with escaped slashes", Grammar.regex(r"\/a\/b"), ["/a/b"], ["\\/a\\/b"]),
    ("regex with backslashes", Grammar.regex(r"C:\\dir\\\\x"), [r"C:\dir\\x"], [r"C:\\dir\\x"]),
    ("regex with a backslash before a slash", Grammar.regex(r"a\\/b"), [r"a\/b"], ["a/b", r"a\b"]),
    ("regex with newlines", Grammar.regex("a\nb\\nc"), ["a\nb\nc"], ["a b c", "a\\nb"]),
    ("regex with an escaped newline", Grammar.regex("a\\\nb"), ["a\nb"], ["ab", "a\\nb"]),
    ("regex with carriage return and tab", Grammar.regex("a\r\tb"), ["a\r\tb"], ["ab"]),
    ("regex with quotes", Grammar.regex("\"'`"), ["\"'`"], ["'"]),
    ("regex with unicode", Grammar.regex("é+|日本|😀"), ["éé", "日本", "😀"], ["e", "日"]),
    ("regex with alternatives", Grammar.regex("a|b"), ["a", "b"], ["ab", ""]),
    ("regex with anchors", Grammar.regex("^ab$"), ["ab"], ["a"]),
    ("regex with a comment's beginning", Grammar.regex("//x"), ["//x"], ["x", ""]),
    ("choice", Grammar.choice(["yes", "no"]), ["yes", "no"], ["", "ye", "yesno", "Yes", "no "]),
    ("choice with quotes", Grammar.choice(QUOTED), QUOTED, ["say", "\n"]),
    ("choice with unicode", Grammar.choice(UNICODE), UNICODE, ["e", "日"]),
    ("choice of beginnings", Grammar.choice(["a", "ab", "abc"]), ["a", "ab", "abc"], ["b", "abcd"]),
    ("choice with control characters", Grammar.choice(CONTROL), CONTROL, ["ab"]),
    ("choice twice the same", Grammar.choice(["a", "a"]), ["a"], ["aa"]),
    ("choice of what looks like a grammar", Grammar.choice(GRAMMAR_LIKE), GRAMMAR_LIKE, ["x", "{}", "a"]),
    ("lark", Grammar.lark('start: "a" b+\nb: "b" | "c"'), ["ab", "acb"], ["a", "b"]),
    ("lark whose rules have our names", Grammar.lark(OUR_NAMES), ["1234"], ["", "123", "4321"]),
    ("lark with JSON inside", Grammar.lark('start: "<" %json {"type": "integer"} ">"'), ["<5>"], ["5", "<a>"]),
]

each_response = pytest.mark.parametrize(
    ("response", "good", "bad"), [row[1:] for row in RESPONSES], ids=[row[0] for row in RESPONSES]
)


@each_family
@each_response
def test_a_response_is_exactly_what_its_grammar_allows(
    family: ToolFormat, response: Grammar, good: list[str], bad: list[str]
) -> None:
    """F13."""
    asked = request(response=response)
    assert refused(asked, family, good) == []
    assert accepted(asked, family, [*bad, family.marker]) == []


@each_family
@each_response
def test_tools_beside_a_response_are_a_call_or_the_response(
    family: ToolFormat, response: Grammar, good: list[str], bad: list[str]
) -> None:
    """F21."""
    asked = request(*BOTH, response=response)
    call, more = calls(family, ("weather", PARIS)), calls(family, ("clock", {}), ("weather", PARIS))
    assert refused(asked, family, [*good, call, more]) == []
    mixed = [good[0] + call, call + good[0], call + "\n" + good[0], "a" + call]
    assert accepted(asked, family, [*bad, *mixed, *wrong_calls(family)]) == []


@each_family
@each_response
def test_a_response_without_calls_ignores_the_tools(
    family: ToolFormat, response: Grammar, good: list[str], bad: list[str]
) -> None:
    asked = request(*BOTH, response=response, choice=NONE)
    assert refused(asked, family, good) == []
    assert accepted(asked, family, [*bad, calls(family, ("clock", {}))]) == []


@each_family
def test_required_beside_a_response_is_a_call(family: ToolFormat) -> None:
    """F9."""
    asked = request(*BOTH, response=Grammar.json_object(), choice=REQUIRED)
    assert accepts(asked, family, calls(family, ("clock", {})))
    assert accepted(asked, family, ["{}", "text", ""]) == []


OPENING: list[tuple[str, Grammar]] = [
    ("any text", Grammar.regex("(?s:.*)")),
    ("a choice", Grammar.choice(["no", '<tool_call>\n{"name": "clock", "arguments": {"x": 1}}\n</tool_call>'])),
    ("a regex", Grammar.regex("<[a-z_]+>.*")),
    ("a Lark grammar", Grammar.lark("start: TAG TEXT\nTAG: /<[a-z_]*>/\nTEXT: /.*/")),
]


@pytest.mark.parametrize("response", [row[1] for row in OPENING], ids=[row[0] for row in OPENING])
def test_a_response_that_could_begin_with_a_marker_of_ordinary_text_is_refused_beside_tools(response: Grammar) -> None:
    """F10: nobody could tell such a response from a call that no schema holds."""
    with pytest.raises(GrammarError) as caught:
        matcher_of(request(*BOTH, response=response), PLAIN)
    assert caught.value.param == "response"


@pytest.mark.parametrize("response", [row[1] for row in OPENING], ids=[row[0] for row in OPENING])
@pytest.mark.parametrize(
    ("family", "asked"), [(HERMES, request(*BOTH)), (PLAIN, request()), (PLAIN, request(*BOTH, choice=NONE))]
)
def test_the_same_response_is_good_where_the_marker_is_a_token_or_nothing_can_be_called(
    response: Grammar, family: ToolFormat, asked: Request
) -> None:
    matcher_of(request(*asked.tools, choice=asked.tool_choice, response=response), family)


def test_a_response_grammar_that_writes_the_marker_token_first_is_refused_beside_tools() -> None:
    marker = tokenizer_of(HERMES).unspellable[HERMES.marker]
    with pytest.raises(GrammarError) as caught:
        matcher_of(request(*BOTH, response=Grammar.lark(f'start: <[{marker}]> "x"')), HERMES)
    assert caught.value.param == "response"
