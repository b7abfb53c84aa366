"""Values instead of text: a prompt and an output type give a value of that type.

generate gives the value; answer gives it with its Completion (tokens, receipt); stream gives partial values first;
batch and answers take many prompts. What may be written is bound by a grammar made of the type, so there is nothing
to retry. The type is not shown to the model: say in the prompt what you want.
"""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Generic, Self, TypeVar, overload

from engine.checks import check, shown
from engine.engine import Engine
from engine.errors import EngineError, GrammarError, QueueFullError, SchemaError
from engine.events import Completion, StopReason, TextDelta
from engine.generation import Generation
from engine.outlines_terms import Term, term_output
from engine.output_types import OutputType, grammar_output, json_output, python_output
from engine.requests import AnyMessage, to_messages
from engine.types import Grammar, Message, Request, Role, SamplingParams

T = TypeVar("T")

Prompt = str | Iterable[AnyMessage]  # one user message, or a conversation

_NOTHING = object()


@dataclass(frozen=True, slots=True)
class Answer(Generic[T]):
    """A value, and what it was read from."""

    value: T
    completion: Completion


class OutputError(EngineError):
    """An answer that is no value of the type: it was cut off, or a validator of the type's own refused it."""

    def __init__(self, message: str, completion: Completion) -> None:
        super().__init__(message)
        self.completion = completion


class BatchError(EngineError):
    """Some prompts have no answer. `outcomes` has every prompt's answer or error, in the order of the prompts."""

    def __init__(self, outcomes: Sequence[Answer[Any] | EngineError]) -> None:
        self.outcomes = tuple(outcomes)
        failed = [(index, each) for index, each in enumerate(self.outcomes) if isinstance(each, EngineError)]
        index, first = failed[0]
        super().__init__(f"{len(failed)} of {len(self.outcomes)} prompts have no answer; prompts[{index}]: {first}")


@overload
def generate(
    engine: Engine,
    prompt: Prompt,
    output_type: type[T] | OutputType[T],
    *,
    sampling: SamplingParams | None = None,
    max_tokens: int | None = None,
) -> T: ...
@overload
def generate(
    engine: Engine,
    prompt: Prompt,
    output_type: object,
    *,
    sampling: SamplingParams | None = None,
    max_tokens: int | None = None,
) -> Any: ...
def generate(
    engine: Engine,
    prompt: Prompt,
    output_type: object,
    *,
    sampling: SamplingParams | None = None,
    max_tokens: int | None = None,
) -> Any:
    """A value of the type. Raises as answer does."""
    return answer(engine, prompt, output_type, sampling=sampling, max_tokens=max_tokens).value


@overload
def answer(
    engine: Engine,
    prompt: Prompt,
    output_type: type[T] | OutputType[T],
    *,
    sampling: SamplingParams | None = None,
    max_tokens: int | None = None,
) -> Answer[T]: ...
@overload
def answer(
    engine: Engine,
    prompt: Prompt,
    output_type: object,
    *,
    sampling: SamplingParams | None = None,
    max_tokens: int | None = None,
) -> Answer[Any]: ...
def answer(
    engine: Engine,
    prompt: Prompt,
    output_type: object,
    *,
    sampling: SamplingParams | None = None,
    max_tokens: int | None = None,
) -> Answer[Any]:
    """A value of the type, and its Completion.

    output_type: see engine.output_types.ALLOWED. max_tokens: None for up to the context's end. Raises RequestError
    before the first token; OutputError where the budget ends first, or a validator refuses; GenerationError.
    """
    with stream(engine, prompt, output_type, sampling=sampling, max_tokens=max_tokens) as values:
        return values.answer()


@overload
def stream(
    engine: Engine,
    prompt: Prompt,
    output_type: type[T] | OutputType[T],
    *,
    sampling: SamplingParams | None = None,
    max_tokens: int | None = None,
) -> "Stream[T]": ...
@overload
def stream(
    engine: Engine,
    prompt: Prompt,
    output_type: object,
    *,
    sampling: SamplingParams | None = None,
    max_tokens: int | None = None,
) -> "Stream[Any]": ...
def stream(
    engine: Engine,
    prompt: Prompt,
    output_type: object,
    *,
    sampling: SamplingParams | None = None,
    max_tokens: int | None = None,
) -> "Stream[Any]":
    """Partial values as they become known, then the value; in a `with` statement, leaving it cancels what is left."""
    output = _output(output_type)
    request = _request(prompt, output, sampling, max_tokens)
    return Stream(engine.submit(request), output, request)


@overload
def batch(
    engine: Engine,
    prompts: Iterable[Prompt],
    output_type: type[T] | OutputType[T],
    *,
    sampling: SamplingParams | None = None,
    max_tokens: int | None = None,
) -> list[T]: ...
@overload
def batch(
    engine: Engine,
    prompts: Iterable[Prompt],
    output_type: object,
    *,
    sampling: SamplingParams | None = None,
    max_tokens: int | None = None,
) -> list[Any]: ...
def batch(
    engine: Engine,
    prompts: Iterable[Prompt],
    output_type: object,
    *,
    sampling: SamplingParams | None = None,
    max_tokens: int | None = None,
) -> list[Any]:
    """A value for each prompt, in their order. Raises as answers does."""
    return [each.value for each in answers(engine, prompts, output_type, sampling=sampling, max_tokens=max_tokens)]


