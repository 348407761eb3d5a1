"""Scores made to mean what they say: Platt scaling or isotonic regression, chosen on held-out prompts.

Fitted by scikit-learn, served by numpy. The map rises strictly, so it changes no ranking, and no decision once the
threshold is mapped too; scores less than some 1e-12 apart may become equal.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from prefroute.bradley_terry import sigmoid
from prefroute.errors import ConfigurationError, DataError, MissingExtraError
from prefroute.evaluation.reliability import are_chances, expected_calibration_error
from prefroute.inputs import as_seed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

Method = Literal["none", "platt", "isotonic"]

FEWEST = 50
"""Prompts without which five folds say nothing about which map is better."""

_FOLDS = 5
_OWN_SHARE = 1e-3
"""Share of the score itself in the mapped one: isotonic regression alone would make ties of neighbours."""

_HALVINGS = 60

_EDGE = 1e-6
_SLOPES = 1e6  # C of scikit-learn: two numbers need no shrinking, and separable scores must stay finite.


@dataclass(frozen=True, eq=False, kw_only=True)
class ProbabilityCalibration:
    """A strictly rising map from scores to probabilities.

    Attributes:
        method: `"none"` leaves scores as they are, `"platt"` is a logistic curve of their logit, `"isotonic"` a
            rising line through points.
        slope: Of the logit, for Platt.
        intercept: Likewise.
        x: Scores at the points of the isotonic line, increasing, shape (k,).
        y: Probabilities there, shape (k,).
    """

    method: Method
    slope: float = 1.0
    intercept: float = 0.0
    x: NDArray[np.float64] = field(default_factory=lambda: np.array([0.0, 1.0]))
    y: NDArray[np.float64] = field(default_factory=lambda: np.array([0.0, 1.0]))

    def __post_init__(self) -> None:
        """Refuse a map that falls or leaves [0, 1]."""
        x, y = np.asarray(self.x, dtype=np.float64), np.asarray(self.y, dtype=np.float64)
        rising = (
            x.ndim == 1 and x.shape == y.shape and len(x) > 0 and (np.diff(x) > 0).all() and (np.diff(y) >= 0).all()
        )
        if not rising or not (y[0] >= 0.0 and y[-1] <= 1.0 and np.isfinite(x).all()):
            msg = "an isotonic map needs points that rise from left to right, with probabilities in [0, 1]"
            raise ConfigurationError(msg)
        finite = np.isfinite(self.slope) and np.isfinite(self.intercept)
        if self.method not in {"none", "platt", "isotonic"} or not (finite and self.slope > 0):
            given = f"{self.method!r}, slope {self.slope!r}, intercept {self.intercept!r}"
            msg = f"a map is none, platt with a finite intercept and a slope above 0, or isotonic; got {given}"
            raise ConfigurationError(msg)
        object.__setattr__(self, "x", x)
        object.__setattr__(self, "y", y)

    def __call__(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Map scores.

        Args:
            scores: Of the router, in [0, 1], any shape.

        Returns:
            Probabilities, of the same shape and in the same order.
        """
        given = np.asarray(scores, dtype=np.float64)
        if self.method == "none":
            return given
        mapped = (
            _platt(given, self.slope, self.intercept) if self.method == "platt" else np.interp(given, self.x, self.y)
        )
        return (1.0 - _OWN_SHARE) * mapped + _OWN_SHARE * given

    def inverse(self, mapped: NDArray[np.float64]) -> NDArray[np.float64]:
        """The scores that are mapped to given values, by halving: the map rises, and has no simpler inverse.

        Args:
            mapped: In [0, 1], any shape.

        Returns:
            Scores in [0, 1], of the same shape.
        """
        wanted = np.asarray(mapped, dtype=np.float64)
        low, high = np.zeros_like(wanted), np.ones_like(wanted)
        for _ in range(_HALVINGS):
            middle = (low + high) / 2.0
            below = self(middle) < wanted
            low, high = np.where(below, middle, low), np.where(below, high, middle)
        return high


@dataclass(frozen=True, eq=False, kw_only=True)
class FittedProbabilities:
    """What came out of fitting a map.

    Attributes:
        calibration: The map, fitted on all prompts.
        n: Prompts.
        ece_before: Expected calibration error of the scores.
        ece_after: The same of the mapped ones, each mapped without its own label.
        log_losses: Held-out log loss of each method.
    """

    calibration: ProbabilityCalibration
    n: int
    ece_before: float
    ece_after: float
    log_losses: dict[str, float]

    def as_dict(self) -> dict[str, Any]:
        """The figures, JSON-safe."""
        return {
            "method": self.calibration.method,
            "n": self.n,
            "ece_before": self.ece_before,
            "ece_after": self.ece_after,
            "log_losses": self.log_losses,
        }


