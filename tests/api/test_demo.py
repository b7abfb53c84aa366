"""`toolmask demo`: the main job, end to end, on real weights."""

import json

import pytest

from api.demo import run_demo


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
