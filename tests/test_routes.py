"""Direct routes: which messages they answer, with which arguments, and what is refused when they are made."""

import json
from pathlib import Path
from typing import Any

import pytest

from engine.agent import run_agent
from engine.engine import Engine
from engine.errors import ConfigError, RequestError
from engine.events import StopReason
from engine.routes import MAX_MESSAGE_CHARS, Route, Routes
from engine.tools import ToolRegistry, calculate, tool
from engine.types import CustomTool, Message, Request, Role, SamplingParams, Tool, ToolCall, ToolChoice, ToolChoiceMode
from tests.deciders import AS_ASKED
from tests.fakes import CALCULATE, fake_loaded, fake_model, fake_that_writes

FORECAST = Tool(
    "forecast",
    "The weather to come.",
    {
        "type": "object",
        "properties": {
            "city": {"type": "string", "maxLength": 10},
            "days": {"type": "integer", "minimum": 1, "maximum": 9},
            "wind": {"type": "boolean"},
        },
        "required": ["city"],
    },
)
TOOLS = (FORECAST, CALCULATE)
WEATHER = {
    "name": "weather",
    "pattern": r"(?i)weather in (?<city>\p{L}+)(?: for (?<days>\w+) days?)?",
    "tool": "forecast",
    "arguments": {"days": "{days:integer}", "city": "{city}"},
}


def asked(text: str, **options: Any) -> Request:
    return Request(**{"messages": (Message(Role.USER, text),), "tools": TOOLS, **options})


def arguments_of(text: str, route: dict[str, Any] = WEATHER, **options: Any) -> dict[str, Any] | None:
    call = Routes([route], TOOLS).match(asked(text, **options))
    return None if call is None else json.loads(call.arguments)


# What fires.


def test_a_message_that_matches_as_a_whole_becomes_a_call_in_the_schemas_order() -> None:
    """F22: properties in the schema's order, whatever the template's."""
    call = Routes([WEATHER], TOOLS).match(asked(" Weather in Paris for 3 days\n"))
    assert call is not None
    assert (call.route, call.tool, call.arguments) == ("weather", "forecast", '{"city": "Paris", "days": 3}')


def test_a_property_whose_group_took_no_part_is_left_out() -> None:
    assert arguments_of("weather in Zürich") == {"city": "Zürich"}


@pytest.mark.parametrize(
    "text",
    [
        "What is the weather in Paris?",  # only a part of it matches
        "weather in Paris for ten days",  # no integer
        "weather in Paris for 10 days",  # an integer that the schema refuses
        "weather in Wolfenbuettel",  # longer than the schema allows
        "weather in Paris" + " " * MAX_MESSAGE_CHARS + "!",
        "",
    ],
)
def test_what_is_not_certain_goes_to_the_model(text: str) -> None:
    assert arguments_of(text) is None


@pytest.mark.parametrize(
    "options",
    [
        {"tools": (CALCULATE,)},
        {"tools": ()},
        {"tool_choice": ToolChoice(ToolChoiceMode.NONE)},
        {"tool_choice": ToolChoice.named("calculate")},
        {"tool_choice": ToolChoice(ToolChoiceMode.REQUIRED, allowed=("calculate",))},
        {"messages": (Message(Role.USER, "weather in Rome"), Message(Role.ASSISTANT, "Sunny."))},
        {"messages": (Message(Role.SYSTEM, "weather in Rome"),)},
        {"messages": (), "prompt": (1, 2)},
    ],
)
def test_a_route_fires_only_where_its_tool_may_be_called_now(options: dict[str, Any]) -> None:
    assert arguments_of("weather in Rome", **options) is None


@pytest.mark.parametrize("choice", [ToolChoice(ToolChoiceMode.REQUIRED), ToolChoice.named("forecast")])
def test_a_call_that_must_be_may_come_from_a_route(choice: ToolChoice) -> None:
    assert arguments_of("weather in Rome", tool_choice=choice) == {"city": "Rome"}


def test_a_result_at_the_end_of_the_conversation_goes_to_the_model() -> None:
    call = ToolCall("call_1", "forecast", '{"city": "Rome"}')
    said = (
        Message(Role.USER, "weather in Rome"),
        Message(Role.ASSISTANT, None, (call,)),
        Message(Role.TOOL, "sunny", tool_call_id="call_1"),
    )
    assert arguments_of("", messages=said) is None


