"""Intervals of the area under the performance-gap-recovered curve, by resampling prompts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from prefroute.evaluation import apgr

if TYPE_CHECKING:
    from numpy.typing import NDArray

INTERVAL = (2.5, 97.5)


def resampled_apgr(
    scores: NDArray[np.float64], gains: NDArray[np.float64], draws: NDArray[np.int64]
) -> NDArray[np.float64]:
    """`apgr` on each resample of the prompts.

    Args:
        scores: Shape (n,).
        gains: Shape (n,).
        draws: How often each prompt was drawn in each resample, shape (r, n).

    Returns:
        Shape (r,).
    """
    return np.array([apgr(scores, gains, counts) for counts in draws])


def draw_counts(n: int, resamples: int, seed: int) -> NDArray[np.int64]:
    """Bootstrap draws of n prompts: how often each is in each resample, shape (resamples, n)."""
    generator = np.random.default_rng(seed)
    return generator.multinomial(n, np.full(n, 1.0 / n), size=resamples)


def interval(values: NDArray[np.float64]) -> list[float]:
    """The 95 % percentile interval."""
    return [round(float(bound), 4) for bound in np.nanpercentile(values, INTERVAL)]
