"""The `toolmask` command."""

import argparse
import sys

from api.demo import run_demo
from engine.errors import EngineError


def main() -> None:
    """Entry point. Exits with 1 and one line on stderr where the engine refuses something."""
    arguments = _parser().parse_args()
    try:
        arguments.run(arguments)
    except EngineError as error:
        print(f"toolmask: {error}", file=sys.stderr)
        raise SystemExit(1) from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="toolmask", description="Tool calls that cannot be wrong, on any MLX model.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    demo = commands.add_parser("demo", help="three requests, decoded freely, in auto and with a required call")
    demo.add_argument("--model", default="smollm2-135m", help="hub id, model folder or GGUF file (%(default)s)")
    demo.add_argument("--max-tokens", type=int, default=96, help="longest answer (%(default)s)")
    demo.set_defaults(run=lambda arguments: run_demo(arguments.model, max_tokens=arguments.max_tokens))
    return parser


if __name__ == "__main__":
    main()
