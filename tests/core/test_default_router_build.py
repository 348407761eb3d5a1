"""What `scripts/build_default_router.py` is made of, the router it writes, and that what it wrote belongs together."""

import importlib
import json
import os
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from prefroute.data import prompt_key
from prefroute.persistence import DEFAULT_ROUTER

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("PREFROUTE_DATA", ROOT / "../shared/data"))
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"the shared data are not at {DATA}; set PREFROUTE_DATA")


@pytest.fixture(autouse=True)
def _scripts_on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))


def part(name: str) -> ModuleType:
    assert str(ROOT / "scripts") in sys.path
    return importlib.import_module(f"default_router.{name}")


def test_text_is_cut_down_to_what_a_person_asks() -> None:
    sources = part("sources")
    assert sources.without_choices("Which is prime?\nA. 4\nB. 7\nC. 8\nD. 9\nAnswer:") == "Which is prime?"


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
    trained = {prompt_key(prompt) for source in read for prompt in source.prompts}
    alpaca = sources.read_alpaca_eval(DATA / "battles/alpaca_eval.jsonl.gz", trained)
    assert len(alpaca.prompts) > 500
    assert not trained & {prompt_key(prompt) for prompt in alpaca.prompts}


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
