"""What the answers of all endpoints share: how a turn ended, usage, the receipt, logprobs beside their text."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from api.convert.errors import DO_NOT_RETRY, SERVER, WireError
from api.convert.paths import Paths
from api.schemas.common import (
    AnsweredBy,
    Answerer,
    BestOf,
    CompletionTokensDetails,
    FinishReason,
    PromptTokensDetails,
    ReceiptEntry,
    ToolmaskInfo,
    Usage,
)
from engine.errors import GenerationError
from engine.events import Event, Finished, StopReason, TokenLogprob, ToolCallEnd, ToolCallStart
from engine.events import ReceiptEntry as EngineReceiptEntry
from engine.events import Usage as EngineUsage

FINISH_REASONS: dict[StopReason, FinishReason] = {
    StopReason.EOS: "stop",
    StopReason.STOP_STRING: "stop",
    StopReason.STOP_TOKEN: "stop",
    StopReason.GRAMMAR_END: "stop",
    StopReason.LENGTH: "length",
}


@dataclass(slots=True)
class CallTracker:
    """Which calls of one turn began, and which are complete."""

    must_call: bool = False  # the request asked for a call
    num_begun: int = 0
    num_complete: int = 0

    def add(self, event: Event) -> None:
        """Look at the turn's next event."""
        self.num_begun += isinstance(event, ToolCallStart)
        self.num_complete += isinstance(event, ToolCallEnd)

    def finish_reason(self, finished: Finished) -> FinishReason:
        """How the turn ended, as clients know it. Raises WireError where it was cancelled.

        Raises GenerationError where a call was cut off otherwise: no engine without a fault ends a turn there.
        """
        if finished.stop_reason not in FINISH_REASONS:
            raise cancelled()
        lacks_call = self.must_call and self.num_complete == 0
        if self.num_begun > self.num_complete or lacks_call:
            raise GenerationError(f"the turn ended ({finished.stop_reason.value}) before its call was complete")
        return "tool_calls" if self.num_complete else FINISH_REASONS[finished.stop_reason]


def cancelled() -> WireError:
    """Told to nobody: the client is gone. 499 is how logs know that."""
    return WireError(499, "the client went away", kind=SERVER, code="cancelled", headers=DO_NOT_RETRY)


def to_usage(usages: Sequence[EngineUsage]) -> Usage:
    """The usage of the choices of one prompt, which was computed once."""
    prompt, written = usages[0].prompt_tokens, sum(usage.completion_tokens for usage in usages)
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=written,
        total_tokens=prompt + written,
        prompt_tokens_details=PromptTokensDetails(cached_tokens=usages[0].cached_tokens),
        completion_tokens_details=CompletionTokensDetails(
            reasoning_tokens=sum(usage.reasoning_tokens for usage in usages),
            forced_tokens=sum(usage.forced_tokens for usage in usages),
        ),
    )


def add_usages(parts: Sequence[Usage]) -> Usage:
    """The usage of several prompts."""
    cached = sum(part.prompt_tokens_details.cached_tokens for part in parts)
    details = [part.completion_tokens_details for part in parts]
    return Usage(
        prompt_tokens=sum(part.prompt_tokens for part in parts),
        completion_tokens=sum(part.completion_tokens for part in parts),
        total_tokens=sum(part.total_tokens for part in parts),
        prompt_tokens_details=PromptTokensDetails(cached_tokens=cached),
        completion_tokens_details=CompletionTokensDetails(
            reasoning_tokens=sum(each.reasoning_tokens for each in details),
            forced_tokens=sum(each.forced_tokens for each in details),
        ),
    )


def to_info(first: Finished, usages: Iterable[EngineUsage], paths: Paths) -> ToolmaskInfo:
    """What stands under `toolmask` in an answer; first: the end of its first choice; usages: of all of them."""
    usages = list(usages)
    info = ToolmaskInfo(
        receipt=[_to_entry(entry, paths) for entry in first.receipt.entries],
        forced_tokens=sum(usage.forced_tokens for usage in usages),
        forward_passes=sum(usage.forward_passes for usage in usages),
        seed=first.seed,
    )
    if first.samples is not None:
        info.best_of = BestOf(scores=list(first.samples.scores), chosen=first.samples.best)
    if first.route is not None:
        info.answered_by = answered_by("route", first.route)
    return info


def answered_by(kind: Answerer, name: str, confidence: float | None = None) -> AnsweredBy:
    """Who answered. confidence: of the local decision."""
    by = AnsweredBy(kind=kind, name=name)
    if confidence is not None:
        by.confidence = confidence
    return by


def _to_entry(entry: EngineReceiptEntry, paths: Paths) -> ReceiptEntry:
    path, rest = paths.split(entry.path)
    detail = f"{rest}: {entry.detail}" if rest else entry.detail
    return ReceiptEntry(path=path, enforcement=entry.enforcement.value, detail=detail)


@dataclass(slots=True)
class TextLogprobs:
    """Which of a turn's tokens wrote its text.

    The text comes first in a turn, so its tokens are those that begin before the text's last byte. Text may be held
    back for a while, in case it begins a marker or a stop string; its tokens then wait too.
    """

    _waiting: list[TokenLogprob] = field(default_factory=list)
    _num_text_bytes: int = 0
    _num_token_bytes: int = 0  # of those that were given out

    def add_text(self, text: str) -> None:
        """More of the turn's text."""
        self._num_text_bytes += len(text.encode())

    def add_tokens(self, tokens: Iterable[TokenLogprob]) -> None:
        """More of the turn's tokens, those of its calls too."""
        self._waiting += tokens

    def take(self, *, rest: bool = False) -> list[TokenLogprob]:
        """The tokens of the text so far that were not given out before. rest: all others too, as there is no call."""
        taken: list[TokenLogprob] = []
        while self._waiting and (rest or self._num_token_bytes < self._num_text_bytes):
            token = self._waiting.pop(0)
            self._num_token_bytes += len(token.token)
            taken.append(token)
        return taken
