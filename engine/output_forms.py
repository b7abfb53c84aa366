"""Patterns of what pydantic reads from a string, each admitting nothing that it refuses; and ranges as patterns."""

import datetime
import re
from collections.abc import Iterator

from pydantic.json_schema import JsonSchemaValue

from engine.grammars.schema_formats import FORMATS

# Hours, minutes and seconds come to less than 2**32 seconds, whatever their digits; days to what a timedelta holds.
_HOURS, _MINUTES, _SECONDS = "[0-9]{1,6}H", "[0-9]{1,7}M", r"[0-9]{1,7}(?:\.[0-9]{1,6})?S"
_TIME = f"T(?:{_HOURS}(?:{_MINUTES})?(?:{_SECONDS})?|{_MINUTES}(?:{_SECONDS})?|{_SECONDS})"
DURATION = f"^P(?:[0-9]{{1,8}}D(?:{_TIME})?|{_TIME})$"

# A host in lower case whose last label has letters only: one that ends in digits would have to be an IPv4 address.
_HOST = r"(?:[a-z0-9]{1,20}(?:-[a-z0-9]{1,20})?\.){0,5}[a-z]{2,20}"
_AFTER_HOST = r"(?::[1-9][0-9]{0,3})?(?:/[A-Za-z0-9._~/-]{0,500})?(?:\?[A-Za-z0-9._~/=&+-]{0,500})?"

_OCTET, _GROUP = "(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])", "[1-9a-f][0-9a-f]{0,3}"
# Networks have nothing set behind their prefix: those of whole octets, and of 64 bits.
_NETWORK = (
    rf"^(?:{_OCTET}\.0\.0\.0/8|(?:{_OCTET}\.){{2}}0\.0/16|(?:{_OCTET}\.){{3}}0/24|(?:{_OCTET}\.){{3}}{_OCTET}/32)$"
)
_NETWORK_6 = f"^{_GROUP}(?::{_GROUP}){{0,3}}::/64$"
_INTERFACE = rf"^(?:{_OCTET}\.){{3}}{_OCTET}(?:/(?:[12]?[0-9]|3[0-2]))?$"
_INTERFACE_6 = f"^{_GROUP}(?::{_GROUP}){{0,3}}::{_GROUP}(?:/64)?$"

# Reserved domains would be refused: none of them has two or three letters, and of longer ones these are common.
_LONGER_DOMAINS = "info|name|mobi|asia|jobs|blog|live|shop|site|tech|cloud|email|store|world|museum|online|travel"
_EMAIL = (
    r"^[a-z0-9]{1,20}(?:[._+-][a-z0-9]{1,20}){0,1}@[a-z0-9]{1,20}(?:[.-][a-z0-9]{1,20}){0,2}"
    rf"\.(?:[a-z]{{2,3}}|{_LONGER_DOMAINS})$"
)


def _uuid(version: int) -> str:
    """Of that version, and of the variant that has versions."""
    return f"^[0-9a-f]{{8}}-[0-9a-f]{{4}}-{version}[0-9a-f]{{3}}-[89ab][0-9a-f]{{3}}-[0-9a-f]{{12}}$"


def _base64_of_ascii(two_more: str) -> str:
    """Base64 of a text: the highest bit of each byte is clear. two_more: the digits 62 and 63, as in a class."""
    second, third = "[A-HQ-Xg-nw-z0-3]", "[ABEFIJMNQRUVYZcdghklopstwx014589]"
    fourth = f"[A-Za-z0-9{two_more}]"
    return rf"^(?:[A-Za-f]{second}{third}{fourth})*(?:[A-Za-f][AQgw]==|[A-Za-f]{second}[AEIMQUYcgkosw048]=)?$"


# Formats of pydantic's own that are no annotations.
_OWN_FORMATS: dict[str, list[JsonSchemaValue]] = {
    "ipvanyaddress": [{"format": "ipv4"}, {"format": "ipv6"}],
    "ipv4network": [{"pattern": _NETWORK}],
    "ipv6network": [{"pattern": _NETWORK_6}],
    "ipvanynetwork": [{"pattern": _NETWORK}, {"pattern": _NETWORK_6}],
    "ipv4interface": [{"pattern": _INTERFACE}],
    "ipv6interface": [{"pattern": _INTERFACE_6}],
    "ipvanyinterface": [{"pattern": _INTERFACE}, {"pattern": _INTERFACE_6}],
    "email": [{"pattern": _EMAIL}],
    "base64": [{"pattern": _base64_of_ascii("+/")}],
    "base64url": [{"pattern": _base64_of_ascii("_-")}],
    **{f"uuid{version}": [{"pattern": _uuid(version)}] for version in range(1, 9)},
}
_ANY_STRING = {"path", "password"}  # formats of types that take any string