def test_the_first_route_that_fires_counts() -> None:
    shadowed = {**WEATHER, "name": "again", "arguments": {"city": "Oslo"}}
    call = Routes([shadowed, WEATHER], TOOLS).match(asked("weather in Rome"))
    assert call is not None
    assert call.route == "again"


def test_a_template_fills_text_objects_and_lists_and_keeps_what_has_no_placeholder() -> None:
    schema = {
        "type": "object",
        "properties": {
            "title": {"type": "string"},
            "tags": {"type": "array", "items": {"type": "string"}},
            "at": {"type": "object", "properties": {"rate": {"type": "number"}, "loud": {"type": "boolean"}}},
        },
    }
    template = {
        "title": "{{{a}}} by {b}",
        "tags": ["fixed", "{b}", "{c}"],
        "at": {"rate": "{r:number}", "loud": "{l:boolean}"},
    }
    route = Route("note", r"(?<a>\w+) (?<b>\w+) (?<r>\S+) (?<l>\w+)(?<c>!)?", "note", template)
    tools = (Tool("note", "", schema),)
    call = Routes([route], tools).match(asked("x y 1.5 Yes", tools=tools))
    assert call is not None
    expected = {"title": "{x} by y", "tags": ["fixed", "y"], "at": {"rate": 1.5, "loud": True}}
    assert json.loads(call.arguments) == expected


def test_arguments_are_checked_against_the_tool_that_the_request_offers() -> None:
    """A client's own tool may have the registered one's name, and another schema."""
    narrower = Tool("forecast", "", {"type": "object", "properties": {"city": {"enum": ["Paris"]}}})
    assert arguments_of("weather in Rome", tools=(narrower,)) is None
    assert arguments_of("weather in Paris", tools=(narrower,)) == {"city": "Paris"}


def test_a_pattern_that_goes_back_and_forth_without_end_is_given_up_and_the_model_answers() -> None:
    endless = {**WEATHER, "name": "endless", "pattern": r"(?:a|a)*\d", "arguments": {"city": "Rome"}}
    later = {**endless, "name": "later", "pattern": "a+"}
    assert Routes([later], TOOLS).match(asked("a" * 60)) is not None
    assert Routes([endless, later], TOOLS).match(asked("a" * 60)) is None


def test_the_documents_route_does_what_it_says() -> None:
    page = (Path(__file__).parent.parent / "docs" / "routes.md").read_text()
    given = json.loads(page.partition("```json\n")[2].partition("```")[0])
    tools = (calculate.definition,)
    call = Routes(given, tools).match(asked("What is 15 * (23 + 4)?", tools=tools))
    assert call is not None
    assert call.arguments == '{"expression": "15 * (23 + 4)"}'


