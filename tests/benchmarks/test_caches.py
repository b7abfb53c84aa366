"""benchmarks/caches.py with a tiny random model, the whole way."""

import json
from pathlib import Path

import mlx.core as mx
import pytest

from benchmarks import caches
from tests.tiny_models import CONFIG, random_weights, write_folder


def test_every_way_is_measured_in_both_workloads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_folder(
        tmp_path / "model", CONFIG | {"vocab_size": 1000}, random_weights(CONFIG | {"vocab_size": 1000})
    )
    caches.main(["--json", "--model", str(folder), "--rows", "1", "3", "--steps", "3", "--context", "40"])
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [(one["rows"], one["max_width"]) for one in result["measured"]] == [(1, 1), (3, 1), (1, 4), (3, 4)]
    for one in result["measured"]:
        assert one["ms"].keys() == one["cpu_ms"].keys() == {way.name for way in caches.WAYS}
        assert one["ratio_to_slots"]["slots"]["median"] == 1


def test_a_way_that_gives_other_states_is_no_result() -> None:
    states = {way.name: [mx.ones(4)] for way in caches.WAYS}
    caches.check_same(states)
    states["slots"] = [mx.array([1.0, 1.0, 1.0, 1.1])]
    with pytest.raises(RuntimeError, match="slots gives other hidden states"):
        caches.check_same(states)
