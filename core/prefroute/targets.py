"""Where to lay the threshold for a wanted quality or a budget, on prompts whose answers were judged or priced."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from prefroute.errors import ConfigurationError, DataError
from prefroute.inputs import finite_or_none

if TYPE_CHECKING:
    from numpy.typing import NDArray

_ONE_SIDED = 1.6448536269514722
"""Of the normal distribution, what 5 % lie above."""


class QualityTarget(NamedTuple):
    """The fewest strong calls that keep a quality.

    Attributes:
        rank: Prompts of the sample that go strong.
        quality: Share of the strong model's mean quality that is kept on the sample.
    """

    rank: int
    quality: float


class BudgetTarget(NamedTuple):
    """The most strong calls that a budget pays for.

    Attributes:
        rank: Prompts of the sample that go strong.
        cost: Mean cost of a request on the sample, US dollars.
    """

    rank: int
    cost: float


def as_quality(value: object) -> float:
    """Check a wanted share of the strong model's mean quality.

    Raises:
        ConfigurationError: It is not above 0 and at most 1.
    """
    wanted = finite_or_none(value)
    if wanted is None or not 0.0 < wanted <= 1.0:
        hint = f"; for {wanted:g} % pass {wanted / 100:g}" if wanted is not None and 2.0 <= wanted <= 100.0 else ""  # noqa: PLR2004 - percent
        msg = f"quality must be a share of the strong model's quality, above 0 and at most 1; got {value!r}{hint}"
        raise ConfigurationError(msg)
    return wanted


def rank_for_quality(
    scores: NDArray[np.float64], strong: NDArray[np.float64], weak: NDArray[np.float64], quality: float
) -> QualityTarget:
    """Lower the share of strong calls for as long as it is safe to say that the quality is kept.

    Thresholds are tested from all strong downwards, each by a one-sided test at 5 % that the mean of (quality of the
    routed answer - wanted share x quality of the strong answer) is not below 0, and the first that fails ends it.
    Tested in a fixed order, thresholds need no correction for their number ("fixed sequence testing", Angelopoulos et
    al., "Learn then Test", arXiv 2110.01052): with 95 % confidence traffic like the sample keeps the wanted quality.
    The test is the normal approximation. Where the weak model has not lost on any prompt yet it would see no variance,
    and so no risk; therefore 2.7 imagined prompts (the square of the normal's 5 % point, as in the intervals of Agresti
    and Coull), on which the weak model is worth nothing, stand beside those of the sample.

    Args:
        scores: Router scores, shape (n,).
        strong: Quality of the strong model's answers, 0 or more, shape (n,).
        weak: Quality of the weak model's answers, shape (n,).
        quality: Wanted share of the strong model's mean quality, in (0, 1].

    Returns:
        The rank for `Calibration.at_rank`.

    Raises:
        ConfigurationError: `quality` is no such share, or the columns do not fit.
        DataError: The strong model has no quality to keep.
    """
    wanted = as_quality(quality)
    ranks, upper, lower = _ranked(scores, strong, weak)
    n, best = len(upper), float(upper.mean())
    if best <= 0:
        msg = f"the strong model's mean quality is {best:g}; a share of it cannot be kept. Give qualities of 0 or more"
        raise DataError(msg)
    kept = _mixed(upper, lower)
    imagined = _ONE_SIDED**2
    worst = min(float((lower - wanted * upper).min()), -wanted * float(upper.max()))
    count = n + imagined
    means = (kept - wanted * best * n + imagined * worst) / count
    squares = _mixed(((1.0 - wanted) * upper) ** 2, (lower - wanted * upper) ** 2) + imagined * worst**2
    errors = np.sqrt(np.maximum(squares / count - means**2, 0.0) / count)
    safe = means - _ONE_SIDED * errors >= 0.0
    safe[n] = True  # All strong keeps all of the quality, whatever is imagined.
    downwards = safe[ranks][::-1]
    passed = len(downwards) if downwards.all() else int(np.argmin(downwards))
    rank = int(ranks[::-1][passed - 1])
    return QualityTarget(rank, float(kept[rank]) / n / best)


def rank_for_budget(
    scores: NDArray[np.float64], strong: NDArray[np.float64], weak: NDArray[np.float64], budget: float
) -> BudgetTarget:
    """The most strong calls whose mean cost stays within a budget.

    Args:
        scores: Router scores, shape (n,).
        strong: Cost of the strong model's answers, US dollars, shape (n,).
        weak: Cost of the weak model's answers, shape (n,).
        budget: Mean cost of a request, US dollars, above 0.

    Returns:
        The rank for `Calibration.at_rank`.

    Raises:
        ConfigurationError: The budget is not above 0, or the columns do not fit.
        DataError: Even the weak model alone costs more.
    """
    most = finite_or_none(budget)
    if most is None or most <= 0:
        msg = f"the budget must be US dollars a request, above 0; got {budget!r}"
        raise ConfigurationError(msg)
    ranks, upper, lower = _ranked(scores, strong, weak)
    means = _mixed(upper, lower) / len(upper)
    within = ranks[means[ranks] <= most * (1.0 + 1e-12)]
    if not len(within):
        least, wanted = means[ranks].min() * 1000.0, most * 1000.0
        msg = f"1,000 requests cost ${least:.6g} at the least, above the budget of ${wanted:.6g}; raise it"
        raise DataError(msg)
    rank = int(within.max())
    return BudgetTarget(rank, float(means[rank]))


def _ranked(
    scores: NDArray[np.float64], strong: NDArray[np.float64], weak: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Ranks that cut no run of equal scores, and both columns from the highest score down."""
    from prefroute.evaluation.metrics import _checked, rank

    checked, upper, lower = _checked(scores=scores, strong=strong, weak=weak)
    ranking = rank(checked)
    return np.append(0, ranking.ends + 1), upper[ranking.order], lower[ranking.order]


def _mixed(top: NDArray[np.float64], rest: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sums of `top` for the first r prompts and `rest` for the others, for r from 0 to n."""
    sums: NDArray[np.float64] = rest.sum() + np.append(0.0, np.cumsum(top - rest))
    return sums
