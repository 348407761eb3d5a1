"""Asking the router, and announcing to instrumentation what it decided."""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING

from llamaindex_router.events import announce
from prefroute.conversation import Settled
from prefroute.decider import Ask

if TYPE_CHECKING:
    from collections.abc import Callable

    from prefroute import Route, RoutingDecision
    from prefroute.decider import Decider


def decide(
    decider: Decider, text: str, name_of: Callable[[Route], str], threshold: float | None = None
) -> RoutingDecision:
    """Decide where a text goes.

    Args:
        decider: The router and its settings.
        text: What the router is asked.
        name_of: Names the model or choice of a side, for the event.
        threshold: Overrides the decider's for this decision.

    Returns:
        The decision; counted and announced.

    Raises:
        ThresholdError: The threshold is not a finite number.
        RouterError: The router failed and `on_error` is `"raise"`.
    """
    started = perf_counter()
    decision = decider.decide(Ask(text=text, threshold=threshold))
    announce(decision, name_of(decision.route), perf_counter() - started)
    return decision


async def adecide(
    decider: Decider, text: str, name_of: Callable[[Route], str], threshold: float | None = None
) -> RoutingDecision:
    """`decide` without blocking the event loop."""
    started = perf_counter()
    decision = await decider.adecide(Ask(text=text, threshold=threshold))
    announce(decision, name_of(decision.route), perf_counter() - started)
    return decision


def decide_unasked(
    decider: Decider, route: Route, name_of: Callable[[Route], str], threshold: float | None = None
) -> RoutingDecision:
    """The decision for a call that only one side can take, so that the router is not asked.

    Args:
        decider: The settings; its statistics count the decision.
        route: That side.
        name_of: As for `decide`.
        threshold: As for `decide`.

    Returns:
        The decision; counted and announced.

    Raises:
        ThresholdError: The threshold is not a finite number.
    """
    decision = decider.decide(Ask(threshold=threshold, settled=Settled(route, "capability")))
    announce(decision, name_of(route), 0.0)
    return decision
