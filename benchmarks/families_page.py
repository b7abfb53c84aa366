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
from tests.chat_templates import BY_VOCABULARY, NOT_OURS, TEMPLATES, ChatTemplate
from tests.families import OWN_VOCABULARY
from tests.second_reading import OTHERWISE, ReadOtherwise

PAGE = Path(__file__).parent.parent / "docs" / "families.md"
HEAD = """# Tool formats by model family

A model calls tools best in the format that it was trained on. Each family is one frozen `ToolFormat` object, which the
grammar and the parser both read, and one example of a turn in the tests. `toolmask inspect MODEL` says which family a
model is taken for and why; `Engine(tool_format="NAME")` and `toolmask serve --tool-format NAME` choose another.

This page is written by `python -m benchmarks.families_page`; change the objects, not the page.

"""
FOOT = """
## What the columns mean

- **Arguments**: `json` is one JSON object. `tagged` writes strings as they are between tags and other values as JSON: a
  string cannot contain the family's own close tag, and an argument that may be a string or a number, list or object is
  refused, because both would read alike. A string that may also be null or a boolean cannot be the word for it.
  `literal` is Python's or Gemma's notation. Gemma's strings stand between two tokens, and may contain what spells
  these, but for a vocabulary without them. What a way of writing cannot hold of a schema is refused by its path.
- **Reasoning**: *if the template has*: the family says nothing of its own, and a model reasons so where its chat
  template names the tags. Of the others, the tags are the family's own, and count where the template names them too.
  Behind Granite 3.3's reasoning, `<response>` and `</response>` stand around the answer, and are no part of its text.
- **Calls**: how many a turn may have. *whole turn*: text and calls exclude each other, and text beside tools cannot
  begin as a call does: see below.
- **Custom tools**: whether the family has a way to write raw input; where not, custom tools are refused.
- **Verified with**: the vocabulary, and random walks through its grammar (`benchmarks/results/families.json`): every
  complete call is of an offered tool, satisfies its schema and is read back, also by mlx-lm's own parser where it has
  one and the strings are such that it reads them (second number). *Engine*: calls of walks through the whole engine,
  with guard and parser, a small vocabulary and 13 of the suite's tool sets
  (`benchmarks/results/family_engine_walks.json`). It names the tools that a family refuses, and counts what mlx-lm's
  parsers read otherwise: numbers of more than 53 bits, values whose schema names no type, and Gemma's `None`.

{otherwise}
## What is left to the chat template

When an engine starts, it renders a few short conversations with the model's own template. Where tools, calls or results
come out as the model would write them, the template shows them from then on, with arguments as objects or as text,
whichever it wants. Where they do not (DeepSeek V3's template leaves out the end of a single call, say), the format
writes them, and the system message describes the tools.

Special tokens that a message's text spells are not the tokens: the prompt is cut inside of them before it is encoded.

{templates}

## Where there is no chat template

A template that writes calls in a format that is none of these has the last word: such a model is `plain`, whatever
tokens its vocabulary has. Where there is no template, or one that writes no calls, a family is seen from its tokens,
and several may have the same: a vocabulary of Qwen 3 or 3.5 is taken for `hermes`, although Qwen3-Coder has the former
and Qwen 3.5 writes its calls as `qwen3-coder`; DeepSeek's is taken for `deepseek-v3` and GLM's for `glm`. Ask for
another family by its name. Without a template a model takes prompts of text or tokens; messages, and so tools, need
one, and are refused.

{template_only}

So are R1's distillates `deepseek-v3`: their vocabularies, Qwen's and Llama's, lack the tokens that open and end calls,
which are written and read as text.

## Python's words between tags

Qwen3-Coder's and Seed-OSS's templates show an argument that is no string as Python does: `None`, `True`,
`{'a': [1, 'b']}`; a later version of Qwen3-Coder's shows lists and objects as JSON. Parsers of these models (Qwen's
own, vLLM's and mlx-lm's) read both: JSON first, Python's literals where that fails, booleans whatever their case. So
the grammar takes both, quotes of either kind included, and each reads as the same value: what is in the model's
prompt is what it may write. The formats write Python's words, and JSON for lists and objects. LFM2.5's template mixes
the two in the same way, and puts strings between single quotes as they are: one with such a quote in it cannot be read,
and a backslash in it begins one of Python's escapes, as in all parsers. `None` for a string that may be null is null to
us; those parsers read the text.

## Calls in other spellings

Where a call begins as text may (`llama3-json`, `llama4-pythonic`, `cogito-llama`), models write it in more spellings
than their template shows: Llama 3 also writes `{"type": "function", "name": …`, `{"name":"…` and JSON on several lines
(vLLM's issue 46863). Beside tools, text of these families cannot begin with the call's first character, `{` or `[`,
whatever blanks stand before it; behind that character, only a call in the family's spelling follows. Nor can text begin
with `<|python_tag|>` and `<|python_start|>` (vLLM's issue 16214). So no call comes out as text, with `auto` or `none`.

The cost is an answer that is bare JSON: beside tools in `auto`, a model that begins one with `{` is led into a call.
An answer behind a word, or in a Markdown fence, is free; for JSON, ask by `response_format`, which stands beside tools,
or leave the tools out. A text that begins with a list, a link or a footnote in brackets is barred likewise where `[`
opens calls. The receipt says what text cannot begin with.

Phi-4-mini writes `<|tool_call|>[…]<|/tool_call|>` where its own prompt format shows it tools between `<|tool|>` and
`<|/tool|>`. vLLM's template for it has it write `functools[…]`, which is all that vLLM's and SGLang's parsers read.
Which of the two the weights would rather write was not tried. The format takes the former alone; text of `phi4-mini`
beside tools cannot begin with `functools[`, though it may have that in its midst.

## Where a call names its recipient in harmony

gpt-oss writes a call as `<|channel|>commentary to=functions.NAME <|constrain|>json<|message|>`, or with the recipient
before the channel, as ` to=functions.NAME<|channel|>commentary json<|message|>`, which is how its template shows
earlier calls. Where a call is the model's choice, the grammar takes both: at the turn's start, behind the analysis and
behind a preamble, each a token more that the model chooses. Where a call must come, or a decision or the end of the
budget leads to one, it is the former: with both there, what opens the call would not be forced.

Behind the name, each of the two has one way to go on, which is forced: a model that would leave out `<|constrain|>`,
or write it in the other form, is led back. openai-harmony reads all of these.

## The order of Gemma 4's arguments

Its templates sort the members of tools, calls and objects by their names, so its grammar has that order too, in place
of the schema's. Null may be written as `None` too, which is what those templates make of it, and which mlx-lm's parser
does not read. Results stand in the model's own turn, behind the calls, as
`<|tool_response>response:NAME{value:…}<tool_response|>`. Text beside a call would be shown behind its result, so then
the format writes text and call, and the results in a user's message.

## Ids that models write

Kimi K2, Cogito on Llama and Mistral's formats up to v11 write an id with each call. The grammar takes any of the
family's kind; callers get ids of ours in their place. In later turns a call is shown under an id of the family's kind:
where that is a number, as in Kimi K2's `functions.NAME:INDEX`, it counts the calls of the whole conversation from 0 on,
so that no two are alike. It is made anew from the messages: the ids that callers send back need not have that form.

## Adding a family

A family is one object in `engine/grammars/families`, its name in the rows of `engine/grammars/tool_formats.py`, and one
turn in `tests/recorded_turns.py`: an example in the form that the source of the format shows, not a model's own output.
Grammar, parser, prompt, `toolmask inspect`, this page and the tests read these alone. All five files that the last one
took, 25 lines, are shown by `git log -p --pickaxe-all -S'name="cogito-llama"' -- engine tests`.

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
    foot = foot.replace("{templates}", _templates())
    return f"{HEAD}{chr(10).join(rows)}\n\n## Where each format was read\n\n{read}\n{foot}"


def _row(family: ToolFormat, walks: dict[str, Any] | None, through_engine: dict[str, Any] | None) -> str:
    ways = (family, *family.other_ways)
    cells = [
        f"`{family.name}`",
        family.models,
        " or ".join(_code(way.marker) for way in ways),
        " or ".join(_code(f"{way.before_name}NAME{way.before_arguments}…{way.end}") for way in ways),
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


TEMPLATES_HEAD = """## The chat templates that were verified

What these templates of llama.cpp's collection show of a call is put through the grammar token for token and read back:
one argument, several, none, other scripts, markup, all types, several calls. Where a template shows no call, or not
so, the format's own stands in its place. White space behind the last call is no part of the turn.

| template | taken for | vocabulary | calls by the template | but |
|---|---|---|---|---|
"""


def _templates() -> str:
    rows = "".join(map(_row_of_template, TEMPLATES))
    told = " and ".join(BY_VOCABULARY)
    others = f"Taken for `plain`, with formats of their own or none: {', '.join(NOT_OURS)}."
    return (
        f"{TEMPLATES_HEAD}{rows}\nOf {told}, the vocabulary alone tells the family.\n\n"
        f"{textwrap.fill(others, 120, break_on_hyphens=False)}"
    )


def _row_of_template(template: ChatTemplate) -> str:
    calls = ("none", "one", "several")[template.num_calls]
    vocabulary = template.vocabulary or "small"
    return f"| {template.name} | `{template.family}` | {vocabulary} | {calls} | {template.why_not} |\n"


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
