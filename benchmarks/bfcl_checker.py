"""Whether calls answer a case of BFCL: by the leaderboard's own AST checker, from the same wheel as its data.

The checker is one module, of which only a table of model handlers needs more than the standard library. The table says
for some models that a tool's dots were written as underscores; here nothing was renamed, so an entry that says so
stands in its place. Each file is checked by sha256 before it runs; the package is not installed.
"""

import importlib.util
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

from benchmarks.bfcl import in_wheel
from engine.config import default_cache_dir

CHECKER = "bfcl_eval.eval_checker.ast_eval.ast_checker"
MODEL_TABLE = "bfcl_eval.constants.model_config"
MODEL = "any"  # the table's one entry

_CONVERTERS = "bfcl_eval.eval_checker.ast_eval.type_convertor"
SOURCES = {  # in the order in which they import each other
    "bfcl_eval.constants.enums": "2182becfa2a1d071ee1db30db593b4758c6bf866aa12d2d4b8daf09175ea518a",
    "bfcl_eval.constants.type_mappings": "1702fb67afbe2c492608e58e2b7d02e46381f50166b47f3c952f76e34c7cd3bd",
    f"{_CONVERTERS}.java_type_converter": "2fd4f4b0443b3dd974a1723bb4e45c086d7b352631062da7807ad1ad40706604",
    f"{_CONVERTERS}.js_type_converter": "a114e9ff75c025cb52787ac33d6c2fbaa390905c6125a2b3c6afebab232bb5e4",
    CHECKER: "2aae7a68461a8f76c0be3894c8901b66b56967a1989d3ab066051e3fb97f1538",
}


@cache
def load_checker(cache_dir: Path | None = None) -> ModuleType:
    """The checker's module. Raises ModelNotFoundError where the wheel cannot be had."""
    with _own_modules():
        table = ModuleType(MODEL_TABLE)
        table.MODEL_CONFIG_MAPPING = {MODEL: SimpleNamespace(underscore_to_dot=False)}  # type: ignore[attr-defined]
        sys.modules[MODEL_TABLE] = table
        for name, sha256 in SOURCES.items():
            member = name.removeprefix("bfcl_eval.").replace(".", "/") + ".py"
            _import_from(in_wheel(member, sha256).fetch(cache_dir or default_cache_dir()), name)
        return sys.modules[CHECKER]


@contextmanager
def _own_modules() -> Iterator[None]:
    """What is imported under the package's name inside of this is forgotten after it."""
    try:
        yield
    finally:
        for name in (MODEL_TABLE, *SOURCES):
            sys.modules.pop(name, None)


def _import_from(path: Path, name: str) -> None:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)


def fault_of(
    category: str,
    functions: Sequence[Mapping[str, Any]],
    calls: Sequence[Mapping[str, Any]],
    accepted: Sequence[Mapping[str, Any]],
    cache_dir: Path | None = None,
) -> str | None:
    """What is wrong with the calls, as the checker names it; None where they answer the case.

    functions: the case's, as the file has them. calls: each with its name and its arguments. accepted: the case's
    possible answers; none means that no call answers it.
    """
    if not accepted:
        return "needless_call" if calls else None
    checker = load_checker(cache_dir)
    written = [{call["name"]: call["arguments"]} for call in calls]
    check: Callable[..., dict[str, Any]] = checker.ast_checker
    try:
        found = check(list(functions), written, list(accepted), checker.Language.PYTHON, category, MODEL)
    except (AttributeError, KeyError, TypeError) as error:  # it expects that values have some of the right shape
        return f"checker:{type(error).__name__}"
    return None if found["valid"] else _kind(found)


def _kind(found: Mapping[str, Any]) -> str:
    """The checker's error type; of parallel calls, the one of the first call that was compared."""
    details = [each for each in found["error"] if isinstance(each, dict)]
    if not details:
        return str(found["error_type"])
    (first,) = details[0].values()
    return str(first["sub_error_type"])
