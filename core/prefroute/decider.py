"""A router together with the settings an adapter asks it with."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from prefroute.errors import ConfigurationError
from prefroute.inputs import as_threshold, finite_or_none
from prefroute.persistence import load_router
from prefroute.router import Router
from prefroute.stats import RoutingStats
from prefroute.types import RoutingDecision

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, Self

    from prefroute.types import OnError, Reason, Route


@dataclass(frozen=True, slots=True, kw_only=True)
class Decider:
    """What every adapter holds: who decides, by which settings, and where it is counted.

    Attributes:
        router: The router.
        threshold: Threshold of every decision that is not given another; None for the router's own.
        on_error: What happens when the router fails; None for the router's own setting.
        time_limit: Seconds that the router may take; None for the router's own setting.
        stats: Counts each decision once.
    """

    router: Router
    threshold: float | None = None
    on_error: OnError | None = None
    time_limit: float | None = None
    stats: RoutingStats = field(default_factory=RoutingStats)

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
    ) -> Self:
        """Put one together from what an adapter is given, and refuse now what every decision would be refused for.

        Args:
            router: A router, or what `load_router` takes: a folder, a hub id, or None for the bundled default.
            strong_rate: In place of a threshold: the share of decisions that go strong, by the router's calibration.

        Returns:
            The decider; with statistics of its own if none are given.

        Raises:
            ThresholdError: There is no threshold, or it is not a finite number.
            ConfigurationError: Another setting cannot be used, or `strong_rate` is given with a threshold, or with a
                router that is not calibrated.
            DataError: The calibration is too small for that rate.
            PersistenceError: There is no readable router of that name.
        """
        if threshold is not None and strong_rate is not None:
            msg = f"give threshold= or strong_rate=, not both; got {threshold!r} and {strong_rate!r}"
            raise ConfigurationError(msg)
        chosen = _as_router(router)
        if strong_rate is not None:
            threshold = chosen.threshold_for(strong_rate)
        stats = _stats_of(chosen, threshold) if stats is None else stats
        if not isinstance(stats, RoutingStats):
            msg = f"stats must be a RoutingStats, got {type(stats).__name__}"
            raise ConfigurationError(msg)
        made = cls(router=chosen, threshold=threshold, on_error=on_error, time_limit=time_limit, stats=stats)
        # An empty batch is checked like any other and asks the router nothing.
        made.decide_batch([])
        return made

    def decide(self, text: str, threshold: float | None = None) -> RoutingDecision:
        """Decide where a text goes; see `Router.route`.

        Args:
            text: What the router is asked.
            threshold: Overrides `threshold` for this decision.

        Returns:
            The decision, counted.
        """
        return self.router.route(text, **self._settings(threshold))

    async def adecide(self, text: str, threshold: float | None = None) -> RoutingDecision:
        """`decide` without blocking the event loop."""
        return await self.router.aroute(text, **self._settings(threshold))

    def decide_batch(self, texts: Sequence[str], threshold: float | None = None) -> list[RoutingDecision]:
        """Decide for many texts with one call of the router."""
        return self.router.route_batch(texts, **self._settings(threshold))

    async def adecide_batch(self, texts: Sequence[str], threshold: float | None = None) -> list[RoutingDecision]:
        """`decide_batch` without blocking the event loop."""
        return await self.router.aroute_batch(texts, **self._settings(threshold))

    def decide_unasked(self, route: Route, reason: Reason, threshold: float | None = None) -> RoutingDecision:
        """The decision for a call that the router need not be asked about.

        Args:
            route: Where it goes.
            reason: Why.
            threshold: As for `decide`.

        Returns:
            The decision, counted.

        Raises:
            ThresholdError: The threshold is not a finite number.
        """
        given = (threshold, self.threshold, self.router.threshold)
        used = as_threshold(next((value for value in given if value is not None), None))
        decision = RoutingDecision(route=route, score=None, threshold=used, reason=reason)
        self.stats.record(decision)
        return decision

    def _settings(self, threshold: float | None) -> dict[str, Any]:
        return {
            "threshold": self.threshold if threshold is None else threshold,
            "on_error": self.on_error,
            "time_limit": self.time_limit,
            "stats": self.stats,
        }


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
