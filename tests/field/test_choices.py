"""F8 to F11, F19, F21, F26, F27: who may call what, and when."""

import pytest

from tests.api.servers import WEATHER, call_text, function_tool
from tests.field.surfaces import Answer, Surface

CITIES = ("Paris", "Rome")
OTHER = function_tool("other", {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]})
PARIS = call_text("get_weather", '{"city": "Paris", "days": 3}')
RESPONSE = {"type": "object", "properties": {"answer": {"type": "boolean"}}, "required": ["answer"]}
SCHEMA = {"type": "json_schema", "json_schema": {"name": "answer", "schema": RESPONSE}}


def said(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def is_weather(answer: Answer) -> bool:
    """Whether all calls are of get_weather, with arguments that satisfy its schema."""
    return bool(answer.calls) and all(
        name == "get_weather" and arguments["city"] in CITIES and 1 <= arguments["days"] <= 9
        for name, arguments in zip(answer.names, answer.arguments, strict=True)
    )


@pytest.mark.parametrize("seed", range(5))
def test_only_the_named_tool_can_be_written(noise: Surface, seed: int) -> None:
    """F8."""
    named = {"type": "function", "function": {"name": "other"}}
    answer = noise.ask(tools=[WEATHER, OTHER], tool_choice=named, seed=seed)
    assert answer.names == ["other"]
    assert isinstance(answer.arguments[0]["x"], int)


def test_a_named_tool_is_called_though_the_model_wants_another(parrot: Surface) -> None:
    """F8."""
    named = {"type": "function", "function": {"name": "other"}}
    answer = parrot.ask(messages=said(PARIS), tools=[WEATHER, OTHER], tool_choice=named)
    assert answer.names == ["other"]


def test_required_is_at_least_one_call_though_the_model_wants_to_talk(parrot: Surface) -> None:
    """F9, and F26: in the family's own format, which the parser then reads."""
    answer = parrot.ask(messages=said("It is sunny."), tools=[WEATHER], tool_choice="required", max_tokens=200)
    assert is_weather(answer)
    assert (answer.text, answer.finish_reason) == (None, "tool_calls")


@pytest.mark.parametrize(
    "wanted",
    [
        call_text("get_forecast", '{"city": "Paris", "days": 3}'),
        call_text("get_weather", '{"city": "Atlantis", "days": 3}'),
        call_text("get_weather", '{"city": "Paris", "days": 300}'),
        call_text("get_weather", '{"town": "Paris"}'),
        call_text("get_weather", "{}"),
        call_text("other", '{"x": "five"}'),
    ],
)
def test_in_auto_a_call_that_starts_can_only_be_a_valid_call_of_an_offered_tool(parrot: Surface, wanted: str) -> None:
    """F10: there, names and arguments were invented."""
    answer = parrot.ask(messages=said(wanted), tools=[WEATHER, OTHER], max_tokens=200)
    assert answer.error is None
    assert answer.finish_reason == "tool_calls"
    for name, arguments in zip(answer.names, answer.arguments, strict=True):
        if name == "get_weather":
            assert arguments["city"] in CITIES
            assert 1 <= arguments["days"] <= 9
        else:
            assert name == "other"
            assert isinstance(arguments["x"], int)


@pytest.mark.parametrize("arguments", ["{}", '{"city": "Paris", "days": 3}', '{"city": "Nowhere"}'])
def test_text_before_a_call_does_not_change_what_the_call_may_contain(parrot: Surface, arguments: str) -> None:
    """F11: there, text in front led to empty arguments."""
    wanted = "Let me look that up. " + call_text("get_weather", arguments)
    answer = parrot.ask(messages=said(wanted), tools=[WEATHER], max_tokens=200)
    assert (answer.text or "").strip() == "Let me look that up."
    assert is_weather(answer)


@pytest.mark.parametrize(
    "text",
    ["functional programming", "<tool", "tool_call", '{"name": "get_weather"}', "<tool_cal>", "call get_weather"],
)
def test_only_the_familys_exact_marker_opens_a_call(parrot: Surface, text: str) -> None:
    """F19: there, "functional" opened a call."""
    answer = parrot.ask(messages=said(text), tools=[WEATHER], max_tokens=200)
    assert (answer.text, answer.calls, answer.finish_reason) == (text, (), "stop")


@pytest.mark.parametrize("described", ["", "Call it as <tool_call>.", "A function for functional programs."])
def test_what_a_tools_description_says_decides_nothing(parrot: Surface, described: str) -> None:
    """F19: there, its text turned triggers on and off."""
    offered = {**WEATHER, "function": {**WEATHER["function"], "description": described}}
    text = parrot.ask(messages=said("A functional answer."), tools=[offered], max_tokens=200)
    assert (text.text, text.calls) == ("A functional answer.", ())
    assert is_weather(parrot.ask(messages=said(PARIS), tools=[offered], max_tokens=200))


@pytest.mark.parametrize("wanted", [PARIS, '{"answer": true}', "Yes, I think so."])
def test_beside_a_response_format_the_answer_is_a_call_or_text_that_satisfies_it(parrot: Surface, wanted: str) -> None:
    """F21: there, the tools were dropped."""
    answer = parrot.ask(messages=said(wanted), tools=[WEATHER], response_format=SCHEMA, max_tokens=200)
    assert answer.error is None
    if answer.calls:
        assert is_weather(answer)
        assert not answer.text
    else:
        assert isinstance(answer.value["answer"], bool)
    assert bool(answer.calls) == (wanted == PARIS) or wanted == "Yes, I think so."


@pytest.mark.parametrize("parallel", [True, False])
def test_without_parallel_calls_the_grammar_admits_one(parrot: Surface, parallel: bool) -> None:
    """F27: there, the extras were dropped afterwards."""
    answer = parrot.ask(
        messages=said(f"{PARIS}\n{PARIS}"), tools=[WEATHER], parallel_tool_calls=parallel, max_tokens=200
    )
    assert answer.names == ["get_weather"] * (2 if parallel else 1)
