"""How much of the strong model's advantage a router recovers, and at which share of strong calls."""

from prefroute.evaluation.metrics import apgr, cpt, recovery_curve
from prefroute.evaluation.validation import Validation, validate

__all__ = ["Validation", "apgr", "cpt", "recovery_curve", "validate"]
