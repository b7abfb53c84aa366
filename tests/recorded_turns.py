"""One turn of each family, in the form that its maker's page or template shows: a family is an object and one of these.

They are examples made for the tests' tools, recorded here once; no model has written them.
"""

from dataclasses import dataclass
from typing import Any

from engine.grammars.tool_format import Opening, ToolFormat
from engine.grammars.tool_formats import (
    COGITO,
    DEEPSEEK_V3,
    DEEPSEEK_V31,
    FUNCTION_GEMMA,
    GEMMA4,
    GLM,
    GLM47,
    GRANITE,
    GRANITE_31,
    HARMONY,
    HERMES,
    KIMI_K2,
    LFM2,
    LLAMA3,
    LLAMA3_PYTHON_TAG,
    LLAMA4,
    MINIMAX,
    MISTRAL,
    MISTRAL_V3,
    MISTRAL_V7,
    MISTRAL_V11,
    PHI4,
    PLAIN,
    QWEN3_CODER,
    SEED_OSS,
    SMOLLM3,
)
from engine.types import Tool

STRING = {"type": "string"}
WEATHER = Tool(
    "get_weather",
    "The weather in a city.",
    {"type": "object", "properties": {"city": STRING, "days": {"type": "integer"}}, "required": ["city"]},
)
CLOCK = Tool("get_time", "The time in a zone.", {"type": "object", "properties": {"zone": STRING}})
PARIS: tuple[str, dict[str, Any]] = ("get_weather", {"city": "Paris"})
PARIS_3: tuple[str, dict[str, Any]] = ("get_weather", {"city": "Paris", "days": 3})
CET: tuple[str, dict[str, Any]] = ("get_time", {"zone": "CET"})
STORE = Tool(
    "store",
    "Keeps things.",
    {
        "type": "object",
        "properties": {
            "text": STRING,
            "count": {"type": "integer"},
            "ratio": {"type": "number"},
            "yes": {"type": "boolean"},
            "no": {"type": "boolean"},
            "nothing": {"type": "null"},
            "maybe": {"anyOf": [STRING, {"type": "null"}]},
            "tags": {"type": "array"},
            "at": {"type": "object"},
        },
    },
)
ALL_TYPES: dict[str, Any] = {
    "text": '日本 "naïve" it\'s\n</x> {y} 😀',
    "count": -3,
    "ratio": 2.5,
    "yes": True,
    "no": False,
    "nothing": None,
    "maybe": None,
    "tags": ["a", 1, True, None, ["it's", {}]],
    "at": {"k": "v", "l": {"m": [False]}},
}


@dataclass(frozen=True)
class RecordedTurn:
    """An example of a turn with special tokens spelled as they stand in the vocabulary, and what it means."""

    family: ToolFormat
    text: str
    calls: tuple[tuple[str, dict[str, Any]], ...]
    said: str = ""
    thought: str = ""
    opening: Opening = Opening.BEFORE


