"""Call or text, decided for rows whose logits are there: what opens a call is scored on them, raw.

What all calls begin with runs behind the row's own tokens in the same pass and is taken back at once, so that to look
costs no pass. To compare tools costs one for each further place where their names part.
"""

from collections.abc import Sequence as Rows
from dataclasses import dataclass, field, replace
from typing import cast

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from engine.decision_point import DecisionPlan
from engine.draws import Drawer, StepRow
from engine.events import Decision, Way
from engine.grammars.call_paths import ToolTree
from engine.grammars.decision import SMALLEST, is_call, log_odds, log_shares, log_sum, shares
from engine.model import Chunk, LanguageModel
from engine.prefix_cache import num_in_common
from engine.sampling.bitmask import pack_bitmask
from engine.sampling.sampler import SamplingRow, sample, stream_key, uniform
from engine.sequence import Sequence
from engine.work import Work

COIN, PATH = range(2)  # what is drawn at one place, each with noise of its own


@dataclass(frozen=True, slots=True)
class _Scores:
    """Logprobs of what may begin a call."""

    stem: list[float]  # of the marker's tokens, each behind those before it
    lasts: list[float]  # of each token that may end the marker
    others: list[float]  # of each token that begins a call in another of the family's ways
    tools: list[float] = field(default_factory=list)  # of each tool, if there is a call; none where that is not asked
    biased: list[float] = field(default_factory=list)  # likewise, with the request's logit_bias
    passes: int = 0  # that it took

    @property
    def marker(self) -> list[float]:
        """Of its tokens, each behind those before it."""
        return [*self.stem, log_sum(self.lasts)]

    @property
    def log_odds(self) -> float:
        """Of a call, in whichever of the family's ways."""
        return log_odds(log_sum([sum(self.marker), *self.others]))


class Decider:
    """Decides rows at their decision points. Used by the decoding thread only."""

    def __init__(self, model: LanguageModel, num_tokens: int, drawer: Drawer, work: Work) -> None:
        """num_tokens: of the vocabulary; logits may be padded beyond it."""
        self._model, self._num_tokens, self._drawer, self._work = model, num_tokens, drawer, work

    def look(self, row: StepRow) -> None:
        """Score what opens a call, lazily. The row's forward pass has been launched."""
        assert row.sequence.point is not None
        if row.open_logits is None:
            assert row.logits is not None
            row.open_logits = row.logits[-1:]
        opening, others = row.sequence.point.plan.opening, row.sequence.point.plan.others
        positions = [*range(len(opening.stem)), *[len(opening.stem)] * len(opening.lasts), *[0] * len(others)]
        row.marker = self._logprobs(row.open_logits, positions, [*opening.stem, *opening.lasts, *others])

    def _logprobs(self, logits: mx.array, positions: Rows[int], tokens: Rows[int]) -> mx.array:
        """Natural logs of the model's own probabilities of tokens at positions of (N, V). Lazy."""
        own = logits[:, : self._num_tokens].astype(mx.float32)
        at = mx.array(list(positions))
        return own[at, mx.array(list(tokens))] - mx.logsumexp(own, axis=-1)[at]

    def decide(self, row: StepRow) -> tuple[Decision | None, list[int]]:
        """The decision, and the tokens of the call if it is one; no decision where the token drawn opens the reasoning.

        After a decision for text, what is drawn is text, or may still become it. May raise MatcherError.
        """
        point = row.sequence.point
        assert point is not None
        assert row.marker is not None
        if 0 in row.errors:  # the mask is not known: nothing that was drawn counts
            raise row.errors[0]
        if not point.is_decided_by(row.drawn[0]):
            return None, []
        logprobs, num_stem = cast("list[float]", row.marker.tolist()), len(point.plan.opening.stem)
        num_own = num_stem + len(point.plan.opening.lasts)
        of_marker = logprobs[:num_stem], logprobs[num_stem:num_own], logprobs[num_own:]
        scores = _Scores(*of_marker)
        wants_call = _wants_call(row.sequence, point.plan, scores)
        if wants_call or point.plan.options.tool_probabilities:
            scores = self._with_tools(row, scores, point.plan.tree)
        path = self._call_path(row.sequence, point.plan, scores) if wants_call else []
        decision = _decided(point.plan, scores, fits=bool(path) or not wants_call, calls=bool(path))
        if decision.chosen is Way.TEXT:
            point.bar_marker(scores.marker)
            if row.drawn[0] in point.bias:
                self._drawer.redraw(row)
        elif not path:
            point.pass_on()
        return decision, path

    def undo(self, row: StepRow) -> bool:
        """Whether what is drawn for want of the marker opens the reasoning, so that nothing is decided yet."""
        point = row.sequence.point
        assert point is not None
        if is_undone := point.is_undone_by(row.drawn[0]):
            point.undo()
        return is_undone

    # Tools.

    def _with_tools(self, row: StepRow, scores: _Scores, tree: ToolTree) -> _Scores:
        """The same, with the tools as in the tree: how the model would choose among them, token by token."""
        num_before, bias = self._work.num_passes, row.sequence.sampling.logit_bias
        logits = self._at_forks(row, tree)
        biased = [
            [logit + bias.get(token, 0.0) for logit, token in zip(each, fork.following, strict=True)]
            for each, fork in zip(logits, tree.forks, strict=True)
        ]
        of_own, of_biased = (tree.logprobs([log_shares(each) for each in every]) for every in (logits, biased))
        return replace(scores, tools=of_own, biased=of_biased, passes=self._work.num_passes - num_before)

    def _at_forks(self, row: StepRow, tree: ToolTree) -> list[list[float]]:
        """The logits of what follows at each fork. What runs for them is taken back."""
        lazy: list[mx.array] = []
        run: tuple[int, ...] = ()
        for fork in tree.forks:
            if fork.before == row.scored[: len(fork.before)]:
                assert row.open_logits is not None
                behind = row.open_logits[len(fork.before)]
            else:
                behind, run = self._run(row, fork.before, behind=run), fork.before
            following = behind[mx.array(fork.following)].astype(mx.float32)
            lazy.append(mx.nan_to_num(following, nan=mx.finfo(mx.float32).min))
        if run:
            row.cache.trim(len(run))
        mx.eval(lazy)
        self._work.num_waits += bool(lazy)
        return [cast("list[float]", each.tolist()) for each in lazy]

    def _run(self, row: StepRow, tokens: tuple[int, ...], *, behind: tuple[int, ...]) -> mx.array:
        """(V,): the logits behind these tokens, which stay run. behind: what is run; what both begin with is kept."""
        num_shared, cache = num_in_common(tokens, behind), row.cache
        cache.trim(len(behind) - num_shared)
        logits = self._model.forward([Chunk(list(tokens[num_shared:]), cache, num_logits=1)])[-1]
        mx.async_eval(logits)
        row.sequence.num_forward_passes += 1
        self._work.num_passes += 1
        self._work.num_positions += len(tokens) - num_shared
        return logits

    def _call_path(self, sequence: Sequence, plan: DecisionPlan, scores: _Scores) -> list[int]:
        """The tokens by which the call begins, drawn as tokens are; none where no call can be completed."""
        opening, bias = plan.opening, sequence.sampling.logit_bias
        ways = [[*opening.stem, last] for last in opening.lasts]
        logits = [logprob + bias.get(last, 0.0) for logprob, last in zip(scores.lasts, opening.lasts, strict=True)]
        if plan.by_likelihood:
            ways, logits = [list(path.tokens) for path in plan.tree.paths], _compared(scores, plan)
        key = stream_key(sequence.key, len(sequence.output), PATH)
        row = SamplingRow(replace(sequence.sampling, logit_bias={}), key, 0, (), ())
        allowed = np.ones((1, len(ways)), bool)
        while allowed.any():
            number = 0 if len(ways) == 1 else self._drawn(logits, allowed, row)
            if sequence.can_follow(ways[number]):
                return ways[number]
            allowed[0, number] = False
        return []

    def _drawn(self, logits: list[float], allowed: NDArray[np.bool_], row: SamplingRow) -> int:
        self._work.num_waits += 1
        drawn = sample(mx.array([logits]), mx.array(pack_bitmask(allowed)), [row])
        return cast("list[int]", drawn.tolist())[0]


