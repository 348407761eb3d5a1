"""Speed beside `routellm` from PyPI: same data, same machine, one run, the two sides in turn.

Run: `python benchmarks/vs_routellm.py --peer-python PATH`, where PATH is the interpreter of an environment with
`routellm==0.2.0` (`_routellm_peer.py` says what of it is replaced). Prints tables in Markdown; nothing is judged.
Embeddings are given on both sides: no embedding time is counted. Medians over the repetitions of all rounds.
"""

from __future__ import annotations

import argparse
import math
import os
import platform
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import similarity_growth
from _peer import PeerProcess, Timings, versions
from _synthetic import Columns, StoredEmbedder, make_columns, make_queries, write_embeddings

from prefroute.compat.routellm import load_matrix_factorization
from prefroute.routers.similarity_weighted import SimilarityWeightedRouter
from prefroute.training import MatrixFactorizationConfig, train_matrix_factorization

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from prefroute.data import Battles
    from prefroute.routers._index import IndexDtype
    from prefroute.routers.matrix_factorization import MatrixFactorizationRouter

BATTLES, DIMENSIONS, MODELS, TIERS, HIDDEN = 55_000, 1536, 64, 10, 128
BATCH, QUERIES, CHECKED = 64, 256, 20
TRAINING_BATTLES, EPOCHS = 40_000, 10
REPEATS = {"one": 10, "batch": 2, "pass": 10, "peer": 3, "mf one": 50, "mf batch": 20, "mf peer": 50}
"""Repetitions of each measurement in a round."""


def write_shared(folder: Path) -> Columns:
    """Write what both sides read; npy and npz without pickle."""
    columns, topics = make_columns(BATTLES, num_models=MODELS)
    write_embeddings(folder / "embeddings.npy", topics, DIMENSIONS)
    np.save(folder / "queries.npy", make_queries(folder / "embeddings.npy", QUERIES))
    np.savez(
        folder / "battles.npz",
        models=columns.models,
        model_a=columns.model_a,
        model_b=columns.model_b,
        outcomes=columns.outcomes,
        strong=np.array(columns.strong),
        weak=np.array(columns.weak),
    )
    generator = np.random.default_rng(3)
    shapes = {
        "P.weight": (MODELS, HIDDEN),
        "text_proj.0.weight": (HIDDEN, DIMENSIONS),
        "classifier.0.weight": (1, HIDDEN),
    }
    weights = {name: generator.standard_normal(shape, dtype=np.float32) for name, shape in shapes.items()}
    np.savez(folder / "factorization.npz", allow_pickle=False, **weights)
    return columns


def factorization_router(folder: Path, embedder: StoredEmbedder) -> MatrixFactorizationRouter:
    """Our router from the weights that the peer has too, read as a published checkpoint."""
    from safetensors.numpy import save_file

    stored = np.load(folder / "factorization.npz", allow_pickle=False)
    save_file({name: stored[name] for name in stored.files}, folder / "model.safetensors")
    return load_matrix_factorization(folder / "model.safetensors", embedder=embedder)


def exact_probability(
    battles: Battles, tier: NDArray[np.int64], weights: NDArray[np.float64], strong: int, weak: int
) -> float:
    """Full weighted logistic regression of scikit-learn on two rows a battle, same-tier battles left out."""
    from sklearn.linear_model import LogisticRegression

    first, second = tier[battles.model_a], tier[battles.model_b]
    kept = np.flatnonzero(first != second)
    rows = np.arange(len(kept))
    design = np.zeros((len(kept), tier.max() + 1))
    design[rows, first[kept]], design[rows, second[kept]] = 1.0, -1.0
    outcome, weight = battles.outcomes[kept], weights[kept]
    # A battle is a win of weight `outcome` and a loss of weight `1 - outcome`.
    fitted = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-10, max_iter=10_000).fit(
        np.vstack([design, design]),
        np.repeat([1, 0], len(kept)),
        sample_weight=np.concatenate([weight * outcome, weight * (1.0 - outcome)]),
    )
    strengths: list[float] = fitted.coef_[0].tolist()
    return 1.0 / (1.0 + math.exp(strengths[weak] - strengths[strong]))


