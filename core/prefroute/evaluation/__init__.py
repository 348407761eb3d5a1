"""How much of the strong model's advantage a router recovers, and at which share of strong calls."""

from prefroute.evaluation.metrics import apgr, cpt, draw_counts, recovery_curve, resampled_apgr
from prefroute.evaluation.validation import Validation, validate

__all__ = ["Validation", "apgr", "cpt", "draw_counts", "recovery_curve", "resampled_apgr", "validate"]
