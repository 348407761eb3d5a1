"""Training of the routers whose training needs more than numpy; torch is imported only once it starts."""

from __future__ import annotations

from prefroute.training.config import MatrixFactorizationConfig
from prefroute.training.matrix_factorization import train_matrix_factorization

__all__ = ["MatrixFactorizationConfig", "train_matrix_factorization"]
