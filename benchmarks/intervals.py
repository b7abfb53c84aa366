"""Figures with their 95 % intervals: medians and balanced accuracies by bootstrap, shares after Wilson."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

NUM_RESAMPLES = 10_000
MIN_PAIRS = 15  # with fewer, an interval says little
CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Interval:
    """A median and where it may lie."""

    median: float
    low: float
    high: float

    def to_json(self) -> dict[str, float]:
        return {name: round(value, 4) for name, value in asdict(self).items()}

    def __str__(self) -> str:
        return f"{self.median:.3f} ({self.low:.3f} to {self.high:.3f})"


def bootstrap_median(values: Sequence[float], seed: int = 0) -> Interval:
    """The median of the values and its 95 % percentile interval: Efron, Annals of Statistics 7, 1979."""
    if not values:
        raise ValueError("values is empty; a median needs one")
    sample = np.asarray(values, dtype=np.float64)
    drawn = np.random.default_rng(seed).integers(len(sample), size=(NUM_RESAMPLES, len(sample)))
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(np.median(sample[drawn], axis=1), [tail, 1 - tail])
    return Interval(float(np.median(sample)), float(low), float(high))


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """95 % interval of a share. Wilson, J. Am. Stat. Assoc. 22 (1927)."""
    z = 1.96
    share, spread = successes / trials, z * z / trials
    centre = (share + spread / 2) / (1 + spread)
    half = z * math.sqrt(share * (1 - share) / trials + spread / (4 * trials)) / (1 + spread)
    return centre - half, centre + half


def bootstrap_balanced(first: Sequence[bool], second: Sequence[bool], seed: int = 0) -> tuple[float, float, float]:
    """The mean of two shares, and its 95 % percentile interval; each side is drawn again on its own."""
    generator = np.random.default_rng(seed)
    shares = [
        np.asarray(side, dtype=np.float64)[generator.integers(len(side), size=(NUM_RESAMPLES, len(side)))].mean(axis=1)
        for side in (first, second)
    ]
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile((shares[0] + shares[1]) / 2, [tail, 1 - tail])
    return (float(np.mean(first)) + float(np.mean(second))) / 2, float(low), float(high)


def verdict(interval: Interval, at_most: float) -> str:
    """Whether a quantity is at most so much, as far as its interval can tell."""
    if interval.high <= at_most:
        return "holds"
    return "fails" if interval.low > at_most else "not decided by this run"
