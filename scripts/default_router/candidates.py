"""The routers that are compared: ridge regressions of the outcome on what is seen of a prompt, centred by source.

Fits need only sums over the prompts, so any number of candidates on any folds costs one pass over the data.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

FEATURES = ("embedding", "embedding and length", "embedding and surface")
"""What is seen of a prompt, the fewest first."""

SHARES = {"every prompt the same": 0.0, "sources by sqrt(prompts)": 0.5, "every source the same": 1.0}
"""A prompt of a source of n prompts weighs n to the minus this; the plainest first."""

RIDGES = (10.0, 30.0, 100.0)


@dataclass(frozen=True)
class Candidate:
    """One router to compare.

    Attributes:
        features: One of `FEATURES`.
        shares: One of `SHARES`.
        ridge: Penalty on the squared weights, against prompts that weigh 1 on average.
    """

    features: str
    shares: str
    ridge: float

    @property
    def name(self) -> str:
        """What it is called in the tables."""
        return f"{self.features}, {self.shares}, ridge {self.ridge:g}"

    @property
    def simplicity(self) -> tuple[int, float, int]:
        """The simplest sorts first: fewer features, then a stronger penalty, then plainer weights."""
        return FEATURES.index(self.features), -self.ridge, list(SHARES).index(self.shares)


@dataclass(frozen=True)
class Sums:
    """All that a fit needs to know of some prompts of one source.

    Attributes:
        count: How many they are.
        x: Sum of their features, shape (d,).
        y: Sum of their outcomes.
        xx: Sum of the products of their features, shape (d, d).
        xy: Sum of features times outcomes, shape (d,).
    """

    count: int
    x: NDArray[np.float64]
    y: float
    xx: NDArray[np.float64]
    xy: NDArray[np.float64]

    @classmethod
    def of(cls, design: NDArray[np.float64], outcomes: NDArray[np.float64]) -> Sums:
        """Sum over prompts with these features, shape (n, d), and outcomes, shape (n,)."""
        return cls(len(design), design.sum(axis=0), float(outcomes.sum()), design.T @ design, design.T @ outcomes)

    def __add__(self, other: Sums) -> Sums:
        return Sums(
            self.count + other.count, self.x + other.x, self.y + other.y, self.xx + other.xx, self.xy + other.xy
        )


Linear: TypeAlias = "tuple[NDArray[np.float64], float]"
"""Weights of the features, shape (d,), and the bias."""


def all_candidates() -> list[Candidate]:
    """Everything that is compared; deliberately few."""
    return [Candidate(*parts) for parts in product(FEATURES, SHARES, RIDGES)]


def fit(sources: Sequence[Sums], candidate: Candidate) -> Linear:
    """Fit one candidate: ridge regression with an intercept of its own for each source.

    How much better the strong model is on a source as a whole then teaches the weights nothing, so they learn what
    is hard within a source and not which source a prompt is from.

    Args:
        sources: Sums of each source's training prompts, at least one.
        candidate: What to fit.

    Returns:
        Weights, and the bias: the mean of the sources' intercepts, so that a score estimates the outcome of a prompt
        that is as likely from any of them.
    """
    counts = np.array([sums.count for sums in sources], dtype=np.float64)
    weights = counts ** -SHARES[candidate.shares]
    weights *= counts.sum() / (counts @ weights)
    parts = list(zip(weights, sources, strict=True))
    curvature = sum(weight * (s.xx - np.outer(s.x, s.x) / s.count) for weight, s in parts)
    slopes = sum(weight * (s.xy - s.x * s.y / s.count) for weight, s in parts)
    found = np.linalg.solve(curvature + candidate.ridge * np.eye(len(slopes)), slopes)
    return found, float(np.mean([(s.y - s.x @ found) / s.count for s in sources]))
