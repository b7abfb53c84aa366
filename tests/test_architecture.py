"""The layers, and the home of each library. A module imports only from rows below its own."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("engine", "api")
MAX_LINES = 450

# Low to high. Where the code teaches a better cut, this changes with it.
ROWS: tuple[frozenset[str], ...] = tuple(
    frozenset(row.split())
    for row in (
        "engine.errors engine.blas engine.grammars engine.sampling "
        "engine.passes engine.capacity engine.accounts engine.work "
        "api api.schemas api.convert api.routes",  # the packages are empty
        "engine engine.checks",  # the package itself: it chooses the BLAS, before anything imports mlx
        "engine.types engine.config",
        "engine.events",
        "engine.requests engine.catalog engine.gguf engine.sampling.bitmask engine.sampling.logits "
        "engine.grammars.matcher engine.grammars.schema_walk engine.grammars.tool_formats engine.grammars.example "
        "engine.grammars.literals engine.grammars.lark_source "
        "engine.tools.registry",
        "engine.grammars.llguidance_backend engine.grammars.custom_tools engine.grammars.strict "
        "engine.grammars.schema_references engine.grammars.number_bounds engine.grammars.schema_formats "
        "engine.grammars.turn_parser engine.sampling.sampler "
        "engine.tokenizer engine.cache engine.tools.calculate engine.tools.web_search",
        "engine.slots engine.prompt engine.tools engine.grammars.json_schema",
        "engine.memory engine.prefix_cache",
        "engine.model engine.prefix_store",
        "engine.grammars.turn",
        "engine.sequence engine.output",
        "engine.drafts engine.draws engine.scheduler",
        "engine.step",
        "engine.generation",
        "engine.decoding",
        "engine.engine",
        "engine.agent",
        "api.settings api.toolbox api.bridge api.metrics api.schemas.common api.convert.paths",
        "api.schemas.errors api.schemas.tools api.schemas.completions api.schemas.models api.schemas.health",
        "api.schemas.messages api.schemas.response_items api.convert.errors",
        "api.schemas.responses",
        "api.schemas.response_events api.response_store",
        "api.schemas.chat api.schemas.tokenize api.convert.answers api.convert.sampling api.manager api.middleware",
        "api.convert.requests api.convert.chat api.convert.completions api.convert.responses api.turns api.server",
        "api.convert.response_requests",
        "api.jobs",
        "api.responses api.agents api.routes.documented",
        "api.routes.chat api.routes.completions api.routes.models api.routes.tools api.routes.tokenize "
        "api.routes.operation api.routes.responses",
        "api.app",
        "api.demo api.serve api.terminal",
        "api.cli",
    )
)

# A library that is not named here may be imported anywhere.
HOMES: dict[str, frozenset[str]] = {
    "llguidance": frozenset({"engine.grammars.llguidance_backend"}),
    "mlx_lm": frozenset({"engine.model", "engine.cache", "engine.slots"}),
    "transformers": frozenset({"engine.tokenizer"}),
    "tokenizers": frozenset({"engine.tokenizer"}),
    "huggingface_hub": frozenset({"engine.model"}),
    "jsonschema_rs": frozenset({"engine.grammars.json_schema"}),
    "simpleeval": frozenset({"engine.tools.calculate"}),
    "ddgs": frozenset({"engine.tools.web_search"}),
    "griffe": frozenset({"engine.tools.registry"}),
    "outlines": frozenset({"engine.structured"}),
    "fastapi": frozenset({"api"}),
    "starlette": frozenset({"api"}),
    "uvicorn": frozenset({"api"}),
    "prometheus_client": frozenset({"api"}),
}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def sources() -> dict[str, str]:
    files = (path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
    return {module_name(path): path.read_text() for path in files}


def imports(source: str, modules: frozenset[str]) -> Iterator[str]:
    """Every module that a source names in an import, wherever in it. modules: what `from package import` may mean."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            for alias in node.names:
                part = f"{base}.{alias.name}"
                yield part if part in modules else base


def row_of(module: str) -> int | None:
    return next((number for number, row in enumerate(ROWS) if module in row), None)


def is_at_home(importer: str, library: str) -> bool:
    homes = HOMES.get(library)
    return homes is None or any(importer == home or importer.startswith(f"{home}.") for home in homes)


