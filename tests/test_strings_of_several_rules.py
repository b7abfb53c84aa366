"""Strings that a format, patterns and lengths bind together: taken, and valid at every budget from the least upward."""

import json
from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import pytest

from engine.engine import Engine
from engine.errors import BudgetError, SchemaError
from engine.types import Grammar, SamplingParams
from tests.fakes import USER, fake_loaded
from tests.grammars.turns import STRING, an_object

MORE = (0, 1, 5, 60)  # tokens above the least budget
EMAIL, URI = {**STRING, "format": "email"}, {**STRING, "format": "uri"}
OURS, PDF = "@example\\.com$", "\\.pdf$"

SCHEMAS: dict[str, Any] = {
    "emails of one host": {**EMAIL, "pattern": OURS},
    "emails of some hosts": {**EMAIL, "pattern": "@(example|test)\\.(com|org)$"},
    "emails whose pattern has any characters": {**EMAIL, "pattern": "@.*\\.edu$"},
    "emails as many write them": {**EMAIL, "pattern": "^\\S+@\\S+\\.\\S+$"},
    "emails as others write them": {**EMAIL, "pattern": "^[a-zA-Z0-9._%+-]+@[a-zA-Z0-9.-]+\\.[a-zA-Z]{2,}$"},
    "short emails of one host": {**EMAIL, "pattern": OURS, "maxLength": 20},
    "long emails of one host": {**EMAIL, "pattern": OURS, "minLength": 20},
    "emails that another pattern refuses": {**EMAIL, "not": {"pattern": "@gmail\\.com$"}},
    "addresses of files": {**URI, "pattern": PDF},
    "addresses of files on the web": {**URI, "pattern": "^https?://.*\\.(png|jpg)$"},
    "short addresses of files": {**URI, "pattern": PDF, "maxLength": 40},
    "addresses with a query": {**URI, "pattern": "[?&]id=[0-9]+"},
    "hosts below another": {**STRING, "format": "hostname", "pattern": "\\.example\\.com$"},
    "times of Greenwich": {**STRING, "format": "date-time", "pattern": "T00:00:00Z$"},
    "addresses at an end of the net": {**STRING, "format": "ipv4", "pattern": "\\.0$"},
    "two formats": {**STRING, "allOf": [{"format": "hostname"}, {"format": "ipv4"}]},
    "three patterns with lengths": {
        **STRING,
        "minLength": 8,
        "maxLength": 30,
        "allOf": [{"pattern": "[A-Z]"}, {"pattern": "[a-z]"}, {"pattern": "[0-9]"}],
    },
    "one or the other": {"oneOf": [{**EMAIL, "pattern": OURS}, {**URI, "pattern": PDF}]},
    "both in an object": an_object(
        {"to": {**EMAIL, "pattern": OURS}, "file": {**URI, "pattern": PDF}}, required=["to", "file"]
    ),
}


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with Engine(fake_loaded()) as engine:
        yield engine


@pytest.mark.parametrize("schema", SCHEMAS.values(), ids=list(SCHEMAS))
def test_a_string_satisfies_all_that_binds_it_at_every_budget(engine: Engine, schema: Any) -> None:
    """F1, F7."""
    response = Grammar.json_schema(schema)
    with pytest.raises(BudgetError) as caught:
        engine.chat([USER], response=response, max_tokens=1)
    for seed, more in enumerate(MORE):
        noise = SamplingParams(temperature=1.0, seed=seed)
        answer = engine.chat([USER], response=response, max_tokens=caught.value.least + more, sampling=noise)
        value = json.loads(answer.text or "")
        assert jsonschema_rs.is_valid(schema, value, validate_formats=True), value


@pytest.mark.parametrize(
    "schema", [{**EMAIL, "pattern": "^[^@]*$"}, {**STRING, "format": "uuid", "pattern": "^.{100}$"}], ids=str
)
def test_what_no_string_satisfies_together_is_refused(engine: Engine, schema: Any) -> None:
    """F7."""
    with pytest.raises(SchemaError, match=r"^response: no value satisfies it") as caught:
        engine.chat([USER], response=Grammar.json_schema(schema))
    assert caught.value.param == "response"
