"""A router for one's own traffic: candidates, cross-fitting, the choice, and what is known of the result."""

from prefroute.fitting.candidates import LIGHT, ON_REQUEST
from prefroute.fitting.cross_fitting import LearningPoint
from prefroute.fitting.fit import FittedRouter, Settling, Tried, fit_router
from prefroute.fitting.settling import prompts_to_settle

__all__ = [
    "LIGHT",
    "ON_REQUEST",
    "FittedRouter",
    "LearningPoint",
    "Settling",
    "Tried",
    "fit_router",
    "prompts_to_settle",
]
