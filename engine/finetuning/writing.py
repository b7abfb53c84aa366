"""Examples as token ids: the prompt as the engine makes it, the answer as the engine's grammar lets it be written."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from engine.errors import ConfigError, EngineError, UnsupportedModelError
from engine.finetuning.examples import Example
from engine.grammars.tool_format import Opening, ToolFormat
from engine.prompt import render_prompt
from engine.template_skills import skills_of
from engine.tokenizer import Tokenizer

NUM_PROMPT_END_TOKENS = 32  # enough to see whether a prompt opens the reasoning


@dataclass(frozen=True, slots=True)
class WrittenExample:
    """One example for training. The loss is taken over the answer alone."""

    prompt: tuple[int, ...]
    answer: tuple[int, ...]  # ends with the token that ends the turn
    tool: str | None  # that the answer calls; None: a text

    def __len__(self) -> int:
        return len(self.prompt) + len(self.answer)

    def record(self, tokenizer: Tokenizer) -> dict[str, Any]:
        """A line of the data file: what the ids say."""
        return {
            "tool": self.tool,
            "prompt": tokenizer.decode(self.prompt),
            "completion": tokenizer.decode(self.answer),
        }


class ExampleWriter:
    """Writes examples for one model and its tool format."""

    def __init__(self, tokenizer: Tokenizer, family: ToolFormat) -> None:
        """Raises UnsupportedModelError where the model has no chat template, or no token that ends a turn."""
        self._tokenizer = tokenizer
        self._family = family
        self._skills = skills_of(tokenizer, family)
        self._turn_end = _turn_end(tokenizer)

    def write(self, example: Example) -> WrittenExample:
        """Raises RequestError where the chat template refuses the messages."""
        prompt = render_prompt(example.request, self._family, self._tokenizer, self._skills)
        if example.call is None:
            text = f"{self._family.text_begin}{example.text}"
        else:
            text = self._family.write_calls((example.call,))
        answer = [*self._tokenizer.encode(self._before(prompt) + text), self._turn_end]
        return WrittenExample(tuple(prompt), tuple(answer), None if example.call is None else example.call.name)

    def write_all(self, examples: Iterable[Example], max_tokens: int) -> list[WrittenExample]:
        """Those that have at most so many tokens. Raises ConfigError where none has."""
        written = [self.write(example) for example in examples]
        short = [each for each in written if len(each) <= max_tokens]
        if not short:
            least = min(map(len, written))
            raise ConfigError(f"max_tokens is {max_tokens}; the shortest example has {least} tokens")
        return short

    def _before(self, prompt: list[int]) -> str:
        """What closes reasoning that the prompt has opened: there is none in these examples."""
        reasoning = self._family.reasoning
        if reasoning is None:
            return ""
        end = self._tokenizer.decode(prompt[-NUM_PROMPT_END_TOKENS:])
        is_open = reasoning.opening(end, may_open=False) is Opening.INSIDE
        return f"{reasoning.end}{reasoning.after}" if is_open else ""


def _turn_end(tokenizer: Tokenizer) -> int:
    """The token that the chat template writes behind an assistant's message; else the tokenizer's own end."""
    said = "A probe of the turn's end."
    conversation = [("user", "Probe."), ("assistant", said), ("user", "Probe.")]
    try:
        text = tokenizer.render([{"role": role, "content": content} for role, content in conversation], None)
    except EngineError:
        text = ""
    behind = tokenizer.encode(text.partition(said)[2]) if said in text else []
    own: int | None = tokenizer.fast.eos_token_id
    found = next((token for token in behind if token in tokenizer.eos_ids), own)
    if found is None:
        raise UnsupportedModelError("the model has no token that ends a turn")
    return found
