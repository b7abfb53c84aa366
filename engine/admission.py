"""From a request to a sequence that may run: everything that the caller can get wrong is found here.

Nothing here touches the device, so it runs on the thread of whoever submits: a slow compile delays its own request
only.
"""

import secrets
import uuid
from collections.abc import Iterable

from engine.checks import shown
from engine.config import EngineConfig
from engine.decision_plans import DecisionPlans
from engine.errors import BudgetError, ContextLengthError, GrammarError, MatcherError, RequestError
from engine.events import Enforcement, Receipt, ReceiptEntry
from engine.generation import Deliver, Run
from engine.grammars.closing import ClosingSearch
from engine.grammars.closing_hints import ClosingHints
from engine.grammars.encoders.json_arguments import JsonArguments
from engine.grammars.matcher import GrammarCompiler, Matcher
from engine.grammars.reasoning_budget import ReasoningBudget, reasoning_tags
from engine.grammars.tool_format import Opening, ToolFormat, split_at_id
from engine.grammars.turn import Turn
from engine.grammars.turn_cache import KnownTurn, Turns
from engine.grammars.turn_parser import TurnParser
from engine.grammars.veto_matcher import TurnReader, TurnVetoes, VetoMatcher
from engine.guard import Guard
from engine.model import LoadedModel
from engine.output import OutputStream
from engine.prompt import render_prompt
from engine.retrieval import with_retrieved_tools
from engine.sampling.sampler import choice_key
from engine.sequence import Sequence
from engine.template_skills import skills_of
from engine.types import CustomTool, GrammarKind, Request, SamplingParams
from engine.vetoes import VetoMaker

MAX_SEED = 2**63
MAX_TOKENS_OF_TAG = 32  # of a prompt's end: enough to see whether it opens the reasoning


