"""All families, and how a model's one is seen from its chat template and vocabulary. A new family is a new row.

The order is that of detection: of two whose signs are all there, the first one counts.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass

from engine.errors import ConfigError
from engine.grammars.families.json_families import (
    COGITO,
    DEEPSEEK_V3,
    DEEPSEEK_V31,
    GRANITE,
    GRANITE_31,
    HARMONY,
    HERMES,
    KIMI_K2,
    LLAMA3,
    LLAMA3_PYTHON_TAG,
    MISTRAL,
    MISTRAL_V3,
    MISTRAL_V7,
    MISTRAL_V11,
    PHI4,
    PLAIN,
    SMOLLM3,
)
from engine.grammars.families.literal_families import FUNCTION_GEMMA, GEMMA4, LFM2, LLAMA4
from engine.grammars.families.tagged_families import GLM, GLM47, MINIMAX, QWEN3_CODER, SEED_OSS
from engine.grammars.tool_format import ToolFormat

TOOL_FORMATS = (
    QWEN3_CODER,
    GLM47,
    GLM,
    SMOLLM3,
    HERMES,
    MINIMAX,
    SEED_OSS,
    LLAMA4,
    COGITO,
    LLAMA3,
    LFM2,
    MISTRAL_V11,
    MISTRAL,
    MISTRAL_V3,
    MISTRAL_V7,
    HARMONY,
    GEMMA4,
    FUNCTION_GEMMA,
    DEEPSEEK_V3,
    DEEPSEEK_V31,
    KIMI_K2,
    GRANITE_31,
    GRANITE,
    PHI4,
    LLAMA3_PYTHON_TAG,
    PLAIN,
)

# Two of a template's strings with nothing between them in what it renders, and quotes that a string escapes.
JOINED = re.compile(r"""["']\s*(?:-\}\}\s*\{\{-?|\}\}\s*\{\{-)\s*["']""")
OWN_CALLS = "tool_calls"  # of a message: a template that reads them writes calls in a format of its own


@dataclass(frozen=True, slots=True)
class Detected:
    """Which family a model is of, and by what that was seen."""

    family: ToolFormat
    why: str


def detect(chat_template: str | None, vocabulary: Collection[str] = (), tekken_version: str | None = None) -> Detected:
    """The family whose signs are in the chat template; else the one whose tokens are in the vocabulary; else plain.

    A template that writes calls in a way that is no family's has the last word: models of other formats share the
    tokens of ours. vocabulary: the spellings of the added tokens. tekken_version: of the tokenizer, where it came as
    tekken.json; of Mistral's formats, it tells more than the vocabulary.
    """
    template = _as_rendered(chat_template or "")
    for family in TOOL_FORMATS:
        if family.template_signs and all(sign in template for sign in family.template_signs):
            return Detected(family, f"the chat template has {' and '.join(map(repr, family.template_signs))}")
    if OWN_CALLS in template:
        return Detected(PLAIN, "the chat template writes calls in a format that is no family's here")
    for family in TOOL_FORMATS:
        if tekken_version in family.tekken_versions:
            return Detected(family, f"tekken.json is of version {tekken_version}")
    for family in TOOL_FORMATS:
        if family.tokens and all(token in vocabulary for token in family.tokens):
            return Detected(family, f"the vocabulary has {' and '.join(family.tokens)}")
    return Detected(PLAIN, "neither the chat template nor the vocabulary has the signs of a family that calls tools")


def _as_rendered(template: str) -> str:
    """The template with its strings nearer to what they write: newlines, quotes, neighbours joined."""
    return JOINED.sub("", template.replace("\\n", "\n").replace('\\"', '"'))


def format_named(name: str) -> ToolFormat:
    """Raises ConfigError for a name that no family has."""
    for family in TOOL_FORMATS:
        if family.name == name:
            return family
    known = ", ".join(family.name for family in TOOL_FORMATS)
    raise ConfigError(f"tool_format is {name!r}; it must be one of {known}")
