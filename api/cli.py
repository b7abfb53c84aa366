"""The `toolmask` command."""

import argparse
import os
import sys

from rich.console import Console

from api.bench import run_bench
from api.demo import run_demo
from api.finetune import FinetuneOptions, run_finetune
from api.route_file import read_routes
from api.serve import run_server
from api.settings import DEFAULT_MODEL, DEFAULT_PORT, FallbackConfig, ServerConfig
from api.terminal import Conversation, run_chat
from api.toolbox import AnyTool, import_tools
from engine.config import KV_BITS, EngineConfig
from engine.engine import Engine
from engine.errors import ConfigError, EngineError
from engine.finetuning.training import LoRASettings
from engine.grammars.tool_formats import TOOL_FORMATS, format_named
from engine.inspection import inspection
from engine.model import load
from engine.tools import calculate, web_search
from engine.types import SamplingParams

BUILT_IN: tuple[AnyTool, ...] = (calculate, web_search)
ENVIRONMENT_KEY = "TOOLMASK_API_KEY"
ENVIRONMENT_FALLBACK_KEY = "TOOLMASK_FALLBACK_KEY"


def main() -> None:
    """Entry point. Exits with 1 and one line on stderr where the engine refuses something."""
    arguments = _parser().parse_args()
    try:
        arguments.run(arguments)
    except EngineError as error:
        print(f"toolmask: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="toolmask", description="Tool calls that cannot be wrong, on any MLX model.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_demo(commands.add_parser("demo", help="three requests, decoded freely, in auto and with a required call"))
    _add_serve(commands.add_parser("serve", help="an OpenAI-style server"))
    _add_chat(commands.add_parser("chat", help="a conversation in the terminal, with tools"))
    _add_inspect(commands.add_parser("inspect", help="how a model calls tools, and how that was seen"))
    _add_finetune(commands.add_parser("finetune", help="train an adapter that calls your tools better"))
    _add_bench(commands.add_parser("bench", help="how fast a model is on this machine, free and constrained"))
    return parser


def _add_demo(parser: argparse.ArgumentParser) -> None:
    _add_model(parser)
    _add_adapter(parser)
    parser.add_argument("--max-tokens", type=int, default=96, help="longest answer (%(default)s)")
    parser.set_defaults(
        run=lambda arguments: run_demo(arguments.model, max_tokens=arguments.max_tokens, adapter=arguments.adapter)
    )


def _add_bench(parser: argparse.ArgumentParser) -> None:
    _add_model(parser)
    _add_draft_model(parser)
    _add_adapter(parser)
    parser.add_argument("--rounds", type=int, default=5, help="measured ones; one more warms up (%(default)s)")
    parser.add_argument("--max-tokens", type=int, default=96, help="longest answer (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print the result as one line of JSON, last")
    parser.set_defaults(
        run=lambda arguments: run_bench(
            arguments.model,
            draft_model=arguments.draft_model,
            rounds=arguments.rounds,
            max_tokens=arguments.max_tokens,
            as_json=arguments.json,
            adapter=arguments.adapter,
        )
    )


def _add_finetune(parser: argparse.ArgumentParser) -> None:
    default, settings = FinetuneOptions("", "", ""), LoRASettings()
    _add_model(parser)
    _add_tool_format(parser)
    add = parser.add_argument
    add("--tools", required=True, metavar="FILE|MODULE", help="a .json file of tools in OpenAI's form, or a module")
    add("--out", required=True, metavar="DIR", help="folder for the examples and the adapter")
    add("--examples", type=int, default=default.num_examples, help="made-up requests (%(default)s)")
    add("--max-length", type=int, default=default.max_tokens, help="tokens of an example at most (%(default)s)")
    add("--iterations", type=int, default=settings.iterations, help="batches to train on (%(default)s)")
    add("--batch-size", type=int, default=settings.batch_size, help="examples of a batch (%(default)s)")
    add("--rank", type=int, default=settings.rank, help="of the adapter (%(default)s)")
    add("--layers", type=int, default=settings.num_layers, help="the last so many are adapted (%(default)s)")
    add("--learning-rate", type=float, default=settings.learning_rate, help="at its highest (%(default)s)")
    add("--seed", type=int, default=settings.seed, help="of examples and training (%(default)s)")
    parser.set_defaults(run=_finetune)


def _add_serve(parser: argparse.ArgumentParser) -> None:
    default = ServerConfig()
    _add_model(parser)
    _add_draft_model(parser)
    _add_adapter(parser)
    _add_tools(parser)
    _add_tool_format(parser)
    add = parser.add_argument
    add(
        "--routes",
        metavar="FILE",
        help="JSON: patterns of messages that are answered by a tool's call, without the model",
    )
    add(
        "--fallback-url",
        metavar="URL",
        help="base URL of an upstream that is asked where the model is not sure to call",
    )
    add(
        "--fallback-model",
        metavar="NAME",
        help=f"that the upstream is asked for; its key is in {ENVIRONMENT_FALLBACK_KEY}",
    )
    add("--fallback-below", type=float, metavar="P", help="how sure the model must be, so as not to ask the upstream")
    add("--fallback-timeout", type=float, default=60.0, help="seconds for the upstream to go on (%(default)g)")
    add("--known-model", action="append", default=[], help="another one that a request may name; repeatable")
    add("--allow-model-switch", action="store_true", help="load a known model when a request names it")
    add("--host", default=default.host, help="address to listen at (%(default)s)")
    add("--port", type=int, default=DEFAULT_PORT, help="port to listen at (%(default)s)")
    add("--api-key", help=f"key that clients must send; better in {ENVIRONMENT_KEY}, where ps does not show it")
    add("--cors", nargs="+", default=[], metavar="ORIGIN", help="origins whose pages may use the server")
    add("--max-body-bytes", type=int, default=default.max_body_bytes, help="longest request (%(default)s)")
    add("--max-queue", type=int, default=default.max_queue, help="sequences that may wait (%(default)s)")
    add("--max-batch", type=int, default=default.max_batch, help="sequences that are decoded together (%(default)s)")
    add("--kv-memory", type=int, metavar="BYTES", help="for their keys and values (a quarter of the machine's memory)")
    add(
        "--kv-bits", type=int, choices=KV_BITS, help="keep keys and values in so many bits (as the model computes them)"
    )
    add("--prompt-cache", metavar="DIR", help="keep what prompts have in common between two runs there")
    stored = default.max_stored_responses
    add("--max-stored-responses", type=int, default=stored, help="responses to go on from (%(default)s)")
    add("--request-timeout", type=float, default=default.request_timeout_s, help="seconds for a request (%(default)g)")
    add("--shutdown-timeout", type=int, default=default.shutdown_timeout_s, help="seconds to end streams (%(default)s)")
    parser.set_defaults(run=_serve)


def _add_chat(parser: argparse.ArgumentParser) -> None:
    _add_model(parser)
    _add_adapter(parser)
    _add_tools(parser)
    parser.add_argument("--system", help="the system message")
    parser.add_argument("--temperature", type=float, default=0.0, help="0 always takes the likeliest token")
    parser.add_argument("--max-tokens", type=int, default=512, help="longest turn (%(default)s)")
    parser.set_defaults(run=_chat)


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default=DEFAULT_MODEL, help="hub id, model folder or GGUF file (%(default)s)")