def largest_difference(
    router: SimilarityWeightedRouter, columns: Columns, embeddings: NDArray[np.float32], queries: NDArray[np.float32]
) -> float:
    """Largest difference of P(strong wins) from the full logistic regression, over these queries."""
    battles = columns.battles()
    tiers = router.tiers
    tier = np.array([tiers[name] - 1 for name in battles.models])
    strong, weak = tiers[columns.strong] - 1, tiers[columns.weak] - 1
    found = router.win_probability_of_embeddings(queries)
    differences: list[float] = []
    for query, probability in zip(queries.astype(np.float64), found, strict=True):
        cosines = embeddings @ query  # (n,), float64: both are of length 1
        weights = 10.0 ** (1.0 + cosines / cosines.max())
        differences.append(abs(float(probability) - exact_probability(battles, tier, weights, strong, weak)))
    return max(differences)


class Comparison:
    """Both sides, ready to be timed in turn."""

    def __init__(self, folder: Path, columns: Columns, peer: PeerProcess) -> None:
        self.peer = peer
        self.queries = np.load(folder / "queries.npy", allow_pickle=False)
        self.rows = np.load(folder / "embeddings.npy", allow_pickle=False)
        battles, embedder = columns.battles(), StoredEmbedder(folder / "embeddings.npy")
        kinds: list[IndexDtype] = ["float32", "int8"]
        kinds += ["bfloat16"] if find_spec("torch") else []
        self.routers = {
            kind: SimilarityWeightedRouter.fit(
                battles, embedder=embedder, pair=columns.pair, base=10.0, centred=False, index_dtype=kind
            )
            for kind in kinds
        }
        self.factorization = factorization_router(folder, embedder)
        self.timings = Timings()

    def round(self, number: int) -> None:
        """Every measurement a few times, ours and the peer's in turn."""
        time_ = self.timings.time
        picked = np.random.default_rng(number).permutation(len(self.queries))
        batch = self.queries[picked[:BATCH]]

        def singles(name: str) -> NDArray[np.float32]:
            chosen: NDArray[np.float32] = self.queries[picked[: REPEATS[name]]]
            return chosen[:, None]  # (repeats, 1, d)

        for dtype in ("float64", "float32"):
            self.peer.ask("dtype", dtype=dtype)
            self.ask_peer(f"peer {dtype}", "similarity", picked[: REPEATS["peer"]])
        for kind, router in self.routers.items():
            time_(f"one {kind}", router.win_probability_of_embeddings, singles("one"))
            time_(f"batch {kind}", router.win_probability_of_embeddings, [batch] * REPEATS["batch"])
        time_("pass", self.rows.__matmul__, self.queries[picked[: REPEATS["pass"]]])
        self.ask_peer("mf peer", "factorization", picked[: REPEATS["mf peer"]])
        time_("mf one", self.factorization.win_probability_of_embeddings, singles("mf one"))
        time_("mf batch", self.factorization.win_probability_of_embeddings, [batch] * REPEATS["mf batch"])

    def ask_peer(self, name: str, do: str, picked: NDArray[np.int64]) -> None:
        """Have the peer time itself."""
        answer = self.peer.ask(do, queries=picked.tolist())
        self.timings.add(name, answer["seconds"])

    def factorization_difference(self) -> float:
        """Largest difference of P between the two matrix factorizations, over all queries."""
        answer = self.peer.ask("factorization", queries=list(range(QUERIES)))
        ours = self.factorization.win_probability_of_embeddings(self.queries)
        return float(np.abs(ours - answer["values"]).max())


