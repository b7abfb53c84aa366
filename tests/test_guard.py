"""Tokens are taken only where the turn can still be completed; while the budget is far, nothing is searched."""

from collections.abc import Sequence as Rows
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

from engine.config import EngineConfig
from engine.engine import Engine
from engine.errors import BudgetError, VetoError
from engine.events import StopReason
from engine.grammars.closing_hints import ClosingHints
from engine.grammars.llguidance_backend import LLGuidanceCompiler
from engine.grammars.matcher import Matcher
from engine.guard import MARGIN, Guard
from engine.types import CustomTool, Grammar, Request, SamplingParams, Tool
from tests.fakes import CALCULATE, EOS, USER, fake_loaded, fake_model, fake_tokenizer

LETTERS = "start: /[a-z]+/"
NEVER_ENDS = {EOS: -(10**6)}


def letters(grammar: str = LETTERS) -> Matcher:
    tokenizer = fake_tokenizer()
    return LLGuidanceCompiler(tokenizer.backend_json(), eos_ids=sorted(tokenizer.eos_ids)).compile(grammar, param="x")


@dataclass
class Finder:
    """Finds what it is told to find, and counts how often it is asked."""

    found: tuple[int, ...] | None
    asked: list[int] = field(default_factory=list)  # the room of each search
    nodes: list[int | None] = field(default_factory=list)  # that each may look at

    def path(
        self, matcher: Matcher, max_tokens: int, hints: ClosingHints, max_nodes: int | None
    ) -> tuple[int, ...] | None:
        del matcher, hints
        self.nodes.append(max_nodes)
        self.asked.append(max_tokens)
        return self.found if self.found is not None and len(self.found) <= max_tokens else None

    def shortest(self, matcher: Matcher, max_tokens: int, hints: ClosingHints) -> tuple[int, ...] | None:
        return self.path(matcher, max_tokens, hints, None)


@dataclass(frozen=True)
class Bound:
    """So many tokens, however deep."""

    tokens: int

    def at(self, depth: int) -> int:
        del depth
        return self.tokens


def guard_of(finder: Finder, bound: int | None, *, vetoes: bool = False) -> Guard:
    known = None if bound is None else Bound(bound)
    return Guard(finder, fake_tokenizer().token_bytes, ClosingHints(), known, fake_tokenizer().eos_ids, vetoes)


def test_while_the_bound_fits_into_what_is_left_nothing_is_searched() -> None:
    finder = Finder(None)
    guard = guard_of(finder, bound=10)
    assert guard.begin(letters(), room=10 + MARGIN, most=100) == 0
    assert guard.admits(letters(), fake_tokenizer().encode("a")[0], room=10 + MARGIN)
    assert finder.asked == []


@pytest.mark.parametrize("bound", [10, None])
def test_near_the_end_a_token_is_admitted_only_with_a_way_that_fits(bound: int | None) -> None:
    (token,) = fake_tokenizer().encode("a")
    finder = Finder((7, 8, 9))
    guard = guard_of(finder, bound)
    assert guard.admits(letters("start: /[a-z]{20}/"), token, room=3)
    assert guard.path == (7, 8, 9)
    assert not guard_of(finder, bound).admits(letters("start: /[a-z]{20}/"), token, room=2)


def test_a_token_after_which_the_known_way_still_leads_to_the_end_needs_no_search() -> None:
    a, b, c = (fake_tokenizer().encode(letter)[0] for letter in "abc")
    finder = Finder(None)
    guard = guard_of(finder, None)
    guard.path = (a, b)
    assert guard.admits(letters("start: /[a-c]b?/"), c, room=3)
    assert (guard.path, finder.asked) == ((), [])
    guard.path = (a, b)
    assert guard.admits(letters("start: /[a-c]b/"), c, room=3)
    assert (guard.path, finder.asked) == ((b,), [])
    guard.path = (a, b)
    assert not guard.admits(letters("start: /[a-c]b/"), c, room=0)


def test_a_known_way_that_would_be_forced_in_other_tokens_from_here_is_no_way() -> None:
    """Else what is forced leaves it, and from there no other may fit."""
    a, b, c, quote, brace, comma = (fake_tokenizer().encode(sign)[0] for sign in 'abc"},')
    (joined,) = fake_tokenizer().encode('"}},')
    matcher = letters('start: /[ab][cd]/ "\\"}},"')
    finder = Finder(None)
    guard = guard_of(finder, None)

    guard.path = (a, c, quote, brace, brace, comma)
    assert not guard.admits(matcher, b, room=5)
    assert finder.asked == [5]

    guard.path = (a, c, joined)
    assert guard.admits(matcher, b, room=5)
    assert guard.path == (c, joined)
    matcher.accept([b, c])
    assert matcher.forced_tokens() == [joined]


def test_tokens_that_are_refused_at_one_position_cost_less_and_less() -> None:
    tokens = [fake_tokenizer().encode(letter)[0] for letter in "bcdefghi"]
    finder = Finder(None)
    guard = guard_of(finder, None)
    guard.path = (fake_tokenizer().encode("a")[0],)
    assert not any(guard.admits(letters("start: /ab?|[b-z][cd]{20}/"), token, room=1) for token in tokens)
    assert finder.nodes == [64, 32, 16, 8, 8, 8, 8, 8]


def test_the_known_way_is_followed_without_a_search() -> None:
    finder = Finder(None)
    guard = guard_of(finder, None)
    guard.path = (7, 8, 9)
    assert guard.admits(letters(), 7, room=2)
    guard.follow(letters(), [8], room=1)
    assert (guard.path, finder.asked) == ((9,), [])


def test_where_the_bound_holds_a_search_that_finds_nothing_does_no_harm() -> None:
    (token,) = fake_tokenizer().encode("a")
    guard = guard_of(Finder(None), bound=10)
    assert guard.admits(letters(), token, room=10)
    assert guard.path is None


