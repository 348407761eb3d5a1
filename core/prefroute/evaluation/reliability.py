"""Whether a score means what it says: predicted against observed share of wins."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from prefroute.evaluation.metrics import _checked

if TYPE_CHECKING:
    from numpy.typing import NDArray

BINS = 10


class Reliability(NamedTuple):
    """Prompts in bins of their score, each bin with about as many prompts.

    Attributes:
        predicted: Mean score of each bin, increasing, shape (k,).
        observed: Mean outcome of each, shape (k,).
        counts: Prompts of each, shape (k,).
    """

    predicted: NDArray[np.float64]
    observed: NDArray[np.float64]
    counts: NDArray[np.int64]


def outcomes_of(gains: NDArray[np.float64]) -> NDArray[np.float64]:
    """What P(strong wins) is held against: 1 where the strong answer is better, 0 where it is worse, 0.5 for a tie.

    Args:
        gains: Quality of the strong answer minus that of the weak one, shape (n,).

    Returns:
        Shape (n,).
    """
    return (1.0 + np.sign(gains)) / 2.0


def are_chances(values: NDArray[np.float64]) -> bool:
    """Whether all of them lie in [0, 1]."""
    return bool(((values >= 0.0) & (values <= 1.0)).all())


def reliability(scores: NDArray[np.float64], outcomes: NDArray[np.float64], *, bins: int = BINS) -> Reliability:
    """Bin scores and compare each bin's mean with the outcomes.

    Args:
        scores: Estimates of P(strong wins), shape (n,).
        outcomes: As observed, in [0, 1], shape (n,).
        bins: Bins of about equal size; equal scores stay in one, so there may be fewer.

    Returns:
        The bins.

    Raises:
        ConfigurationError: Nothing to measure, different lengths, or NaN.
    """
    checked, observed = _checked(scores=scores, outcomes=outcomes)
    order = np.argsort(checked, kind="stable")
    ranked = checked[order]
    # Where each bin would begin, moved to the first of equal scores.
    starts = np.unique(np.searchsorted(ranked, ranked[(np.arange(bins) * len(ranked)) // bins], "left"))
    counts = np.diff(np.append(starts, len(ranked)))
    return Reliability(
        np.add.reduceat(ranked, starts) / counts, np.add.reduceat(observed[order], starts) / counts, counts
    )


def expected_calibration_error(
    scores: NDArray[np.float64], outcomes: NDArray[np.float64], *, bins: int = BINS
) -> float:
    """Mean distance of predicted from observed share of wins, over bins of equal size (Naeini et al., AAAI 2015).

    Args:
        scores: Estimates of P(strong wins), shape (n,).
        outcomes: As observed, in [0, 1], shape (n,).
        bins: As for `reliability`.

    Returns:
        From 0 to 1; with few prompts chance alone keeps it above 0.

    Raises:
        ConfigurationError: As `reliability`.
    """
    predicted, observed, counts = reliability(scores, outcomes, bins=bins)
    return float(np.average(np.abs(predicted - observed), weights=counts))
