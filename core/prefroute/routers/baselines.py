"""Baselines that every learned router must beat: a coin that knows its prompts, and the length of the prompt."""

from __future__ import annotations

import hashlib
import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from prefroute.bradley_terry import sigmoid
from prefroute.errors import ConfigurationError, ConvergenceError, PersistenceError
from prefroute.inputs import as_pair, as_prompts, finite_or_none
from prefroute.persistence import CONFIG_FILE, SavedRouter, validated
from prefroute.router import Router
from prefroute.types import ModelPair  # noqa: TC001 - read from the annotation when settings are checked

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path
    from typing import Self

    from numpy.typing import NDArray

    from prefroute.data import Battles

_SEEDS = 2**63
_HASH_NAME = b"prefroute.random"

_DEFAULT_SLOPE = 1.0
_DEFAULT_INTERCEPT = -math.log1p(250)

_INLINE_TEXTS, _INLINE_CHARACTERS = 32, 65_536
"""Up to so many texts of so many characters in all are scored on the event loop, in the time a thread takes."""

_TOLERANCE = 1e-10
_MAX_STEPS = 100


@dataclass(frozen=True, kw_only=True)
class _RandomSettings:
    """The fields of `config.json`."""

    seed: int


@dataclass(frozen=True, kw_only=True)
class _LengthSettings:
    """The fields of `config.json`."""

    slope: float
    intercept: float
    pair: ModelPair | None


_LEAST_DEVIATION = 1e-9


class RandomRouter(Router):
    """Scores that say nothing about the prompt: uniform on [0, 1), from a keyed hash of the seed and the text.

    A prompt that comes again goes the same way, so a retry or a cached answer meets the same model, and
    neither order, batching nor threads change a score. A threshold of t sends a share 1 - t to the strong
    model. It is the chance line of RouteLLM (arXiv 2406.18665), section 5.
    """

    router_type: ClassVar[str] = "random"
    training_prompts = np.empty(0, dtype=np.uint64)

    def __init__(self, *, seed: int = 0, threshold: float | None = 0.5) -> None:
        """Put together a router.

        Args:
            seed: Routers of one seed score alike; from 0 up to 2**63 - 1.
            threshold: The default threshold.

        Raises:
            ConfigurationError: The seed is no such number.
        """
        if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < _SEEDS:
            msg = f"seed must be an integer from 0 to 2**63 - 1, got {seed!r}"
            raise ConfigurationError(msg)
        self.seed = seed
        self.threshold = threshold

    def win_probability(self, prompts: Sequence[str]) -> NDArray[np.float64]:
        """A uniform number for each prompt; see `Router.win_probability`."""
        key = self.seed.to_bytes(8)
        return _each(as_prompts(prompts), lambda text: _uniform(key, text))

    def _is_quick(self, texts: list[str]) -> bool:
        return _is_quick(self, RandomRouter, texts)

    def _to_saved(self, folder: Path) -> SavedRouter:  # noqa: ARG002 - it has no parts
        return SavedRouter(settings=asdict(_RandomSettings(seed=self.seed)))

    @classmethod
    def _from_saved(cls, saved: SavedRouter, folder: Path) -> Self:
        settings = validated(_RandomSettings, saved.settings, folder / CONFIG_FILE)
        try:
            return cls(seed=settings.seed, threshold=None)
        except ConfigurationError as error:
            msg = f"{folder / CONFIG_FILE}: {error}"
            raise PersistenceError(msg) from error


class PromptLengthRouter(Router):
    """P(strong wins) = sigmoid(slope * log(1 + characters) + intercept): nothing but the length of the prompt.

    Untrained, the slope is 1 and P is 0.5 at 250 characters, about the median of human prompts and of
    benchmark questions (220 to 310 in those looked at): the odds of the strong model are (1 + characters) / 251.
    `fit` learns both numbers, and may well learn that longer prompts need the strong model less.
    """

    router_type: ClassVar[str] = "prompt-length"

    def __init__(
        self,
        *,
        slope: float = _DEFAULT_SLOPE,
        intercept: float = _DEFAULT_INTERCEPT,
        pair: ModelPair | None = None,
        threshold: float | None = 0.5,
    ) -> None:
        """Put together a router from its numbers.

        Args:
            slope: What one unit of log length adds to the logit; may be negative.
            intercept: The logit of the empty prompt.
            pair: The models it was fitted for; None for one that was not fitted.
            threshold: The default threshold.

        Raises:
            ConfigurationError: A number is not finite, or the pair is none.
        """
        self.slope = _finite("slope", slope)
        self.intercept = _finite("intercept", intercept)
        self.pair = None if pair is None else as_pair(pair)
        self.threshold = threshold
        if pair is None and (slope, intercept) == (_DEFAULT_SLOPE, _DEFAULT_INTERCEPT):
            self.training_prompts = np.empty(0, dtype=np.uint64)  # Nothing was learnt.

    @property
    def models(self) -> tuple[str, ...]:
        """The models it can tell apart: the two of its pair, sorted, or none."""
        return () if self.pair is None else tuple(sorted((self.pair.strong, self.pair.weak)))

    @classmethod
    def fit(cls, battles: Battles, *, pair: ModelPair) -> Self:
        """Learn slope and intercept by logistic regression on the battles of one pair.

        Args:
            battles: Battles; those of other pairs are left out.
            pair: The two models.

        Returns:
            The router; its threshold is the median of its scores of the training prompts, which sends
            half of such prompts to the strong model.

        Raises:
            DataError: There is no battle of that pair.
            ConfigurationError: The pair is none.
            ConvergenceError: The optimum was not reached.
        """
        labels = battles.for_pair(as_pair(pair))
        lengths = _each(labels.prompts, _log_length)
        slope, intercept = fit_logistic_line(lengths, labels.outcomes, labels.weights)
        router = cls(slope=slope, intercept=intercept, pair=pair)
        router.threshold = float(np.median(router.win_probability(labels.prompts)))
        router.note_training_prompts(labels.prompts)
        return router

    def win_probability(self, prompts: Sequence[str]) -> NDArray[np.float64]:
        """Estimate P(strong model wins) for each prompt; see `Router.win_probability`."""
        # One at a time: prompts of one length must get the very same score, as one of them may be the threshold.
        return _each(as_prompts(prompts), lambda text: _sigmoid(self.slope * _log_length(text) + self.intercept))

    def _is_quick(self, texts: list[str]) -> bool:
        return _is_quick(self, PromptLengthRouter, texts)

    def _to_saved(self, folder: Path) -> SavedRouter:  # noqa: ARG002 - it has no parts
        settings = _LengthSettings(slope=self.slope, intercept=self.intercept, pair=self.pair)
        return SavedRouter(settings=asdict(settings))

    @classmethod
    def _from_saved(cls, saved: SavedRouter, folder: Path) -> Self:
        try:
            settings = validated(_LengthSettings, saved.settings, folder / CONFIG_FILE)
            return cls(slope=settings.slope, intercept=settings.intercept, pair=settings.pair, threshold=None)
        except ConfigurationError as error:
            msg = f"{folder / CONFIG_FILE}: {error}"
            raise PersistenceError(msg) from error


