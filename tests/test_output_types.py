"""Output types as grammars, and back: what a grammar lets through is a value of the type."""

import collections
import dataclasses
import datetime
import decimal
import enum
import fractions
import ipaddress
import json
import re
import sys
import typing
import uuid
from collections.abc import Callable, Hashable, Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, NotRequired

import pytest
from pydantic import (
    UUID1,
    UUID3,
    UUID4,
    UUID5,
    UUID6,
    UUID7,
    UUID8,
    AfterValidator,
    AliasPath,
    AnyUrl,
    Base64Str,
    Base64UrlStr,
    BaseModel,
    ByteSize,
    ConfigDict,
    Discriminator,
    EmailStr,
    Field,
    FilePath,
    FutureDate,
    HttpUrl,
    ImportString,
    IPvAnyAddress,
    IPvAnyInterface,
    IPvAnyNetwork,
    Json,
    NaiveDatetime,
    PastDate,
    PastDatetime,
    PostgresDsn,
    SecretStr,
    StringConstraints,
    Tag,
    TypeAdapter,
)
from pydantic_core import core_schema
from typing_extensions import TypedDict

from engine.engine import Engine
from engine.errors import RequestError, SchemaError
from engine.output_forms import date_pattern
from engine.output_types import grammar_output, json_output, python_output, text_output
from engine.structured import generate
from engine.types import Grammar, SamplingParams
from tests.fakes import fake_loaded


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Address(BaseModel):
    city: str = Field(max_length=8)
    code: str = Field(pattern="^[0-9]{5}$")


class Person(BaseModel):
    name: str = Field(min_length=1, max_length=8)
    age: int = Field(ge=0, le=150)
    tags: list[Literal["old", "new"]] = Field(default=[], max_length=2)
    home: Address | None = None
    work: Address | None = None
    color: Color = Color.RED


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: int


class Dog(BaseModel):
    kind: Literal["dog"] = "dog"  # not required by the branch itself
    good: bool


Pet = Annotated[Cat | Dog, Field(discriminator="kind")]


class Tree(BaseModel):
    value: bool
    left: "Tree | None" = None


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")
    a: bool


@dataclasses.dataclass
class Point:
    x: float
    y: float = 0.0


class Options(TypedDict):
    a: int
    b: NotRequired[bool]


class Pair(NamedTuple):
    a: int
    b: bool


class Stripped(BaseModel):
    model_config = ConfigDict(str_strip_whitespace=True, str_min_length=1)
    name: str = Field(max_length=3)


class InSeconds(BaseModel):
    model_config = ConfigDict(ser_json_timedelta="float")
    lasts: datetime.timedelta


LEAP_DAY = datetime.date(2024, 2, 29)
NAME = Annotated[str, Field(pattern="^[a-z]+$", min_length=2, max_length=4)]

PYTHON_TYPES: list[Any] = [
    *(int, float, bool, str, decimal.Decimal, uuid.UUID, AnyUrl, HttpUrl, type(None), object, Any),
    *(IPvAnyAddress, IPvAnyNetwork, IPvAnyInterface, ipaddress.IPv4Address, ipaddress.IPv6Address),
    *(ipaddress.IPv4Network, ipaddress.IPv6Network, ipaddress.IPv4Interface, ipaddress.IPv6Interface),
    *(datetime.date, datetime.time, datetime.datetime, datetime.timedelta),
    *(list[int], list[str], list, set[int], frozenset[str], tuple[int, str], tuple[bool, ...], tuple[()]),
    *(dict[str, int], dict[int, bool], dict[Color, int], dict[Literal["a", "b"], int], dict[str, list[Color]], dict),
    *(int | None, int | str, datetime.date | int, Person | None, Person | Point, list[Person], dict[str, Person]),
    *(Literal["a"], Literal["a", 3, None, True], Color, Level, Annotated[int, Field(ge=3, lt=7)]),
    *(Person, Pet, list[Pet], Tree, Open, Point, Options, Pair),
    *(UUID1, UUID3, UUID4, UUID5, UUID6, UUID7, UUID8, SecretStr, Path, re.Pattern),
    *(
        fractions.Fraction,
        PastDate,
        FutureDate,
        Annotated[datetime.date, Field(ge=LEAP_DAY, lt=datetime.date(2024, 3, 2))],
    ),
    *(Annotated[decimal.Decimal, Field(max_digits=5, decimal_places=2)], Annotated[int | float, Field(ge=0, lt=3)]),
    *(Annotated[set[int], Field(min_length=2)], Annotated[set[int | str | Color], Field(min_length=2)]),
    *(Annotated[str, StringConstraints(strip_whitespace=True, min_length=2, max_length=5)], Stripped, InSeconds),
    *(Annotated[str, Field(pattern=r"^\W{2}\D\S$")], Annotated[str, Field(pattern=r"^[^\d]{3}$")]),
    *(dict[UUID4, int], dict[datetime.date, int], dict[NAME, int], Annotated[dict[NAME, int], Field(min_length=2)]),
    *(collections.Counter[int], collections.OrderedDict[int, bool], collections.defaultdict[str, int]),
]


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    """A model of noise that ends strings, lists and objects soon."""
    with Engine(fake_loaded(bonus={'"': 400, "]": 400, "}": 400})) as engine:
        yield engine


