"""The page about structured output runs as it stands."""

import re
from pathlib import Path

import pytest

from engine.engine import Engine
from engine.structured import Answer
from tests.fakes import fake_loaded

PAGE = Path(__file__).parent.parent / "docs" / "structured.md"


def test_the_examples_on_the_page_run_one_after_another(capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    with Engine(fake_loaded(bonus={'"': 400})) as engine:
        names: dict[str, object] = {"engine": engine, "__name__": "structured_page"}
        for number, block in enumerate(blocks):
            exec(compile(block, f"{PAGE.name}, example {number}", "exec"), names)
    assert len(blocks) == 7
    assert isinstance(names["found"], Answer)
    assert "max_tokens is 2; the shortest complete answer to this request has" in capsys.readouterr().out