def violations(module: str, source: str, modules: frozenset[str]) -> list[str]:
    """What this module does that the tables do not allow."""
    if row_of(module) is None:
        return [f"{module} is in no row"]
    found = [f"{module} has more than {MAX_LINES} lines"] if len(source.splitlines()) > MAX_LINES else []
    return found + [
        fault for imported in imports(source, modules) if (fault := _import_violation(module, imported)) is not None
    ]


def _import_violation(module: str, imported: str) -> str | None:
    top = imported.partition(".")[0]
    if imported.startswith("."):
        return f"{module} imports {imported} by a relative name"
    if top not in PACKAGES:
        return None if is_at_home(module, top) else f"{module} imports {top}, whose home is elsewhere"
    own, other = row_of(module), row_of(imported)
    if other is None:
        return f"{module} imports {imported}, which is in no row"
    assert own is not None
    return None if other < own else f"{module} imports {imported}, which is in no lower row"


def test_every_module_keeps_to_its_row_its_libraries_and_its_length() -> None:
    modules = sources()
    found = [fault for name, source in modules.items() for fault in violations(name, source, frozenset(modules))]
    assert found == []


def test_the_table_names_no_module_that_does_not_exist() -> None:
    assert sorted({name for row in ROWS for name in row} - set(sources())) == []


def test_no_module_stands_in_two_rows() -> None:
    names = [name for row in ROWS for name in row]
    assert sorted(names) == sorted(set(names))


def test_the_package_imports_nothing_of_its_own_but_the_blas() -> None:
    """Whoever imports any part of the engine runs this first: anything more would load MLX with the wrong BLAS."""
    modules = sources()
    own = [name for name in imports(modules["engine"], frozenset(modules)) if name.startswith("engine")]
    assert own == ["engine.blas"]


@pytest.mark.parametrize(
    ("module", "source", "fault"),
    [
        (
            "engine.types",
            "from engine.engine import Engine",
            "engine.types imports engine.engine, which is in no lower row",
        ),
        ("engine.types", "import engine.engine", "engine.types imports engine.engine, which is in no lower row"),
        ("engine.types", "from engine import engine", "engine.types imports engine.engine, which is in no lower row"),
        ("engine.output", "import engine.sequence", "engine.output imports engine.sequence, which is in no lower row"),
        (
            "engine.output",
            "def f():\n    import engine.step",
            "engine.output imports engine.step, which is in no lower row",
        ),
        (
            "engine.output",
            "if TYPE_CHECKING:\n    from engine.step import Stepper",
            "engine.output imports engine.step, which is in no lower row",
        ),
        ("engine.step", "from .sequence import Sequence", "engine.step imports .sequence by a relative name"),
        ("engine.step", "from . import sequence", "engine.step imports . by a relative name"),
        ("engine.step", "import engine.secrets", "engine.step imports engine.secrets, which is in no row"),
        ("engine.step", "from mlx_lm.utils import load", "engine.step imports mlx_lm, whose home is elsewhere"),
        ("engine.step", "import transformers as t", "engine.step imports transformers, whose home is elsewhere"),
        (
            "api.schemas.tools",
            "import api.convert.chat",
            "api.schemas.tools imports api.convert.chat, which is in no lower row",
        ),
        ("engine.turn", "", "engine.turn is in no row"),
        ("engine.step", "\n" * (MAX_LINES + 1), f"engine.step has more than {MAX_LINES} lines"),
    ],
)
def test_the_checker_finds(module: str, source: str, fault: str) -> None:
    assert violations(module, source, frozenset(sources())) == [fault]


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("engine.step", "from engine.sequence import Sequence\nfrom engine import types"),
        ("engine.grammars.llguidance_backend", "import llguidance.numpy"),
        ("engine.step", "import numpy as np\nimport mlx.core as mx"),
        ("api.schemas.tools", "from api.schemas.common import Usage\nfrom engine.types import Tool"),
        ("api.cli", "import fastapi\nfrom engine.engine import Engine"),
        ("engine.step", "# import engine.engine\n" * MAX_LINES),
    ],
)
def test_the_checker_lets_through(module: str, source: str) -> None:
    assert violations(module, source, frozenset(sources())) == []
