"""The families that write a call's arguments as JSON."""

from dataclasses import replace

from engine.decision_options import DecisionOptions
from engine.grammars.tool_format import Block, CallIds, OtherOpening, Reasoning, ToolFormat
from engine.types import ToolChoiceBy

JSON_NAME, JSON_ARGUMENTS = '{"name": "', '", "arguments": '

PLAIN = ToolFormat(
    name="plain",
    models="any that was never trained for tools",
    source="ours; every marker is ordinary text",
    marker="<tool_call>",
    before_name=f"\n{JSON_NAME}",
    before_arguments=JSON_ARGUMENTS,
    end="}\n</tool_call>",
    separator="\n<tool_call>",
    before_input='"}\n',
    input_end="</tool_call>",
    # Untrained models almost never open a call by themselves. Chosen in docs/accuracy.md.
    decision=DecisionOptions(tool_call_bias=1.25, calibrate=True),
    tool_choice_by=ToolChoiceBy.LIKELIHOOD,  # left to tokens, they call the tool that they are shown first
)

HERMES = ToolFormat(
    name="hermes",
    models="Hermes 2 and 3, Qwen 2.5, Qwen 3, QwQ, Granite 4, Cogito, MiMo, Bielik 3, Reka Edge",
    source="the chat templates of Qwen2.5, Qwen3, Hermes-2-Pro, Hermes-3 and granite-4.0",
    template_signs=("<tool_call>\n", "</tool_call>", '"arguments": ', "tools"),
    tokens=("<tool_call>", "</tool_call>"),
    marker="<tool_call>",
    before_name=f"\n{JSON_NAME}",
    before_arguments=JSON_ARGUMENTS,
    end="}\n</tool_call>",
    separator="\n<tool_call>",
    before_input='"}\n',
    input_end="</tool_call>",
)

SMOLLM3 = ToolFormat(
    name="smollm3",
    models="SmolLM3",
    source="SmolLM3-3B's chat template, as public programs carry it: it asks for calls in Hermes' form",
    template_signs=("<tool_call>", "xml_tools"),
    marker="<tool_call>",
    before_name=f"\n{JSON_NAME}",
    before_arguments=JSON_ARGUMENTS,
    end="}\n</tool_call>",
    separator="\n<tool_call>",
    before_input='"}\n',
    input_end="</tool_call>",
    reasoning=Reasoning(begin="<think>", end="</think>", after="\n"),
)

LLAMA3 = ToolFormat(
    name="llama3-json",
    models="Llama 3.1, 3.2 and 3.3; Llama 4 by its own template",
    source="the chat templates of Llama-3.1-8B-Instruct, Llama-3.2-3B-Instruct and Llama-4-Scout",
    template_signs=('"parameters": ', "ipython"),
    marker='{"name": "',
    before_arguments='", "parameters": ',
    end="}",
    parallel=False,  # the template: "This model only supports single tool-calls at once!"
    calls_are_all=True,
    other_markers=("<|python_tag|>",),
)

LLAMA3_PYTHON_TAG = ToolFormat(
    name="llama3-python-tag",
    models="Llama 3.1 to 3.3 where they are told to begin calls so; by name only",
    source="Llama 3.1's model card: <|python_tag|> begins what is to be run",
    marker="<|python_tag|>",
    before_name=JSON_NAME,
    before_arguments='", "parameters": ',
    end="}",
    parallel=False,
)

MISTRAL_IDS = CallIds(pattern="[a-zA-Z0-9]{9}", written="{digest}", history="{digest}")

MISTRAL_V7 = ToolFormat(
    name="mistral-v7",
    models="Mistral with tekken tokenizers up to v7: Nemo, Small 3.0 and 3.1",
    source="mistral-common's instruct tokenizers v3 and v7, and Mistral-Nemo-Instruct-2407's chat template",
    template_signs=("[TOOL_CALLS]",),
    tokens=("[TOOL_CALLS]",),
    tekken_versions=("v3", "v7"),
    marker="[TOOL_CALLS]",
    calls_begin="[",
    before_name=JSON_NAME,
    before_arguments=JSON_ARGUMENTS,
    end=', "id": "{id}"}',
    separator=", ",
    calls_end="]",
    call_ids=MISTRAL_IDS,
    reasoning=None,
)

