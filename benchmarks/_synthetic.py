"""Synthetic battles with embeddings, for measuring speed: the shape of the published data, none of its content."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from prefroute.data import Battles
from prefroute.types import ModelPair

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

TOPICS = 50
TIE_SHARE = 0.25
SPREAD = 1.3
"""The ablest model beats the least able at odds of e^2.6, 450 Elo points: about what Arena's 64 models span."""

TOPIC_SPREAD = 0.3
CHUNK = 20_000
NAME_WIDTH = 8


@dataclass(frozen=True)
class Columns:
    """Who met whom, and how it ended; battle i is about prompt i.

    Attributes:
        models: Names, sorted, shape (m,).
        model_a: Positions in `models`, shape (n,).
        model_b: The other side, shape (n,).
        outcomes: 1, 0 or 0.5, shape (n,).
        strong: Name of the ablest model.
        weak: Name of a model a third of the way down.
    """

    models: NDArray[np.str_]
    model_a: NDArray[np.int32]
    model_b: NDArray[np.int32]
    outcomes: NDArray[np.float64]
    strong: str
    weak: str

    def battles(self) -> Battles:
        """The table that the routers are fitted on."""
        count = len(self.outcomes)
        return Battles(
            prompts=tuple(f"Synthetic prompt {number:0{NAME_WIDTH}d}" for number in range(count)),
            models=tuple(map(str, self.models)),
            sources=("synthetic",),
            prompt_index=np.arange(count, dtype=np.int32),
            model_a=self.model_a,
            model_b=self.model_b,
            outcomes=self.outcomes,
            weights=np.ones(count),
            source_index=np.zeros(count, dtype=np.int32),
        )

    @property
    def pair(self) -> ModelPair:
        """The pair that is routed between."""
        return ModelPair(self.strong, self.weak)


class StoredEmbedder:
    """Gives the embedding on disk of each numbered prompt: embedding then costs a read, and no model."""

    def __init__(self, path: Path) -> None:
        rows = np.load(path, mmap_mode="r", allow_pickle=False)
        self.path, self.offset, self.dimensions = path, int(rows.offset), int(rows.shape[1])

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """The rows of these prompts, a copy, shape (n, d)."""
        found = np.empty((len(texts), self.dimensions), dtype=np.float32)
        size = self.dimensions * found.itemsize
        # Read through the file: pages of a mapped one would count as memory of the process.
        with self.path.open("rb", buffering=0) as file:
            for row, text in zip(found, texts, strict=True):
                file.seek(self.offset + int(text[-NAME_WIDTH:]) * size)
                file.readinto(row.data)
        return found


def make_columns(count: int, *, num_models: int = 64, seed: int = 0) -> tuple[Columns, NDArray[np.int64]]:
    """Draw battles between models whose abilities differ overall and by topic.

    Returns:
        The battles, and the topic of each prompt, shape (n,).
    """
    generator = np.random.default_rng(seed)
    ability = generator.permutation(np.linspace(SPREAD, -SPREAD, num_models))
    by_topic = ability + TOPIC_SPREAD * generator.standard_normal((TOPICS, num_models))
    topics = generator.integers(TOPICS, size=count)
    popularity = generator.dirichlet(np.full(num_models, 2.0))
    model_a = generator.choice(num_models, size=count, p=popularity)
    model_b = (model_a + generator.integers(1, num_models, size=count)) % num_models
    chance = 1.0 / (1.0 + np.exp(by_topic[topics, model_b] - by_topic[topics, model_a]))
    outcomes = (generator.random(count) < chance).astype(np.float64)
    outcomes[generator.random(count) < TIE_SHARE] = 0.5
    order = np.argsort(-ability)
    names = np.array([f"model-{number:02d}" for number in range(num_models)])
    columns = Columns(
        names,
        model_a.astype(np.int32),
        model_b.astype(np.int32),
        outcomes,
        str(names[order[0]]),
        str(names[order[num_models // 3]]),
    )
    return columns, topics


def write_embeddings(path: Path, topics: NDArray[np.int64], dimensions: int, *, seed: int = 1) -> None:
    """Write unit vectors that share a mean direction and gather by topic, as text embeddings do; float32 .npy."""
    generator = np.random.default_rng(seed)
    shared = 0.5 * generator.standard_normal(dimensions).astype(np.float32)
    centres = generator.standard_normal((TOPICS, dimensions)).astype(np.float32)
    rows = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(len(topics), dimensions))
    for start in range(0, len(topics), CHUNK):
        part = topics[start : start + CHUNK]
        block = shared + centres[part] + generator.standard_normal((len(part), dimensions), dtype=np.float32)
        rows[start : start + len(part)] = block / np.linalg.norm(block, axis=1, keepdims=True)
    rows.flush()


def make_queries(path: Path, count: int, *, seed: int = 2) -> NDArray[np.float32]:
    """Queries near prompts of the data: rows of the file with noise added, shape (count, d), unit length."""
    generator = np.random.default_rng(seed)
    rows = np.load(path, mmap_mode="r", allow_pickle=False)
    chosen = rows[np.sort(generator.choice(len(rows), size=count, replace=False))]
    noisy = chosen + 0.5 * generator.standard_normal(chosen.shape, dtype=np.float32) / np.sqrt(chosen.shape[1])
    queries: NDArray[np.float32] = noisy / np.linalg.norm(noisy, axis=1, keepdims=True)
    return queries.astype(np.float32)
