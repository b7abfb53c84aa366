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
def test_the_clients_examples_have_passed_as_they_stand_on_the_page(client: Client) -> None:
    results = {result["client"]: result for result in json.loads(RESULTS.read_text())}
    result = results[client.name]
    assert result["passed"]
    assert result["digest"] == client.digest, f"run benchmarks/clients/run.py {client.name!r} again"
    assert list(result["versions"]) == client.package_names
    assert all(result["versions"].values())


def test_the_digest_changes_with_an_example_and_with_a_package_but_not_with_the_words_around() -> None:
    page = PAGE.read_text()
    changes = {
        "What is the weather in Paris?": "What is the weather in Rome?",
        "npm install openai`": "npm install openai@6`",
        "Options beyond OpenAI's go": "Other options go",
    }
    for number, (old, new) in enumerate(changes.items()):
        assert old in page
        changed = [client.digest for client in read_page(page.replace(old, new))]
        assert (changed == [client.digest for client in CLIENTS]) == (number == 2)


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.name)
def test_a_python_example_compiles(client: Client) -> None:
    for language, source in client.examples:
        if language == "python":
            compile(source, client.name, "exec")
