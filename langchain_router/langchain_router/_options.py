"""What one call may bring for routing: as keywords, or under `configurable` in its config."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, get_args

from langchain_core.runnables.utils import ConfigurableFieldSpec

from prefroute.inputs import as_route
from prefroute.types import Route

if TYPE_CHECKING:
    from collections.abc import Mapping

OWN_KWARGS = ("threshold", "strong_rate", "route")
"""Keywords of a call that are for routing; the models never see them."""

CONFIGURABLE_PREFIX = "router_"
"""What makes a keyword's name a key under `configurable`."""


CONFIGURABLE_KEYS = tuple(CONFIGURABLE_PREFIX + name for name in OWN_KWARGS)


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


def configured(configurable: Mapping[str, Any] | None) -> dict[str, Any]:
    """What is configured for routing, by the names of the keywords."""
    found = {name: (configurable or {}).get(CONFIGURABLE_PREFIX + name) for name in OWN_KWARGS}
    return {name: value for name, value in found.items() if value is not None}


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


def without_own(configurable: Mapping[str, Any]) -> dict[str, Any] | None:
    """The `configurable` without routing's keys, None where there are none.

    `init_chat_model(..., configurable_fields="any")` would take every key for a parameter of its model.
    """
    if not any(key in configurable for key in CONFIGURABLE_KEYS):
        return None
    return {key: value for key, value in configurable.items() if key not in CONFIGURABLE_KEYS}


def specs() -> list[ConfigurableFieldSpec]:
    """The keys under `configurable`, for schemas.

    Without defaults: what holds where a call brings none may change, and two routed models in one chain that had
    different ones could not be described at all.
    """
    return [
        ConfigurableFieldSpec(
            id=CONFIGURABLE_PREFIX + "threshold",
            annotation=float,
            name="Router threshold",
            description="Prompts whose score is at or above it go to the strong model.",
            default=None,
        ),
        ConfigurableFieldSpec(
            id=CONFIGURABLE_PREFIX + "strong_rate",
            annotation=float,
            name="Router strong rate",
            description="In place of a threshold: the share of calls for the strong model, by the calibration.",
            default=None,
        ),
        ConfigurableFieldSpec(
            id=CONFIGURABLE_PREFIX + "route",
            annotation=str,
            name="Router route",
            description=f"The side, whatever the router would say: {' or '.join(get_args(Route))}.",
            default=None,
        ),
    ]