@pytest.mark.parametrize("python_type", PYTHON_TYPES, ids=repr)
def test_whatever_a_random_model_writes_is_a_value_of_the_type(engine: Engine, python_type: Any) -> None:
    values = [
        generate(engine, "go", python_type, sampling=SamplingParams(temperature=100, seed=seed), max_tokens=500)
        for seed in range(10)
    ]
    adapter = TypeAdapter(python_type)
    assert [adapter.validate_python(value, strict=True) for value in values] == values


@pytest.mark.parametrize("python_type", [Base64Str, Base64UrlStr])
def test_whatever_is_written_as_base64_is_a_text(engine: Engine, python_type: Any) -> None:
    sampling = [SamplingParams(temperature=100, seed=seed) for seed in range(10)]
    texts = [generate(engine, "go", python_type, sampling=each, max_tokens=500) for each in sampling]
    assert any(len(text) > 2 for text in texts)


def schema_of(python_type: Any) -> Any:
    grammar = python_output(python_type).grammar
    assert grammar is not None
    return json.loads(grammar.source)


@pytest.mark.parametrize("python_type", [Address, Point, Options])
def test_an_object_is_closed_where_validation_would_drop_what_it_does_not_name(python_type: Any) -> None:
    assert schema_of(python_type)["additionalProperties"] is False


def test_a_model_that_keeps_extra_properties_stays_open() -> None:
    assert schema_of(Open)["additionalProperties"] is True


def test_a_field_with_a_default_stays_optional() -> None:
    """F28."""
    assert schema_of(Person)["required"] == ["name", "age"]


def test_a_tag_with_a_default_is_always_written() -> None:
    (_, dog) = schema_of(Pet)["anyOf"]
    assert dog["required"] == ["kind"]


def test_a_dicts_keys_are_bound_by_their_type() -> None:
    assert schema_of(dict[Color, bool])["additionalProperties"] is False
    assert list(schema_of(dict[Color, bool])["properties"]) == ["red", "blue"]
    assert schema_of(dict[Annotated[str, Field(pattern="^a+$")], int])["patternProperties"] == {
        "^a+$": {"type": "integer"}
    }


def test_a_set_may_be_written_with_repeats_unless_it_has_a_least_length() -> None:
    assert "uniqueItems" not in schema_of(set[int])
    assert schema_of(Annotated[set[int], Field(min_length=2)])["uniqueItems"] is True


@pytest.mark.parametrize(
    ("python_type", "texts"),
    [
        (
            datetime.timedelta,
            ["PT999999H9999999M9999999.999999S", "P99999999DT999999H9999999M9999999S", "PT9999999M9999999S", "PT0S"],
        ),
        (Base64Str, ["", "AA==", "fwo=", "QUJD", "fz9/"]),
        (Base64UrlStr, ["", "AA==", "fz9_"]),
    ],
)
def test_the_outermost_texts_that_a_pattern_admits_are_read(python_type: Any, texts: list[str]) -> None:
    output = python_output(python_type)
    pattern = schema_of(python_type)["pattern"]
    assert [text for text in texts if not re.search(pattern, text)] == []
    for text in texts:
        output.read(json.dumps(text))


@pytest.mark.parametrize("text", ["PT1193047H", "PT99999999M", "PT56433374H0895678.502S"])
def test_a_duration_that_pydantic_finds_too_large_is_not_admitted(text: str) -> None:
    assert re.search(schema_of(datetime.timedelta)["pattern"], text) is None


