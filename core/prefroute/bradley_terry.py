"""Bradley-Terry: strengths from pairwise comparisons, the Elo scale, and tiers of models. Pure functions.

P(i beats j) = sigmoid(x_i - x_j). The likelihood depends on the comparisons only through the matrix of summed
weights, so any number of weighted battles costs one fit of that matrix, and many such matrices are fitted at
once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from prefroute.errors import ConfigurationError, ConvergenceError
from prefroute.inputs import finite_or_none

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

RIDGE = 1e-4
"""Small beside the weight of one battle: it decides only what the battles leave open."""

_RATING_RIDGE = 0.1

_ELO_PER_LOGIT = 400.0 / np.log(10.0)

_SMALLEST_MATRIX = 2
"""Dimensions of one win matrix."""

Criterion = Literal["variance", "squares"]


def sigmoid(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """The logistic function: the probability that a difference of strengths stands for.

    Args:
        logits: Any shape.

    Returns:
        Probabilities, of the same shape.
    """
    # tanh does not overflow, where exp(-logit) would.
    probabilities: NDArray[np.float64] = 0.5 + 0.5 * np.tanh(0.5 * logits)
    return probabilities


def win_matrix(
    model_a: NDArray[np.integer],
    model_b: NDArray[np.integer],
    outcomes: NDArray[np.floating],
    weights: NDArray[np.floating] | None,
    size: int,
) -> NDArray[np.float64]:
    """Sum battles by pair of models. A tie is half a win each way.

    Args:
        model_a: One model of each battle, in [0, size), shape (n,).
        model_b: The other, shape (n,).
        outcomes: Probability that `model_a` wins, in [0, 1], shape (n,).
        weights: How much each battle counts, shape (n,); None for 1.
        size: Number of models m.

    Returns:
        Weight with which the row's model beat the column's, shape (m, m); 0 on the diagonal, for a model
        that meets itself says nothing.

    Raises:
        ConfigurationError: Lengths differ, or a model lies outside [0, size).
    """
    a, b = np.asarray(model_a, dtype=np.int64), np.asarray(model_b, dtype=np.int64)
    outcome = np.asarray(outcomes, dtype=np.float64)
    weight = np.ones(len(outcome)) if weights is None else np.asarray(weights, dtype=np.float64)
    if not a.shape == b.shape == outcome.shape == weight.shape or a.ndim != 1:
        shapes = ", ".join(str(column.shape) for column in (a, b, outcome, weight))
        msg = f"model_a, model_b, outcomes and weights must be equally long, got shapes {shapes}"
        raise ConfigurationError(msg)
    if len(a) and not 0 <= min(a.min(), b.min()) <= max(a.max(), b.max()) < size:
        msg = f"models must be numbered from 0 to {size - 1}, got {min(a.min(), b.min())} to {max(a.max(), b.max())}"
        raise ConfigurationError(msg)
    matrix: NDArray[np.float64] = np.zeros(size * size)
    matrix += np.bincount(a * size + b, weight * outcome, size * size)
    matrix += np.bincount(b * size + a, weight * (1.0 - outcome), size * size)
    matrix = matrix.reshape(size, size)
    np.fill_diagonal(matrix, 0.0)
    return matrix


def fit_bradley_terry(
    wins: ArrayLike,
    *,
    ridge: float = RIDGE,
    start: NDArray[np.float64] | None = None,
    tolerance: float = 1e-6,
    max_steps: int | None = None,
) -> NDArray[np.float64]:
    """Strengths that maximise the likelihood of the wins, less `ridge / 2` times their sum of squares.

    The ridge keeps the answer finite where the likelihood alone has no maximum: models that only win or only
    lose move far apart but not for ever, and groups of models that never met each other get the mean 0 each.
    With `ridge=0` such data do not converge.

    Newton's method, batched. Each step is cut to log(1 + r) / r of itself, r being the largest change of a
    difference of strengths; as the logistic function's third derivative is at most its second, the objective
    falls all along such a step, so this converges from anywhere without a line search, and quadratically
    in the end (Sun and Tran-Dinh, Generalized self-concordant functions, arXiv 1703.04599).

    Args:
        wins: `wins[..., i, j]` is the weight with which i beat j, shape (..., m, m); the diagonal is ignored.
        ridge: In the unit of the weights, 0 or more.
        start: Strengths to begin with, broadcast to shape (..., m); None for 0.
        tolerance: Ends when no difference of strengths is moved further than this; what error is left then
            is of the order of its square.
        max_steps: Newton steps at most; None for 100 and 20 more a model, as long chains of one-sided wins need.

    Returns:
        Strengths in natural log-odds, mean 0, shape (..., m).

    Raises:
        ConfigurationError: Wins that are negative, not finite or not square, or another argument out of range.
        ConvergenceError: Not converged after `max_steps`.
    """
    matrix = _checked_wins(wins)
    if finite_or_none(ridge) is None or ridge < 0 or not tolerance > 0 or (max_steps is not None and max_steps < 1):
        msg = (
            "ridge must be 0 or more, tolerance above 0 and max_steps at least 1, "
            f"got {ridge!r}, {tolerance!r} and {max_steps!r}"
        )
        raise ConfigurationError(msg)
    strengths = np.zeros(matrix.shape[:-1])
    if start is not None:
        strengths += start
        strengths -= strengths.mean(axis=-1, keepdims=True)
    if not matrix.size:
        return strengths
    reach = np.inf
    steps = 100 + 20 * matrix.shape[-1] if max_steps is None else max_steps
    for _ in range(steps):
        step = _newton_step(matrix, strengths, ridge)
        span = np.ptp(step, axis=-1, keepdims=True)
        reach = float(span.max())
        if not np.isfinite(reach):
            break
        strengths += step * (np.log1p(span) / np.maximum(span, np.finfo(np.float64).tiny))
        if reach <= tolerance:
            strengths -= strengths.mean(axis=-1, keepdims=True)
            return strengths
    msg = (
        f"Bradley-Terry did not converge in {steps} steps: the last moved strengths by {reach:.3g} "
        f"(tolerance {tolerance:g}, ridge {ridge:g}). Data where some models only win or never meet the others "
        "need a ridge, or a larger one, or more steps"
    )
    raise ConvergenceError(msg)


def _newton_step(wins: NDArray[np.float64], strengths: NDArray[np.float64], ridge: float) -> NDArray[np.float64]:
    size = wins.shape[-1]
    # P(i beats j); exp of the difference overflows only where the strengths are absurd, and then P is 0 as it should.
    with np.errstate(over="ignore"):
        expected = 1.0 / (1.0 + np.exp(strengths[..., None, :] - strengths[..., :, None]))  # (..., m, m)
    missed = wins * np.swapaxes(expected, -1, -2)  # Wins times what was not expected: no cancellation near 0 and 1.
    gradient = (missed - np.swapaxes(missed, -1, -2)).sum(axis=-1) - ridge * strengths
    curvature = missed * expected
    curvature += np.swapaxes(curvature, -1, -2).copy()
    diagonal = curvature.sum(axis=-1)
    # The likelihood does not change when all strengths grow by one number; this term, which changes no step, fixes it.
    hessian = (diagonal.mean(axis=-1, keepdims=True)[..., None] + 1e-300) / size - curvature
    hessian[..., np.arange(size), np.arange(size)] += diagonal + ridge
    try:
        step: NDArray[np.float64] = np.linalg.solve(hessian, gradient[..., None])[..., 0]
    except np.linalg.LinAlgError:
        return np.full_like(strengths, np.nan)
    return step


def _checked_wins(wins: ArrayLike) -> NDArray[np.float64]:
    try:
        matrix = np.array(wins, dtype=np.float64)
    except (TypeError, ValueError) as error:
        msg = f"wins must be a matrix of numbers: {error}"
        raise ConfigurationError(msg) from None
    if matrix.ndim < _SMALLEST_MATRIX or matrix.shape[-1] != matrix.shape[-2] or not matrix.shape[-1]:
        msg = f"wins must be square, one row and one column a model, got shape {matrix.shape}"
        raise ConfigurationError(msg)
    matrix[..., np.arange(matrix.shape[-1]), np.arange(matrix.shape[-1])] = 0.0
    if not np.isfinite(matrix).all() or (matrix < 0).any():
        msg = f"wins must be finite and 0 or more, got values from {matrix.min()} to {matrix.max()}"
        raise ConfigurationError(msg)
    return matrix


def elo_ratings(strengths: ArrayLike, *, anchor: float = 1000.0) -> NDArray[np.float64]:
    """Strengths on the Elo scale: 400 points are odds of ten to one.

    Args:
        strengths: Natural log-odds, as `fit_bradley_terry` gives them.
        anchor: Rating of strength 0.

    Returns:
        Ratings, of the shape of `strengths`.
    """
    ratings: NDArray[np.float64] = anchor + _ELO_PER_LOGIT * np.asarray(strengths, dtype=np.float64)
    return ratings


def rate_models(wins: ArrayLike) -> NDArray[np.float64]:
    """Elo ratings of models from all their battles.

    Args:
        wins: From `win_matrix`, shape (m, m).

    Returns:
        Ratings with mean 1000, shape (m,). A ridge of a tenth of a battle moves them by 0.1 points where there are
        hundreds of battles, and keeps a model in sight that never lost.
    """
    return elo_ratings(fit_bradley_terry(wins, ridge=_RATING_RIDGE))


def optimal_tiers(ratings: ArrayLike, num_tiers: int, *, criterion: Criterion = "variance") -> NDArray[np.int32]:
    """Cut models into tiers by rating: the best of all partitions, found by dynamic programming.

    Args:
        ratings: One a model, shape (m,).
        num_tiers: Number of tiers, none of them empty, from 1 to m.
        criterion: What is least: `"variance"` for the unweighted sum of the tiers' variances, as published
            (arXiv 2406.18665, section 4.1), which favours one wide tier and many single models; `"squares"`
            for the sum of squared distances to the tier's mean (k-means), which weighs tiers by size.

    Returns:
        Tier of each model, 0 for the best, shape (m,). Models of one rating may be parted where there are
        fewer ratings than tiers.

    Raises:
        ConfigurationError: Ratings that are not finite, or a number of tiers outside 1 to m.
    """
    values = np.asarray(ratings, dtype=np.float64)
    if values.ndim != 1 or not np.isfinite(values).all():
        msg = f"ratings must be finite, one a model, got shape {values.shape}"
        raise ConfigurationError(msg)
    size = len(values)
    if isinstance(num_tiers, bool) or not isinstance(num_tiers, int | np.integer) or not 1 <= num_tiers <= size:
        msg = f"num_tiers must be an integer from 1 to the number of models, {size}; got {num_tiers!r}"
        raise ConfigurationError(msg)
    if criterion not in get_args(Criterion):
        msg = f"criterion must be one of {', '.join(get_args(Criterion))}; got {criterion!r}"
        raise ConfigurationError(msg)
    order = np.argsort(-values, kind="stable")
    cuts = _best_cuts(_interval_costs(values[order], criterion), num_tiers)
    tiers = np.empty(size, dtype=np.int32)
    tiers[order] = np.searchsorted(cuts, np.arange(size), side="right")
    return tiers


def _interval_costs(ordered: NDArray[np.float64], criterion: Criterion) -> NDArray[np.float64]:
    """Cost of a tier of the models i to j - 1, shape (m + 1, m + 1); infinite where it would be empty."""
    size = len(ordered)
    centred = ordered - ordered.mean()  # Squares of what is far from 0 would lose the variances.
    sums, squares = np.append(0.0, np.cumsum(centred)), np.append(0.0, np.cumsum(centred**2))
    count = np.arange(size + 1) - np.arange(size + 1)[:, None]  # (m + 1, m + 1): j - i
    length = np.maximum(count, 1)
    spread = np.maximum((squares - squares[:, None]) - (sums - sums[:, None]) ** 2 / length, 0.0)
    spread[count == 1] = 0.0
    return np.where(count > 0, spread / length if criterion == "variance" else spread, np.inf)


def _best_cuts(costs: NDArray[np.float64], num_tiers: int) -> list[int]:
    """Where every tier but the first begins."""
    best, origins = costs[0], []
    for _ in range(num_tiers - 1):
        totals = best[:, None] + costs  # The models before i in the tiers so far, i to j - 1 in one more.
        origins.append(totals.argmin(axis=0))
        best = totals.min(axis=0)
    cuts, end = [], len(costs) - 1
    for origin in reversed(origins):
        end = int(origin[end])
        cuts.append(end)
    return cuts[::-1]
