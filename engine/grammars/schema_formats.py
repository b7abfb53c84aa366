"""Formats written as patterns of our own, where the grammar library's admit values that no validator takes.

Each pattern admits less than its format, and its row says what is left out.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class OwnFormat:
    """A format as a pattern. narrowing: what of the format cannot be written."""

    pattern: str
    narrowing: str
    max_length: int | None = None


_YEAR = "(?:[1-9][0-9]{3}|0[1-9][0-9]{2}|00[1-9][0-9]|000[1-9])"
_FOURTH = "(?:0[48]|[2468][048]|[13579][26])"  # two digits, a multiple of four, not 00
_LEAP_YEAR = f"(?:[0-9]{{2}}{_FOURTH}|{_FOURTH}00)"
_DAY = (
    "(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])"
    "|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)"
    "|02-(?:0[1-9]|1[0-9]|2[0-8]))"
)
_DATE = f"(?:{_YEAR}-{_DAY}|{_LEAP_YEAR}-02-29)"
_HOUR, _SIXTIETH = "(?:[01][0-9]|2[0-3])", "[0-5][0-9]"
_TIME = rf"{_HOUR}:{_SIXTIETH}:{_SIXTIETH}(?:\.[0-9]{{1,9}})?(?:Z|[+-]{_HOUR}:{_SIXTIETH})"

# At most 61 characters in a label, 63 in the part before an email's @.
_LABEL = "[A-Za-z0-9](?:-?[A-Za-z0-9]){0,30}"
_HOSTNAME = rf"{_LABEL}(?:\.{_LABEL})*"
_ATOM = "[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]"
_LOCAL = rf"{_ATOM}(?:\.?{_ATOM}){{0,31}}"

_NO_LEAP_SECOND = "no leap second, at most 9 decimals, T and Z in capitals"
_PLAIN_LABELS = "labels of at most 31 letters or digits, no two hyphens in a row"

OWN_FORMATS = {
    "date": OwnFormat(f"^{_DATE}$", "years 0001 to 9999"),
    "time": OwnFormat(f"^{_TIME}$", _NO_LEAP_SECOND),
    "date-time": OwnFormat(f"^{_DATE}T{_TIME}$", f"years 0001 to 9999, {_NO_LEAP_SECOND}"),
    "hostname": OwnFormat(f"^{_HOSTNAME}$", _PLAIN_LABELS, max_length=253),
    "email": OwnFormat(
        f"^{_LOCAL}@{_HOSTNAME}$",
        f"at most 32 characters and the dots between them before the @, nothing quoted; {_PLAIN_LABELS}",
        max_length=254,
    ),
}
