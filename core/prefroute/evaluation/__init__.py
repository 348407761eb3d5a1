"""How much of the strong model's advantage a router recovers, and at which share of strong calls."""

from prefroute.evaluation.metrics import apgr, cpt, recovery_curve

__all__ = ["apgr", "cpt", "recovery_curve"]