MISTRAL_V3 = replace(
    MISTRAL_V7,
    name="mistral-v3",
    models="Mistral with SentencePiece tokenizers: Mistral 7B v0.3, Mixtral 8x22B, Mistral Large 2",
    template_signs=("[TOOL_CALLS] [",),
    tokens=(),
    tekken_versions=(),
    calls_begin=" [",
)

MISTRAL_V11 = ToolFormat(
    name="mistral-v11",
    models="Mistral with tokenizer v11: Mistral Small 3.2, Magistral 2506",
    source="mistral-common's instruct tokenizer v11, and Mistral-Small-3.2's chat template; Magistral 2506's system "
    "prompt has it reason between <think> tags",
    template_signs=("[TOOL_CALLS]", "[CALL_ID]", "[ARGS]"),
    tekken_versions=("v11",),
    marker="[TOOL_CALLS]",
    before_arguments="[CALL_ID]{id}[ARGS]",
    end="",
    separator="[TOOL_CALLS]",
    call_ids=MISTRAL_IDS,
)

MISTRAL = ToolFormat(
    name="mistral",
    models="Mistral with tokenizer v13 and later: Magistral, Devstral, Ministral 3",
    source="mistral-common's instruct tokenizers v13 and v15, and Devstral's and Ministral 3's chat templates",
    template_signs=("[TOOL_CALLS]", "[ARGS]"),
    tokens=("[TOOL_CALLS]", "[ARGS]"),
    tekken_versions=("v13", "v15"),
    marker="[TOOL_CALLS]",
    before_arguments="[ARGS]",
    end="",
    separator="[TOOL_CALLS]",
    call_ids=MISTRAL_IDS,
    reasoning=Reasoning(begin="[THINK]", end="[/THINK]"),
)

HARMONY = ToolFormat(
    name="harmony",
    models="gpt-oss",
    source="OpenAI's harmony format page and gpt-oss's chat template; openai-harmony reads such turns back",
    template_signs=("<|channel|>", "commentary"),
    tokens=("<|channel|>", "<|message|>", "<|constrain|>", "<|call|>"),
    marker="<|channel|>commentary to=functions.",
    before_arguments=" <|constrain|>json<|message|>",
    end="",  # <|call|> ends the turn
    # By the recipient in the message's role: so gpt-oss's template shows earlier calls.
    other_openings=(OtherOpening(" to=functions.", "<|channel|>commentary json<|message|>"),),
    parallel=False,
    text_begin="<|channel|>final<|message|>",
    preamble=Block(begin="<|channel|>commentary<|message|>", end="<|end|>", after="<|start|>assistant"),
    reasoning=Reasoning(
        begin="<|channel|>analysis<|message|>",
        end="<|end|>",
        after="<|start|>assistant",
        history_key="thinking",
        has_own_end=False,  # so ends every message before the turn
    ),
)

DEEPSEEK_V3 = ToolFormat(
    name="deepseek-v3",
    models="DeepSeek V3 and R1, and by their chat template R1's distillates, in whose vocabulary the markers are text",
    source="the chat templates of DeepSeek-V3 and DeepSeek-R1",
    template_signs=("<｜tool▁calls▁begin｜>", "```json"),
    tokens=(
        "<｜tool▁calls▁begin｜>",
        "<｜tool▁call▁begin｜>",
        "<｜tool▁sep｜>",
        "<｜tool▁call▁end｜>",
        "<｜tool▁calls▁end｜>",
    ),
    marker="<｜tool▁calls▁begin｜>",
    calls_begin="<｜tool▁call▁begin｜>",
    before_name="function<｜tool▁sep｜>",
    before_arguments="\n```json\n",
    end="\n```<｜tool▁call▁end｜>",
    separator="\n<｜tool▁call▁begin｜>",
    calls_end="<｜tool▁calls▁end｜>",
    before_input="\n```\n",
    input_end="<｜tool▁call▁end｜>",
)

