"""A router whose scores are mapped to probabilities that mean what they say."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from prefroute._scoring import as_chances, score_prompts
from prefroute.calibration import Calibration
from prefroute.errors import ConfigurationError, PersistenceError
from prefroute.persistence import CONFIG_FILE, SavedRouter, read_router, save_router, validated
from prefroute.probability import Method, ProbabilityCalibration, fit_probabilities
from prefroute.router import Router

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from typing import Self

    from numpy.typing import NDArray

    from prefroute.embedding import Embedder
    from prefroute.probability import FittedProbabilities
    from prefroute.types import ModelPair

ROUTER_FOLDER = "router"


@dataclass(frozen=True, kw_only=True)
class _Settings:
    """The fields of `config.json`."""

    method: Method
    slope: float
    intercept: float
    x: list[float]
    y: list[float]


class CalibratedRouter(Router):
    """P(strong wins) = map(P of another router): the same ranking, and probabilities that fit what is observed.

    Its threshold and its calibration of strong-call rates are those of the other router, mapped, so it decides as
    that one does.

    What else the other router can do, `add` and `with_pair` say, is asked of it: `calibrated.router`.

    Attributes:
        router: The other router.
        probabilities: The map.
    """

    router_type: ClassVar[str] = "calibrated"

    def __init__(self, *, router: Router, probabilities: ProbabilityCalibration) -> None:
        """Put together a router from ready parts; `fit` makes one from labels.

        Args:
            router: The router whose scores are mapped.
            probabilities: The map.

        Raises:
            ConfigurationError: The parts are something else.
        """
        if not isinstance(router, Router) or not isinstance(probabilities, ProbabilityCalibration):
            msg = (
                "a calibrated router is a Router with a ProbabilityCalibration, got "
                f"{type(router).__name__} and {type(probabilities).__name__}"
            )
            raise ConfigurationError(msg)
        self.router = router
        self.probabilities = probabilities
        self._calibration: tuple[Calibration, NDArray[np.uint64] | None] | None = None
        self.on_error, self.time_limit = router.on_error, router.time_limit
        self.validation, self.training_prompts = router.validation, router.training_prompts
        if router.threshold is not None:
            self.threshold = self._mapped_threshold(router.threshold)
        if router.calibration is not None:
            self.calibration = Calibration(probabilities(router.calibration.scores))

    @property
    def calibration(self) -> Calibration | None:
        """The scores of a sample of prompts; None again once the router within has learnt more since."""
        kept = self._calibration
        return None if kept is None or kept[1] is not self.router.training_prompts else kept[0]

    @calibration.setter
    def calibration(self, calibration: Calibration | None) -> None:
        self._calibration = None if calibration is None else (calibration, self.router.training_prompts)

    @classmethod
    def fit(
        cls,
        router: Router,
        prompts: Sequence[str],
        outcomes: NDArray[np.float64],
        *,
        seed: int = 0,
    ) -> tuple[Self, FittedProbabilities]:
        """Choose and fit the map on labelled prompts that the router did not learn from.

        Args:
            router: The router; of one that is calibrated already, the router within.
            prompts: n texts.
            outcomes: P(strong wins) as observed, in [0, 1], shape (n,).
            seed: Draws the folds.

        Returns:
            The router, and how good the map is.

        Raises:
            DataError: There are too few prompts, or an outcome is no probability.
            RouterError: The router failed.
            MissingExtraError: scikit-learn is not installed.
        """
        from prefroute.data import prompt_groups
        from prefroute.inputs import as_prompts

        inner = router.router if isinstance(router, CalibratedRouter) else router
        texts = as_prompts(prompts)
        scores = score_prompts(inner, texts)
        fitted = fit_probabilities(scores, outcomes, groups=prompt_groups(texts), seed=seed)
        made = cls(router=inner, probabilities=fitted.calibration)
        made.note_training_prompts(texts)
        if isinstance(router, CalibratedRouter):
            made._take_over(router)
        return made, fitted

    @property
    def pair(self) -> ModelPair:
        """The pair of the router within; an AttributeError where it has none."""
        found: ModelPair = self.router.pair  # type: ignore[attr-defined] # as the docstring says
        return found

    @property
    def embedder(self) -> Embedder:
        """The embedder of the router within; an AttributeError where it has none."""
        found: Embedder = self.router.embedder  # type: ignore[attr-defined] # as the docstring says
        return found

    @property
    def device(self) -> Any:
        """Where the router within computes; an AttributeError where it has no such choice."""
        return self.router.device  # type: ignore[attr-defined] # as the docstring says

    def win_probability(self, prompts: Sequence[str]) -> NDArray[np.float64]:
        """Estimate P(strong model wins) for each prompt; see `Router.win_probability`."""
        return self._mapped(self.router.win_probability(prompts))

    async def awin_probability(self, prompts: Sequence[str]) -> NDArray[np.float64]:
        """The same without blocking the event loop, as the router within does it."""
        return self._mapped(await self.router.awin_probability(prompts))

    def _take_over(self, other: CalibratedRouter) -> None:
        """Decide as another map of the same router did, whose threshold may have been set since."""
        self.on_error, self.time_limit = other.on_error, other.time_limit
        back = other.probabilities.inverse
        if other.threshold is not None:
            inside = 0.0 <= other.threshold <= 1.0
            self.threshold = (
                self._mapped_threshold(float(back(np.array(other.threshold)))) if inside else other.threshold
            )
        if other.calibration is not None:
            self.calibration = Calibration(self.probabilities(back(other.calibration.scores)))

    def _scores_asynchronously(self) -> bool:
        return self.router._scores_asynchronously()  # noqa: SLF001 - its hook

    def _is_quick(self, texts: list[str]) -> bool:
        return self.router._is_quick(texts)  # noqa: SLF001 - its hook

    def _mapped(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        # What is no probability stays none: a map would make one of anything.
        return self.probabilities(as_chances(np.asarray(scores, dtype=np.float64)))

    def _mapped_threshold(self, threshold: float) -> float:
        # A threshold outside [0, 1] is above or below every score, and so stays.
        return float(self.probabilities(np.array(threshold))) if 0.0 <= threshold <= 1.0 else threshold

    def _to_saved(self, folder: Path) -> SavedRouter:
        save_router(self.router, folder / ROUTER_FOLDER)
        found = self.probabilities
        # In config.json, which is replaced last: saved over the router within, no file of that one is overwritten.
        settings = _Settings(
            method=found.method, slope=found.slope, intercept=found.intercept, x=found.x.tolist(), y=found.y.tolist()
        )
        return SavedRouter(settings=asdict(settings))

    @classmethod
    def _from_saved(cls, saved: SavedRouter, folder: Path) -> Self:
        settings = validated(_Settings, saved.settings, folder / CONFIG_FILE)
        inner = read_router(folder / ROUTER_FOLDER, None, saved.embedder, saved.device, saved.dtype)
        try:
            probabilities = ProbabilityCalibration(
                method=settings.method,
                slope=settings.slope,
                intercept=settings.intercept,
                x=np.array(settings.x),
                y=np.array(settings.y),
            )
        except ConfigurationError as error:
            msg = f"{folder}: {error}"
            raise PersistenceError(msg) from error
        return cls(router=inner, probabilities=probabilities)
