"""All mutable state of one generation, and the rule by which it stops."""

import itertools
from collections.abc import Sequence as Rows
from dataclasses import dataclass, field

import mlx.core as mx

from engine.accounts import Account
from engine.cache import Cache
from engine.decision_point import DecisionPoint
from engine.errors import MatcherError
from engine.events import StopReason, TokenLogprob, Usage
from engine.grammars.matcher import Matcher
from engine.guard import Guard
from engine.types import Request, SamplingParams

MAX_NARROW = 16  # tokens of a prompt that a row may have to read and still go along with rows that decode

# Tokens that a row inside a grammar draws, with nothing forced behind them, before it looks ahead. A pass that runs
# ahead saves the host's part of one, 15 % on the CPU; one in vain costs a pass. So after some seven tokens as much has
# been lost by waiting as one in vain costs. Of 803 values that the embedded model wrote for BFCL, 42 are longer than
# this: the passes in vain are 1.1 % of all, and more than twice as much is saved.
MIN_UNFORCED = 8


@dataclass(slots=True)
class DraftMemory:
    """What a drafting model has seen of a sequence; the last of it may be guesses that were wrong."""

    cache: Cache
    tokens: list[int] = field(default_factory=list)

    def cut(self, num_tokens: int) -> None:
        """Forget all but the first tokens."""
        self.cache.trim(len(self.tokens) - num_tokens)
        del self.tokens[num_tokens:]


