"""The default grammar compiler: llguidance behind the Matcher protocol.

llguidance never raises on a bad grammar or token: it enters an error state and stays there. So every call here
is followed by a look at that state, which becomes an exception.
"""

import functools
import os
import re
import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Self

import llguidance.numpy
import numpy as np
from llguidance import LLExecutor, LLMatcher, LLParserLimits, LLTokenizer
from numpy.typing import NDArray

from engine.errors import GrammarError, MatcherError
from engine.grammars.matcher import Bitmask, Matcher

MAX_CACHED_GRAMMARS = 128


def _limits() -> LLParserLimits:
    return LLParserLimits(
        max_items_in_row=20_000,  # the default of 2,000 ends walks with some 600 optional properties
        step_max_items=500_000,
        max_lexer_states=1_000_000,  # a string of bounded length takes a handful for each of its characters
        verbose_errors=False,  # its texts reach clients; they must not show grammars and states
    )


class LLGuidanceMatcher:
    """One sequence's place in its grammar."""

    def __init__(self, matcher: LLMatcher, spellings: "_Spellings") -> None:
        self._matcher = matcher
        self._spellings = spellings
        self._raise_on_error()

    def _raise_on_error(self) -> None:
        if self._matcher.is_error():
            raise MatcherError(_readable(self._matcher.get_error()))

    def accept(self, tokens: Sequence[int]) -> None:
        if not tokens:
            return
        accepted = self._matcher.try_consume_tokens(list(tokens))
        self._raise_on_error()
        if accepted < len(tokens):
            raise MatcherError(f"token {tokens[accepted]} is not allowed here")

    def validate(self, tokens: Sequence[int]) -> int:
        num_valid = self._matcher.validate_tokens(list(tokens))
        self._raise_on_error()
        return num_valid

    def forced_tokens(self) -> list[int]:
        tokens = self._matcher.compute_ff_tokens()
        self._raise_on_error()
        if not tokens:  # as at most steps
            return tokens
        num_legal = self.validate(tokens)
        if num_legal < len(tokens):
            tokens = [*tokens[:num_legal], *self._spellings.of(tokens[num_legal])]
            return tokens[: self.validate(tokens)]
        return tokens

    def fill_bitmask(self, row: NDArray[np.int32]) -> None:
        mask = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.int32)
        self._raise_on_error()
        # Its last word may be one past the tokenizer's; logits wider than the tokenizer have no tokens there.
        num_words = min(mask.size, row.size)
        row[:num_words] = mask[:num_words]
        row[num_words:] = 0
        if self._matcher.is_stopped():  # its end token is no text, and nothing is spelled
            return
        for token in self._spellings.among(mask):
            if not self.validate([token]):
                row[:] = 0
                first = self._spellings.of(token)[0]
                row.view(np.uint32)[first // 32] |= np.uint32(1 << first % 32)

    @property
    def grammar(self) -> Self:
        return self

    @property
    def is_accepting(self) -> bool:
        accepting = self._matcher.is_accepting()
        self._raise_on_error()
        return accepting

    @property
    def is_terminated(self) -> bool:
        stopped = self._matcher.is_stopped()
        self._raise_on_error()
        return stopped

    @property
    def must_look_ahead(self) -> bool:
        return False

    @property
    def wanted(self) -> tuple[str, ...]:
        return ()

    def copy(self) -> Self:
        return type(self)(self._matcher.deep_copy(), self._spellings)


class _Spellings:
    """Special tokens, and ordinary tokens with the same bytes.

    Where the bytes that must come next spell a special token, "</tool_call>" as a constant, say, llguidance forces that
    very token, and then rejects it as no text. Ordinary tokens are what it accepts.
    """

    def __init__(self, tokenizer: LLTokenizer) -> None:
        special = [token for token in range(tokenizer.vocab_size) if tokenizer.is_special_token(token)]
        self._spellings = {token: tokenizer.greedy_tokenize(tokenizer.decode_str([token])) for token in special}
        is_special = np.zeros((tokenizer.vocab_size + 31) // 32 * 32, dtype=bool)
        is_special[special] = True
        packed = np.packbits(is_special, bitorder="little").view(np.int32)  # as a mask
        self._words = np.flatnonzero(packed)  # most often few: special tokens stand together
        self._special = packed[self._words]

    def of(self, token: int) -> list[int]:
        return self._spellings[token]

    def among(self, mask: NDArray[np.int32]) -> list[int]:
        """The special tokens that the mask allows."""
        allowed = mask.take(self._words) & self._special
        if not allowed.any():  # as at nearly every step
            return []
        bits = np.unpackbits(allowed.view(np.uint8), bitorder="little").reshape(-1, 32)
        return [int(self._words[word]) * 32 + int(bit) for word, bit in np.argwhere(bits)]


class LLGuidanceCompiler:
    """Compiles grammars for one tokenizer and keeps the latest of them."""

    def __init__(self, tokenizer_json: str, *, eos_ids: Sequence[int]) -> None:
        """tokenizer_json: the serialised `tokenizers` backend. Takes about a second at 128k tokens."""
        self._tokenizer = LLTokenizer(tokenizer_json, eos_token=sorted(eos_ids))
        self._spellings = _Spellings(self._tokenizer)
        self._executor = LLExecutor(num_threads=os.cpu_count())
        self._lock = threading.Lock()
        self._compiled: OrderedDict[str, LLMatcher] = OrderedDict()

    def compile(self, source: str, *, param: str) -> LLGuidanceMatcher:
        with self._lock:
            prototype = self._compiled.get(source)
            if prototype is not None:
                self._compiled.move_to_end(source)
                return LLGuidanceMatcher(prototype.deep_copy(), self._spellings)
        prototype = self._build(source, param)
        with self._lock:
            self._compiled[source] = prototype
            while len(self._compiled) > MAX_CACHED_GRAMMARS:
                self._compiled.popitem(last=False)
            return LLGuidanceMatcher(prototype.deep_copy(), self._spellings)

    def _build(self, source: str, param: str) -> LLMatcher:
        matcher = LLMatcher(self._tokenizer, source, limits=_limits(), log_level=0)
        # Some grammars (loops of $ref, say) fail at their first mask only.
        first_mask = b"" if matcher.is_error() else matcher.compute_bitmask()
        if matcher.is_error():
            raise GrammarError(f"{param} cannot be enforced: {_readable(matcher.get_error())}", param=param)
        if not any(first_mask):
            raise GrammarError(f"{param} cannot be satisfied: it allows no text at all", param=param)
        return matcher

    def fill_bitmasks(self, matchers: Sequence[tuple[Matcher, int]], bitmask: Bitmask) -> dict[int, MatcherError]:
        failed: dict[int, MatcherError] = {}
        if len(matchers) > 1:
            grammars = [matcher.grammar for matcher, _ in matchers]
            self._fill_ahead([grammar._matcher for grammar in grammars if isinstance(grammar, LLGuidanceMatcher)])
        for matcher, row in matchers:
            try:
                matcher.fill_bitmask(bitmask[row])
            except MatcherError as error:
                failed[row] = error
        return failed

    def _fill_ahead(self, matchers: Sequence[LLMatcher]) -> None:
        """One pass over all cores, GIL released. It leaves each mask in its matcher, where the next to ask finds it."""
        scratch = np.empty((len(matchers), (self._tokenizer.vocab_size + 31) // 32), dtype=np.int32)
        rows = list(zip(matchers, range(len(matchers)), strict=True))
        llguidance.numpy.fill_next_token_bitmask_par(self._executor, rows, scratch)


def is_satisfiable(schema_text: str) -> bool:
    """Whether some value may satisfy a JSON schema of strings, for all that the library tells in a few milliseconds."""
    return "Unsatisfiable schema" not in _report(schema_text)


def is_too_complex(schema_text: str) -> bool:
    """Whether the library would refuse a JSON schema of strings: it cannot tell whether they have a value in common."""
    return CANNOT_TELL in _report(schema_text)


@functools.lru_cache(maxsize=4096)
def _report(schema_text: str) -> str:
    return str(LLMatcher.validate_grammar(f"start: %json {schema_text}"))


CANNOT_TELL = "Unable to determine if regex is empty"
NO_TEXT = "no text satisfies it"

# Reasons that speak of the library's insides: how each begins, and what it means to whoever wrote the grammar.
PLAIN_WORDS = (
    ("NoExtension", NO_TEXT),
    (
        "Too many items|Parser Error: Current row|ParserTooComplex",
        "it has too many ways to go on; longer texts in place of single letters help",
    ),
    ("LexerTooComplex|too many states|lexer precomputation", "its patterns have too many states; simplify them"),
    (
        "too many expressions|fuel exhausted|class too large",
        "its patterns are too large; smaller repetition counts help",
    ),
    (
        r"initial lexer configuration|grammar size|schema too large|DNF too large",
        "it is too large; fewer names, rules or values help",
    ),
    (r"(invalid regex .*)?lookarounds", r"\b is not supported, nor are ^ and $ inside of a pattern"),
    (CANNOT_TELL, "its patterns are too complex together; simplify them"),
    ("lexer error", "it has a character that does not belong there, or a text, a pattern or an escape without an end"),
    ("Empty grammar", "it is empty"),
)


def _readable(error: str) -> str:
    """One line of llguidance's report: the reason, without positions in a grammar that the caller never saw."""
    text = error.removesuffix("<non-verbose/>").strip()
    _, _, reason = text.rpartition("error: ")
    reason = re.sub(r"(at )?\d+\(\d+\): (failed to compile JSON schema: )?", "", reason.partition("\n")[0])
    reason = re.sub(r' \(at (".*") \(.*\)\)$', r" at \1", reason)
    reason = re.sub(r"""'\\n' at "\\n"|"\\n"$""", "the end of a line", reason)
    plain = (words for pattern, words in PLAIN_WORDS if re.match(pattern, reason))
    return next(plain, reason) or NO_TEXT