def _odds(scores: _Scores, plan: DecisionPlan) -> float:
    """The log-odds of a call that count."""
    return scores.log_odds - (plan.prior.log_odds if plan.prior else 0.0) + (plan.options.tool_call_bias or 0.0)


def _wants_call(sequence: Sequence, plan: DecisionPlan, scores: _Scores) -> bool:
    """Whether the turn becomes a call, if one fits."""
    if plan.must_call or not plan.decides:
        return plan.must_call
    number = uniform(sequence.key, len(sequence.output), COIN)
    threshold, temperature = plan.options.tool_call_threshold, sequence.sampling.temperature
    return is_call(_odds(scores, plan), threshold=threshold, temperature=temperature, uniform=number)


def _decided(plan: DecisionPlan, scores: _Scores, *, calls: bool, fits: bool) -> Decision:
    options, names = plan.options, [path.name for path in plan.tree.paths] if scores.tools else []
    shown = shares(_compared(scores, plan)) if scores.tools else []
    chosen = Way.CALL if calls else Way.TEXT
    return Decision(
        log_odds=_odds(scores, plan),
        log_odds_raw=scores.log_odds,
        required=plan.must_call,
        calibrated=plan.prior is not None,
        bias=options.tool_call_bias or 0.0,
        threshold=options.tool_call_threshold,
        chosen=chosen if plan.decides and (calls or not plan.must_call) else None,
        fits=fits,
        tools=dict(zip(names, shown, strict=True)) or None,
        tool_logprobs=dict(zip(names, scores.tools, strict=True)) or None,
        passes=scores.passes + (plan.prior.passes if plan.prior else 0),
    )


def _compared(scores: _Scores, plan: DecisionPlan) -> list[float]:
    """What the tools are compared by: how much likelier the request has made each, where that is known.

    Else a model that was not trained for tools chooses the one that the prompt shows first, whatever is asked.
    """
    if plan.prior is not None and plan.prior.tools:
        return [tool - max(before, SMALLEST) for tool, before in zip(scores.biased, plan.prior.tools, strict=True)]
    return scores.biased
