"""schemathesis, on the server's own OpenAPI page: whatever it makes up, no 5xx, and every answer is as the page says.

Of each operation the boundary values of its schemas and a few random examples, valid and not, always the same ones.
Together some 3,600 requests: about 30 s of one core, half of that for the boundary values.
"""

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import not_a_server_error
from schemathesis.config import (
    GenerationConfig,
    ProjectConfig,
    ProjectsConfig,
    SchemathesisConfig,
)
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from api.app import create_app
from api.manager import ModelManager
from api.settings import ServerConfig
from tests.api.servers import MODEL, FakeLoader, LiveServer, fake_that_answers, served

NUM_EXAMPLES = 30
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
PAGE = create_app(ServerConfig(model=MODEL), ModelManager(FakeLoader({}))).openapi()
SETTINGS = settings(
    max_examples=NUM_EXAMPLES,
    phases=[Phase.explicit, Phase.generate],  # explicit: the boundary values come as such; no shrinking
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


def schema_for(mode: GenerationMode) -> schemathesis.BaseSchema:
    generation = GenerationConfig(modes=[mode], deterministic=True, no_shrink=True, database="none")
    project = ProjectConfig(generation=generation)
    schema = schemathesis.openapi.from_dict(PAGE, config=SchemathesisConfig(projects=ProjectsConfig(default=project)))
    schema.hook("map_body")(with_known_model)
    return schema


def with_known_model(_: object, body: Any) -> Any:
    """A made-up model is a 404: to get further, most requests name the one that serves, and want a short answer."""
    if not isinstance(body, dict) or not isinstance(body.get("model"), str) or len(body["model"]) % 8 == 7:
        return body
    limit = "max_output_tokens" if "input" in body else "max_tokens"
    generates = {"input", "prompt"} & set(body) or ("messages" in body and "text" not in body)
    return {**body, "model": MODEL, **({limit: 8} if generates and limit not in body else {})}


VALID, INVALID = schema_for(GenerationMode.POSITIVE), schema_for(GenerationMode.NEGATIVE)


@pytest.fixture
def server() -> Iterator[LiveServer]:
    """A new one for each operation: one of them unloads the model."""
    with served(fake_that_answers(lambda _: "Yes.")) as server:
        yield server


@VALID.parametrize()
@SETTINGS
def test_a_request_of_the_openapi_page_is_answered_as_the_page_says(
    server: LiveServer, case: schemathesis.Case
) -> None:
    case.call_and_validate(base_url=server.url, checks=CHECKS)


@INVALID.parametrize()
@SETTINGS
def test_a_request_against_the_openapi_page_is_refused_as_the_page_says(
    server: LiveServer, case: schemathesis.Case
) -> None:
    case.call_and_validate(base_url=server.url, checks=CHECKS)
