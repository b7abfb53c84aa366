"""OpenAI's older completions: raw prompts in, text out."""

import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from api.convert.answers import FINISH_REASONS, TextLogprobs, add_usages, cancelled, to_info, to_usage
from api.convert.errors import WireError
from api.convert.paths import UNCHANGED, Paths, from_rules
from api.convert.sampling import EXTENSION_RULES, to_grammar, to_sampling, to_stop
from api.schemas import completions as wire
from api.schemas.common import ToolmaskInfo, Usage
from api.schemas.errors import ErrorResponse
from engine.events import Event, Finished, LogprobsDelta, StopReason, TextDelta, TokenLogprob
from engine.types import Request

DEFAULT_MAX_TOKENS = 16  # OpenAI's

Encode = Callable[[str], Sequence[int]]


def to_requests(body: wire.CompletionRequest, encode: Encode) -> list[Request]:
    """One request for each prompt. Raises WireError, or RequestError whose path `paths_of` translates."""
    bound = to_grammar(body.toolmask)
    sampling = to_sampling(body, body.logprobs)
    return [
        Request(
            prompt=_tokens(prompt, prompt_path(body, position), encode),
            response=None if bound is None else bound[0],
            sampling=sampling,
            stop=to_stop(body.stop),
            max_tokens=DEFAULT_MAX_TOKENS if body.max_tokens is None else body.max_tokens,
        )
        for position, prompt in enumerate(prompts_of(body))
    ]


def _tokens(prompt: str | list[int], path: str, encode: Encode) -> tuple[int, ...]:
    tokens = tuple(encode(prompt) if isinstance(prompt, str) else prompt)
    if not tokens:
        raise WireError(400, f"{path} is empty; a prompt must have at least one token", param=path)
    return tokens


def prompts_of(body: wire.CompletionRequest) -> list[str | list[int]]:
    """The prompts one by one, in whichever of the four forms they came."""
    if isinstance(body.prompt, str):
        return [body.prompt]
    prompts: list[str | list[int]] = [each for each in body.prompt if not isinstance(each, int)]
    return prompts or [[each for each in body.prompt if isinstance(each, int)]]


def prompt_path(body: wire.CompletionRequest, position: int) -> str:
    """Where the client wrote that prompt."""
    is_one = isinstance(body.prompt, str) or isinstance(body.prompt[0], int)
    return "prompt" if is_one else f"prompt[{position}]"


def paths_of(body: wire.CompletionRequest, position: int = 0) -> Paths:
    """How the engine's paths into the request of the prompt at this position read in the client's JSON."""
    bound = to_grammar(body.toolmask)
    rules = [("prompt", prompt_path(body, position))]
    if bound:
        rules.append(("response", bound[1]))
    if isinstance(body.stop, str):
        rules.append(("stop[0]", "stop"))
    return from_rules([*rules, *EXTENSION_RULES])


