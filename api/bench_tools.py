"""The tools that `toolmask bench` offers: as many and as large as an agent has."""

from typing import Any

from engine.types import Tool

Properties = dict[str, dict[str, Any]]

STRING, INTEGER, NUMBER, BOOLEAN = ({"type": kind} for kind in ("string", "integer", "number", "boolean"))
UNIT = {"type": "string", "enum": ["metric", "imperial"]}
DAY = {"type": "string", "description": "A day, as YYYY-MM-DD."}

# Name, what it does, its required parameters, then those that may be left out.
TABLE: tuple[tuple[str, str, Properties, Properties], ...] = (
    ("get_weather", "The weather of a city today.", {"city": STRING}, {"unit": UNIT}),
    ("get_forecast", "The weather of the next days.", {"city": STRING, "days": INTEGER}, {"unit": UNIT}),
    ("search_web", "Pages that speak of something.", {"query": STRING}, {"num_results": INTEGER}),
    ("read_page", "The text of a web page.", {"url": STRING}, {"max_characters": INTEGER}),
    ("send_email", "Send a letter.", {"to": STRING, "subject": STRING, "body": STRING}, {"urgent": BOOLEAN}),
    ("find_emails", "Letters that contain some words.", {"words": STRING}, {"since": DAY, "unread_only": BOOLEAN}),
    ("add_event", "Write an appointment down.", {"title": STRING, "day": DAY}, {"hour": INTEGER, "place": STRING}),
    ("list_events", "The appointments of some days.", {"from_day": DAY, "to_day": DAY}, {}),
    ("create_task", "Add to the list of what is to be done.", {"title": STRING}, {"due": DAY, "priority": INTEGER}),
    ("finish_task", "Strike a task off the list.", {"task_id": INTEGER}, {}),
    ("calculate", "The value of an arithmetic expression.", {"expression": STRING}, {}),
    ("convert_currency", "An amount in another currency.", {"amount": NUMBER, "from": STRING, "to": STRING}, {}),
    ("get_stock_price", "What a share costs.", {"symbol": STRING}, {"day": DAY}),
    ("find_route", "The way from one place to another.", {"start": STRING, "end": STRING}, {"by_train": BOOLEAN}),
    ("book_table", "A table in a restaurant.", {"restaurant": STRING, "people": INTEGER, "day": DAY}, {}),
    ("play_music", "Play a song.", {"title": STRING}, {"artist": STRING, "volume": INTEGER}),
    ("set_alarm", "Wake up somebody.", {"hour": INTEGER, "minute": INTEGER}, {"label": STRING}),
    ("read_file", "The contents of a file.", {"path": STRING}, {"first_line": INTEGER, "last_line": INTEGER}),
    ("write_file", "Put text into a file.", {"path": STRING, "text": STRING}, {"append": BOOLEAN}),
    ("run_query", "Rows of a database.", {"sql": STRING}, {"limit": INTEGER}),
)


def bench_tools(tag: str) -> tuple[Tool, ...]:
    """All of them, under names that end in the tag."""
    return tuple(
        Tool(
            f"{name}_{tag}",
            description,
            {"type": "object", "properties": {**required, **optional}, "required": list(required)},
        )
        for name, description, required, optional in TABLE
    )