# What is refused when routes are made.


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": ""}, r"routes\[1\]\.name is ''"),
        ({"name": "first"}, r"routes\[1\]\.name is 'first', as is an earlier"),
        ({"pattern": "(?<city>"}, r"routes\[1\]\.pattern is .* no regular expression"),
        ({"pattern": 5}, r"routes\[1\]\.pattern is 5"),
        ({"pattern": "(?<city>x)" + "y" * 2000}, r"routes\[1\]\.pattern has 2010 characters"),
        ({"tool": "rm"}, r"routes\[1\]\.tool is 'rm'; registered are forecast, calculate"),
        ({"arguments": []}, r"routes\[1\]\.arguments is \[\]"),
        ({"arguments": {"city": "{town}"}}, r"routes\[1\]\.arguments\.city has \{town\}; .* are city, days"),
        ({"arguments": {"city": "{0}"}}, r"routes\[1\]\.arguments\.city has \{0\}"),
        ({"arguments": {"city": "{city"}}, r"routes\[1\]\.arguments\.city is .*brace"),
        ({"arguments": {"city": "{city:date}"}}, r"routes\[1\]\.arguments\.city has the type 'date'"),
        ({"arguments": {"city": "in {city:integer}"}}, r"routes\[1\]\.arguments\.city is .* must be the whole string"),
        ({"arguments": {"days": 3}}, r"routes\[1\]\.arguments lacks 'city'"),
        ({"arguments": {"city": "Rome", "town": "x"}}, r"routes\[1\]\.arguments has 'town'"),
        ({"arguments": {"city": "Rome", "days": 10}}, r"routes\[1\]\.arguments\.days: 10 is greater"),
        ({"arguments": {"city": "{city}", "days": "{days}"}}, r"routes\[1\]\.arguments\.days is a string; .* integer"),
        ({"arguments": {"city": float("nan")}}, r"routes\[1\]\.arguments\.city is nan"),
        ({"argument": {}}, r"routes\[1\] has 'argument'; known are"),
    ],
)
def test_a_route_that_cannot_be_right_is_refused_by_path(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Routes([{**WEATHER, "name": "first"}, {**WEATHER, **change}], TOOLS)


@pytest.mark.parametrize("missing", ["name", "pattern", "tool"])
def test_a_route_that_lacks_something_is_refused_by_path(missing: str) -> None:
    with pytest.raises(ConfigError, match=rf"routes\[0\]\.{missing} is missing"):
        Routes([{key: value for key, value in WEATHER.items() if key != missing}], TOOLS)


def test_something_that_is_no_route_is_refused_by_path() -> None:
    with pytest.raises(ConfigError, match=r"routes\[0\] is 'x'; it must be an object"):
        Routes(["x"], TOOLS)


def test_a_route_without_arguments_serves_a_tool_that_takes_none() -> None:
    ping = Tool("ping")
    call = Routes([Route("ping", "ping!", "ping")], [ping]).match(asked("ping!", tools=(ping,)))
    assert call is not None
    assert call.arguments == "{}"


# The engine.


def test_an_engine_with_routes_answers_without_a_forward_pass_and_says_so() -> None:
    loaded = fake_loaded()
    with Engine(loaded, routes=Routes([WEATHER], TOOLS)) as engine:
        answer = engine.chat([{"role": "user", "content": "weather in Rome"}], tools=TOOLS)
    assert (answer.route, answer.stop_reason) == ("weather", StopReason.GRAMMAR_END)
    assert [(call.name, call.arguments) for call in answer.tool_calls] == [("forecast", '{"city": "Rome"}')]
    assert (answer.usage.completion_tokens, answer.usage.forward_passes) == (0, 0)
    assert fake_model(loaded).num_forward_passes == 0


def test_where_no_route_fires_the_model_answers_and_no_route_is_named() -> None:
    with Engine(fake_that_writes("Sunny."), config=AS_ASKED, routes=Routes([WEATHER], TOOLS)) as engine:
        answer = engine.chat([{"role": "user", "content": "weather"}], tools=TOOLS)
    assert (answer.text, answer.route) == ("Sunny.", None)


def test_a_request_that_is_refused_without_routes_is_refused_with_them() -> None:
    with Engine(fake_loaded(), routes=Routes([WEATHER], TOOLS)) as engine, pytest.raises(RequestError, match="enable"):
        engine.submit(asked("weather in Rome", template_options={"enable_thinking": False}))


def test_every_choice_of_a_request_has_the_routes_call_and_an_id_of_its_own() -> None:
    with Engine(fake_loaded(), routes=Routes([WEATHER], TOOLS)) as engine:
        answers = [each.completion() for each in engine.submit_choices(asked("weather in Rome"), 3)]
    assert {answer.tool_calls[0].arguments for answer in answers} == {'{"city": "Rome"}'}
    assert len({answer.tool_calls[0].id for answer in answers}) == 3


def test_the_best_of_several_samples_may_be_a_routes_call_too() -> None:
    warm = SamplingParams(temperature=1.0)
    with Engine(fake_loaded(), routes=Routes([WEATHER], TOOLS)) as engine:
        assert engine.submit_best(asked("weather in Rome", sampling=warm), 2).completion().route == "weather"
        with pytest.raises(RequestError, match="best_of is 1"):
            engine.submit_best(asked("weather in Rome", sampling=warm), 1)


def test_an_agent_runs_a_routed_call_and_lets_the_model_go_on_with_the_result() -> None:
    @tool
    def forecast(city: str) -> str:
        return f"rain in {city}"

    registry = ToolRegistry([forecast, calculate])
    routes = Routes([{**WEATHER, "arguments": {"city": "{city}"}}], registry.definitions)
    with Engine(fake_that_writes("Take a coat."), routes=routes) as engine:
        run = run_agent(engine, [{"role": "user", "content": "weather in Rome"}], registry)
    assert [(step.call.name, step.result) for step in run.steps] == [
        ("forecast", {"success": True, "result": "rain in Rome"})
    ]
    assert (run.answer.text, run.answer.route) == ("Take a coat.", None)


def test_routes_of_another_kind_are_refused() -> None:
    with pytest.raises(ConfigError, match="routes is"):
        Engine(fake_loaded(), routes=[WEATHER])  # type: ignore[arg-type]


def test_a_custom_tool_of_the_same_name_is_not_called() -> None:
    assert arguments_of("weather in Rome", tools=(CustomTool("forecast"),)) is None
