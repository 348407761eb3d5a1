"""What `scripts/build_default_router.py` is made of, the router it writes, and that what it wrote belongs together."""

import importlib
import json
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from prefroute import ConfigurationError, PersistenceError, load_router
from prefroute.persistence import DEFAULT_ROUTER, write_tensors
from prefroute.routers.matrix_factorization import LengthFeature, MatrixFactorizationRouter

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("PREFROUTE_DATA", ROOT / "../shared/data"))
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"the shared data are not at {DATA}; set PREFROUTE_DATA")


@pytest.fixture(autouse=True)
def _scripts_on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))


def part(name: str) -> ModuleType:
    assert str(ROOT / "scripts") in sys.path
    return importlib.import_module(f"default_router.{name}")


def test_apgr_of_perfect_random_and_worst_routing() -> None:
    apgr = part("metrics").apgr
    gains = np.array([1.0, 1.0, 0.0, 0.0])
    assert apgr(np.array([4.0, 3.0, 2.0, 1.0]), gains) == pytest.approx(0.75)
    assert apgr(np.zeros(4), gains) == pytest.approx(0.5)
    assert apgr(np.array([1.0, 2.0, 3.0, 4.0]), gains) == pytest.approx(0.25)
    assert np.isnan(apgr(np.arange(4.0), -gains))


def test_apgr_of_ties_is_the_mean_over_their_orders() -> None:
    apgr = part("metrics").apgr
    gains = np.array([1.0, 0.0, -1.0, 2.0])
    tied = apgr(np.array([2.0, 1.0, 1.0, 0.0]), gains)
    orders = [apgr(np.array([2.0, first, 1.5 - first, 0.0]), gains) for first in (1.0, 0.5)]
    assert tied == pytest.approx(np.mean(orders))


def test_apgr_with_counts_is_apgr_with_the_rows_repeated() -> None:
    apgr = part("metrics").apgr
    generator = np.random.default_rng(0)
    scores, gains = generator.integers(0, 5, 40).astype(float), generator.normal(0.5, 1, 40)
    counts = generator.integers(0, 3, 40)
    assert apgr(scores, gains, counts) == pytest.approx(apgr(np.repeat(scores, counts), np.repeat(gains, counts)))


def test_abilities_order_models_and_stay_finite_for_one_sided_votes() -> None:
    abilities = part("abilities")
    votes = [abilities.Vote("q", "a", "b", 1.0)] * 9 + [abilities.Vote("q", "b", "c", 0.5)] * 4
    found = abilities.abilities(votes)
    assert found["a"] > found["c"] >= found["b"] - 1e-9
    assert all(np.isfinite(value) for value in found.values())


def test_text_is_cut_down_to_what_a_person_asks() -> None:
    sources = part("sources")
    assert sources.without_choices("Which is prime?\nA. 4\nB. 7\nC. 8\nD. 9\nAnswer:") == "Which is prime?"
    assert sources.last_human_turn("### Human: Hi ### Assistant: Hello ### Human: Why? ### Assistant:") == "Why?"
    assert sources.normalised("  Why\nNOT? ") == "why not?"


def test_the_factorization_finds_what_separates_and_not_the_source() -> None:
    candidates = part("candidates")
    generator = np.random.default_rng(1)
    embeddings = generator.normal(size=(400, 3))
    sources = (np.arange(400) % 2).astype(np.int64)
    embeddings[:, 2] = sources  # tells the source and nothing else
    outcomes = (embeddings[:, 0] > 0) * 0.4 + sources * 0.5
    table = candidates.Table(embeddings, np.ones(400) + embeddings[:, 1], outcomes, np.ones(400), sources)
    fitted = candidates.fit_factorization(table, length_scale=1.0, ridge=1.0)
    assert fitted.weights[0] > 0.5
    assert abs(fitted.weights[2]) < 0.05
    assert candidates.fit_factorization(table, length_scale=0.0, ridge=1.0).length_weight == 0.0


def test_the_median_counts_every_source_the_same() -> None:
    scores = np.array([1.0, 1.0, 1.0, 1.0, 1.0, 9.0, 5.0, 6.0])
    sources = np.array([0, 0, 0, 0, 0, 0, 1, 1])
    assert np.median(scores) == 1.0
    assert part("validation").balanced_median(scores, sources) == 5.0


def test_int8_rows_times_their_scales_are_the_vectors() -> None:
    vectors = np.random.default_rng(2).normal(size=(5, 8)).astype(np.float32)
    vectors[3] = 0.0
    rows, scales = part("distil").quantised(vectors)
    assert rows.dtype == np.int8
    assert np.abs(rows * scales[:, None] - vectors).max() <= np.abs(vectors).max() / 127


