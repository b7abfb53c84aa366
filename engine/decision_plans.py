"""From a request to the place where its turn is decided, and to the prompt that a decision is calibrated against."""

import itertools
from dataclasses import replace

from engine.decision_options import TOKENS_DECIDE, DecisionOptions
from engine.decision_point import DecisionPlan, DecisionPoint
from engine.errors import RequestError
from engine.grammars.call_paths import CallOpening, ToolTree, call_opening, tool_path
from engine.grammars.reasoning_budget import reasoning_tags
from engine.grammars.tool_format import Opening, ToolFormat
from engine.tokenizer import Tokenizer
from engine.types import Message, Request, Role, Tool, ToolChoiceBy, ToolChoiceMode

INSTRUCTING = (Role.SYSTEM, Role.DEVELOPER)


class DecisionPlans:
    """Makes decision points, for one model and its family. Any thread may use it."""

    def __init__(
        self,
        tool_format: ToolFormat,
        tokenizer: Tokenizer,
        *,
        can_take_back: bool,
        default: DecisionOptions | None = None,
    ) -> None:
        """can_take_back: whether the model's cache can forget what was only run to look at it.

        default: the engine's own, of what a request does not say; the rest is as the format has it.
        """
        self._family, self._tokenizer, self._can_take_back = tool_format, tokenizer, can_take_back
        self._default = tool_format.decision if default is None else default.or_else(tool_format.decision)

    def point(self, request: Request, opening: Opening) -> DecisionPoint | None:
        """Where the request's turn is decided; None where nothing is asked that has a cost, or nothing is open.

        Raises RequestError where the model's cache cannot take back what must be run, or names cannot be told apart.
        """
        plan = self._plan(request)
        if plan is None:
            return None
        reasoning = self._family.reasoning
        if opening is Opening.NONE or reasoning is None:
            nothing = reasoning_tags("", "", self._tokenizer)
            return DecisionPoint.at_start(plan, nothing, nothing)
        begin = reasoning.begin if opening is Opening.BEFORE else ""
        tags, after = (reasoning_tags(begin, end, self._tokenizer) for end in (reasoning.end, reasoning.after))
        make = DecisionPoint.at_start if begin else DecisionPoint.inside_reasoning
        return make(plan, tags, after)

    def options(self, request: Request) -> DecisionOptions:
        """What decides the request's turn.

        The defaults are for answers to a user: a prompt without content ends with one's message, and says nothing of
        what comes behind a tool's result. And they are for caches that can take back what is run to look at it.
        """
        chooses_tool = self._wants_likelihood(request) and len(request.callable_tools) > 1
        is_open = request.may_decide or chooses_tool
        answers_user = is_open and bool(request.messages) and request.messages[-1].role is Role.USER
        has_default = answers_user and (self._can_take_back or self._is_free)
        return (request.decision or DecisionOptions()).or_else(self._default if has_default else TOKENS_DECIDE)

    def _plan(self, request: Request) -> DecisionPlan | None:
        must_call = request.tool_choice.mode is ToolChoiceMode.REQUIRED
        by_likelihood, options = self._is_by_likelihood(request), self.options(request)
        is_asked = request.decision is not None or (request.may_decide and options.decides) or by_likelihood
        if not request.callable_tools or not (is_asked or (self._is_free and not must_call)):
            return None
        if must_call:  # whether to call is not open
            options = replace(options, tool_call_bias=None, tool_call_threshold=None)
        plan = DecisionPlan(
            self._opening(request),
            self._markers(request),
            self._others(request),
            options,
            must_call=must_call,
            by_likelihood=by_likelihood,
            tree=self._tree(request) if self._compares_tools(request) else ToolTree(),
        )
        self._check(plan)
        return plan

    def _check(self, plan: DecisionPlan) -> None:
        if (reason := self._why_not(plan)) is not None:
            param = "tool_choice_by" if plan.by_likelihood else ".".join(["decision", *plan.options.given[:1]])
            raise RequestError(f"{param} cannot be done: {reason}", param=param)

    def _wants_likelihood(self, request: Request) -> bool:
        """Whether whole names would choose the tool, if there were several and the turn were calibrated."""
        if request.tool_choice_by is not None:
            return request.tool_choice_by is ToolChoiceBy.LIKELIHOOD
        return self._family.tool_choice_by is ToolChoiceBy.LIKELIHOOD and self._can_take_back

    def _is_by_likelihood(self, request: Request) -> bool:
        """Whether whole names choose the tool: where that is asked for, or the calibrated default."""
        if request.tool_choice_by is not None or len(request.callable_tools) < 2:
            return request.tool_choice_by is ToolChoiceBy.LIKELIHOOD
        return self._wants_likelihood(request) and self.options(request).calibrate is True

    def _compares_tools(self, request: Request) -> bool:
        return self._is_by_likelihood(request) or self.options(request).tool_probabilities

    def _why_not(self, plan: DecisionPlan) -> str | None:
        if not self._can_take_back and (plan.opening.stem or plan.tree.forks):
            return "this model's cache cannot take back what is run to look at it"
        names = sorted(path.name for path in plan.tree.paths)
        for name, following in itertools.pairwise(names if not self._family.before_arguments else ()):
            if following.startswith(name):
                return f"{name} is the beginning of {following}, and in the model's format nothing ends a tool's name"
        return None

    @property
    def _is_free(self) -> bool:
        """Whether one token opens a call, so that its logits are at hand where it may come."""
        return self._family.marker in self._tokenizer.unspellable

    def _opening(self, request: Request) -> CallOpening:
        if self._is_free:
            return CallOpening((), (self._tokenizer.unspellable[self._family.marker],))
        return call_opening(self._family, request.callable_tools, self._tokenizer, self._marker(request))

    def _marker(self, request: Request) -> str:
        """What tells a call from text; a response may begin with more of a call's marker than free text may."""
        return self._family.sign if request.response is None else self._family.marker

    def _markers(self, request: Request) -> tuple[bytes, ...]:
        texts = (self._marker(request), *(way.marker[0] for way in self._family.other_ways))
        return tuple(reasoning_tags("", text, self._tokenizer).end for text in texts)

    def _others(self, request: Request) -> tuple[int, ...]:
        """The first tokens of calls in the family's other ways. Nothing but these calls begins so."""
        tools = [tool for tool in request.callable_tools if isinstance(tool, Tool)]
        ways = self._family.other_ways if tools else ()
        openings = (call_opening(way, tools, self._tokenizer, way.marker[0]) for way in ways)
        return tuple(sorted({token for opening in openings for token in opening.stem[:1] or opening.lasts}))

    def _tree(self, request: Request) -> ToolTree:
        return ToolTree.of([tool_path(self._family, tool, self._tokenizer) for tool in request.callable_tools])

    # Calibration.

    def without_content(self, request: Request) -> Request:
        """The same tools behind the same instructions, and a user who says nothing. What opens a call is the same."""
        said = request.messages
        num_first = next((number for number, each in enumerate(said) if each.role not in INSTRUCTING), len(said))
        return Request(
            messages=(*said[:num_first], Message(Role.USER, "")),
            tools=request.tools,
            tool_choice=replace(request.tool_choice, mode=ToolChoiceMode.AUTO),
            parallel_tool_calls=request.parallel_tool_calls,
            response=request.response,
            template_options=request.template_options,
            tool_display=request.tool_display,
            decision=replace(TOKENS_DECIDE, tool_probabilities=self._compares_tools(request)),
        )

    def empty_reasoning(self, opening: Opening) -> list[int]:
        """The tokens of reasoning without a thought, where a prompt leaves the turn open to it."""
        reasoning = self._family.reasoning
        if opening is Opening.NONE or reasoning is None:
            return []
        begin = reasoning.begin if opening is Opening.BEFORE else ""
        return self._tokenizer.encode_parts(["", f"{begin}{reasoning.end}{reasoning.after}"])
