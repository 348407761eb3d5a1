"""Training a matrix factorization: what it learns, what it reports, and what it refuses."""

import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prefroute.data import Battles, read_responses
from prefroute.embedding import ConcatenatedEmbedder, LengthEmbedder, StaticEmbedder
from prefroute.errors import ConfigurationError, DataError, MissingExtraError
from prefroute.evaluation.metrics import apgr
from prefroute.routers.matrix_factorization import MatrixFactorizationRouter
from prefroute.types import Battle, ModelPair

torch = pytest.importorskip("torch", reason="needs the train extra")

from prefroute.training import MatrixFactorizationConfig, train_matrix_factorization  # noqa: E402
from prefroute.training._factors import Rows, fit_factors  # noqa: E402
from prefroute.training.matrix_factorization import _deal  # noqa: E402

PAIR = ModelPair("a", "b")
MODELS = ("a", "b", "c", "d")
SIZE, DIMENSIONS = 600, 10
DATA = Path(os.environ.get("PREFROUTE_DATA", Path(__file__).parents[2] / "../shared/data"))
FAST = MatrixFactorizationConfig(dimensions=16, folds=2, max_epochs=30, learning_rate=3e-3)


class TableEmbedder:
    """Prompts are row numbers of a table."""

    def __init__(self, table: Any) -> None:
        self.table = table
        self.asked = 0

    @property
    def dimensions(self) -> int:
        return int(self.table.shape[1])

    def embed(self, texts: Sequence[str]) -> Any:
        self.asked += len(texts)
        return self.table[[int(text) for text in texts]]


@cache
def truth() -> tuple[Any, Any]:
    """Embeddings (n, d), far from centred and of uneven spread, and true weights of the models (m, d)."""
    generator = np.random.default_rng(1)
    spread = np.linspace(0.2, 2.0, DIMENSIONS)
    table = (generator.standard_normal((SIZE, DIMENSIONS)) * spread + 3).astype(np.float32)
    return table, generator.standard_normal((4, DIMENSIONS)) / spread


def probability(a: int, b: int) -> Any:
    table, weights = truth()
    return 1.0 / (1.0 + np.exp(-((table - 3) @ (weights[a] - weights[b]) + 0.3 * (b - a))))


def battles(*, hard: bool = True, pairs: Sequence[tuple[int, int]] = ((0, 1), (1, 2), (2, 3), (3, 0))) -> Battles:
    generator = np.random.default_rng(2)
    rows = []
    for a, b in pairs:
        chance = probability(a, b)
        won = (generator.random(SIZE) < chance).astype(float) if hard else chance
        rows += [Battle(str(i), MODELS[a], MODELS[b], float(won[i])) for i in range(SIZE)]
    return Battles.from_rows(rows)


@cache
def trained() -> MatrixFactorizationRouter:
    return train_matrix_factorization(battles(), embedder=TableEmbedder(truth()[0]), pair=PAIR, config=FAST)


@pytest.mark.parametrize(("strong", "weak"), [(0, 1), (2, 1), (0, 2)])
def test_it_recovers_who_wins_where_also_for_pairs_that_never_met(strong: int, weak: int) -> None:
    router = trained().with_pair(ModelPair(MODELS[strong], MODELS[weak]))
    found = router.win_probability([str(i) for i in range(SIZE)])
    assert np.corrcoef(found, probability(strong, weak))[0, 1] > 0.95
    assert np.abs(found - probability(strong, weak)).mean() < 0.1


def test_the_threshold_sends_about_half_to_the_strong_model() -> None:
    router = trained()
    texts = [str(i) for i in range(SIZE)]
    for pair in (PAIR, ModelPair("c", "b")):
        of_pair = router.with_pair(pair)
        assert of_pair.threshold is not None
        assert 0.4 < np.mean(of_pair.win_probability(texts) >= of_pair.threshold) < 0.6


def test_the_report_says_what_was_learnt() -> None:
    report = trained().training
    assert report is not None
    assert (report.battles, report.prompts, report.models, report.ties_dropped) == (4 * SIZE, SIZE, 4, 0)
    assert report.validation_prompts == SIZE
    assert len(report.epochs) == len(report.best_epochs) == 2
    assert all(1 <= best <= made <= 30 for best, made in zip(report.best_epochs, report.epochs, strict=True))
    assert report.train_loss < report.validation_loss < np.log(2)
    expected = apgr(probability(0, 1), 2 * battles().for_pair(PAIR).outcomes - 1)
    validation = trained().validation
    assert validation is not None
    assert validation.prompts == SIZE
    assert validation.apgr == pytest.approx(expected, rel=0.05)
    assert trained().with_pair(ModelPair("c", "b")).validation is None


