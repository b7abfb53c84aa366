"""What is known of the chat templates in llama.cpp's collection: each model's family, and what ends its turns.

`docs/families.md` shows this table; tests/test_chat_templates.py holds it to be true.
"""

from dataclasses import dataclass

from engine.template_skills import TemplateSkills, skills_of
from engine.tokenizer import Tokenizer
from tests.families import FAMILIES, small_vocabulary
from tests.material import more_templates, real_tokenizer

SANDBOX = "transformers does not let it change the list of ids that it keeps"
CUT = "it leaves out the calls, or the end of the last one"
NO_CALLS = "it knows no earlier calls"
JOINED = "it writes no newline between calls"
UNLIKE_ASKED = "it writes no newline between arguments, though it asks for one"
UNESCAPED = "strings with a quote stand in it as they are, and do not read back"
ONE = "its models call once a turn"


@dataclass(frozen=True)
class ChatTemplate:
    """One template of a family that we have."""

    name: str
    family: str
    end: str = "<|im_end|>"  # of a turn that calls
    vocabulary: str = ""  # the model's own, where it is at hand; else a small one with the family's tokens
    num_calls: int = 2  # of one turn, that it shows as the grammar takes them
    why_not: str = ""  # why it is not more
    cannot: tuple[str, ...] = ()  # the names of the calls that it shows otherwise

    def __str__(self) -> str:
        return self.name

    @property
    def tokenizer(self) -> Tokenizer:
        own = real_tokenizer(self.vocabulary) if self.vocabulary else small_vocabulary(self.family, self.end)
        own.backend_json()  # once, for all that share the vocabulary
        return own.with_template(more_templates()[self.name])

    def skills(self) -> TemplateSkills:
        return skills_of(self.tokenizer, FAMILIES[self.family])


