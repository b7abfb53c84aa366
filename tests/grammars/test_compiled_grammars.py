"""What the default compiler keeps of what it compiled: a source is compiled once, and nothing is shared by accident."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from engine.errors import GrammarError, MatcherError
from engine.grammars import llguidance_backend
from engine.grammars.llguidance_backend import MAX_CACHED_GRAMMARS, LLGuidanceCompiler
from engine.sampling.bitmask import num_words
from tests.fakes import EOS, fake_tokenizer

TOKENIZER = fake_tokenizer()
EOS_ID = TOKENIZER.encode(EOS)[0]
WORDS = num_words(TOKENIZER.num_tokens)

ids = TOKENIZER.encode


class Builds:
    """Counts what is really compiled."""

    def __init__(self, compiler: LLGuidanceCompiler, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sources: list[str] = []
        build = compiler._build

        def counting(source: str, param: str) -> object:
            self.sources.append(source)
            return build(source, param)

        monkeypatch.setattr(compiler, "_build", counting)


@pytest.fixture
def fresh() -> LLGuidanceCompiler:
    return LLGuidanceCompiler(TOKENIZER.backend_json(), eos_ids=[EOS_ID])


def test_one_source_is_compiled_once(fresh: LLGuidanceCompiler, monkeypatch: pytest.MonkeyPatch) -> None:
    builds = Builds(fresh, monkeypatch)
    for param in ("tools", "response", "tools"):
        fresh.compile("start: /a*/", param=param)
    fresh.compile("start: /b*/", param="tools")
    assert builds.sources == ["start: /a*/", "start: /b*/"]


def test_matchers_of_one_source_are_independent(fresh: LLGuidanceCompiler) -> None:
    first = fresh.compile('start: "a" ("b" | "c")', param="p")
    first.accept([*ids("a"), *ids("b")])
    second = fresh.compile('start: "a" ("b" | "c")', param="p")
    assert second.validate(ids("a")) == 1
    with pytest.raises(MatcherError):
        second.accept(ids("x"))
    third = fresh.compile('start: "a" ("b" | "c")', param="p")
    assert third.validate(ids("a")) == 1


def test_the_cache_is_bounded_and_drops_what_was_not_asked_for_longest(
    fresh: LLGuidanceCompiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F25."""
    builds = Builds(fresh, monkeypatch)
    for number in range(MAX_CACHED_GRAMMARS):
        fresh.compile(f'start: "g{number}"', param="p")
    fresh.compile('start: "g0"', param="p")  # no longer the oldest
    fresh.compile('start: "one more"', param="p")
    builds.sources.clear()
    fresh.compile('start: "g0"', param="p")
    assert builds.sources == []
    fresh.compile('start: "g1"', param="p")
    assert builds.sources == ['start: "g1"']


def test_a_failure_is_not_kept(fresh: LLGuidanceCompiler, monkeypatch: pytest.MonkeyPatch) -> None:
    builds = Builds(fresh, monkeypatch)
    for _ in range(2):
        with pytest.raises(GrammarError):
            fresh.compile("start: nothing", param="p")
    assert len(builds.sources) == 2


def test_several_threads_may_compile_and_walk_at_once(
    fresh: LLGuidanceCompiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(llguidance_backend, "MAX_CACHED_GRAMMARS", 3)
    start = threading.Barrier(8)

    def work(worker: int) -> list[bool]:
        start.wait(timeout=30)
        results = []
        for turn in range(20):
            number = (worker + turn) % 5
            matcher = fresh.compile(f'start: "a" /{number}+/', param="p")
            matcher.accept(ids("a"))
            matcher.accept(ids(str(number)))
            matcher.fill_bitmask(np.empty(WORDS, dtype=np.int32))
            results.append(matcher.is_accepting and not matcher.validate(ids("x")))
        return results

    with ThreadPoolExecutor(8) as pool:
        assert all(all(results) for results in pool.map(work, range(8)))