def test_ratings_follow_the_battles() -> None:
    ratings = trained().ratings
    assert ratings is not None
    assert ratings.mean() == pytest.approx(1000)
    assert ratings.argmax() == 0


def test_the_same_seed_gives_the_same_scores_and_another_does_not() -> None:
    texts = [str(i) for i in range(SIZE)]
    noisy = MatrixFactorizationConfig(dimensions=8, folds=1, max_epochs=2, noise=0.1)
    state = torch.random.get_rng_state()

    def scores(seed: int) -> Any:
        config = MatrixFactorizationConfig(**(vars(noisy) | {"seed": seed}))
        embedder = TableEmbedder(truth()[0])
        return train_matrix_factorization(battles(), embedder=embedder, pair=PAIR, config=config).win_probability(texts)

    first = scores(1)
    np.testing.assert_array_equal(first, scores(1))
    assert not np.array_equal(first, scores(2))
    assert torch.equal(state, torch.random.get_rng_state())


def test_soft_outcomes_and_weights_are_honoured() -> None:
    """A soft outcome teaches what the wins and losses that it stands for teach, each with its weight."""
    table = truth()[0]
    split, soft = [], []
    for i in range(SIZE):
        share = float(probability(0, 1)[i])
        soft.append(Battle(str(i), "a", "b", share, weight=2.0))
        split += [Battle(str(i), "a", "b", 1.0, 2 * share), Battle(str(i), "b", "a", 1.0, 2 * (1 - share))]
    config = MatrixFactorizationConfig(
        dimensions=8, folds=1, max_epochs=150, batch_size=2000, learning_rate=1e-2, weight_decay=1e-4
    )
    found = [
        train_matrix_factorization(Battles.from_rows(rows), embedder=TableEmbedder(table), pair=PAIR, config=config)
        for rows in (split, soft)
    ]
    first, second = (router.win_probability([str(i) for i in range(SIZE)]) for router in found)
    np.testing.assert_allclose(first, second, atol=0.03)
    np.testing.assert_allclose(second, probability(0, 1), atol=0.15)


def test_ties_count_as_half_or_are_dropped() -> None:
    rows = [*battles(pairs=[(0, 1)]), *(Battle(str(i), "a", "b", 0.5) for i in range(200))]
    table = Battles.from_rows(rows)
    options: dict[str, Any] = {"embedder": TableEmbedder(truth()[0]), "pair": PAIR}
    half = train_matrix_factorization(table, config=FAST, **options).training
    drop = train_matrix_factorization(
        table, config=MatrixFactorizationConfig(**(vars(FAST) | {"ties": "drop"})), **options
    )
    assert half is not None
    assert drop.training is not None
    assert (half.battles, half.ties_dropped) == (SIZE + 200, 0)
    assert (drop.training.battles, drop.training.ties_dropped) == (SIZE, 200)


def test_prompts_are_never_on_both_sides_and_are_embedded_once() -> None:
    """Outcomes of pure noise by prompt, repeated: a split by row would find them again on the held-out side."""
    generator = np.random.default_rng(5)
    table = generator.standard_normal((40, 64)).astype(np.float32)
    won = generator.integers(0, 2, 40).astype(float)
    rows = [Battle(str(i), "a", "b", won[i]) for i in range(40) for _ in range(10)]
    embedder = TableEmbedder(table)
    config = MatrixFactorizationConfig(dimensions=16, max_epochs=20, patience=None, learning_rate=1e-2, weight_decay=0)
    report = train_matrix_factorization(Battles.from_rows(rows), embedder=embedder, pair=PAIR, config=config).training
    assert report is not None
    assert report.train_loss < 0.1
    assert report.validation_loss > 0.6
    assert embedder.asked == 40


def test_spellings_of_one_prompt_are_held_out_together() -> None:
    class Forgiving(TableEmbedder):
        def embed(self, texts: Sequence[str]) -> Any:
            return super().embed([text.strip() for text in texts])

    rows = [Battle(spelling, "a", "b", 1.0) for i in range(3) for spelling in (f"{i}", f" {i}", f"{i}\n")]
    config = MatrixFactorizationConfig(dimensions=4, max_epochs=1, folds=5)
    options: dict[str, Any] = {"embedder": Forgiving(truth()[0]), "pair": PAIR, "config": config}
    report = train_matrix_factorization(Battles.from_rows(rows), **options).training
    assert report is not None
    assert (report.prompts, len(report.epochs)) == (9, 3)
    for folds in (5, 1):
        dealt = _deal([row.prompt for row in rows], MatrixFactorizationConfig(folds=folds)).reshape(3, 3)
        assert (dealt == dealt[:, :1]).all()
        assert len(set(dealt[:, 0])) == (3 if folds > 1 else 2)
    with pytest.raises(DataError, match="over one prompt"):
        train_matrix_factorization(Battles.from_rows(rows[:3]), **options)