RECORDED = (
    RecordedTurn(
        PLAIN,
        'Let me see.\n<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>',
        (PARIS,),
        said="Let me see.\n",
    ),
    RecordedTurn(
        HERMES,
        "<think>\nBoth are needed.\n</think>\n\n"
        '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris", "days": 3}}\n</tool_call>\n'
        '<tool_call>\n{"name": "get_time", "arguments": {"zone": "CET"}}\n</tool_call>',
        (PARIS_3, CET),
        thought="Both are needed.",
    ),
    RecordedTurn(
        SMOLLM3,
        '<think>\n\n</think>\n<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>',
        (PARIS,),
    ),
    RecordedTurn(
        QWEN3_CODER,
        "I will look.\n<tool_call>\n<function=get_weather>\n<parameter=city>\nParis\n</parameter>\n"
        "<parameter=days>\n3\n</parameter>\n</function>\n</tool_call>\n"
        "<tool_call>\n<function=get_time>\n<parameter=zone>\nCET\n</parameter>\n</function>\n</tool_call>",
        (PARIS_3, CET),
        said="I will look.\n",
    ),
    RecordedTurn(
        GLM,
        "\n<think>Look it up.</think>\nI will look.\n"
        "<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>Paris</arg_value>\n"
        "<arg_key>days</arg_key>\n<arg_value>3</arg_value>\n</tool_call>",
        (PARIS_3,),
        said="I will look.\n",
        thought="Look it up.",
    ),
    RecordedTurn(
        GLM47,
        "Look it up.</think>I will look."
        "<tool_call>get_weather<arg_key>city</arg_key><arg_value>Paris</arg_value>"
        "<arg_key>days</arg_key><arg_value>3</arg_value></tool_call>"
        "<tool_call>get_time<arg_key>zone</arg_key><arg_value>CET</arg_value></tool_call>",
        (PARIS_3, CET),
        said="I will look.",
        thought="Look it up.",
        opening=Opening.INSIDE,
    ),
    RecordedTurn(
        MINIMAX,
        "Look it up.\n</think>\n\n<minimax:tool_call>\n"
        '<invoke name="get_weather">\n<parameter name="city">Paris</parameter>\n<parameter name="days">3</parameter>\n'
        '</invoke>\n<invoke name="get_time">\n<parameter name="zone">CET</parameter>\n</invoke>\n</minimax:tool_call>',
        (PARIS_3, CET),
        thought="Look it up.",
        opening=Opening.INSIDE,
    ),
    RecordedTurn(LLAMA3, '{"name": "get_weather", "parameters": {"city": "Paris", "days": 3}}', (PARIS_3,)),
    RecordedTurn(LLAMA3_PYTHON_TAG, '<|python_tag|>{"name": "get_weather", "parameters": {"city": "Paris"}}', (PARIS,)),
    RecordedTurn(
        COGITO,
        '[{"name": "get_weather", "arguments": {"city": "Paris"}, "id": "call_1"}, '
        '{"name": "get_time", "arguments": {"zone": "CET"}, "id": "call_2"}]',
        (PARIS, CET),
    ),
    RecordedTurn(LLAMA4, '[get_weather(city="Paris", days=3), get_time(zone="CET")]', (PARIS_3, CET)),
    RecordedTurn(
        LFM2,
        'One moment.<|tool_call_start|>[get_weather(city="Paris", days=3)]<|tool_call_end|>',
        (PARIS_3,),
        said="One moment.",
    ),
    RecordedTurn(
        MISTRAL_V3,
        '[TOOL_CALLS] [{"name": "get_weather", "arguments": {"city": "Paris"}, "id": "VvvODy9mT"}]',
        (PARIS,),
        opening=Opening.NONE,
    ),
    RecordedTurn(
        MISTRAL_V7,
        '[TOOL_CALLS][{"name": "get_weather", "arguments": {"city": "Paris"}, "id": "VvvODy9mT"}, '
        '{"name": "get_time", "arguments": {"zone": "CET"}, "id": "0UmPPrRH3"}]',
        (PARIS, CET),
        opening=Opening.NONE,
    ),
    RecordedTurn(
        MISTRAL_V11,
        '[TOOL_CALLS]get_weather[CALL_ID]VvvODy9mT[ARGS]{"city": "Paris"}',
        (PARIS,),
        opening=Opening.NONE,
    ),
    RecordedTurn(
        MISTRAL,
        '[THINK]Both are needed.[/THINK][TOOL_CALLS]get_weather[ARGS]{"city": "Paris", "days": 3}'
        '[TOOL_CALLS]get_time[ARGS]{"zone": "CET"}',
        (PARIS_3, CET),
        thought="Both are needed.",
    ),
    RecordedTurn(
        HARMONY,
        "<|channel|>analysis<|message|>Look it up.<|end|><|start|>assistant"
        '<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>{"city": "Paris", "days": 3}',
        (PARIS_3,),
        thought="Look it up.",
    ),
    RecordedTurn(  # as gpt-oss's template shows it
        HARMONY,
        "<|channel|>analysis<|message|>Look it up.<|end|><|start|>assistant"
        ' to=functions.get_weather<|channel|>commentary json<|message|>{"city": "Paris", "days": 3}',
        (PARIS_3,),
        thought="Look it up.",
    ),
    RecordedTurn(
        HARMONY,
        "<|channel|>commentary<|message|>Let me see.<|end|><|start|>assistant"
        ' to=functions.get_weather<|channel|>commentary json<|message|>{"city": "Paris"}',
        (PARIS,),
        said="Let me see.",
    ),
    RecordedTurn(
        GEMMA4,
        '<|tool_call>call:get_weather{city:<|"|>Paris<|"|>,days:3}<tool_call|>',
        (PARIS_3,),
        opening=Opening.NONE,
    ),
    RecordedTurn(
        FUNCTION_GEMMA,
        "<start_function_call>call:get_weather{city:<escape>Paris<escape>}<end_function_call>",
        (PARIS,),
        opening=Opening.NONE,
    ),
    RecordedTurn(
        DEEPSEEK_V3,
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather\n"
        '```json\n{"city": "Paris"}\n```<｜tool▁call▁end｜>\n'
        "<｜tool▁call▁begin｜>function<｜tool▁sep｜>get_time\n"
        '```json\n{"zone": "CET"}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>',
        (PARIS, CET),
        opening=Opening.NONE,
    ),
    RecordedTurn(
        DEEPSEEK_V31,
        'I will look.<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>get_weather<｜tool▁sep｜>{"city": "Paris"}'
        '<｜tool▁call▁end｜><｜tool▁call▁begin｜>get_time<｜tool▁sep｜>{"zone": "CET"}<｜tool▁call▁end｜>'
        "<｜tool▁calls▁end｜>",
        (PARIS, CET),
        said="I will look.",
        opening=Opening.NONE,
    ),
    RecordedTurn(
        KIMI_K2,
        "I will look.<|tool_calls_section_begin|>"
        '<|tool_call_begin|>functions.get_weather:0<|tool_call_argument_begin|>{"city": "Paris"}<|tool_call_end|>'
        '<|tool_call_begin|>functions.get_time:1<|tool_call_argument_begin|>{"zone": "CET"}<|tool_call_end|>'
        "<|tool_calls_section_end|>",
        (PARIS, CET),
        said="I will look.",
    ),
    RecordedTurn(
        GRANITE,
        '<|tool_call|>[{"name": "get_weather", "arguments": {"city": "Paris"}}]',
        (PARIS,),
        opening=Opening.NONE,
    ),
    RecordedTurn(
        GRANITE_31,
        '<tool_call>[{"name": "get_weather", "arguments": {"city": "Paris"}}]',
        (PARIS,),
        opening=Opening.NONE,
    ),
    RecordedTurn(
        PHI4, '<|tool_call|>[{"name": "get_weather", "arguments": {"city": "Paris"}}]<|/tool_call|>', (PARIS,)
    ),
    RecordedTurn(
        SEED_OSS,
        "<seed:think>Look it up.</seed:think>\n<seed:tool_call>\n<function=get_weather>\n"
        "<parameter=city>Paris</parameter>\n<parameter=days>3</parameter>\n</function>\n</seed:tool_call>",
        (PARIS_3,),
        thought="Look it up.",
    ),
)
