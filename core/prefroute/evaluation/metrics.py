"""Metrics of RouteLLM (arXiv 2406.18665, section 3), exact: over every threshold instead of a grid of them.

Prompts go to the strong model from the highest score down. Prompts of equal scores form one straight piece of a
curve, which is its mean over all orders of breaking the tie: what a coin would reach there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from prefroute.errors import ConfigurationError

if TYPE_CHECKING:
    from numpy.typing import NDArray


_ROUNDING = 1e-12

_HALF = 0.5
"""Of a tie, what each side gets."""


class RecoveryCurve(NamedTuple):
    """Share of the quality gap recovered against cost, one point for each distinct score.

    Attributes:
        shares: Share of strong calls, from 0 to 1, increasing, shape (k,).
        recovered: Performance gap recovered (PGR) at each, from 0 to 1, shape (k,); may leave [0, 1] between.
    """

    shares: NDArray[np.float64]
    recovered: NDArray[np.float64]


class CostQualityCurve(NamedTuple):
    """Mean quality against cost, one point for each distinct score.

    Attributes:
        shares: Share of strong calls, from 0 to 1, increasing, shape (k,).
        quality: Mean quality of the answers at each, from the weak model's to the strong one's, shape (k,).
    """

    shares: NDArray[np.float64]
    quality: NDArray[np.float64]


class Ranking(NamedTuple):
    """Prompts in the order in which they go to the strong model.

    Attributes:
        order: Positions, the highest score first, shape (n,).
        first: Of each in this order, where the scores equal to its own begin, shape (n,).
        last: And where they end, shape (n,).
    """

    order: NDArray[np.int64]
    first: NDArray[np.int64]
    last: NDArray[np.int64]

    @property
    def ends(self) -> NDArray[np.int64]:
        """Where each run of equal scores ends, shape (k,)."""
        return np.flatnonzero(self.last == np.arange(len(self.last)))


def rank(scores: NDArray[np.float64]) -> Ranking:
    """Order prompts by their scores; see `Ranking`."""
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    starts = np.flatnonzero(np.append(True, ranked[1:] != ranked[:-1]))
    sizes = np.diff(np.append(starts, len(scores)))
    return Ranking(order, np.repeat(starts, sizes), np.repeat(starts + sizes - 1, sizes))


def strong_share(scores: NDArray[np.float64], threshold: float) -> float:
    """Share of prompts that a threshold sends to the strong model.

    Args:
        scores: Router scores, shape (n,).
        threshold: Scores at or above it are strong.

    Returns:
        c of the paper, in [0, 1].

    Raises:
        ConfigurationError: There are no scores, or one is NaN.
    """
    (checked,) = _checked(scores=scores)
    return float((checked >= threshold).mean())


def routed_quality(
    scores: NDArray[np.float64], strong: NDArray[np.float64], weak: NDArray[np.float64], threshold: float
) -> float:
    """Mean quality of the answers at a threshold.

    Args:
        scores: Router scores, shape (n,).
        strong: Quality of the strong model's answers, shape (n,).
        weak: Quality of the weak model's answers, shape (n,).
        threshold: Scores at or above it are strong.

    Returns:
        r of the paper.

    Raises:
        ConfigurationError: Nothing to measure, different lengths, or NaN.
    """
    checked, upper, lower = _checked(scores=scores, strong=strong, weak=weak)
    return float(np.where(checked >= threshold, upper, lower).mean())


def pgr(quality: float, strong: float, weak: float) -> float:
    """Performance gap recovered: how far a quality lies from the weak model's to the strong one's.

    Args:
        quality: Mean quality of routed answers.
        strong: That of the strong model's.
        weak: That of the weak model's.

    Returns:
        0 at the weak model's and 1 at the strong one's; NaN where the strong model is no better.
    """
    gap = strong - weak
    return (quality - weak) / gap if gap > _ROUNDING * max(abs(strong), abs(weak)) else float("nan")


def gain_curve(
    scores: NDArray[np.float64], gains: NDArray[np.float64], counts: NDArray[np.integer[Any]] | None = None
) -> CostQualityCurve:
    """`cost_quality_curve` of what is gained over the weak model alone: defined whichever model is better.

    Args:
        scores: Router scores, shape (n,); only their order matters.
        gains: Quality of the strong answer minus that of the weak one, shape (n,); any scale.
        counts: How often each prompt counts, shape (n,); None for once.

    Returns:
        The curve, from 0 to the gap.

    Raises:
        ConfigurationError: Nothing to measure, different lengths, or NaN.
    """
    checked, gained = _checked(scores=scores, gains=gains)
    ranking = rank(checked)
    weight = np.ones(len(checked)) if counts is None else _checked_counts(counts, len(checked))[ranking.order]
    ends = ranking.ends
    share = np.append(0.0, np.cumsum(weight)[ends])
    total = np.append(0.0, np.cumsum(weight * gained[ranking.order])[ends])
    return CostQualityCurve(share / share[-1], total / share[-1])


def cost_quality_curve(
    scores: NDArray[np.float64], strong: NDArray[np.float64], weak: NDArray[np.float64]
) -> CostQualityCurve:
    """Mean quality at every share of strong calls.

    Args:
        scores: Router scores, shape (n,); only their order matters.
        strong: Quality of the strong model's answers, shape (n,).
        weak: Quality of the weak model's answers, shape (n,).

    Returns:
        The curve.

    Raises:
        ConfigurationError: Nothing to measure, different lengths, or NaN.
    """
    checked, upper, lower = _checked(scores=scores, strong=strong, weak=weak)
    shares, gained = gain_curve(checked, upper - lower)
    return CostQualityCurve(shares, float(lower.mean()) + gained)


def oracle_scores(strong: NDArray[np.float64], weak: NDArray[np.float64]) -> NDArray[np.float64]:
    """Scores of a router that knows both answers: no other has a higher curve anywhere.

    Args:
        strong: Quality of the strong model's answers, shape (n,).
        weak: Quality of the weak model's answers, shape (n,).

    Returns:
        The gains, shape (n,).
    """
    upper, lower = _checked(strong=strong, weak=weak)
    return upper - lower


def recovery_curve(
    scores: NDArray[np.float64], gains: NDArray[np.float64], counts: NDArray[np.integer[Any]] | None = None
) -> RecoveryCurve:
    """Performance gap recovered at every share of strong calls.

    Args:
        scores: Router scores, shape (n,); only their order matters.
        gains: Quality of the strong answer minus that of the weak one, shape (n,); any scale.
        counts: How often each prompt counts, shape (n,); None for once.

    Returns:
        The curve. All of `recovered` is NaN when the strong model is no better overall: there is no gap.

    Raises:
        ConfigurationError: Nothing to measure, different lengths, or NaN.
    """
    shares, gained = gain_curve(scores, gains, counts)
    size = np.abs(gains) if counts is None else np.abs(gains) * counts / np.mean(counts)
    # A gap that is only what rounding leaves of gains that cancel is none.
    if gained[-1] <= _ROUNDING * np.mean(size):
        return RecoveryCurve(shares, np.full(len(shares), np.nan))
    return RecoveryCurve(shares, gained / gained[-1])


def apgr(
    scores: NDArray[np.float64], gains: NDArray[np.float64], counts: NDArray[np.integer[Any]] | None = None
) -> float:
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
    return _area(*recovery_curve(scores, gains, counts))


def average_quality(scores: NDArray[np.float64], strong: NDArray[np.float64], weak: NDArray[np.float64]) -> float:
    """Area under `cost_quality_curve`, the AUC of the published code: mean quality over all shares of strong calls.

    Args:
        scores: Router scores, shape (n,).
        strong: Quality of the strong model's answers, shape (n,).
        weak: Quality of the weak model's answers, shape (n,).

    Returns:
        The area, in units of quality; defined whichever model is better.

    Raises:
        ConfigurationError: As `cost_quality_curve`.
    """
    return _area(*cost_quality_curve(scores, strong, weak))


def quality_at(
    scores: NDArray[np.float64],
    strong: NDArray[np.float64],
    weak: NDArray[np.float64],
    shares: float | NDArray[np.float64],
) -> NDArray[np.float64]:
    """Mean quality at fixed cost.

    Args:
        scores: Router scores, shape (n,).
        strong: Quality of the strong model's answers, shape (n,).
        weak: Quality of the weak model's answers, shape (n,).
        shares: Shares of strong calls, in [0, 1], any shape.

    Returns:
        Quality at each, read off `cost_quality_curve`, shape of `shares`.

    Raises:
        ConfigurationError: A share is outside [0, 1], or as `cost_quality_curve`.
    """
    wanted = np.asarray(shares, dtype=np.float64)
    if not ((wanted >= 0.0) & (wanted <= 1.0)).all():
        msg = f"shares of strong calls must be in [0, 1], got {shares!r}"
        raise ConfigurationError(msg)
    curve = cost_quality_curve(scores, strong, weak)
    return np.interp(wanted, curve.shares, curve.quality)


def roc_auc(scores: NDArray[np.float64], gains: NDArray[np.float64]) -> float:
    """Chance that a prompt which the strong model answers better outscores one which it does not.

    Args:
        scores: Router scores, shape (n,).
        gains: Quality of the strong answer minus that of the weak one, shape (n,); only their sign matters.

    Returns:
        Area under the ROC curve, equal scores counting half; 0.5 is chance. NaN where all prompts are of one kind.

    Raises:
        ConfigurationError: As `gain_curve`.
    """
    checked, gained = _checked(scores=scores, gains=gains)
    better = (gained > 0).astype(np.float64)
    if better.all() or not better.any():
        return float("nan")
    # With 1 and 0 for gains the two areas differ by the chance to meet oneself: AUC = 1/2 + (A/m - 1/2) / (1 - m).
    return _HALF + (apgr(checked, better) - _HALF) / (1.0 - float(better.mean()))


def cpt(
    scores: NDArray[np.float64],
    gains: NDArray[np.float64],
    level: float,
    counts: NDArray[np.integer[Any]] | None = None,
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
    level = _checked_level(level)
    shares, recovered = recovery_curve(scores, gains, counts)
    if np.isnan(recovered[-1]):
        return float("nan")
    return _crossing(shares, recovered, level)


def _crossing(shares: NDArray[np.float64], gained: NDArray[np.float64], level: float) -> float:
    """Where a curve that begins at 0 and ends above it first reaches a share of its end."""
    wanted = level * float(gained[-1])
    # What rounding takes from a peak that just touches the level is no miss.
    end = int(np.argmax(gained >= wanted - _ROUNDING * float(gained[-1])))
    if end == 0:
        return 0.0
    low, high = gained[end - 1], gained[end]
    return float(shares[end - 1] + (shares[end] - shares[end - 1]) * min(1.0, (wanted - low) / (high - low)))


def _area(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    return float(np.sum(np.diff(x) * (y[1:] + y[:-1])) / 2.0)


def _checked_counts(counts: NDArray[np.integer[Any]], n: int) -> NDArray[np.float64]:
    weights = np.asarray(counts, dtype=np.float64)
    if weights.shape != (n,) or not (weights >= 0).all() or not weights.any():
        msg = f"counts must be one number of 0 or more for each of {n} prompts, not all 0; got shape {weights.shape}"
        raise ConfigurationError(msg)
    return weights


def _checked_level(level: float) -> float:
    if not 0.0 <= level <= 1.0:
        msg = f"level must be in [0, 1], got {level!r}"
        raise ConfigurationError(msg)
    return level


def _checked(**columns: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """The columns as float64, one number a prompt each.

    Raises:
        ConfigurationError: They are anything else.
    """
    names = " and ".join(columns)
    arrays = [np.asarray(column, dtype=np.float64) for column in columns.values()]
    shape = arrays[0].shape
    if len(shape) != 1 or any(array.shape != shape for array in arrays) or not arrays[0].size:
        msg = f"{names} must be one number a prompt each, got shapes {', '.join(str(a.shape) for a in arrays)}"
        raise ConfigurationError(msg)
    for name, array in zip(columns, arrays, strict=True):
        # A score may be infinite: only its rank counts.
        usable = ~np.isnan(array) if name == "scores" else np.isfinite(array)
        if not usable.all():
            row = int(np.argmin(usable))
            msg = f"{names} must be numbers, got {array[row]} among {name} at row {row}; leave such prompts out"
            raise ConfigurationError(msg)
    return arrays