def test_early_stopping_keeps_the_best_pass() -> None:
    generator = np.random.default_rng(5)
    table = generator.standard_normal((80, 64)).astype(np.float32)
    labels = generator.integers(0, 2, 80).astype(np.float32)
    index = np.arange(80)
    rows = Rows(index, np.zeros(80, np.int64), np.ones(80, np.int64), labels, np.ones(80, np.float32))
    parts = rows.at(index < 60), rows.at(index >= 60)

    def fit(**changes: Any) -> Any:
        config = MatrixFactorizationConfig(
            **({"dimensions": 16, "learning_rate": 1e-2, "max_epochs": 40, "weight_decay": 0} | changes)
        )
        epochs: list[int] = []
        found = fit_factors(table, *parts, models=2, config=config, seed=0, on_epoch=lambda: epochs.append(1))
        return found, len(epochs)

    stopped, passes = fit(patience=3)
    assert passes == stopped.epochs == stopped.best_epoch + 3 < 40
    cut, _ = fit(patience=None, max_epochs=stopped.best_epoch)
    np.testing.assert_array_equal(cut.weights, stopped.weights)
    whole, passes = fit(patience=None)
    assert passes == whole.epochs == whole.best_epoch == 40
    assert whole.validation_loss > stopped.validation_loss


@pytest.mark.parametrize(
    ("changes", "smaller"),
    [({"weight_decay": 0.05}, True), ({"noise": 3.0}, True), ({"weight_decay": 0.0}, False), ({"noise": 0.0}, False)],
)
def test_weight_decay_and_noise_shrink_what_is_learnt(changes: dict[str, float], smaller: bool) -> None:
    table = truth()[0] - 3
    index = np.arange(SIZE)
    zeros, ones = np.zeros(SIZE, np.int64), np.ones(SIZE, np.int64)
    rows = Rows(index, zeros, ones, probability(0, 1).astype(np.float32), np.ones(SIZE, np.float32))

    def size(**others: Any) -> float:
        options: dict[str, Any] = {"dimensions": 8, "max_epochs": 40, "patience": None, "learning_rate": 1e-2}
        config = MatrixFactorizationConfig(**(options | {"weight_decay": 0.0} | others))
        found = fit_factors(table, rows, rows, models=2, config=config, seed=0, on_epoch=lambda: None)
        return float(np.linalg.norm(found.weights[0] - found.weights[1]))

    assert (size(**changes) < 0.8 * size()) is smaller


def test_the_served_form_is_the_factors_multiplied_out() -> None:
    """One step of training by hand, from the same start, in float64."""
    from prefroute.training._factors import _Factors

    table = truth()[0][:8]
    rows = Rows(
        np.arange(8), np.zeros(8, np.int64), np.ones(8, np.int64), np.ones(8, np.float32), np.ones(8, np.float32)
    )
    config = MatrixFactorizationConfig(dimensions=5, max_epochs=1, patience=None, learning_rate=1e-12)
    found = fit_factors(table, rows, rows, models=3, config=config, seed=4, on_epoch=lambda: None)
    start = _Factors(3, DIMENSIONS, config, 4, torch.device("cpu"))
    vectors, projection, head, bias = (
        tensor.detach().double().numpy() for tensor in (start.models, start.projection, start.head, start.bias)
    )
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    scores = np.array([[(unit[m] * (projection @ e + bias)) @ head for m in range(3)] for e in table])
    np.testing.assert_allclose(table @ found.weights.T + found.biases, scores, atol=1e-5)
    gaps = scores[:, 0] - scores[:, 1]
    assert found.validation_loss == pytest.approx(np.logaddexp(0, -gaps).mean(), abs=1e-5)


def test_the_published_settings() -> None:
    config = MatrixFactorizationConfig.published(max_epochs=10)
    assert (config.learning_rate, config.weight_decay, config.batch_size, config.dimensions) == (3e-4, 1e-5, 64, 128)
    assert (config.ties, config.bias, config.standardise, config.noise) == ("drop", False, False, 0.1)
    assert (config.patience, config.max_epochs, config.folds) == (None, 10, 1)
    small = MatrixFactorizationConfig.published(max_epochs=2, dimensions=8)
    router = train_matrix_factorization(battles(), embedder=TableEmbedder(truth()[0]), pair=PAIR, config=small)
    np.testing.assert_array_equal(router.biases, 0)
    assert router.training is not None
    assert router.training.validation_prompts == round(SIZE * 0.05)