@dataclass(slots=True, eq=False)  # told apart by identity
class Sequence:
    """One running generation. Only the decoding thread touches it once it is submitted."""

    request: Request
    prompt: list[int]
    key: int  # of the sampling noise
    seed: int  # what key was made of; reported
    max_tokens: int
    eos_ids: frozenset[int]
    matcher: Matcher | None  # None: free text
    fast_forward: bool
    guard: Guard | None = None  # sees to it that a constrained turn ends within max_tokens
    point: DecisionPoint | None = None  # where the turn becomes a call or text; None: nobody asks

    pending: list[int] = field(init=False)  # not yet in the KV cache: prompt, sampled or forced tokens
    output: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)  # of the output's first tokens
    num_forced: int = 0
    num_unforced_now: int = 0  # drawn since a token was forced, or a pass ran ahead in vain
    num_forward_passes: int = 0
    stop_reason: StopReason | None = None  # None while running
    in_free_text: bool = False  # set by whoever reads the output: stop tokens count

    # Set when it starts to run.
    cache: Cache | None = None
    draft_memory: DraftMemory | None = None  # where a drafting model is asked
    drafting: Account = field(default_factory=Account)
    num_reused: int = 0  # tokens of the prompt that were known already
    ahead: mx.array | None = None  # logits after all of it, (1, V), where a pass ran before its token was read

    _num_known: int = field(init=False)  # tokens that stood when it began, or began again

    def __post_init__(self) -> None:
        self.pending = list(self.prompt)
        self._num_known = len(self.prompt)
        self._take_forced()

    @property
    def sampling(self) -> SamplingParams:
        return self.request.sampling

    @property
    def num_unscored(self) -> int:
        """Output tokens that still owe their logprobs: forced ones that are pending."""
        return 0 if self.sampling.top_logprobs is None else len(self.output) - len(self.logprobs)

    @property
    def is_prefilling(self) -> bool:
        """Whether so much of its prompt is pending that it reads on in a forward pass of its own."""
        return self.num_to_read > MAX_NARROW

    @property
    def num_to_read(self) -> int:
        """Pending tokens that are no news: of the prompt; once preempted, of the output as well."""
        return max(0, self._num_known - self.num_cached_now)

    @property
    def num_to_take_over(self) -> int:
        """Pending tokens that need not go through the model where somebody else's have: the first of those to read.

        Behind the others logits are wanted: of the last one, and once preempted of those that owe their logprobs.
        """
        return max(0, min(self.num_to_read, len(self.pending) - self.num_unscored) - 1)

    @property
    def tokens_seen(self) -> list[int]:
        """What its cache has seen, but a token that ran ahead and is no output: an end, or one that nobody has read."""
        return [*self.prompt, *self.output][: self.num_cached_now]

    @property
    def num_cached_now(self) -> int:
        """Tokens that its cache has seen."""
        return 0 if self.cache is None else self.cache.num_tokens

    @property
    def num_to_keep(self) -> int:
        """Tokens that its cache will have seen once nothing is pending."""
        return self.num_cached_now + len(self.pending)

    @property
    def tokens_left(self) -> int:
        """Output tokens that may still come."""
        return self.max_tokens - len(self.output)

    @property
    def is_done(self) -> bool:
        """Whether no forward pass is needed any more."""
        if self.stop_reason in (StopReason.CANCELLED, StopReason.FAILED):
            return True
        return self.stop_reason is not None and self.num_unscored == 0

    @property
    def usage(self) -> Usage:
        num_prompt = len(self.prompt)
        return Usage(num_prompt, len(self.output), self.num_forced, self.num_forward_passes, self.num_reused)

    def admits(self, token: int) -> bool:
        """Whether this sampled token may be taken: whether the turn can still be completed after it.

        After True it must be taken. May raise MatcherError.
        """
        if self.matcher is None or self.guard is None or self._is_stop_token(token):
            return True
        if token in self.eos_ids:
            return self.matcher.is_accepting  # a veto may know better than the mask
        if self.point is not None and not self.point.admits(token, self._forced_behind(token)):
            return False
        return self.guard.admits(self.matcher, token, self.max_tokens - len(self.output) - 1)

    def _forced_behind(self, token: int) -> Rows[int]:
        """What the grammar would force behind the token, where a marker is barred."""
        if self.matcher is None or self.point is None or not self.point.is_barring:
            return ()
        after = self.matcher.copy()
        try:
            after.accept([token])
        except MatcherError:  # a veto: the guard says so
            return ()
        return after.forced_tokens()

    @property
    def way_out(self) -> int | None:
        """The token that surely may be taken; None where none is known."""
        if self.guard is None or self.guard.path is None:
            return None
        return self.guard.path[0] if self.guard.path else min(self.eos_ids)

    def _is_stop_token(self, token: int) -> bool:
        return self.in_free_text and token in self.request.stop_token_ids

    @property
    def at_decision(self) -> bool:
        """Whether the next token may decide between a call and text."""
        return self.point is not None and self.point.is_here and self.stop_reason is None

    def can_follow(self, tokens: Rows[int]) -> bool:
        """Whether these tokens may come next, and the turn can be completed behind them."""
        room = self.tokens_left - len(tokens)
        if self.matcher is None or room < 0 or self.matcher.validate(tokens) < len(tokens):
            return False
        after = self.matcher.copy()
        after.accept(tokens)
        return self.guard is None or self.guard.can_complete(after, tokens, room)

    @property
    def may_look_ahead(self) -> bool:
        """Whether the next forward pass may run before its token is read.

        Penalties and logprobs ask for the token itself. Behind a token of a grammar others may be forced, which could
        have shared its pass, and it may be refused: so there only where for a while nothing was forced.
        """
        sampling = self.sampling
        has_penalty = sampling.repetition_penalty != 1 or sampling.presence_penalty or sampling.frequency_penalty
        if has_penalty or sampling.top_logprobs is not None or self.stop_reason is not None:
            return False
        if self.matcher is None:
            return True
        return self.num_unforced_now >= MIN_UNFORCED and self._can_take_back and not self._is_deciding

    @property
    def _can_take_back(self) -> bool:
        return self.cache is not None and self.cache.can_trim

    @property
    def _is_deciding(self) -> bool:
        return self.point is not None and (self.point.is_here or self.point.is_barring)

    @property
    def may_draft(self) -> bool:
        """Whether tokens may be run on a guess. Free rows look ahead instead.

        Stop strings and stop tokens count in free text only, which whoever reads the output finds one step at a time.
        """
        asks_nothing = self.sampling.top_logprobs is None and not self.request.stop and not self.request.stop_token_ids
        is_free = self.matcher is None and self.may_look_ahead
        return asks_nothing and self._can_take_back and not self._is_deciding and not is_free and self.drafting.is_good

    def release(self) -> None:
        """Give the memory of its caches back."""
        self.release_drafts()
        if self.cache is not None:
            self.cache.release()
        self.cache = self.ahead = None

    def release_drafts(self) -> None:
        """Give back what a drafting model keeps of it."""
        memory, self.draft_memory = self.draft_memory, None
        if memory is not None:
            memory.cache.release()

    def preempt(self) -> None:
        """Give the memory of its caches back, to read the prompt and what was written again later."""
        self.release()
        self.pending = [*self.prompt, *self.output]
        self._num_known = len(self.pending)
        self.num_unforced_now = 0

    def take(self, token: int) -> None:
        """Go on by a sampled token and by those that the grammar then forces. May raise MatcherError."""
        if token in self.eos_ids:
            self.stop_reason = StopReason.EOS
            self.pending = []
            return
        if self._is_stop_token(token):
            self.stop_reason = StopReason.STOP_TOKEN
            self.pending = []
            return
        self.pending = [token]
        self.output.append(token)
        self.num_unforced_now += 1
        if self.matcher is not None:
            self.matcher.accept([token])
        if self.point is not None:
            self.point.note(token)
        if not self._stopped_by_length_or_grammar():
            self._take_forced()

    def enter(self, path: Rows[int]) -> None:
        """Go on by what begins a call, because that was decided. Precondition: can_follow. May raise MatcherError."""
        assert self.point is not None
        self.point.pass_on()
        self.pending = []
        if self._force(path):
            self._take_forced()

    def _take_forced(self) -> None:
        if self.matcher is None:
            return
        if self.point is not None and (due := self.point.due) and not self._force(due):
            return
        if self.fast_forward and not self.at_decision:
            self._force(
                list(itertools.takewhile(lambda token: token not in self.eos_ids, self.matcher.forced_tokens()))
            )

    def _force(self, tokens: Rows[int]) -> bool:
        """Go on by tokens that nobody draws, up to where call or text is open. Returns whether the turn goes on."""
        assert self.matcher is not None
        forced = tokens[: self.tokens_left]
        if self.point is not None:
            forced = self.point.follow(forced)
        if forced:  # at most steps nothing is
            self.matcher.accept(forced)
            if self.guard is not None:
                self.guard.follow(self.matcher, forced, self.tokens_left - len(forced))
            self.pending += forced
            self.output += forced
            self.num_forced += len(forced)
            self.num_unforced_now = 0
        return not self._stopped_by_length_or_grammar()

    def _stopped_by_length_or_grammar(self) -> bool:
        if self.matcher is not None and self.matcher.is_terminated:
            self.stop_reason = StopReason.GRAMMAR_END
        elif len(self.output) >= self.max_tokens:
            self.stop_reason = StopReason.LENGTH
        return self.stop_reason is not None
