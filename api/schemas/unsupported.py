"""What OpenAI's requests may have and ours may not. A null of it asks for nothing, and is let pass."""

# OpenAI's options that are not supported, by their first step, and what to do instead.
UNSUPPORTED = {
    "background": "answers are waited for, or streamed",
    "conversation": "send the conversation, or previous_response_id",
    "context_management": "nothing is left out of a conversation",
    "max_tool_calls": "the server runs no tools for a response",
    "prompt": "the server keeps no prompts",
    "audio": "this server writes text only",
    "function_call": "it is deprecated; use tool_choice",
    "functions": "it is deprecated; use tools",
    "image_url": "this server reads text only",
    "input_audio": "this server reads text only",
    "file": "this server reads text only",
    "moderation": "this server has no moderation",
    "prediction": "this server takes no predicted output",
    "prompt_cache_options": "prompts are cached as the server is set up",
    "prompt_cache_retention": "prompts are cached as the server is set up",
    "reasoning_effort": "it belongs to chats; responses have reasoning.effort",
    "refusal": "this server writes no refusals",
    "verbosity": "how much a model says cannot be set; ask for it in a message",
    "web_search_options": "offer the tool web_search instead",
    "top_k": "it stands under toolmask",
    "min_p": "it stands under toolmask",
    "repetition_penalty": "it stands under toolmask",
}

NESTED = 'a chat wants the name inside: {"type": "function", "function": {"name": ...}}'
FLAT = 'a response wants the name beside the type: {"type": "function", "name": ...}'

# The same where the reason depends on the place; `[]` stands for an index.
UNSUPPORTED_AT = {
    "messages[].name": "the models' chat templates know no names of participants",
    "tool_choice.name": NESTED,
    "tools[].name": NESTED,
    "tools[].parameters": NESTED,
    "tool_choice.allowed_tools.tools[].name": NESTED,
    "tool_choice.function": FLAT,
    "tools[].function": FLAT,
    "tool_choice.tools[].function": FLAT,
}

# Every name of the two tables.
NAMES = UNSUPPORTED.keys() | {place.rpartition(".")[2] for place in UNSUPPORTED_AT}
