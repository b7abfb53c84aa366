"""Where one turn becomes a call or text: at its start, or behind its reasoning.

The sequence tells it every token; it tells the sequence when it is reached, and, where text was chosen, what keeps the
marker away from that one place. Design, section 7; docs/decision.md.
"""

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

from engine.decision_options import DecisionOptions
from engine.grammars.call_paths import CallOpening, ToolTree
from engine.grammars.decision import text_bias
from engine.grammars.reasoning_budget import ReasoningTags


@dataclass(frozen=True, slots=True)
class Prior:
    """What a call is after a prompt without content."""

    log_odds: float
    tools: tuple[float, ...] = ()  # the logprob of each, where tools are compared
    passes: int = 0  # of this request, to find that out


@dataclass(frozen=True, slots=True)
class DecisionPlan:
    """What is to be decided, and about which tokens. Bytes are those of `tags.token_bytes`."""

    opening: CallOpening
    markers: tuple[bytes, ...]  # what may open a call: the family's marker, and with what its other ways begin
    others: tuple[int, ...] = ()  # tokens that begin one in the family's other ways, and nothing else
    options: DecisionOptions = field(default_factory=DecisionOptions)
    prior: Prior | None = None  # None: not calibrated
    must_call: bool = False  # only which tool is open
    by_likelihood: bool = False  # the tool of a call
    tree: ToolTree = field(default_factory=ToolTree)  # of all tools, where they are compared

    @property
    def scored(self) -> tuple[int, ...]:
        """What is run at the place to be looked at: as much as all calls have, where tools are compared."""
        stem, shared = self.opening.stem, self.tree.forks[0].before if self.tree.forks else ()
        return shared if shared[: len(stem)] == stem else stem

    @property
    def decides(self) -> bool:
        """Whether the turn follows the decision."""
        return self.must_call or self.by_likelihood or self.options.decides


class _Stage(enum.Enum):
    START = enum.auto()  # the next token tells whether the turn reasons
    BEGINNING = enum.auto()  # inside of what opens the reasoning
    REASONING = enum.auto()
    AFTER = enum.auto()  # between the reasoning and what follows it
    HERE = enum.auto()
    TEXT = enum.auto()  # was chosen; what is written may still become the marker
    PAST = enum.auto()


