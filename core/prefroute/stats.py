"""Thread-safe statistics of routing decisions."""

from __future__ import annotations

import reprlib
from collections import Counter, OrderedDict, deque
from math import ceil, nan
from typing import TYPE_CHECKING, Any, TypedDict

from prefroute._shared import Shared
from prefroute.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prefroute.drift import DriftMonitor, DriftReport
    from prefroute.types import RoutingDecision

DEFAULT_WINDOW = 1000
_QUANTILES = (0.5, 0.9, 0.99)
_REMEMBERED = 10_000
"""How many decisions `record_once` tells apart; those of one call are seen again long before they are forgotten."""


class StatsSnapshot(TypedDict):
    """What `RoutingStats.snapshot` returns: one consistent moment, JSON-safe.

    Rates are None before the first decision. Latencies are milliseconds spent on deciding
    (not on answering), nearest-rank quantiles over the window, None where none was recorded.
    """

    total: int
    strong_rate: float | None
    window: int
    window_strong_rate: float | None
    by_route: dict[str, int]
    by_reason: dict[str, int]
    latency_ms: dict[str, float | None]


class RoutingStats(Shared):
    """Counts decisions; any number of threads and tasks may share one.

    Args:
        window: How many of the latest decisions the windowed rate and the latency quantiles cover.
        monitor: Watches whether scores still are what the router was calibrated with; see `drift`.

    Raises:
        ConfigurationError: `window` is not a positive integer.
    """

    def __init__(self, window: int = DEFAULT_WINDOW, *, monitor: DriftMonitor | None = None) -> None:
        if isinstance(window, bool) or not isinstance(window, int) or window < 1:
            msg = f"window must be a positive number of decisions, got {reprlib.repr(window)}"
            raise ConfigurationError(msg)
        self.window = window
        self._monitor = monitor
        super().__init__()
        self._clear()

    def _clear(self) -> None:
        self._by_route: Counter[str] = Counter(strong=0, weak=0)
        self._by_reason: Counter[str] = Counter()
        self._recent: deque[tuple[bool, float | None]] = deque(maxlen=self.window)
        self._seen: OrderedDict[str, None] = OrderedDict()
        if self._monitor is not None:
            self._monitor.reset()

    def record(self, decision: RoutingDecision, seconds: float | None = None) -> None:
        """Count one decision.

        Args:
            decision: The decision.
            seconds: Time it took to decide, where known.
        """
        self.record_many((decision,), seconds)

    def record_many(self, decisions: Iterable[RoutingDecision], seconds: float | None = None) -> None:
        """Count several decisions at once; `seconds` is the time that each took."""
        with self._lock:
            for decision in decisions:
                self._add(decision, seconds)

    def record_once(self, decision: RoutingDecision) -> bool:
        """Count a decision unless one with its `id` was counted here already.

        For those who see a decision from outside, in each of the runs that it leads to.

        Returns:
            Whether it was counted.
        """
        with self._lock:
            if decision.id in self._seen:
                return False
            self._seen[decision.id] = None
            if len(self._seen) > _REMEMBERED:
                self._seen.popitem(last=False)
            self._add(decision, None)
            return True

    def _add(self, decision: RoutingDecision, seconds: float | None) -> None:
        self._by_route[decision.route] += 1
        self._by_reason[decision.reason] += 1
        self._recent.append((decision.is_strong, seconds))
        if self._monitor is not None and decision.score is not None:
            self._monitor.record(decision.score)

    def reset(self) -> None:
        """Forget every decision."""
        with self._lock:
            self._clear()

    @property
    def total(self) -> int:
        """Number of decisions counted."""
        with self._lock:
            return self._by_route.total()

    @property
    def strong_rate(self) -> float:
        """Share of decisions that chose the strong model; NaN before the first."""
        with self._lock:
            return _rate(self._by_route["strong"], self._by_route.total())

    @property
    def window_strong_rate(self) -> float:
        """The same over the latest `window` decisions; NaN before the first."""
        with self._lock:
            return _rate(sum(strong for strong, _ in self._recent), len(self._recent))

    def watch(self, monitor: DriftMonitor | None) -> None:
        """Watch against another calibration from here on: when a router was calibrated anew while in use, say.

        Args:
            monitor: The new one; None to watch no more.
        """
        with self._lock:
            self._monitor = monitor

    def drift(self) -> DriftReport | None:
        """Whether scores still are what the router was calibrated with when this was made; see `watch`.

        Returns:
            The report; None where there is no calibration to compare with.
        """
        with self._lock:
            monitor = None if self._monitor is None else self._monitor.copy()
        return None if monitor is None else monitor.report()

    def snapshot(self) -> StatsSnapshot:
        """All figures at one moment."""
        with self._lock:
            by_route, by_reason = dict(self._by_route), dict(self._by_reason)
            recent = list(self._recent)
        total = sum(by_route.values())
        latencies = sorted(seconds * 1e3 for _, seconds in recent if seconds is not None)
        return {
            "total": total,
            "strong_rate": _rate(by_route["strong"], total) if total else None,
            "window": len(recent),
            "window_strong_rate": _rate(sum(s for s, _ in recent), len(recent)) if recent else None,
            "by_route": by_route,
            "by_reason": by_reason,
            "latency_ms": {f"p{round(q * 100)}": _quantile(latencies, q) for q in _QUANTILES},
        }

    def __repr__(self) -> str:
        """Totals, for a log line."""
        return f"RoutingStats(total={self.total}, strong_rate={self.strong_rate:.3f})"

    def __getstate__(self) -> dict[str, Any]:
        """State without the lock, taken at one moment."""
        with self._lock:
            return super().__getstate__() | {"_monitor": None if self._monitor is None else self._monitor.copy()}


def as_stats(value: object) -> RoutingStats:
    """Check that these are statistics.

    Raises:
        ConfigurationError: It is anything else.
    """
    if not isinstance(value, RoutingStats):
        msg = f"stats must be a RoutingStats, got {type(value).__name__}"
        raise ConfigurationError(msg)
    return value


class ReportsStats:
    """The figures of a statistics object held as `_stats`, for the callback handlers of the adapters."""

    _stats: RoutingStats

    @property
    def strong_rate(self) -> float:
        """Share of what was counted that chose the strong model; NaN before the first."""
        return self._stats.strong_rate

    @property
    def window_strong_rate(self) -> float:
        """The same over the latest `window`; NaN before the first."""
        return self._stats.window_strong_rate

    def snapshot(self) -> StatsSnapshot:
        """All figures at one moment."""
        return self._stats.snapshot()

    def reset(self) -> None:
        """Forget everything counted."""
        self._stats.reset()


def _rate(part: int, whole: int) -> float:
    return part / whole if whole else nan


def _quantile(ordered: list[float], q: float) -> float | None:
    """Nearest-rank quantile of sorted values: a value that occurred, also with few of them."""
    return ordered[max(ceil(q * len(ordered)) - 1, 0)] if ordered else None
