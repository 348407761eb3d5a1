"""What a call brings for routing under `configurable` in its config."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, get_args

from langchain_core.runnables.utils import ConfigurableFieldSpec

from prefroute.options import OWN_KWARGS
from prefroute.types import Route

if TYPE_CHECKING:
    from collections.abc import Mapping

CONFIGURABLE_PREFIX = "router_"
"""What makes a keyword's name a key under `configurable`."""


CONFIGURABLE_KEYS = tuple(CONFIGURABLE_PREFIX + name for name in OWN_KWARGS)


def configured(configurable: Mapping[str, Any] | None) -> dict[str, Any]:
    """What is configured for routing, by the names of the keywords."""
    found = {name: (configurable or {}).get(CONFIGURABLE_PREFIX + name) for name in OWN_KWARGS}
    return {name: value for name, value in found.items() if value is not None}


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