@pytest.mark.parametrize("text", ["/w==", "w6k=", "8J+YgA=="])
def test_base64_of_what_is_no_ascii_is_not_admitted(text: str) -> None:
    assert re.search(schema_of(Base64Str)["pattern"], text) is None


def test_a_uuid_has_its_version_and_the_variant_that_has_versions() -> None:
    pattern = schema_of(UUID4)["pattern"]
    assert re.search(pattern, "490d8156-ca22-42ca-8019-51ca6eb878ca")
    assert not re.search(pattern, "490d8156-ca22-52ca-8019-51ca6eb878ca")
    assert not re.search(pattern, "490d8156-ca22-42ca-c019-51ca6eb878ca")


@pytest.mark.parametrize(
    ("first", "last"),
    [("2024-02-29", "2024-03-01"), ("1999-12-31", "2000-01-01"), ("0001-01-01", "9999-12-31"), ("2024-02-29",) * 2],
)
def test_dates_within_bounds_are_those_and_no_others(first: str, last: str) -> None:
    low, high = map(datetime.date.fromisoformat, (first, last))
    pattern = date_pattern(low, high)
    days = [
        datetime.date(year, month, day)
        for year in (1, 1999, 2000, 2023, 2024, 2025, 9999)
        for month in (1, 2, 3, 12)
        for day in (1, 2, 28, 31)
        if (month, day) != (2, 31)
    ]
    days += [low, high, LEAP_DAY]
    assert [day for day in days if bool(re.search(pattern, day.isoformat())) != (low <= day <= high)] == []


def test_a_format_that_the_caller_gave_to_a_string_says_nothing() -> None:
    assert schema_of(Annotated[str, Field(json_schema_extra={"format": "color"})])["format"] == "color"


def not_called(x: int) -> int:
    raise AssertionError(x)


class NoMembers(enum.Enum):
    pass


class OfDates(enum.Enum):
    EASTER = datetime.date(2026, 4, 5)


class Plain:
    pass


class OfColorFormat(str):
    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        return core_schema.no_info_after_validator_function(cls, handler(str))

    @classmethod
    def __get_pydantic_json_schema__(cls, core: Any, handler: Any) -> Any:
        return {**handler(core), "format": "color"}


class PatternInDict(TypedDict):
    a: Annotated[str, Field(pattern="^(?=x)")]


class InLowerCase(BaseModel):
    model_config = ConfigDict(str_to_lower=True)
    a: set[str] = Field(min_length=2)


class ReadByPath(BaseModel):
    a: int = Field(validation_alias=AliasPath("b", 0))


def first_letter(value: Any) -> str:
    raise AssertionError(value)


ToldApartByFunction = Annotated[
    Annotated[Cat, Tag("c")] | Annotated[Dog, Tag("d")], Field(discriminator=Discriminator(first_letter))
]