@dataclass(frozen=True, slots=True)
class CompletionAnswer:
    """What all parts of one answer share."""

    model: str
    fingerprint: str
    num_choices: int  # of each prompt
    paths: Paths = UNCHANGED
    has_logprobs: bool = False
    includes_usage: bool = False
    id: str = field(default_factory=lambda: f"cmpl-{uuid.uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))

    def usage(self, ends: Sequence[Finished]) -> Usage:
        """ends: of all choices, prompt by prompt."""
        each = range(0, len(ends), self.num_choices)
        return add_usages([to_usage([end.usage for end in ends[i : i + self.num_choices]]) for i in each])

    def info(self, ends: Sequence[Finished]) -> ToolmaskInfo:
        """What stands under `toolmask`."""
        return to_info(ends[0], [end.usage for end in ends], self.paths)

    def envelope(self, choices: list[wire.CompletionChoice]) -> wire.Completion:
        """The whole answer, or one event of it, without its usage."""
        return wire.Completion(
            id=self.id,
            object="text_completion",
            created=self.created,
            model=self.model,
            choices=choices,
            system_fingerprint=self.fingerprint,
        )


def to_completion(answer: CompletionAnswer, choices: Sequence[Sequence[Event]]) -> wire.Completion:
    """The whole answer: its stream's events added up. Raises WireError where a choice was cancelled."""
    stream = CompletionStream(answer, len(choices))
    for index, events in enumerate(choices):
        for event in events:
            for _ in stream.chunks(index, event):
                pass
    return stream.whole()


@dataclass(slots=True)
class _Choice:
    """One choice, as far as it was sent."""

    index: int
    text: str = ""
    num_sent: int = 0  # characters of the text; with logprobs, those that still lack theirs wait
    logprobs: TextLogprobs = field(default_factory=TextLogprobs)
    tokens: list[TokenLogprob] = field(default_factory=list)  # that were sent
    end: Finished | None = None


class CompletionStream:
    """Events in, chunks out, as they come."""

    ends_with_done = True

    def __init__(self, answer: CompletionAnswer, num_choices: int) -> None:
        self._answer = answer
        self._choices = [_Choice(i) for i in range(num_choices)]

    def chunks(self, index: int, event: Event) -> Iterator[wire.Completion]:
        """What one choice's next event adds. Raises WireError where the choice was cancelled."""
        choice = self._choices[index]
        match event:
            case TextDelta(text):
                choice.text += text
                choice.logprobs.add_text(text)
                if not self._answer.has_logprobs:
                    yield self._more(choice, [])
            case LogprobsDelta(tokens):
                choice.logprobs.add_tokens(tokens)
                ready = choice.logprobs.take()
                if ready or choice.num_sent < len(choice.text):
                    yield self._more(choice, ready)
            case Finished():
                yield from self._last(choice, event)

    def failed(self, error: WireError) -> Iterator[ErrorResponse]:
        """What ends a stream that failed."""
        yield ErrorResponse(error=error.body)

    def whole(self) -> wire.Completion:
        """The answer that is not streamed, once all choices have ended."""
        answer, ends = self._answer, self._ends()
        whole = answer.envelope(
            [
                wire.CompletionChoice(
                    index=choice.index,
                    text=choice.text,
                    logprobs=self._logprobs(choice.tokens, 0),
                    finish_reason=_finish_reason(end),
                )
                for choice, end in zip(self._choices, ends, strict=True)
            ]
        )
        whole.usage, whole.toolmask = answer.usage(ends), answer.info(ends)
        return whole

    def _more(self, choice: _Choice, tokens: list[TokenLogprob], end: Finished | None = None) -> wire.Completion:
        text, choice.num_sent = choice.text[choice.num_sent :], len(choice.text)
        offset = sum(len(token.token.decode(errors="replace")) for token in choice.tokens)
        choice.tokens += tokens
        part = wire.CompletionChoice(
            index=choice.index,
            text=text,
            logprobs=self._logprobs(tokens, offset),
            finish_reason=None if end is None else _finish_reason(end),
        )
        chunk = self._answer.envelope([part])
        if self._answer.includes_usage:
            chunk.usage = None
        return chunk

    def _last(self, choice: _Choice, end: Finished) -> Iterator[wire.Completion]:
        choice.end = end
        rest = end.stop_reason is not StopReason.STOP_STRING
        last = self._more(choice, choice.logprobs.take(rest=rest), end)
        if any(each.end is None for each in self._choices):
            yield last
            return
        last.toolmask = self._answer.info(self._ends())
        yield last
        if self._answer.includes_usage:
            closing = self._answer.envelope([])
            closing.usage = self._answer.usage(self._ends())
            yield closing

    def _ends(self) -> list[Finished]:
        return [choice.end for choice in self._choices if choice.end is not None]

    def _logprobs(self, tokens: Sequence[TokenLogprob], offset: int) -> wire.CompletionLogprobs | None:
        if not self._answer.has_logprobs:
            return None
        texts = [token.token.decode(errors="replace") for token in tokens]
        return wire.CompletionLogprobs(
            tokens=texts,
            token_logprobs=[token.logprob for token in tokens],
            top_logprobs=[
                {top.token.decode(errors="replace"): top.logprob for top in (token, *token.top)} for token in tokens
            ],
            text_offset=[offset + sum(map(len, texts[:i])) for i in range(len(texts))],
        )


def _finish_reason(end: Finished) -> Literal["stop", "length"]:
    reason = FINISH_REASONS.get(end.stop_reason)
    if reason not in ("stop", "length"):
        raise cancelled()
    return reason
