"""Call or text: arithmetic on log-probabilities. No arrays, no tokens.

A decision is one coin, whatever the temperature: its log-odds are those of a call, less those of a call after a prompt
without content (Zhao et al., "Calibrate before use", arXiv:2102.09690), plus the request's bias.
"""

import math
from collections.abc import Sequence

SMALLEST, LARGEST = -1e6, -1e-12  # logs of probabilities whose log-odds are finite


def log_odds(logprob: float) -> float:
    """Of something with this log-probability."""
    logprob = min(max(logprob, SMALLEST), LARGEST)
    return logprob - math.log(-math.expm1(logprob))


def probability(odds: float) -> float:
    """Of something with these log-odds."""
    return 1 / (1 + math.exp(-odds)) if odds >= 0 else math.exp(odds) / (1 + math.exp(odds))


def is_call(odds: float, *, threshold: float | None, temperature: float, uniform: float) -> bool:
    """How the coin falls. uniform: a number in (0, 1), which a threshold and temperature 0 do not need."""
    if threshold is not None:
        return probability(odds) >= threshold
    if temperature == 0:
        return odds >= 0
    return odds / temperature > log_odds(math.log(uniform))


def shares(scores: Sequence[float]) -> list[float]:
    """softmax(scores)."""
    best = max(scores)
    weights = [math.exp(score - best) for score in scores]
    return [weight / sum(weights) for weight in weights]


def log_shares(scores: Sequence[float]) -> list[float]:
    """log(softmax(scores))."""
    total = log_sum(scores)
    return [score - total for score in scores]


def log_sum(logprobs: Sequence[float]) -> float:
    """The log of the sum of the probabilities."""
    best = max(logprobs)
    return best if best == -math.inf else best + math.log(sum(math.exp(each - best) for each in logprobs))


def text_bias(rest: float) -> float:
    """What is added to a marker's token where no marker may follow, so that text keeps its own probabilities.

    rest: the log-probability of the marker's other tokens behind it. -inf where there are none.
    """
    return math.log(-math.expm1(min(rest, LARGEST))) if rest < LARGEST else -math.inf