@needs_data
def test_the_sources_are_read_whole_and_without_contaminated_prompts() -> None:
    sources = part("sources")
    read = sources.read_training_sources(DATA)
    assert {
        name: len(s.prompts) for s in read if (name := s.name) in sources.EXPECTED_COUNTS
    } == sources.EXPECTED_COUNTS
    for source in read:
        assert len(source.prompts) == len(source.gains) == len(source.outcomes)
        assert source.outcomes.min() >= 0
        assert source.outcomes.max() <= 1
        assert source.outcomes.mean() > 0.5
    mmlu, gsm8k = read[0], read[1]
    assert mmlu.gains.mean() == pytest.approx(0.8059 - 0.6809, abs=1e-4)
    assert gsm8k.gains.mean() == pytest.approx(0.8577 - 0.6373, abs=1e-4)
    assert read[2].gains.mean() == pytest.approx(9.212 - 8.281, abs=2e-3)
    trained = {sources.normalised(prompt) for source in read for prompt in source.prompts}
    alpaca = sources.read_alpaca_eval(DATA / "battles/alpaca_eval.jsonl.gz", trained)
    assert len(alpaca.prompts) > 500
    assert not trained & {sources.normalised(prompt) for prompt in alpaca.prompts}


def test_the_bundled_readme_says_what_was_measured() -> None:
    training = json.loads((DEFAULT_ROUTER / "training.json").read_text(encoding="utf-8"))
    assert (DEFAULT_ROUTER / "README.md").read_text(encoding="utf-8") == part("report").render(training)


def test_the_projects_readme_quotes_what_was_measured() -> None:
    training = json.loads((DEFAULT_ROUTER / "training.json").read_text(encoding="utf-8"))
    (chosen,) = [row["figures"] for row in training["candidates"] if row["name"] == training["chosen"]]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for name, unseen in training["one_source_left_out"].items():
        cells = [f"{f['apgr']:.3f} ({f['interval'][0]:.3f} to {f['interval'][1]:.3f})" for f in (chosen[name], unseen)]
        assert f" | {' | '.join(cells)} |" in readme, name
    low, high = training["alpaca_eval"]["chosen"]["interval"]
    assert f"| AlpacaEval | | {training['alpaca_eval']['chosen']['apgr']:.3f} ({low:.3f} to {high:.3f}) |" in readme


def test_the_bundled_files_are_small_and_name_no_machine() -> None:
    files = [path for path in DEFAULT_ROUTER.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 8_000_000
    assert {path.suffix for path in files} <= {".json", ".safetensors", ".md"}
    for path in files:
        if path.name in {"config.json", "training.json", "README.md"}:
            text = path.read_text(encoding="utf-8")
            assert not any(word in text for word in ("/tmp", "/home", "/work", "site-packages", "://"))


class Lengths:
    """Embeds a text as its length and 1; cannot be saved."""

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return np.array([[len(text), 1] for text in texts], dtype=np.float32).reshape(-1, 2)


def test_the_router_is_the_sigmoid_of_a_linear_score() -> None:
    length = LengthFeature(mean=np.log(3), deviation=2.0, weight=4.0)
    router = MatrixFactorizationRouter(embedder=Lengths(), weights=np.array([0.5, -1.0]), bias=0.25, length=length)
    logits = np.array([0.5 * 2 - 1 + 0.25, 0.5 * 8 - 1 + 0.25 + 4 * np.log(3) / 2])
    np.testing.assert_allclose(router.win_probability(["ab", "abcdefgh"]), 1 / (1 + np.exp(-logits)))
    extreme = MatrixFactorizationRouter(embedder=Lengths(), weights=np.array([-1e6, 0.0]))
    assert extreme.win_probability(["abc"])[0] == 0.0


@pytest.mark.parametrize(
    ("parts", "problem"),
    [
        ({"weights": np.ones((1, 256))}, r"256 finite numbers, .* got shape \(1, 256\)"),
        ({"weights": np.ones(2)}, r"got shape \(2,\)"),
        ({"weights": np.full(256, np.nan)}, "256 finite numbers"),
        ({"weights": "many"}, "got str"),
        ({"bias": np.zeros(1)}, "bias must be one finite number, got ndarray"),
        ({"bias": float("nan")}, "bias must be one finite number"),
        ({"threshold": "high"}, "threshold must be a finite number"),
    ],
)
def test_parts_that_do_not_fit_are_refused_before_any_prompt(parts: dict[str, Any], problem: str) -> None:
    embedder = MatrixFactorizationRouter.from_pretrained().embedder
    with pytest.raises(ConfigurationError, match=problem):
        MatrixFactorizationRouter(**{"embedder": embedder, "weights": np.ones(256), **parts})


def test_a_router_that_cannot_be_saved_or_read_says_why(tmp_path: Path) -> None:
    with pytest.raises(PersistenceError, match="Lengths has no save_pretrained"):
        MatrixFactorizationRouter(embedder=Lengths(), weights=np.ones(2)).save_pretrained(tmp_path)
    shutil.copytree(DEFAULT_ROUTER, tmp_path, dirs_exist_ok=True)
    write_tensors(tmp_path / "router.safetensors", {"weights": np.ones(3)})
    with pytest.raises(PersistenceError, match=r"256 finite numbers, .* got shape \(3,\)"):
        load_router(tmp_path)
    shutil.copy(DEFAULT_ROUTER / "router.safetensors", tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    for field, value in {"deviation": 0.0, "mean": float("nan"), "weight": float("inf")}.items():
        changed = {**config["settings"], "length": {**config["settings"]["length"], field: value}}
        (tmp_path / "config.json").write_text(json.dumps({**config, "settings": changed}))
        with pytest.raises(PersistenceError, match=r"must be finite and deviation above 0|finite number"):
            load_router(tmp_path)
