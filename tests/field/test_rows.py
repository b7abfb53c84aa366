"""The field's known failures are numbered F1 to F29. Each has its test here, which cites it."""

import ast
import re
from pathlib import Path

NUM_ROWS = 29
FIELD = Path(__file__).parent
PAGE = FIELD.parent.parent / "docs" / "guarantee.md"


def cited_in(*files: Path) -> set[int]:
    """The rows that docstrings of tests cite."""
    trees = [ast.parse(path.read_text()) for path in files]
    functions = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    docstrings = [ast.get_docstring(node) or "" for node in functions if node.name.startswith("test_")]
    return {int(row) for text in docstrings for row in re.findall(r"\bF([0-9]+)\b", text)}


def test_every_row_has_a_test_in_this_folder() -> None:
    assert cited_in(*FIELD.glob("test_*.py")) == set(range(1, NUM_ROWS + 1))


def test_no_test_cites_a_row_that_there_is_not() -> None:
    assert cited_in(*FIELD.parent.rglob("test_*.py")) <= set(range(1, NUM_ROWS + 1))


def test_the_page_about_the_guarantee_says_which_file_holds_which_rows() -> None:
    table = re.findall(r"^\| `(test_\w+\.py)` \| ([F0-9, ]+) \|", PAGE.read_text(), re.MULTILINE)
    stated = {name: {int(row) for row in re.findall(r"\d+", rows)} for name, rows in table}
    cited = {path.name: cited_in(path) for path in FIELD.glob("test_*.py")}
    assert stated == {name: rows for name, rows in cited.items() if rows}
