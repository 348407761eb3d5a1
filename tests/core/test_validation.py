"""What a router recovers of prompts kept out: the figures, and that every fit tells them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prefroute import ModelPair, PersistenceError, load_router
from prefroute.data import Battles
from prefroute.evaluation import Validation, apgr, validate
from prefroute.routers.knn import KNNRouter
from prefroute.routers.logistic_regression import LogisticRegressionRouter
from prefroute.routers.similarity_weighted import SimilarityWeightedRouter
from prefroute.testing import FixedRouter
from prefroute.types import Battle

PAIR = ModelPair("big", "small")
FITS = [SimilarityWeightedRouter, KNNRouter, LogisticRegressionRouter]


def labelled(*, informative: bool, count: int = 300) -> Battles:
    """The big model is better on proofs; or on prompts drawn by chance."""
    random = np.random.default_rng(0)
    better = random.random(count) < 0.5
    shown = better if informative else random.permutation(better)
    texts = ("Name a nice thing about number {}.", "Prove the theorem about number {}.")
    return Battles.from_rows(
        Battle(texts[int(hard)].format(n), "big", "small", 1.0 if won else 0.5)
        for n, (hard, won) in enumerate(zip(shown, better, strict=True))
    )


def test_the_figures() -> None:
    random = np.random.default_rng(1)
    outcomes = random.integers(0, 3, 400) / 2 * 0.8 + 0.2
    scores, lengths = outcomes + random.normal(0, 0.5, 400), random.integers(1, 99, 400)
    found = validate(scores, outcomes, lengths)
    assert found.prompts == 400
    assert found.apgr == pytest.approx(apgr(scores, 2 * outcomes - 1))
    assert found.length_apgr == pytest.approx(apgr(lengths.astype(float), 2 * outcomes - 1))
    assert found.low is not None
    assert found.high is not None
    assert found.apgr is not None
    assert found.apgr - 0.2 < found.low < found.apgr < found.high < found.apgr + 0.2
    assert validate(scores, outcomes, lengths) == found
    nothing = Validation(prompts=2, apgr=None, low=None, high=None, length_apgr=None)
    assert validate(scores[:2], np.array([0.5, 0.0]), lengths[:2]) == nothing
    assert validate(scores[:0], outcomes[:0], lengths[:0]).prompts == 0


@pytest.mark.parametrize("kind", FITS, ids=lambda kind: kind.__name__)
def test_spellings_of_one_prompt_are_kept_out_together(kind: Any) -> None:
    """Coin flips, each prompt twice: a twin in another fold would give every label away."""
    random = np.random.default_rng(0)
    rows = []
    for number in range(200):
        outcome = float(random.random() < 0.6)
        text = f"explain {random.integers(10**9)} to number {number}"
        rows += [Battle(text, "big", "small", outcome), Battle(text.upper(), "big", "small", outcome)]
    router = kind.fit(Battles.from_rows(rows), embedder="static", pair=PAIR)
    assert router.validation.apgr < 0.75
    fresh = [f"explain {random.integers(10**9)} to number {number}" for number in range(300)]
    assert 0.2 < (router.win_probability(fresh) >= router.threshold).mean() < 0.8


@pytest.mark.parametrize("kind", FITS, ids=lambda kind: kind.__name__)
def test_where_nothing_can_be_learnt_random_is_what_is_told(kind: Any) -> None:
    """Scores of prompts kept out are lower where these were better: what that alone ranks must not be told."""

    class Same:
        dimensions = 3

        def embed(self, texts: Any) -> Any:
            return np.tile(np.array([0.1, 0.7, -0.3], dtype=np.float32), (len(texts), 1))

    found = kind.fit(labelled(informative=True), embedder=Same(), pair=PAIR).validation
    assert found.apgr == pytest.approx(0.5, abs=1e-6)


@pytest.mark.parametrize("kind", FITS, ids=lambda kind: kind.__name__)
def test_every_fit_tells_what_it_recovers(kind: Any, tmp_path: Path) -> None:
    router = kind.fit(labelled(informative=True), pair=PAIR)
    assert router.validation.prompts == 300
    assert router.validation.low > 0.65
    router.save_pretrained(tmp_path)
    assert load_router(tmp_path).validation == router.validation
    chance = kind.fit(labelled(informative=False), pair=PAIR).validation
    assert chance.low < 0.5 < chance.high


def test_a_damaged_record_is_refused_and_a_missing_one_is_not(tmp_path: Path) -> None:
    router = KNNRouter.fit(labelled(informative=True), pair=PAIR)
    router.save_pretrained(tmp_path)
    config = tmp_path / "config.json"
    whole = config.read_text()
    config.write_text(whole.replace('"prompts": 300', '"prompts": "many"'))
    with pytest.raises(PersistenceError, match="prompts"):
        load_router(tmp_path)
    assert FixedRouter().validation is None
    assert load_router().validation is None
