"""Metrics of RouteLLM (arXiv 2406.18665, section 3), exact: over every threshold instead of a grid of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from prefroute.errors import ConfigurationError

if TYPE_CHECKING:
    from numpy.typing import NDArray


_ROUNDING = 1e-12


class RecoveryCurve(NamedTuple):
    """Quality against cost, one point for each distinct score.

    Attributes:
        shares: Share of strong calls, from 0 to 1, increasing, shape (k,).
        recovered: Performance gap recovered (PGR) at each, from 0 to 1, shape (k,); may leave [0, 1] between.
    """

    shares: NDArray[np.float64]
    recovered: NDArray[np.float64]


def recovery_curve(
    scores: NDArray[np.float64], gains: NDArray[np.float64], counts: NDArray[np.int64] | None = None
) -> RecoveryCurve:
    """Performance gap recovered at every share of strong calls.

    Prompts go to the strong model from the highest score down. Prompts with equal scores form one straight
    piece of the curve, which is its mean over all orders of breaking the tie.

    Args:
        scores: Router scores, shape (n,); only their order matters.
        gains: Quality of the strong answer minus that of the weak one, shape (n,); any scale.
        counts: How often each prompt counts, shape (n,); None for once.

    Returns:
        The curve. All of `recovered` is NaN when the strong model is no better overall: there is no gap.

    Raises:
        ConfigurationError: Nothing to measure, different lengths, or NaN.
    """
    scores, gains = np.asarray(scores, dtype=np.float64), np.asarray(gains, dtype=np.float64)
    if scores.ndim != 1 or scores.shape != gains.shape or not scores.size:
        msg = f"scores and gains must be one number a prompt each, got shapes {scores.shape} and {gains.shape}"
        raise ConfigurationError(msg)
    if np.isnan(scores).any() or not np.isfinite(gains).all():
        msg = "scores and gains must be numbers, got NaN or an infinite gain; leave such prompts out"
        raise ConfigurationError(msg)
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    weight = np.ones(len(scores)) if counts is None else counts[order].astype(np.float64)
    ends = np.append(ranked[1:] != ranked[:-1], True)
    share = np.append(0.0, np.cumsum(weight)[ends])
    recovered = np.append(0.0, np.cumsum(weight * gains[order])[ends])
    # A gap that is only what rounding leaves of gains that cancel is none.
    if recovered[-1] <= _ROUNDING * np.sum(weight * np.abs(gains[order])):
        return RecoveryCurve(share / share[-1], np.full(len(share), np.nan))
    return RecoveryCurve(share / share[-1], recovered / recovered[-1])


def apgr(scores: NDArray[np.float64], gains: NDArray[np.float64], counts: NDArray[np.int64] | None = None) -> float:
    """Average performance gap recovered: the exact area under `recovery_curve`.

    Args:
        scores: Router scores, shape (n,).
        gains: Quality of the strong answer minus that of the weak one, shape (n,).
        counts: How often each prompt counts, shape (n,); None for once.

    Returns:
        The area; 0.5 is what random routing gets. NaN when the strong model is no better overall.

    Raises:
        ConfigurationError: As `recovery_curve`.
    """
    shares, recovered = recovery_curve(scores, gains, counts)
    return float(np.sum(np.diff(shares) * (recovered[1:] + recovered[:-1])) / 2.0)


def draw_counts(n: int, resamples: int, seed: int) -> NDArray[np.int64]:
    """Bootstrap draws of n prompts.

    Args:
        n: Prompts.
        resamples: Draws of n of them, with replacement.
        seed: Of the generator.

    Returns:
        How often each prompt is in each resample, shape (resamples, n).
    """
    generator = np.random.default_rng(seed)
    return generator.multinomial(n, np.full(n, 1.0 / n), size=resamples)


def resampled_apgr(
    scores: NDArray[np.float64], gains: NDArray[np.float64], draws: NDArray[np.int64]
) -> NDArray[np.float64]:
    """`apgr` on each resample of the prompts.

    Args:
        scores: Shape (n,).
        gains: Shape (n,).
        draws: From `draw_counts`, shape (r, n).

    Returns:
        Shape (r,).

    Raises:
        ConfigurationError: As `recovery_curve`.
    """
    return np.array([apgr(scores, gains, counts) for counts in draws])


def cpt(
    scores: NDArray[np.float64],
    gains: NDArray[np.float64],
    level: float,
    counts: NDArray[np.int64] | None = None,
) -> float:
    """Call-performance threshold: the smallest share of strong calls that recovers `level` of the gap.

    Args:
        scores: Router scores, shape (n,).
        gains: Quality of the strong answer minus that of the weak one, shape (n,).
        level: PGR wanted, in [0, 1]; CPT(50 %) is 0.5.
        counts: How often each prompt counts, shape (n,); None for once.

    Returns:
        The share, in [0, 1]; `level` is what random routing needs. NaN when there is no gap.

    Raises:
        ConfigurationError: `level` is outside [0, 1], or as `recovery_curve`.
    """
    if not 0.0 <= level <= 1.0:
        msg = f"level must be in [0, 1], got {level!r}"
        raise ConfigurationError(msg)
    shares, recovered = recovery_curve(scores, gains, counts)
    if np.isnan(recovered[-1]):
        return float("nan")
    end = int(np.argmax(recovered >= level))
    if end == 0:
        return 0.0
    low, high = recovered[end - 1], recovered[end]
    return float(shares[end - 1] + (shares[end] - shares[end - 1]) * (level - low) / (high - low))
