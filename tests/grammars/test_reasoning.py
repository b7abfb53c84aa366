"""Reasoning is a part of the turn's grammar: before text, calls or a response, or opened by the prompt already."""

import pytest

from engine.errors import MatcherError
from engine.events import ReasoningDelta, TextDelta, ToolCallStart
from engine.grammars.llguidance_backend import LLGuidanceCompiler
from engine.grammars.matcher import Matcher
from engine.grammars.reasoning_budget import ReasoningBudget, reasoning_tags
from engine.grammars.tool_format import THINK, Opening, ToolFormat
from engine.grammars.tool_formats import HARMONY, HERMES
from engine.grammars.turn import build_turn
from engine.grammars.turn_parser import ParsedEvent, TurnParser
from engine.tokenizer import Tokenizer
from engine.types import Grammar, Request
from tests.fakes import fake_tokenizer
from tests.grammars.turns import CLOCK, NONE, REQUIRED, an_object, call_of, each_family, request, takes

CALL_INSIDE = '<tool_call>\n{"name": "clock", "arguments": {}}\n</tool_call>'
THOUGHTS = ["", "a", "\nLet me see. <tool_call> < </thin\n", CALL_INSIDE, "日本 😀", "</think", "a <think>"]
OBJECT = Grammar.json_schema(an_object({"a": {"type": "integer"}}, required=["a"]))


def tokenizer_of(family: ToolFormat) -> Tokenizer:
    """The tags are text for the plain family, tokens for Hermes."""
    return fake_tokenizer(hermes=family is HERMES, reasons=True)


def matcher_of(asked: Request, family: ToolFormat, opening: Opening) -> Matcher:
    tokenizer = tokenizer_of(family)
    compiler = LLGuidanceCompiler(tokenizer.backend_json(), eos_ids=sorted(tokenizer.eos_ids))
    matcher = build_turn(asked, family, tokenizer.unspellable, opening).compile(compiler)
    assert matcher is not None
    return matcher


def tokens_of(family: ToolFormat, *parts: str) -> list[int]:
    """Tags and markers are tokens at a part's ends only: what stands between is spelled."""
    tokenizer = tokenizer_of(family)
    tokens: list[int] = []
    for part in parts:
        known = tokenizer.token_id(part) if part in tokenizer.unspellable else None
        letters = [token for letter in part for token in tokenizer.encode(letter)]
        tokens += letters if known is None else [known]
    return tokens


def thought(text: str, *, opened: bool = False) -> list[str]:
    return ([] if opened else ["<think>"]) + [text, "</think>", "\n\n"]


def call_parts(family: ToolFormat) -> list[str]:
    text = call_of(family, "clock", {})
    inner = text.removeprefix("<tool_call>").removesuffix("</tool_call>")
    return ["<tool_call>", inner, "</tool_call>"]


def read(family: ToolFormat, tokens: list[int], opening: Opening, *, has_calls: bool = True) -> list[ParsedEvent]:
    tokenizer = tokenizer_of(family)
    parser = TurnParser(family, has_calls=has_calls, special_tokens=tokenizer.unspellable, call_id=str, opening=opening)
    detokenizer, events = tokenizer.detokenizer(), list[ParsedEvent]()
    for token in tokens:
        events += parser.feed(detokenizer.feed(token), special=token in tokenizer.unspellable.values())
    return [*events, *parser.finish()]


def reasoning_of(events: list[ParsedEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, ReasoningDelta))


