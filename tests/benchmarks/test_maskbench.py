"""What the MaskBench script counts as what."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from benchmarks.maskbench import DATA, Outcome, Verdict, orders, read_rows, run, summary
from engine.grammars.json_schema import check_schema
from tests.fakes import fake_tokenizer
from tests.grammars.turns import INTEGER, PLAIN, STRING, an_object, compiler_of


def outcome_of(schema: Any, *tests: tuple[bool, Any]) -> Outcome:
    row = {
        "id": "x",
        "split": "s",
        "schema": schema,
        "tests": [{"valid": valid, "data": data} for valid, data in tests],
    }
    tokenizer = Tokenizer.from_str(fake_tokenizer().backend_json())
    return run(row, compiler_of(PLAIN), tokenizer)


def test_an_instance_is_taken_or_refused_and_a_valid_one_is_refused_for_a_reason() -> None:
    schema = an_object({"a": INTEGER, "b": {**STRING, "format": "time"}}, required=["a"])
    tests = [
        (True, {"a": 1, "b": "12:00:00Z"}),
        (False, {"b": "12:00:00Z"}),
        (True, {"b": "12:00:00Z", "a": 1}),
        (True, {"a": 1.0}),
        (True, {"a": 1, "b": "23:59:60Z"}),
    ]
    assert outcome_of(schema, *tests).verdicts == [
        Verdict(True, True),
        Verdict(False, False),
        Verdict(True, False, "key order"),
        Verdict(True, False, "number form"),
        Verdict(True, False, "format"),
    ]


def test_a_value_that_only_the_veto_refuses_is_refused() -> None:
    outcome = outcome_of({"uniqueItems": True}, (True, [1]), (False, [1, 1]))
    assert outcome.has_veto
    assert outcome.verdicts == [Verdict(True, True), Verdict(False, False)]


def test_a_schema_that_is_refused_has_a_reason_without_its_path_and_no_verdicts() -> None:
    outcome = outcome_of({"properties": {"a": {"$ref": "http://x"}}}, (True, {}))
    assert outcome.refused is not None
    assert outcome.refused.startswith("$ref: 'http://x' leads to no schema")
    assert outcome.verdicts == []


def test_the_summary_counts_wrong_verdicts_and_times_by_split() -> None:
    wrong = [Verdict(True, False, "unexplained"), Verdict(False, True), Verdict(True, False, "key order")]
    outcomes = [Outcome("a", "s", verdicts=wrong, mask_s=[0.001]), Outcome("b", "t", refused="why")]
    found = summary(outcomes)
    assert (found["total"]["unexplained"], found["total"]["invalid_accepted"]) == (1, 1)
    assert found["total"]["valid_refused_as_narrowed"] == {"key order": 1}
    assert found["total"]["refused"] == {"why": 1}
    assert found["splits"]["s"]["mask_ms"]["p50"] == 1.0
    assert found["splits"]["t"]["enforced"] == 0


def test_orders_are_those_of_each_alternative() -> None:
    schema = check_schema({"anyOf": [an_object({"b": STRING, "a": True}), an_object({"a": True, "b": INTEGER})]}, "s")
    found = [list(each) for each in orders({"b": "x", "a": 1}, schema.schema, schema.schema)]
    assert found == [["b", "a"]]


def test_rows_are_read_from_gzipped_lines(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl.gz"
    with gzip.open(path, "wt") as file:
        file.write(json.dumps({"id": 1}) + "\n" + json.dumps({"id": 2}) + "\n")
    assert [row["id"] for row in read_rows(path)] == [1, 2]


@pytest.mark.skipif(not DATA.is_file(), reason="the MaskBench sample is not beside the project")
def test_of_the_sample_at_least_97_in_100_schemas_are_enforced_and_no_invalid_instance_is_accepted() -> None:
    rows = list(read_rows(DATA))[::8]
    outcomes = [outcome_of(row["schema"], *((test["valid"], test["data"]) for test in row["tests"])) for row in rows]
    found = summary(outcomes)["total"]
    assert found["enforced_share"] >= 0.97
    assert (found["invalid_accepted"], found["unexplained"]) == (0, 0)
