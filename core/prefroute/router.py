"""The router contract: one hook gives probabilities, everything else is shared."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, ClassVar

from prefroute._limits import Failure, aattempt, aattempt_within, attempt, attempt_within
from prefroute._outcome import Asked, conclude, policy_of
from prefroute.errors import ConfigurationError, PersistenceError
from prefroute.inputs import as_on_error, as_prompt, as_prompts, as_threshold, as_time_limit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path
    from typing import Self

    import numpy as np
    from numpy.typing import NDArray

    from prefroute._limits import Outcome
    from prefroute.calibration import CalibratedThreshold, Calibration
    from prefroute.embedding import Embedder
    from prefroute.evaluation import Validation
    from prefroute.persistence import SavedRouter
    from prefroute.stats import RoutingStats
    from prefroute.types import OnError, RoutingDecision

_CHECKS: dict[str, Callable[[object], object]] = {
    "threshold": as_threshold,
    "on_error": as_on_error,
    "time_limit": as_time_limit,
}
"""How the settings of a router are checked when they are set on an instance."""


class Router(ABC):
    """Estimates, from a prompt alone, how likely the strong model's answer is the better one.

    A subclass needs `win_probability` and nothing more; it need not call `super().__init__()`.
    The attributes below may be set on the class or on an instance.

    Attributes:
        threshold: Threshold used when a call gives none. There is no universal default: 0.5 can mean
            0 % or 100 % strong calls, so a trained router carries one chosen on its validation prompts.
        on_error: The side taken when the router fails, or `"raise"`.
        time_limit: Seconds that scoring may take before it counts as failed; None for no limit.
        validation: What it recovered of prompts kept out of its training, at the time of training; None where
            that is not known.
        calibration: Its scores of a sample of its user's prompts, which turn a strong-call rate into a threshold;
            None for a router that is not calibrated.
        training_prompts: Hashes of the prompts that it learnt from, as of `prefroute.data.prompt_hashes`, shape (p,);
            None where they are not known. Evaluation leaves these prompts out.
        router_type: The name that a saved router is recognised by; empty when it cannot be saved.
    """

    threshold: float | None = None
    on_error: OnError = "strong"
    time_limit: float | None = None
    validation: Validation | None = None
    calibration: Calibration | None = None
    training_prompts: NDArray[np.uint64] | None = None
    router_type: ClassVar[str] = ""

    def __setattr__(self, name: str, value: object) -> None:
        """Set an attribute; a setting that no call could use is refused here, not at the next call."""
        check = _CHECKS.get(name)
        super().__setattr__(name, value if check is None or value is None else check(value))

    @abstractmethod
    def win_probability(self, prompts: Sequence[str]) -> NDArray[np.float64]:
        """Estimate P(strong model wins) for each prompt.

        Args:
            prompts: n texts.

        Returns:
            n probabilities in [0, 1], shape (n,), float64.
        """

    async def awin_probability(self, prompts: Sequence[str]) -> NDArray[np.float64]:
        """The same without blocking the event loop; by default `win_probability` in a worker thread."""
        outcome = await asyncio.to_thread(attempt, partial(self.win_probability, prompts))
        if isinstance(outcome, Failure):
            raise outcome.error
        return outcome

    def route(
        self,
        prompt: str,
        threshold: float | None = None,
        *,
        on_error: OnError | None = None,
        time_limit: float | None = None,
        stats: RoutingStats | None = None,
    ) -> RoutingDecision:
        """Decide where one prompt goes.

        Args:
            prompt: The text to route.
            threshold: Scores at or above it go to the strong model. Any finite number: above 1 means all
                weak, 0 or below all strong. None for the router's own.
            on_error: Overrides the router's `on_error` for this call.
            time_limit: Overrides the router's `time_limit`, in seconds, for this call.
            stats: Where to count the decision.

        Returns:
            The decision. A router that fails never fails the call: the decision then has
            `reason="router_error"` and the side that `on_error` names.

        Raises:
            PromptTypeError: `prompt` is not a str.
            ThresholdError: The threshold is not a finite number, or there is none.
            ConfigurationError: `on_error` or `time_limit` cannot be used.
            RouterError: The router failed and `on_error` is `"raise"`.
        """
        texts = [as_prompt(prompt)]
        return self.route_batch(texts, threshold, on_error=on_error, time_limit=time_limit, stats=stats)[0]

    async def aroute(
        self,
        prompt: str,
        threshold: float | None = None,
        *,
        on_error: OnError | None = None,
        time_limit: float | None = None,
        stats: RoutingStats | None = None,
    ) -> RoutingDecision:
        """`route` without blocking the event loop."""
        texts = [as_prompt(prompt)]
        decisions = await self.aroute_batch(texts, threshold, on_error=on_error, time_limit=time_limit, stats=stats)
        return decisions[0]

    def route_batch(
        self,
        prompts: Sequence[str],
        threshold: float | None = None,
        *,
        on_error: OnError | None = None,
        time_limit: float | None = None,
        stats: RoutingStats | None = None,
    ) -> list[RoutingDecision]:
        """Decide for many prompts with one call of the router; arguments and errors as in `route`."""
        texts = as_prompts(prompts)
        policy = policy_of(self, threshold, on_error, time_limit)
        started = perf_counter()
        outcome = self._outcome(texts, policy.time_limit) if texts else ()
        return conclude(self, outcome, policy, Asked(len(texts), perf_counter() - started), stats)

    async def aroute_batch(
        self,
        prompts: Sequence[str],
        threshold: float | None = None,
        *,
        on_error: OnError | None = None,
        time_limit: float | None = None,
        stats: RoutingStats | None = None,
    ) -> list[RoutingDecision]:
        """`route_batch` without blocking the event loop."""
        texts = as_prompts(prompts)
        policy = policy_of(self, threshold, on_error, time_limit)
        started = perf_counter()
        outcome = await self._aoutcome(texts, policy.time_limit) if texts else ()
        return conclude(self, outcome, policy, Asked(len(texts), perf_counter() - started), stats)

    # A router is given a list of its own: one that empties it must not change what the caller counts.

    def _outcome(self, texts: list[str], seconds: float | None) -> Outcome[object]:
        work = partial(self.win_probability, list(texts))
        return attempt(work) if seconds is None else attempt_within(self, work, seconds)

    async def _aoutcome(self, texts: list[str], seconds: float | None) -> Outcome[object]:
        try:
            if self._scores_asynchronously():
                return await aattempt(self, partial(self.awin_probability, list(texts)), seconds)
            work = partial(self.win_probability, list(texts))
            if self._is_quick(texts):
                return attempt(work)
            if seconds is None:
                return await asyncio.to_thread(attempt, work)
            # Not to_thread: a call past its limit would keep one of the loop's few threads and hold up its shutdown.
            return await aattempt_within(self, work, seconds)
        except Exception as error:  # noqa: BLE001 - an executor that is shut down, say; told in conclude
            return Failure(error)

    def _scores_asynchronously(self) -> bool:
        """Hook: whether `awin_probability` does more than hand `win_probability` to a thread."""
        return getattr(self.awin_probability, "__func__", None) is not Router.awin_probability

    def _is_quick(self, texts: list[str]) -> bool:  # noqa: ARG002 - for those who override it
        """Hook: whether scoring these takes no longer than handing them to a thread, so the loop may do it itself."""
        return False

    def calibrate(
        self, prompts: Sequence[str], strong_rate: float, *, next_prompts: int | None = None
    ) -> CalibratedThreshold:
        """Set the threshold by a sample of one's own prompts, and keep their scores as `calibration`.

        Args:
            prompts: Texts as the router will meet them; no labels needed, some hundreds are enough.
            strong_rate: Wanted share of strong calls, in [0, 1].
            next_prompts: How many prompts to come the interval is for; None for as many as there are here.

        Returns:
            The threshold, the predicted rate and its interval; `prefroute.calibration` says what these guarantee.

        Raises:
            DataError: There are too few prompts for that rate.
            RouterError: The router failed, or gave no probabilities.
            ConfigurationError: The rate is outside [0, 1].
            PromptTypeError: Something is not text.
        """
        from prefroute.calibration import Calibration, as_strong_rate

        as_strong_rate(strong_rate)
        calibration = Calibration.of(self, prompts)
        found = calibration.threshold_for(strong_rate, next_prompts=next_prompts)
        self.calibration, self.threshold = calibration, found.threshold
        return found

    def threshold_for(self, strong_rate: float) -> float:
        """The threshold that sends a share of traffic to the strong model, by the calibration.

        Args:
            strong_rate: Wanted share of strong calls, in [0, 1].

        Returns:
            The threshold.

        Raises:
            ConfigurationError: The router is not calibrated, or the rate is outside [0, 1].
            DataError: The calibration is too small for that rate.
        """
        if self.calibration is None:
            msg = (
                f"strong_rate needs a calibrated router, and this {type(self).__name__} is not; run prefroute "
                "calibrate or call router.calibrate(prompts, strong_rate) with prompts of your own, or pass threshold="
            )
            raise ConfigurationError(msg)
        from prefroute.calibration import as_strong_rate, threshold_at

        return threshold_at(self.calibration, as_strong_rate(strong_rate))

    def note_training_prompts(self, prompts: Iterable[str]) -> None:
        """Remember, as hashes, that the router learnt from these prompts too.

        Args:
            prompts: Texts.
        """
        import numpy as np

        from prefroute.data import prompt_hashes

        known = np.empty(0, dtype=np.uint64) if self.training_prompts is None else self.training_prompts
        self.training_prompts = np.union1d(known, prompt_hashes(prompts))

    def _inherit(self, other: Router) -> None:
        """Take over what a copy for another pair, or with another model, has in common with its original."""
        self.on_error, self.time_limit = other.on_error, other.time_limit
        self.training_prompts = other.training_prompts
        if getattr(self, "pair", None) == getattr(other, "pair", None):
            self.validation, self.calibration = other.validation, other.calibration

    def save_pretrained(self, path: str | Path) -> None:
        """Write the router to a folder: `config.json` and safetensors, never pickle.

        Args:
            path: Folder; made if missing. Other files in it are left alone.

        Raises:
            PersistenceError: This kind of router cannot be saved, or the folder cannot be written.
        """
        from prefroute.persistence import save_router

        save_router(self, path)

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path | None = None,
        *,
        embedder: str | Path | Embedder | None = None,
        device: str | None = None,
        dtype: str | None = None,
    ) -> Self:
        """Load a saved router and check that it is of this class.

        Args:
            name_or_path: As for `load_router`.
            embedder: As for `load_router`.
            device: As for `load_router`.
            dtype: As for `load_router`.

        Returns:
            The router.

        Raises:
            PersistenceError: The folder holds no readable router, or one of another class.
        """
        from prefroute.persistence import read_router

        router = read_router(name_or_path, cls, embedder, device, dtype)
        if not isinstance(router, cls):
            msg = f"{name_or_path or 'the bundled default'} holds a {type(router).__name__}, not a {cls.__name__}"
            raise PersistenceError(msg)
        return router

    def _to_saved(self, folder: Path) -> SavedRouter:  # noqa: ARG002 - for those who override it
        """Hook for `save_pretrained`: settings and tensors; nested parts go below `folder`."""
        msg = f"{type(self).__name__} cannot be saved; a router that can defines router_type, _to_saved and _from_saved"
        raise PersistenceError(msg)

    @classmethod
    def _from_saved(cls, saved: SavedRouter, folder: Path) -> Self:  # noqa: ARG003 - as above
        """Hook for `from_pretrained`: the opposite of `_to_saved`; the threshold is restored by the caller."""
        msg = f"{cls.__name__} cannot be loaded; a router that can defines router_type, _to_saved and _from_saved"
        raise PersistenceError(msg)
