"""Of many tools, those that fit the request are offered; the others are neither shown nor called."""

import pytest

from engine.engine import Engine
from engine.errors import RequestError
from engine.retrieval import retrieved, with_retrieved_tools
from engine.types import CustomTool, Message, OfferedTool, Request, Role, SamplingParams, Tool, ToolChoice
from tests.fakes import CALCULATE, REQUIRED, SEARCH, USER, fake_loaded

TOOLS: tuple[OfferedTool, ...] = (
    *(Tool(f"tool_{number}", f"Does thing number {number}.") for number in range(50)),
    Tool("getWeather", "The forecast of a city."),
    Tool("convert_money", "Change an amount.", {"properties": {"to": {"description": "The currency, such as yen"}}}),
    CustomTool("run_sql", "Ask the database of customers."),
)


def names_for(question: str, limit: int = 3, tools: tuple[OfferedTool, ...] = TOOLS) -> list[str]:
    return [tool.name for tool in retrieved(tools, question, limit)]


def asking(text: str, limit: int, tool_choice: ToolChoice = REQUIRED) -> Request:
    said = (Message(Role.USER, text),)
    return Request(messages=said, tools=TOOLS, tool_choice=tool_choice, tool_retrieval=limit)


@pytest.mark.parametrize(
    ("question", "name"),
    [
        ("How is the weather?", "getWeather"),  # of a name in camel case
        ("I want the forecasts for Rome", "getWeather"),  # of a description, in another number
        ("What is that in yen?", "convert_money"),  # of a parameter
        ("run the sql", "run_sql"),  # of a name in snake case
        ("Which CUSTOMERS are new?", "run_sql"),
    ],
)
def test_the_tool_that_a_request_speaks_of_is_offered(question: str, name: str) -> None:
    assert name in names_for(question)


def test_the_order_of_the_offer_stays() -> None:
    assert names_for("the customers of the database want the weather", 2) == ["getWeather", "run_sql"]


@pytest.mark.parametrize("question", ["", "?!", "日本", "xyzzy"])
def test_a_request_that_speaks_of_no_tool_is_offered_the_first_ones(question: str) -> None:
    assert names_for(question) == ["tool_0", "tool_1", "tool_2"]


def test_the_users_latest_message_counts() -> None:
    said = ("the weather", Role.USER), ("It rains.", Role.ASSISTANT), ("customers", Role.USER), ("[]", Role.TOOL)
    messages = tuple(Message(role, text) for text, role in said)
    request = with_retrieved_tools(Request(messages=messages, tools=TOOLS, tool_retrieval=1))
    assert [tool.name for tool in request.callable_tools] == ["run_sql"]


def test_a_named_tool_is_always_among_the_offered() -> None:
    request = with_retrieved_tools(asking("How is the weather?", 1, ToolChoice.named("tool_7")))
    assert [tool.name for tool in request.callable_tools] == ["tool_7"]


def test_only_tools_that_may_be_called_are_offered() -> None:
    allowed = ToolChoice(allowed=("tool_3", "tool_4", "run_sql"))
    request = with_retrieved_tools(asking("weather for customers", 2, allowed))
    assert [tool.name for tool in request.callable_tools] == ["tool_3", "run_sql"]


@pytest.mark.parametrize("limit", [0, -1, 1.5, True])
def test_a_limit_that_is_none_is_refused(limit: object) -> None:
    with pytest.raises(RequestError, match=r"it must be an integer, 1 or more"):
        Request(messages=(USER,), tools=TOOLS, tool_retrieval=limit)  # type: ignore[arg-type]


def test_retrieval_beside_a_prompt_of_token_ids_is_refused() -> None:
    with pytest.raises(RequestError, match="shows no tools"):
        Request(prompt=(1,), tools=TOOLS, tool_retrieval=1)


def test_the_receipt_says_which_tools_were_offered_and_no_other_is_called() -> None:
    tools = [SEARCH, CALCULATE, Tool("web_find", "Search the web.")]
    with Engine(fake_loaded()) as engine:
        for seed in range(5):
            completion = engine.chat(
                [Message(Role.USER, "search the web")],
                tools=tools,
                tool_choice="required",
                tool_retrieval=1,
                sampling=SamplingParams(temperature=1.5, seed=seed),
                max_tokens=60,
            )
            assert completion.receipt.offered_tools == ("web_find",)
            assert {call.name for call in completion.tool_calls} == {"web_find"}


@pytest.mark.parametrize(("limit", "offered"), [(None, None), (9, ("calculate", "web_search"))])
def test_the_receipt_says_so_where_all_tools_fit_too(limit: int | None, offered: object) -> None:
    with Engine(fake_loaded()) as engine:
        completion = engine.chat([USER], tools=[CALCULATE, SEARCH], tool_retrieval=limit, max_tokens=4)
    assert completion.receipt.offered_tools == offered


def test_a_prompt_shows_the_offered_tools_alone() -> None:
    with Engine(fake_loaded()) as engine:
        prompt = engine.loaded.tokenizer.decode(engine.render_prompt(asking("How is the weather?", 1)))
    assert "getWeather" in prompt
    assert "tool_0" not in prompt


def test_a_bad_schema_is_named_by_its_place_in_the_whole_offer() -> None:
    """F5."""
    broken = Tool("broken_thing", "The weather.", {"type": "object", "properties": {"a": {"type": "nonsense"}}})
    request = Request(messages=(Message(Role.USER, "weather"),), tools=(CALCULATE, SEARCH, broken), tool_retrieval=1)
    with Engine(fake_loaded()) as engine, pytest.raises(RequestError) as caught:
        engine.submit(request)
    assert caught.value.param.startswith("tools[2].parameters")


@pytest.mark.parametrize("properties", [5, None, ["a"]])
def test_a_schema_whose_properties_are_no_object_is_refused_by_its_place_too(properties: object) -> None:
    broken = Tool("broken_thing", "The weather.", {"type": "object", "properties": properties})
    request = Request(messages=(Message(Role.USER, "weather"),), tools=(CALCULATE, broken), tool_retrieval=1)
    with Engine(fake_loaded()) as engine, pytest.raises(RequestError) as caught:
        engine.submit(request)
    assert caught.value.param == "tools[1].parameters.properties"
