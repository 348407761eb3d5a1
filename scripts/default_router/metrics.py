"""Area under the performance-gap-recovered curve, exactly, with intervals by resampling prompts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

INTERVAL = (2.5, 97.5)


def apgr(scores: NDArray[np.float64], gains: NDArray[np.float64], counts: NDArray[np.int64] | None = None) -> float:
    """Average performance gap recovered, as the exact area under the curve.

    Prompts go to the strong model from the highest score down. Prompts with equal scores form one
    straight piece of the curve, which is its mean over all orders of breaking the tie.

    Args:
        scores: Router scores, shape (n,).
        gains: Quality of the strong answer minus that of the weak one, shape (n,).
        counts: How often each prompt counts, shape (n,); None for once.

    Returns:
        The area; 0.5 is what random routing gets. NaN when the strong model is no better overall.
    """
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    weight = np.ones(len(scores)) if counts is None else counts[order].astype(np.float64)
    ends = np.append(ranked[1:] != ranked[:-1], True)
    share = np.append(0.0, np.cumsum(weight)[ends])
    recovered = np.append(0.0, np.cumsum(weight * gains[order])[ends])
    if recovered[-1] <= 0:
        return float("nan")
    return float(np.trapezoid(recovered / recovered[-1], share / share[-1]))


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