@overload
def answers(
    engine: Engine,
    prompts: Iterable[Prompt],
    output_type: type[T] | OutputType[T],
    *,
    sampling: SamplingParams | None = None,
    max_tokens: int | None = None,
) -> list[Answer[T]]: ...
@overload
def answers(
    engine: Engine,
    prompts: Iterable[Prompt],
    output_type: object,
    *,
    sampling: SamplingParams | None = None,
    max_tokens: int | None = None,
) -> list[Answer[Any]]: ...
def answers(
    engine: Engine,
    prompts: Iterable[Prompt],
    output_type: object,
    *,
    sampling: SamplingParams | None = None,
    max_tokens: int | None = None,
) -> list[Answer[Any]]:
    """An answer for each prompt, in their order, decoded side by side.

    A type that cannot be enforced is raised at once. Whatever befalls one prompt leaves the others alone and is in the
    BatchError that is raised when all have ended.
    """
    is_list = isinstance(prompts, Iterable) and not isinstance(prompts, (str, Mapping))
    check("prompts", prompts, "a list of prompts", holds=is_list)
    output = _output(output_type)
    with ExitStack() as running:  # an interrupt must not leave the model running
        started = _Batch(engine, output, running)
        streams = [started.submit(prompt, sampling, max_tokens) for prompt in prompts]
        outcomes = [_outcome(each) for each in streams]
    if any(isinstance(each, EngineError) for each in outcomes):
        raise BatchError(outcomes)
    return [each for each in outcomes if isinstance(each, Answer)]


class Stream(Generic[T]):
    """The values of one running generation. One consumer.

    Of what is written as JSON, a partial value is plain Python (dicts, lists, strings, numbers): what is known so far,
    where the last string may be cut. Of text, it is the text so far. Nothing comes twice, until the last value: that
    is the whole one, of the type, validated.
    """

    def __init__(self, generation: Generation, output: OutputType[T], request: Request) -> None:
        self._generation = generation
        self._output = output
        self._request = request
        self._text = ""
        self._last: object = _NOTHING
        self._answer: Answer[T] | None = None

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        """The next value; waits for it. Raises OutputError or GenerationError where there will be none."""
        if self._answer is not None:
            raise StopIteration
        for event in self._generation:
            if isinstance(event, TextDelta) and self._knows_more(event.text):
                return self._last
        return self.answer().value

    def answer(self) -> Answer[T]:
        """Wait for the end; the value and its Completion. Raises as iteration does."""
        if self._answer is None:
            completion = self._generation.completion()
            self._answer = Answer(_value(completion, self._output, self._request), completion)
        return self._answer

    def cancel(self) -> None:
        """Stop within a step. The next value is then an OutputError."""
        self._generation.cancel()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.cancel()

    def _knows_more(self, text: str) -> bool:
        self._text += text
        try:
            partial = self._output.read_partial(self._text)
        except ValueError:
            return False
        before, self._last = self._last, partial
        return before is _NOTHING or partial != before


class _Batch:
    """Starts many generations of one type; where the engine's queue is full, the earliest of these must end first."""

    def __init__(self, engine: Engine, output: OutputType[Any], running: ExitStack) -> None:
        self._engine = engine
        self._output = output
        self._running = running
        self._unfinished: deque[Stream[Any]] = deque()

    def submit(
        self, prompt: Prompt, sampling: SamplingParams | None, max_tokens: int | None
    ) -> Stream[Any] | EngineError:
        """The started generation, or the error that kept it from starting."""
        try:
            request = _request(prompt, self._output, sampling, max_tokens)
            values = Stream(self._submit(request), self._output, request)
        except (SchemaError, GrammarError):  # the type is to blame, not this prompt
            raise
        except EngineError as error:
            return error
        self._unfinished.append(self._running.enter_context(values))
        return values

    def _submit(self, request: Request) -> Generation:
        while True:
            try:
                return self._engine.submit(request)
            except QueueFullError:
                if not self._unfinished:  # others fill it
                    raise
            with suppress(EngineError):  # raised again when it is this one's turn
                self._unfinished.popleft().answer()


def _outcome(values: Stream[Any] | EngineError) -> Answer[Any] | EngineError:
    if isinstance(values, EngineError):
        return values
    try:
        return values.answer()
    except EngineError as error:
        return error


def _output(output_type: Any) -> OutputType[Any]:
    match output_type:
        case OutputType():
            return output_type
        case Term():
            return term_output(output_type)
        case Grammar():
            return grammar_output(output_type)
        case Mapping():
            return json_output(output_type)
        case _:
            return python_output(output_type)


def _request(
    prompt: Prompt, output: OutputType[Any], sampling: SamplingParams | None, max_tokens: int | None
) -> Request:
    messages = (Message(Role.USER, prompt),) if isinstance(prompt, str) else to_messages(prompt)
    sampling = SamplingParams() if sampling is None else sampling
    return Request(messages=messages, response=output.grammar, sampling=sampling, max_tokens=max_tokens)


def _value(completion: Completion, output: OutputType[T], request: Request) -> T:
    text, reason = completion.text or "", completion.stop_reason
    may_be_cut = output.grammar is None and reason is StopReason.LENGTH
    if reason in (StopReason.LENGTH, StopReason.CANCELLED) and not may_be_cut:
        how = "cancelled" if reason is StopReason.CANCELLED else f"cut off by {_budget(completion, request)}"
        raise OutputError(f"the answer was {how} before it was complete; it begins {shown(text)}", completion)
    try:
        return output.read(text)
    except ValueError as error:  # pydantic's ValidationError is one
        raise OutputError(
            f"the answer satisfies its schema, but not a rule of the type's own: {error}", completion
        ) from error


def _budget(completion: Completion, request: Request) -> str:
    if request.max_tokens is not None:
        return f"max_tokens, which is {request.max_tokens},"
    return f"the end of the model's context, after {completion.usage.completion_tokens} tokens,"
