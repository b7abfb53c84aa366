"""docs/clients.md: its examples run, each in an environment of its own, by a script whose results are committed."""

import json

import pytest

from benchmarks.clients.run import PAGE, RESULTS, Client, read_page

CLIENTS = read_page(PAGE.read_text())


def test_the_page_has_every_client_of_the_specification() -> None:
    names = {client.name for client in CLIENTS}
    assert names == {
        "curl",
        "openai, Python",
        "openai, JavaScript",
        "pydantic-ai",
        "LangChain",
        "OpenAI Agents SDK",
        "Instructor",
        "Agno",
        "LiteLLM",
        "Vercel AI SDK",
    }


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.name)
def test_the_clients_examples_have_passed(client: Client) -> None:
    results = {result["client"]: result for result in json.loads(RESULTS.read_text())}
    assert results[client.name]["passed"]
    assert results[client.name]["version"]


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.name)
def test_a_python_example_compiles(client: Client) -> None:
    for language, source in client.examples:
        if language == "python":
            compile(source, client.name, "exec")
