"""The router contract: one hook gives probabilities, everything else is shared."""

from __future__ import annotations

import asyncio
import logging
import reprlib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, ClassVar

from prefroute._limits import acall_within, call_within
from prefroute.errors import PersistenceError, RouterError, RouterTimeoutError, ScoreError, ThresholdError
from prefroute.inputs import as_on_error, as_prompt, as_prompts, as_threshold, as_time_limit
from prefroute.types import RoutingDecision

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path
    from typing import Self

    import numpy as np
    from numpy.typing import NDArray

    from prefroute.persistence import SavedRouter
    from prefroute.stats import RoutingStats
    from prefroute.types import OnError, Route

logger = logging.getLogger(__name__)

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
        router_type: The name that a saved router is recognised by; empty when it cannot be saved.
    """

    threshold: float | None = None
    on_error: OnError = "strong"
    time_limit: float | None = None
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
        return await asyncio.to_thread(self.win_probability, prompts)

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
        return self.route_batch([as_prompt(prompt)], threshold, on_error=on_error, time_limit=time_limit, stats=stats)[
            0
        ]

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
        policy = _policy(self, threshold, on_error, time_limit)
        started = perf_counter()
        outcome: object
        try:
            if not texts:
                outcome = ()
            elif policy.time_limit is None:
                outcome = self.win_probability(texts)
            else:
                outcome = call_within(lambda: self.win_probability(texts), policy.time_limit)
        except Exception as error:  # noqa: BLE001 - a router may fail in any way; told in _conclude
            outcome = error
        return _conclude(self, outcome, len(texts), policy, perf_counter() - started, stats)

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
        policy = _policy(self, threshold, on_error, time_limit)
        started = perf_counter()
        outcome: object
        try:
            outcome = await self._ascore(texts, policy.time_limit) if texts else ()
        except Exception as error:  # noqa: BLE001 - as in route_batch
            outcome = error
        return _conclude(self, outcome, len(texts), policy, perf_counter() - started, stats)

    async def _ascore(self, texts: list[str], seconds: float | None) -> NDArray[np.float64]:
        if seconds is None:
            return await self.awin_probability(texts)
        if type(self).awin_probability is Router.awin_probability:
            # A timed-out to_thread call would keep one of the loop's few executor threads and hold up its shutdown.
            return await acall_within(lambda: self.win_probability(texts), seconds)
        try:
            async with asyncio.timeout(seconds) as limit:
                return await self.awin_probability(texts)
        except TimeoutError as error:
            if not limit.expired():
                raise
            msg = f"the router did not answer within its time limit of {seconds:g} s"
            raise RouterTimeoutError(msg) from error

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
    def from_pretrained(cls, name_or_path: str | Path | None = None) -> Self:
        """Load a saved router and check that it is of this class.

        Args:
            name_or_path: As for `load_router`.

        Returns:
            The router.

        Raises:
            PersistenceError: The folder holds no readable router, or one of another class.
        """
        from prefroute.persistence import read_router

        router = read_router(name_or_path, cls)
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


@dataclass(frozen=True, slots=True)
class _Policy:
    """The settings of one call, checked."""

    threshold: float
    on_error: OnError
    time_limit: float | None


def _policy(router: Router, threshold: float | None, on_error: OnError | None, time_limit: float | None) -> _Policy:
    if threshold is None:
        threshold = router.threshold
    if threshold is None:
        msg = (
            f"{type(router).__name__} has no default threshold; pass threshold= or set router.threshold "
            "to the score above which a prompt is worth the strong model"
        )
        raise ThresholdError(msg)
    on_error = router.on_error if on_error is None else on_error
    time_limit = router.time_limit if time_limit is None else time_limit
    return _Policy(
        as_threshold(threshold), as_on_error(on_error), None if time_limit is None else as_time_limit(time_limit)
    )


def _conclude(  # noqa: PLR0917 - private, called twice
    router: Router, outcome: object, n: int, policy: _Policy, seconds: float, stats: RoutingStats | None
) -> list[RoutingDecision]:
    """Turn what the router answered, or the exception it raised, into n decisions and count them."""
    scores: list[float | None] = [None] * n
    error = outcome if isinstance(outcome, Exception) else None
    if error is None:
        try:
            scores = _usable_scores(outcome, n)
        except ScoreError as bad:
            error = bad
        else:
            error = _unusable(scores)
    if error is not None:
        if policy.on_error == "raise":
            if isinstance(error, RouterError):
                raise error
            raise RouterError(_describe(router, error)) from error
        failed = scores.count(None)
        logger.warning("%s; %d of %d prompts go to the %s model", _describe(router, error), failed, n, policy.on_error)
    decisions = [_decide(score, policy) for score in scores]
    if stats is not None:
        stats.record_many(decisions, seconds / n if n else None)
    return decisions


def _decide(score: float | None, policy: _Policy) -> RoutingDecision:
    if score is None:
        # "raise" has raised by now, so on_error names a side.
        route: Route = "weak" if policy.on_error == "weak" else "strong"
        return RoutingDecision(route=route, score=None, threshold=policy.threshold, reason="router_error")
    route = "strong" if score >= policy.threshold else "weak"
    return RoutingDecision(route=route, score=score, threshold=policy.threshold, reason="score")


def _usable_scores(outcome: object, n: int) -> list[float | None]:
    """One float in [0, 1] a prompt, or None where the router gave something else there."""
    import numpy as np

    try:
        array = np.asarray(outcome, dtype=np.float64)
    except (TypeError, ValueError) as error:
        msg = f"win_probability must return {n} numbers, got {type(outcome).__name__}: {reprlib.repr(outcome)}"
        raise ScoreError(msg) from error
    if array.shape != (n,):
        msg = f"win_probability must return shape ({n},), got {array.shape}"
        raise ScoreError(msg)
    return [value if 0.0 <= value <= 1.0 else None for value in array.tolist()]


def _unusable(scores: list[float | None]) -> ScoreError | None:
    if None not in scores:
        return None
    return ScoreError(f"win_probability gave no number in [0, 1] for {scores.count(None)} of {len(scores)} prompts")


def _describe(router: Router, error: Exception) -> str:
    """The failure in one line; what was routed stays out of it, for prompts are private."""
    return f"{type(router).__name__} failed: {type(error).__name__}: {error}"