class Admission:
    """What turns requests into runs, for one model. Any thread may use it."""

    def __init__(
        self,
        loaded: LoadedModel,
        tool_format: ToolFormat,
        compiler: GrammarCompiler,
        config: EngineConfig,
        *,
        context_length: int,
        can_take_back: bool = True,
    ) -> None:
        """context_length: tokens that prompt and answer may have, by the model and by the memory.

        can_take_back: whether the model's cache can forget its last tokens.
        """
        self._model, self._tokenizer, self._context_length = loaded.model, loaded.tokenizer, context_length
        self._tool_format, self._compiler, self._config = tool_format, compiler, config
        self._skills = skills_of(loaded.tokenizer, tool_format)
        self._turns = Turns(tool_format, loaded.tokenizer.unspellable)
        self._decisions = DecisionPlans(
            tool_format, loaded.tokenizer, can_take_back=can_take_back, default=config.decision
        )
        self.closing = ClosingSearch(
            [loaded.tokenizer.token_bytes(token) for token in range(loaded.tokenizer.num_tokens)],
            eos_ids=loaded.tokenizer.eos_ids,
            special_ids=frozenset(loaded.tokenizer.unspellable.values()),
            hints=self._hints(),
            ways_out=[loaded.tokenizer.encode(text) for text in self._ways_out()],
            ends=[
                loaded.tokenizer.unspellable[text]
                for text in (*self._ends_of_reasoning(), tool_format.calls_end)
                if text in loaded.tokenizer.unspellable
            ],
        )
        self._vetoes = VetoMaker(compiler, self.closing, loaded.tokenizer, tool_format, context_length)

    def _hints(self) -> ClosingHints:
        ends, text_ends = self._ends_of_reasoning(), self._tool_format.arguments.text_ends
        if text_ends:  # between tags, a quote does not tell values from other text
            return ClosingHints(anywhere=(*ends, *text_ends), ends=self._ends_of_calls())
        return ClosingHints(outside=ends, ends=self._ends_of_calls())

    def _ends_of_reasoning(self) -> tuple[str, ...]:
        return () if self._tool_format.reasoning is None else (self._tool_format.reasoning.end,)

    def _ends_of_calls(self) -> tuple[str, ...]:
        """Where nothing of a call but its end is missing, and behind it; no special tokens."""
        end, calls_end = self._tool_format.end, self._tool_format.calls_end
        return tuple(split_at_id(text)[0] for text in (f"{end}{calls_end}", calls_end)) if calls_end else ()

    def _ways_out(self) -> list[str]:
        """What leads to a call: the marker, at a turn's start and from inside of its reasoning."""
        reasoning, marker = self._tool_format.reasoning, self._tool_format.marker
        if reasoning is None:
            return [marker]
        return [marker, reasoning.end, f"{reasoning.end}{reasoning.after}{marker}"]

    @property
    def shows_tools(self) -> bool:
        """Whether the chat template shows tools itself."""
        return self._skills.shows_tools

    def render_prompt(self, request: Request) -> list[int]:
        """The token ids that the request's messages and tools become. Raises RequestError."""
        return self._render(with_retrieved_tools(request))

    def _render(self, request: Request) -> list[int]:
        return render_prompt(request, self._tool_format, self._tokenizer, self._skills)

    def is_calibrated(self, request: Request) -> bool:
        """Whether a call's log-odds are compared with those after a prompt without content."""
        return self._decisions.options(with_retrieved_tools(request)).calibrate is True

    def without_content(self, request: Request) -> Run:
        """A run of one token that tells of a call where nothing is asked. Raises RequestError."""
        probe = self._decisions.without_content(with_retrieved_tools(request))
        prompt = self._render(probe)
        prompt += self._decisions.empty_reasoning(self._opening(probe, prompt))
        self._max_tokens(probe, len(prompt))
        tokenizer = self._tokenizer
        point = self._decisions.point(probe, Opening.NONE)
        sequence = Sequence(
            probe, prompt, 0, 0, 1, tokenizer.eos_ids, matcher=None, fast_forward=False, guard=None, point=point
        )
        parser = TurnParser(self._tool_format, has_calls=False, special_tokens={}, call_id=str)
        output = OutputStream(tokenizer.detokenizer(), parser, stop=(), special_ids=frozenset())
        return Run(sequence, output, Receipt(), None)

    def admit(self, request: Request, choice_index: int, deliver: Deliver | None) -> Run:
        """A run that is ready to start; its decision is not calibrated yet. Raises RequestError."""
        tokenizer, request = self._tokenizer, with_retrieved_tools(request)
        self._check_token_ids(request)
        self._check_optional_bias(request)
        asked = self._turns.of(request)
        prompt = self._render(request)
        if not prompt:
            raise RequestError("the chat template makes an empty prompt of these messages", param="messages")
        opening = self._opening(request, prompt)
        known = asked.at(opening)
        turn = known.turn
        self._check_special_ids(request, turn)
        matcher = self._with_budget(request, self._compiled(request, known, opening), opening)
        seed, max_tokens = seed_of(request.sampling), self._max_tokens(request, len(prompt))
        try:
            sequence = Sequence(
                request=request,
                prompt=prompt,
                key=choice_key(seed, choice_index),
                seed=seed,
                max_tokens=max_tokens,
                eos_ids=tokenizer.eos_ids,
                matcher=matcher,
                fast_forward=self._config.fast_forward,
                guard=None if matcher is None else self._guard(request, turn, matcher, len(prompt), max_tokens),
                point=self._decisions.point(request, opening),
            )
        except MatcherError as error:  # what is forced from the start on is asked for here: a grammar may be too large
            param = "tools" if request.response is None else "response"
            raise GrammarError(f"{param} cannot be enforced: {error}", param=param) from error
        return Run(sequence, self._output(request, turn, opening), _receipt(request, turn, opening), deliver)

    def _opening(self, request: Request, prompt: list[int]) -> Opening:
        """Whether the turn begins with reasoning. After a prompt of the caller's own tokens it does not."""
        reasoning, tokenizer = self._tool_format.reasoning, self._tokenizer
        if reasoning is None or request.prompt is not None:
            return Opening.NONE
        end = tokenizer.decode(prompt[-MAX_TOKENS_OF_TAG:])
        return reasoning.opening(end, may_open=reasoning.is_in(tokenizer.chat_template))

    def _compiled(self, request: Request, known: KnownTurn, opening: Opening) -> Matcher | None:
        turn, matcher = known.turn, known.compile(self._compiler)
        vetoes = {part.tool: self._vetoes.of(part) for part in turn.vetoed}
        known.is_sound = True
        if matcher is None or not vetoes:
            return matcher
        of_tools = {name: veto for name, veto in vetoes.items() if name is not None}
        parser = self._parser(request, turn, opening)
        return VetoMatcher(matcher, TurnReader(parser, TurnVetoes(of_tools, vetoes.get(None)), self._tokenizer))

    def _with_budget(self, request: Request, matcher: Matcher | None, opening: Opening) -> Matcher | None:
        reasoning, budget = self._tool_format.reasoning, request.reasoning_budget
        if budget is None:
            return matcher
        if matcher is None or reasoning is None or opening is Opening.NONE:
            raise RequestError("reasoning_budget stands here, but this turn has no reasoning", param="reasoning_budget")
        begin = reasoning.begin if opening is Opening.BEFORE else ""
        return ReasoningBudget(matcher, reasoning_tags(begin, reasoning.end, self._tokenizer), budget)

    def _guard(self, request: Request, turn: Turn, matcher: Matcher, num_prompt: int, max_tokens: int) -> Guard:
        """Raises BudgetError where no complete answer fits into max_tokens, naming what would."""
        guard = Guard(
            self.closing,
            self._tokenizer.token_bytes,
            turn.hints,
            turn.bound,
            self._tokenizer.eos_ids,
            bool(turn.vetoed),
        )
        least = guard.begin(matcher, max_tokens, self._context_length - num_prompt)
        param = "tools" if request.response is None else "response"
        if least is None:
            reason = f"no complete answer was found that fits into the context behind {num_prompt} prompt tokens"
            raise GrammarError(f"{param} cannot be enforced: {reason}", param=param)
        if least > max_tokens:
            raise BudgetError(
                f"max_tokens is {max_tokens}; the shortest complete answer to this request has {least} tokens",
                param="max_tokens",
                least=least,
            )
        return guard

    def _parser(self, request: Request, turn: Turn, opening: Opening) -> TurnParser:
        turn_id = uuid.uuid4().hex[:20]
        return TurnParser(
            self._tool_format,
            has_calls=turn.has_calls,
            special_tokens=self._tokenizer.unspellable,
            call_id=lambda index: f"call_{turn_id}{index}",
            has_response=request.response is not None,
            custom_names=frozenset(tool.name for tool in request.callable_tools if isinstance(tool, CustomTool)),
            schemas=turn.schemas,
            opening=opening,
        )

    def _output(self, request: Request, turn: Turn, opening: Opening) -> OutputStream:
        parser = self._parser(request, turn, opening)
        stop = request.stop if request.response is None else ()
        special_ids = frozenset(self._tokenizer.unspellable.values())
        return OutputStream(self._tokenizer.detokenizer(), parser, stop=stop, special_ids=special_ids)

    def _check_token_ids(self, request: Request) -> None:
        num_tokens = self._tokenizer.num_tokens
        given: dict[str, Iterable[int]] = {
            "logit_bias": request.sampling.logit_bias,
            "stop_token_ids": request.stop_token_ids,
            "prompt": request.prompt or (),
        }
        for param, ids in given.items():
            for token in ids:
                if not 0 <= token < num_tokens:
                    raise RequestError(f"{param} has token {shown(token)}; ids are 0 to {num_tokens - 1}", param=param)

    def _check_optional_bias(self, request: Request) -> None:
        if request.optional_bias is not None and not isinstance(self._tool_format.arguments, JsonArguments):
            name = self._tool_format.name
            message = f"optional_bias cannot be applied: the model's format, {name}, does not write arguments as JSON"
            raise RequestError(message, param="optional_bias")

    def _check_special_ids(self, request: Request, turn: Turn) -> None:
        """Special tokens are masked wherever no grammar names them: an option about one of them would do nothing."""
        tokenizer = self._tokenizer
        given = {"logit_bias": request.sampling.logit_bias, "stop_token_ids": request.stop_token_ids}
        if not any(given.values()):  # which ids a large grammar names takes long to tell
            return
        masked = tokenizer.special_ids - tokenizer.eos_ids - self._named_ids(request, turn)
        for param, ids in given.items():
            for token in ids:
                if token in masked:
                    text = tokenizer.token_bytes(token).decode(errors="replace")
                    raise RequestError(f"{param} has {token}, {shown(text)}: it can never be written", param=param)

    def _named_ids(self, request: Request, turn: Turn) -> frozenset[int]:
        """Special tokens that the turn's grammar may name; of a caller's own Lark grammar, all."""
        if turn.source is None:
            return frozenset()
        tokenizer = self._tokenizer
        custom = [tool.format for tool in request.callable_tools if isinstance(tool, CustomTool)]
        if any(each is not None and each.kind is GrammarKind.LARK for each in (request.response, *custom)):
            return tokenizer.special_ids
        return frozenset(id_ for id_ in tokenizer.special_ids if f"<[{id_}]>" in turn.source)

    def _max_tokens(self, request: Request, num_prompt: int) -> int:
        context = self._context_length
        room = context - num_prompt
        if room < 1:
            limit = "the model's context" if context == self._model.context_length else "kv_memory"
            raise ContextLengthError(
                f"the prompt has {num_prompt} tokens; {limit} has {context}, one of them for the answer",
                param="messages" if request.prompt is None else "prompt",
            )
        if request.max_tokens is not None and request.max_tokens > room:
            raise ContextLengthError(
                f"max_tokens is {shown(request.max_tokens)}; the prompt's {num_prompt} tokens leave room for {room}",
                param="max_tokens",
            )
        return request.max_tokens or room


def seed_of(sampling: SamplingParams) -> int:
    """The request's own, or one that is drawn."""
    return secrets.randbelow(MAX_SEED) if sampling.seed is None else sampling.seed


def _receipt(request: Request, turn: Turn, opening: Opening) -> Receipt:
    entries = list(turn.receipt.entries)
    if request.tools and turn.source is not None:
        entries.insert(0, ReceiptEntry("tool_choice", Enforcement.GRAMMAR, request.tool_choice.mode.value))
    if turn.has_calls or request.response is not None or opening is not Opening.NONE:
        given = {"stop": request.stop, "stop_token_ids": request.stop_token_ids}
        for param in (param for param, value in given.items() if value):
            entries.append(ReceiptEntry(param, Enforcement.NARROWED, "matched in free text only"))
    was_chosen = request.tool_retrieval is not None and turn.has_calls
    return Receipt(tuple(entries), tuple(tool.name for tool in request.callable_tools) if was_chosen else None)
