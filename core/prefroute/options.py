"""What one call may bring for routing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from prefroute.inputs import as_route

if TYPE_CHECKING:
    from collections.abc import Mapping

    from prefroute.types import Route

OWN_KWARGS = ("threshold", "strong_rate", "route")
"""Keywords of a call that are for routing; the models never see them."""


class Options(NamedTuple):
    """The settings that a call brings; None for what it does not.

    Attributes:
        threshold: In place of the routed model's.
        strong_rate: In place of a threshold.
        route: The side, whatever the router would say.
    """

    threshold: float | None = None
    strong_rate: float | None = None
    route: Route | None = None


def split(kwargs: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The keywords that are for routing, and those that are for the models."""
    passed = dict(kwargs)
    own = {name: passed.pop(name) for name in OWN_KWARGS if name in passed}
    return own, passed


def options_of(*levels: Mapping[str, Any]) -> Options:
    """The settings of one call.

    Args:
        *levels: Settings by the names of the keywords; the first level that has one counts. A threshold overrides a
            rate of a later level, and the other way round: both mean the threshold.

    Raises:
        ConfigurationError: `route` names no side.
    """

    def first(*names: str) -> Mapping[str, Any]:
        # `is not None`: a threshold of 0.0 is legal and means all strong.
        return next((level for level in levels if any(level.get(name) is not None for name in names)), {})

    bar, route = first("threshold", "strong_rate"), first("route").get("route")
    return Options(bar.get("threshold"), bar.get("strong_rate"), None if route is None else as_route(route))