def similarity_table(compared: Comparison) -> list[str]:
    """Times of the similarity-weighted router and what they are in the peer's."""
    timings = compared.timings
    lines = [
        "| similarity-weighted | time | a query | published dtype, times faster | float32, times faster | target |",
        "|---|---|---|---|---|---|",
    ]
    peers = timings["peer float64"], timings["peer float32"]
    targets = {"one float32": "40", "batch float32": "500", "batch bfloat16": "800"}

    def add(label: str, name: str, size: int) -> None:
        each = timings[name] / size
        ratios = " | ".join(f"{peer / each:,.0f}" for peer in peers)
        lines.append(f"| {label} | {timings.shown(name)} | {each:.3g} ms | {ratios} | {targets.get(name, '-')} |")

    add("routellm, one query, float64 as published", "peer float64", 1)
    add("routellm, one query, float32", "peer float32", 1)
    for kind in compared.routers:
        add(f"one query, {kind} index", f"one {kind}", 1)
        add(f"batch of {BATCH}, {kind} index", f"batch {kind}", BATCH)
    add("one pass over the float32 index", "pass", 1)
    ratio = timings["one float32"] / timings["pass"]
    return [*lines, "", f"One query in float32 takes {ratio:.2f} times the pass (target: at most 1.5)."]


def factorization_table(compared: Comparison) -> list[str]:
    """The same for the matrix factorization."""
    timings = compared.timings
    lines = [
        "| matrix factorization, embedding given | time | a prompt | times faster | target |",
        "|---|---|---|---|---|",
    ]
    for label, name, size, target in (
        ("routellm", "mf peer", 1, "-"),
        ("one prompt", "mf one", 1, "20"),
        (f"batch of {BATCH}", "mf batch", BATCH, "-"),
    ):
        each = timings[name] / size
        ratio = timings["mf peer"] / each
        lines.append(f"| {label} | {timings.shown(name)} | {each * 1e3:.3g} us | {ratio:,.0f} | {target} |")
    return lines


def training_lines(folder: Path, columns: Columns) -> list[str]:
    """Seconds that training takes, with one factorization and with the five of the default."""
    if not find_spec("torch"):
        return ["Training was not measured: torch is not installed."]
    battles, embedder = columns.battles()[:TRAINING_BATTLES], StoredEmbedder(folder / "embeddings.npy")
    lines = []
    for folds in (1, 5):
        config = MatrixFactorizationConfig(max_epochs=EPOCHS, patience=None, folds=folds)
        start = time.perf_counter()
        train_matrix_factorization(battles, embedder=embedder, pair=columns.pair, config=config)
        seconds = time.perf_counter() - start
        lines.append(
            f"Training the matrix factorization, {len(battles):,} battles x {DIMENSIONS} dimensions, {MODELS} models, "
            f"{EPOCHS} epochs, folds={folds}: {seconds:.1f} s" + (" (target: under 60 s)." if folds == 1 else ".")
        )
    return lines


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", type=Path, required=True, help="interpreter of an environment with routellm")
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        columns = write_shared(folder)
        peer = PeerProcess(arguments.peer_python, "_routellm_peer.py", folder)
        try:
            compared = Comparison(folder, columns, peer)
            about = peer.ask("about")
            compared.round(0)  # Only warms up.
            compared.timings = Timings()
            for number in range(1, arguments.rounds + 1):
                compared.round(number)
            parity = compared.factorization_difference()
        finally:
            peer.close()
        ours = versions("prefroute", "numpy", "torch")
        print(f"Python {platform.python_version()}, {os.cpu_count()} cores; ours: {ours}; theirs: {about['versions']}")
        print(f"{BATTLES:,} battles x {DIMENSIONS} dimensions, {MODELS} models in {TIERS} tiers; median (range).\n")
        print("\n".join([*similarity_table(compared), "", *factorization_table(compared), ""]))
        print(f"Largest difference of P between the two matrix factorizations: {parity:.1e}.")
        checked = compared.queries[:CHECKED]
        for kind, router in compared.routers.items():
            difference = largest_difference(router, columns, compared.rows, checked)
            print(
                f"Largest difference of P from the full logistic regression over {CHECKED} queries, {kind}: "
                f"{difference:.1e} (target: 1e-3)."
            )
        print("\n".join(training_lines(folder, columns)))
    print(f"\nMemory, in processes of their own:\n\n{similarity_growth.HEADER}")
    for kind in compared.routers:
        print(similarity_growth.table_row(BATTLES, DIMENSIONS, kind), flush=True)


if __name__ == "__main__":
    main()
