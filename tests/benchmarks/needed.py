"""What tests of the benchmarks need that is fetched only where it is asked for."""

import pytest

from benchmarks.bfcl import CATEGORIES, asset
from engine.config import default_cache_dir

needs_data = pytest.mark.skipif(
    not all(asset(category).cached_path(default_cache_dir()).is_file() for category in CATEGORIES),
    reason="BFCL's data are not in the cache; python benchmarks/tool_accuracy.py fetches them",
)
