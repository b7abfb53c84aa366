"""The fine-tuning benchmark: its tools are held out, its questions are what they say, its report adds up."""

import json
import random

from benchmarks.finetune import DATA, MODES, TOOLS, ask, difference, summary, unhelpful
from engine.engine import Engine
from engine.finetuning.examples import draw_examples
from engine.requests import to_tools
from tests.deciders import AS_ASKED
from tests.fakes import fake_that_writes

data = json.loads(DATA.read_text())
WRONG = {"called": False, "right_tool": False, "right_call": False}
RIGHT = {"called": True, "right_tool": True, "right_call": True}


def test_no_tool_and_no_request_of_the_evaluation_is_trained_on() -> None:
    tools = to_tools(json.loads(TOOLS.read_text())["tools"])
    assert not {tool.name for tool in tools} & {tool["name"] for tool in data["tools"]}
    said = {example.request.messages[0].content for example in draw_examples(tools, 500, seed=0)}
    assert not said & {request["message"] for request in data["requests"]}


def test_tools_that_do_not_help_are_never_the_right_ones() -> None:
    tools = {tool["name"]: tool for tool in data["tools"]}
    for request in data["requests"]:
        offered = unhelpful(request, tools, random.Random(0))
        assert offered
        assert not {*offered} & {request["name"], *request["tools"], "web_search"}


def test_an_answer_in_text_is_no_call_and_a_call_is_judged() -> None:
    one = {**data, "requests": data["requests"][:1]}
    with Engine(fake_that_writes("No."), config=AS_ASKED) as engine:
        (text,) = ask(engine, "auto", one, seed=0)
        (call,) = ask(engine, "required", one, seed=0)
    assert text == {**WRONG, "text": "No."}
    assert (call["called"], call["right_tool"], call["call"]["name"]) == (True, True, "calculate")


def test_the_report_has_shares_their_intervals_and_the_paired_change() -> None:
    before = {mode: [WRONG] * 10 for mode in MODES}
    after = {mode: [RIGHT] * 8 + [WRONG] * 2 for mode in MODES}
    rows = {row["question"]: row for row in summary(before, after, seed=0)}
    right = rows["auto: right call"]
    assert (right["before"]["share"], right["after"]["share"], right["change"]["mean"]) == (0.0, 0.8, 0.8)
    assert right["after"]["interval"][0] < 0.8 < right["after"]["interval"][1]
    assert rows["irrelevance: stays text"]["after"]["share"] == 0.2
    assert rows["auto: balanced accuracy"]["change"]["mean"] == 0.0


def test_a_change_is_taken_over_pairs() -> None:
    assert difference([0, 1, 0, 1], [1, 1, 1, 1], seed=0)["mean"] == 0.5
    same = difference([0, 1], [0, 1], seed=0)
    assert (same["low"], same["high"]) == (0, 0)