def fit_probabilities(
    scores: NDArray[np.float64],
    outcomes: NDArray[np.float64],
    *,
    groups: NDArray[np.int64] | None = None,
    methods: Sequence[Method] = ("none", "platt", "isotonic"),
    seed: int = 0,
) -> FittedProbabilities:
    """Fit a map from scores to probabilities; which kind is chosen by cross-validation.

    Args:
        scores: Of a router on prompts that it did not learn from, in [0, 1], shape (n,).
        outcomes: P(strong wins) as observed: 1, 0, or 0.5 for a tie, shape (n,).
        groups: Group of each row, from 0: rows of one prompt stay in one fold. None for each alone.
        methods: Kinds to choose from, the simplest first.
        seed: Draws the folds.

    Returns:
        The map of the least held-out log loss, and the calibration error before and after.

    Raises:
        DataError: There are too few prompts, or they are no probabilities.
        MissingExtraError: scikit-learn is not installed.
    """
    x, y = np.asarray(scores, dtype=np.float64), np.asarray(outcomes, dtype=np.float64)
    groups = np.arange(len(x)) if groups is None else groups
    count = int(groups.max(initial=-1)) + 1
    if x.shape != y.shape or x.ndim != 1 or not (are_chances(x) and are_chances(y)):
        msg = f"scores and outcomes must be one number in [0, 1] a prompt, got shapes {x.shape} and {y.shape}"
        raise DataError(msg)
    if count < FEWEST:
        msg = f"{count} labelled prompts are too few to calibrate probabilities with; give {FEWEST} or more"
        raise DataError(msg)
    folds = (np.random.default_rng(as_seed(seed)).permutation(count) % _FOLDS)[groups]
    held_out: dict[str, NDArray[np.float64]] = {name: _cross_fitted(_FITS[name], x, y, folds) for name in methods}
    losses = {name: _log_loss(mapped, y) for name, mapped in held_out.items()}
    # The simpler one where the gain is only rounding; they stand in this order.
    best = min(losses, key=lambda name: round(losses[name], 6))
    return FittedProbabilities(
        calibration=_FITS[best](x, y),
        n=len(x),
        ece_before=expected_calibration_error(x, y),
        ece_after=expected_calibration_error(held_out[best], y),
        log_losses=losses,
    )


def _fit_none(x: NDArray[np.float64], y: NDArray[np.float64]) -> ProbabilityCalibration:  # noqa: ARG001 - like the others
    return ProbabilityCalibration(method="none")


def _fit_platt(x: NDArray[np.float64], y: NDArray[np.float64]) -> ProbabilityCalibration:
    linear_model = _sklearn("linear_model")
    # A tie is half a win and half a loss.
    rows, won = np.concatenate([x, x]), np.repeat([1, 0], len(x))
    weights = np.concatenate([y, 1.0 - y])
    counted = weights > 0
    if len(np.unique(won[counted])) == 1:
        return ProbabilityCalibration(method="none")
    model = linear_model.LogisticRegression(C=_SLOPES, max_iter=1000)
    model.fit(_logit(rows[counted])[:, None], won[counted], sample_weight=weights[counted])
    # Scores that do not rise with the outcome cannot be helped by a map that keeps their order.
    return ProbabilityCalibration(
        method="platt", slope=max(float(model.coef_[0, 0]), _EDGE), intercept=float(model.intercept_[0])
    )


def _fit_isotonic(x: NDArray[np.float64], y: NDArray[np.float64]) -> ProbabilityCalibration:
    model = _sklearn("isotonic").IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip").fit(x, y)
    return ProbabilityCalibration(
        method="isotonic",
        x=np.asarray(model.X_thresholds_, dtype=np.float64),
        y=np.asarray(model.y_thresholds_, dtype=np.float64),
    )


_FITS: dict[str, Callable[[NDArray[np.float64], NDArray[np.float64]], ProbabilityCalibration]] = {
    "none": _fit_none,
    "platt": _fit_platt,
    "isotonic": _fit_isotonic,
}


def _cross_fitted(
    fit: Callable[[NDArray[np.float64], NDArray[np.float64]], ProbabilityCalibration],
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    folds: NDArray[np.int64],
) -> NDArray[np.float64]:
    mapped = np.empty(len(x))
    for fold in range(_FOLDS):
        out = folds == fold
        mapped[out] = fit(x[~out], y[~out])(x[out])
    return mapped


def _log_loss(chances: NDArray[np.float64], outcomes: NDArray[np.float64]) -> float:
    safe = np.clip(chances, _EDGE, 1.0 - _EDGE)
    return float(-np.mean(outcomes * np.log(safe) + (1.0 - outcomes) * np.log1p(-safe)))


def _platt(scores: NDArray[np.float64], slope: float, intercept: float) -> NDArray[np.float64]:
    return sigmoid(slope * _logit(scores) + intercept)


def _logit(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    safe = np.clip(scores, _EDGE, 1.0 - _EDGE)
    logits: NDArray[np.float64] = np.log(safe) - np.log1p(-safe)
    return logits


def _sklearn(module: str) -> Any:
    from importlib import import_module

    try:
        return import_module(f"sklearn.{module}")
    except ImportError as error:
        msg = 'calibrating probabilities needs scikit-learn: pip install scikit-learn, or pip install "prefroute[eval]"'
        raise MissingExtraError(msg) from error
