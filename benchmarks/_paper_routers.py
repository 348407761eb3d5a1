"""The router kinds of `paper_tables.py`, and their scores, kept in a file as soon as they are there."""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
import time
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
from _paper_data import CONDITIONS, HALVES, PAIR, SEED, Study, Training
from transformer_quality import BERTS, CAUSAL, LLAMA, minilm

from prefroute.routers.baselines import PromptLengthRouter, RandomRouter
from prefroute.routers.knn import KNNRouter
from prefroute.routers.logistic_regression import LogisticRegressionRouter
from prefroute.routers.similarity_weighted import SimilarityWeightedRouter
from prefroute.testing import write_tiny_llama
from prefroute.training import (
    BertConfig,
    CausalLMConfig,
    MatrixFactorizationConfig,
    train_bert,
    train_causal_lm,
    train_matrix_factorization,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from prefroute.data import Battles
    from prefroute.router import Router

MOST_PROMPTS, MOST_SCORED = 1000, 2000
"""Prompts that a transformer learns from, at most, and scores of one target in each half; drawn by seed."""

BERT: dict[str, Any] = {**BERTS["BERT, MiniLM, 4 epochs at 5e-5"], "epochs": 2, "max_length": 128, "evaluations": 4}
TINY_LLAMA: dict[str, Any] = {**CAUSAL, "epochs": 5, "max_length": 128, "evaluations": 5}
"""Fewer passes and shorter prompts than in `transformer_quality.py`, so that one training takes some minutes."""


@dataclass(frozen=True)
class Kind:
    """One row of the tables.

    Attributes:
        fit: Trains it.
        embedder: What it reads prompts with.
        settings: What it is trained with beside its defaults.
        paper: Its name in the paper's tables, if it is there.
        learns: Whether it learns anything.
        most: Prompts of one target that it scores in each half, at most.
    """

    fit: Callable[[Training], Router]
    embedder: str
    settings: str = ""
    paper: str | None = None
    learns: bool = True
    most: int | None = None


def similarity_published(training: Training) -> Router:
    """Similarity weighting as published, with the bundled embedder in place of OpenAI's."""
    return SimilarityWeightedRouter.fit(training.native, embedder="static", pair=PAIR, base=10.0, centred=False)


def factorization_published(training: Training) -> Router:
    """Matrix factorization by the published training code, with the bundled embedder in place of OpenAI's."""
    config = MatrixFactorizationConfig.published(seed=SEED)
    return train_matrix_factorization(training.native, embedder="static", pair=PAIR, config=config)


def bert(training: Training) -> Router:
    """MiniLM, all weights trained."""
    return train_bert(capped(training.pooled), pair=PAIR, config=BertConfig(model=minilm(), seed=SEED, **BERT))


def causal_lm(training: Training) -> Router:
    """A small Llama begun from nothing."""
    battles = capped(training.pooled)
    with tempfile.TemporaryDirectory() as folder:
        model = write_tiny_llama(folder, texts=battles.prompts, seed=SEED, **LLAMA)
        config = CausalLMConfig(model=str(model), seed=SEED, **TINY_LLAMA)
        return train_causal_lm(battles, pair=PAIR, config=config)


def capped(battles: Battles) -> Battles:
    """The battles over `MOST_PROMPTS` prompts."""
    chosen = np.random.default_rng(SEED).permutation(len(battles.prompts))[:MOST_PROMPTS]
    return battles[np.isin(battles.prompt_index, chosen)]


KINDS: dict[str, Kind] = {
    "random": Kind(lambda _: RandomRouter(seed=SEED), "-", paper="random", learns=False),
    "prompt-length": Kind(lambda data: PromptLengthRouter.fit(data.pooled, pair=PAIR), "-"),
    "knn": Kind(lambda data: KNNRouter.fit(data.pooled, pair=PAIR), "static+surface"),
    "logistic-regression": Kind(lambda data: LogisticRegressionRouter.fit(data.pooled, pair=PAIR), "static+length"),
    "similarity-weighted-published": Kind(similarity_published, "static", "base 10", "similarity-weighted"),
    "similarity-weighted": Kind(
        lambda data: SimilarityWeightedRouter.fit(data.native, pair=PAIR), "static+surface", "", "similarity-weighted"
    ),
    "matrix-factorization-published": Kind(factorization_published, "static", "published", "matrix-factorization"),
    "matrix-factorization": Kind(
        lambda data: train_matrix_factorization(data.native, pair=PAIR), "static+length", "", "matrix-factorization"
    ),
    "bert": Kind(
        bert, "all-MiniLM-L6-v2, fine-tuned", f"{BERT} {MOST_PROMPTS} {MOST_SCORED}", "bert", most=MOST_SCORED
    ),
    "causal-lm": Kind(
        causal_lm,
        "Llama of 1 M, from nothing",
        f"{TINY_LLAMA} {LLAMA} {MOST_PROMPTS} {MOST_SCORED}",
        "causal-lm",
        most=MOST_SCORED,
    ),
}
"""From the lightest to the heaviest."""


class Results:
    """Scores by kind, condition and half, in a file of JSON lines.

    A line is used if it was made from the same data with the same settings; others are passed over.

    Args:
        file: The file; made if missing.
        study: The data.
    """

    def __init__(self, file: Path, study: Study) -> None:
        self.file, self.study = file, study
        self._training = {
            (condition, half): study.training(condition, half) for condition in CONDITIONS for half in HALVES
        }
        self._ids = {key: fingerprint(training, study.scored(key[1])) for key, training in self._training.items()}
        lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
        self.rows = {(row["kind"], row["condition"], row["half"], row["id"]): row for row in map(json.loads, lines)}

    def row(self, kind: str, condition: str, half: int) -> dict[str, Any] | None:
        """What is kept of one router."""
        return self.rows.get((kind, condition, half, self._id(kind, condition, half)))

    def complete(self, kinds: Sequence[str]) -> None:
        """Train and score what is not kept yet; says so on stderr."""
        todo = [
            (kind, condition, half)
            for kind in kinds
            for condition in (CONDITIONS if KINDS[kind].learns else CONDITIONS[:1])
            for half in HALVES
            if self.row(kind, condition, half) is None
        ]
        for number, key in enumerate(todo, 1):
            print(f"[{number}/{len(todo)}] {key[0]}, {key[1]}, half {key[2] + 1}", end=" ", file=sys.stderr, flush=True)
            row = {**self._measured(*key), "id": self._id(*key)}
            with self.file.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(row) + "\n")
            self.rows[*key, row["id"]] = row
            print(f"trained {row['train_s']:.1f} s, scored {row['score_s']:.1f} s", file=sys.stderr, flush=True)

    def scores(self, kind: str, condition: str, target: str) -> NDArray[np.float64] | None:
        """Scores of a target's rows, both halves as ranks, NaN where not scored; None where a half is not kept."""
        own = self.study.halves[target]
        found = np.empty(len(own))
        for half in HALVES:
            row = self.row(kind, condition, half)
            if row is None:
                return None
            found[own != half] = mid_ranks(np.array(row["scores"][target], dtype=np.float64))
        return found

    def _id(self, kind: str, condition: str, half: int) -> str:
        return (
            f"{self._ids[condition, half]}-{hashlib.blake2b(KINDS[kind].settings.encode(), digest_size=4).hexdigest()}"
        )

    def _measured(self, kind: str, condition: str, half: int) -> dict[str, Any]:
        training = self._training[condition, half]
        start = time.perf_counter()
        router = KINDS[kind].fit(training)
        trained = time.perf_counter()
        most = KINDS[kind].most
        scores = {name: sampled_scores(router, texts, most) for name, texts in self.study.scored(half).items()}
        report = getattr(router, "training", None)
        return {
            "kind": kind,
            "condition": condition,
            "half": half,
            "train_s": trained - start,
            "score_s": time.perf_counter() - trained,
            "training": None if report is None else str(report),
            "validation": str(router.validation),
            "scores": scores,
        }


