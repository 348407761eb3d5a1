"""The figures as the published code of RouteLLM computes them, on 11 thresholds; to stand beside the paper's.

Formulas of lm-sys/RouteLLM, routellm/evals/benchmarks.py (`evaluate`) and evaluate.py (`generate_results`).
The exact forms are in `metrics`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from prefroute.errors import ConfigurationError
from prefroute.evaluation.metrics import CostQualityCurve, _area, _checked, _checked_level, pgr

if TYPE_CHECKING:
    from numpy.typing import NDArray

BINS = 10


def published_points(
    scores: NDArray[np.float64], strong: NDArray[np.float64], weak: NDArray[np.float64], *, bins: int = BINS
) -> CostQualityCurve:
    """The (share, quality) points that the published code evaluates.

    Thresholds are the quantiles of the scores from 0 to 1 in equal steps; scores at or above one are strong, at the
    last one only those above. Where many scores are equal the published code refuses to cut them into bins; here
    quantiles that coincide give the same point twice. Where a quantile falls on a score, rounding decides whether that
    score is strong; here it is rounded up, as pandas 3 does, which the published code calls.

    Args:
        scores: Router scores, shape (n,); one row a prompt.
        strong: Quality of the strong model's answers, shape (n,).
        weak: Quality of the weak model's answers, shape (n,).
        bins: Bins of the scores; published: 10.

    Returns:
        bins + 1 points, shares increasing from 0 to 1.

    Raises:
        ConfigurationError: Nothing to measure, different lengths, an infinite score, or no bins.
    """
    checked, upper, lower = _checked(scores=scores, strong=strong, weak=weak)
    if not np.isfinite(checked).all() or bins < 1:
        msg = f"the published points need finite scores and a number of bins, got {bins} bins"
        raise ConfigurationError(msg)
    steps = np.linspace(0.0, 1.0, bins + 1)
    steps = np.where(bins * steps == np.arange(bins + 1), steps, np.nextafter(steps, 1.0))
    thresholds = np.quantile(checked, steps)
    chosen = checked >= thresholds[:, None]
    chosen[-1] = checked > thresholds[-1]
    shares = chosen.mean(axis=1)[::-1]
    quality = np.where(chosen, upper, lower).mean(axis=1)[::-1]
    return CostQualityCurve(shares, quality)


def apgr_published(points: CostQualityCurve, strong: float, weak: float) -> float:
    """APGR by the trapezoid rule over the published points.

    Args:
        points: From `published_points`.
        strong: Mean quality of the strong model.
        weak: That of the weak model.

    Returns:
        The area; NaN where the strong model is no better.
    """
    width = float(points.shares[-1] - points.shares[0])
    return pgr(_area(*points) / width, strong, weak) if width else float("nan")


def cpt_published(points: CostQualityCurve, strong: float, weak: float, level: float) -> float:
    """CPT by linear interpolation between the published points.

    Args:
        points: From `published_points`.
        strong: Mean quality of the strong model.
        weak: That of the weak model.
        level: PGR wanted, in [0, 1].

    Returns:
        The share of strong calls, in [0, 1]. As published, quality is taken to rise from point to point; where it
        does not, which crossing is found is up to the search. NaN where the strong model is no better.

    Raises:
        ConfigurationError: `level` is outside [0, 1].
    """
    level = _checked_level(level)
    if np.isnan(pgr(weak, strong, weak)):
        return float("nan")
    return float(np.interp(level * (strong - weak) + weak, points.quality, points.shares))
