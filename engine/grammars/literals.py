"""Text and patterns as literals of a Lark grammar in llguidance's dialect."""

import json
import re
from collections.abc import Mapping

ANY_TEXT = "/(?s:.*)/"

# JSON in UTF-8. As json.dumps, which makes an encoder for each value unless it writes ASCII.
as_json = json.JSONEncoder(ensure_ascii=False).encode


def string_literal(text: str) -> str:
    """The text between quotes. In ASCII: the grammar library refuses some characters inside a literal, such as DEL."""
    return json.dumps(text)


class SpecialTerminals:
    """Writes text as a sequence of literals, special tokens among them by their ids."""

    def __init__(self, special_tokens: Mapping[str, int]) -> None:
        self._special_tokens = special_tokens
        self._beginnings = frozenset(token[:1] for token in special_tokens)  # most text has none of them

    def __call__(self, text: str) -> str:
        for token, token_id in () if self._beginnings.isdisjoint(text) else self._special_tokens.items():
            if token in text:
                before, _, after = text.partition(token)
                around = (self(before), f"<[{token_id}]>", self(after))
                return " ".join(part for part in around if part)
        return string_literal(text) if text else ""


def regex_literal(pattern: str) -> str:
    """The pattern between slashes: bare slashes escaped, escaped pairs left as they are."""
    escapes = {"/": "\\/", "\n": "\\n", "\\\n": "\\n"}
    return "/" + re.sub(r"\\.|/|\n", lambda found: escapes.get(found[0], found[0]), pattern, flags=re.DOTALL) + "/"
