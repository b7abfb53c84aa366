"""One engine for all that is refused: it never runs."""

from collections.abc import Iterator

import pytest

from engine.engine import Engine
from tests.fakes import fake_loaded


@pytest.fixture(scope="package")
def engine() -> Iterator[Engine]:
    with Engine(fake_loaded()) as engine:
        yield engine


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "way" in metafunc.fixturenames:
        metafunc.parametrize("way", ["chat", "stream"])
