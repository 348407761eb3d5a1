"""Quality of the routers on MMLU and GSM8K, trained on golden labels of the very benchmark.

Run: `python benchmarks/mmlu_gsm8k.py [--cache FILE] [--embedders static,minilm,minilm+static]`. Reads the responses
published with RouteLLM under `../shared/data` (or `PREFROUTE_DATA`). Random labels train (1,500 of MMLU, 650 of
GSM8K), all other prompts test; mean and standard deviation over five splits. Contaminated prompts, and test prompts
that are also in training, are left out. Nothing is chosen on the test part: base and centring of the similarity
weighting are chosen by the router itself, and the embedder of "embedder chosen too" has the least log loss in 5-fold
cross-validation on the training labels.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections import defaultdict
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from prefroute.data import Battles, ResponseTable, read_responses
from prefroute.embedding import ConcatenatedEmbedder, LengthEmbedder, SurfaceEmbedder, as_embedder
from prefroute.embedding.cache import CachedEmbedder
from prefroute.evaluation import apgr, cpt, draw_counts, resampled_apgr
from prefroute.routers.baselines import PromptLengthRouter, RandomRouter
from prefroute.routers.knn import KNNRouter
from prefroute.routers.logistic_regression import LogisticRegressionRouter
from prefroute.routers.similarity_weighted import SimilarityWeightedRouter
from prefroute.training import train_matrix_factorization
from prefroute.types import ModelPair

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from prefroute.embedding import Embedder
    from prefroute.router import Router

PAIR = ModelPair("gpt-4-1106-preview", "mistralai/Mixtral-8x7B-Instruct-v0.1")
FOLDS, RESAMPLES = 5, 200
SURFACES = ("", "length", "surface")


class Task(NamedTuple):
    """One benchmark: its name, where it lies, and how many labels train."""

    name: str
    pattern: str
    labels: int


TASKS = (Task("MMLU", "mmlu/mmlu_*.csv", 1500), Task("GSM8K", "gsm8k/gsm8k_responses.csv", 650))


class Settings(NamedTuple):
    """Of the similarity weighting."""

    base: float | None
    centred: bool | None


PUBLISHED = Settings(10.0, centred=False)
CHOSEN = Settings(None, None)


class StoredEmbedder:
    """Rows computed before, by prompt."""

    def __init__(self, rows: dict[str, NDArray[np.float32]]) -> None:
        self.rows = rows
        self.dimensions = len(next(iter(rows.values())))

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """The rows, shape (n, d)."""
        return np.stack([self.rows[text] for text in texts])


@dataclass(frozen=True)
class Split:
    """Training and test part of one benchmark.

    Attributes:
        train: The labels that train.
        test: Prompts that test.
        gains: Quality of the strong answer less that of the weak one, shape (t,).
        seed: Draws folds.
    """

    train: Battles
    test: list[str]
    gains: NDArray[np.float64]
    seed: int


def data_folder() -> Path:
    """Where the responses published with RouteLLM lie."""
    root = Path(__file__).resolve().parents[1]
    return Path(os.environ.get("PREFROUTE_DATA", root / "../shared/data")) / "routellm"


def read_task(folder: Path, task: Task) -> ResponseTable:
    """The responses, less the prompts that RouteLLM found contaminated."""
    files = sorted(folder.glob(task.pattern))
    if not files:
        msg = f"no {task.pattern} in {folder}; set PREFROUTE_DATA to the folder of the shared data"
        raise FileNotFoundError(msg)
    lines = (files[0].parent / "contaminated_prompts.jsonl").read_text(encoding="utf-8").splitlines()
    banned = {json.loads(line)["eval_prompt"] for line in lines}
    table = read_responses(files, [PAIR.strong, PAIR.weak])
    return table[np.array([prompt not in banned for prompt in table.prompts])]


def make_split(table: ResponseTable, labels: int, seed: int) -> Split:
    """Draw the labels that train."""
    order = np.random.default_rng(seed).permutation(len(table))
    train = table[order[:labels]]
    known = set(train.prompts)
    test = table[np.array([place for place in order[labels:] if table.prompts[place] not in known])]
    return Split(train.to_battles(), list(test.prompts), test.gains(PAIR), seed)


def with_surface(embedder: Embedder, surface: str, prompts: Sequence[str], models: int) -> Embedder:
    """The embedder as `as_embedder` names it: with `+length` or `+surface` beside the vectors of so many models."""
    longer = float(np.sqrt(models))
    if surface == "length":
        return ConcatenatedEmbedder([embedder, LengthEmbedder.fitted(prompts, scale=LengthEmbedder.scale * longer)])
    if surface == "surface":
        return ConcatenatedEmbedder([embedder, SurfaceEmbedder.fitted(prompts, scale=SurfaceEmbedder.scale * longer)])
    return embedder


def held_out_loss(split: Split, embedder: Embedder, settings: Settings) -> float:
    """Log loss of P(strong wins) on the training labels, each scored without its fold."""
    battles = split.train
    folds = np.random.default_rng(split.seed).permutation(len(battles.prompts)) % FOLDS
    fold_of_row = folds[battles.prompt_index]
    losses = []
    for fold in range(FOLDS):
        router = fit_similarity(battles[fold_of_row != fold], embedder, settings)
        labels = battles[fold_of_row == fold].for_pair(PAIR)
        chance = router.win_probability(labels.prompts).clip(1e-6, 1 - 1e-6)
        loss = labels.outcomes * np.log(chance) + (1.0 - labels.outcomes) * np.log(1.0 - chance)
        losses.append(-float(loss @ labels.weights) / float(labels.weights.sum()))
    return float(np.mean(losses))


def fit_similarity(battles: Battles, embedder: Embedder, settings: Settings) -> SimilarityWeightedRouter:
    """Similarity weighting with these settings; what is None is chosen by the router."""
    return SimilarityWeightedRouter.fit(
        battles, embedder=embedder, pair=PAIR, base=settings.base, centred=settings.centred
    )


def routers_of(split: Split, embedders: dict[str, Embedder]) -> Iterator[tuple[str, Router]]:
    """Every router of the table, fitted on the training part, with its label."""
    battles, prompts = split.train, split.train.prompts
    yield "random", RandomRouter(seed=split.seed)
    yield "prompt length", PromptLengthRouter.fit(battles, pair=PAIR)
    losses: dict[SimilarityWeightedRouter, float] = {}
    for (name, embedder), surface in product(embedders.items(), SURFACES):
        label = f"{name}+{surface}" if surface else name
        found = with_surface(embedder, surface, prompts, name.count("+") + 1)
        if not surface:
            yield f"similarity-weighted as published, {label}", fit_similarity(battles, found, PUBLISHED)
        router = fit_similarity(battles, found, CHOSEN)
        losses[router] = held_out_loss(split, found, Settings(router.base, router.index.mean is not None))
        yield f"similarity-weighted, {label}", router
        yield f"matrix factorization, {label}", train_matrix_factorization(battles, embedder=found, pair=PAIR)
        yield f"kNN, {label}", KNNRouter.fit(battles, embedder=found, pair=PAIR)
        yield f"logistic regression, {label}", LogisticRegressionRouter.fit(battles, embedder=found, pair=PAIR)
    yield "similarity-weighted, embedder chosen too", min(losses, key=losses.__getitem__)


class Results:
    """Figures by label, one a split."""

    def __init__(self) -> None:
        self.values: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))

    def add(self, label: str, split: Split, scores: NDArray[np.float64]) -> None:
        """Measure one router on one test part."""
        own, gains = self.values[label], split.gains
        measures: dict[str, Callable[[], float]] = {
            "apgr": lambda: apgr(scores, gains),
            "cpt50": lambda: cpt(scores, gains, 0.5),
            "cpt80": lambda: cpt(scores, gains, 0.8),
        }
        for name, measure in measures.items():
            own[name].append(measure())
        draws = draw_counts(len(gains), RESAMPLES, split.seed)
        low, high = np.percentile(resampled_apgr(scores, gains, draws), (2.5, 97.5))
        own["low"].append(float(low))
        own["high"].append(float(high))

    def table(self) -> str:
        """Markdown, best first."""
        lines = [
            "| router | APGR | sd over splits | 95 % over test prompts | CPT50 | CPT80 |",
            "|---|---|---|---|---|---|",
        ]
        for label, own in sorted(self.values.items(), key=lambda item: -float(np.mean(item[1]["apgr"]))):
            mean = {name: float(np.mean(values)) for name, values in own.items()}
            lines.append(
                f"| {label} | {mean['apgr']:.4f} | {np.std(own['apgr'], ddof=min(1, len(own['apgr']) - 1)):.4f} "
                f"| {mean['low']:.3f} to {mean['high']:.3f} | {mean['cpt50']:.1%} | {mean['cpt80']:.1%} |"
            )
        return "\n".join(lines)


def embedded(names: Sequence[str], prompts: Sequence[str], cache: Path) -> dict[str, Embedder]:
    """Every prompt embedded once by each model, through the cache on disk."""
    rows: dict[str, NDArray[np.float32]] = {}
    for model in dict.fromkeys(part for name in names for part in name.split("+")):
        rows[model] = CachedEmbedder(as_embedder(model), cache, progress=True).embed(prompts)
    found: dict[str, Embedder] = {}
    for name in names:
        side_by_side = np.hstack([rows[part] for part in name.split("+")])
        found[name] = StoredEmbedder(dict(zip(prompts, side_by_side, strict=True)))
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, help="file to keep embeddings in; a temporary one if left out")
    parser.add_argument("--embedders", type=lambda text: text.split(","), default=["static", "minilm", "minilm+static"])
    parser.add_argument("--seeds", type=lambda text: [int(seed) for seed in text.split(",")], default=range(5))
    arguments = parser.parse_args()
    data = data_folder()
    with tempfile.TemporaryDirectory() as name:
        cache = arguments.cache or Path(name) / "embeddings.sqlite"
        for task in TASKS:
            table, results = read_task(data, task), Results()
            embedders = embedded(arguments.embedders, list(dict.fromkeys(table.prompts)), cache)
            for seed in arguments.seeds:
                split = make_split(table, task.labels, seed)
                for label, router in routers_of(split, embedders):
                    results.add(label, split, router.win_probability(split.test))
            sizes = f"{task.labels} labels train, {len(split.test):,} prompts test, {len(arguments.seeds)} splits"
            print(f"\n{task.name}: {sizes}\n\n{results.table()}", flush=True)


if __name__ == "__main__":
    main()
