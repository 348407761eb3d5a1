"""A router together with the settings an adapter asks it with."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from prefroute._limits import Failure
from prefroute._outcome import Asked, conclude, policy_of
from prefroute.errors import ConfigurationError, PrefrouteError
from prefroute.inputs import as_hook, as_route, as_threshold, finite_or_none, not_both
from prefroute.persistence import load_router
from prefroute.recording.recorder import as_recorder
from prefroute.router import Router
from prefroute.stats import RoutingStats, as_stats
from prefroute.types import RoutingDecision

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, Self

    from prefroute.conversation import Settled
    from prefroute.recording import Recorder
    from prefroute.types import OnError, Route

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One call that wants a side.

    Attributes:
        text: What the router is asked.
        threshold: Overrides the decider's for this call.
        strong_rate: In place of a threshold, for this call: the share that goes strong, by the router's calibration.
        settled: The side, where the router need not be asked.
        error: Why there is no text, where finding it failed; treated as if the router had failed.
    """

    text: str = ""
    threshold: float | None = None
    strong_rate: float | None = None
    settled: Settled | None = None
    error: Exception | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Decider:
    """What every adapter holds: who decides, by which settings, and where it is counted.

    Attributes:
        router: The router.
        threshold: Threshold of every decision that is not given another; None for the router's own.
        on_error: What happens when the router fails; None for the router's own setting.
        time_limit: Seconds that the router may take; None for the router's own setting.
        stats: Counts each decision once.
        on_route: Called with each decision once it is made. It runs where the call runs, so it must be quick; what it
            raises is logged and disturbs nobody.
        shadow: The side that answers every call whatever is decided, so that routing can be watched before it is
            relied on; None to do as decided.
        recorder: Keeps each decision with its text; None to keep nothing.
    """

    router: Router
    threshold: float | None = None
    on_error: OnError | None = None
    time_limit: float | None = None
    stats: RoutingStats = field(default_factory=RoutingStats)
    on_route: Callable[[RoutingDecision], object] | None = None
    shadow: Route | None = None
    recorder: Recorder | None = None

    @classmethod
    def of(  # noqa: D417 - the settings are the attributes above
        cls,
        router: object,
        *,
        threshold: float | None = None,
        strong_rate: float | None = None,
        on_error: OnError | None = None,
        time_limit: float | None = None,
        stats: RoutingStats | None = None,
        on_route: Callable[[RoutingDecision], object] | None = None,
        shadow: Route | None = None,
        record: Recorder | str | Path | None = None,
    ) -> Self:
        """Put one together from what an adapter is given, and refuse now what every decision would be refused for.

        Args:
            router: A router, or what `load_router` takes: a folder, a hub id, or None for the bundled default.
            strong_rate: In place of a threshold: the share of decisions that go strong, by the router's calibration.
            record: The recorder, or the path of a file in which everything is kept.

        Returns:
            The decider; with statistics of its own if none are given.

        Raises:
            ThresholdError: There is no threshold, or it is not a finite number.
            ConfigurationError: Another setting cannot be used, or `strong_rate` is given with a threshold, or with a
                router that is not calibrated.
            DataError: The calibration is too small for that rate.
            PersistenceError: There is no readable router of that name.
        """
        chosen = _as_router(router)
        threshold = _threshold_of(chosen, threshold, strong_rate)
        stats = _stats_of(chosen, threshold) if stats is None else as_stats(stats)
        made = cls(
            router=chosen,
            threshold=threshold,
            on_error=on_error,
            time_limit=time_limit,
            stats=stats,
            on_route=as_hook(on_route, "on_route", "the decision"),
            shadow=None if shadow is None else as_route(shadow, "shadow"),
            recorder=as_recorder(record),
        )
        policy_of(chosen, threshold, on_error, time_limit)
        return made

    def decide(self, ask: Ask) -> RoutingDecision:
        """Decide where one call goes; see `Router.route`.

        Args:
            ask: The call.

        Returns:
            The decision, counted.

        Raises:
            ThresholdError: The threshold is not a finite number, or there is none.
            ConfigurationError: `strong_rate` cannot be used.
            DataError: The calibration is too small for that rate.
            RouterError: The router failed and `on_error` is `"raise"`.
        """
        decision = self._without_router(ask)
        if decision is None:
            decision = self.router.route(ask.text, **self._settings(self._given(ask)))
        self._tell(ask, decision)
        return decision

    async def adecide(self, ask: Ask) -> RoutingDecision:
        """`decide` without blocking the event loop."""
        decision = self._without_router(ask)
        if decision is None:
            decision = await self.router.aroute(ask.text, **self._settings(self._given(ask)))
        self._tell(ask, decision)
        return decision

    def decide_batch(
        self, asks: Sequence[Ask], *, return_exceptions: bool = False
    ) -> list[RoutingDecision | PrefrouteError]:
        """Decide for many calls; those of the same threshold share one call of the router.

        Args:
            asks: n calls.
            return_exceptions: Whether what `decide` would raise is returned in its place.

        Returns:
            n decisions, in order.

        Raises:
            PrefrouteError: As for `decide`, unless they are returned.
        """
        batch = _Batch(self, asks, return_exceptions=return_exceptions)
        for threshold, indices in batch.groups.items():
            try:
                decided = self.router.route_batch([asks[i].text for i in indices], **self._settings(threshold))
            except PrefrouteError as error:
                batch.failed(indices, error)
            else:
                batch.decided(indices, decided)
        return batch.outcomes()

    async def adecide_batch(
        self, asks: Sequence[Ask], *, return_exceptions: bool = False
    ) -> list[RoutingDecision | PrefrouteError]:
        """`decide_batch` without blocking the event loop."""
        batch = _Batch(self, asks, return_exceptions=return_exceptions)
        for threshold, indices in batch.groups.items():
            try:
                texts = [asks[i].text for i in indices]
                decided = await self.router.aroute_batch(texts, **self._settings(threshold))
            except PrefrouteError as error:
                batch.failed(indices, error)
            else:
                batch.decided(indices, decided)
        return batch.outcomes()

    def answers(self, decision: RoutingDecision) -> Route:
        """The side that answers after a decision: the chosen one, or the one that answers everything."""
        return decision.route if self.shadow is None else self.shadow

    def threshold_of(self, ask: Ask) -> float:
        """The threshold of one call.

        Raises:
            ThresholdError: It is not a finite number, or there is none.
            ConfigurationError: Both it and a rate are given, or the rate cannot be used.
            DataError: The calibration is too small for that rate.
        """
        return policy_of(self.router, self._given(ask), None, None).threshold

    def _given(self, ask: Ask) -> float | None:
        """The threshold of one call as it is given, for the router to check; None for the router's own."""
        given = _threshold_of(self.router, ask.threshold, ask.strong_rate)
        return self.threshold if given is None else given

    def _without_router(self, ask: Ask) -> RoutingDecision | None:
        """The decision, counted, where the router need not or cannot be asked."""
        if ask.error is not None:
            policy = policy_of(self.router, self._given(ask), self.on_error, self.time_limit)
            return conclude(self.router, Failure(ask.error), policy, Asked(1, 0.0), self.stats)[0]
        if ask.settled is None:
            return None
        settled = ask.settled
        decision = RoutingDecision(
            route=settled.route,
            score=None,
            threshold=self.threshold_of(ask),
            reason=settled.reason,
            detail=settled.detail,
        )
        self.stats.record(decision)
        return decision

    def _tell(self, ask: Ask, decision: RoutingDecision) -> None:
        if self.recorder is not None and ask.error is None:
            self.recorder.decided(ask.text, decision, self.answers(decision))
        if self.on_route is None:
            return
        try:
            self.on_route(decision)
        except Exception:  # a hook must not disturb the call that it looks at
            logger.warning("on_route failed", exc_info=True)

    def _settings(self, threshold: float | None) -> dict[str, Any]:
        return {
            "threshold": threshold,
            "on_error": self.on_error,
            "time_limit": self.time_limit,
            "stats": self.stats,
        }


