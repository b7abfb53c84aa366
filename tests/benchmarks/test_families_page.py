"""docs/families.md is what the script writes."""

import json

from benchmarks.families_page import PAGE, page
from benchmarks.family_walks import NUM_WALKS, RESULTS
from engine.grammars.tool_formats import TOOL_FORMATS


def test_the_page_is_written_from_the_families() -> None:
    assert PAGE.read_text() == page(json.loads(RESULTS.read_text()))


def test_every_family_has_committed_walks() -> None:
    rows = json.loads(RESULTS.read_text())
    assert set(rows) == {family.name for family in TOOL_FORMATS}
    for name, row in rows.items():
        assert row["walks"] == 4 * NUM_WALKS, name
        assert row["failures"] == 0, name
        assert row["complete_calls"] > NUM_WALKS, name