def sampled_scores(router: Router, prompts: list[str], most: int | None) -> list[float | None]:
    """Scores of so many of the prompts, drawn by seed; None for the others."""
    places = np.sort(np.random.default_rng(SEED).permutation(len(prompts))[:most])
    found: list[float | None] = [None] * len(prompts)
    for place, score in zip(places, router.win_probability([prompts[place] for place in places]), strict=True):
        found[place] = float(score)
    return found


def mid_ranks(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """For each score the percentage of all that are lower, equal ones counting half; NaN stays what it is.

    In percent, so that they are not taken for chances, of which a calibration error could be told.
    """
    given = ~np.isnan(scores)
    _, place, counts = np.unique(scores[given], return_inverse=True, return_counts=True)
    found = np.full(len(scores), np.nan)
    found[given] = (100.0 * (np.cumsum(counts) - counts / 2) / len(place))[place]
    return found


def fingerprint(training: Training, scored: dict[str, list[str]]) -> str:
    """Tells data apart: what is learnt from and what is scored."""
    digest = hashlib.blake2b(json.dumps(scored).encode(), digest_size=8)
    for table in training:
        for field in fields(table):
            column = getattr(table, field.name)
            digest.update(column.tobytes() if isinstance(column, np.ndarray) else json.dumps(column).encode())
    return digest.hexdigest()
