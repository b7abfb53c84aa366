"""Text and patterns as literals of a Lark grammar in llguidance's dialect."""

import json
import re

ANY_TEXT = "/(?s:.*)/"

# JSON in UTF-8. As json.dumps, which makes an encoder for each value unless it writes ASCII.
as_json = json.JSONEncoder(ensure_ascii=False).encode


def string_literal(text: str) -> str:
    """The text between quotes. In ASCII: the grammar library refuses some characters inside a literal, such as DEL."""
    return json.dumps(text)


def regex_literal(pattern: str) -> str:
    """The pattern between slashes: bare slashes escaped, escaped pairs left as they are."""
    escapes = {"/": "\\/", "\n": "\\n", "\\\n": "\\n"}
    return "/" + re.sub(r"\\.|/|\n", lambda found: escapes.get(found[0], found[0]), pattern, flags=re.DOTALL) + "/"
