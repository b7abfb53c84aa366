"""Every exception of the engine stands in one tree, which engine.errors draws."""

import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator

import engine
from engine import errors
from engine.errors import EngineError


def modules() -> Iterator[object]:
    for found in pkgutil.walk_packages(engine.__path__, "engine."):
        yield importlib.import_module(found.name)


def exceptions() -> dict[str, type[BaseException]]:
    """Those that the engine defines and others may see, by name."""
    members = [member for module in modules() for member in vars(module).values() if inspect.isclass(member)]
    own = (member for member in members if issubclass(member, BaseException) and member.__module__.startswith("engine"))
    return {member.__name__: member for member in own if not member.__name__.startswith("_")}


def drawn() -> dict[str, str | None]:
    """Each name in the drawing, and the name that it hangs from."""
    above: dict[int, str] = {}
    found: dict[str, str | None] = {}
    for branch, name in re.findall(r"^([|` -]*)([A-Z]\w*Error)\b", errors.__doc__ or "", re.MULTILINE):
        level = len(branch) // 4
        above[level] = name
        found[name] = above[level - 1] if level else None
    return found


def test_the_tree_that_is_drawn_is_the_tree_that_is_there() -> None:
    there = {name: each.__base__.__name__ for name, each in exceptions().items() if each is not EngineError}
    assert drawn() == {"EngineError": None, **there}


def test_every_exception_of_the_engine_says_what_it_is() -> None:
    assert [name for name, each in exceptions().items() if not inspect.getdoc(each)] == []
