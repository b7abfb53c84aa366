"""docs/families.md, from the families themselves and from what was verified of them.

python -m benchmarks.families_page
"""

import argparse
import json
import sys
import textwrap
from pathlib import Path
from typing import Any

if __name__ == "__main__" and not __package__:
    # As a script. In place of benchmarks/ itself, whose names should not stand beside the standard library's.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks.family_engine_walks import RESULTS as ENGINE_RESULTS
from benchmarks.family_walks import RESULTS
from engine.grammars.tool_format import THINK, ToolFormat
from engine.grammars.tool_formats import TOOL_FORMATS, format_named
from tests import second_reading
from tests.families import OWN_VOCABULARY
from tests.second_reading import OTHERWISE, ReadOtherwise

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
  refused, because both would read alike. A string that may also be null or a boolean cannot be the word for it.
  `literal` is Python's or Gemma's notation. What a way of writing cannot hold of a schema is refused by its path.
- **Reasoning**: *if the template has*: the family says nothing of its own, and a model reasons so where its chat
  template names the tags. Of the others, the tags are the family's own, and count where the template names them too.
- **Calls**: how many a turn may have. *whole turn*: text and calls exclude each other, and text cannot begin as a call
  does.
- **Custom tools**: whether the family has a way to write raw input; where not, custom tools are refused.
- **Verified with**: the vocabulary, and random walks through its grammar (`benchmarks/results/families.json`): every
  complete call is of an offered tool, satisfies its schema and is read back, also by mlx-lm's own parser where it has
  one and the strings are such that it reads them (second number). *Engine*: calls of walks through the whole engine,
  with guard and parser, a small vocabulary and 13 of the suite's tool sets
  (`benchmarks/results/family_engine_walks.json`). It names the tools that a family refuses, and counts what mlx-lm's
  parsers read otherwise: numbers of more than 53 bits, and values whose schema names no type.

{otherwise}
## What is left to the chat template

When an engine starts, it renders a few short conversations with the model's own template. Where tools, calls or results
come out as the model would write them, the template shows them from then on, with arguments as objects or as text,
whichever it wants. Where they do not (DeepSeek V3's template leaves out the end of a single call, say), the format
writes them, and the system message describes the tools.

Special tokens that a message's text spells are not the tokens: the prompt is cut inside of them before it is encoded.

## Where there is no chat template

A family is then seen from its tokens, and several may have the same: a vocabulary of Qwen 3 or 3.5 is taken for
`hermes`, although Qwen3-Coder has the former and Qwen 3.5 writes its calls as `qwen3-coder`; DeepSeek's is taken for
`deepseek-v3` and GLM's for `glm`. Ask for another family by its name.

{template_only}

So are R1's distillates `deepseek-v3`: their vocabularies, Qwen's and Llama's, lack the tokens that open and end calls,
which are written and read as text.

## Python's words between tags

Qwen3-Coder's and Seed-OSS's templates show an argument that is no string as Python does: `None`, `True`,
`{'a': [1, 'b']}`; a later version of Qwen3-Coder's shows lists and objects as JSON. Parsers of these models (Qwen's
own, vLLM's and mlx-lm's) read both: JSON first, Python's literals where that fails, booleans whatever their case. So
the grammar takes both, quotes of either kind included, and each reads as the same value: what is in the model's
prompt is what it may write. The formats write Python's words, and JSON for lists and objects. LFM2.5's template mixes
the two in the same way. `None` for a string that may be null is null to us; those parsers read the text.

## What earlier calls are in harmony

The model writes `<|channel|>commentary to=functions.NAME`, and the grammar takes this form alone; gpt-oss's template
and openai-harmony show earlier calls as ` to=functions.NAME<|channel|>commentary`. openai-harmony reads both.

## Ids that models write

Kimi K2, Cogito on Llama and Mistral's formats up to v11 write an id with each call. The grammar takes any of the
family's kind; callers get ids of ours in their place. In later turns a call is shown under an id of the family's kind:
where that is a number, as in Kimi K2's `functions.NAME:INDEX`, it counts the calls of the whole conversation from 0 on,
so that no two are alike. It is made anew from the messages: the ids that callers send back need not have that form.

## Adding a family

A family is one object in `engine/grammars/families`, its name in the rows of `engine/grammars/tool_formats.py`, and one
recorded turn in `tests/recorded_turns.py`. Grammar, parser, prompt, `toolmask inspect`, this page and the tests read
these alone. `git log -p -S'name="cogito-llama"' -- engine tests` shows all that the last one took.

