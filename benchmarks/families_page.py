"""docs/families.md, from the families themselves and from what was verified of them.

python -m benchmarks.families_page
"""

import json
from pathlib import Path
from typing import Any

from benchmarks.family_walks import RESULTS
from engine.grammars.tool_format import ToolFormat
from engine.grammars.tool_formats import TOOL_FORMATS
from tests.families import OWN_VOCABULARY

PAGE = Path(__file__).parent.parent / "docs" / "families.md"
HEAD = """# Tool formats by model family

A model calls tools best in the format that it was trained on. Each family is one frozen `ToolFormat` object, which the
grammar and the parser both read, and one recorded turn in the tests. `toolmask inspect MODEL` says which family a model
is taken for and why; `Engine(tool_format="NAME")` and `toolmask serve --tool-format NAME` choose another.

This page is written by `python -m benchmarks.families_page`; change the objects, not the page.

"""
FOOT = """
## What the columns mean

- **Arguments**: `json` is one JSON object. `tagged` writes strings as they are between tags and other values as JSON: a
  string cannot contain the family's own close tag, and an argument that may be a string or a number, list or object is
  refused, because both would read alike. `literal` is Python's or Gemma's notation. What a way of writing cannot hold
  of a schema is refused by its path.
- **Calls**: how many a turn may have. *whole turn*: text and calls exclude each other, and text cannot begin as a call
  does.
- **Custom tools**: whether the family has a way to write raw input; where not, custom tools are refused.
- **Verified with**: the vocabulary, and random walks through its grammar (`benchmarks/results/families.json`): every
  complete call is of an offered tool, satisfies its schema and is read back, also by mlx-lm's own parser where it has
  one and the strings are such that it reads them (second number).

## What is left to the chat template

When an engine starts, it renders a few short conversations with the model's own template. Where tools, calls or results
come out as the model would write them, the template shows them from then on, with arguments as objects or as text,
whichever it wants. Where they do not (DeepSeek V3's template leaves out the end of a single call, say), the format
writes them, and the system message describes the tools.

Special tokens that a message's text spells are not the tokens: the prompt is cut inside of them before it is encoded.

## A case that goes wrong

A turn of Qwen3-Coder in which an argument may be a string or an integer: `<parameter=id>\\n5\\n</parameter>` is both
"5" and 5. The request is refused with a 400 that names `tools[0].parameters.properties.id`; give the argument one type.
"""


def main() -> None:
    walks: dict[str, Any] = json.loads(RESULTS.read_text())
    PAGE.write_text(page(walks))


def page(walks: dict[str, Any]) -> str:
    """The whole page. walks: the rows of results/families.json."""
    head = "| family | models | opens | a call | arguments | reasoning | calls | custom tools | verified with |"
    rows = [head, "|---" * 9 + "|", *(_row(family, walks.get(family.name)) for family in TOOL_FORMATS)]
    read = "\n".join(f"- `{family.name}`: {family.source}" for family in TOOL_FORMATS)
    return f"{HEAD}{chr(10).join(rows)}\n\n## Where each format was read\n\n{read}\n{FOOT}"


def _row(family: ToolFormat, walks: dict[str, Any] | None) -> str:
    call = f"{family.before_name}NAME{family.before_arguments}…{family.end}"
    reasoning = f"{_code(family.reasoning.begin)} {_code(family.reasoning.end)}" if family.reasoning else "none"
    cells = [
        f"`{family.name}`",
        family.models,
        _code(family.marker),
        _code(call),
        type(family.arguments).__name__.removesuffix("Arguments").lower(),
        reasoning,
        ("several" if family.parallel else "one") + (", whole turn" if family.calls_are_all else ""),
        "yes" if family.input_end else "no",
        _verified(family, walks),
    ]
    return f"| {' | '.join(cells)} |"


def _code(text: str) -> str:
    return "`" + text.replace("\n", "⏎").replace("|", "\\|") + "`"


def _verified(family: ToolFormat, walks: dict[str, Any] | None) -> str:
    vocabulary = OWN_VOCABULARY.get(family.name, "a small one with its tokens")
    if walks is None:
        return vocabulary
    return f"{vocabulary}; {walks['complete_calls']} calls, {walks['read_by_mlx_lm_too']} walks by mlx-lm too"


if __name__ == "__main__":
    main()
