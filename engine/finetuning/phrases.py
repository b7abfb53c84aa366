"""What a user says to have a tool called with given arguments: from its description, its name and the values."""

import random
import re
from typing import Any

from engine.types import Tool

# {what}: the description, said with the values; {rest}: the same without its first verb. For tools that tell something.
ASKING = (
    "What is {rest}?",
    "What's {rest}?",
    "Tell me {rest}",
    "Tell me {rest}, please.",
    "Show me {rest}.",
    "I need {rest}.",
    "Do you know {rest}?",
    "{Rest}?",
)
# For all tools.
TELLING = (
    "{What}",
    "{What}.",
    "Please {what}.",
    "Can you {what}?",
    "Could you {what} for me?",
    "I want to {what}.",
    "I'd like to {what}, please",
    "{what} now",
)
# {bare}: the description as it is; {pairs}: "city Oslo and days 3"; {values}: "Oslo, 3"; {name}: the tool's, in words.
LISTING = (
    "{Bare}: {pairs}.",
    "Please {bare}. The {pairs_are}.",
    "{Bare}, {values}",
    "{name} {values}",
    "{Values}: {bare}, please.",
)
WITHOUT_ARGUMENTS = ("{Bare}.", "Please {bare}.", "Can you {bare}?", "{name}, please.", "I want to {bare}.")

LISTING_SHARE = 0.25
ASKING_VERBS = frozenset(
    [
        "get",
        "find",
        "look",
        "check",
        "compute",
        "calculate",
        "show",
        "return",
        "fetch",
        "search",
        "tell",
        "give",
        "retrieve",
    ]
)

# What stands before a value that the description has no place for, by a word of its name.
PREPOSITIONS = (
    (frozenset(["origin", "start", "source", "from", "departure"]), "from"),
    (frozenset(["destination", "end", "target", "to", "recipient", "arrival"]), "to"),
    (frozenset(["date", "day", "weekday"]), "on"),
    (frozenset(["time", "hour", "clock"]), "at"),
    (frozenset(["city", "place", "location", "room", "country", "town", "zone", "channel", "language", "unit"]), "in"),
    (frozenset(["topic", "subject", "query"]), "about"),
    (
        frozenset(
            ["days", "nights", "minutes", "hours", "duration", "people", "guests", "servings", "passengers", "person"]
        ),
        "for",
    ),
    (frozenset(["year"]), "in"),
)


def ask_for(tool: Tool, arguments: dict[str, Any], source: random.Random) -> str:
    """One request, as some user might say it."""
    bare = _description(tool)
    said = _filled(bare, arguments) if arguments else bare
    parts = {
        "what": said,
        "rest": said.partition(" ")[2],
        "bare": bare,
        "name": in_words(tool.name),
        "values": ", ".join(map(as_said, arguments.values())),
        "pairs": _listed([f"{in_words(name)} {as_said(value)}" for name, value in arguments.items()]),
        "pairs_are": _listed([f"{in_words(name)} is {as_said(value)}" for name, value in arguments.items()]),
    }
    parts |= {name.capitalize(): _capital(text) for name, text in parts.items()}
    return source.choice(_templates(bare, arguments, source)).format(**parts)


def _templates(bare: str, arguments: dict[str, Any], source: random.Random) -> tuple[str, ...]:
    if not arguments:
        return WITHOUT_ARGUMENTS
    if source.random() < LISTING_SHARE:
        return LISTING
    verb, _, rest = bare.partition(" ")
    return (*ASKING, *TELLING) if verb in ASKING_VERBS and re.match(r"(the|an?) ", rest) else TELLING


def _filled(text: str, arguments: dict[str, Any]) -> str:
    """The description with the values in the places that speak of them, and the other values behind it."""
    behind = []
    for name, value in arguments.items():
        noun = re.escape(in_words(name).split(" ")[-1])
        place = re.search(rf"\b(?:an?|the|another|some|its)\s+(?:\w+\s+)?{noun}\b", text, re.IGNORECASE)
        if place is not None:
            text = f"{text[: place.start()]}{as_said(value)}{text[place.end() :]}"
        else:
            behind.append(_behind(in_words(name), value))
    return " ".join([text, *behind])


def _behind(name: str, value: Any) -> str:
    """A value that the description has no place for: "in Oslo", "for 3 days", "with level 5"."""
    preposition = next((each for signs, each in PREPOSITIONS if signs & {*name.split(" ")}), None)
    if preposition is None:
        return f"with {name} {as_said(value)}"
    is_count = isinstance(value, (int, float)) and preposition == "for"
    return f"{preposition} {as_said(value)}{f' {name}' if is_count else ''}"


def _description(tool: Tool) -> str:
    """The description's first sentence as part of another; the name where there is none."""
    first = re.split(r"(?<=\w)\.(?:\s|$)|\n", tool.description.strip())[0].strip()
    return first[:1].lower() + first[1:] if first else in_words(tool.name)


def in_words(name: str) -> str:
    """set_light, setLight and set-light are all "set light"."""
    return re.sub(r"[_.\-]+", " ", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)).strip().lower()


def as_said(value: Any) -> str:
    """A value as people write it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return _listed([as_said(each) for each in value])
    if isinstance(value, dict):
        return _listed([f"{in_words(name)} {as_said(each)}" for name, each in value.items()])
    return "none" if value is None else str(value)


def _listed(parts: list[str]) -> str:
    return " and ".join([", ".join(parts[:-1]), parts[-1]]) if len(parts) > 1 else "".join(parts)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
