"""A fake model that thinks before it answers, and reads how long it should."""

from dataclasses import replace

from engine.model import LoadedModel
from tests.fakes import fake_that_writes

WRITTEN = "<think>\nHm. 日本\n</think>\n\n"
SHOWS_EFFORT = "{% if reasoning_effort %}<|im_start|>system\nThink {{ reasoning_effort }}.<|im_end|>\n{% endif %}"


def thinker(answer: str = "Yes.") -> LoadedModel:
    """It thinks "Hm. 日本"."""
    loaded = fake_that_writes(WRITTEN + answer, hermes=True, reasons=True)
    template = SHOWS_EFFORT + (loaded.tokenizer.chat_template or "")
    return replace(loaded, tokenizer=loaded.tokenizer.with_template(template))
