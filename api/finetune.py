"""`toolmask finetune`: examples from a tool set, and an adapter that was trained on them."""

import json
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from api.loading import load_shown
from api.toolbox import import_tools
from engine.checks import shown
from engine.errors import ConfigError, RequestError
from engine.finetuning.examples import draw_examples
from engine.finetuning.training import LoRASettings, train_adapter
from engine.finetuning.writing import ExampleWriter
from engine.grammars.tool_formats import detect, format_named
from engine.requests import to_tools
from engine.types import CustomTool, Tool

DATA_FILE = "train.jsonl"


@dataclass(frozen=True, slots=True)
class FinetuneOptions:
    """What to train, on what, and where to."""

    model: str
    tools: str  # a JSON file in OpenAI's form, or a Python module
    out: str
    num_examples: int = 400
    max_tokens: int = 512  # of an example; longer ones are left out
    tool_format: str | None = None
    settings: LoRASettings = field(default_factory=LoRASettings)


def run_finetune(options: FinetuneOptions, console: Console) -> None:
    """Write examples and adapter into a folder. Raises EngineError."""
    tools, out = read_tools(options.tools), Path(options.out)
    examples = draw_examples(tools, options.num_examples, options.settings.seed)
    family = None if options.tool_format is None else format_named(options.tool_format)
    _make_folder(out)
    loaded = load_shown(options.model, console)
    tokenizer = loaded.tokenizer
    family = family or detect(tokenizer.chat_template, tokenizer.added, tokenizer.tekken_version).family
    written = ExampleWriter(tokenizer, family).write_all(examples, options.max_tokens)
    lines = [json.dumps(each.record(tokenizer), ensure_ascii=False) for each in written]
    (out / DATA_FILE).write_text("\n".join(lines) + "\n", encoding="utf-8")
    num_calls = sum(each.tool is not None for each in written)
    num_texts = len(written) - num_calls
    console.print(f"{num_calls} calls and {num_texts} texts over {len(tools)} tools, in the {family.name!r} format")
    if len(written) < len(examples):
        console.print(f"{len(examples) - len(written)} examples have more than {options.max_tokens} tokens: left out")
    train_adapter(loaded, written, options.settings, out)
    console.print(f"{out} has the adapter: toolmask serve --model {options.model} --adapter {out}")


def _make_folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"out: {out} cannot be made a folder: {error.strerror}") from error


def read_tools(source: str) -> tuple[Tool, ...]:
    """The tools of a JSON file, as a list or under the key `tools`; else of a Python module. Raises ConfigError."""
    if not source.endswith(".json"):
        return tuple(tool.definition for tool in import_tools(source))
    try:
        given = json.loads(Path(source).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"tools: {source} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"tools: {source} is no JSON: {error}") from error
    listed = given.get("tools") if isinstance(given, dict) else given
    if not isinstance(listed, list):
        raise ConfigError(f"tools: {source} has {shown(listed)}; it must be an array of tools")
    try:
        tools = to_tools(listed)
    except RequestError as error:
        raise ConfigError(f"{source}: {error}") from error
    return tuple(tool for tool in tools if not isinstance(tool, CustomTool))
