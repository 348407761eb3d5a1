"""What the tests of fitting share: judged prompts of two kinds, one of which needs the strong model."""

from collections.abc import Callable

import numpy as np
import pytest

from prefroute.evaluation.benchmarks import Benchmark
from prefroute.types import ModelPair

Toy = Callable[..., Benchmark]

PAIR = ModelPair("big", "small")
TOPICS = ("primes", "the Roman empire", "bread", "black holes", "chess", "tax law", "jazz", "tea", "rivers", "glass")


def toy_benchmark(
    n: int = 200, seed: int = 0, *, shuffled: bool = False, strong: float = 0.95, prompts: tuple[str, ...] | None = None
) -> Benchmark:
    """The weak model fails at every other prompt: four of five that derive, one of ten that name."""
    generator = np.random.default_rng(seed)
    hard = np.arange(n) % 2 == 0
    # Tables of different seeds, below 10, share no prompt.
    numbers = 1000 + seed + 10 * generator.permutation(800)[:n]
    texts = tuple(
        f"{'Derive theorem' if is_hard else 'Name fact'} {number} about {TOPICS[number // 10 % 10]}."
        for number, is_hard in zip(numbers, hard, strict=True)
    )
    qualities = np.stack([generator.random(n) < strong, generator.random(n) < np.where(hard, 0.2, 0.9)])
    if shuffled:
        qualities = qualities[:, generator.permutation(n)]
    upper, lower = qualities.astype(float)
    return Benchmark(name="toy", pair=PAIR, prompts=prompts or texts, strong=upper, weak=lower)


@pytest.fixture(scope="session")
def toy() -> Toy:
    return toy_benchmark
