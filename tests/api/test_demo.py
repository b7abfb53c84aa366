"""`toolmask demo`: the main job, end to end, on real weights."""

import io
import json
import sys

import pytest

from api.demo import run_demo
from engine.errors import BudgetError, ConfigError
from tests.fakes import fake_loaded


@pytest.mark.embedded
def test_the_demo_ends_with_a_valid_call_and_its_result_for_each_test(capsys: pytest.CaptureFixture[str]) -> None:
    run_demo("smollm2-135m", max_tokens=64)
    lines = capsys.readouterr().out.splitlines()
    first, second, direct = (json.loads(line) for line in lines[-3:])
    assert [each["test"] for each in (first, second, direct)] == [1, 2, 3]
    for each in (first, second):
        assert each["mode"] == "required"
        assert each["call"]["name"] == "calculate"
        assert set(each["call"]["arguments"]) == {"expression"}
        assert each["result"]["success"] in (True, False)
        assert each["forced"] > 0
        assert each["forwards"] < each["tokens"]
    assert direct["result"] == {"success": True, "result": 20.0}


def test_a_limit_below_1_is_refused_before_anything_is_loaded() -> None:
    with pytest.raises(ConfigError, match="max_tokens is 0"):
        run_demo("no-such-model", max_tokens=0)


def demo_of_a_fake(monkeypatch: pytest.MonkeyPatch, *, max_tokens: int) -> None:
    monkeypatch.setattr("api.demo.load_shown", lambda *_: fake_loaded(hermes=True))
    run_demo("fake", max_tokens=max_tokens)


def test_a_limit_is_refused_by_the_least_one_and_with_that_the_calls_are_whole(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(BudgetError, match="max_tokens is 2; the shortest complete answer") as refused:
        demo_of_a_fake(monkeypatch, max_tokens=2)
    capsys.readouterr()
    demo_of_a_fake(monkeypatch, max_tokens=refused.value.least)
    first, second, _ = (json.loads(line) for line in capsys.readouterr().out.splitlines()[-3:])
    assert {first["call"]["name"], second["call"]["name"]} == {"calculate"}
    assert max(first["tokens"], second["tokens"]) <= refused.value.least


def test_an_output_without_utf_8_is_written_to(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
    demo_of_a_fake(monkeypatch, max_tokens=40)
    sys.stdout.flush()
    assert b'"call": {"name": "calculate"' in written.getvalue()
