"""Models that stand behind the three surfaces."""

from collections.abc import Iterator

import pytest

from tests.api.servers import fake_that_answers
from tests.fakes import EOS, fake_loaded
from tests.field.surfaces import Surface, surfaces


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "surface_name" in metafunc.fixturenames:
        metafunc.parametrize("surface_name", ["python", "chat", "streamed chat"])


@pytest.fixture(scope="package")
def all_noise() -> Iterator[dict[str, Surface]]:
    # Quotes and braces are likely, so that values end; the turn's own end is not, so that nothing ends too soon.
    with surfaces(fake_loaded(bonus={'"': 350, '"}': 300, "}": 250, "]": 250, EOS: -300})) as each:
        yield each


@pytest.fixture
def noise(all_noise: dict[str, Surface], surface_name: str) -> Surface:
    """A model of noise: whatever is not enforced, it does wrong."""
    return all_noise[surface_name]


@pytest.fixture(scope="package")
def all_scripted() -> Iterator[dict[str, Surface]]:
    with surfaces(fake_that_answers(_last_message, hermes=False)) as each:
        yield each


def _last_message(prompt: str) -> str:
    return prompt.rpartition("<|im_start|>user\n")[2].partition("<|im_end|>")[0]


@pytest.fixture
def parrot(all_scripted: dict[str, Surface], surface_name: str) -> Surface:
    """A model that wants to write the user's last message, word for word."""
    return all_scripted[surface_name]


@pytest.fixture(scope="package")
def all_thinkers() -> Iterator[dict[str, Surface]]:
    with surfaces(fake_that_answers(_last_message, hermes=False, reasons=True)) as each:
        yield each


@pytest.fixture
def thinker(all_thinkers: dict[str, Surface], surface_name: str) -> Surface:
    """The same, of a family that reasons before it answers."""
    return all_thinkers[surface_name]