DEEPSEEK_V31 = ToolFormat(
    name="deepseek-v3.1",
    models="DeepSeek V3.1",
    source="DeepSeek-V3.1's chat template",
    template_signs=("<｜tool▁calls▁begin｜>", "</think>", "thinking"),
    marker="<｜tool▁calls▁begin｜>",
    calls_begin="<｜tool▁call▁begin｜>",
    before_arguments="<｜tool▁sep｜>",
    end="<｜tool▁call▁end｜>",
    separator="<｜tool▁call▁begin｜>",
    calls_end="<｜tool▁calls▁end｜>",
    before_input="<｜tool▁sep｜>",
    input_end="<｜tool▁call▁end｜>",
    reasoning=Reasoning(begin="<think>", end="</think>"),
)

KIMI_K2 = ToolFormat(
    name="kimi-k2",
    models="Kimi K2",
    source="Kimi-K2-Instruct's chat template and tool call page, and mlx-lm's tool parser",
    template_signs=("<|tool_calls_section_begin|>",),
    tokens=(
        "<|tool_calls_section_begin|>",
        "<|tool_call_begin|>",
        "<|tool_call_argument_begin|>",
        "<|tool_call_end|>",
        "<|tool_calls_section_end|>",
    ),
    marker="<|tool_calls_section_begin|>",
    calls_begin="<|tool_call_begin|>",
    before_name="functions.",
    before_arguments=":{id}<|tool_call_argument_begin|>",
    end="<|tool_call_end|>",
    separator="<|tool_call_begin|>",
    calls_end="<|tool_calls_section_end|>",
    before_input=":{id}<|tool_call_argument_begin|>",
    input_end="<|tool_call_end|>",
    call_ids=CallIds(pattern="[0-9]{1,4}", written="{index}", history="functions.{name}:{index}"),
    reasoning=Reasoning(begin="<think>", end="</think>"),
)

PHI4 = ToolFormat(
    name="phi4-mini",
    models="Phi-4-mini",
    source="public descriptions of Phi-4-mini-instruct's format; its own chat template could not be read",
    template_signs=("<|tool|>", "<|/tool|>"),
    tokens=("<|tool_call|>", "<|/tool_call|>", "<|tool|>"),
    marker="<|tool_call|>",
    calls_begin="[",
    before_name=JSON_NAME,
    before_arguments=JSON_ARGUMENTS,
    end="}",
    separator=", ",
    calls_end="]<|/tool_call|>",
    other_markers=("functools[",),  # where a prompt tells it to call so, as vLLM's template for it does
)

GRANITE = ToolFormat(
    name="granite",
    models="Granite 3.0 and 3.3, vision models of 3.2",
    source="the chat templates of granite-3.0-2b-instruct and granite-3.3-2b-instruct, and vLLM's parser for 3.0",
    template_signs=("<|tool_call|>", "<|start_of_role|>"),
    tokens=("<|tool_call|>", "<|start_of_role|>"),
    marker="<|tool_call|>",
    calls_begin="[",
    before_name=JSON_NAME,
    before_arguments=JSON_ARGUMENTS,
    end="}",
    separator=", ",
    calls_end="]",
    reasoning=Reasoning(begin="<think>", end="</think>", after="<response>", answer_end="</response>"),  # of 3.3
)

GRANITE_31 = replace(
    GRANITE,
    name="granite-3.1",
    models="Granite 3.1 and 3.2",
    source="vLLM's parser, and its pull request 11307: these models write the text <tool_call>, not the token",
    template_signs=("<|tool_call|>", "<|start_of_role|>tools<|end_of_role|>"),
    tokens=(),
    marker="<tool_call>",
    reasoning=Reasoning(begin="Here is my thought process:", end="Here is my response:", after="\n\n"),  # of 3.2
)

COGITO = ToolFormat(
    name="cogito-llama",
    models="Cogito v1 on Llama: 3B, 8B, 70B",
    source="the chat template of cogito-v1-preview-llama-3B",
    template_signs=("Available Tools:", '"call_id": "'),
    marker='[{"name": "',
    before_arguments=JSON_ARGUMENTS,
    end=', "id": "{id}"}',
    separator=', {"name": "',
    calls_end="]",
    call_ids=CallIds(pattern="[a-zA-Z0-9_-]{1,40}", written="call_{index}", history="call_{index}"),
    calls_are_all=True,
)