def text_of(events: list[ParsedEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


def names_of(events: list[ParsedEvent]) -> list[str]:
    return [event.name for event in events if isinstance(event, ToolCallStart)]


@each_family
@pytest.mark.parametrize("opened", [False, True], ids=["opened by the model", "opened by the prompt"])
@pytest.mark.parametrize("inside", THOUGHTS)
def test_a_turn_may_reason_before_it_answers_or_calls(family: ToolFormat, inside: str, opened: bool) -> None:
    """F16; F17: a call inside the reasoning is reasoning."""
    opening = Opening.INSIDE if opened else Opening.BEFORE
    before = thought(inside, opened=opened)
    call = call_parts(family)
    for asked, after, text, names in (
        (request(CLOCK), ["The answer"], "The answer", []),
        (request(CLOCK), call, "", ["clock"]),
        (request(CLOCK), ["Hm. ", *call], "Hm. ", ["clock"]),
        (request(CLOCK, choice=REQUIRED), call, "", ["clock"]),
        (request(CLOCK, choice=NONE), ["The answer"], "The answer", []),
        (request(), ["The answer"], "The answer", []),
        (request(response=OBJECT), ['{"a": 5}'], '{"a": 5}', []),
        (request(CLOCK, response=OBJECT), call, "", ["clock"]),
    ):
        tokens = tokens_of(family, *before, *after)
        assert takes(matcher_of(asked, family, opening), tokens)
        events = read(family, tokens, opening, has_calls=bool(asked.callable_tools))
        assert reasoning_of(events) == inside.strip("\n")
        assert (text_of(events), names_of(events)) == (text, names)


@each_family
def test_reasoning_that_the_prompt_did_not_open_is_optional(family: ToolFormat) -> None:
    call = tokens_of(family, *call_parts(family))
    assert takes(matcher_of(request(CLOCK), family, Opening.BEFORE), call)
    assert takes(matcher_of(request(CLOCK, choice=REQUIRED), family, Opening.BEFORE), call)
    assert takes(matcher_of(request(response=OBJECT), family, Opening.BEFORE), tokens_of(family, '{"a": 5}'))
    assert takes(matcher_of(request(CLOCK), family, Opening.BEFORE), tokens_of(family, "<thin king"))
    assert read(family, call, Opening.BEFORE)


@each_family
def test_reasoning_that_the_prompt_opened_must_be_closed(family: ToolFormat) -> None:
    """F16."""
    for asked, after in ((request(CLOCK), call_parts(family)), (request(response=OBJECT), ['{"a": 5}'])):
        matcher = matcher_of(asked, family, Opening.INSIDE)
        matcher.accept(tokens_of(family, "".join(after)))  # markers spelled: as tokens, they are masked in reasoning
        assert not matcher.is_accepting
        matcher.accept(tokens_of(family, "</think>"))
        assert not matcher.is_accepting
        matcher.accept(tokens_of(family, "\n\n", *after))
        assert matcher.is_accepting


@each_family
def test_there_is_one_block_of_reasoning_at_the_beginning_alone(family: ToolFormat) -> None:
    matcher = matcher_of(request(CLOCK), family, Opening.BEFORE)
    matcher.accept(tokens_of(family, *thought("a")))
    begin = tokens_of(family, "<think>")
    assert matcher.validate(begin) < len(begin)


@each_family
def test_reasoning_adds_up_to_the_same_however_it_is_cut(family: ToolFormat) -> None:
    """F12."""
    tokens = tokens_of(family, *thought("\n\n a\n\nb </th \n\n"), "text")
    events = read(family, tokens, Opening.BEFORE)
    assert reasoning_of(events) == " a\n\nb </th "
    assert text_of(events) == "text"


@pytest.mark.parametrize(
    ("prompt", "may_open", "opening"),
    [
        ("<|im_start|>assistant\n", True, Opening.BEFORE),
        ("<|im_start|>assistant\n", False, Opening.NONE),
        ("<|im_start|>assistant\n<think>\n", True, Opening.INSIDE),
        ("<|im_start|>assistant\n<think>", False, Opening.INSIDE),
        ("<|im_start|>assistant\n<think>\n\n</think>\n\n", True, Opening.NONE),
    ],
)
def test_the_prompts_end_tells_where_the_turn_begins(prompt: str, may_open: bool, opening: Opening) -> None:
    assert THINK.opening(prompt, may_open=may_open) is opening


@pytest.mark.parametrize("role", ["user", "functions.clock to=assistant<|channel|>commentary"])
def test_the_end_of_a_harmony_message_is_not_the_end_of_reasoning(role: str) -> None:
    """gpt-oss's template ends any message as the model ends its analysis."""
    assert HARMONY.reasoning is not None
    prompt = f"<|start|>{role}<|message|>hi<|end|><|start|>assistant"
    assert HARMONY.reasoning.opening(prompt, may_open=True) is Opening.BEFORE
    thought_out = f"{prompt}<|channel|>analysis<|message|><|end|><|start|>assistant"
    assert HARMONY.reasoning.opening(thought_out, may_open=True) is Opening.NONE
    assert HARMONY.reasoning.opening(f"{prompt}<|channel|>analysis<|message|>", may_open=True) is Opening.INSIDE


# --- The budget


def budgeted(family: ToolFormat, budget: int, opening: Opening) -> ReasoningBudget:
    begin = THINK.begin if opening is Opening.BEFORE else ""
    tags = reasoning_tags(begin, THINK.end, tokenizer_of(family))
    return ReasoningBudget(matcher_of(request(CLOCK, choice=REQUIRED), family, opening), tags, budget)


@each_family
@pytest.mark.parametrize("budget", [0, 1, 5])
@pytest.mark.parametrize("opening", [Opening.BEFORE, Opening.INSIDE])
def test_when_the_budget_is_used_up_the_block_is_closed(family: ToolFormat, budget: int, opening: Opening) -> None:
    matcher = budgeted(family, budget, opening)
    if opening is Opening.BEFORE:
        matcher.accept(tokens_of(family, "<think>"))
    for token in tokens_of(family, "abcdefgh"[:budget]):
        assert matcher.forced_tokens() == []
        matcher.accept([token])
    end = list(tokenizer_of(family).encode("</think>"))
    assert matcher.forced_tokens() == end
    assert matcher.validate(tokens_of(family, "a")) == 0
    with pytest.raises(MatcherError):
        matcher.accept(tokens_of(family, "a"))
    matcher.accept(end)
    assert matcher.validate(tokens_of(family, "\n\n", *call_parts(family))) > 2


@each_family
def test_a_budget_that_is_not_used_up_changes_nothing(family: ToolFormat) -> None:
    matcher = budgeted(family, 20, Opening.BEFORE)
    assert takes(matcher, tokens_of(family, *thought("abc"), *call_parts(family)))
    assert takes(budgeted(family, 0, Opening.BEFORE), tokens_of(family, *call_parts(family)))


@each_family
def test_a_character_that_is_open_when_the_budget_is_used_up_is_written_to_its_end(family: ToolFormat) -> None:
    """F23."""
    matcher = budgeted(family, 1, Opening.INSIDE)
    first, *others = tokens_of(family, "😀")
    matcher.accept([first])
    for token in others:
        assert matcher.forced_tokens() == []
        matcher.accept([token])
    assert matcher.forced_tokens() == list(tokenizer_of(family).encode("</think>"))