def test_the_least_budget_is_the_length_of_the_way_that_is_found() -> None:
    assert guard_of(Finder((1, 2, 3)), bound=None).begin(letters(), room=2, most=100) == 3
    assert guard_of(Finder(None), bound=None).begin(letters(), room=2, most=100) is None


@dataclass
class Picky:
    """Refuses tokens that its mask allows."""

    inner: Matcher
    refused: set[int]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def accept(self, tokens: Rows[int]) -> None:
        if self.refused & set(tokens):
            raise VetoError("refused")
        self.inner.accept(tokens)

    def copy(self) -> "Picky":
        return replace(self, inner=self.inner.copy())


@pytest.mark.parametrize("num_refused", [1, 3, 7])
def test_a_token_that_is_refused_gives_way_to_the_next_likeliest_one(
    num_refused: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = fake_loaded()
    prompt = tuple(loaded.tokenizer.encode("hi there"))
    logits = fake_model(loaded).logits_after(list(prompt))
    best_first = [token for token in np.argsort(-logits).tolist() if token < loaded.tokenizer.num_tokens]
    letters_only = [token for token in best_first if _is_word(loaded.tokenizer.token_bytes(token))]
    refused = set(letters_only[:num_refused])
    compile_ = LLGuidanceCompiler.compile
    monkeypatch.setattr(LLGuidanceCompiler, "compile", lambda *args, **kw: Picky(compile_(*args, **kw), refused))
    monkeypatch.setattr("engine.admission.bool", lambda _: True, raising=False)  # the turn is one with vetoes

    with Engine(loaded) as engine:
        answer = engine.submit(Request(prompt=prompt, response=Grammar.lark(LETTERS), max_tokens=1)).completion()

    assert answer.text == loaded.tokenizer.decode([letters_only[num_refused]])


def _is_word(text: bytes) -> bool:
    return text.isalpha() and text.islower() and text.isascii()


# The same through the engine.


def test_a_far_budget_costs_no_search_and_a_near_one_does() -> None:
    with Engine(fake_loaded(bonus={'"': 400})) as engine:
        closing = engine._admission.closing
        engine.chat([USER], tools=[CALCULATE], tool_choice="required", parallel_tool_calls=False, max_tokens=1000)
        assert closing.num_searches == 0
        engine.chat([USER], tools=[CALCULATE], tool_choice="required", parallel_tool_calls=False, max_tokens=60)
        assert closing.num_searches > 0


@pytest.mark.parametrize("hermes", [False, True], ids=["plain", "hermes"])
@pytest.mark.parametrize("seed", range(3))
def test_forced_and_unforced_calls_are_the_same_at_the_least_budget(hermes: bool, seed: int) -> None:
    calls = []
    for fast_forward in (True, False):
        with Engine(fake_loaded(hermes=hermes), config=EngineConfig(fast_forward=fast_forward)) as engine:
            asked = {"tools": [CALCULATE], "tool_choice": "required", "sampling": SamplingParams(seed=seed)}
            with pytest.raises(BudgetError) as caught:
                engine.chat([USER], **asked, max_tokens=1)
            answer = engine.chat([USER], **asked, max_tokens=caught.value.least)
            calls.append([(call.name, call.arguments) for call in answer.tool_calls])
            assert answer.stop_reason is StopReason.GRAMMAR_END
    assert calls[0] == calls[1]


@pytest.mark.parametrize("max_tokens", [1, 2, 3])
def test_where_no_token_that_goes_on_leaves_a_way_to_the_end_the_turn_ends(max_tokens: int) -> None:
    with Engine(fake_loaded(bonus=NEVER_ENDS)) as engine:
        answer = engine.chat([USER], response=Grammar.regex("a([b-z][a-z]{30})?"), max_tokens=max_tokens)
    assert (answer.text, answer.usage.completion_tokens) == ("a", 1)


def test_a_custom_grammar_is_complete_at_its_least_budget() -> None:
    with Engine(fake_loaded(bonus=NEVER_ENDS)) as engine:
        lark = Grammar.lark('start: "BEGIN " /[a-z]+/ " END"')
        with pytest.raises(BudgetError) as caught:
            engine.chat([USER], response=lark, max_tokens=1)
        for more in range(4):
            text = engine.chat([USER], response=lark, max_tokens=caught.value.least + more).text or ""
            assert text.startswith("BEGIN ")
            assert text.endswith(" END")


@pytest.mark.parametrize("form", [None, Grammar.regex("[^x]+")])
def test_an_input_of_a_custom_tool_that_only_text_ends_is_complete_at_its_least_budget(form: Grammar | None) -> None:
    with Engine(fake_loaded(bonus=NEVER_ENDS)) as engine:
        asked: dict[str, Any] = {"tools": [CustomTool("note", format=form)], "tool_choice": "required"}
        with pytest.raises(BudgetError) as caught:
            engine.chat([USER], **asked, max_tokens=1)
        for max_tokens in (caught.value.least, caught.value.least + 8):
            answer = engine.chat([USER], **asked, max_tokens=max_tokens)
            assert [call.name for call in answer.tool_calls] == ["note"]
            assert answer.stop_reason is StopReason.GRAMMAR_END


def test_a_tool_whose_schema_nothing_satisfies_is_named() -> None:
    impossible = {
        "type": "object",
        "properties": {"a": {"enum": [1, 2]}},
        "required": ["a"],
        "not": {"required": ["a"]},
    }
    with Engine(fake_loaded()) as engine, pytest.raises(Exception, match=r"tools\[1\]"):
        engine.chat([USER], tools=[CALCULATE, Tool("none", "", impossible)], tool_choice="required")