## A case that goes wrong

A turn of Qwen3-Coder in which an argument may be a string or an integer: `<parameter=id>\\n5\\n</parameter>` is both
"5" and 5. The request is refused with a 400 that names `tools[0].parameters.properties.id`; give the argument one type.
"""


def main() -> None:
    argparse.ArgumentParser(description="Writes docs/families.md.").parse_args()
    walks: dict[str, Any] = json.loads(RESULTS.read_text())
    through_engine: dict[str, Any] = json.loads(ENGINE_RESULTS.read_text())
    PAGE.write_text(page(walks, through_engine))


def page(walks: dict[str, Any], through_engine: dict[str, Any]) -> str:
    """The whole page. walks, through_engine: the rows of the two results."""
    head = "| family | models | opens | a call | arguments | reasoning | calls | custom tools | verified with |"
    rows = [
        head,
        "|---" * 9 + "|",
        *(_row(each, walks.get(each.name), through_engine.get(each.name)) for each in TOOL_FORMATS),
    ]
    read = "\n".join(f"- `{family.name}`: {family.source}" for family in TOOL_FORMATS)
    foot = FOOT.replace("{otherwise}", _otherwise()).replace("{template_only}", _template_only())
    return f"{HEAD}{chr(10).join(rows)}\n\n## Where each format was read\n\n{read}\n{foot}"


def _row(family: ToolFormat, walks: dict[str, Any] | None, through_engine: dict[str, Any] | None) -> str:
    call = f"{family.before_name}NAME{family.before_arguments}…{family.end}"
    cells = [
        f"`{family.name}`",
        family.models,
        _code(family.marker),
        _code(call),
        type(family.arguments).__name__.removesuffix("Arguments").lower(),
        _reasoning(family),
        ("several" if family.parallel else "one") + (", whole turn" if family.calls_are_all else ""),
        "yes" if family.input_end else "no",
        _verified(family, walks) + _of_engine(through_engine),
    ]
    return f"| {' | '.join(cells)} |"


def _reasoning(family: ToolFormat) -> str:
    if family.reasoning is None:
        return "none"
    tags = f"{_code(family.reasoning.begin)} {_code(family.reasoning.end)}"
    return f"if the template has {tags}" if family.reasoning is THINK else tags


def _code(text: str) -> str:
    return "`" + text.replace("\n", "⏎").replace("|", "\\|") + "`"


def _verified(family: ToolFormat, walks: dict[str, Any] | None) -> str:
    vocabulary = OWN_VOCABULARY.get(family.name, "a small one with its tokens")
    if walks is None:
        return vocabulary
    return f"{vocabulary}; {walks['complete_calls']} calls, {walks['read_by_mlx_lm_too']} walks by mlx-lm too"


def _of_engine(walks: dict[str, Any] | None) -> str:
    return "" if walks is None else f"; engine: {walks['calls']} calls, {walks['failures']} wrong"


def _template_only() -> str:
    """The families that no token and no version of a vocabulary tells."""
    seen = (each for each in TOOL_FORMATS if each.template_signs)
    *names, last = (f"`{each.name}`" for each in seen if not (each.tokens or each.tekken_versions))
    return textwrap.fill(f"{', '.join(names)} and {last} are seen from a chat template alone.", 120)


OTHERWISE_HEAD = """## Where mlx-lm's parsers read otherwise

These calls are what the grammar lets through and our parser reads as they are meant. mlx-lm's parser for the family, to
which the walks are compared where it can be asked, reads another call in them, or none. Who hands such a model's text
to these parsers does well to give tools and arguments names of letters, digits and `_`.

| families | a call with | for example | mlx-lm reads |
|---|---|---|---|
"""


def _otherwise() -> str:
    return OTHERWISE_HEAD + "".join(_row_of(case) for case in OTHERWISE)


def _row_of(case: ReadOtherwise) -> str:
    """One case, as the first of its families writes it."""
    families = ", ".join(f"`{name}`" for name in case.families)
    text = format_named(case.families[0]).write_calls((case.call,))
    return f"| {families} | {case.what} | {_code(text)} | {_read_by_mlx_lm(case, text)} |\n"


def _read_by_mlx_lm(case: ReadOtherwise, text: str) -> str:
    try:
        calls = second_reading.read(case.families[0], text, [case.tool])
    except ValueError:
        return "no call"
    return ", ".join(_code(f"{name} {json.dumps(arguments, ensure_ascii=False)}") for name, arguments in calls)


if __name__ == "__main__":
    main()
