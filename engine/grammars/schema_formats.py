"""Formats: most are written as patterns of our own, which admit no value that a validator refuses.

Each pattern admits less than its format, and its row says what is left out.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class OwnFormat:
    """A format as a pattern. narrowing: what of the format cannot be written.

    uncounted: the same without lengths. Beside another pattern, counting makes more states than the grammar may have.
    """

    pattern: str
    narrowing: str
    max_length: int | None = None
    uncounted: str | None = None


# The grammar library's own patterns of these are as strict as validators.
LIBRARY_FORMATS = frozenset({"duration", "ipv4", "ipv6", "uuid", "uri"})

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

# No length is bounded: a pattern of these admits too much.
_WORD = "[A-Za-z0-9]+"
_LABELS = f"{_WORD}(?:[.-]{_WORD})*"
_ATOMS = rf"{_ATOM}+(?:\.{_ATOM}+)*"

_NO_LEAP_SECOND = "no leap second, at most 9 decimals, T and Z in capitals"
_PLAIN_LABELS = "labels of at most 31 letters or digits, no two hyphens in a row"

_EMAIL = OwnFormat(
    f"^{_LOCAL}@{_HOSTNAME}$",
    f"at most 32 characters and the dots between them before the @, nothing quoted; {_PLAIN_LABELS}",
    max_length=254,
    uncounted=f"^{_ATOMS}@{_LABELS}$",
)
_HOST = OwnFormat(f"^{_HOSTNAME}$", _PLAIN_LABELS, max_length=253, uncounted=f"^{_LABELS}$")

_SEGMENT = "[A-Za-z0-9._~!$&'()*+,;=@-]"  # nothing is percent-encoded
_TAIL = rf"(?:/{_SEGMENT}*)*(?:\?(?:{_SEGMENT}|/)*)?(?:#(?:{_SEGMENT}|/)*)?"
_URL = rf"https?://{_HOSTNAME}(?::[1-9][0-9]{{0,3}})?{_TAIL}"
_REFERENCE = rf"^(?:{_URL}|/?{_SEGMENT}+{_TAIL}|#{_SEGMENT}*)$"
_POINTER = "(?:/(?:[^~/]|~[01])*)*"
_TEMPLATE = r"^(?:[A-Za-z0-9/._~:?&=-]|\{[+#./;?&]?[A-Za-z0-9_]+(?:,[A-Za-z0-9_]+)*\})*$"
_REGEX = r"^\^?(?:(?:[A-Za-z0-9 _,:;=@-]|\\[dwsDWS.]|\.|\[\^?(?:a-z|A-Z|0-9|[A-Za-z0-9_])+\])[*+?]?)*\$?$"

_HTTP_ONLY = "http and https, ASCII only, nothing percent-encoded"

OWN_FORMATS = {
    "date": OwnFormat(f"^{_DATE}$", "years 0001 to 9999"),
    "time": OwnFormat(f"^{_TIME}$", _NO_LEAP_SECOND),
    "date-time": OwnFormat(f"^{_DATE}T{_TIME}$", f"years 0001 to 9999, {_NO_LEAP_SECOND}"),
    "hostname": _HOST,
    "idn-hostname": replace(_HOST, narrowing=f"ASCII only; {_HOST.narrowing}"),
    "email": _EMAIL,
    "idn-email": replace(_EMAIL, narrowing=f"ASCII only; {_EMAIL.narrowing}"),
    "iri": OwnFormat(f"^{_URL}$", _HTTP_ONLY),
    "uri-reference": OwnFormat(_REFERENCE, _HTTP_ONLY),
    "iri-reference": OwnFormat(_REFERENCE, _HTTP_ONLY),
    "uri-template": OwnFormat(_TEMPLATE, "plain variables between ASCII characters of paths and queries"),
    "json-pointer": OwnFormat(f"^{_POINTER}$", "nothing is left out"),
    "relative-json-pointer": OwnFormat(f"^(?:0|[1-9][0-9]{{0,8}})(?:#|{_POINTER})$", "at most 9 digits"),
    "regex": OwnFormat(_REGEX, "letters, digits, classes and * + ? only; no groups and no alternatives"),
}

# The library's formats where it takes patterns only: as names of properties.
_OCTET = "(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
NAME_FORMATS = {
    "uuid": OwnFormat("^[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}$", "nothing is left out"),
    "ipv4": OwnFormat(rf"^(?:{_OCTET}\.){{3}}{_OCTET}$", "nothing is left out"),
    "uri": OwnFormat(f"^{_URL}$", f"as names of properties: {_HTTP_ONLY}"),
}

FORMATS = LIBRARY_FORMATS | OWN_FORMATS.keys()

# Formats of OpenAPI, as keywords that mean the same. Of a number they are bounds; other values they allow.
_FLOAT, _DOUBLE = 3.4028234663852886e38, 1.7976931348623157e308
NUMBER_FORMATS: Mapping[str, Mapping[str, float]] = {
    "int32": {"minimum": -(2**31), "maximum": 2**31 - 1, "multipleOf": 1},
    "int64": {"minimum": -9 * 10**18, "maximum": 9 * 10**18, "multipleOf": 1},  # the largest that is exact as a float
    "float": {"minimum": -_FLOAT, "maximum": _FLOAT},
    "double": {"minimum": -_DOUBLE, "maximum": _DOUBLE},
}
BASE64 = "^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$"  # the format "byte"
