"""What a generation gives: events, and their sum. Frozen values, none of which knows of arrays or HTTP."""

import enum
import math
from collections.abc import Mapping
from dataclasses import dataclass

from engine.grammars.decision import probability
from engine.types import Message, Role, ToolCall


class StopReason(enum.StrEnum):
    """Why a generation ended."""

    EOS = "eos"  # the model ended its turn
    STOP_STRING = "stop_string"
    STOP_TOKEN = "stop_token"
    GRAMMAR_END = "grammar_end"  # nothing but the turn's end could follow
    LENGTH = "length"  # max_tokens or the context's end cut a text; calls and responses are always whole
    CANCELLED = "cancelled"
    FAILED = "failed"


class Way(enum.StrEnum):
    """What a turn may become."""

    CALL = "call"
    TEXT = "text"  # it may still call behind its text


@dataclass(frozen=True, slots=True)
class Usage:
    """What a generation cost, counted."""

    prompt_tokens: int
    completion_tokens: int  # forced ones included, the end-of-turn token not
    forced_tokens: int  # of the completion: tokens that the grammar left no choice about
    forward_passes: int  # of the model, the prompt's included
    cached_tokens: int = 0  # of the prompt: tokens that an earlier request had computed
    reasoning_tokens: int = 0  # of the completion: those that wrote reasoning, with its tags and what must follow them


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """Natural log of the probability that the model itself gave to a token, before mask and temperature."""

    token_id: int
    token: bytes
    logprob: float
    top: tuple["TokenLogprob", ...] = ()  # the likeliest at this position, best first

    @property
    def probability(self) -> float:
        return math.exp(self.logprob)


class Enforcement(enum.StrEnum):
    """How a keyword of a schema is taken care of."""

    GRAMMAR = "grammar"  # the mask holds it
    VETO = "veto"  # the mask admits more; what a value is, is checked as it closes
    NARROWED = "narrowed"  # the mask admits less than was asked
    LENIENT = "lenient"  # cannot be enforced, and is not, because the request said so
    ANNOTATION = "annotation"  # says nothing about validity; not enforced


@dataclass(frozen=True, slots=True)
class ReceiptEntry:
    """One fact about what was enforced. `path` leads into the request."""

    path: str
    enforcement: Enforcement
    detail: str


@dataclass(frozen=True, slots=True)
class Receipt:
    """What was enforced, narrowed or only annotated, by path."""

    entries: tuple[ReceiptEntry, ...] = ()
    offered_tools: tuple[str, ...] | None = None  # the names that were shown, where tool_retrieval chose them


@dataclass(frozen=True, slots=True)
class TextDelta:
    """More of the answer's text."""

    text: str


@dataclass(frozen=True, slots=True)
class ReasoningDelta:
    """More of what the model thinks before it answers."""

    text: str


@dataclass(frozen=True, slots=True)
class ToolCallStart:
    """A call begins; its arguments follow."""

    index: int
    id: str
    name: str
    custom: bool = False  # its arguments are a custom tool's input


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """More of a call's JSON arguments, as written."""

    index: int
    arguments: str


@dataclass(frozen=True, slots=True)
class ToolCallEnd:
    """A call is complete. A call without this event was cancelled, or failed, and must not be used."""

    index: int


@dataclass(frozen=True, slots=True)
class LogprobsDelta:
    """Logprobs of the next output tokens, in order; only where they were asked for."""

    tokens: tuple[TokenLogprob, ...]
    of_reasoning: bool = False  # of the reasoning before the answer, its tags included


@dataclass(frozen=True, slots=True)
class Decision:
    """Call or text, as it stood where a turn that may have either had to become one. Log-odds are natural."""

    log_odds: float  # of a call: calibrated, with the bias
    log_odds_raw: float  # the model's own: of what opens a call, before mask and temperature
    required: bool = False  # a call: only its tool was open
    calibrated: bool = False
    bias: float = 0.0  # log-odds
    threshold: float | None = None
    chosen: Way | None = None  # None: it was only looked at
    fits: bool = True  # False: it was a call, but none could be completed within the tokens that are left
    tools: Mapping[str, float] | None = None  # of a call, the probability of each tool, where they were compared
    tool_logprobs: Mapping[str, float] | None = None  # likewise the model's own, before calibration; natural
    passes: int = 0  # to compare tools, which are among the turn's, and to read the prior, which are not

    @property
    def p_call(self) -> float:
        """What is compared with the threshold; 1 where a call is required."""
        return 1.0 if self.required else probability(self.log_odds)

    @property
    def p_call_raw(self) -> float:
        return probability(self.log_odds_raw)

    @property
    def p_text(self) -> float:
        return 0.0 if self.required else probability(-self.log_odds)


@dataclass(frozen=True, slots=True)
class Decided:
    """Call or text: before the first event of either."""

    decision: Decision


@dataclass(frozen=True, slots=True)
class Samples:
    """What an answer was chosen from."""

    scores: tuple[float, ...]  # of each sample: the mean logprob of its tokens
    best: int  # the one that is the answer; the first sample had decided whether it calls


@dataclass(frozen=True, slots=True)
class Finished:
    """The last event of every generation that did not fail."""

    stop_reason: StopReason
    usage: Usage
    seed: int
    receipt: Receipt
    samples: Samples | None = None  # with best_of
    route: str | None = None  # the direct route that answered; None: the model did


Event = TextDelta | ReasoningDelta | ToolCallStart | ToolCallDelta | ToolCallEnd | LogprobsDelta | Decided | Finished


@dataclass(frozen=True, slots=True)
class Completion:
    """A whole generation: its events added up."""

    text: str | None  # None where the turn has no text
    tool_calls: tuple[ToolCall, ...]  # complete calls only
    stop_reason: StopReason
    usage: Usage
    seed: int  # draws the same answer again
    receipt: Receipt
    logprobs: tuple[TokenLogprob, ...] | None = None  # one per output token, where asked for
    reasoning: str | None = None  # what the model thought before it answered
    route: str | None = None  # the direct route that answered; None: the model did
    decision: Decision | None = None  # call or text, where it was asked for or came for nothing
    samples: Samples | None = None  # with best_of

    def message(self) -> Message:
        """This answer as the next message of the conversation."""
        content = self.text if self.tool_calls else self.text or ""
        return Message(Role.ASSISTANT, content, self.tool_calls, reasoning=self.reasoning)