def in_known_formats(schema: JsonSchemaValue) -> JsonSchemaValue:
    """With formats that are enforced in place of those that only pydantic knows."""
    options = _OWN_FORMATS.get(schema.get("format", ""), [])
    if schema.get("type") != "string" or not options:
        return schema
    left = {keyword: value for keyword, value in schema.items() if keyword not in ("type", "format")}
    strings = [{"type": "string", **option} for option in options]
    return {**left, **strings[0]} if len(strings) == 1 else {**left, "anyOf": strings}


def unknown_format(schema: JsonSchemaValue) -> str | None:
    """The format of a string, where nothing enforces it and not every string has it."""
    name = schema.get("format") if schema.get("type") == "string" else None
    return None if name is None or name in FORMATS | _ANY_STRING else str(name)


def url_pattern(schemes: list[str]) -> str:
    """Of URLs with one of the schemes and a host's name."""
    return f"^(?:{'|'.join(map(re.escape, schemes))})://{_HOST}{_AFTER_HOST}$"


# What pydantic strips from a string, and what its patterns take for white space.
_BLANK = r"\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
_STRIPPED = rf"^[^{_BLANK}](?:[\s\S]*[^{_BLANK}])?$"
_ASCII = r"^[\x00-\x7f]*$"
# Classes that are of all Unicode to pydantic and of ASCII to JSON Schema; the opposites then hold more characters here.
_WIDER_HERE = re.compile(r"\\[WDS]|\[\^(?:[^\\\]]|\\.)*\\[wds]")
_OTHER_MEANING = re.compile(r"\\[<>]|(?<!\\)\[\^?\]?(?:[^\\\]\[]|\\.)*\[")  # of words; classes in classes


def string_rules(schema: JsonSchemaValue, *, strips: bool, is_ascii: bool) -> Iterator[str]:
    """Patterns that a string must match besides its own, so that pydantic reads what the schema lets through."""
    pattern = schema.get("pattern", "")
    if strips and (pattern or schema.get("minLength", 0)):
        yield _STRIPPED
    if is_ascii or _WIDER_HERE.search(pattern):
        yield _ASCII


def has_other_meaning(pattern: str) -> bool:
    """Whether pydantic reads a pattern's signs as operators that JSON Schema has not."""
    return _OTHER_MEANING.search(pattern) is not None


def date_pattern(first: datetime.date, last: datetime.date) -> str:
    """Of texts in the form of dates that lie between these in order; both may be written."""
    low, high = first.isoformat(), last.isoformat()
    shared = next((at for at in range(len(low)) if low[at] != high[at]), len(low))
    if shared == len(low):
        return f"^{low}$"
    between = _digit(int(low[shared]) + 1, int(high[shared]) - 1)
    ways = [low[shared] + _from(low[shared + 1 :], 1), high[shared] + _from(high[shared + 1 :], -1)]
    ways += [between + _rest(len(low) - shared - 1)] if between else []
    return f"^{low[:shared]}(?:{'|'.join(ways)})$"


def _from(text: str, direction: int) -> str:
    """Texts as long as this one that come after it (1) or before it (-1), or are equal to it."""
    if not text:
        return ""
    here, rest = text[0], _from(text[1:], direction)
    if here == "-":
        return f"-{rest}"
    others = _digit(int(here) + 1, 9) if direction > 0 else _digit(0, int(here) - 1)
    return f"(?:{here}{rest}|{others}{_rest(len(text) - 1)})" if others else here + rest


def _digit(low: int, high: int) -> str:
    return f"[{low}-{high}]" if low <= high else ""


def _rest(length: int) -> str:
    return f"[0-9-]{{{length}}}" if length else ""


def decimal_rules(places: int | None, digits: int | None) -> JsonSchemaValue:
    """Of a decimal with so many decimal places, and digits in all, which are more."""
    rules: JsonSchemaValue = {} if places is None else {"multipleOf": 1 if places == 0 else float(f"1e-{places}")}
    if digits is not None and places is not None:
        rules |= {"exclusiveMinimum": -(10 ** (digits - places)), "exclusiveMaximum": 10 ** (digits - places)}
    return rules
