"""What routed calls used and cost, a side and a model; and the strong-call rate by groups of calls.

A decision is made once; the calls that follow from it may be none, one, or several (a retry, the other side's answer
after a failure, one that answers whatever is decided). So calls are counted here, decisions in `prefroute.stats`.
"""

from __future__ import annotations

import reprlib
from collections import defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple, TypedDict

from prefroute._shared import Shared
from prefroute.costs import Price
from prefroute.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from prefroute.types import Route

GROUPS = 1000
"""Groups that are told apart; what comes under further names is counted under `REST`."""

REST = "(others)"


class Tokens(NamedTuple):
    """Tokens of one call.

    Attributes:
        input: Of the prompt, the cached ones included.
        output: Of the answer.
        cached: Those of the prompt that the provider had in its cache.
    """

    input: int
    output: int
    cached: int = 0


class SideUsage(TypedDict):
    """Figures of one side.

    `calls` counts all that ended, `failed` those of them that failed or were given up. `cost` is in US dollars, of the
    calls whose cost is known; None where none is. `unpriced` counts the calls that were answered whose cost is not
    known: their model has no price, or reported no tokens.
    """

    calls: int
    failed: int
    input_tokens: int
    output_tokens: int
    cost: float | None
    unpriced: int


class UsageSnapshot(TypedDict):
    """What `CallStats.snapshot` returns: one consistent moment, JSON-safe.

    `by_model` has the figures once more by the name of the model, for the calls in which one was named.
    """

    strong: SideUsage
    weak: SideUsage
    by_model: dict[str, SideUsage]


class GroupRate(TypedDict):
    """Decisions of one group, and the share of them that chose the strong model."""

    total: int
    strong_rate: float


class CallStats(Shared):
    """Counts calls, tokens and costs, a side and a model; any number of threads and tasks may share one.

    Args:
        prices: Of models by name; None if they are of no interest.

    Raises:
        ConfigurationError: Something is no price.
    """

    def __init__(self, prices: Mapping[str, Price | None] | None = None) -> None:
        super().__init__()
        self._prices = _as_prices(prices)
        self.reset()

    def record(
        self, side: Route, models: Sequence[str] = (), tokens: Tokens | None = None, *, cost: float | None = None
    ) -> None:
        """Count a call that was answered.

        Args:
            side: The side that answered.
            models: Names that its model goes by, the first of which it is counted under; the first that has a price
                counts for the cost.
            tokens: What it used, where known.
            cost: US dollars, where known otherwise than by tokens and prices.
        """
        if tokens is not None and min(tokens) < 0:
            tokens = None  # A provider that cannot count has told nothing.
        if cost is None and tokens is not None:
            cost = self._cost(models, tokens)
        with self._lock:
            for counts in self._counted(side, models):
                counts["calls"] += 1
                if tokens is not None:
                    counts["input_tokens"] += tokens.input
                    counts["output_tokens"] += tokens.output
                if cost is None:
                    counts["unpriced"] += 1
                else:
                    counts["cost"] = (counts["cost"] or 0.0) + cost

    def record_failed(self, side: Route, models: Sequence[str] = ()) -> None:
        """Count a call that failed, under the first of the names that its model goes by."""
        with self._lock:
            for counts in self._counted(side, models):
                counts["calls"] += 1
                counts["failed"] += 1

    def _counted(self, side: Route, models: Sequence[str]) -> Iterator[SideUsage]:
        yield self._sides[side]
        if models:
            known = models[0] in self._models or len(self._models) < GROUPS
            yield self._models[models[0] if known else REST]

    def snapshot(self) -> UsageSnapshot:
        """All figures at one moment."""
        with self._lock:
            strong, weak = (self._sides[side].copy() for side in ("strong", "weak"))
            models = {name: counts.copy() for name, counts in self._models.items()}
        return {"strong": strong, "weak": weak, "by_model": models}

    def reset(self) -> None:
        """Forget every call."""
        with self._lock:
            self._sides: dict[str, SideUsage] = {side: _nothing() for side in ("strong", "weak")}
            self._models: defaultdict[str, SideUsage] = defaultdict(_nothing)

    def _cost(self, models: Sequence[str], tokens: Tokens) -> float | None:
        price = next((price for name in models if (price := self._prices.get(name)) is not None), None)
        if price is None:
            return None
        # A provider may count cached tokens beside the others; more than all of them cannot be cheap ones.
        return price.of(tokens.input, tokens.output, min(tokens.cached, tokens.input))


def _as_prices(prices: object) -> dict[str, Price | None]:
    if prices is None:
        return {}
    if not isinstance(prices, Mapping):
        msg = f"prices must be a mapping of names to Price(input=, output=) or None, got {type(prices).__name__}"
        raise ConfigurationError(msg)
    for name, price in prices.items():
        if not isinstance(price, Price | None):
            wanted = "prefroute.costs.Price(input=, output=) or None"
            msg = f"the price of {name!r} must be {wanted}, got {reprlib.repr(price)}"
            raise ConfigurationError(msg)
    return dict(prices)


class GroupedRates(Shared):
    """The strong-call rate by group: a tag, a name."""

    def __init__(self) -> None:
        super().__init__()
        self.reset()

    def record(self, groups: Iterable[str], *, strong: bool) -> None:
        """Count a decision in each of its groups."""
        with self._lock:
            for group in groups:
                known = group in self._counts or len(self._counts) < GROUPS
                counts = self._counts[group if known else REST]
                counts[0] += 1
                counts[1] += strong

    def snapshot(self) -> dict[str, GroupRate]:
        """Rates by group, those with the most decisions first."""
        with self._lock:
            counts = {group: tuple(both) for group, both in self._counts.items()}
        ordered = sorted(counts.items(), key=lambda item: -item[1][0])
        return {group: {"total": total, "strong_rate": strong / total} for group, (total, strong) in ordered}

    def reset(self) -> None:
        """Forget every group."""
        with self._lock:
            self._counts: dict[str, list[int]] = defaultdict(_zeros)


def _nothing() -> SideUsage:
    return {"calls": 0, "failed": 0, "input_tokens": 0, "output_tokens": 0, "cost": None, "unpriced": 0}


def _zeros() -> list[int]:
    return [0, 0]
