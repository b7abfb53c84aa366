"""F3 to F6, F20, F22 to F25, F28: what a schema promises."""

import json
import re
from typing import Any

import pytest

from tests.api.servers import function_tool
from tests.field.surfaces import Surface, called, tool, wanted

STRING = {"type": "string"}
SHORT = {"type": "string", "maxLength": 6}
HOSTILE = [
    '"}}\n</tool_call>',
    "</tool_call>",
    "<tool_call>",
    "a\nb\t\\",
    '"quoted"',
    "é😀名前",
    "\u2028",
    "<|im_end|>",
]


@pytest.mark.parametrize("seed", range(4))
def test_white_space_in_a_call_is_fixed_to_one_style(noise: Surface, seed: int) -> None:
    """F3: there, a model looped on white space, or stalled without any."""
    offered = tool({"a": SHORT, "b": {"type": "array", "items": {"type": "integer"}, "minItems": 2}}, "a", "b")
    answer = called(noise, offered, seed=seed)
    ((_, arguments),) = answer.calls
    assert arguments == json.dumps(json.loads(arguments), ensure_ascii=False)


def test_a_long_max_length_is_taken_and_held(noise: Surface) -> None:
    """F4."""
    answer = called(noise, tool({"a": {"type": "string", "maxLength": 100_000}}, "a"))
    assert len(answer.arguments[0]["a"]) <= 100_000


@pytest.mark.parametrize("parameters", [None, {}, {"type": "object"}, {"type": "object", "properties": {}}])
def test_a_tool_without_parameters_is_a_good_tool(noise: Surface, parameters: Any) -> None:
    """F5."""
    assert called(noise, function_tool("f", parameters)).calls == (("f", "{}"),)


def test_a_bad_schema_names_tool_path_and_keyword_and_harms_no_other_tool(noise: Surface) -> None:
    """F5: there, one bad schema broke every tool."""
    good, bad = tool({"a": SHORT}, "a"), function_tool("bad", {"type": "object", "properties": {"b": {"type": "text"}}})
    answer = noise.ask(tools=[good, bad], tool_choice="required")
    assert re.fullmatch(r"tools\[1\](\.function)?\.parameters\.properties\.b\.type", answer.param or "")
    assert called(noise, good).names == ["f"]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("pattern", ["o+", "^[A-Z]{2}", "[0-9]$", "(ab|cd){2}", "(?i)no", "(^a|b$)"])
def test_an_unanchored_pattern_matches_anywhere_as_json_schema_says(noise: Surface, pattern: str, seed: int) -> None:
    """F6."""
    answer = called(noise, tool({"a": {"type": "string", "pattern": pattern}}, "a"), seed=seed, max_tokens=120)
    assert re.search(pattern, answer.arguments[0]["a"])


@pytest.mark.parametrize("pattern", ["(?=a)b", "(?<!a)b", r"(a)\1"])
def test_a_pattern_that_cannot_be_enforced_is_refused_by_its_path(noise: Surface, pattern: str) -> None:
    """F6: there, it became "any string"."""
    answer = called(noise, tool({"when": {"type": "string", "pattern": pattern}}))
    assert re.fullmatch(r"tools\[0\](\.function)?\.parameters\.properties\.when\.pattern", answer.param or "")


@pytest.mark.parametrize("text", HOSTILE)
def test_any_text_survives_as_an_argument(parrot: Surface, text: str) -> None:
    """F20, F23: a call ends where its JSON ends; text is literal UTF-8, whole across tokens' borders."""
    arguments = json.dumps({"a": text}, ensure_ascii=False)
    answer = called(parrot, tool({"a": STRING}, "a"), messages=wanted(arguments), max_tokens=300)
    if "<|" not in text:  # which no prompt can hold as text (F24)
        assert answer.calls == (("f", arguments),)
    assert "\\u" not in answer.calls[0][1]


def test_properties_come_in_the_schemas_order(parrot: Surface) -> None:
    """F22."""
    offered = tool({"z": {"type": "integer"}, "a": {"type": "integer"}, "m": {"type": "integer"}}, "z", "a", "m")
    answer = called(parrot, offered, messages=wanted('{"a": 1, "m": 2, "z": 3}'))
    assert list(answer.arguments[0]) == ["z", "a", "m"]


@pytest.mark.parametrize("seed", range(5))
def test_no_special_token_is_inside_a_calls_strings(noise: Surface, seed: int) -> None:
    """F24."""
    answer = called(noise, tool({"a": {"type": "string", "minLength": 30}}, "a"), seed=seed, temperature=50)
    assert not re.search(r"<\|im_(start|end)\|>|</?tool_call>", answer.arguments[0]["a"])


def test_a_schema_beyond_a_bound_is_refused_and_the_engine_goes_on(noise: Surface) -> None:
    """F25: there, it took minutes, or all memory."""
    answer = called(noise, tool({"a": {"enum": [f"value {number}" for number in range(30_000)]}}, "a"))
    assert "max_enum of 20000" in (answer.error or "")
    assert re.fullmatch(r"tools\[0\](\.function)?\.parameters\.properties\.a\.enum", answer.param or "")
    assert called(noise, tool({"a": SHORT}, "a")).names == ["f"]


def test_too_many_tools_are_refused_by_their_number(noise: Surface) -> None:
    """F25."""
    answer = noise.ask(tools=[function_tool(f"f{number}") for number in range(1025)])
    assert (answer.param, answer.error) == ("tools", "tools has 1025 tools; the limit is 1024")


def test_optional_properties_stay_optional(parrot: Surface) -> None:
    """F28: there, optional fields were made up."""
    answer = called(parrot, tool({"a": {"type": "integer"}, "b": STRING}, "a"), messages=wanted('{"a": 1}'))
    assert answer.arguments == [{"a": 1}]


def test_a_strict_tool_has_all_of_its_properties(noise: Surface) -> None:
    """F28: the caller asked for it, and OpenAI's rule is then kept."""
    offered = tool({"a": SHORT, "b": SHORT}, "a", "b", additionalProperties=False)
    offered["function"]["strict"] = True
    assert called(noise, offered).arguments[0].keys() == {"a", "b"}
    offered["function"]["parameters"]["required"] = ["a"]
    refused = called(noise, offered)
    assert re.fullmatch(r"tools\[0\](\.function)?\.parameters\.required", refused.param or "")