def test_without_an_embedder_it_learns_from_the_bundled_one_and_the_length() -> None:
    rows = [Battle(f"{'Why? ' * (i % 9)}{i}", "a", "b", float(i % 9 > 4)) for i in range(90)]
    router = train_matrix_factorization(Battles.from_rows(rows), pair=PAIR, config=FAST)
    assert isinstance(router.embedder, ConcatenatedEmbedder)
    static, length = router.embedder.parts
    assert isinstance(static, StaticEmbedder)
    assert isinstance(length, LengthEmbedder)
    assert router.win_probability(["Why? " * 8])[0] > router.win_probability(["Why?"])[0]


def test_few_prompts_get_five_folds_and_many_one(monkeypatch: pytest.MonkeyPatch) -> None:
    options: dict[str, Any] = {"embedder": TableEmbedder(truth()[0]), "pair": PAIR}
    config = MatrixFactorizationConfig(dimensions=4, max_epochs=1)
    report = train_matrix_factorization(battles(), config=config, **options).training
    assert report is not None
    assert len(report.epochs) == 5
    monkeypatch.setattr("prefroute.training.matrix_factorization._FEW_PROMPTS", SIZE - 1)
    report = train_matrix_factorization(battles(), config=config, **options).training
    assert report is not None
    assert (len(report.epochs), report.validation_prompts) == (1, SIZE // 10)


@pytest.mark.parametrize(("count", "expected"), [(SIZE, 0.5 / SIZE), (50, 3e-3), (2, 3e-3)])
def test_weight_decay_shrinks_as_the_battles_grow(count: int, expected: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prefroute.training.matrix_factorization._PRIOR", 0.5)
    seen: list[float | None] = []
    real = fit_factors

    def spy(*arguments: Any, config: MatrixFactorizationConfig, **others: Any) -> Any:
        seen.append(config.weight_decay)
        return real(*arguments, config=config, **others)

    monkeypatch.setattr("prefroute.training._factors.fit_factors", spy)
    table = battles(pairs=[(0, 1)])[:count]
    config = MatrixFactorizationConfig(dimensions=4, max_epochs=1, folds=1)
    options: dict[str, Any] = {"embedder": TableEmbedder(truth()[0]), "pair": PAIR}
    train_matrix_factorization(table, config=config, **options)
    train_matrix_factorization(
        table, config=MatrixFactorizationConfig(**(vars(config) | {"weight_decay": 0.2})), **options
    )
    assert seen == [pytest.approx(expected), 0.2]


def test_two_prompts_are_enough() -> None:
    rows = [Battle("0", "a", "b", 1.0), Battle("1", "b", "a", 1.0)]
    config = MatrixFactorizationConfig(dimensions=4, max_epochs=2)
    router = train_matrix_factorization(
        Battles.from_rows(rows), embedder=TableEmbedder(truth()[0]), pair=PAIR, config=config
    )
    assert router.training is not None
    assert len(router.training.epochs) == 2
    assert np.isfinite(router.win_probability(["0", "5"])).all()


def test_no_battles_of_the_pair_itself_are_needed() -> None:
    table = battles(pairs=[(0, 2), (1, 2)])
    router = train_matrix_factorization(table, embedder=TableEmbedder(truth()[0]), pair=PAIR, config=FAST)
    assert router.training is not None
    assert router.validation is None
    found = router.win_probability([str(i) for i in range(SIZE)])
    assert np.corrcoef(found, probability(0, 1))[0, 1] > 0.9


def test_progress_is_shown_on_stderr_only_when_asked(capfd: pytest.CaptureFixture[str]) -> None:
    options: dict[str, Any] = {"embedder": TableEmbedder(truth()[0]), "pair": PAIR, "config": FAST}
    train_matrix_factorization(battles(), **options)
    assert capfd.readouterr() == ("", "")
    train_matrix_factorization(battles(), progress=True, **options)
    shown = capfd.readouterr()
    assert shown.out == ""
    assert "Fold 2" in shown.err


def test_the_number_of_threads_is_left_as_it_was_also_by_ctrl_c() -> None:
    before = torch.get_num_threads()
    rows = Rows(
        np.arange(8), np.zeros(8, np.int64), np.ones(8, np.int64), np.ones(8, np.float32), np.ones(8, np.float32)
    )

    def interrupt() -> None:
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        fit_factors(truth()[0][:8], rows, rows, models=2, config=FAST, seed=0, on_epoch=interrupt)
    assert torch.get_num_threads() == before


def test_importing_it_loads_no_torch() -> None:
    code = "import sys, prefroute.training, prefroute.compat.routellm; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_without_torch_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "torch" else found(name))
    with pytest.raises(MissingExtraError, match=r"prefroute\[train\]"):
        train_matrix_factorization(battles(), pair=PAIR)


def test_unusable_data_is_refused() -> None:
    embedder = TableEmbedder(truth()[0])

    def refused(table: Battles, pair: ModelPair = PAIR, **changes: Any) -> str:
        config = MatrixFactorizationConfig(**(vars(FAST) | changes))
        with pytest.raises(DataError) as caught:
            train_matrix_factorization(table, embedder=embedder, pair=pair, config=config)
        return str(caught.value)

    assert "models: none" in refused(Battles.from_rows([]))
    assert "'elk'" in refused(battles(), ModelPair("elk", "a"))
    assert "a, b, c, d" in refused(battles(), ModelPair("elk", "fox"))
    ties = Battles.from_rows([Battle(str(i), "a", "b", 0.5) for i in range(9)])
    assert "0 of 9 battles are left" in refused(ties, ties="drop")
    assert "over one prompt, '0'" in refused(Battles.from_rows([Battle("0", "a", "b", 1.0)]))
    embedder.table = np.where(np.arange(SIZE)[:, None] == 7, np.nan, truth()[0])
    assert "not finite for '7'" in refused(battles())
    embedder.table = np.zeros((SIZE, 0), dtype=np.float32)
    assert "one row each" in refused(battles())


def test_what_is_no_pair_or_config_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="MatrixFactorizationConfig, got dict"):
        train_matrix_factorization(battles(), pair=PAIR, config={})  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="ModelPair"):
        train_matrix_factorization(battles(), pair=("a", "b"))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("dimensions", 0),
        ("dimensions", 2.0),
        ("max_epochs", 0),
        ("max_epochs", True),
        ("batch_size", -1),
        ("patience", 0),
        ("folds", 0),
        ("seed", -1),
        ("bias", 1),
        ("standardise", "yes"),
        ("learning_rate", 0.0),
        ("learning_rate", float("nan")),
        ("weight_decay", -1e-3),
        ("noise", float("inf")),
        ("validation_share", 0.0),
        ("validation_share", 1.0),
        ("ties", "skip"),
        ("device", ""),
    ],
)
def test_settings_out_of_range_are_refused(field: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=field):
        MatrixFactorizationConfig(**{field: value})


