"""Call or text, decided for rows whose logits are there: what opens a call is scored on them, raw.

The marker's tokens run behind the row's own in the same pass and are taken back at once, so that to look costs no pass
and no wait. Whole names of tools do.
"""

from collections.abc import Sequence as Rows
from dataclasses import dataclass
from typing import cast

import mlx.core as mx

from engine.decision_point import DecisionPlan, DecisionPoint
from engine.draws import Drawer, StepRow
from engine.events import Decision, Way
from engine.grammars.call_paths import ToolPath
from engine.grammars.decision import choice, is_call, log_odds, log_sum, shares
from engine.model import Chunk, LanguageModel
from engine.sampling.sampler import uniform
from engine.sequence import Sequence
from engine.work import Work

COIN, PATH = range(2)  # what is drawn at one place, each with noise of its own


@dataclass(frozen=True, slots=True)
class _Scores:
    """Logprobs of what may begin a call."""

    stem: list[float]  # of the marker's tokens, each behind those before it
    lasts: list[float]  # of each token that may end the marker
    others: list[float]  # of each token that begins a call in another of the family's ways
    names: list[float]  # of each tool's whole name; none where that is not asked
    name_lengths: list[int]  # tokens
    passes: int  # that it took

    @property
    def marker(self) -> list[float]:
        """Of its tokens, each behind those before it."""
        return [*self.stem, log_sum(self.lasts)]


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
        scores = _Scores(*of_marker, *self._name_scores(row, point.plan.paths))
        decision, path = _decided(row.sequence, point, scores)
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

    # Whole names.

    def _name_scores(self, row: StepRow, paths: Rows[ToolPath]) -> tuple[list[float], list[int], int]:
        """The logprob of each name, in the order of the paths; its tokens; and the forward passes that it took."""
        if len(paths) < 2:
            return [0.0] * len(paths), [1] * len(paths), 0
        before = self._work.num_passes
        shared = _shared(paths)
        of_shared = self._after_shared(row, shared)
        lazy = [self._path_logprobs(row, path, len(shared), of_shared) for path in paths]
        if shared:
            self._trim(row, len(shared))
        mx.eval(lazy)
        self._work.num_waits += 1
        names = [cast("list[float]", array.tolist())[path.name_at :] for path, array in zip(paths, lazy, strict=True)]
        return [sum(name) for name in names], [len(name) for name in names], self._work.num_passes - before

    def _after_shared(self, row: StepRow, shared: Rows[int]) -> mx.array:
        """(len(shared) + 1, V): the logits before each token that all paths have, and behind them. They stay run."""
        assert row.open_logits is not None
        first = row.open_logits[:1]
        return mx.concatenate([first, self._forward(row, shared)]) if shared else first

    def _path_logprobs(self, row: StepRow, path: ToolPath, num_shared: int, of_shared: mx.array) -> mx.array:
        """Of all tokens of a path, each behind those before it. What runs for it is taken back."""
        rest = path.tokens[num_shared:-1]
        logits = of_shared
        if rest:
            logits = mx.concatenate([of_shared, self._forward(row, rest)])
            self._trim(row, len(rest))
        return self._logprobs(logits, range(len(path.tokens)), path.tokens)

    def _forward(self, row: StepRow, tokens: Rows[int]) -> mx.array:
        assert row.sequence.cache is not None
        logits = self._model.forward([Chunk(list(tokens), row.sequence.cache, num_logits=len(tokens))])
        mx.async_eval(logits)
        row.sequence.num_forward_passes += 1
        self._work.num_passes += 1
        self._work.num_positions += len(tokens)
        return logits

    def _trim(self, row: StepRow, num_tokens: int) -> None:
        assert row.sequence.cache is not None
        row.sequence.cache.trim(num_tokens)


def _shared(paths: Rows[ToolPath]) -> tuple[int, ...]:
    """The tokens that all paths begin with."""
    columns = zip(*(path.tokens for path in paths), strict=False)
    shared: list[int] = []
    for column in columns:
        if len(set(column)) > 1:
            break
        shared.append(column[0])
    return tuple(shared)


def _decided(sequence: Sequence, point: DecisionPoint, scores: _Scores) -> tuple[Decision, list[int]]:
    plan, options = point.plan, point.plan.options
    raw = log_odds(log_sum([sum(scores.marker), *scores.others]))
    odds = raw - (plan.prior.log_odds if plan.prior else 0.0) + (options.tool_call_bias or 0.0)
    wants_call = plan.must_call or (plan.decides and _coin(sequence, odds, options.tool_call_threshold))
    path = _call_path(sequence, point, scores) if wants_call else []
    chosen = Way.CALL if path else Way.TEXT
    shown = shares(_compared(scores, plan)) if scores.names else []
    decision = Decision(
        log_odds=odds,
        log_odds_raw=raw,
        calibrated=plan.prior is not None,
        bias=options.tool_call_bias or 0.0,
        threshold=options.tool_call_threshold,
        chosen=chosen if plan.decides and not (plan.must_call and not path) else None,
        fits=bool(path) or not wants_call,
        tools={path.name: share for path, share in zip(plan.paths, shown, strict=True)} or None,
        name_logprobs={path.name: logprob for path, logprob in zip(plan.paths, scores.names, strict=True)} or None,
        passes=scores.passes + (plan.prior.passes if plan.prior else 0),
    )
    return decision, path


def _compared(scores: _Scores, plan: DecisionPlan) -> list[float]:
    """What the tools are compared by.

    How much likelier the request has made the whole name, where that is known: else what the prompt shows first, or as
    an example, is the likeliest whatever is asked. If not, the mean logprob of the name's tokens.
    """
    if plan.prior is not None and plan.prior.names:
        return [name - before for name, before in zip(scores.names, plan.prior.names, strict=True)]
    return [name / length for name, length in zip(scores.names, scores.name_lengths, strict=True)]


def _coin(sequence: Sequence, odds: float, threshold: float | None) -> bool:
    number = uniform(sequence.key, len(sequence.output), COIN)
    return is_call(odds, threshold=threshold, temperature=sequence.sampling.temperature, uniform=number)


def _call_path(sequence: Sequence, point: DecisionPoint, scores: _Scores) -> list[int]:
    """The tokens by which the call begins; none where no call can be completed."""
    plan, opening = point.plan, point.plan.opening
    ways = [(score, [*opening.stem, last]) for score, last in zip(scores.lasts, opening.lasts, strict=True)]
    if plan.by_likelihood:
        ways = [(score, list(path.tokens)) for score, path in zip(_compared(scores, plan), plan.paths, strict=True)]
    number, temperature = uniform(sequence.key, len(sequence.output), PATH), sequence.sampling.temperature
    while ways:
        _, tokens = ways.pop(choice([score for score, _ in ways], temperature=temperature, uniform=number))
        if sequence.can_follow(tokens):
            return tokens
    return []