def fit_logistic_line(
    x: NDArray[np.float64], outcomes: NDArray[np.float64], weights: NDArray[np.float64]
) -> tuple[float, float]:
    """Weighted logistic regression on one feature, by Newton's method.

    Two imagined rows, one deviation below and above the mean, both of outcome 0.5 and half the mean weight,
    keep the optimum finite where one side always wins or a length separates the sides.

    Args:
        x: The feature, shape (n,).
        outcomes: P(strong wins) of each row, in [0, 1], shape (n,).
        weights: Weight of each row, above 0, shape (n,).

    Returns:
        Slope and intercept of the logit.

    Raises:
        ConvergenceError: The optimum was not reached.
    """
    weights = weights / weights.max()  # First, so that no sum of them can overflow.
    weights = weights / weights.mean()
    mean = float(np.average(x, weights=weights))
    deviation = math.sqrt(float(np.average((x - mean) ** 2, weights=weights)))
    # Of equal lengths rounding leaves a deviation of about 1e-16, which would blow up any other length.
    deviation = deviation if deviation > _LEAST_DEVIATION else 1.0
    standard = np.concatenate([(x - mean) / deviation, [-1.0, 1.0]])
    design = np.stack([standard, np.ones_like(standard)], axis=1)  # (n + 2, 2)
    slope, intercept = _newton(
        design, np.concatenate([outcomes, [0.5, 0.5]]), np.concatenate([weights, [0.5, 0.5]])
    ).tolist()
    return slope / deviation, intercept - slope * mean / deviation


def _newton(
    design: NDArray[np.float64], outcomes: NDArray[np.float64], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Minimise the weighted log loss over the coefficients; steps that overshoot are halved."""

    def loss(at: NDArray[np.float64]) -> float:
        logits = design @ at
        return float(weights @ (np.logaddexp(0.0, logits) - outcomes * logits))

    coefficients = np.zeros(design.shape[1])
    total = weights.sum()
    for _ in range(_MAX_STEPS):
        probabilities = sigmoid(design @ coefficients)
        gradient = design.T @ (weights * (probabilities - outcomes))
        if np.abs(gradient).max() <= _TOLERANCE * total:
            return coefficients
        curvature = weights * probabilities * (1 - probabilities)
        step = np.linalg.solve((design.T * curvature) @ design, gradient)
        here, size = loss(coefficients), 1.0
        while loss(coefficients - size * step) > here + _TOLERANCE * total and size > _TOLERANCE:
            size /= 2
        coefficients = coefficients - size * step
    largest = np.abs(gradient).max()
    msg = f"the logistic regression did not converge in {_MAX_STEPS} steps; the largest gradient is {largest:g}"
    raise ConvergenceError(msg)


def _uniform(key: bytes, text: str) -> float:
    """53 bits of a keyed hash, as a float in [0, 1)."""
    digest = hashlib.blake2b(text.encode(), digest_size=8, key=key, person=_HASH_NAME).digest()
    return (int.from_bytes(digest) >> 11) / 2**53


def _log_length(text: str) -> float:
    return math.log1p(len(text))


def _sigmoid(logit: float) -> float:
    # tanh does not overflow, where exp(-logit) would.
    return 0.5 + 0.5 * math.tanh(0.5 * logit)


def _each(texts: Sequence[str], function: Callable[[str], float]) -> NDArray[np.float64]:
    return np.fromiter(map(function, texts), dtype=np.float64, count=len(texts))


def _is_quick(router: Router, kind: type[Router], texts: list[str]) -> bool:
    """Only what is known to be quick: a subclass may do anything."""
    own = type(router).win_probability is kind.win_probability and "win_probability" not in vars(router)
    return own and len(texts) <= _INLINE_TEXTS and sum(map(len, texts)) <= _INLINE_CHARACTERS


def _finite(name: str, value: object) -> float:
    number = finite_or_none(value)
    if number is None:
        msg = f"{name} must be one finite number, got {type(value).__name__}: {value!r}"
        raise ConfigurationError(msg)
    return number
