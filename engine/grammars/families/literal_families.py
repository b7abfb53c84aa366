"""The families that write a call's arguments as literals: Python's, or Gemma's."""

from engine.grammars.encoders.literal import LiteralArguments
from engine.grammars.encoders.literal_style import PYTHON, LiteralStyle
from engine.grammars.tool_format import Reasoning, ToolFormat

PYTHONIC = LiteralArguments(values=PYTHON, equals="=", close=")")

LLAMA4 = ToolFormat(
    name="llama4-pythonic",
    models="Llama 4 and Llama 3.2 where they are told to write Python",
    source="Llama 4's prompt format page, and the pythonic template that vLLM ships for it",
    template_signs=("[func_name1(",),
    marker="[",
    before_arguments="(",
    end=")",
    separator=", ",
    calls_end="]",
    arguments=PYTHONIC,
    calls_are_all=True,
    other_markers=("<|python_start|>",),  # vLLM's issue 16214: some turns have it before the calls
)

LFM2 = ToolFormat(
    name="lfm2",
    models="LFM2, LFM2.5",
    source="LFM2's model card and LFM2.5-8B-A1B's chat template",
    template_signs=("<|tool_call_start|>",),
    tokens=("<|tool_call_start|>", "<|tool_call_end|>"),
    marker="<|tool_call_start|>",
    calls_begin="[",
    before_arguments="(",
    end=")",
    separator=", ",
    calls_end="]<|tool_call_end|>",
    arguments=PYTHONIC,
    reasoning=Reasoning(begin="<think>", end="</think>", history_key="thinking"),
)

GEMMA4 = ToolFormat(
    name="gemma4",
    models="Gemma 4",
    source="gemma-4-31B-it's chat templates",
    template_signs=("<|tool_call>", "<tool_call|>"),
    tokens=("<|tool_call>", "<tool_call|>", '<|"|>', "<|channel>", "<channel|>"),
    marker="<|tool_call>",
    before_name="call:",
    before_arguments="{",
    end="}<tool_call|>",
    separator="<|tool_call>",
    arguments=LiteralArguments(
        values=LiteralStyle(
            separator=",",
            equals=":",
            true="true",
            false="false",
            null="null",
            quote='<|"|>',
            other_null="None",
            sorted_keys=True,
        ),
        equals=":",
        close="}",
    ),
    reasoning=Reasoning(begin="<|channel>thought\n", end="<channel|>"),
    response_begin='<|tool_response>response:{name}{value:<|"|>',
    response_end='<|"|>}<tool_response|>',
)

FUNCTION_GEMMA = ToolFormat(
    name="function-gemma",
    models="FunctionGemma",
    source="FunctionGemma's formatting page and mlx-lm's tool parser",
    template_signs=("<start_function_call>", "<escape>"),
    tokens=("<start_function_call>", "<end_function_call>", "<escape>"),
    marker="<start_function_call>",
    before_name="call:",
    before_arguments="{",
    end="}<end_function_call>",
    separator="<start_function_call>",
    arguments=LiteralArguments(
        values=LiteralStyle(separator=",", equals=":", true="true", false="false", null="null", quote="<escape>"),
        equals=":",
        close="}",
    ),
    reasoning=None,
)