@pytest.mark.parametrize(
    ("output_type", "name", "reason"),
    [
        (5, "5", "pydantic has no schema for it"),
        (None, "None", "it is no type"),
        ("int", "'int'", "it is no type"),
        (["a", "b"], "['a', 'b']", "pydantic has no schema for it"),
        (not_called, "not_called", "it is no type"),
        (Plain, "Plain", "pydantic has no schema for it"),
        (list["Nowhere"], "list['Nowhere']", "not fully defined"),  # type: ignore[name-defined]  # noqa: F821
        (bytes, "bytes", "bytes"),
        (list[bytes], "list[bytes]", "bytes"),
        (complex, "complex", "complex numbers"),
        (type[int], "type[int]", "classes"),
        (PostgresDsn, "PostgresDsn", "URLs of many hosts"),
        (Iterable[int], "Iterable[int]", "iterators"),
        (int | Callable[[], int], "Callable", "CallableSchema"),
        (NoMembers, "NoMembers", "the enum NoMembers has no members"),
        (OfDates, "OfDates", "is not a string, number, boolean or null"),
        (dict[bool, int], "dict[bool, int]", "keys can be strings"),
        (NaiveDatetime, "NaiveDatetime", "times without a zone"),
        (Json, "Json", "JSON inside of a string"),
        (list[Json[int]], "Json", "JSON inside of a string"),
        (ImportString, "ImportString", "what import_string of pydantic"),
        (FilePath, "Path", "what PathType.validate_file of pydantic.types reads"),
        (ByteSize, "ByteSize", "what ByteSize._validate of pydantic.types reads"),
        (re.Pattern[bytes], "re.Pattern[bytes]", "what pattern_bytes_validator of pydantic"),
        (OfColorFormat, "OfColorFormat", "its format 'color' is not enforced"),
        (Hashable, "Hashable", "validated in several steps"),
        (Annotated[set[int | bool], Field(min_length=2)], "Annotated[set[int | bool], ...]", "may be equal in Python"),
        (InLowerCase, "InLowerCase", "may be equal in Python"),
        (Annotated[set[Literal[1, True]], Field(min_length=2)], "Literal[1, True]", "may be equal in Python"),
        (Annotated[set[uuid.UUID], Field(min_length=2)], "uuid.UUID", "may be equal in Python"),
        (Annotated[dict[uuid.UUID, int], Field(min_length=2)], "uuid.UUID", "may be equal in Python"),
        (ToldApartByFunction, "Annotated[", "told apart by no property's name"),
        (ReadByPath, "ReadByPath", "AliasPath"),
        (list[Annotated[str, Field(pattern="^(?!x)a")]], "list[", "look-around"),
        (PatternInDict, "PatternInDict", "look-around"),
        (Annotated[str, Field(pattern=r"(a)\1")], "str", "backreferences are not supported"),
        (Annotated[str, Field(pattern=r"^\h+$")], "str", "unrecognized escape"),
        (Annotated[str, Field(pattern="^[a-z&&[^b]]$")], "str", "operators that JSON Schema has not"),
        (PastDatetime, "PastDatetime", "only dates may have them"),
        (Annotated[datetime.date, Field(gt=datetime.date.max)], "date", "no date lies within its bounds"),
        (Annotated[datetime.date, Field(ge=LEAP_DAY, lt=LEAP_DAY)], "date", "no date lies within its bounds"),
        (Annotated[object, Field(gt=3)], "object", "the bound gt is on what is not a number only"),
        (Annotated[decimal.Decimal, Field(max_digits=2)], "Decimal", "only with decimal_places"),
        (Annotated[fractions.Fraction, Field(gt=fractions.Fraction(1, 3))], "Fraction", "no number of JSON is exactly"),
    ],
)
def test_what_cannot_be_enforced_is_refused_by_its_name(output_type: Any, name: str, reason: str) -> None:
    with pytest.raises(RequestError) as refused:
        python_output(output_type)
    assert refused.value.param == "output_type"
    beginning, _, allowed = str(refused.value).partition("; it must be ")
    assert beginning.startswith("output_type is ")
    assert name in beginning
    assert reason in beginning
    assert "a JSON schema as a mapping" in allowed


class OldDict(typing.TypedDict):
    a: int


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="from 3.12 on pydantic reads typing.TypedDict")
def test_before_python_3_12_a_typed_dict_is_one_of_typing_extensions() -> None:
    with pytest.raises(RequestError, match=r"OldDict, which cannot be enforced: .*typing_extensions\.TypedDict"):
        python_output(OldDict)


@pytest.mark.skipif(find_spec("email_validator") is not None, reason="then pydantic reads them")
def test_a_type_for_which_pydantic_needs_a_package_is_refused_by_the_packages_name() -> None:
    with pytest.raises(RequestError, match="email-validator is not installed"):
        python_output(EmailStr)


def test_a_rule_that_no_schema_says_is_checked_when_the_value_is_read() -> None:
    def refuse_odd(value: int) -> int:
        if value % 2:
            raise ValueError(f"{value} is odd")
        return value

    even = python_output(Annotated[int, AfterValidator(refuse_odd)])
    assert even.read("4") == 4
    with pytest.raises(ValueError, match="3 is odd"):
        even.read("3")


def test_a_mapping_that_is_no_schema_is_refused_by_path() -> None:
    with pytest.raises(SchemaError, match="response"):
        json_output({"type": {1, 2}})


def test_a_json_grammar_is_read_as_json_and_another_as_text() -> None:
    assert grammar_output(Grammar.json_object()).read('{"a": 1.5}') == {"a": 1.5}
    assert grammar_output(Grammar.regex("[0-9]+")).read("12") == "12"
    assert text_output(Grammar.choice(["a"])).read_partial("a") == "a"
