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
        "engine.accounts engine.blas engine.device_thread engine.errors engine.finetuning "
        "engine.finetuning.small_talk engine.finetuning.words engine.grammars engine.grammars.closing_tokens "
        "engine.grammars.decision engine.grammars.encoders engine.grammars.families engine.grammars.literals "
        "engine.grammars.marks engine.grammars.recent engine.grammars.regex_ways engine.grammars.schema_formats "
        "engine.grammars.schema_logic engine.grammars.schema_patterns engine.sampling engine.work",
        "engine engine.checks engine.grammars.json_stream engine.grammars.lark_source engine.grammars.regex_shape "
        "engine.grammars.schema_lengths engine.grammars.schema_limits engine.output_forms engine.tekken",
        "engine.decision_options engine.output_refusals engine.tool_display",
        "engine.config engine.types",
        "engine.catalog engine.events engine.finetuning.phrases engine.gguf engine.grammars.example "
        "engine.grammars.schema_walk engine.grammars.tool_descriptions engine.output_schema engine.retrieval "
        "engine.tools.registry",
        "engine.argument_templates engine.cache engine.capacity engine.gguf_tokenizer "
        "engine.grammars.closing_hints engine.grammars.closing_values engine.grammars.custom_tools "
        "engine.grammars.encoders.kinds engine.grammars.encoders.whole_patterns engine.grammars.matcher "
        "engine.grammars.schema_dialects engine.grammars.schema_keywords engine.grammars.schema_literals "
        "engine.grammars.schema_members engine.grammars.schema_places engine.grammars.strict engine.output_types "
        "engine.passes engine.requests engine.sampling.bitmask engine.sampling.logits engine.tools.calculate "
        "engine.tools.web_search",
        "engine.grammars.closing engine.grammars.closing_bounds engine.grammars.encoders.literal_style "
        "engine.grammars.llguidance_backend engine.grammars.schema_numbers engine.grammars.schema_references "
        "engine.grammars.veto_arrays engine.grammars.veto_numbers engine.optional_places engine.outlines_terms "
        "engine.prefix_cache engine.sampling.sampler engine.slots engine.tokenizer engine.tools",
        "engine.grammars.reasoning_budget engine.grammars.schema_closing engine.grammars.schema_formulas "
        "engine.grammars.schema_states engine.grammars.veto engine.memory",
        "engine.grammars.schema_cases engine.grammars.schema_source engine.model engine.prefix_store",
        "engine.grammars.schema_objects",
        "engine.grammars.schema_tableau",
        "engine.grammars.schema_emission",
        "engine.grammars.schema_plain",
        "engine.grammars.encoders.json_numbers engine.grammars.json_schema",
        "engine.grammars.arguments_check engine.grammars.encoders.arguments engine.grammars.turn_parts",
        "engine.finetuning.values engine.grammars.encoders.json_objects engine.grammars.encoders.literal_keys "
        "engine.grammars.encoders.raw_strings engine.routes",
        "engine.finetuning.examples engine.grammars.encoders.json_arguments "
        "engine.grammars.encoders.literal_grammar engine.grammars.encoders.literal_reader",
        "engine.grammars.encoders.literal engine.grammars.encoders.tagged engine.grammars.tool_format",
        "engine.grammars.call_paths engine.grammars.families.json_families "
        "engine.grammars.families.literal_families engine.grammars.families.tagged_families "
        "engine.grammars.other_calls engine.grammars.turn_closing engine.grammars.turn_parser "
        "engine.template_skills",
        "engine.decision_point engine.grammars.tool_formats engine.grammars.tool_schemas "
        "engine.grammars.veto_matcher engine.guard engine.output engine.prompt",
        "engine.decision_plans engine.finetuning.writing engine.grammars.turn engine.inspection engine.vetoes",
        "engine.finetuning.training engine.grammars.turn_cache engine.sequence",
        "engine.drafts engine.draws engine.scheduler",
        "engine.deciding",
        "engine.step",
        "engine.generation",
        "engine.admission engine.best_of engine.decoding",
        "engine.calibration",
        "engine.engine",
        "engine.agent engine.structured",
        "engine.outlines_model",
        "api api.bench_tools api.connections api.convert api.convert.paths api.loading api.metrics api.route_file "
        "api.routes api.schemas api.schemas.unsupported api.settings",
        "api.bench api.schemas.common api.toolbox",
        "api.convert.decisions api.finetune api.schemas.completions api.schemas.errors api.schemas.health "
        "api.schemas.models api.schemas.tools",
        "api.convert.errors api.routes.documented api.schemas.messages api.schemas.response_items",
        "api.convert.answers api.convert.history api.convert.sampling api.lifetime api.manager api.routes.query "
        "api.schemas.chat api.schemas.responses api.schemas.tokenize api.workers",
        "api.bridge api.convert.chat api.convert.completions api.convert.requests api.middleware "
        "api.response_store api.schemas.response_events api.turns",
        "api.convert.handed_over api.convert.response_requests api.convert.responses api.terminal",
        "api.fallback",
        "api.server",
        "api.agents api.demo api.jobs",
        "api.responses",
        "api.relay api.routes.completions api.routes.models api.routes.operation api.routes.responses "
        "api.routes.tokenize api.routes.tools",
        "api.routes.chat",
        "api.app",
        "api.serve",
        "api.cli",
    )
)

# A library that is not named here may be imported anywhere.
HOMES: dict[str, frozenset[str]] = {
    "llguidance": frozenset({"engine.grammars.llguidance_backend"}),
    "mlx_lm": frozenset({"engine.model", "engine.cache", "engine.slots", "engine.finetuning.training"}),
    "transformers": frozenset({"engine.tokenizer"}),
    "tokenizers": frozenset({"engine.tokenizer", "engine.tekken", "engine.gguf_tokenizer"}),
    "huggingface_hub": frozenset({"engine.model"}),
    "jsonschema_rs": frozenset(
        {
            "engine.grammars.arguments_check",
            "engine.grammars.schema_dialects",
            "engine.grammars.schema_patterns",
            "engine.grammars.schema_tableau",
            "engine.grammars.veto",
        }
    ),
    "regex": frozenset({"engine.routes"}),
    "simpleeval": frozenset({"engine.tools.calculate"}),
    "ddgs": frozenset({"engine.tools.web_search"}),
    "bm25s": frozenset({"engine.retrieval"}),
    "griffe": frozenset({"engine.tools.registry"}),
    "outlines": frozenset({"engine.outlines_terms", "engine.outlines_model"}),
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
