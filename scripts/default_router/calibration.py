"""From scores to probabilities: a logistic curve that folds into the router, and how far it is from the truth."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from prefroute.bradley_terry import sigmoid

if TYPE_CHECKING:
    from numpy.typing import NDArray

BINS = 10

_STEPS = 50
_CLOSE = 1e-10


class Curve(NamedTuple):
    """P(strong wins) = sigmoid(slope * score + intercept)."""

    slope: float
    intercept: float

    def __call__(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Probabilities, of the shape of the scores."""
        return sigmoid(self.slope * scores + self.intercept)


def fit_curve(scores: NDArray[np.float64], outcomes: NDArray[np.float64], weights: NDArray[np.float64]) -> Curve:
    """Fit the curve by weighted maximum likelihood (Platt scaling), with Newton's method.

    Args:
        scores: Of prompts that the router did not learn from, shape (n,).
        outcomes: P(strong wins) as observed, in [0, 1], shape (n,).
        weights: Of each prompt, shape (n,).

    Returns:
        The curve.

    Raises:
        RuntimeError: It was not found, or it falls: then the scores are worth nothing.
    """
    design = np.stack([scores, np.ones_like(scores)], axis=1)
    found = np.zeros(2)
    for _ in range(_STEPS):
        expected = sigmoid(design @ found)
        curvature = (design * (weights * expected * (1.0 - expected))[:, None]).T @ design
        step = np.linalg.solve(curvature, design.T @ (weights * (outcomes - expected)))
        found += step
        if np.abs(step).max() < _CLOSE and found[0] > 0:
            return Curve(float(found[0]), float(found[1]))
    msg = f"no rising logistic curve was found in {_STEPS} Newton steps; the last had slope {found[0]:.3g}"
    raise RuntimeError(msg)


def cross_fitted(
    scores: NDArray[np.float64],
    outcomes: NDArray[np.float64],
    weights: NDArray[np.float64],
    folds: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Probabilities of each prompt by a curve fitted without its fold, shape (n,)."""
    chances = np.empty(len(scores))
    for fold in np.unique(folds):
        out = folds == fold
        chances[out] = fit_curve(scores[~out], outcomes[~out], weights[~out])(scores[out])
    return chances


def reliability(
    chances: NDArray[np.float64], outcomes: NDArray[np.float64], weights: NDArray[np.float64]
) -> dict[str, Any]:
    """Predicted against observed, in bins of equal weight.

    Args:
        chances: Held-out probabilities, shape (n,).
        outcomes: As observed, in [0, 1], shape (n,).
        weights: Of each prompt, shape (n,).

    Returns:
        The means, each bin's, the expected calibration error, and what that would be on average if every
        probability were true: chance alone moves the mean of a bin by sqrt(2 / pi) standard errors.
    """
    order = np.argsort(chances, kind="stable")
    reached = np.cumsum(weights[order])
    number_of = np.minimum((reached / reached[-1] * BINS).astype(np.int64), BINS - 1)
    rows, error, by_chance = [], 0.0, 0.0
    for number in np.unique(number_of):
        members = order[number_of == number]
        share, p, y = weights[members] / weights[members].sum(), chances[members], outcomes[members]
        size = float(weights[members].sum() / weights.sum())
        rows.append([round(float(share @ p), 4), round(float(share @ y), 4)])
        error += size * abs(float(share @ (y - p)))
        by_chance += size * float(np.sqrt(2.0 / np.pi) * np.sqrt(np.sum((share * (y - p)) ** 2)))
    return {
        "predicted": round(float(np.average(chances, weights=weights)), 4),
        "observed": round(float(np.average(outcomes, weights=weights)), 4),
        "bins": rows,
        "error": round(error, 4),
        "error_by_chance": round(by_chance, 4),
    }