@dataclass(slots=True)
class DecisionPoint:
    """Follows one turn to the place where it is decided, and a little further."""

    plan: DecisionPlan
    tags: ReasoningTags  # `begin` is empty where the turn cannot begin with reasoning
    after: bytes  # between the reasoning and what follows it
    after_tokens: tuple[int, ...]
    _stage: _Stage
    _written: bytes = b""  # in this stage
    _biases: tuple[float, ...] = ()  # per token of the marker
    _num_followed: int = 0  # of them
    _may_reason: bool = False  # text was chosen where the turn could still begin to reason

    @classmethod
    def at_start(cls, plan: DecisionPlan, tags: ReasoningTags, after: ReasoningTags) -> Self:
        """Of a turn that cannot reason, or may begin to."""
        return cls(plan, tags, after.end, after.end_tokens, _Stage.START if tags.begin else _Stage.HERE)

    @classmethod
    def inside_reasoning(cls, plan: DecisionPlan, tags: ReasoningTags, after: ReasoningTags) -> Self:
        """Of a turn whose reasoning the prompt has opened."""
        return cls(plan, tags, after.end, after.end_tokens, _Stage.REASONING)

    def calibrate(self, prior: Prior) -> None:
        """Let the decision, which is still to come, be calibrated by this."""
        self.plan = replace(self.plan, prior=prior)

    @property
    def is_here(self) -> bool:
        """Whether the next token decides; at a turn's start it may open the reasoning instead."""
        return self._stage in (_Stage.START, _Stage.HERE)

    def is_decided_by(self, token: int) -> bool:
        """Whether this next token would be call or text, and not the beginning of reasoning. Precondition: is_here."""
        return self._stage is _Stage.HERE or not self._opens_reasoning(token)

    def _opens_reasoning(self, token: int) -> bool:
        begin, text = self.tags.begin, self.tags.token_bytes(token)
        return begin.startswith(text) or text.startswith(begin)

    @property
    def due(self) -> tuple[int, ...]:
        """The tokens that must come next so that the place is not jumped over."""
        if self._stage is not _Stage.AFTER or not self.plan.decides:
            return ()
        rest = self.after[len(self._written) :]
        ends = (self.after_tokens[start:] for start in range(len(self.after_tokens)))
        return next((end for end in ends if b"".join(map(self.tags.token_bytes, end)) == rest), ())

    def follow(self, tokens: Sequence[int]) -> Sequence[int]:
        """Take note of tokens that are to be written. Returns those up to the place: the others are open there."""
        for number, token in enumerate(tokens):
            if self._stage is _Stage.HERE:
                return tokens[:number]
            self.note(token)
        return tokens

    def num_before(self, tokens: Sequence[int]) -> int:
        """How many of the tokens may be run on a guess: those up to which the place is not reached."""
        probe = replace(self)
        for number, token in enumerate(tokens):
            probe.note(token)
            if probe.is_here:
                return number
        return len(tokens)

    def note(self, token: int) -> None:
        """A token was written."""
        if self._stage is _Stage.PAST:
            return
        self._written += self.tags.token_bytes(token)
        match self._stage:
            case _Stage.START | _Stage.BEGINNING:
                self._note_beginning()
            case _Stage.REASONING:
                self._note_reasoning()
            case _Stage.AFTER:
                self._note_after()
            case _Stage.TEXT:
                self._note_text(token)
            case _:  # nobody has decided: there was no need to
                self._go(_Stage.PAST)

    def _note_beginning(self) -> None:
        begin = self.tags.begin
        if self._written.startswith(begin):
            self._go(_Stage.REASONING, self._written.removeprefix(begin))
        else:
            self._stage = _Stage.BEGINNING if begin.startswith(self._written) else _Stage.PAST

    def _note_reasoning(self) -> None:
        _, end, rest = self._written.partition(self.tags.end)
        if end:
            self._go(_Stage.AFTER, rest)
            self._note_after()
        else:  # no more bytes than these can be part of an end that the next token completes
            self._written = self._written[-len(self.tags.end) :]

    def _note_after(self) -> None:
        if self._written == self.after:
            self._go(_Stage.HERE)
        elif not self.after.startswith(self._written):
            self._go(_Stage.PAST)

    def _note_text(self, token: int) -> None:
        stem = self.plan.opening.stem
        on_path = self._num_followed < len(stem) and token == stem[self._num_followed]
        self._num_followed = self._num_followed + 1 if on_path else len(stem) + 1
        if not any(marker.startswith(self._written) for marker in self.plan.markers):
            self._go(_Stage.PAST)

    def _go(self, stage: _Stage, written: bytes = b"") -> None:
        self._stage, self._written = stage, written

    # Once it is decided.

    def pass_on(self) -> None:
        """Nothing was decided, or a call: nothing is to be kept away any more."""
        self._go(_Stage.PAST)

    def bar_marker(self, logprobs: Sequence[float]) -> None:
        """Text was chosen. logprobs: of the marker's tokens, each behind those before it."""
        rests = [sum(logprobs[position + 1 :]) for position in range(len(logprobs) - 1)]
        self._biases, self._num_followed = tuple(map(text_bias, rests)), 0
        self._may_reason = self._stage is _Stage.START
        self._go(_Stage.TEXT)

    def is_undone_by(self, token: int) -> bool:
        """Whether this token, in place of the marker's, opens the reasoning: the decision comes behind it."""
        is_first = self._stage is _Stage.TEXT and not self._written
        return is_first and self._may_reason and self._opens_reasoning(token)

    def undo(self) -> None:
        """Nothing is decided yet. Precondition: the next token opens the reasoning."""
        self._go(_Stage.START)

    @property
    def is_barring(self) -> bool:
        """Whether what is written may still become the marker."""
        return self._stage is _Stage.TEXT

    @property
    def bias(self) -> Mapping[int, float]:
        """What is added to the next token's logits: text keeps its own probabilities, less those of the marker."""
        stem, followed = self.plan.opening.stem, self._num_followed
        if self._stage is not _Stage.TEXT or followed >= len(stem):
            return {}
        return {stem[followed]: self._biases[followed]}

    def admits(self, token: int, forced: Sequence[int] = ()) -> bool:
        """Whether the token neither completes a marker that was barred, nor jumps over the place.

        forced: what must follow it; looked at where the marker is barred.
        """
        if self._stage is _Stage.TEXT:
            text = b"".join(map(self.tags.token_bytes, (token, *forced)))
            return not (self._written + text).startswith(self.plan.markers)
        if not self.plan.decides or self._stage in (_Stage.START, _Stage.HERE, _Stage.PAST):
            return True
        probe = replace(self)
        probe.note(token)
        if self._stage is _Stage.BEGINNING:  # what began as reasoning may become text, but no call that nobody chose
            text = self._written + self.tags.token_bytes(token)
            return probe._stage is not _Stage.PAST or not self._is_marker(text)
        return probe._stage is not _Stage.PAST

    def _is_marker(self, text: bytes) -> bool:
        return text.startswith(self.plan.markers) or any(marker.startswith(text) for marker in self.plan.markers)
