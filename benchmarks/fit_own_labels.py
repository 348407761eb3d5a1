"""What `prefroute fit` makes of 1,500 labels: does it reach what it should, and is what it says of itself true?

Run: `OMP_NUM_THREADS=1 python benchmarks/fit_own_labels.py [--cache FILE] [--splits 20]`. Reads the responses published
with RouteLLM under `../shared/data` (or `PREFROUTE_DATA`). Of MMLU, 1,500 prompts drawn at random are fitted on, all
others test; neither the choice nor the interval sees the test part. Then the same with the labels dealt to the prompts
at random, where there is nothing to learn.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from mmlu_gsm8k import PAIR, TASKS, data_folder, embedded, read_task

from prefroute.embedding import ConcatenatedEmbedder, SurfaceEmbedder
from prefroute.evaluation import apgr
from prefroute.evaluation.benchmarks import Benchmark
from prefroute.fitting import fit_router

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from prefroute.data import ResponseTable
    from prefroute.embedding import Embedder
    from prefroute.fitting import FittedRouter

LABELS = 1500
RATES = (0.1, 0.3, 0.5, 0.7)


class Fit(NamedTuple):
    """One split.

    Attributes:
        found: What was fitted.
        area: APGR of the router on the test part.
        rates: Share of the test part that goes strong where `RATES` were asked for.
        seconds: Time to fit, without embedding.
    """

    found: FittedRouter
    area: float
    rates: list[float]
    seconds: float

    @property
    def is_covered(self) -> bool:
        """Whether the stated interval holds the APGR of the test part."""
        return bool(self.found.figures.apgr_low <= self.area <= self.found.figures.apgr_high)


def benchmark_of(table: ResponseTable, rows: NDArray[np.int64], labels: NDArray[np.int64]) -> Benchmark:
    """Prompts with the qualities that stand in other rows, or their own."""
    strong, weak = (table.quality[labels, table.models.index(name)] for name in (PAIR.strong, PAIR.weak))
    prompts = tuple(table.prompts[row] for row in rows)
    return Benchmark(name="MMLU", pair=PAIR, prompts=prompts, strong=strong, weak=weak)


def fit(table: ResponseTable, embedder: Embedder, seed: int) -> Fit:
    """Fit on a part, and measure on the rest."""
    order = np.random.default_rng(seed).permutation(len(table))
    train = order[:LABELS]
    known = {table.prompts[row] for row in train}
    test = table[np.array([row for row in order[LABELS:] if table.prompts[row] not in known])]
    started = perf_counter()
    found = fit_router(benchmark_of(table, train, train), embedders=[embedder], curve=False, seed=seed)
    seconds = perf_counter() - started
    scores = found.router.win_probability(test.prompts)
    thresholds = [found.router.threshold_for(rate) for rate in RATES]
    rates = [float((scores >= threshold).mean()) for threshold in thresholds]
    return Fit(found, apgr(scores, test.gains(PAIR)), rates, seconds)


def of_splits(table: ResponseTable, embedder: Embedder, name: str, splits: int) -> None:
    """Fit every split, and print a row of the table."""
    fits = [fit(table, embedder, seed) for seed in range(splits)]
    areas = np.array([item.area for item in fits])
    covered = sum(item.is_covered for item in fits)
    beats = sum(item.found.beats_random for item in fits)
    chosen = Counter(item.found.name for item in fits)
    kinds = ", ".join(f"{kind} {count}" for kind, count in chosen.most_common())
    rates = np.array([item.rates for item in fits])
    off = ", ".join(
        f"{rate:.0%}: {row.mean():.1%} ± {row.std(ddof=1):.1%}" for rate, row in zip(RATES, rates.T, strict=True)
    )
    seconds = np.median([item.seconds for item in fits])
    print(
        f"| {name} | {areas[:5].mean():.4f} | {areas.mean():.4f} | {areas.min():.3f} to {areas.max():.3f} "
        f"| {covered} of {splits} | {beats} of {splits} | {seconds:.0f} s | {kinds} |"
    )
    print(f"  rates asked for, and on the test part: {off}", flush=True)


def of_shuffled(table: ResponseTable, embedder: Embedder, splits: int) -> None:
    """Fit on labels that say nothing."""
    said = 0
    for seed in range(splits):
        numbers = np.random.default_rng(seed)
        rows = numbers.permutation(len(table))[:LABELS]
        found = fit_router(
            benchmark_of(table, rows, numbers.permutation(rows)), embedders=[embedder], curve=False, seed=seed
        )
        said += not found.beats_random
    print(f"\nLabels dealt at random: 'cannot be told from random' in {said} of {splits}", flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, help="file to keep embeddings in; a temporary one if left out")
    parser.add_argument("--embedders", type=lambda text: text.split(","), default=["static", "minilm", "minilm+static"])
    parser.add_argument("--splits", type=int, default=20)
    arguments = parser.parse_args()
    table = read_task(data_folder(), TASKS[0])
    with tempfile.TemporaryDirectory() as name:
        cache = arguments.cache or Path(name) / "embeddings.sqlite"
        stored = embedded(arguments.embedders, list(dict.fromkeys(table.prompts)), cache)
        print("| embedder | APGR, 5 splits | all | range | interval covers | beats random | time | chosen |")
        print("|---|---|---|---|---|---|---|---|")
        for own, embedder in stored.items():
            scale = SurfaceEmbedder.scale * float(np.sqrt(own.count("+") + 1))
            beside = ConcatenatedEmbedder([embedder, SurfaceEmbedder(scale=scale)])
            of_splits(table, beside, f"{own}+surface", arguments.splits)
        of_shuffled(table, ConcatenatedEmbedder([next(iter(stored.values())), SurfaceEmbedder()]), arguments.splits)


if __name__ == "__main__":
    main()
