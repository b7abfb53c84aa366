"""The families that write a call's arguments between tags."""

from engine.grammars.encoders.literal_style import PYTHON
from engine.grammars.encoders.tagged import TaggedArguments
from engine.grammars.tool_format import Reasoning, ToolFormat

QWEN3_CODER = ToolFormat(
    name="qwen3-coder",
    models="Qwen3-Coder, Qwen 3.5 and later, Nemotron 3 Nano, Step 3.5",
    source="Qwen3-Coder-30B-A3B-Instruct's chat template and tool parser, and Qwen 3.5's chat template",
    template_signs=("<tool_call>", "<function=", "<parameter="),
    marker="<tool_call>",
    before_name="\n<function=",
    before_arguments=">\n",
    end="</function>\n</tool_call>",
    separator="\n<tool_call>",
    arguments=TaggedArguments(
        key_begin="<parameter=",
        key_end=">\n",
        value_end="\n</parameter>\n",
        close_tag="</parameter>",
        others=PYTHON,  # one version of the template writes Python all through, another has JSON for lists and objects
    ),
    before_input=">\n<parameter=input>\n",
    input_end="\n</parameter>\n",
    after_input="</function>\n</tool_call>",
)

GLM = ToolFormat(
    name="glm",
    models="GLM 4.5, 4.6, Laguna XS, Ling 3.0",
    source="the chat templates of GLM-4.5 and GLM-4.6",
    template_signs=("<arg_key>", "<arg_value>"),
    tokens=("<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>", "<tool_call>", "</tool_call>"),
    marker="<tool_call>",
    before_arguments="\n",
    end="</tool_call>",
    separator="\n<tool_call>",
    arguments=TaggedArguments(
        key_begin="<arg_key>",
        key_end="</arg_key>\n<arg_value>",
        value_end="</arg_value>\n",
        close_tag="</arg_value>",
    ),
    before_input="\n<arg_key>input</arg_key>\n<arg_value>",
    input_end="</arg_value>",
    after_input="\n</tool_call>",
    reasoning=Reasoning(begin="\n<think>", end="</think>", after="\n"),
)

GLM47 = ToolFormat(
    name="glm-4.7",
    models="GLM 4.7 and later, which write no newlines between tags; Laguna S, Spark 2.5",
    source="GLM-4.7-Flash's chat template; SGLang's pull request 15520",
    template_signs=("<arg_key>", "</arg_key><arg_value>"),
    marker="<tool_call>",
    before_arguments="",
    end="</tool_call>",
    separator="<tool_call>",
    arguments=TaggedArguments(
        key_begin="<arg_key>",
        key_end="</arg_key><arg_value>",
        value_end="</arg_value>",
        close_tag="</arg_value>",
    ),
    before_input="<arg_key>input</arg_key><arg_value>",
    input_end="</arg_value>",
    after_input="</tool_call>",
    reasoning=Reasoning(begin="<think>", end="</think>"),
)

MINIMAX = ToolFormat(
    name="minimax",
    models="MiniMax M2",
    source="MiniMax-M2's chat template",
    template_signs=("minimax:tool_call", "<invoke name="),
    tokens=("<minimax:tool_call>", "</minimax:tool_call>"),
    marker="<minimax:tool_call>",
    before_name='\n<invoke name="',
    before_arguments='">\n',
    end="</invoke>",
    calls_end="\n</minimax:tool_call>",
    arguments=TaggedArguments(
        key_begin='<parameter name="', key_end='">', value_end="</parameter>\n", close_tag="</parameter>"
    ),
    before_input='">\n<parameter name="input">',
    input_end="</parameter>\n",
    after_input="</invoke>",
)

SEED_OSS = ToolFormat(
    name="seed-oss",
    models="Seed-OSS",
    source="Seed-OSS-36B-Instruct's chat template",
    template_signs=("<seed:tool_call>", "<function=", "<parameter="),
    tokens=("<seed:tool_call>", "</seed:tool_call>", "<seed:think>", "</seed:think>"),
    marker="<seed:tool_call>",
    before_name="\n<function=",
    before_arguments=">\n",
    end="</function>\n</seed:tool_call>",
    separator="\n<seed:tool_call>",
    arguments=TaggedArguments(
        key_begin="<parameter=",
        key_end=">",
        value_end="</parameter>\n",
        close_tag="</parameter>",
        others=PYTHON,
    ),
    before_input=">\n<parameter=input>",
    input_end="</parameter>\n",
    after_input="</function>\n</seed:tool_call>",
    reasoning=Reasoning(begin="<seed:think>", end="</seed:think>", after="\n"),
)