class _Batch:
    """The state of one batch: what is decided, and what is left to ask, by threshold."""

    def __init__(self, decider: Decider, asks: Sequence[Ask], *, return_exceptions: bool) -> None:
        self._decider = decider
        self._asks = asks
        self._return_exceptions = return_exceptions
        self._outcomes: dict[int, RoutingDecision | PrefrouteError] = {}
        self._size = len(asks)
        self.groups: dict[float, list[int]] = {}
        thresholds: dict[int, float] = {}
        # All thresholds before the first decision: a bad one must not leave others counted that come to no call.
        for index, ask in enumerate(asks):
            try:
                thresholds[index] = decider.threshold_of(ask)
            except PrefrouteError as error:
                self.failed([index], error)
        for index, threshold in thresholds.items():
            try:
                decision = decider._without_router(asks[index])  # noqa: SLF001 - same module
            except PrefrouteError as error:
                self.failed([index], error)
                continue
            if decision is None:
                self.groups.setdefault(threshold, []).append(index)
            else:
                self.decided([index], [decision])

    def decided(self, indices: Sequence[int], decisions: Sequence[RoutingDecision]) -> None:
        self._outcomes.update(zip(indices, decisions, strict=True))
        for index, decision in zip(indices, decisions, strict=True):
            self._decider._tell(self._asks[index], decision)  # noqa: SLF001 - same module

    def failed(self, indices: Sequence[int], error: PrefrouteError) -> None:
        if not self._return_exceptions:
            raise error
        self._outcomes.update(dict.fromkeys(indices, error))

    def outcomes(self) -> list[RoutingDecision | PrefrouteError]:
        return [self._outcomes[index] for index in range(self._size)]


def _threshold_of(router: Router, threshold: float | None, strong_rate: float | None) -> float | None:
    not_both(threshold, strong_rate)
    return threshold if strong_rate is None else router.threshold_for(strong_rate)


def _stats_of(router: Router, threshold: float | None) -> RoutingStats:
    """Statistics that watch, for a calibrated router, whether traffic still is what it was calibrated with."""
    used = router.threshold if threshold is None else threshold
    if router.calibration is None or finite_or_none(used) is None:
        return RoutingStats()
    from prefroute.drift import DriftMonitor

    return RoutingStats(monitor=DriftMonitor(router.calibration, as_threshold(used)))


def _as_router(router: object) -> Router:
    if isinstance(router, Router):
        return router
    if router is None or isinstance(router, str | Path):
        return load_router(router)
    msg = f"router must be a Router, a folder, a hub id or None, got {type(router).__name__}"
    raise ConfigurationError(msg)