def _add_draft_model(parser: argparse.ArgumentParser) -> None:
    words = "a smaller one with the same vocabulary, whose guesses save forward passes and change no answer"
    parser.add_argument("--draft-model", metavar="MODEL", help=words)


def _add_inspect(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", nargs="?", default=DEFAULT_MODEL, help="as for serve (%(default)s)")
    _add_tool_format(parser)
    parser.set_defaults(run=_inspect)


def _add_adapter(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--adapter", metavar="DIR", help="an adapter for the model, as `toolmask finetune` writes it")


def _add_tool_format(parser: argparse.ArgumentParser) -> None:
    names = ", ".join(family.name for family in TOOL_FORMATS)
    parser.add_argument("--tool-format", metavar="NAME", help=f"instead of what is detected: {names}")


def _add_tools(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--tools", nargs="+", default=[], metavar="MODULE", help="Python modules with @tool functions")


def _tools(arguments: argparse.Namespace) -> tuple[AnyTool, ...]:
    sys.path.insert(0, os.getcwd())  # as `python -m` does: a user's module lies where the command is run
    return (*BUILT_IN, *(tool for module in arguments.tools for tool in import_tools(module)))


def _serve(arguments: argparse.Namespace) -> None:
    run_server(
        ServerConfig(
            model=arguments.model,
            draft_model=arguments.draft_model,
            adapter=arguments.adapter,
            known_models=tuple(arguments.known_model),
            allow_model_switch=arguments.allow_model_switch,
            host=arguments.host,
            port=arguments.port,
            api_key=os.environ.get(ENVIRONMENT_KEY) if arguments.api_key is None else arguments.api_key,
            cors_origins=tuple(arguments.cors),
            max_body_bytes=arguments.max_body_bytes,
            max_queue=arguments.max_queue,
            max_batch=arguments.max_batch,
            kv_memory=arguments.kv_memory,
            kv_bits=arguments.kv_bits,
            prompt_cache=arguments.prompt_cache,
            max_stored_responses=arguments.max_stored_responses,
            request_timeout_s=arguments.request_timeout,
            shutdown_timeout_s=arguments.shutdown_timeout,
            fallback=_fallback(arguments),
            tools=_tools(arguments),
            routes=() if arguments.routes is None else read_routes(arguments.routes),
            tool_format=arguments.tool_format,
        )
    )


def _fallback(arguments: argparse.Namespace) -> FallbackConfig | None:
    """Raises ConfigError where only some of its options are given."""
    given = {name: getattr(arguments, f"fallback_{name}") for name in ("url", "model", "below")}
    missing = [f"--fallback-{name}" for name, value in given.items() if value is None]
    if len(missing) == len(given):
        return None
    if missing:
        raise ConfigError(f"{' and '.join(missing)} must be given too: a fallback needs all three")
    key = os.environ.get(ENVIRONMENT_FALLBACK_KEY)
    return FallbackConfig(**given, key=key, timeout_s=arguments.fallback_timeout)


def _inspect(arguments: argparse.Namespace) -> None:
    family = None if arguments.tool_format is None else format_named(arguments.tool_format)
    loaded = load(arguments.model, cache_dir=EngineConfig().cache_dir)
    print(inspection(loaded.tokenizer, family))


def _finetune(arguments: argparse.Namespace) -> None:
    settings = LoRASettings(
        rank=arguments.rank,
        num_layers=arguments.layers,
        learning_rate=arguments.learning_rate,
        batch_size=arguments.batch_size,
        iterations=arguments.iterations,
        seed=arguments.seed,
    )
    sys.path.insert(0, os.getcwd())
    options = FinetuneOptions(
        arguments.model,
        arguments.tools,
        arguments.out,
        num_examples=arguments.examples,
        max_tokens=arguments.max_length,
        tool_format=arguments.tool_format,
        settings=settings,
    )
    run_finetune(options, Console(soft_wrap=True))


def _chat(arguments: argparse.Namespace) -> None:
    console = Console()
    with console.status(f"loading {arguments.model}"):
        engine = Engine(arguments.model, adapter_path=arguments.adapter)
    with engine:
        sampling = SamplingParams(temperature=arguments.temperature)
        tools, limit = _tools(arguments), arguments.max_tokens
        conversation = Conversation(
            engine, tools, console, system=arguments.system, sampling=sampling, max_tokens=limit
        )
        run_chat(conversation, console)


if __name__ == "__main__":
    main()
