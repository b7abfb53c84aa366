"""The file of --routes: a JSON array of direct routes."""

import json
from pathlib import Path

from engine.checks import shown
from engine.errors import ConfigError
from engine.routes import Route, read_route


def read_routes(path: str | Path) -> tuple[Route, ...]:
    """The routes of a file. Raises ConfigError that names the file, and what in it is wrong by path."""
    try:
        given = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"routes: {path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"routes: {path} is no JSON: {error}") from error
    if not isinstance(given, list):
        raise ConfigError(f"routes: {path} has {shown(given)}; it must be an array of routes")
    return tuple(read_route(each, f"routes[{position}]") for position, each in enumerate(given))