T = ChatTemplate
TEMPLATES = (
    T("Bielik-11B-v3.0-Instruct", "hermes"),
    T("ByteDance-Seed-OSS", "seed-oss", "<seed:eos>"),
    T("GLM-4.6", "glm", "<|observation|>"),
    T("GLM-4.7-Flash", "glm-4.7", "<|observation|>"),
    T("Kimi-K2-Instruct", "kimi-k2", num_calls=0, why_not=SANDBOX),
    T("Kimi-K2-Thinking", "kimi-k2", num_calls=0, why_not=SANDBOX),
    T("LFM2-8B-A1B", "lfm2", num_calls=0, why_not=NO_CALLS),
    T("LFM2.5-8B-A1B", "lfm2", why_not=UNESCAPED, cannot=("markup", "all types")),
    T("LFM2.5-Instruct", "lfm2", num_calls=0, why_not=NO_CALLS),
    T("MiMo-VL", "hermes"),
    T("MiniMax-M2", "minimax", "[e~["),
    T("Mistral-Small-3.2-24B-Instruct-2506", "mistral-v11", vocabulary="tekken"),
    T("NVIDIA-Nemotron-3-Nano-30B-A3B-BF16", "qwen3-coder"),
    T("NousResearch-Hermes-2-Pro-Llama-3-8B-tool_use", "hermes"),
    T("NousResearch-Hermes-3-Llama-3.1-8B-tool_use", "hermes"),
    T("Qwen-QwQ-32B", "hermes", vocabulary="qwen3"),
    T("Qwen-Qwen2.5-7B-Instruct", "hermes", vocabulary="qwen3"),
    T("Qwen-Qwen3-0.6B", "hermes", vocabulary="qwen3"),
    T("Qwen3-Coder", "qwen3-coder", vocabulary="qwen3"),
    T("Qwen3.5-4B", "qwen3-coder", vocabulary="qwen3.5"),
    T(
        "Reka-Edge",
        "hermes",
        "<sep>",
        num_calls=1,
        why_not=f"{JOINED}, and escapes what is not ASCII",
        cannot=("unicode", "all types"),
    ),
    T("Spark2.5", "glm-4.7", "<｜end▁of▁sentence｜>"),
    T("StepFun3.5-Flash", "qwen3-coder", num_calls=1, why_not=JOINED),
    T("deepseek-ai-DeepSeek-R1-Distill-Llama-8B", "deepseek-v3", vocabulary="r1-qwen", num_calls=0, why_not=CUT),
    T("deepseek-ai-DeepSeek-R1-Distill-Qwen-32B", "deepseek-v3", vocabulary="r1-qwen"),
    T("deepseek-ai-DeepSeek-V3.1", "deepseek-v3.1", vocabulary="deepseek_v3"),
    T("google-gemma-4-31B-it", "gemma4", "<|tool_response>"),
    T("google-gemma-4-31B-it-interleaved", "gemma4", "<|tool_response>"),
    T("ibm-granite-granite-3.3-2B-Instruct", "granite", "<|end_of_text|>", num_calls=0, why_not=NO_CALLS),
    T("ibm-granite-granite-4.0", "hermes", "<|end_of_text|>"),
    T("ibm-granite-granite-4.1", "hermes", "<|end_of_text|>"),
    T("inclusionai-ling-3.0-flash", "glm", "<|role_end|>", num_calls=0, why_not=UNLIKE_ASKED),
    T("llama-cpp-deepseek-r1", "deepseek-v3", vocabulary="deepseek_v3"),
    T("meta-llama-Llama-3.1-8B-Instruct", "llama3-json", vocabulary="llama3", num_calls=1, why_not=ONE),
    T("meta-llama-Llama-3.2-3B-Instruct", "llama3-json", vocabulary="llama3", num_calls=1, why_not=ONE),
    T("meta-llama-Llama-3.3-70B-Instruct", "llama3-json", vocabulary="llama3", num_calls=1, why_not=ONE),
    T("mistralai-Ministral-3-14B-Reasoning-2512", "mistral", vocabulary="tekken"),
    T("mistralai-Mistral-Nemo-Instruct-2407", "mistral-v7", vocabulary="tekken"),
    T("moonshotai-Kimi-K2", "kimi-k2"),
    T("openai-gpt-oss-120b", "harmony", vocabulary="gptoss", num_calls=1, why_not=ONE),
    T("poolside-Laguna-S-2.1", "glm-4.7", "</assistant>"),
    T("poolside-Laguna-XS-2.1", "glm", "</assistant>"),
    T("poolside-Laguna-XS.2", "glm", "</assistant>"),
    T("unsloth-mistral-Devstral-Small-2507", "mistral", vocabulary="tekken"),
)
NOT_OURS = (  # taken for plain: another format, or none that calls
    "Apertus-8B-Instruct",
    "Apriel-1.6-15b-Thinker-fixed",
    "Cohere2MoE",
    "CohereForAI-c4ai-command-r-plus-tool_use",
    "CohereForAI-c4ai-command-r7b-12-2024-tool_use",
    "GigaChat3-10B-A1.8B",
    "GigaChat3.1-10B-A1.8B",
    "HuggingFaceTB-SmolLM3-3B",
    "Kimi-K3",
    "MiniMax-M1",
    "MiniMax-M3",
    "NVIDIA-Nemotron-Nano-v2",
    "deepseek-ai-DeepSeek-V3.2",
    "deepseek-ai-DeepSeek-V4",
    "deepseek-ai-DeepSeek-V4-Flash-0731",
    "fireworks-ai-llama-3-firefunction-v2",
    "google-gemma-2-2b-it",
    "llama-cpp-rwkv-world",
    "meetkai-functionary-medium-v3.1",
    "meetkai-functionary-medium-v3.2",
    "microsoft-Phi-3.5-mini-instruct",
    "muse-glimmer",
    "openbmb-MiniCPM5-1B",
    "tencent-Hy3",
    "unsloth-Apriel-1.5",
    "upstage-Solar-Open-100B",
)
BY_VOCABULARY = ("LFM2-8B-A1B", "LFM2.5-Instruct")  # whose templates show tools, and no call