def test_an_unknown_device_is_refused_before_anything_is_embedded() -> None:
    embedder = TableEmbedder(truth()[0])
    config = MatrixFactorizationConfig(device="abacus")
    with pytest.raises(ConfigurationError, match="'abacus' cannot be used"):
        train_matrix_factorization(battles(), embedder=embedder, pair=PAIR, config=config)
    assert embedder.asked == 0


def test_on_mmlu_it_beats_the_length_of_the_prompt() -> None:
    """1,500 golden labels and the bundled embedder; the mean of five such trainings is .637 on all of the rest."""
    files = sorted((DATA / "routellm/mmlu").glob("mmlu_*.csv"))
    if not files:
        pytest.skip(f"needs the MMLU answers in {DATA}; set PREFROUTE_DATA")
    pair = ModelPair("gpt-4-1106-preview", "mistralai/Mixtral-8x7B-Instruct-v0.1")
    responses = read_responses(files, [pair.strong, pair.weak])
    order = np.random.default_rng(100).permutation(len(responses))
    train, test = responses[order[:1500]], responses[order[1500:5500]]
    config = MatrixFactorizationConfig(max_epochs=30)
    router = train_matrix_factorization(train.to_battles(), pair=pair, config=config)
    found = router.win_probability(test.prompts)
    gains = test.gains(pair)
    assert apgr(found, gains) > 0.61
    assert apgr(found, gains) > apgr(np.array([len(prompt) for prompt in test.prompts], dtype=np.float64), gains) + 0.02
    assert router.validation is not None
    assert router.validation.low is not None
    assert router.validation.high is not None
    # One deviation of an APGR of 1,500 prompts is .03.
    assert router.validation.apgr == pytest.approx(apgr(found, gains), abs=0.09)
    assert 0.03 < router.validation.high - router.validation.low < 0.2
    assert router.threshold is not None
    assert 0.4 < np.mean(found >= router.threshold) < 0.6
