"""The published routers of `routellm`, run by its own code in its own environment. Started by `vs_routellm.py`.

Reads one JSON request a line from standard input and answers with one JSON line. What is replaced, and nothing else:
the OpenAI client, by one that answers at once with the vector under way, so that no embedding time is counted; and the
two constructors, which download battles and weights. The attributes that they set are computed here by the same
functions of `routellm` from the data set that both sides share.
"""

from __future__ import annotations

import json
import time
import warnings
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
from _peer import answer_requests, module_of, versions

if TYPE_CHECKING:
    from pathlib import Path

NUM_TIERS = 10
PACKAGES = ("routellm", "torch", "scikit-learn", "numpy", "pandas", "openai")


class InstantClient:
    """Answers `embeddings.create` at once, as the OpenAI client does after its request: a list of Python floats."""

    def __init__(self) -> None:
        self.vector: list[float] = []
        self.embeddings = self

    def create(self, **_: Any) -> Any:
        """The vector set before, whatever is asked."""
        return SimpleNamespace(data=[SimpleNamespace(embedding=self.vector)])


class Peer:
    """The two published routers over the shared data, and the client that feeds both."""

    def __init__(self, folder: Path) -> None:
        self.data = np.load(folder / "battles.npz", allow_pickle=False)
        self.embeddings = np.load(folder / "embeddings.npy", allow_pickle=False)
        self.queries = np.load(folder / "queries.npy", allow_pickle=False)
        self.client = InstantClient()
        self.routers = module_of("routellm.routers.routers")
        self.routers.OPENAI_CLIENT = self.client
        self.factorization = module_of("routellm.routers.matrix_factorization.model")
        self.factorization.OPENAI_CLIENT = self.client
        self.similarity_router = self._similarity()
        self.factorization_router = self._factorization(folder)

    def _similarity(self) -> Any:
        """`SWRankingRouter` with the attributes that its constructor computes, by its own functions."""
        import pandas as pd

        names = self.data["models"]
        frame = pd.DataFrame(
            {
                "model_a": names[self.data["model_a"]],
                "model_b": names[self.data["model_b"]],
                "prompt": [json.dumps([f"This is synthetic prompt number {n}."]) for n in range(len(self.embeddings))],
                "winner_model_a": (self.data["outcomes"] == 1.0).astype(int),
                "winner_model_b": (self.data["outcomes"] == 0.0).astype(int),
            }
        )
        module = self.routers
        router = module.SWRankingRouter.__new__(module.SWRankingRouter)
        router.strong_model, router.weak_model = str(self.data["strong"]), str(self.data["weak"])
        router.arena_df = module.preprocess_battles(frame).copy()
        # The published constructor turns a list of Python floats into this array: float64.
        router.arena_conv_embedding = self.embeddings.astype(np.float64)
        router.embedding_model = "text-embedding-3-small"
        ratings = module.compute_elo_mle_with_tie(router.arena_df)
        router.model2tier = module.compute_tiers(ratings, num_tiers=NUM_TIERS)
        for side in ("model_a", "model_b"):
            router.arena_df[side] = router.arena_df[side].apply(lambda name: router.model2tier[name])
        return router

    def _factorization(self, folder: Path) -> Any:
        """`MatrixFactorizationRouter` around `MFModel` with the shared random weights of the published shape."""
        import torch

        weights = np.load(folder / "factorization.npz", allow_pickle=False)
        count, dim = weights["P.weight"].shape
        model = self.factorization.MFModel(
            dim=dim, num_models=count, text_dim=weights["text_proj.0.weight"].shape[1], num_classes=1, use_proj=True
        )
        model.load_state_dict({name: torch.from_numpy(weights[name]) for name in weights.files})
        router = self.routers.MatrixFactorizationRouter.__new__(self.routers.MatrixFactorizationRouter)
        router.model = model.eval()
        ids = self.factorization.MODEL_IDS
        router.strong_model_id, router.weak_model_id = ids["gpt-4-1106-preview"], ids["mixtral-8x7b-instruct-v0.1"]
        return router

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Time `calculate_strong_win_rate` of one router on the queries named."""
        if request["do"] == "about":
            tiers = self.similarity_router.model2tier
            return {
                "versions": versions(*PACKAGES),
                "tiers": {name: int(tier) for name, tier in tiers.items()},
            }
        if request["do"] == "dtype":
            found = self.similarity_router.arena_conv_embedding
            self.similarity_router.arena_conv_embedding = found.astype(request["dtype"])
            return {}
        router = self.similarity_router if request["do"] == "similarity" else self.factorization_router
        seconds, values = [], []
        for index in request["queries"]:
            self.client.vector = [float(value) for value in self.queries[index]]
            start = time.perf_counter()
            value = router.calculate_strong_win_rate("a prompt that the client ignores")
            seconds.append(time.perf_counter() - start)
            values.append(float(value))
        return {"seconds": seconds, "values": values}


def main() -> None:
    """Answer requests until standard input ends."""
    warnings.simplefilter("ignore")  # scikit-learn deprecates an argument on every fit
    answer_requests(Peer)


if __name__ == "__main__":
    main()
