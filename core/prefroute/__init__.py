"""Learned routing between a strong and a weak chat model."""

from prefroute._version import __version__
from prefroute.errors import (
    ConfigurationError,
    ConvergenceError,
    DataError,
    EmbeddingError,
    MissingExtraError,
    PersistenceError,
    PrefrouteError,
    PromptTypeError,
    RouterError,
    RouterNotFoundError,
    RouterTimeoutError,
    ScoreError,
    ThresholdError,
)
from prefroute.persistence import load_router
from prefroute.router import Router
from prefroute.stats import RoutingStats, StatsSnapshot
from prefroute.types import Battle, ModelPair, OnError, Reason, Route, RoutingDecision

__all__ = [
    "Battle",
    "ConfigurationError",
    "ConvergenceError",
    "DataError",
    "EmbeddingError",
    "MissingExtraError",
    "ModelPair",
    "OnError",
    "PersistenceError",
    "PrefrouteError",
    "PromptTypeError",
    "Reason",
    "Route",
    "Router",
    "RouterError",
    "RouterNotFoundError",
    "RouterTimeoutError",
    "RoutingDecision",
    "RoutingStats",
    "ScoreError",
    "StatsSnapshot",
    "ThresholdError",
    "__version__",
    "load_router",
]
