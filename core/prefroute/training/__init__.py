"""Training of the routers whose training needs more than numpy; torch is imported only once it starts."""

from __future__ import annotations

from prefroute.training.bert import train_bert
from prefroute.training.causal_lm import train_causal_lm
from prefroute.training.config import BertConfig, CausalLMConfig, FineTuningConfig, MatrixFactorizationConfig
from prefroute.training.matrix_factorization import train_matrix_factorization

__all__ = [
    "BertConfig",
    "CausalLMConfig",
    "FineTuningConfig",
    "MatrixFactorizationConfig",
    "train_bert",
    "train_causal_lm",
    "train_matrix_factorization",
]
