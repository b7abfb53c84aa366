"""Numbers that are bounded only because all are, as regexes: what the grammar library makes of their schemas.

Nearly every set of tools has such numbers, and the library takes as long for two of them as for all else in a tool.
"""

from collections.abc import Iterator, Mapping

from engine.grammars.literals import as_json
from engine.grammars.schema_literals import LARGEST_INTEGER
from engine.grammars.schema_numbers import LARGEST_NUMBER
from engine.grammars.schema_plain import NUMBERS


def _below(largest: int) -> Iterator[str]:
    """Patterns of the whole numbers from 1 up that are less: by the first digit that is smaller, or by their length."""
    digits = str(largest)
    yield f"[1-9][0-9]{{0,{len(digits) - 2}}}"
    for place, digit in enumerate(digits):
        least, greatest = int(place == 0), int(digit) - 1
        if greatest >= least:
            yield f"{digits[:place]}[{least}-{greatest}][0-9]{{{len(digits) - place - 1}}}"


def _integer(largest: int) -> str:
    return f"-?(0|{'|'.join(_below(largest))}|{largest})"


def _number(largest: int) -> str:
    """With a fraction of any length; behind -0, it does not end in 0."""
    inside = rf"-?({'|'.join(_below(largest))})(\.[0-9]+)?"
    return rf"{inside}|-?{largest}(\.0+)?|0(\.[0-9]+)?|-0\.[0-9]*[1-9]"


PATTERNS: Mapping[str, str] = {  # by the schema's text
    as_json(NUMBERS["integer"][0]): _integer(LARGEST_INTEGER),
    as_json(NUMBERS["number"][0]): _number(LARGEST_NUMBER),
}
